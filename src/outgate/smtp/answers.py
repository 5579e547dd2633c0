"""Replies as they come in: bytes in, `Reply` objects out.

Standards: RFC 5321 sections 4.2 (replies), 4.1.1.1 (EHLO's answer), RFC 3463 (enhanced codes).
Promises: any bytes give replies or `RemoteProtocolError`; feeding in any pieces gives the same replies;
memory is bounded by `ClientLimits`; a reply's text holds no control character.
Dangers: only CR LF ends a line; a lone CR or LF is an error, or two readers would see two different replies.
Not here: which reply answers what (`smtp.client`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from outgate.smtp.errors import RemoteProtocolError
from outgate.smtp.reply import Reply

_CACHED = 100  # octets: the everyday replies ("250 2.1.5 Ok") are this short and always the same


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """How much a peer may say: octets in a line, lines in a reply, octets in a reply."""

    line: int = 4096
    lines: int = 128
    reply: int = 65_536


class ReplyReader:
    """Bytes in, replies out."""

    __slots__ = ("_at", "_code", "_data", "_limits", "_lines", "_size")

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._data = b""
        self._at = 0
        self._lines: list[bytes] = []
        self._size = 0
        self._code = b""

    def __len__(self) -> int:
        return len(self._data) - self._at + len(self._lines)

    def feed(self, data: bytes) -> None:
        """Append what was received."""
        self._data = data if self._at >= len(self._data) else self._data[self._at :] + data
        self._at = 0

    def clear(self) -> None:
        """Forget everything."""
        self._data = b""
        self._at = 0
        self._lines = []
        self._size = 0

    def next(self, extended: bool) -> Reply | None:
        """Return the next whole reply, None if it has not come yet.

        `extended` says that texts may begin with an enhanced code (EHLO's answer never does).
        Raises `RemoteProtocolError`."""
        while (line := self._line()) is not None:
            if not self._lines and (len(line) < 4 or line[3] != 45):
                return _cached(line, extended) if len(line) <= _CACHED else _single(line, extended)
            last = self._collect(line)
            if last:
                lines, self._lines = self._lines, []
                self._size = 0
                return _many(lines, extended)
        return None

    def _line(self) -> bytes | None:
        """Return the next line without its CR LF."""
        data, at = self._data, self._at
        end = data.find(b"\n", at)
        limit = self._limits.line
        if end < 0:
            if len(data) - at > limit:
                raise RemoteProtocolError(f"a line of a reply is longer than {limit} octets")
            return None
        if end + 1 - at > limit:
            raise RemoteProtocolError(f"a line of a reply is longer than {limit} octets")
        if end == at or data[end - 1] != 13:
            raise RemoteProtocolError("a line of a reply ends in LF without CR")
        self._at = end + 1
        line = data[at : end - 1]
        if b"\r" in line or b"\0" in line:
            raise RemoteProtocolError("a reply holds a lone CR or a NUL")
        return line

    def _collect(self, line: bytes) -> bool:
        """Keep a line of a longer reply; say whether it was the last."""
        lines = self._lines
        if not lines:
            self._code = _code(line)
        elif _code(line) != self._code:
            raise RemoteProtocolError("the lines of a reply have different codes")
        lines.append(line)
        self._size += len(line) + 2
        if len(lines) > self._limits.lines or self._size > self._limits.reply:
            raise RemoteProtocolError("a reply has no end")
        return len(line) < 4 or line[3] != 45


def _code(line: bytes) -> bytes:
    code = line[:3]
    if len(code) < 3 or not code.isdigit() or not 50 <= code[0] <= 53 or line[3:4] not in (b"", b" ", b"-"):
        raise RemoteProtocolError(f"not a reply: {line[:80]!r}")
    return code


def _text(raw: bytes) -> str:
    """Decode a line's text; what a terminal might obey becomes a question mark."""
    text = raw.decode("utf-8", "replace")
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _enhanced(code: str, text: str) -> str:
    """Return the enhanced code that begins `text`, "" if there is none that fits `code`."""
    if text[1:2] != "." or text[:1] != code[0] or code[0] == "3":
        return ""
    head = text.partition(" ")[0]
    parts = head.split(".")
    if len(parts) == 3 and head.isascii() and all(part.isdecimal() and len(part) <= 3 for part in parts):
        return head
    return ""  # short or odd ones exist: they are text then


def _single(line: bytes, extended: bool) -> Reply:
    code = _code(line).decode("ascii")
    text = _text(line[4:])
    enhanced = _enhanced(code, text) if extended else ""
    if enhanced:
        text = text[len(enhanced) + 1 :]
    return Reply(int(code), enhanced, (text,))


_cached = lru_cache(maxsize=512)(_single)


def _many(lines: list[bytes], extended: bool) -> Reply:
    code = lines[0][:3].decode("ascii")
    texts = [_text(line[4:]) for line in lines]
    enhanced = _enhanced(code, texts[0]) if extended else ""
    if enhanced:
        prefix = enhanced + " "
        texts = ["" if text == enhanced else text.removeprefix(prefix) for text in texts]
    return Reply(int(code), enhanced, tuple(texts))


def extensions_of(reply: Reply) -> dict[str, str]:
    """Return what an answer to EHLO offers: keyword in capitals → its parameters in one string."""
    found: dict[str, str] = {}
    for line in reply.lines[1:]:
        keyword, _, parameters = line.strip().partition(" ")
        keyword, equals, first = keyword.upper().partition("=")
        if equals:  # "AUTH=LOGIN PLAIN", as servers before RFC 2554 wrote it
            parameters = f"{first} {parameters}".strip()
        if keyword and keyword not in found:
            found[keyword] = parameters.strip()
    return found
