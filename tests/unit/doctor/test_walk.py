"""The walk against an API of the vendor's shape, which tells no secrets and tests no connections; and what is printed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from outgate.cloud_manager import CloudManager
from outgate.doctor import commands, printing
from outgate.doctor.asking import of_environment, of_process
from outgate.doctor.hops.contact import Trust
from outgate.doctor.hops.facts import Asked
from outgate.doctor.hops.reaching import Patience
from outgate.doctor.report import Finding, Hop, Report, State
from outgate.doctor.surroundings import Surroundings
from outgate.doctor.traps.names import MAIL, OAUTH
from outgate.doctor.walk import HOPS, walk
from outgate.doctor.witnesses import Outgate, Record, Seen, Standing
from support.answering import answering
from support.mail_peers import Authority, Script, serving

FILE = {
    "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
    "smtp.port": 30465,
    "smtp.user": "$[env:EMAIL_USERNAME]",
    "smtp.password": "$[secret:EMAIL_PASSWORD]",
    "from.address": "noreply@shop.test",
    "smtp.ssl": True,
}


class Vendor:
    """An API with what the vendor's has, and no more."""

    def __init__(self, port: int) -> None:
        self.environment: dict[str, Any] = {"id": "2", "type": "prod", "status": "ready"}
        self.variables: list[dict[str, Any]] = [
            {"name": "EMAIL_USERNAME", "type": "string", "value": "someone", "status": "ready"},
            {"name": "EMAIL_PASSWORD", "type": "secretString", "status": "ready"},
        ]
        self.networking: list[dict[str, Any]] = [
            {
                "advancedNetworkingEnabled": True,
                "portForwards": [{"name": "localhost", "portDest": port, "portOrig": 30465}],
                "nonProxyHosts": ["*.example.com"],
            }
        ]
        self.infrastructures: list[dict[str, Any]] = [{"id": "7", "kind": "dedicatedEgressIp", "status": "ready"}]
        self.refused: set[str] = set()

    def answer(self, path: str) -> object | None:
        last = path.rpartition("/")[2]
        if last in self.refused:
            return None
        if path.endswith("/environment/2"):
            return self.environment
        lists = {
            "variables": ("variables", self.variables),
            "advancedNetworking": ("networkingConfigurations", self.networking),
            "networkInfrastructures": ("networkInfrastructures", self.infrastructures),
        }
        if last not in lists:
            return None
        name, found = lists[last]
        return {"_totalNumberOfItems": len(found), "_embedded": {name: found}}


@contextmanager
def serve(vendor: Vendor) -> Iterator[str]:
    def answer(path: str) -> tuple[int, bytes]:
        found = vendor.answer(path)
        return (404, b'{"title": "Not Found"}') if found is None else (200, json.dumps(found).encode())

    with answering(answer) as url:
        yield url


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def walked(directory: Path, authority: Authority, vendor: Vendor, **changes: object) -> Report:
    file = directory / "mail.cfg.json"
    file.write_text(json.dumps(FILE | changes, indent=1))
    with serve(vendor) as url:
        api = CloudManager(url, "org", "client", "token")
        around = of_environment(api, "1", "2", "author", lambda _said: None)
        outgate = Outgate(api, None, "1", "2")
        return walk(
            Asked(str(file), around.run_modes, around, outgate, Trust(str(authority.file)), patience=Patience(1.0))
        )


def states(report: Report, hop: Hop) -> list[State]:
    return [each.state for each in report.findings if each.hop is hop]


def said(report: Report, hop: Hop) -> str:
    return " / ".join(each.text for each in report.findings if each.hop is hop)


