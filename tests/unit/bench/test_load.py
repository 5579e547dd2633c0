"""The generator: hands in what it was told to, and never takes a refusal for an acceptance."""

from __future__ import annotations

import base64
import json
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from measure.tools import Load, Sink, Submission, hand_in

USER, PASSWORD = "user@example.test", "pa ss\u00e9"


def load(binaries: Path, port: int, *options: str) -> tuple[int, dict[str, Any]]:
    command = [str(binaries / "smtpload"), "--port", str(port), "--runid", "abcdefgh", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def sink(binaries: Path, tmp_path: Path) -> Iterator[Sink]:
    with Sink(binaries, tmp_path / "samples", sample_every=1) as running:
        yield running


@pytest.mark.parametrize("pipelining", [[], ["--no-pipelining"]])
@pytest.mark.parametrize(("size", "per_connection"), [(4096, 1), (4096, 25), (65536, 4)])
def test_every_message_arrives_once(
    binaries: Path, sink: Sink, pipelining: list[str], size: int, per_connection: int
) -> None:
    options = [
        "--tls",
        "none",
        "--count",
        "100",
        "--conns",
        "7",
        "--size",
        str(size),
        "--sink-control",
        sink.control,
    ]
    status, report = load(binaries, sink.port, *options, "--msgs-per-conn", str(per_connection), *pipelining)
    assert status == 0
    assert (report["accepted"], report["delivered"]) == (100, 100)
    assert (report["refused"], report["missing"], report["duplicates"], report["unknown"]) == (0, 0, 0, 0)
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p99"] <= report["latency_ms"]["max"]


def test_messages_are_of_the_size_asked_and_differ_in_their_bodies(binaries: Path, sink: Sink) -> None:
    load(binaries, sink.port, "--tls", "none", "--count", "3", "--size", "4096", "--sink-control", sink.control)
    samples = [file.read_bytes() for file in sorted(sink.samples.iterdir())]
    assert len(samples) == 3
    assert all(4096 <= len(sample) < 4096 + 120 for sample in samples)
    assert len({sample.partition(b"\r\n\r\n")[2] for sample in samples}) == 3
    # What canonicalisation has to deal with is in there.
    assert all(mark in samples[0] for mark in (b" \r\n", b".  ", b"\r\n.", b"\r\n\r\n"))


@dataclass
class Peer:
    """A scripted submission server: what it saw, and how it answers the dot."""

    certificate: Path
    answer_to_dot: Callable[[int], str] = lambda number: "250 2.0.0 Ok"
    after_220: bytes = b""
    credentials: list[bytes] = field(default_factory=list)
    envelopes: list[bytes] = field(default_factory=list)
    messages: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, connection: socket.socket, implicit: bool) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        with ExitStack() as stack:

            def secured(clear: socket.socket) -> ssl.SSLSocket:
                wrapped = context.wrap_socket(clear, server_side=True, do_handshake_on_connect=False)
                stack.enter_context(wrapped).do_handshake()
                return wrapped

            stack.enter_context(connection)
            if implicit:
                connection = secured(connection)
            connection.sendall(b"220 peer\r\n")
            while command := connection.recv(4096):
                if command.startswith(b"STARTTLS"):
                    connection.sendall(b"220 go\r\n" + self.after_220)
                    connection = secured(connection)
                else:
                    self.answer(connection, command)

    def answer(self, connection: socket.socket, command: bytes) -> None:
        verb = command[:4]
        if verb == b"EHLO":
            connection.sendall(b"250-peer\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n")
        elif verb == b"AUTH":
            self.credentials.append(base64.b64decode(command.split()[2]))
            good = self.credentials[-1] == f"\0{USER}\0{PASSWORD}".encode()
            connection.sendall(b"235 2.7.0 Ok\r\n" if good else b"535 5.7.8 No\r\n")
        elif verb == b"MAIL":
            self.envelopes.append(command)
            connection.sendall(b"250 Ok\r\n250 Ok\r\n354 go\r\n")
            content = b""
            while not content.endswith(b"\r\n.\r\n"):
                content += connection.recv(65536)
            with self.lock:
                self.messages += 1
                number = self.messages
            connection.sendall(f"{self.answer_to_dot(number)}\r\n".encode())
        else:
            connection.sendall(b"221 bye\r\n")


