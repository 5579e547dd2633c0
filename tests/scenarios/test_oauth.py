"""OAuth end to end: application → tunnel → Dovecot's submission service (STARTTLS, XOAUTH2) → the next server's inbox.

Dovecot asks the same token server whether a token is good that the mailer got it from.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trustme

from outgate.base.clock import FrozenClock
from outgate.mailer import AsyncMailService, MailService, SendFailed, oauth
from outgate.mailer.folders import open_configurations
from support.clients import run
from support.dovecot import Dovecot
from support.ports import forward_port
from support.running import Running, wait_for
from support.token_server import CLIENT, CLIENT_SECRET, TokenServer

pytestmark = pytest.mark.scenario
USER = "mailer@shop.test"
NAME = "submission.dovecot.test"


@dataclass
class World:
    """What runs, and an application's project beside it."""

    running: Running
    tokens: TokenServer
    dovecot: Dovecot
    port: int
    project: Path
    cafile: Path

    def env(self, **more: str) -> dict[str, str]:
        return {
            "AEM_PROXY_HOST": self.running.dev["tunnel_address"],
            "CLIENT_ID": CLIENT,
            "EMAIL_USERNAME": USER,
        } | more

    def secrets(self) -> dict[str, str]:
        return {
            "SECRET_SMTP_OAUTH_CLIENT_SECRET": CLIENT_SECRET,
            "SECRET_SMTP_OAUTH_REFRESH_TOKEN": self.tokens.refresh_token,
        }

    def given(self, **env: str) -> dict[str, Any]:
        """Return what `load` is given beside the folder."""
        forward = {"name": NAME, "portDest": self.dovecot.port, "portOrig": self.port}
        return {"env": self.env(**env), "secrets": self.secrets(), "forwards": [forward], "cafile": self.cafile}

    def put(self, name: str, document: dict[str, Any]) -> None:
        (self.project / "config" / f"{name}.cfg.json").write_text(json.dumps(document, indent=2))

    def arrived(self, subject: str) -> dict[str, Any]:
        """Wait for the mail with this subject in the inbox behind Dovecot."""
        found = wait_for(self.running.inbox, lambda items: any(item["subject"] == subject for item in items))
        return next(item for item in found if item["subject"] == subject)


def mail(subject: str, sender: str = USER) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, "anna@dest.test", subject
    message.set_content("Grüße.")
    return message


