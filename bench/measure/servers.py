"""Start and stop the servers that are measured: Outgate, and peers through their scripts.

Standards: none.
Promises: every server gets the same certificate kind (ECDSA P-256), the same RSA-2048 signing key, domain, selector
and sink, and a directory of its own; what is started here is stopped here, by its process number.
Dangers: Outgate makes its own certificate authority; peers use a self-signed certificate.
Not here: how a peer is configured (peers/*.sh), accounting.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from measure.accounting import Account, open_account
from measure.tools import BENCH, BenchError, Submission

DOMAIN = "example.test"
SELECTOR = "bench"
_PEER_USER = f"bench@{DOMAIN}"
_PEER_PASSWORD = "battery-staple-7"  # noqa: S105 - of a server that lives for a minute on loopback
_START_S = 60.0
_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What all servers of one run share."""

    directory: Path
    sink_port: int
    dkim_key: Path
    dkim_public_der: bytes
    tls_certificate: Path
    tls_key: Path


def prepare_ground(directory: Path, sink_port: int) -> Ground:
    """Make keys and a certificate in `directory` with the openssl command."""
    keys = directory / "keys"
    keys.mkdir()
    dkim_key, tls_key, certificate = keys / "dkim.pem", keys / "tls.pem", keys / "certificate.pem"

    def openssl(*arguments: str) -> bytes:
        return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout

    # PKCS#1 ("BEGIN RSA PRIVATE KEY") is what every mail server reads.
    openssl("genrsa", "-traditional", "-out", str(dkim_key), "2048")
    public_der = openssl("rsa", "-in", str(dkim_key), "-pubout", "-outform", "DER")
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(tls_key))
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    subject = ["-subj", "/CN=localhost", "-addext", names, "-days", "30"]
    openssl("req", "-x509", "-new", "-key", str(tls_key), *subject, "-out", str(certificate))
    return Ground(directory, sink_port, dkim_key, public_der, certificate, tls_key)


class Server(Protocol):
    """One server under measurement."""

    name: str
    account: Account

    def start(self) -> Submission:
        """Start it and return where it takes mail. Raises `BenchError`."""
        ...

    def stop(self) -> None:
        """Stop it, if it runs."""
        ...


class Outgate:
    """`outgate dev` with all deliveries going to the sink."""

    name = "outgate"

    def __init__(self, ground: Ground, command: Sequence[str], *, relay: str = "", delivery_port: int = 0) -> None:
        """`relay` are the settings of the relay instead of the one that sends all to the sink; `delivery_port` is that
        of the receiving servers then."""
        self._relay = relay or f'deliver_to = "127.0.0.1:{ground.sink_port}"'
        self._delivery_port = delivery_port
        self._ground = ground
        self._command = list(command)
        self._directory = ground.directory / self.name
        self._process: subprocess.Popen[bytes] | None = None
        self.account = open_account(self.name, self._roots)

    def _roots(self) -> list[int]:
        return [self._process.pid] if self._process else []

    def start(self) -> Submission:
        self._directory.mkdir()
        settings = self._directory / "bench.toml"
        settings.write_text(
            f"""[relay]
{self._relay}

[dev]
domain = "{DOMAIN}"
dkim_selector = "{SELECTOR}"
dkim_key_file = "{self._ground.dkim_key}"
""",
            encoding="utf-8",
        )
        data, log = self._directory / "data", self._directory / "log"
        ports = ("http", "submission", "submissions", "dns", "inbox", "proxy")
        any_port = [word for name in ports for word in (f"--{name}-port", "0")]
        if self._delivery_port:  # the laptop mode sends to where its own inbox is
            any_port += ["--inbox-port", str(self._delivery_port)]
        command = [*self._command, "dev", "--data", str(data), *any_port, "--config", str(settings)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self.account.wrap(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        facts = self._await_facts(data / "dev.json", log)
        host, _, port = facts["submission"].rpartition(":")
        return Submission(
            host=host,
            port=int(port),
            user=facts["smtp_user"],
            password=facts["smtp_password"],
            ca_file=Path(facts["ca_file"]),
            server_name=facts["smtp_host_name"],
        )

    def _await_facts(self, file: Path, log: Path) -> dict[str, str]:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        # The file is written by rename once everything answers: it is whole when it is there.
        while not file.exists():
            if self._process.poll() is not None:
                raise BenchError(f"outgate ended with status {self._process.returncode}:\n{_tail(log)}")
            if time.monotonic() > deadline:
                raise BenchError(f"outgate is not ready after {_START_S:.0f} s:\n{_tail(log)}")
            time.sleep(0.1)
        return json.loads(file.read_text("utf-8"))

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.account.close()


class Peer:
    """Another mail server, run by peers/<name>.sh."""

    def __init__(self, name: str, ground: Ground) -> None:
        self.name = name
        self._script = BENCH / "peers" / f"{name}.sh"
        if not self._script.exists():
            known = ", ".join(sorted(file.stem for file in self._script.parent.glob("*.sh")))
            raise BenchError(f"no such peer: {name} (there is: {known})")
        self._ground = ground
        self._directory = ground.directory / name
        self._port = _free_port()
        self.account = open_account(name, self._roots)

    def _run(self, verb: str) -> list[str]:
        return ["sh", str(self._script), verb, str(self._directory)]

    def _roots(self) -> list[int]:
        done = subprocess.run(self._run("pids"), check=False, capture_output=True, text=True)
        return [int(word) for word in done.stdout.split()]

    def start(self) -> Submission:
        if os.geteuid() != 0:
            raise BenchError(f"{self.name} can only be started by root; `make bench` without PEERS needs no root")
        if subprocess.run(["sh", str(self._script), "install"], check=False).returncode != 0:
            raise BenchError(f"{self.name} is not installed (see above)")
        self._directory.mkdir()
        environment = {
            **os.environ,
            "PORT": str(self._port),
            "SINK_HOST": "127.0.0.1",
            "SINK_PORT": str(self._ground.sink_port),
            "DOMAIN": DOMAIN,
            "SELECTOR": SELECTOR,
            "DKIM_KEY": str(self._ground.dkim_key),
            "TLS_CERT": str(self._ground.tls_certificate),
            "TLS_KEY": str(self._ground.tls_key),
            "BENCH_USER": _PEER_USER,
            "BENCH_PASSWORD": _PEER_PASSWORD,
        }
        log = self._directory / "log"
        # A file and not a pipe: daemons that the script leaves behind would keep a pipe open.
        with log.open("wb") as output:
            done = subprocess.run(
                self.account.wrap(self._run("start")),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0 or not _answers(self._port):
            raise BenchError(f"{self.name} did not start:\n{_tail(log)}")
        return Submission(
            host="127.0.0.1",
            port=self._port,
            user=_PEER_USER,
            password=_PEER_PASSWORD,
            ca_file=self._ground.tls_certificate,
            server_name="localhost",
        )

    def stop(self) -> None:
        if self._directory.exists():
            subprocess.run(self._run("stop"), check=False, stdin=subprocess.DEVNULL)
        self.account.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(port: int) -> bool:
    """Tell whether somebody greets on `port` before the time is up."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                return connection.recv(3) == b"220"
        except OSError:
            time.sleep(0.1)
    return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-20:])
