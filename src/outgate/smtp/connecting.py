"""What both client shells share: their time-outs, the ways to TLS, and how a connection can fail to come about.

Standards: RFC 5321 section 4.5.3.2 (time-outs), RFC 3207, RFC 8314.
Promises: a failure names its stage, so that its owner knows whether another way is worth trying.
Dangers: "opportunistic" is for delivery to strangers only; a mailer with a password needs one of the others.
Not here: the shells (`smtp.asyncio.client`, `smtp.sync.client`), what a login says (`smtp.login`).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

from outgate.smtp.reply import Reply
from outgate.smtp.transaction import Step

TlsMode = Literal["none", "opportunistic", "required", "implicit"]


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """When the system asks whether a silent peer's machine still answers: after `idle` seconds, each `interval`
    seconds, and `count` questions without an answer end the connection. So a long wait for the reply to the final dot
    ends soon if there is nobody who could give it.

    TCP_USER_TIMEOUT would stand in the place of `count`, and cut off peers that live but do not read for a while."""

    idle: int = 15
    interval: int = 5
    count: int = 3

    def set_on(self, sock: socket.socket) -> None:
        """Ask for it, as far as the system has it."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("IDLE", self.idle), ("INTVL", self.interval), ("CNT", self.count)):
            option = getattr(socket, f"TCP_KEEP{name}", None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """Seconds: to connect, for a handshake, for a whole reply, for the reply to the final dot, without progress
    while content is sent, for the reply to QUIT, and for that to the question whether an idle peer is still there."""

    connect: float = 30.0
    handshake: float = 30.0
    reply: float = 300.0
    final: float = 600.0
    content: float = 180.0
    quit: float = 10.0
    probe: float = 5.0

    def __post_init__(self) -> None:
        if not all(getattr(self, each.name) > 0 for each in fields(self)):
            raise ValueError("time-outs: seconds above 0")

    @property
    def shortest(self) -> float:
        """Return the shortest of them."""
        return min(self.connect, self.handshake, self.reply, self.final, self.content, self.quit, self.probe)

    def for_reply(self, waited_for: str) -> float:
        """Return the seconds for what a machine's `deadline` names."""
        if waited_for == "final":
            return self.final
        if waited_for == "handshake":
            return self.handshake
        return self.quit if waited_for == "quit" else self.reply


class ConnectFailed(Exception):
    """No usable connection. `stage` is "source" (our own address is not there), "connect", "greeting", "loop" (the peer
    is ourselves), "hello", "tls" or "auth"; `reply` the peer's, if any; `certificate` says that the peer's certificate
    was the reason, `injected` that the peer, or someone in between, spoke before the handshake."""

    def __init__(
        self,
        stage: str,
        error: str,
        reply: Reply | None = None,
        steps: tuple[Step, ...] = (),
        *,
        certificate: bool = False,
        injected: bool = False,
    ) -> None:
        super().__init__(error)
        self.stage = stage
        self.reply = reply
        self.steps = steps
        self.certificate = certificate
        self.injected = injected


def certificate_names(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the names in a certificate, as the `ssl` module tells it: none without TLS, or without a checked chain."""
    names = cast("tuple[tuple[str, str], ...]", (certificate or {}).get("subjectAltName", ()))
    return tuple(name for kind, name in names if kind in ("DNS", "IP Address"))


def why(error: BaseException) -> str:
    """Say what an operating system's or TLS's error was, in its own words."""
    refused: str = getattr(error, "verify_message", "")  # `ssl.SSLCertVerificationError` alone has one
    if refused:
        return f"the certificate was not accepted: {refused}"
    if type(error).__module__ == "builtins" and isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # event loops put their own words into `strerror`
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
