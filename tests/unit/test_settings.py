"""Settings: where they come from, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from outgate.settings import BadSettings, load


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
        ("relay = 3\n", ["relay", "must be a section"]),
        ('[relay]\nmax_recipients = "x"\n', ["relay.max_recipients", "integer"]),
        ("[relay]\nmax_recipients = 0\n", ["relay.max_recipients", "greater than or equal to 1"]),
        ('[relay]\nproxy_trusted = ["127.0.0.0/33"]\n', ["relay.proxy_trusted.0", "127.0.0.0/33"]),
        ('[relay.endpoint]\noutgoing_addresses = ["here"]\n', ["relay.endpoint.outgoing_addresses.0", "here"]),
        ("[relay.endpoint]\noutgoing_addresses = []\n", ["relay.endpoint.outgoing_addresses", "at least 1"]),
        ('[egress]\nguard_exceptions = ["x/y"]\n', ["egress.guard_exceptions.0", "x/y"]),
        ('[egress]\nshared_addresses = ["x"]\n', ["egress.shared_addresses.0", "'x'"]),
        ('[relay]\ndeliver_to = "there"\n', ["relay.deliver_to", "'there' is not address:port"]),
        ('[relay.endpoint]\nehlo_name = ""\n', ["relay.endpoint.ehlo_name", "is not a domain name"]),
        ('[relay]\nspf_host = "a b"\n', ["relay.spf_host", "'a b'"]),
        ('[dev]\ndomain = "x y"\n', ["dev.domain", "'x y'"]),
        ("[relay]\nretry_first_s = inf\n", ["relay.retry_first_s", "finite"]),
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
        '[relay]\nspf_host = "_spf.a.test"\ndeliver_to = "[::1]:25"\nendpoint = { host_name = "MX.A.test" }\n'
    )
    relay = load(file).relay
    assert (relay.spf_host, relay.deliver_to, relay.endpoint.host_name) == ("_spf.a.test", "[::1]:25", "mx.a.test")


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
