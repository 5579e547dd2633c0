"""A running `outgate dev`, small servers behind its tunnel, and the doctor's command on configurations of every kind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dns.resolver
from typer.testing import CliRunner

from outgate.cli import cli
from support.egress_peers import tunnel_address
from support.mail_peers import TOO_OLD, Authority, Script, self_signed, serving
from support.ports import closed_port
from support.running import Running, wait_for

PID = "com.day.cq.mailer.DefaultMailService"
OAUTH_PID = "com.day.cq.mailer.oauth.impl.OAuthConfigurationProviderImpl"
HOST = "smtp.mymail.com"
FIRST, SECOND = 30465, 30587
LIMIT = 24
"""Connections that an environment may have: more than any case needs."""
_CLEARED = (
    "OUTGATE_FORWARDS", "OUTGATE_SECRETS", "OUTGATE_RUN_MODES", "AEM_PROXY_HOST", "SSL_CERT_FILE", "NO_COLOR", "AIO_CONFIG_FILE",
)  # fmt: skip
GOOD: dict[str, object] = {
    "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
    "smtp.port": str(FIRST),
    "smtp.user": "$[env:EMAIL_USERNAME;default=myApiKey]",
    "smtp.password": "$[secret:EMAIL_PASSWORD]",
    "from.address": "noreply@shop.test",
    "smtp.ssl": True,
    "smtp.starttls": False,
    "smtp.requiretls": False,
    "debug.email": False,
    "oauth.flow": False,
}


@dataclass
class Place:
    """An environment of the running Outgate."""

    clinic: Clinic
    program: str
    id: str

    def url(self, path: str = "") -> str:
        base = f"{self.clinic.running.dev['cloud_manager_url']}/api/program/{self.program}/environment/{self.id}"
        return f"{base}/{path}" if path else base

    def variables(self, *changes: dict[str, str]) -> None:
        self.clinic.running.api.call("PATCH", self.url("variables"), list(changes))

    def forwards(self, *found: tuple[int, str, int]) -> None:
        """Replace all forwards, and wait until they are in force."""
        body = {"portForwards": [{"portOrig": port, "name": name, "portDest": to} for port, name, to in found]}
        self.clinic.running.api.call("PUT", self.url("advancedNetworking"), body)
        self.settled()

    def settled(self) -> None:
        wait_for(lambda: self.clinic.running.api.call("GET", self.url()), lambda it: it["status"] == "ready")

    def tunnel(self) -> str:
        """Return the tunnel's address."""
        found = self.clinic.running.api.call("POST", self.url("runtime"), {"service": "author"})
        return str(found["tunnelAddress"])

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("--program", self.program, "--environment", self.id)