def test_at_the_vendor_what_cannot_be_known_is_told_and_the_target_is_looked_at_from_here(
    tmp_path: Path, authority: Authority
) -> None:
    script = Script(authority.context("localhost"), implicit=True)
    with serving(script) as port:
        report = walked(tmp_path, authority, Vendor(port))
    assert report.broken is None and report.exit_code == 0
    assert states(report, Hop.VARIABLES) == [State.OK, State.UNKNOWN]
    assert "does not tell the values of secrets" in said(report, Hop.VARIABLES)
    assert states(report, Hop.FORWARD) == [State.OK]
    assert states(report, Hop.TUNNEL) == [State.UNKNOWN]
    assert "resolves within the environment only" in said(report, Hop.TUNNEL)
    assert "from here, not through the tunnel" in said(report, Hop.TARGET_DNS)
    assert states(report, Hop.TLS) == states(report, Hop.EHLO) == [State.OK]
    assert states(report, Hop.AUTH) == [State.UNKNOWN]
    assert states(report, Hop.DELIVERY) == [State.UNKNOWN]
    assert not any(line.startswith(b"AUTH") for line in script.seen)


def test_a_target_that_is_not_reached_from_here_proves_nothing(tmp_path: Path, authority: Authority) -> None:
    port = {"smtp.port": "$[conf:PORT.of]", "port.of": 30465, "id": "$[conf:service.pid]"}  # found in any case
    report = walked(tmp_path, authority, Vendor(9), **port)
    assert report.broken is None
    assert states(report, Hop.TCP) == states(report, Hop.TLS) == states(report, Hop.EHLO) == [State.UNKNOWN]


def test_what_stands_for_a_password_that_is_not_known_is_no_secret(tmp_path: Path, authority: Authority) -> None:
    script = Script(greeting=b"554 5.7.1 unknown client host\r\n")
    with serving(script) as port:
        report = walked(tmp_path, authority, Vendor(port), **{"smtp.ssl": False})
    assert report.broken is not None and "554 5.7.1 unknown client host" in report.broken.text


def test_without_a_tunnel_nothing_is_said_of_forwards(tmp_path: Path, authority: Authority) -> None:
    file = tmp_path / "mail.cfg.json"
    (tmp_path / "PW").write_text("hush-hush")
    for script, ssl in ((Script(first=b"HTTP/1.1 400 No\r\n"), False), (Script(), True), (Script(), False)):
        with serving(script) as port:
            file.write_text(
                json.dumps(
                    {"smtp.host": "localhost", "smtp.port": port, "smtp.user": "me"}
                    | {"smtp.password": "$[secret:PW]", "smtp.ssl": ssl, "smtp.requiretls": not ssl}
                )
            )
            around = of_process({"OUTGATE_SECRETS": str(tmp_path)}, "author")
            asked = Asked(str(file), ("author",), around, Outgate(None, None, "", ""), Trust(), patience=Patience(1.0))
            broken = walk(asked).broken
        assert broken is not None and broken.hop in (Hop.TLS, Hop.EHLO)
        assert "smtp.port" in broken.remedy and "forward" not in broken.remedy


@pytest.mark.parametrize(
    ("files", "rule", "change"),
    [
        ([f"config/{MAIL}.config"], "other-format", ""),
        ([f"config/{MAIL}.config", f"config/{MAIL}.cfg.json"], "other-format", f"rm config/{MAIL}.config"),
        ([f"config/{MAIL}.json"], "file-name", f"mv config/{MAIL}.json config/{MAIL}.cfg.json"),
        ([f"config.preview/{MAIL}.cfg.json"], "folder-unsupported", ""),
        ([f"config.publish.stage/{MAIL}.cfg.json"], "no-file",
         "outgate doctor --config . --service publish --run-modes publish,stage"),
        (["a/jcr_root/apps/x/osgiconfig/config.author/org.example.Thing.cfg.json"], "no-file",
         f" > a/jcr_root/apps/x/osgiconfig/config/{MAIL}.cfg.json"),
    ],
)  # fmt: skip
def test_where_no_file_counts_the_advice_is_no_circle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], rule: str, change: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for each in map(Path, files):
        each.parent.mkdir(parents=True, exist_ok=True)
        each.write_text("{}")
    around = of_process({}, "author")
    broken = walk(Asked(".", ("author", "prod"), around, Outgate(None, None, "", ""), Trust())).broken
    assert broken is not None and broken.rule == rule and broken.change.endswith(change), broken
    assert bool(broken.change) == bool(change)


