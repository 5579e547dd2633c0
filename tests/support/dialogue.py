"""Dialogues: text files that read like a session, played against the server machine in three ways.

    S: a reply line the server must send          C: a command line (CR LF is added)
    C- the same without CR LF (raw bytes)         T: the TLS handshake happens here
    D: a message line (CR LF is added, dots are as they are)
    B: the octets of a chunk (BDAT and their number are put before them)      B. the same for the last chunk
    M: the message that was just taken, in wire form
    X: the server closes here                     # a comment

`\\r`, `\\n`, `\\0`, `\\t`, `\\xNN`, `\\\\` are escapes in all but S:. A line `S: 250 *` matches any text after the code.
Options (`% name=value`): sizes of `Limits`; `clear` begins without TLS; `dsn` and `requiretls` offer these; `replace`
mends bare line ends; `whole` is for dialogues that mean something else in pieces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from outgate.smtp.errors import RemoteProtocolError
from outgate.smtp.events import (
    Authenticate,
    Connected,
    Event,
    MailFrom,
    MessageReceived,
    RcptTo,
    TlsRequested,
)
from outgate.smtp.reply import reply
from outgate.smtp.server import AUTH_FAILED, AUTH_OK, RECIPIENT_OK, SENDER_OK, Limits, ServerMachine

FOLDER = Path(__file__).parent.parent / "transcripts" / "dialogues"


@dataclass
class Dialogue:
    name: str
    steps: list[tuple[str, bytes]]
    options: dict[str, str]

    @property
    def starttls(self) -> bool:
        return "clear" in self.options

    @property
    def whole(self) -> bool:
        return "whole" in self.options


def load(path: Path) -> Dialogue:
    steps: list[tuple[str, bytes]] = []
    options: dict[str, str] = {}
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("%"):
            key, _, value = line[1:].strip().partition("=")
            options[key] = value
        elif line[:2] in ("S:", "C:", "C-", "D:", "B:", "B.", "M:", "T:", "X:"):
            text = line[3:]
            data = _unescape(text) if line[0] in "CDBM" else text.encode()
            if line[:2] in ("C:", "D:"):
                data += b"\r\n"
            elif line[0] == "B":
                data = b"BDAT %d%b\r\n%b" % (len(data), b" LAST" if line[1] == "." else b"", data)
            steps.append((line[0], data))
        elif line.strip() and not line.startswith("#"):
            raise ValueError(f"{path.name}: {line!r}")
    return Dialogue(path.stem, steps, options)


def _unescape(text: str) -> bytes:
    signs = {b"\\r": b"\r", b"\\n": b"\n", b"\\0": b"\0", b"\\t": b"\t", b"\\\\": b"\\"}
    return re.sub(
        rb"\\(?:x[0-9a-f]{2}|[rn0t\\])",
        lambda m: signs[m[0]] if m[0] in signs else bytes([int(m[0][2:], 16)]),
        text.encode(),
    )


@dataclass
class ScriptedSession:
    """Says yes to everybody named ok, and keeps what it was given."""

    machine: ServerMachine
    messages: list[bytes] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def handle(self, event: Event) -> None:
        self.events.append(event)
        match event:
            case Connected():
                self.machine.answer(reply(220, "", "relay.example ESMTP"))
            case Authenticate():
                right = event.login.username == "user" and event.login.password == "secret"
                self.machine.answer(AUTH_OK if right else AUTH_FAILED)
            case MailFrom():
                refused = event.reverse_path.domain == "refused.example"
                self.machine.answer(reply(550, "5.7.1", "Not here") if refused else SENDER_OK)
            case RcptTo():
                refused = event.forward_path.local == "refused"
                self.machine.answer(reply(550, "5.1.1", "Nobody") if refused else RECIPIENT_OK)
            case MessageReceived():
                self.messages.append(event.content)
                self.machine.answer(reply(250, "2.0.0", "Ok: queued as 0TEST"))
            case _:
                pass


def machine(dialogue: Dialogue, *, tls: bool) -> ServerMachine:
    limits = Limits(
        message=int(dialogue.options.get("size", "1000000")),
        recipients=int(dialogue.options.get("recipients", "3")),
        line=int(dialogue.options.get("line", "512")),
        errors=int(dialogue.options.get("errors", "10")),
        text_line=int(dialogue.options.get("text_line", "0")),
        useless=int(dialogue.options.get("useless", "100")),
    )
    return ServerMachine(
        "relay.example",
        limits=limits,
        tls=tls,
        replace_bare_line_ends="replace" in dialogue.options,
        offer_dsn="dsn" in dialogue.options,
        offer_requiretls="requiretls" in dialogue.options,
    )


def play(dialogue: Dialogue, *, piece: int = 0) -> ScriptedSession:
    """Play against the machine alone; `piece` > 0 feeds that many bytes at a time."""
    session = ScriptedSession(machine(dialogue, tls=not dialogue.starttls))
    server = session.machine
    heard = bytearray()

    def pump() -> None:
        while (event := server.next_event()) is not None:
            if not isinstance(event, TlsRequested):
                session.handle(event)
        heard.extend(server.outgoing())

    pump()
    closed = False
    for kind, data in dialogue.steps:
        if kind == "S":
            expect(dialogue.name, heard, data)
        elif kind == "M":
            assert session.messages[-1] == data, dialogue.name
        elif kind == "T":
            server.tls_started()
        elif kind == "X":
            assert closed or server.state.value == "closed", f"{dialogue.name}: still open, heard {bytes(heard)!r}"
        else:
            pieces = [data[at : at + piece] for at in range(0, len(data), piece)] if piece else [data]
            for part in pieces:
                try:
                    server.receive(part)
                    pump()
                except RemoteProtocolError:
                    heard.extend(server.outgoing())
                    closed = True
                    break
    assert not heard, f"{dialogue.name}: nobody expected {bytes(heard)!r}"
    return session


def expect(name: str, heard: bytearray, line: bytes) -> None:
    got, end, rest = bytes(heard).partition(b"\r\n")
    assert end, f"{name}: expected {line!r}, heard {bytes(heard)!r}"
    wanted = re.escape(line).replace(rb"\*", b".*")
    assert re.fullmatch(wanted, got), f"{name}: expected {line!r}, heard {got!r}"
    heard[:] = rest