@dataclass
class Clinic:
    """What the cases share. `ports` are the tunnel's ports by the name of the server that they lead to."""

    running: Running
    directory: Path
    authority: Authority
    ports: dict[str, int] = field(default_factory=dict)
    scripts: dict[str, Script] = field(default_factory=dict)
    closed: int = 0

    @property
    def place(self) -> Place:
        dev = self.running.dev
        return Place(self, dev["program_id"], dev["environment_id"])

    @property
    def trust(self) -> tuple[str, ...]:
        """Trust what the small servers show."""
        return ("--ca-file", str(self.authority.file))

    @property
    def trust_relay(self) -> tuple[str, ...]:
        return ("--ca-file", self.running.dev["ca_file"])

    def another(self, name: str) -> Place:
        """Return a new environment of the same program, with the variables of the first."""
        dev = self.running.dev
        url = f"{dev['cloud_manager_url']}/api/program/{dev['program_id']}/environments"
        made = self.running.api.call("POST", url, {"name": name, "type": "stage", "region": "va7"})
        place = Place(self, dev["program_id"], made["id"])
        place.settled()
        place.variables(*self.credentials())
        return place

    def forwards(self) -> list[dict[str, Any]]:
        """Return the forwards of the first environment."""
        found = self.running.api.call("GET", self.place.url("advancedNetworking"))
        return list(found["_embedded"]["networkingConfigurations"][0]["portForwards"])

    def open_in(self, place: Place) -> int:
        """Return how many connections of an environment the egress carries."""
        found = self.running.api.call("GET", self.running.api.operations("egress/status"))
        return next((each["open"] for each in found["environments"] if each["environment"] == place.id), 0)

    def credentials(self) -> list[dict[str, str]]:
        dev = self.running.dev
        return [
            {"name": "EMAIL_USERNAME", "value": dev["smtp_user"], "type": "string"},
            {"name": "EMAIL_PASSWORD", "value": dev["smtp_password"], "type": "secretString"},
        ]

    # -- files --------------------------------------------------------------------------------------------------

    def configure(self, modes: str = "", /, *, pid: str = PID, text: str = "", **changes: object) -> None:
        """Write the only configuration: the good one with some properties changed (`smtp_port`), or a text."""
        shutil.rmtree(self.directory / "osgiconfig", ignore_errors=True)
        self.add(modes, pid=pid, text=text, **changes)

    def add(self, modes: str = "", /, *, pid: str = PID, text: str = "", **changes: object) -> None:
        folder = self.directory / "osgiconfig" / f"config{modes}"
        folder.mkdir(parents=True, exist_ok=True)
        found = GOOD | {name.replace("_", "."): value for name, value in changes.items()}
        body = {name: value for name, value in found.items() if value is not None}
        (folder / f"{pid}.cfg.json").write_text(text or json.dumps(body, indent=2))

    # -- the command --------------------------------------------------------------------------------------------

    def doctor(self, *arguments: str, env: Mapping[str, str] | None = None, timeout: str = "2") -> tuple[int, str]:
        """Run the command within this process, in the directory of the configurations."""
        given: dict[str, str | None] = dict.fromkeys(_CLEARED) | {
            "OUTGATE_DATA": str(self.running.data),
            **(env or {}),
        }
        with chdir(self.directory):
            done = CliRunner().invoke(cli, ["doctor", "--timeout", timeout, *arguments], env=given)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output

    def given(self) -> dict[str, str]:
        """Return what `environment run` gives a process of the first environment."""
        secrets, forwards = self.directory / "given", self.directory / "given.json"
        secrets.mkdir(exist_ok=True)
        (secrets / "EMAIL_PASSWORD").write_text(self.running.dev["smtp_password"])
        tunnel = self.place.tunnel()
        forwards.write_text(json.dumps({"tunnelAddress": tunnel, "portForwards": self.forwards()}))
        user = {"EMAIL_USERNAME": self.running.dev["smtp_user"], "OUTGATE_RUN_MODES": "author,prod"}
        return user | {"AEM_PROXY_HOST": tunnel, "OUTGATE_FORWARDS": str(forwards), "OUTGATE_SECRETS": str(secrets)}

    def apart(self, *command: str) -> tuple[int, str]:
        """Run a command in a process of its own."""
        env = {name: value for name, value in os.environ.items() if name not in _CLEARED}
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.directory,
            env={**env, "OUTGATE_DATA": str(self.running.data)},
        )
        return done.returncode, done.stdout + done.stderr

    def normal(self, text: str) -> str:
        """Return a report without what differs from run to run; no stand-in is for something that a line is broken by."""
        dev = self.running.dev
        text = text.replace(str(self.directory), "DIRECTORY").replace(str(self.running.data), "DATA")
        text = text.replace(dev["program_id"], "PPPPPP").replace(dev["instance_id"], "INSTANCE")
        text = re.sub(r"(environment[ /]|=P+ |environment set |--environment )[0-9]{4,}", r"\1EEEEEE", text)
        text = re.sub(r"\b127\.(?:1[0-9]{2}|[1-9])\.[0-9]{1,3}\.[0-9]{1,3}\b", "TUNNEL", text)
        text = re.sub(r"(127\.0\.0\.1|TUNNEL|\.com|\.\w{2,8}):([0-9]{5})\b", r"\1:NNNNN", text)
        text = re.sub(r"(TUNNEL:)NNNNN", r"\1NNNNN", text)
        text = re.sub(r"(smtp.port )[0-9]{5}( is)", r"\1NNNNN\2", text)
        text = re.sub(r'("portDest": )[0-9]{5}', r"\1NNNNN", text)
        text = re.sub(r"\b[I0]0[0-9A-Z]{16}\b", "Q" * 18, text)
        text = re.sub(r"(resolve here: )[A-Z][a-z][a-z ]+", r"\1REASON", text)
        text = re.sub(r"(tunnel's port )[0-9]{5}", r"\1NNNNN", text)
        text = re.sub(r"\b(?:3[2-9]|[4-6][0-9])[0-9]{3}( leads to)", r"NNNNN\1", text)
        return re.sub(r"TLSv1\.\d [A-Z0-9_-]+", "TLS", text)