@pytest.mark.parametrize(
    ("changes", "rule", "line"),
    [
        ({"smtp.password": ""}, "password-missing", '"smtp.password": "$[secret:EMAIL_PASSWORD]",'),
        ({"smtp.user": "", "oauth.flow": True}, "oauth-user", '"smtp.user": "$[env:EMAIL_USERNAME]",'),
    ],
)
def test_what_the_mailer_would_refuse_is_told_with_the_line_to_write(
    tmp_path: Path, authority: Authority, changes: dict[str, object], rule: str, line: str
) -> None:
    broken = walked(tmp_path, authority, Vendor(9), **changes).broken
    assert broken is not None and (broken.rule, broken.change) == (rule, line)


def test_what_is_set_counts_and_not_the_default_that_it_replaces(tmp_path: Path, authority: Authority) -> None:
    vendor = Vendor(9)
    for name, value in (("PORT", "30465"), ("SSL", "true"), ("SENDER", "a@shop.test"), ("PASSWORD", "")):
        kind = "string" if value else "secretString"
        vendor.variables.append({"name": f"MAIL_{name}", "type": kind, "value": value, "status": "ready"})
    written = {
        "smtp.port": "$[env:MAIL_PORT;default=465]",
        "smtp.ssl": "$[env:MAIL_SSL;default=off]",
        "from.address": "$[env:MAIL_SENDER;default=nobody]",
        "smtp.password": "$[secret:MAIL_PASSWORD;default=]",
    }
    report = walked(tmp_path, authority, vendor, **written)
    assert {each.rule for each in report.findings} <= {"", "domain-missing"}
    vendor.variables[2]["value"] = "465"
    broken = walked(tmp_path, authority, vendor, **written).broken
    assert broken is not None and (broken.hop, broken.rule) == (Hop.FORWARD, "port-real")


@pytest.mark.parametrize(
    ("written", "have", "line"),
    [
        ("$[secret:EMAIL_PASWORD]", "EMAIL_PASSWORD", '"smtp.password": "$[secret:EMAIL_PASSWORD]",'),
        (
            "$[secret:EMAIL_PASWORD;type=String]",
            "EMAIL_PASSWORD",
            '"smtp.password": "$[secret:EMAIL_PASSWORD;type=String]",',
        ),
        ("$[secret:MAIL_KEY]", "EMAIL_PASSWORD", " --secretFile MAIL_KEY -"),
    ],
)
def test_a_misspelt_variable_is_known_again(
    tmp_path: Path, authority: Authority, written: str, have: str, line: str
) -> None:
    broken = walked(tmp_path, authority, Vendor(9), **{"smtp.password": written}).broken
    assert broken is not None and broken.rule == "variable-missing" and broken.change.endswith(line), broken
    assert (f"{have} is set" in broken.text) == line.startswith('"')


def test_a_wrong_certificate_is_told_from_here_too(tmp_path: Path, authority: Authority) -> None:
    with serving(Script(authority.context("mail.example"), implicit=True)) as port:
        broken = walked(tmp_path, authority, Vendor(port)).broken
    assert broken is not None and broken.rule == "certificate-name"
    assert '"name": "mail.example"' in broken.change and '"*.example.com"' in broken.change


@pytest.mark.parametrize(
    ("change", "rule", "part"),
    [
        (lambda it: it.infrastructures[0].update(status="creating"), "infrastructure-not-ready", "is creating"),
        (
            lambda it: it.infrastructures[0].update(status="failed", statusDetails={"message": "no address"}),
            "infrastructure-not-ready",
            "no address",
        ),
        (lambda it: it.networking.clear(), "networking-off", "is off"),
        (lambda it: (it.networking.clear(), it.infrastructures.clear()), "no-infrastructure", "no network"),
        (
            lambda it: it.networking[0].update(status="failed", statusDetails={"message": "30465 is taken"}),
            "networking-failed",
            "30465 is taken",
        ),
        (lambda it: it.variables[0].update(status="failed"), "variable-failed", "status is failed"),
        (lambda it: it.variables[0].update(status="ignored"), "variable-failed", "status is ignored"),
        (lambda it: it.variables[1].update(service="publish"), "variable-service", "for publish only"),
        (lambda it: it.variables[0].update(type="secretString"), "env-reads-secret", "stored as a secret"),
        (
            lambda it: it.variables.append({"name": "AEM_PROXY_HOST", "type": "string", "value": "x"}),
            "tunnel-variable-set",
            "AEM_PROXY_HOST",
        ),
    ],
)
def test_what_the_environment_lacks_is_told(
    tmp_path: Path, authority: Authority, change: Any, rule: str, part: str
) -> None:
    vendor = Vendor(9)
    change(vendor)
    report = walked(tmp_path, authority, vendor)
    assert report.broken is not None
    assert report.broken.rule == rule and part in report.broken.text
    assert report.exit_code in (12, 13)
    if rule == "tunnel-variable-set":
        assert report.broken.change.endswith("--delete AEM_PROXY_HOST")