@contextmanager
def running(peer: Peer, *, implicit: bool = False) -> Iterator[int]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer.serve(self.request, implicit)
            except OSError:
                return  # the generator hung up, which some tests want

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    key, chain = directory / "key.pem", directory / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=peer.test"
    names = ["-addext", "subjectAltName=DNS:peer.test"]
    subprocess.run([*command.split(), *names, "-keyout", key, "-out", chain], check=True, capture_output=True)
    both = directory / "both.pem"
    both.write_bytes(key.read_bytes() + chain.read_bytes())
    return both


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_logs_in_over_tls_and_pipelines_the_envelope(binaries: Path, certificate: Path, tls: str) -> None:
    peer = Peer(certificate)
    with running(peer, implicit=tls == "implicit") as port:
        options = ["--user", USER, "--password", PASSWORD, "--ca", str(certificate), "--server-name", "peer.test"]
        shape = ["--tls", tls, "--count", "10", "--conns", "1", "--msgs-per-conn", "5"]
        status, report = load(binaries, port, *options, *shape, "--from", "s@example.test", "--to", "r@example.net")
    assert status == 0
    assert (report["accepted"], report["handshakes"]) == (10, 2)
    assert peer.credentials == [f"\0{USER}\0{PASSWORD}".encode()] * 2
    assert peer.envelopes == [b"MAIL FROM:<s@example.test>\r\nRCPT TO:<r@example.net>\r\nDATA\r\n"] * 10


def test_a_refused_message_is_counted_as_refused(binaries: Path, certificate: Path) -> None:
    peer = Peer(certificate, answer_to_dot=lambda number: "451 4.3.0 later" if number % 3 == 0 else "250 Ok")
    with running(peer) as port:
        status, report = load(binaries, port, "--count", "9", "--conns", "1", "--msgs-per-conn", "100")
    assert status == 1
    assert (report["accepted"], report["refused"], report["unsent"]) == (6, 3, 0)
    assert report["last_error"] == "refused at content: 451 4.3.0 later"


def test_a_wrong_password_is_reported_and_nothing_is_sent(binaries: Path, certificate: Path) -> None:
    peer = Peer(certificate)
    with running(peer) as port:
        status, report = load(binaries, port, "--count", "5", "--user", USER, "--password", "wrong")
    assert (status, report["accepted"], report["unsent"], peer.messages) == (1, 0, 5, 0)
    assert report["last_error"] == "refused at AUTH: 535 5.7.8 No"


@pytest.mark.parametrize("options", [["--server-name", "other.test"], []])
def test_an_untrusted_certificate_is_refused(
    binaries: Path, certificate: Path, tmp_path: Path, options: list[str]
) -> None:
    ca = certificate
    if not options:
        ca = tmp_path / "other.pem"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=other -keyout"
        subprocess.run([*command.split(), tmp_path / "key.pem", "-out", ca], check=True, capture_output=True)
    with running(Peer(certificate)) as port:
        status, report = load(binaries, port, "--count", "1", "--ca", str(ca), *options)
    assert (status, report["accepted"]) == (1, 0)
    assert "certificate verify failed" in report["last_error"]


def test_clear_text_behind_the_reply_to_starttls_ends_the_session(binaries: Path, certificate: Path) -> None:
    with running(Peer(certificate, after_220=b"250 injected\r\n")) as port:
        status, report = load(binaries, port, "--count", "1")
    assert (status, report["accepted"]) == (1, 0)
    assert report["last_error"].startswith("clear text after the reply to STARTTLS")


def test_what_a_server_accepts_and_drops_is_missing(binaries: Path, certificate: Path, sink: Sink) -> None:
    peer = Peer(certificate)
    with running(peer) as port:
        to = Submission("127.0.0.1", port, USER, PASSWORD, certificate, "peer.test")
        report = hand_in(binaries, to, Load(4, 2, 2, 1024), sink, sender="s@example.test", limit_s=0.5)
    assert (report["accepted"], report["delivered"], report["missing"]) == (4, 0, 4)
