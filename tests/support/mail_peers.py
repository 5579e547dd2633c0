"""Small real mail servers for the doctor: right ones, wrong ones and hostile ones, over real sockets and real TLS."""

from __future__ import annotations

import contextlib
import datetime
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOO_OLD = b"\x15\x03\x01\x00\x02\x02\x46"
"""A record of TLS 1.0 that holds the alert protocol_version."""


@dataclass
class Script:
    """What a server does. `replies` maps a verb to its answer; `implicit`: TLS begins with the first octet."""

    context: ssl.SSLContext | None = None
    implicit: bool = False
    greeting: bytes = b"220 mail.example ESMTP\r\n"
    offers: tuple[str, ...] = ("AUTH PLAIN LOGIN", "SIZE 1000000")
    replies: dict[str, bytes] = field(default_factory=dict)
    first: bytes | None = None
    """Instead of all this: these octets once, and then nothing, until the client goes."""
    endless: bytes = b""
    """Instead of all this: these octets again and again."""
    seen: list[bytes] = field(default_factory=list)
    secure: list[bool] = field(default_factory=list)


class _Session(socketserver.BaseRequestHandler):
    script: Script

    def handle(self) -> None:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, ValueError):
            self._converse(self.request, stack)

    def _converse(self, sock: socket.socket, stack: contextlib.ExitStack) -> None:
        script = self.script
        sock.settimeout(20)
        if script.endless:
            while True:
                sock.sendall(script.endless)
        if script.first is not None:
            sock.sendall(script.first)
            while sock.recv(4096):
                pass
            return
        if script.implicit and script.context:
            sock = stack.enter_context(script.context.wrap_socket(sock, server_side=True))
        secure = script.implicit
        sock.sendall(script.greeting)
        file = stack.enter_context(sock.makefile("rb"))
        while line := file.readline():
            verb = line[:8].split()[0].decode("ascii", "replace").upper() if line.strip() else ""
            script.seen.append(line)
            script.secure.append(secure)
            if verb in script.replies:
                sock.sendall(script.replies[verb])
            elif verb == "EHLO":
                offers = [*script.offers] + (["STARTTLS"] if script.context and not secure else [])
                lines = ["mail.example", *offers]
                text = [f"250{' ' if at == len(lines) - 1 else '-'}{each}\r\n" for at, each in enumerate(lines)]
                sock.sendall("".join(text).encode())
            elif verb == "STARTTLS" and script.context:
                sock.sendall(b"220 go\r\n")
                sock = stack.enter_context(script.context.wrap_socket(sock, server_side=True))
                file, secure = stack.enter_context(sock.makefile("rb")), True
            elif verb == "AUTH":
                sock.sendall(b"235 2.7.0 in\r\n")
            elif verb == "DATA":
                sock.sendall(b"354 go\r\n")
                while file.readline() not in (b".\r\n", b""):
                    pass
                sock.sendall(b"250 2.0.0 taken\r\n")
            elif verb == "QUIT":
                sock.sendall(b"221 bye\r\n")
                return
            else:
                sock.sendall(b"250 2.1.0 ok\r\n")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 32

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextlib.contextmanager
def serving(script: Script) -> Iterator[int]:
    """Serve a script on loopback; give the port."""
    handler = type("Session", (_Session,), {"script": script})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class Authority:
    """An authority of the tests, with its certificate in a file."""

    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA(organization_name="Tests", organization_unit_name="Doctor")
        self.file = directory / "authority.pem"
        self.ca.cert_pem.write_to_path(str(self.file))

    def context(self, *names: str, **lifetime: datetime.datetime) -> ssl.SSLContext:
        """Return a server's context with a certificate for `names`."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names, **lifetime).configure_cert(made)
        return made

    def expired(self, name: str) -> ssl.SSLContext:
        """Return one whose certificate has ended."""
        return self.context(name, not_before=_year(2020), not_after=_year(2021))

    def early(self, name: str) -> ssl.SSLContext:
        """Return one whose certificate has not begun."""
        return self.context(name, not_before=_year(2090), not_after=_year(2091))


def _year(number: int) -> datetime.datetime:
    return datetime.datetime(number, 1, 1, tzinfo=datetime.UTC)


def self_signed(name: str, directory: Path) -> ssl.SSLContext:
    """Return a server's context whose certificate is signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = directory / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + built.public_bytes(serialization.Encoding.PEM)
    )
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(file)
    return made
