"""Whatever an API, a server or a file says, the doctor ends with a report; and no report shows a secret."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from outgate.cli import cli
from outgate.doctor import printing
from outgate.doctor.asking import of_process
from outgate.doctor.hops.contact import Trust
from outgate.doctor.hops.facts import Asked
from outgate.doctor.hops.reaching import Patience
from outgate.doctor.report import Report, State
from outgate.doctor.walk import walk
from outgate.doctor.witnesses import Outgate
from support.answering import answering
from support.mail_peers import Authority, Script, serving

CODES = {0, 2, 3, *range(10, 22)}
SECRET = "v3ry-s3cret-w0rd"
FILE = {
    "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
    "smtp.port": "30465",
    "smtp.user": "$[env:EMAIL_USERNAME]",
    "smtp.password": "$[secret:EMAIL_PASSWORD]",
    "from.address": "noreply@shop.test",
    "smtp.ssl": True,
}
_texts = st.sampled_from(
    ["", "ready", "failed", "author", "string", "secretString", "EMAIL_USERNAME", "EMAIL_PASSWORD", "AEM_PROXY_HOST",
     "127.0.0.1", "localhost", "\x1b[2J", "a'b $(id)", "prod", "\ud800"]
) | st.text(max_size=12)  # fmt: skip
_keys = st.sampled_from(
    ["_embedded", "variables", "networkingConfigurations", "networkInfrastructures", "_links", "next", "href", "name",
     "value", "type", "status", "service", "portForwards", "portOrig", "portDest", "advancedNetworkingEnabled",
     "tunnelAddress", "secrets", "reserved", "statusDetails", "message", "resolvers", "nonProxyHosts", "kind", "id"]
)  # fmt: skip
_numbers = st.sampled_from([0, -1, 30465, 465, 2**70, 1.5, True, None])
documents = st.recursive(
    _texts | _numbers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=6),
    max_leaves=25,
)


class Lying:
    """An API that answers every call with the next of some documents."""

    def __init__(self) -> None:
        self.answers: list[object] = [{}]
        self.status = 200
        self.asked = 0

    def next(self) -> bytes:
        self.asked += 1
        return json.dumps(self.answers[self.asked % len(self.answers)]).encode()


@pytest.fixture(scope="module")
def lying() -> Iterator[tuple[Lying, str]]:
    state = Lying()
    with answering(lambda _: (state.status, state.next())) as url:
        yield state, url


def settings_of(url: str) -> dict[str, str | None]:
    """Return what points the command at an API as the vendor's client is pointed at one."""
    claims = base64.urlsafe_b64encode(json.dumps({"client_id": "c"}).encode()).decode().rstrip("=")
    return {
        "AIO_CLOUDMANAGER_BASE__URL": url,
        "AIO_CLOUDMANAGER__ORGID": "org",
        "AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN": f"x.{claims}.x",
        **dict.fromkeys(
            ("OUTGATE_FORWARDS", "OUTGATE_SECRETS", "OUTGATE_RUN_MODES", "AEM_PROXY_HOST", "SSL_CERT_FILE"), None
        ),
    }


@given(st.lists(documents, min_size=1, max_size=7), st.sampled_from([200, 200, 200, 204, 302, 400, 404, 500]))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_api_ends_in_a_report(lying: tuple[Lying, str], tmp_path: Path, answers: list[object], status: int) -> None:
    state, url = lying
    # Five questions come first: environment, variables, networking, infrastructures, runtime. The rest is anything.
    state.answers = [{}, {"type": "prod", "_embedded": answers[0], **_as_object(answers[-1])}, *answers]
    state.status, state.asked = status, 0
    file = tmp_path / "com.day.cq.mailer.DefaultMailService.cfg.json"
    file.write_text(json.dumps(FILE))
    arguments = ["doctor", "--config", str(file), "--program", "1", "--environment", "2", "--timeout", "0.1"]
    for form in ([], ["--json"]):
        done = CliRunner().invoke(cli, [*arguments, *form], env=settings_of(url))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert done.exit_code in CODES
        assert "\x1b" not in done.output and "Traceback" not in done.output


