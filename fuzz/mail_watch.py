"""The watch on SMTP that passes through.

Property: with logins refused, no server sees an AUTH command outside TLS, whichever of the known ways it has of being lax
about line ends, NULs, blanks, the end of a message, DATA and BDAT; where the input is cut changes nothing of what reaches
it, what is told and how it ends. Without, every octet passes at once. What is told is in the list, each once; memory has
a bound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from outgate.egress.mail_watch import NOTICES, MailWatch

_HELLO = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03" + bytes(range(65, 97)) + b"\0\0\x02\x13\x01\x01\0\0\0"
SEEDS = (
    b"\x00EHLO c\r\nAUTH PLAIN AGEAYg==\r\n",
    b"\x01EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: AUTH\r\n\r\nAUTH PLAIN x\r\n.\r\nQUIT\r\n",
    b"\x02EHLO c\r\n\xfeBDAT 14\r\nAUTH PLAIN x\r\nBDAT 0 LAST\r\nAUTH LOGIN\r\n",
    b"\x04DATA\r\nx\n.\nAUTH PLAIN x\r\n.\r\n",
    b"\x08DATA\r\nAUTH PLAIN x\r\n.\r\n",
    b"\x10EHLO c\r\nSTARTTLS\r\nAUTH PLAIN x\r\n",
    b"\x30EHLO c\r\n\xfeSTARTTLS\r\n\xfe" + _HELLO + b"\r\nAUTH PLAIN x\r\n",
    b"\x40" + _HELLO + b"\r\nAUTH PLAIN x\r\n",
    b"\x41" + _HELLO[:20] + b"\r\n\0AUTH x\r\n" + _HELLO[31:],
    b"\x03 aUtH\tPLAIN x\n\rAUTH x\r\r\0AUTH x\r\nAU\0TH x\r\n",
    b"\x80DATA\r\n",
    b"\x01DATA\r\n\xfex\n.\nAUTH PLAIN x\r\n.\r\n",
    b"\x02DATA\r\n\xfex\r.\rAUTH PLAIN x\r\n.\r\n",
    b"\x00DATA\r\n.\r\nNOOP\r\nDATA\r\nAUTH x\r\nDATA\r\n\r\n.\rAUTH x\r\n\0.\r\nAUTH x\r\n",
)
_AUTH = re.compile(rb"[\s\0]*AUTH(?![A-Z])", re.IGNORECASE)


@dataclass
class Lax:
    """A server that is lax in ways of its own. It notes whether a command was AUTH, and answers."""

    traits: int
    content: bool = False
    chunk: int = 0
    tls: bool = False
    caught: bool = False
    buffer: bytes = b""
    heard: bytearray = field(default_factory=bytearray)

    def take(self, data: bytes) -> bytes:
        """Return what the server answers to octets that have reached it."""
        self.heard += data
        self.buffer += data
        said = b""
        while self.buffer and not self.tls:
            line = self._next()
            if line is None:
                break
            said += self._answer(line)
        return said

    def _next(self) -> bytes | None:
        if self.chunk:
            taken, self.buffer = self.buffer[: self.chunk], self.buffer[self.chunk :]
            self.chunk -= len(taken)
            return None if self.chunk else b"\0chunk"
        ends = (rb"\r\n", rb"\r?\n", rb"\r\n?|\n", rb"\r*\n")[self.traits & 3]
        if self.content:
            # Some end a message at their own kind of line end; all of them at the right one.
            found = re.search(rb"(?:^|\r\n|" + ends + rb")\0*\.\0*(?:\r\n|" + ends + rb")", self.buffer)
            if found is None:
                return None
            self.content, self.buffer = False, self.buffer[found.end() :]
            return b"\0content"
        found = re.search(ends, self.buffer)
        if found is None:
            return None
        line, self.buffer = self.buffer[: found.start()], self.buffer[found.end() :]
        return line.replace(b"\0", b"") if self.traits & 4 else line

    def _answer(self, line: bytes) -> bytes:
        if _AUTH.match(line):
            self.caught = True
        verb = line.strip(b" \t\0")[:8].upper()
        if verb.startswith(b"EHLO"):
            chunking = b"250-CHUNKING\r\n" if self.traits & 16 else b""
            return b"250-lax\r\n" + chunking + (b"250 STARTTLS\r\n" if self.traits & 32 else b"250 HELP\r\n")
        if verb.startswith(b"DATA"):
            self.content = not self.traits & 8
            return b"354 go\r\n" if self.content else b"503 no\r\n"
        if verb.startswith(b"BDAT") and self.traits & 16:
            size = re.match(rb"\s*BDAT\s+(\d+)", line, re.IGNORECASE)
            self.chunk = 0 if size is None else int(size[1][:9])
            return b"" if self.chunk else b"250 chunk\r\n"
        if verb == b"STARTTLS" and self.traits & 32:
            self.tls = True
            return b"220 go\r\n"
        return b"250 done\r\n" if line.startswith(b"\0") or verb in (b"NOOP", b"RSET") else b"500 what\r\n"


def converse(data: bytes, step: int, *, refuse: bool) -> tuple[bytes, bool, list[str], str, bool]:
    """Return what reached the server, whether that was a login, what was told, the end, and whether the watch ended."""
    traits, pieces = (data[0] if data else 0), data[1:].split(b"\xfe")
    server, told = Lax(traits), list[str]()
    watch = MailWatch(implicit_tls=bool(traits & 64), refuse_auth=refuse, noticed=lambda code, _: told.append(code))
    end, done = "", False

    def reach(octets: bytes) -> None:
        nonlocal end, done
        while octets:
            said = server.take(octets)
            octets = b""
            for at in range(0, 0 if end else len(said), step):
                verdict = watch.target(said[at : at + step])
                octets += verdict.back
                end, done = verdict.end, verdict.done
                if end:
                    break

    greeting = b"" if traits & 128 else b"220 lax ESMTP\r\n"
    for at in range(0, len(greeting), step):
        watch.target(greeting[at : at + step])
    for piece in pieces:
        passed = b""  # the server hears of a piece when all of it has come: else a cut would be a pause, too
        for at in range(0, 0 if end else len(piece), step):
            verdict = watch.client(piece[at : at + step])
            assert refuse or verdict.on == piece[at : at + step]
            passed += verdict.on
            end, done = verdict.end, verdict.done
            assert not (end and done)
            if end:
                break
        reach(passed)
    late = watch.silent()
    assert watch.kept <= 25_000
    return bytes(server.heard), server.caught, told, end or late.end, done


def one_input(data: bytes) -> None:
    whole = converse(data, 1 << 20, refuse=True)
    assert not whole[1], "a login has reached the server"
    assert len(set(whole[2])) == len(whole[2]) and set(whole[2]) <= NOTICES.keys()
    for step in (1, 3):
        assert converse(data, step, refuse=True)[:4] == whole[:4], step
    seen = converse(data, 1 << 20, refuse=False)
    assert seen[3] == "" and set(seen[2]) <= NOTICES.keys()


if __name__ == "__main__":
    from _run import run

    run(__file__)