@pytest.mark.parametrize(
    ("port", "forward"),
    [
        (30587, '"portDest": 587, "portOrig": 30587'),
        (30001, '"portDest": 465, "portOrig": 30001'),
        (587, '"portDest": 587, "portOrig": 30587'),
        (41000, '"portDest": 465, "portOrig": 30465'),
    ],
)
def test_a_put_has_ports_that_the_api_takes(tmp_path: Path, authority: Authority, port: int, forward: str) -> None:
    vendor = Vendor(9)
    vendor.networking.clear()
    broken = walked(tmp_path, authority, vendor, **{"smtp.port": port}).broken
    assert broken is not None and broken.rule == "networking-off" and forward in broken.change, broken


def test_what_is_moving_is_a_warning(tmp_path: Path, authority: Authority) -> None:
    vendor = Vendor(9)
    vendor.environment["status"] = vendor.variables[0]["status"] = "updating"
    report = walked(tmp_path, authority, vendor)
    assert report.broken is None
    assert State.WARNING in states(report, Hop.VARIABLES) and State.WARNING in states(report, Hop.FORWARD)


@pytest.mark.parametrize("refused", ["variables", "advancedNetworking", "networkInfrastructures"])
def test_what_may_not_be_asked_is_unknown(tmp_path: Path, authority: Authority, refused: str) -> None:
    vendor = Vendor(9)
    vendor.refused.add(refused)
    report = walked(tmp_path, authority, vendor)
    hop = Hop.VARIABLES if refused == "variables" else Hop.FORWARD
    if refused == "networkInfrastructures":
        assert report.broken is None and states(report, hop) == [State.OK]
    elif refused == "advancedNetworking":
        # Where the port leads is not known, and there is no tunnel here.
        assert states(report, hop) == [State.UNKNOWN]
        assert report.broken is not None and report.broken.hop is Hop.TUNNEL
    else:
        assert State.UNKNOWN in states(report, hop)
        assert "404" in said(report, hop)


def test_every_hop_is_walked_in_order() -> None:
    assert list(HOPS) == list(Hop)


# -- printing --------------------------------------------------------------------------------------------------


def test_nothing_from_outside_steers_a_terminal_and_lines_are_short() -> None:
    hostile = "\x1b[2J\r" + "word " * 60 + "x" * 150
    report = Report([Finding(Hop.EHLO, State.BROKEN, hostile, "r", hostile, hostile, hostile, 3, 4)])
    text = printing.for_people(report, hostile)
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    assert all(len(line) <= 100 for line in text.splitlines()[2:] if not line.startswith(("    ", "  where")))
    coloured = printing.for_people(report, "x", colour=True)
    assert "\x1b[31;1mBROKEN" in coloured and "\x1b[2J" not in coloured


