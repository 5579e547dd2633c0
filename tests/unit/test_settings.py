"""Settings: where they come from, and what is said about wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from outgate.settings import BadSettings, compiled, default_routes, load


def endpoint(name: str, **values: Any) -> str:
    """Return an endpoint in TOML."""
    listen, outgoing = [f"192.0.2.{ord(name[0])}"], ["192.0.2.1"]
    all_values = {"public_name": f"{name.lower()[0]}.test", "listen": listen, "outgoing_addresses": outgoing} | values
    return f"[relay.endpoints.{name}]\n" + "".join(
        f"{key} = {json.dumps(value)}\n" for key, value in all_values.items()
    )


def test_the_environment_comes_before_the_file_and_the_file_before_a_modes_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "outgate.toml"
    file.write_text('[relay]\nmax_recipients = 7\nmax_errors = 3\n[dev]\ndomain = "a.test"\n')
    monkeypatch.setenv("OUTGATE_RELAY__MAX_RECIPIENTS", "9")
    monkeypatch.setenv("OUTGATE_RELAY__AUTHORIZATION", "manual")
    settings = load(file, relay={"authorization": "automatic", "max_errors": 4, "spf_host": "spf.mode.test"})
    relay = settings.relay
    assert (relay.max_recipients, relay.authorization, relay.max_errors) == (9, "manual", 3)
    assert (relay.spf_host, settings.dev.domain) == ("spf.mode.test", "a.test")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[relay]\nfoo = 1\n", ["relay.foo", "no such setting"]),
        ("foo = 1\n", ["foo", "no such setting"]),
        ('[egress]\nwitness = "witness.example"\n', ["egress.witness", "host:port"]),
        ("relay = 3\n", ["relay", "must be a section"]),
        ('[relay]\nmax_recipients = "x"\n', ["relay.max_recipients", "integer"]),
        ("[relay]\nmax_recipients = 0\n", ["relay.max_recipients", "greater than or equal to 1"]),
        ('[relay]\nproxy_trusted = ["127.0.0.0/33"]\n', ["relay.proxy_trusted.0", "127.0.0.0/33"]),
        ('[egress]\ntunnel_network = "127.1.0.1-9"\n', ["egress.tunnel_network", "127.1.0.1-9"]),
        ('[egress]\nclient_networks = ["10.0.0.0/8", "all"]\n', ["egress.client_networks.1", "all"]),
        ('[egress]\nregions = ["va7", "Va 8"]\n', ["egress.regions.1", "'Va 8'"]),
        ("[egress]\nregions = []\n", ["egress.regions", "at least 1"]),
        ('[egress]\nresolvers = ["dns.example:53"]\n', ["egress.resolvers.0", "dns.example:53"]),
        ('[egress]\nresolvers = ["192.0.2.1:0"]\n', ["egress.resolvers.0", "a port is 1 to 65535"]),
        ('[egress]\nshared_addresses = ["127.0.0.3"]\n', ["egress: 127.0.0.3 cannot be shared and dedicated"]),
        ('[egress]\nshared_addresses = ["::ffff:127.0.0.3"]\n', ["egress: 127.0.0.3 cannot be shared and dedicated"]),
        ('[egress]\ndedicated_addresses = ["0.0.0.0"]\n', ["dedicated_addresses.0", "not the address of one host"]),
        (endpoint("a", outgoing_addresses=["here"]), ["relay.endpoints.a.outgoing_addresses.0", "here"]),
        (endpoint("a", outgoing_addresses=[]), ["relay.endpoints.a.outgoing_addresses", "at least 1"]),
        (endpoint("a", listen=["0.0.0.0"]), ["relay.endpoints.a.listen.0", "0.0.0.0 is not the address of one host"]),
        (endpoint("a", listen=["::"]), ["relay.endpoints.a.listen.0", ":: is not the address of one host"]),
        (endpoint("a", outgoing_addresses=["0.0.0.0"]), ["relay.endpoints.a.outgoing_addresses.0", "0.0.0.0"]),
        ("[relay.endpoints.a]\n", ["relay.endpoints.a.public_name", "required"]),
        ("[relay.endpoints]\n", ["relay.endpoints", "one endpoint at least"]),
        (endpoint("A_b"), ["relay.endpoints.A_b", "'A_b' is not a name of small letters"]),
        (endpoint("a", regions=["EU"]), ["relay.endpoints.a.regions.0", "'EU'"]),
        (endpoint("a", private_name="a b"), ["relay.endpoints.a.private_name", "'a b' is not a domain name"]),
        (
            endpoint("a", public_name=".".join(["a" * 61] * 4)),
            ["relay.endpoints", "a: 'private.aaa", "is too long: set private_name"],
        ),
        (endpoint("a", key_file="k.pem"), ["relay.endpoints", "certificate_file and key_file, or neither"]),
        (endpoint("a", regions=["x"]) + endpoint("b", regions=["x"]), ["region x is in a and in b"]),
        (endpoint("a") + endpoint("b", private_name="a.test"), ["name a.test is in a and in b"]),
        (endpoint("a", listen=["::1"]) + endpoint("b", listen=["0:0::1"]), ["listening address ::1 is in a and in b"]),
        ('[egress]\nguard_exceptions = ["10.1.2"]\n', ["egress.guard_exceptions.0", "'10.1.2' is not an address"]),
        ('[egress]\nguard_exceptions = ["x/y"]\n', ["egress.guard_exceptions.0", "x/y"]),
        ('[egress]\nshared_addresses = ["x"]\n', ["egress.shared_addresses.0", "'x'"]),
        ('[relay]\ndeliver_to = "there"\n', ["relay.deliver_to", "'there' is not address:port"]),
        (endpoint("a", public_name=""), ["relay.endpoints.a.public_name", "is not a domain name"]),
        ('[relay]\nspf_host = "a b"\n', ["relay.spf_host", "'a b'"]),
        ('[dev]\ndomain = "x y"\n', ["dev.domain", "'x y'"]),
        ("[relay]\nretry_first_s = inf\n", ["relay.retry_first_s", "finite"]),
        (
            '[egress]\nproxy_protocol_targets = ["a.example:smtp"]\n',
            ["egress.proxy_protocol_targets.0", "is not name:port"],
        ),
        ('[egress]\nmail_targets = ["10.1.2"]\n', ["egress.mail_targets.0", "'10.1.2' is not name:port"]),
        ("[relay\n", ["is not TOML", "line 1"]),
    ],
)
def test_a_wrong_setting_is_named_without_the_librarys_own_words(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises(BadSettings) as caught:
        load(file)
    said = str(caught.value)
    assert all(word in said for word in [*words, "wrong.toml"]), said
    assert "pydantic" not in said and "\n" not in said


def test_names_and_hosts_that_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "right.toml"
    file.write_text(
        '[relay]\nspf_host = "_spf.a.test"\ndeliver_to = "[::1]:25"\n' + endpoint("m", public_name="MX.A.test")
    )
    relay = load(file).relay
    assert (relay.spf_host, relay.deliver_to) == ("_spf.a.test", "[::1]:25")
    assert relay.endpoints["m"].public_name == "mx.a.test"


def test_nine_regions_have_two_endpoints() -> None:
    endpoints = compiled(load(None).relay.endpoints)
    served = {each.id: each.regions for each in endpoints.all}
    assert served == {
        "us-south": ("us-south", "ca-tor", "jp-tok", "jp-osa", "au-syd", "eu-gb", "br-sao"),
        "eu-de": ("eu-de", "eu-es"),
    }
    assert {each.public_name: each.private_name for each in endpoints.all} == {
        "smtp.outgate.test": "private.smtp.outgate.test",
        "smtp.eu-de.outgate.test": "private.smtp.eu-de.outgate.test",
    }
    assert not {*endpoints.all[0].outgoing_addresses} & {*endpoints.all[1].outgoing_addresses}


def test_an_installations_own_endpoints_stand_instead_of_the_default_ones(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(endpoint("z", regions=["nowhere-1"]) + endpoint("a", regions=["eu-de"], ehlo_name="out.test"))
    endpoints = compiled(load(file).relay.endpoints)
    assert [each.id for each in endpoints.all] == ["z", "a"]
    first, second = endpoints.all
    assert (first.private_name, first.ehlo_name, second.ehlo_name) == ("private.z.test", "z.test", "out.test")
    assert endpoints.of_region("eu-de") is second
    assert endpoints.of_region("us-south") is endpoints.of_region("nowhere-1") is first


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="cannot be read: No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe9'")
    with pytest.raises(BadSettings, match="is not TOML"):
        load(tmp_path / "latin.toml")


def test_a_wrong_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTGATE_RELAY__MAX_ERRORS", "many")
    with pytest.raises(BadSettings, match=r"environment.*relay\.max_errors"):
        load(None)
    monkeypatch.setenv("OUTGATE_EGRESS", "{")
    with pytest.raises(BadSettings, match="environment"):
        load(None)


def test_a_public_name_may_be_as_long_as_names_are_if_the_private_one_is_another(tmp_path: Path) -> None:
    file = tmp_path / "outgate.toml"
    file.write_text(endpoint("a", public_name=".".join(["a" * 61] * 4), private_name="b.test"))
    assert compiled(load(file).relay.endpoints).all[0].private_name == "b.test"


def test_routes_of_the_installation(tmp_path: Path) -> None:
    secret, file = tmp_path / "password", tmp_path / "outgate.toml"
    secret.write_text("correct horse\n")
    file.write_text(
        f"""[[relay.routes]]
name = "house"
host = "smtp.example.net"
username = "outgate"
password_file = "{secret}"
[[relay.routes]]
name = "direct"
type = "direct"
"""
    )
    house, direct = default_routes(load(file).relay)
    assert (house.name, house.host, house.port, house.password) == ("house", "smtp.example.net", 587, "correct horse")
    assert direct.type == "direct" and "correct horse" not in repr(house)
    assert default_routes(load(None).relay) == ()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('username = "u"', "password_file come together"),
        ('username = "u"\npassword_file = "/nowhere"', "No such file"),
        ('host = "no host"', "host name"),
        ('names = ["a.test"]\nverify = false', "verify must be true"),
    ],
)
def test_routes_that_cannot_be_used_are_named(tmp_path: Path, more: str, said: str) -> None:
    file = tmp_path / "outgate.toml"
    host = "" if "host" in more else 'host = "smtp.example.net"\n'
    file.write_text(f'[[relay.routes]]\nname = "house"\n{host}{more}\n')
    with pytest.raises((ValueError, OSError), match=said):
        default_routes(load(file).relay)
