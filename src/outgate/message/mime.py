"""Walk the MIME structure of a message and report its leaf parts; nothing is decoded (`text` does).

Standards: RFC 2045 and 2046 (structure), RFC 2183 (disposition), RFC 2231 (parameters).
Promises: linear time in the message and bounded depth and number of parts; a plain text message is judged
by its header alone; what is malformed is reported as a part of type `application/octet-stream`, so that a
rule that fears attachments refuses it.
Dangers: readers disagree about broken MIME: never answer "text" where another reader could see a file.
Not here: which parts are allowed (`relay.content`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from outgate.message.fields import BadHeader, Header, read, unstuffed

DEPTH = 20
PARTS = 1000
_TYPE = re.compile(rb"\s*([A-Za-z0-9!#$&^_.+-]+)/([A-Za-z0-9!#$&^_.+-]+)\s*(?:;|$)")
_PIECE = re.compile(rb"(\"(?:[^\"\\]|\\.)*+\")|([^\";]++)|(;)|\"", re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_OCTETS = "application/octet-stream"
_REMEMBERED = 200


class TooComplex(Exception):
    """The structure is deeper or has more parts than we look at."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A part without parts: `type` in lower case, whether it says it is an attachment or has a file name,
    whether it has a Content-ID, and the types of the multiparts around it, outermost first."""

    type: str
    attachment: bool
    named: bool
    content_id: bool
    within: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part of type `text/plain` or `text/html` as it lies in the message, and how its fields say to decode it."""

    type: str
    body: bytes
    encoding: str
    charset: str


_Found = Callable[[Leaf, dict[str, bytes], Header, bytes], object]


def leaves(content: bytes, header: Header) -> list[Leaf]:
    """Return the leaf parts of a message in wire form. Raises `TooComplex`."""
    kind, parameters = _content_type(header, ())
    if not kind.startswith("multipart/"):
        return [_leaf(kind, parameters, header, ())]
    # Readers see the message without its transparency dots: a line `.--boundary` is a boundary to them.
    found: list[Leaf] = []

    def keep(leaf: Leaf, _parameters: dict[str, bytes], _header: Header, _body: bytes) -> None:
        found.append(leaf)

    _walk(unstuffed(content[header.body_at :]), header, (), keep, _Count())
    return found


def texts(content: bytes, header: Header) -> list[TextPart]:
    """Return the text parts of a message in wire form that are not attachments, still encoded. Raises `TooComplex`."""
    found: list[TextPart] = []

    def keep(leaf: Leaf, parameters: dict[str, bytes], header: Header, body: bytes) -> None:
        if leaf.type in ("text/plain", "text/html") and not leaf.attachment:
            encoding = (header.first("content-transfer-encoding") or b"").decode("ascii", "replace").strip().lower()
            charset = parameters.get("charset", b"").decode("ascii", "replace").strip().lower()
            found.append(TextPart(leaf.type, body, encoding, charset))

    _walk(unstuffed(content[header.body_at :]), header, (), keep, _Count())
    return found


@dataclass(slots=True)
class _Count:
    parts: int = 0


def _walk(body: bytes, header: Header, within: tuple[str, ...], found: _Found, count: _Count) -> None:
    if len(within) > DEPTH or count.parts >= PARTS:
        raise TooComplex
    kind, parameters = _content_type(header, within)
    boundary = parameters.get("boundary", b"")
    if kind.startswith("multipart/") and boundary:
        parts = _split(body, boundary)
        if parts is not None:
            for part in parts:
                _walk_part(part, (*within, kind), found, count)
            return
    count.parts += 1
    found(_leaf(kind, parameters, header, within), parameters, header, body)


def _walk_part(part: bytes, within: tuple[str, ...], found: _Found, count: _Count) -> None:
    try:
        header = read(part, wire=False)
    except BadHeader:
        header = None
    if header is None or header.unseparated:  # readers disagree about where this part's header ends
        count.parts += 1
        found(Leaf(_OCTETS, False, False, False, within), {}, Header((), 0), b"")
        return
    _walk(part[header.body_at :], header, within, found, count)