def _as_object(found: object) -> dict[str, object]:
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def asked(directory: Path, port: int, authority: Authority | None = None, **changes: object) -> Asked:
    """Return a walk to a server on this machine, with a secret of this process."""
    body = FILE | {"smtp.host": "localhost", "smtp.port": str(port), "smtp.ssl": False} | changes
    file = directory / "mail.cfg.json"
    file.write_text(json.dumps(body))
    (directory / "EMAIL_PASSWORD").write_text(SECRET)
    around = of_process({"EMAIL_USERNAME": "someone", "OUTGATE_SECRETS": str(directory)}, "author")
    return Asked(
        str(file), (), around, Outgate(None, None, "", ""), Trust(str(authority.file) if authority else ""),
        patience=Patience(0.15), send_to="you@customer.test",
    )  # fmt: skip


def sound(report: Report) -> str:
    """Return a report as people and programs see it, once it is sure that it is one."""
    text = printing.for_people(report, "x") + json.dumps(printing.for_programs(report, {}))
    assert report.exit_code in CODES
    assert SECRET not in text and base64.b64encode(SECRET.encode()).decode() not in text
    assert "\x1b" not in text and "\x00" not in text
    return text


@given(st.binary(max_size=300) | st.sampled_from([b"220 x\r\n", b"220-x\r\n" * 200, b"\x16\x03\x01" * 50, b"9" * 9000]))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("implicit", [False, True])
def test_any_octets_of_a_server_end_in_a_report(tmp_path: Path, implicit: bool, octets: bytes) -> None:
    with serving(Script(first=octets)) as port:
        report = walk(asked(tmp_path, port, **{"smtp.ssl": implicit}))
    assert report.broken is not None and report.exit_code >= 17
    sound(report)


@pytest.mark.parametrize("octets", [b"220-again\r\n", b"2", b"\0", b"\r\n"])
@pytest.mark.parametrize("implicit", [False, True])
def test_a_server_that_never_ends_is_left(tmp_path: Path, octets: bytes, implicit: bool) -> None:
    with serving(Script(endless=octets * 100)) as port:
        report = walk(asked(tmp_path, port, **{"smtp.ssl": implicit}))
    assert report.broken is not None
    sound(report)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


_WIRE = base64.b64encode(f"\0someone\0{SECRET}".encode())


@pytest.mark.parametrize(
    "replies",
    [
        {"AUTH": b"535 5.7.8 " + SECRET.encode() + b" is wrong\r\n"},
        {"AUTH": b"535-5.7.8 " + _WIRE[:20] + b"\r\n535 5.7.8 " + _WIRE[20:] + b"\r\n"},
        {"MAIL": b"550 5.7.1 not with " + SECRET.encode() + b"\r\n"},
        {"RCPT": b"550 5.7.1 not with " + _WIRE + b"\r\n"},
        {"DATA": b"554 5.7.1 " + SECRET[:12].encode() + b"\r\n"},
    ],
)
def test_a_server_that_repeats_the_password_is_not_quoted(
    tmp_path: Path, authority: Authority, replies: dict[str, bytes]
) -> None:
    script = Script(authority.context("localhost"), replies=replies)
    with serving(script) as port:
        report = walk(asked(tmp_path, port, authority))
    assert report.broken is not None
    assert SECRET[:12] not in sound(report)
    assert any(line.startswith(b"AUTH") for line in script.seen)


def test_no_password_goes_out_in_the_clear_or_to_a_stranger(tmp_path: Path, authority: Authority) -> None:
    for context in (None, authority.context("elsewhere.example"), Authority(tmp_path).context("localhost")):
        script = Script(context)
        with serving(script) as port:
            report = walk(asked(tmp_path, port, authority))
        assert report.broken is not None and report.broken.hop.value == "TLS"
        assert not any(line.startswith(b"AUTH") for line in script.seen)
        sound(report)


def test_a_login_is_made_inside_tls_only(tmp_path: Path, authority: Authority) -> None:
    script = Script(authority.context("localhost"))
    with serving(script) as port:
        report = walk(asked(tmp_path, port, authority))
    assert report.broken is None
    assert [secure for line, secure in zip(script.seen, script.secure, strict=True) if line.startswith(b"AUTH")] == [
        True,
        True,
    ]  # once by the walk, once by the mailer that sends
    assert [each.state for each in report.findings if each.hop.value == "delivery"] == [State.OK]


def test_a_version_of_tls_that_ends_in_the_handshake_is_told(tmp_path: Path, authority: Authority) -> None:
    context = authority.context("localhost")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    script = Script(context, implicit=True)
    with serving(script) as port:
        report = walk(asked(tmp_path, port, authority, **{"smtp.ssl": True}))
    assert report.broken is None
