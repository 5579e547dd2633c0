"""The mailer's whole way: an application in its environment, through its tunnel, to the relay and to a real Postfix."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trustme

from outgate.mailer import ConfigError, Limits, MessageError, SendFailed
from support.egress_peers import tunnel_address
from support.mail_service import BOTH, Twin
from support.mailing import zone
from support.receiving import ReceivingPostfix
from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
IMPLICIT, STARTTLS, POSTFIX, NOBODY = 30465, 30587, 30025, 30999
POST = "post.example"

# Sends with threads and with tasks, and from two processes that were forked with the connections open.
APPLICATION = """
import asyncio, json, os, sys
from email.message import EmailMessage
from outgate.mailer import AsyncMailService, MailService

def mail(subject):
    message = EmailMessage()
    message["To"], message["Subject"] = "you@customer.test", subject
    message.set_content("From the application.\\n")
    return message

async def tasks(folder):
    async with AsyncMailService.load(folder, ["author", "dev"]) as service:
        return [(await service.send(mail("task"))).queue_id]

folder = sys.argv[1]
sent = asyncio.run(tasks(folder))
with MailService.load(folder, ["author", "dev"]) as service:
    sent.append(service.send(mail("before")).queue_id)
    for number in range(2):
        mine, its = os.pipe()
        if os.fork() == 0:
            result = service.send(mail(f"worker {number}"))
            service.close()
            os.write(its, result.queue_id.encode())
            os._exit(0)
        os.close(its)
        sent.append(os.read(mine, 100).decode())
        os.close(mine)
        os.wait()
    sent.append(service.send(mail("after")).queue_id)
    print(json.dumps({"sent": sent, "server": service.server}))
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One `outgate dev` with a tunnel address of its own: the ports of forwards are fixed."""
    data = tmp_path_factory.mktemp("dev") / "data"
    service = Running(data, f'[dev]\ntunnel_address = "{tunnel_address()}"\n').start()
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def postfix(running: Running, authority: trustme.CA) -> Iterator[ReceivingPostfix]:
    server = ReceivingPostfix(POST, "127.0.9.7", running.address("inbox")[1], "message_size_limit = 20000\n")
    certificate = authority.issue_cert(f"mx.{POST}")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(server.directory / "tls.pem"))
    zone(running, f"mx.{POST}", "A", server.address)
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def networking(running: Running, postfix: ReceivingPostfix) -> dict[str, Any]:
    """The environment's forwards, as the API tells them, once they listen."""
    dev, api = running.dev, running.api
    name = dev["smtp_host_name"]
    forwards = [
        {"name": name, "portDest": running.address("submissions")[1], "portOrig": IMPLICIT},
        {"name": name, "portDest": running.address("submission")[1], "portOrig": STARTTLS},
        {"name": f"mx.{POST}", "portDest": postfix.port, "portOrig": POSTFIX},
    ]
    variables = [
        {"name": "EMAIL_USERNAME", "value": dev["smtp_user"], "type": "string"},
        {"name": "EMAIL_PASSWORD", "value": dev["smtp_password"], "type": "secretString"},
    ]
    api.call("PATCH", api.environment("variables"), variables)
    api.call("PUT", api.environment("advancedNetworking"), {"portForwards": forwards})
    url = api.environment("").rstrip("/")
    wait_for(lambda: api.call("GET", url), lambda found: found["status"] == "ready")
    (shown,) = api.call("GET", api.environment("advancedNetworking"))["_embedded"]["networkingConfigurations"]
    assert shown["portForwards"]
    return shown


@pytest.fixture(params=BOTH, ids=["threads", "tasks"])
def twin(request: pytest.FixtureRequest) -> Iterator[Twin]:
    yield request.param