def _leaf(kind: str, parameters: dict[str, bytes], header: Header, within: tuple[str, ...]) -> Leaf:
    if kind.startswith("multipart/"):  # no boundary, or none of its lines: nobody knows what readers make of it
        kind = _OCTETS
    dispositions = header.all("content-disposition")
    disposition = dispositions[0] if dispositions else b""
    word = disposition.partition(b";")[0].strip().lower()
    given = _parameters(disposition)
    if given is None or len(dispositions) > 1:
        kind, given = _OCTETS, {}
    return Leaf(
        kind,
        word not in (b"", b"inline"),
        any(name.startswith("filename") for name in given) or any(name.startswith("name") for name in parameters),
        header.first("content-id") is not None,
        within,
    )


def _content_type(header: Header, within: tuple[str, ...]) -> tuple[str, dict[str, bytes]]:
    values = header.all("content-type")
    if not values:
        in_digest = bool(within) and within[-1] == "multipart/digest"
        return "message/rfc822" if in_digest else "text/plain", {}
    if len(values) > 1:
        return _OCTETS, {}
    return (_known_type if len(values[0]) <= _REMEMBERED else _typed)(values[0])


def _typed(value: bytes) -> tuple[str, dict[str, bytes]]:
    match = _TYPE.match(value)
    if match is None:
        return _OCTETS, {}
    kind = f"{match[1].decode()}/{match[2].decode()}".lower()
    parameters = _parameters(value, once="boundary" if kind.startswith("multipart/") else "")
    return (_OCTETS, {}) if parameters is None else (kind, parameters)


# Nobody changes what is remembered; most parts are of the same few types.
_known_type = lru_cache(maxsize=1024)(_typed)


def _parameters(value: bytes, *, once: str = "") -> dict[str, bytes] | None:
    """Return the parameters of a field's value, the first of each name; None if a quoted string does not end.

    None too if `once` is given and readers may disagree about it: it comes twice, or is not one plain word."""
    found: dict[str, bytes] = {}
    for number, segment in enumerate(_segments(value)):
        if segment is None:
            return None
        head, equals, rest = segment[0].partition(b"=")
        key = head.strip().lower().decode("latin-1")
        words = [rest.strip(), *segment[1:]] if equals else []
        words = [word for word in words if word.strip()]
        if once and (any(b"(" in part for part in segment[::2]) or (once in key and (key != once or once in found))):
            return None
        if once and key == once and (len(words) != 1 or (words[0] == rest.strip() and len(words[0].split()) != 1)):
            return None
        if number and key:
            found.setdefault(key, b"".join(words).strip())
    return found


def _segments(value: bytes) -> Iterator[list[bytes] | None]:
    """Cut at the semicolons outside quoted strings: each piece as [plain, quoted, plain, …], unescaped.

    A quoted string that does not end gives None."""
    segment = [b""]
    for piece in _PIECE.finditer(value):
        quoted, plain, semicolon = piece.groups()
        if semicolon:
            yield segment
            segment = [b""]
        elif quoted:
            segment += [_QUOTED_PAIR.sub(rb"\1", quoted[1:-1]), b""]
        elif plain:
            segment[-1] += plain
        else:
            yield None
            return
    yield segment


def _split(body: bytes, boundary: bytes) -> list[bytes] | None:
    """Return the parts between the boundary lines, or None if there is no such line."""
    marker = b"--" + boundary
    parts: list[bytes] = []
    start = -1
    at = 0 if body.startswith(marker) else _after(body.find(b"\r\n" + marker))
    while at >= 0:
        line_end = body.find(b"\r\n", at)
        tail = body[at + len(marker) : line_end if line_end >= 0 else len(body)]
        ending = tail.startswith(b"--")
        # Python's reader takes a closing line right behind a boundary line for one more of those.
        closing = ending and at != start
        if ending or not tail.strip(b" \t"):
            if start >= 0:
                parts.append(body[start : at - 2] if at >= start + 2 else b"")
            # Go on behind a closing line: a reader that does not take it for one sees parts there.
            start = -1 if closing or line_end < 0 else line_end + 2
            if len(parts) > PARTS:
                raise TooComplex
        at = _after(body.find(b"\r\n" + marker, max(at - 2, 0) + 1))
    if start >= 0:  # the closing line is missing: readers take the rest as a part
        parts.append(body[start:])
    return parts or None


def _after(found: int) -> int:
    return found + 2 if found >= 0 else -1