@contextmanager
def clinic(directory: Path) -> Iterator[Clinic]:
    """Start everything: Outgate, the small servers, and one forward to each."""
    tunnel = re.sub(r"\d+$", "10", tunnel_address())
    network = tunnel_address().rpartition(".")[0]
    settings = f'[dev]\ntunnel_address = "{tunnel}"\n[egress]\ntunnel_network = "{network}.0/24"\n'
    settings += f'mail_targets = ["{HOST}"]\nconnections_per_environment = {LIMIT}\n'
    authority = Authority(directory)
    with ExitStack() as stack:
        running = Running(directory / "data", settings).start()
        stack.callback(running.stop)
        work = directory / "work"
        work.mkdir()
        made = Clinic(running, work, authority)
        scripts = _scripts(authority, directory)
        made.scripts, made.closed = scripts, closed_port()
        running.api.call("PUT", running.api.sandbox(f"zone/{HOST}/A"), {"values": ["127.0.0.1"]})
        running.api.call("PUT", running.api.sandbox("zone/metadata.example/A"), {"values": ["169.254.169.254"]})
        running.api.call("PUT", running.api.sandbox("zone/gone.example/A"), {"rcode": "NXDOMAIN"})
        forwards = [
            (FIRST, HOST, running.address("submissions")[1]),
            (SECOND, HOST, running.address("submission")[1]),
        ]
        for number, (name, script) in enumerate(scripts.items()):
            made.ports[name] = 30100 + number
            forwards.append((30100 + number, HOST, stack.enter_context(serving(script))))
        for number, (name, host, port) in enumerate(
            (("refused", HOST, made.closed), ("no name", "gone.example", 25), ("guarded", "metadata.example", 25))
        ):
            made.ports[name] = 30200 + number
            forwards.append((30200 + number, host, port))
        made.place.variables(
            *made.credentials(),
            {"name": "STORED_AS_SECRET", "value": "someone", "type": "secretString"},
            {"name": "STORED_IN_CLEAR", "value": "something", "type": "string"},
            {"name": "WITH_SPACES", "value": " wrong password ", "type": "secretString"},
            {"name": "WRONG_PASSWORD", "value": "not the password", "type": "secretString"},
            {"name": "SWAPPED", "value": "apikey", "type": "secretString"},
            {"name": "NO_NUMBER", "value": "many", "type": "string"},
            {"name": "OF_PUBLISH", "value": "x", "type": "string", "service": "publish"},
        )
        made.place.forwards(*forwards)
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], running.address("dns")[1]
        dns.resolver.default_resolver = resolver
        stack.callback(setattr, dns.resolver, "default_resolver", None)
        running.api.call("PUT", running.api.sandbox("zone/gone.test/TXT"), {"rcode": "NXDOMAIN"})
        twice = ['"v=spf1 include:a.example ~all"', '"v=spf1 -all"']
        running.api.call("PUT", running.api.sandbox("zone/twice.test/TXT"), {"values": twice})
        yield made


def _scripts(authority: Authority, directory: Path) -> dict[str, Script]:
    good = authority.context(HOST)
    return {
        "foreign": Script(good, implicit=True),
        "foreign starttls": Script(good),
        "wrong name": Script(authority.context("mail.elsewhere.example", "*.elsewhere.example"), implicit=True),
        "expired": Script(authority.expired(HOST), implicit=True),
        "early": Script(authority.early(HOST), implicit=True),
        "self-signed": Script(self_signed(HOST, directory), implicit=True),
        "unknown authority": Script(Authority(directory / "..").context(HOST), implicit=True),
        "too old": Script(first=TOO_OLD),
        "clear": Script(),
        "http": Script(first=b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        "silent": Script(first=b""),
        "busy": Script(good, greeting=b"421 4.3.2 too many connections\r\n"),
        "stranger": Script(good, greeting=b"554 5.7.1 you are not welcome\r\n"),
        "no login": Script(good, implicit=True, offers=("SIZE 1000",)),
        "refuses login": Script(good, implicit=True, replies={"AUTH": b"535 5.7.8 no\r\n"}),
        "refuses sender": Script(good, implicit=True, replies={"MAIL": b"553 5.7.1 not your address\r\n"}),
        "forgets the sender": Script(good, implicit=True, replies={"MAIL": b""}),
        "refuses starttls": Script(good, replies={"STARTTLS": b"454 4.7.0 not now\r\n"}),
        "refuses mail": Script(good, implicit=True, replies={"RCPT": b"550 5.1.1 nobody of that name\r\n"}),
    }
