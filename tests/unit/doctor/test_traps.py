"""What is seen in one file: the vendor's samples are good, and what is known of an environment is used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from outgate.doctor import lint, traps
from outgate.doctor.report import State
from outgate.doctor.traps import Known
from outgate.doctor.traps.names import MAIL, OAUTH, USER
from outgate.mailer.config import Forward, Forwards
from outgate.mailer.folders import ConfigFile, Configurations

GOOD: dict[str, Any] = {
    "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
    "smtp.port": "30465",
    "smtp.user": "$[env:EMAIL_USERNAME;default=myApiKey]",
    "smtp.password": "$[secret:EMAIL_PASSWORD]",
    "from.address": "noreply@wknd.site",
    "smtp.ssl": True,
    "smtp.starttls": False,
    "smtp.requiretls": False,
    "debug.email": False,
    "oauth.flow": False,
}
STORED = {"EMAIL_USERNAME": "string", "EMAIL_PASSWORD": "secretString"}
FORWARDS = Forwards("10.1.2.3", {30465: Forward(30465, "smtp.mymail.com", 465), 30080: Forward(30080, "www", 80)})


def look(known: Known | None = None, pid: str = MAIL, **changed: Any) -> list[Any]:
    given = GOOD | {name.replace("_", "."): value for name, value in changed.items()}
    text = json.dumps({name: value for name, value in given.items() if value is not ...}, indent=2)
    file = ConfigFile(pid, (), "f.cfg.json", text.encode())
    return traps.of(file, file.parse(), known or Known(variables=STORED))


def rules(known: Known | None = None, pid: str = MAIL, **changed: Any) -> list[str]:
    return [each.rule for each in look(known, pid, **changed)]


# The four revisions of the vendor's page differ in the port and in the user's default only.
@pytest.mark.parametrize("port", ["30002", "30465"])
@pytest.mark.parametrize("user", ["apikey", "emailapikey", "myApiKey"])
def test_the_vendors_samples_are_good_but_for_the_note_about_their_own_command(port: str, user: str) -> None:
    found = look(Known(), smtp_port=port, smtp_user=f"$[env:EMAIL_USERNAME;default={user}]")
    assert [(each.rule, each.state) for each in found] == [("documented-as-secret", State.OK)]
    assert rules(smtp_port=port, smtp_user=f"$[env:EMAIL_USERNAME;default={user}]") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$[conf:no]", True),
        ("$[conf:no] \\$[conf:no]", True),  # the escaped one does not hide the other
        ("\\$[conf:no]", False),
        ("$[= $[conf:no]", False),  # nothing behind one that is not closed is read
        ("$[conf:no] $[= $[conf:no]", True),
    ],
)
def test_what_the_service_reads_is_looked_at(text: str, found: bool) -> None:
    assert ("conf-missing" in rules(pid="org.example.Thing", text=text)) is found


def test_a_switch_with_a_space_is_off() -> None:
    (found,) = look(smtp_ssl="true ")
    assert (found.rule, found.change) == ("flag-not-boolean", '"smtp.ssl": true,')


@pytest.mark.parametrize("host", ["Proxy.Tunnel", "proxy.tunnel.", "$[env:AEM_PROXY_HOST;default=PROXY.tunnel]"])
def test_the_tunnel_is_known_however_its_name_is_written(host: str) -> None:
    assert rules(smtp_host=host) == []
    known = Known(STORED, FORWARDS)
    assert rules(known, smtp_host=host, smtp_port="30465") == []
    assert rules(known, smtp_host=host, smtp_port="30999") == ["port-no-forward"]


def test_a_variable_of_the_other_type_is_told_in_both_directions() -> None:
    turned = Known(variables={"EMAIL_USERNAME": "secretString", "EMAIL_PASSWORD": "string"})
    user, password = look(turned)
    assert (user.rule, user.change, user.line, user.column) == (
        "env-reads-secret",
        '"smtp.user": "$[secret:EMAIL_USERNAME]",',
        4,
        17,
    )
    assert (password.rule, password.change) == ("secret-reads-variable", "")
    assert "its default is used" in user.text and "it stays as it is" in password.text


@pytest.mark.parametrize("known", [Known(), Known(STORED)])
def test_a_user_is_not_read_from_the_passwords_secret(known: Known) -> None:
    (found,) = look(known, smtp_user="$[env:EMAIL_PASSWORD;default=x]")[:1]
    assert (found.change, "the user's own" in found.remedy) == (f'"smtp.user": "{USER}",', True)
    assert rules(smtp_user=USER) == rules(Known(), smtp_user=USER) == []


def test_an_empty_default_is_a_value_only_where_nothing_is_set() -> None:
    written = {"smtp_password": "$[secret:MAIL_PASSWORD;default=]", "from_address": "$[env:MAIL_FROM;default=]"}
    assert rules(Known(), smtp_user="$[env:MAIL_USER;default=]", **written) == []
    assert sorted(rules(**written)) == ["from-missing", "password-missing"]
    assert rules(Known(STORED | {"MAIL_PASSWORD": "secretString"}, env={"MAIL_FROM": "a@b.example"}), **written) == []


def test_what_is_not_set_and_has_no_default_stays() -> None:
    assert rules(Known(variables={})) == ["variable-missing"]
    assert rules(Known(variables=STORED | {"AEM_PROXY_HOST": "string"})) == ["tunnel-variable-set"]


@pytest.mark.parametrize(
    ("port", "rule", "change"),
    [
        ("465", "port-real", '"smtp.port": "30465",'),
        (465, "port-real", '"smtp.port": 30465,'),
        ("30466", "port-no-forward", '"smtp.port": "30465",'),
        ("30080", "forward-not-mail", ""),
        ("3128", "port-range", '"smtp.port": "30465",'),
    ],
)
def test_ports_are_held_against_the_forwards(port: object, rule: str, change: str) -> None:
    found = look(Known(STORED, FORWARDS), smtp_port=port)
    assert [(each.rule, each.change) for each in found] == [(rule, change)]


def test_a_port_without_any_forward_for_mail_names_the_forward_to_add() -> None:
    (found,) = look(Known(STORED, Forwards("", {})), smtp_port="30587", smtp_ssl=False, smtp_requiretls=True)
    assert (found.rule, found.change) == (
        "port-no-forward",
        '{"name": "SERVER", "portDest": 587, "portOrig": 30587}',
    )


def test_tls_is_held_against_where_the_port_leads() -> None:
    crossed = Forwards("", {30587: Forward(30587, "mx", 465)})
    (found,) = look(Known(STORED, crossed), smtp_port="30587", smtp_ssl=False, smtp_requiretls=True)
    assert (found.rule, found.change) == ("tls-mismatch", '"smtp.ssl": true,')
    assert rules(Known(STORED, crossed), smtp_port="30587") == []
    assert rules(smtp_port="30587") == ["tls-echo"]
    assert rules(smtp_port="30002", smtp_ssl=False, smtp_requiretls=True) == []
    assert rules(Known(STORED, FORWARDS), smtp_host="10.1.2.3") == []


TRAP = "$[env.A] $[env:B;x;default=1;y]"


@pytest.mark.parametrize(
    "value",
    [
        "[" + f'"{TRAP}",' * 2_500 + '""]',
        f'"{TRAP * 2_500}"',
        '"' + "".join(f"$[env.A{number}]$[env:B;{number}]" for number in range(2_500)) + '"',
        '"$[env:AB' + ";x" * 200_000 + ']"',
        '"' + "$[env:A;x=" * 3_000 + "]" * 3_000 + '"',
        '"' + "${env:A" * 5_000 + '"',
    ],
    ids=["list", "one text", "all different", "directives", "nested", "not closed"],
)
def test_a_large_file_with_traps_all_over_is_done_with_at_the_first_of_them(value: str) -> None:
    text = f'{{"smtp.user": {value}, "smtp.password": "x"}}'
    file = ConfigFile(MAIL, (), "f.cfg.json", text.encode())
    found = traps.of(file, file.parse(), Known())
    assert 1 < len(found) <= traps.MOST + 1
    assert (len(found) > traps.MOST) == ("more-findings" in {each.rule for each in found})
    lint.of(Configurations("", (file,)))


def test_the_secrets_of_an_oauth_provider_are_looked_for_and_their_lines_written() -> None:
    text = '{\n"tokenUrl": "https://x/token",\n"clientId": "c",\n"clientSecret": "s-e-c-r-e-t",\n"oauth.refresh.token": "t"\n}'
    file = ConfigFile(OAUTH, (), "f.cfg.json", text.encode())
    found = traps.of(file, file.parse(), Known())
    assert [(each.rule, each.change, each.line) for each in found] == [
        ("oauth-incomplete", '"refreshToken": "$[secret:SECRET_SMTP_OAUTH_REFRESH_TOKEN]",', 1),
        ("password-in-clear", '"clientSecret": "$[secret:SECRET_SMTP_OAUTH_CLIENT_SECRET]",', 4),
        ("unknown-property", "", 5),
    ]
    assert found[2].text == "oauth.refresh.token is no property of this service; refreshToken is"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"smtp_host": "smtp.sendgrid.net", "smtp_port": "465"}, ["host-not-tunnel"]),
        ({"smtp_host": "smtp.sendgrid.net", "smtp_port": 587}, ["host-not-tunnel", "tls-mismatch"]),
        ({"smtp_host": "10.0.0.1"}, ["host-not-tunnel"]),
        ({"smtp_host": "proxy.tunnel"}, []),
        ({"smtp_host": "$[env:MY_HOST;default=localhost]"}, ["host-default", "host-variable"]),
        ({"smtp_port": 30465}, []),
        ({"smtp_port": 30465.5}, ["port-not-number"]),
        ({"smtp_port": "$[env:MAIL_PORT;type=Integer;default=465]"}, ["port-real"]),
        ({"smtp_port": "$[env:MAIL_PORT;type=Integer]"}, []),
        ({"smtp_port": 30025}, ["tls-echo"]),
        ({"smtp_ssl": "$[env:MAIL_SSL;type=Boolean;default=false]"}, ["tls-echo", "starttls-optional"]),
        ({"smtp_password": "${env.EMAIL_PASSWORD}"}, []),
        ({"smtp_password": "$[EMAIL_PASSWORD]"}, ["misspelt-placeholder"]),
        ({"smtp_password": "${smtp.password}"}, []),
        ({"smtp_password": "${EMAIL_PASSWORD}"}, ["misspelt-placeholder"]),
        ({"smtp_user": "$(EMAIL_USERNAME)"}, ["misspelt-placeholder"]),
        ({"smtp_password": "$[secret:EMAIL_PASSWORD]]"}, ["misspelt-placeholder"]),
        ({"smtp_user": "$[env:EMAIL_USERNAME;default=x];"}, ["misspelt-placeholder"]),
        ({"smtp_user": "$[conf:user.of.ours]", "user.of.ours": "x"}, []),
        ({"smtp_password": "pa${ss}word"}, ["password-in-clear"]),
        ({"smtp_user": "$[env:MAIL_TOKEN;default=abc]"}, ["secret-from-env"]),
        ({"from_address": "$[env:FROM;default=me@example.com]"}, []),
        ({"smtp_password": ["$[secret:EMAIL_PASSWORD]"]}, ["login-invalid"]),
        ({"smtp_user": "one\ntwo"}, ["login-invalid"]),
        ({"smtp_user": "one\n"}, ["stray-space"]),
        ({"from_address": "a@b.example, c@d.example"}, ["from-invalid"]),
        ({"from_address": "info@exämple.de"}, []),
        ({"smtp_user": ..., "smtp_password": ...}, []),
        ({"service_ranking": 5, "jcr_primaryType": "sling:OsgiConfig"}, ["unknown-property"]),
    ],
)
def test_what_is_a_trap_and_what_is_none(given: dict[str, Any], expected: list[str]) -> None:
    stored = STORED | dict.fromkeys(("MY_HOST", "MAIL_PORT", "MAIL_SSL", "FROM"), "string")
    assert sorted(rules(Known(stored), **given)) == sorted(expected)
