"""Plain `outgate`, in an empty environment, is enough for an application: standard library and idna only.

One installation, made of the working tree, serves all tests here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from outgate.mailer.config import PID
from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
ROOT = Path(__file__).parents[2]


class Plain:
    """An environment with nothing but `pip install outgate`, and an application's configuration."""

    def __init__(self, running: Running, folder: Path) -> None:
        self.running = running
        self.folder = folder
        venv = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=120)
        self.python = venv / "bin" / "python"
        subprocess.run([str(self.python), "-m", "pip", "install", "-q", str(ROOT)], check=True, timeout=300)
        host, port = running.address("submissions")
        self.config = folder / "com.day.cq.mailer.DefaultMailService.cfg.json"
        self.config.write_text(
            json.dumps(
                {
                    "smtp.host": host,
                    "smtp.port": port,
                    "smtp.user": "$[env:EMAIL_USERNAME]",
                    "smtp.password": "$[secret:EMAIL_PASSWORD]",
                    "from.address": f"plain@{running.dev['domain']}",
                    "smtp.ssl": True,
                }
            )
        )
        secrets = folder / "secrets"
        secrets.mkdir(mode=0o700)
        (secrets / "EMAIL_PASSWORD").write_text(running.dev["smtp_password"])
        self.environment = {
            "PATH": os.environ["PATH"],
            "EMAIL_USERNAME": running.dev["smtp_user"],
            "OUTGATE_SECRETS": str(secrets),
            "SSL_CERT_FILE": running.dev["ca_file"],
        }

    def run(self, *arguments: str, stdin: str = "", **more: str) -> str:
        """Run its Python; return what it printed."""
        done = subprocess.run(
            [str(self.python), "-W", "error", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment | more,
            cwd=self.folder,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def delivered(self, queue_id: str) -> None:
        assert self.running.settled(queue_id.strip())["recipients"][0]["status"] == "delivered"


@pytest.fixture(scope="module")
def plain(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Plain:
    return Plain(running, tmp_path_factory.mktemp("plain"))


def test_nothing_else_is_installed(plain: Plain) -> None:
    command = [str(plain.python), "-m", "pip", "list", "--format", "json"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {item["name"] for item in json.loads(listed.stdout)} <= {"outgate", "idna", "pip", "setuptools"}


def test_the_demo_has_its_configuration_without_a_checkout(plain: Plain) -> None:
    assert len(list(plain.folder.glob(f"venv/lib/*/site-packages/outgate/sandbox/wknd/{PID}.cfg.json"))) == 1


def test_the_command_of_an_extra_says_which(plain: Plain) -> None:
    done = subprocess.run([str(plain.python.parent / "outgate")], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.splitlines() == [
        "outgate: the command is not installed: pip install 'outgate[cli]' (the mailer's own: python -m outgate.mailer)"
    ]


def test_the_command_line(plain: Plain) -> None:
    said = plain.run(
        *("-m", "outgate.mailer", "send", "--config", str(plain.config), "--to", "you@customer.test", "--json"),
        stdin="Hello from a plain install.\n",
    )
    plain.delivered(json.loads(said)["queue_id"])


_THIRD = """
import sys
own = {"outgate", "idna", "__main__", "sitecustomize", "usercustomize"}
others = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names) - own
assert not {name for name in others if not name.startswith("_")}, others
"""


def test_template_sync_async_and_oauth(plain: Plain) -> None:
    (plain.folder / "order.txt").write_text("To: ${to}\nSubject: Order ${number}\n\nThank you.\n")
    said = plain.run(
        "-c",
        f"""
import asyncio
from outgate.mailer import AsyncMailService, MailService, Template, oauth
assert oauth.PID.endswith("OAuthConfigurationProviderImpl")
message = Template.load("order.txt").message({{"to": "you@customer.test", "number": 7}}, strict=True)
with MailService.load({str(plain.config)!r}) as service:
    print(service.send(message).queue_id)
async def main():
    async with AsyncMailService.load({str(plain.config)!r}) as service:
        print((await service.send(message)).queue_id)
asyncio.run(main())
"""
        + _THIRD,
    )
    assert len(said.split()) == 2
    for queue_id in said.split():
        plain.delivered(queue_id)


def test_the_logging_handler(plain: Plain) -> None:
    before = len(plain.running.inbox())
    plain.run(
        "-c",
        f"""
import logging, logging.config
logging.config.dictConfig({{"version": 1, "root": {{"handlers": ["mail"]}}, "handlers": {{"mail": {{
    "class": "outgate.mailer.logging_handler.MailHandler", "path": {str(plain.config)!r}, "to": "ops@customer.test"}}}}}})
logging.error("the disk is full")
"""
        + _THIRD,
    )
    found = wait_for(plain.running.inbox, lambda mails: len(mails) > before)
    assert "ERROR: the disk is full" in [mail["subject"] for mail in found]


def test_the_django_backend_where_django_is(plain: Plain) -> None:
    """Django is lent from these tests' own environment, without anything else of it."""
    lent = plain.folder / "lent"
    lent.mkdir()
    for name in ("django", "asgiref", "sqlparse"):
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        (lent / name).symlink_to(Path(spec.origin).parent)
    settings = {"path": str(plain.config)}
    said = plain.run(
        "-c",
        f"""
from django.conf import settings
settings.configure(EMAIL_BACKEND="outgate.mailer.django.EmailBackend", OUTGATE_MAILER={settings!r})
from django.core.mail import EmailMessage, get_connection
connection = get_connection()
message = EmailMessage("Hello", "text", to=["you@customer.test"])
assert connection.send_messages([message]) == 1
print(message.outgate_result.queue_id)
""",
        PYTHONPATH=str(lent),
    )
    plain.delivered(said)