def test_the_document_has_every_hop() -> None:
    report = Report([Finding(Hop.FILE, State.OK, "fine"), Finding(Hop.FILE, State.WARNING, "hm", "r")])
    document = printing.for_programs(report, {"config": "."})
    assert document["exit_code"] == 0 and document["broken"] is None
    hops: Any = document["hops"]
    assert [hop["hop"] for hop in hops] == [hop.value for hop in Hop]
    assert [hop["state"] for hop in hops][:2] == ["warning", None]
    assert set(hops[0]["findings"][0]) == {
        "state", "text", "rule", "remedy", "change", "file", "line", "column"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("service", "modes", "wanted"),
    [("author", ["publish", "stage"], "publish"), ("publish", ["publish", "stage"], "publish"),
     ("preview", ["publish", "stage"], "preview"), ("publish", ["author"], "author"), ("preview", ["dev"], "preview")],
)  # fmt: skip
def test_who_looks_again_looks_for_the_service_that_the_file_is_for(
    service: str, modes: list[str], wanted: str
) -> None:
    around = Surroundings("x", service, {}, {}, type="prod")
    assert f" --service {wanted} --run-modes {','.join(modes)}" in commands.look_again(around, ".", modes)


def test_commands_ask_the_outgate_of_a_data_directory() -> None:
    change = "outgate smtp users a\n# outgate b\nread -r X && outgate c\noutgate environment run P E -- outgate doctor"
    assert commands.for_data(change, "a b").split("\n") == [
        "outgate smtp users a --data='a b'",
        "# outgate b",
        "read -r X && outgate c --data='a b'",
        "outgate environment run P E --data='a b' -- outgate doctor",
    ]


def test_preview_runs_as_publish() -> None:
    assert Surroundings("x", "preview", {}, {}, type="prod").run_modes == ("publish", "prod")
    assert of_process({"OUTGATE_RUN_MODES": "preview, dev"}, "preview").run_modes == ("publish", "dev")


def test_a_command_is_quoted_or_not_offered() -> None:
    around = Surroundings("x", "author", {}, {}, program="1; rm -rf /", environment="$(id)", url="https://a.example")
    assert commands.set_variable(around, "$(id)", secret=True) == ""
    assert commands.delete_variable(around, "A B") == ""
    assert "'1; rm -rf /' '$(id)' --previewSecretFile NAME -" in commands.set_variable(
        around, "NAME", secret=True, service="preview"
    )
    plain = 'outgate() { shift 3; printf "<%s>" "$@"; }; ' + commands.set_variable(around, "NAME", secret=False)
    ran = subprocess.run(["sh", "-c", plain], input=" a $(id) \\n'b'\n", capture_output=True, text=True, check=True)
    assert ran.stdout == "<--variable><NAME><a $(id) \\n'b'>"
    assert "/program/1%3B%20rm%20-rf%20%2F/environment/%24%28id%29/" in commands.put_networking(around, [])
    assert commands.show_message("a;b") == ""
    assert commands.zone_line("a.example", 'x"\\' + "y" * 300).count('" "') == 1


# -- OAuth -----------------------------------------------------------------------------------------------------


@contextmanager
def token_server(status: int, document: dict[str, object]) -> Iterator[str]:
    with answering(lambda _: (status, json.dumps(document).encode()), kind="application/json") as url:
        yield f"{url}/token"


REFRESH, ACCESS = "refresh-token-0123456789", "access-token-0123456789"
GIVEN: dict[str, object] = {"access_token": ACCESS, "token_type": "Bearer", "expires_in": 3600}