@pytest.fixture(scope="module")
def world(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    authority = trustme.CA()
    folder = tmp_path_factory.mktemp("application")
    (folder / "config").mkdir()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    with (
        TokenServer(authority, user=USER) as tokens,
        Dovecot(tokens, running.address("inbox")[1], authority, NAME, "127.0.0.1") as dovecot,
    ):
        running.api.call("PUT", running.api.sandbox(f"zone/{NAME}/A"), {"values": ["127.0.0.1"]})
        made = World(running, tokens, dovecot, _open_tunnel(running, dovecot.port), folder, folder / "ca.pem")
        made.put(
            oauth.PID,
            {
                "authUrl": tokens.url,
                "tokenUrl": tokens.url,
                "clientId": "$[env:CLIENT_ID]",
                "clientSecret": "$[secret:SECRET_SMTP_OAUTH_CLIENT_SECRET]",
                "scopes": ["https://outlook.office.com/SMTP.Send", "offline_access"],
                "authCodeRedirectUrl": "http://localhost",
                "refreshUrl": tokens.url,
                "refreshToken": "$[secret:SECRET_SMTP_OAUTH_REFRESH_TOKEN]",
            },
        )
        made.put(
            "com.day.cq.mailer.DefaultMailService",
            {
                "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
                "smtp.port": str(made.port),
                "smtp.user": "$[env:EMAIL_USERNAME]",
                "from.address": USER,
                "smtp.ssl": False,
                "smtp.starttls": True,
                "smtp.requiretls": True,
                "debug.email": False,
                "oauth.flow": True,
            },
        )
        yield made


def _open_tunnel(running: Running, port: int) -> int:
    """Have the environment forward a port of its tunnel to Dovecot; return that port."""
    dev, api = running.dev, running.api
    environment = f"{dev['cloud_manager_url']}/api/program/{dev['program_id']}/environment/{dev['environment_id']}"
    original = forward_port(dev["tunnel_address"])
    forward = {"name": NAME, "portDest": port, "portOrig": original}
    api.call("PUT", f"{environment}/advancedNetworking", {"portForwards": [forward]})
    wait_for(lambda: api.call("GET", environment)["status"], lambda status: status == "ready")
    return original


def test_two_mails_through_the_tunnel_with_one_token(world: World) -> None:
    before, asked = world.dovecot.log().count("method=XOAUTH2"), len(world.tokens.forms)
    with MailService.load(world.project, ["author", "dev"], **world.given()) as service:
        assert service.through_tunnel and service.server == f"{NAME}:{world.dovecot.port} via 127.0.0.1:{world.port}"
        for subject in ("tunnel one", "tunnel two"):
            result = service.send(mail(subject))
            assert result.accepted and result.reply.code == 250
    for subject in ("tunnel one", "tunnel two"):
        raw = world.running.raw(world.arrived(subject)["id"]).decode()
        assert f"by {NAME} with ESMTPSA" in raw  # TLS, and logged in
    assert world.dovecot.log().count("method=XOAUTH2") == before + 1
    assert len(world.tokens.forms) == asked + 1 and world.tokens.forms[-1]["grant_type"] == "refresh_token"
    log = world.running.log.read_text() + world.dovecot.log()
    assert not any(token in log for token in (*world.tokens.issued, world.tokens.refresh_token, CLIENT_SECRET))


def test_directly(world: World) -> None:
    folder = world.project.parent / "direct"
    (folder / "config").mkdir(parents=True, exist_ok=True)
    for file in (world.project / "config").iterdir():
        text = file.read_text().replace("$[env:AEM_PROXY_HOST;default=proxy.tunnel]", "127.0.0.1")
        (folder / "config" / file.name).write_text(text.replace(f'"{world.port}"', str(world.dovecot.port)))
    given = world.given() | {"env": world.env(AEM_PROXY_HOST="proxy.tunnel")}
    with MailService.load(folder, **given) as service:
        assert not service.through_tunnel and service.send(mail("directly")).accepted
    assert world.arrived("directly")["envelope"]["mail_from"] == USER


def test_a_token_that_fits_no_command_line(world: World) -> None:
    world.tokens.padding = 3000  # as long as Microsoft's; Dovecot ends a command at 512 octets
    try:
        with MailService.load(world.project, **world.given()) as service:
            assert service.send(mail("long token")).accepted
    finally:
        world.tokens.padding = 0


async def test_tasks_share_a_token(world: World) -> None:
    asked = len(world.tokens.forms)
    async with AsyncMailService.load(world.project, **world.given()) as service:
        results = await asyncio.gather(*(service.send(mail(f"task {number}")) for number in range(3)))
    assert all(result.accepted for result in results)
    assert len(world.tokens.forms) == asked + 1


def test_an_expired_token_is_renewed_by_itself(world: World) -> None:
    clock = FrozenClock()
    configuration = oauth.load(open_configurations(world.project), env=world.env(), secrets=world.secrets())
    tokens = oauth.Tokens(configuration, clock=clock, env={}, cafile=world.cafile)
    with MailService.load(world.project, **world.given(), tokens=tokens) as service:
        assert service.send(mail("fresh")).accepted
        first = tokens.token()
        service.close()
        clock.advance(3600)
        assert service.send(mail("renewed")).accepted
        second = tokens.token()
        assert second != first
        service.close()
        # The server has forgotten it before its time: a 535, and one more try.
        del world.tokens.issued[second]
        introspected = len(world.tokens.introspected)
        assert service.send(mail("taken back")).accepted
        assert world.tokens.introspected[introspected:] == [second, tokens.token()]
    assert world.arrived("taken back")


def test_a_revoked_refresh_token_is_told_with_what_to_do(world: World) -> None:
    given = world.given()
    valid = world.tokens.refresh_token
    world.tokens.revoke()
    try:
        with MailService.load(world.project, **given) as service, pytest.raises(SendFailed) as caught:
            service.send(mail("never"))
    finally:
        world.tokens.refresh_token = valid
    text = str(caught.value)
    assert text.startswith(f"{NAME}:{world.dovecot.port} via 127.0.0.1:{world.port}: no access token from 127.0.0.1:")
    assert "the refresh token is no longer valid (Token has been expired or revoked.): get a new one" in text
    assert "SECRET_SMTP_OAUTH_REFRESH_TOKEN" in text and caught.value.stage == "token"
    assert valid not in repr(caught.value)


def test_a_token_of_another_mailbox(world: World) -> None:
    with MailService.load(world.project, **world.given(EMAIL_USERNAME="other@shop.test")) as service:
        result = service.send(mail("not mine"))
    assert not result.accepted and result.reply.code == 535
    assert result.reply.lines[-1].startswith("(status 401")
    assert not any(token in repr(result) for token in world.tokens.issued)


def test_a_server_whose_certificate_is_of_another_name_gets_no_token(world: World) -> None:
    given = world.given()
    given["forwards"] = [given["forwards"][0] | {"name": "smtp.office365.test"}]
    introspected = len(world.tokens.introspected)
    with MailService.load(world.project, **given) as service, pytest.raises(SendFailed, match="certificate"):
        service.send(mail("never"))
    assert len(world.tokens.introspected) == introspected


def test_the_pages_way_to_keep_a_refresh_token(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "oauth.md").read_text("utf-8")
    program = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1]
    program = program.replace("ui.config/src/jcr_root/apps/shop/osgiconfig", str(world.project))
    program = program.replace("/var/lib/shop/", f"{tmp_path}/")
    (tmp_path / "forwards.json").write_text(json.dumps(world.given()["forwards"]))
    (tmp_path / "first").mkdir()
    for name, value in world.secrets().items():
        (tmp_path / "first" / name).write_text(value)
    places = {
        "OUTGATE_SECRETS": f"{tmp_path},{tmp_path / 'first'}",
        "OUTGATE_FORWARDS": str(tmp_path / "forwards.json"),
        "SSL_CERT_FILE": str(world.cafile),
    }
    for name, value in world.env(**places).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(world.tokens, "rotates", True)
    for start in ("first start", "second start"):  # the old refresh token is of no use to the second
        found: dict[str, Any] = {}
        exec(program, found)  # the page's own text
        with found["mail"] as service:
            assert service.send(mail(start)).accepted
        kept = tmp_path / "SECRET_SMTP_OAUTH_REFRESH_TOKEN"
        assert kept.read_text() == world.tokens.refresh_token and kept.stat().st_mode & 0o777 == 0o600