def mail(subject: str, to: str = "you@customer.test", **fields: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in ({"To": to, "Subject": subject} | fields).items():
        message[name] = value
    message.set_content("one\n.two\n")
    return message


def settings(running: Running, **changed: Any) -> dict[str, Any]:
    return {
        "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
        "smtp.port": str(IMPLICIT),
        "smtp.user": "$[env:EMAIL_USERNAME]",
        "smtp.password": "$[secret:EMAIL_PASSWORD]",
        "from.address": f"orders@{running.dev['domain']}",
        "smtp.ssl": True,
    } | {name.replace("_", "."): value for name, value in changed.items()}


def service(running: Running, folder: Path, twin: Twin, changed: dict[str, Any] | None = None, **options: Any) -> Any:
    """A service whose forwards are given, in this process."""
    file = folder / "mail.cfg.json"
    file.write_text(json.dumps(settings(running, **(changed or {}))))
    dev = running.dev
    env = {"EMAIL_USERNAME": dev["smtp_user"], "SSL_CERT_FILE": dev["ca_file"]}
    return twin.made.load(file, **({"env": env, "secrets": {"EMAIL_PASSWORD": dev["smtp_password"]}} | options))


def delivered(running: Running, queue_id: str) -> bool:
    return [each["status"] for each in running.settled(queue_id)["recipients"]] == ["delivered"]


def test_an_application_in_its_environment(running: Running, networking: dict[str, Any], tmp_path: Path) -> None:
    dev = running.dev
    folder = tmp_path / "config.author.dev"
    folder.mkdir()
    (folder / "com.day.cq.mailer.DefaultMailService.cfg.json").write_text(json.dumps(settings(running)))
    command = [
        *(sys.executable, "-m", "outgate.cli", "environment", "run", dev["program_id"], dev["environment_id"]),
        *("--data", str(running.data), "--service", "author", "--"),
        *(sys.executable, "-c", APPLICATION, str(tmp_path)),
    ]
    environment = dict(os.environ, SSL_CERT_FILE=dev["ca_file"])
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    port = running.address("submissions")[1]
    assert told["server"] == f"{dev['smtp_host_name']}:{port} via {dev['tunnel_address']}:{IMPLICIT}"
    assert len(set(told["sent"])) == 5 and all(delivered(running, queue_id) for queue_id in told["sent"])
    assert dev["smtp_password"] not in done.stdout + done.stderr


@pytest.mark.parametrize(("port", "ssl"), [(IMPLICIT, True), (STARTTLS, False)])
async def test_through_the_tunnel_with_forwards_given(
    running: Running, networking: dict[str, Any], tmp_path: Path, twin: Twin, port: int, ssl: bool
) -> None:
    made = service(running, tmp_path, twin, {"smtp_port": port, "smtp_ssl": ssl}, forwards=networking)
    (result,) = await twin.send(made, mail("given"))
    assert result.accepted and result.server.startswith(running.dev["smtp_host_name"])
    assert delivered(running, result.queue_id)


@pytest.mark.parametrize(("listener", "ssl"), [("submissions", True), ("submission", False)])
async def test_to_the_relay_directly(running: Running, tmp_path: Path, twin: Twin, listener: str, ssl: bool) -> None:
    host, port = running.address(listener)
    changed = {"smtp_host": host, "smtp_port": port, "smtp_ssl": ssl, "smtp_requiretls": not ssl}
    made = service(running, tmp_path, twin, changed, tls_names="chain-only")
    (result,) = await twin.send(made, mail("direct"))
    assert result.accepted and delivered(running, result.queue_id)


async def test_many_at_once(running: Running, networking: dict[str, Any], tmp_path: Path, twin: Twin) -> None:
    made = service(running, tmp_path, twin, forwards=networking, limits=Limits(connections=3, messages=5))
    results = await twin.together(made, *[mail(f"number {number}") for number in range(24)])
    await twin.close(made)
    assert len({result.queue_id for result in results}) == 24
    assert all(delivered(running, result.queue_id) for result in results)


async def test_what_the_relay_refuses_is_a_result(
    running: Running, networking: dict[str, Any], tmp_path: Path, twin: Twin
) -> None:
    made = service(running, tmp_path, twin, forwards=networking)
    stranger, attached = mail("stranger", From="me@elsewhere.test"), mail("attached")
    attached.add_attachment(b"PDF", maintype="application", subtype="pdf", filename="a.pdf")
    results = await twin.send(made, stranger, attached, mail("fine"))
    assert [result.accepted for result in results] == [False, False, True]
    assert [result.reply.code // 100 for result in results] == [5, 5, 2]
    made = service(running, tmp_path, twin, forwards=networking, secrets={"EMAIL_PASSWORD": "wrong-password-1"})
    (result,) = await twin.send(made, mail("login"))
    assert (result.reply.code, result.stage) == (535, "auth")


async def test_names_and_forwards_that_are_wrong(
    running: Running, networking: dict[str, Any], tmp_path: Path, twin: Twin
) -> None:
    address = networking["tunnelAddress"]
    wrong = {"tunnelAddress": address, "portForwards": [{"name": "other.test", "portDest": 465, "portOrig": IMPLICIT}]}
    with pytest.raises(SendFailed, match=r"^other\.test:465 via .*must be for the forward's name"):
        await twin.send(service(running, tmp_path, twin, forwards=wrong), mail("wrong name"))
    with pytest.raises(ConfigError, match=running.dev["smtp_host_name"]):
        await twin.send(
            service(running, tmp_path, twin, forwards={"tunnelAddress": address, "portForwards": []}),
            mail("no forward"),
        )
    lax = service(running, tmp_path, twin, forwards=wrong, tls_names="chain-only")
    assert (await twin.send(lax, mail("chain only")))[0].accepted
    nobody = {"tunnelAddress": address, "portForwards": [{"name": "a.test", "portDest": 465, "portOrig": NOBODY}]}
    with pytest.raises(SendFailed, match=f"{NOBODY} is the portOrig of a forward") as caught:
        await twin.send(service(running, tmp_path, twin, {"smtp_port": NOBODY}, forwards=nobody), mail("nobody"))
    assert caught.value.stage == "connect"


class TestPostfix:
    def service(
        self, running: Running, networking: dict[str, Any], authority: trustme.CA, folder: Path, twin: Twin
    ) -> Any:
        authority.cert_pem.write_to_path(folder / "post.pem")
        changed = {"smtp_port": POSTFIX, "smtp_ssl": False, "smtp_user": "", "smtp_requiretls": True}
        return service(running, folder, twin, changed, forwards=networking, cafile=folder / "post.pem")

    async def test_takes_what_it_is_given(
        self, running: Running, networking, postfix, authority, tmp_path: Path, twin: Twin
    ) -> None:
        made = self.service(running, networking, authority, tmp_path, twin)
        mark = f"taken by {twin.made.__name__}"
        message = mail(mark, f"Änne <ann@{POST}>, nobody@{POST}", Bcc=f"bob@{POST}")
        message.set_content("grüße\n.dot\n..\n.\n", cte="8bit")
        (result,) = await twin.send(made, message)
        assert result.queue_id and list(result.refused) == [f"nobody@{POST}"]
        assert result.refused[f"nobody@{POST}"].code == 550
        found = wait_for(
            lambda: [one for one in postfix.mails() if f"Subject: {mark}\n".encode() in one],
            lambda mails: len(mails) == 2,
        )
        for one in found:
            assert one.endswith("\n\ngrüße\n.dot\n..\n.\n".encode()) and b"bob@" not in one.partition(b"Subject")[2]
            assert b"using TLSv1.3 with cipher" in one

    async def test_what_it_would_not_take_is_said_before(
        self, running: Running, networking, authority, tmp_path: Path, twin: Twin
    ) -> None:
        made = self.service(running, networking, authority, tmp_path, twin)
        large = mail("large", f"ann@{POST}")
        large.set_content("line\n" * 5000)
        with pytest.raises(MessageError, match="the server takes 20000 at most"):
            await twin.keep(made, large)
        (result,) = await twin.send(made, mail("utf8", f"ann+größe@{POST}"))
        assert result.accepted

    async def test_its_restart_is_not_seen(
        self, running: Running, networking, postfix, authority, tmp_path: Path, twin: Twin
    ) -> None:
        made = self.service(running, networking, authority, tmp_path, twin)
        await twin.keep(made, mail("before", f"ann@{POST}"))
        for verb, answers in (("stop", False), ("start", True)):
            assert (await asyncio.to_thread(postfix._command, verb)).returncode == 0
            await asyncio.to_thread(wait_for, postfix.answers, lambda now, wanted=answers: now is wanted)
        (result,) = await twin.send(made, mail("after", f"ann@{POST}"))
        assert result.accepted