@pytest.mark.parametrize(
    ("status", "document", "replies", "rule"),
    [
        (200, GIVEN, {}, ""),
        (200, GIVEN, {"AUTH": f"535 5.7.8 {ACCESS} is not for you\r\n".encode()}, "oauth-refused"),
        (400, {"error": "invalid_grant"}, {}, "oauth-refresh-token"),
        (401, {"error": "a secret that nobody set"}, {}, "oauth-configuration"),
        (401, {"error": "invalid_client"}, {}, "oauth-client"),
        (200, {"token_type": "Bearer"}, {}, "oauth-answer"),
    ],
)
def test_a_token_is_fetched_and_what_stands_in_its_way_is_told(
    tmp_path: Path, authority: Authority, status: int, document: dict[str, object], replies: dict[str, bytes], rule: str
) -> None:
    script = Script(authority.context("localhost"), offers=("AUTH XOAUTH2",), replies=replies)
    folder = tmp_path / "osgiconfig" / "config"
    folder.mkdir(parents=True)
    (tmp_path / "SMTP_REFRESH_TOKEN").write_text(REFRESH)
    with serving(script) as port, token_server(status, document) as url:
        mail = FILE | {"smtp.host": "localhost", "smtp.port": port, "smtp.ssl": False, "oauth.flow": True}
        mail |= {"smtp.requiretls": True, "smtp.starttls": True, "smtp.user": "box@shop.test"}
        del mail["smtp.password"]
        (folder / f"{MAIL}.cfg.json").write_text(json.dumps(mail))
        provider = {"tokenUrl": url, "clientId": "the-client", "refreshToken": "$[secret:SMTP_REFRESH_TOKEN]"}
        if rule == "oauth-configuration":
            provider["clientSecret"] = "$[secret:SMTP_CLIENT_SECRET]"
        (folder / f"{OAUTH}.cfg.json").write_text(json.dumps(provider))
        around = of_process({"OUTGATE_SECRETS": str(tmp_path)}, "author")
        report = walk(
            Asked(
                str(tmp_path / "osgiconfig"),
                (),
                around,
                Outgate(None, None, "", ""),
                Trust(str(authority.file)),
                patience=Patience(5.0),
                send_to="" if rule else "you@there.test",
            )
        )
    found = report.broken
    assert (found.rule if found else "") == rule, found
    assert found is None or (found.hop is Hop.AUTH and found.remedy)
    assert (
        rule != "oauth-configuration" or "nothing is set for $[secret:SMTP_CLIENT_SECRET]" in report.findings[-1].text
    )
    text = printing.for_people(report, "")
    assert REFRESH not in text and ACCESS not in text
    if not rule:
        assert "XOAUTH2" in said(report, Hop.AUTH) and states(report, Hop.DELIVERY) == [State.OK]


def test_a_provider_that_lacks_something_is_told_with_its_place(tmp_path: Path, authority: Authority) -> None:
    script = Script(authority.context("localhost"), offers=("AUTH XOAUTH2",))
    with serving(script) as port:
        mail = FILE | {"smtp.host": "localhost", "smtp.port": port, "smtp.ssl": False, "oauth.flow": True}
        del mail["smtp.password"]
        (tmp_path / f"{MAIL}.cfg.json").write_text(json.dumps(mail | {"smtp.user": "box@shop.test"}))
        (tmp_path / f"{OAUTH}.cfg.json").write_text('{"tokenUrl": "https://login.example/token"}')
        around = of_process({}, "author")
        report = walk(Asked(str(tmp_path), (), around, Outgate(None, None, "", ""), Trust(str(authority.file))))
    assert report.broken is not None and report.broken.hop is Hop.AUTH
    assert report.broken.file.endswith(f"{OAUTH}.cfg.json")


def test_a_provider_that_is_not_there_is_told(tmp_path: Path, authority: Authority) -> None:
    with serving(Script(authority.context("localhost"), offers=("AUTH XOAUTH2",))) as port:
        mail = FILE | {"smtp.host": "localhost", "smtp.port": port, "smtp.ssl": False, "oauth.flow": True}
        del mail["smtp.password"]
        (tmp_path / f"{MAIL}.cfg.json").write_text(json.dumps(mail | {"smtp.user": "box@shop.test"}))
        outgate = Outgate(None, None, "", "")
        report = walk(Asked(str(tmp_path), (), of_process({}, "author"), outgate, Trust(str(authority.file))))
    assert report.broken is not None and report.broken.rule == "oauth-configuration"
    assert report.broken.change.startswith('"oauth.flow": false') and OAUTH in report.broken.remedy


class Relay(Outgate):
    """A relay of Outgate that tells how a domain stands, as its API would."""

    def __init__(self, standing: Standing | None) -> None:
        super().__init__(None, None, "", "")
        self._told = standing

    @property
    def local(self) -> bool:
        return True

    def hosts(self) -> frozenset[str]:
        return frozenset({"mail.example"})

    def standing(self, domain: str) -> Standing | str | None:
        return self._told