def test_an_application_in_its_environment(world: World, tmp_path: Path) -> None:
    """The page's own way: variables and secrets stored, a command started with them, one mail from it."""
    dev = world.running.dev
    for name, value in world.secrets().items():
        (tmp_path / name).write_text(f"{value}\n")
    stored = world.running.outgate(
        "cloudmanager:set-environment-variables",
        f"--programId={dev['program_id']}",
        str(dev["environment_id"]),
        *("--variable", "CLIENT_ID", CLIENT, "--variable", "EMAIL_USERNAME", USER),
        *(part for name in world.secrets() for part in ("--secretFile", name, str(tmp_path / name))),
    )
    assert stored.returncode == 0, stored.stderr
    assert CLIENT_SECRET not in stored.stdout + stored.stderr
    command = [
        sys.executable,
        "-m",
        "outgate.cli",
        "environment",
        "run",
        dev["program_id"],
        dev["environment_id"],
        "--",
    ]
    command += [
        sys.executable,
        "-m",
        "outgate.mailer",
        "send",
        "--config",
        str(world.project),
        "--to",
        "anna@dest.test",
    ]
    command += ["--subject", "environment", "--body", "hello", "--cafile", str(world.cafile)]
    done = run(command, env=dict(os.environ, OUTGATE_DATA=str(world.running.data)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert world.arrived("environment")["envelope"]["mail_from"] == USER