def test_who_has_logged_in_is_not_told_to(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "PW").write_text("hushhush")
    around = of_process({"OUTGATE_SECRETS": str(tmp_path)}, "author")
    script = Script(authority.context("localhost"), implicit=True, replies={"MAIL": b"550 5.7.0 local policy\r\n"})
    file = tmp_path / "mail.cfg.json"
    with serving(script) as port:
        login = {"smtp.host": "localhost", "smtp.port": port, "smtp.user": "me", "smtp.password": "$[secret:PW]"}
        file.write_text(json.dumps(FILE | login))
        outgate = Outgate(None, None, "", "")
        trust = Trust(str(authority.file))
        broken = walk(Asked(str(file), (), around, outgate, trust, patience=Patience(1.0))).broken
    assert broken is not None and broken.rule == "sender-refused" and "log" not in broken.remedy


DKIM = 'k._domainkey.shop.test. IN TXT "v=DKIM1"'
GOOD = {"spf": "SUCCESSFUL", "dkim": "SUCCESSFUL"}
NO = b"550 5.7.1 no\r\n"


@pytest.mark.parametrize(
    ("standing", "checks", "seen", "reply", "rule", "change"),
    [
        ("warning", GOOD | {"dkim": "FAILED"}, {}, b"", "domain-warned", DKIM),
        ("suspended", GOOD | {"dkim": "FAILED"}, {}, b"450 4.7.1 suspended\r\n", "domain-dkim", DKIM),
        ("verified", GOOD, {}, NO, "sender-not-of-user", "outgate smtp users shop.test\n"),
        ("verified", GOOD, {}, b"530 5.7.0 log in\r\n", "login-needed", '"smtp.user": "$[env:EMAIL_USERNAME]",'),
        ("pending", GOOD | {"en_authorization": "PENDING"}, {}, NO, "domain-authorization", "outgate smtp show shop.test"),
        ("pending", GOOD | {"spf": "PENDING"}, {}, NO, "domain-spf", 'shop.test. IN TXT "v=spf1 include:us.small ~all"'),
        ("pending", GOOD | {"spf": "FAILED"}, {"spf": Seen("no-address", "no A record")}, NO, "domain-spf",
         "shop.test. IN A ADDRESS"),
        ("pending", GOOD | {"spf": "FAILED"}, {"spf": Seen("fail", "-all", ("other", "v=spf1 mx -all"))}, NO,
         "domain-spf", 'shop.test. IN TXT "v=spf1 include:us.small mx -all"'),
        ("pending", GOOD | {"spf": "FAILED"}, {"spf": Seen("permerror", "two", ("v=spf1 mx", "v=spf1 a"))}, NO,
         "domain-spf", ""),
        ("suspended a", GOOD, {"a": Seen("missing", "no A record")}, NO, "domain-a", "shop.test. IN A ADDRESS"),
    ],
)  # fmt: skip
def test_how_the_domain_stands_at_an_outgate_relay(
    tmp_path: Path, standing: str, checks: dict[str, str], seen: dict[str, Seen], reply: bytes, rule: str, change: str
) -> None:
    records = {
        "dkim": Record("k._domainkey.shop.test", "v=DKIM1"),
        "spf": Record("shop.test", "v=spf1 include:us.small ~all"),
    }
    standing, _, failing = standing.partition(" ")
    told = Standing("1", "shop.test", checks, standing, failing or "dkim", "2026-12-01T00:00:00Z", seen, records)
    file = tmp_path / "mail.cfg.json"
    with serving(Script(replies={"MAIL": reply} if reply else {})) as port:
        file.write_text(json.dumps({"smtp.host": "localhost", "smtp.port": port, "from.address": "a@shop.test"}))
        report = walk(Asked(str(file), (), of_process({}, "author"), Relay(told), Trust(), patience=Patience(1.0)))
    found = next(each for each in report.findings if each.hop is Hop.SENDER and each.rule)
    assert found.rule == rule and found.change.startswith(change) and bool(found.change) == bool(change)
    assert (found.state is State.WARNING) == (standing == "warning")
    assert standing != "warning" or "held from 2026-12-01T00:00:00Z on" in found.text
