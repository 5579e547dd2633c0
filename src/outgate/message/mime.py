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

from outgate.message.fields import BadHeader, Header, read, second_reading, unstuffed

DEPTH = 20
PARTS = 1000
OCTETS = 167_772_160
"""What is searched for boundaries, each level counted: a large message in many levels would keep others waiting."""
_TYPE = re.compile(rb"\s*([A-Za-z0-9!#$&^_.+-]+)/([A-Za-z0-9!#$&^_.+-]+)\s*(?:;|$)")
_PIECE = re.compile(rb"(\"(?:[^\"\\]|\\.)*+\")|([^\";]++)|(;)|\"", re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_OCTETS = "application/octet-stream"
_REMEMBERED = 200


class TooComplex(Exception):
    """The structure is deeper, or has more parts or octets in all its levels, than we look at."""


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
    if not _one_reading(content, header):
        return [Leaf(_OCTETS, False, False, False, ())]
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
    octets: int = 0


def _walk(body: bytes, header: Header, within: tuple[str, ...], found: _Found, count: _Count) -> None:
    count.octets += len(body)
    if len(within) > DEPTH or count.parts >= PARTS or count.octets > OCTETS:
        raise TooComplex
    kind, parameters = _content_type(header, within)
    # Only what is not encoded has lines to look for (RFC 2045 section 6.4).
    boundary = b"" if _encoded(header) else parameters.get("boundary", b"")
    if kind.startswith("multipart/") and boundary:
        parts, doubtful = _split(body, boundary)
        if parts:
            for part in parts:
                _walk_part(part, (*within, kind), found, count)
            for part in doubtful:
                # Within a nested multipart whose boundary begins like this one, which may be a related one.
                _walk_part(part, (*within, kind, "multipart/related"), found, count, alone=True)
            return
    count.parts += 1
    found(_leaf(kind, parameters, header, within), parameters, header, body)


def _walk_part(part: bytes, within: tuple[str, ...], found: _Found, count: _Count, *, alone: bool = False) -> None:
    """Report what a part holds; if it is to be judged `alone`, by its header."""
    try:
        header = read(part, wire=False)
    except BadHeader:
        header = None
    # Else readers disagree about where this part's header ends, or what is in it.
    if header is None or header.unseparated or not _one_reading(part, header):
        count.parts += 1
        found(Leaf(_OCTETS, False, False, False, within), {}, Header((), 0), b"")
        return
    _walk(b"" if alone else part[header.body_at :], header, within, found, count)


def _one_reading(part: bytes, header: Header) -> bool:
    """Say whether every reader finds the same type and disposition in a header."""
    try:
        second_reading(part, header, "content-type", "content-disposition")
    except BadHeader:
        return False
    return True


def _leaf(kind: str, parameters: dict[str, bytes], header: Header, within: tuple[str, ...]) -> Leaf:
    if kind.startswith("multipart/"):  # no boundary, or none of its lines: nobody knows what readers make of it
        kind = _OCTETS
    # Anything that a laxer reader could take for a name is one: behind a comment, say, or a space for a semicolon.
    type_ = header.first("content-type") or b""
    dispositions = header.all("content-disposition")
    disposition = dispositions[0] if dispositions else b""
    word = disposition.partition(b";")[0].strip().lower()
    given = _parameters(disposition)
    if given is None or len(dispositions) > 1:
        kind, given = _OCTETS, {}
    return Leaf(
        kind,
        word not in (b"", b"inline"),
        b"name" in disposition.lower() or b"name" in type_.lower(),
        header.first("content-id") is not None,
        within,
    )


def _encoded(header: Header) -> bool:
    encoding = header.first("content-transfer-encoding") or b"7bit"
    return encoding.strip().lower() not in (b"", b"7bit", b"8bit", b"binary")


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
        if once and key == once and not _plain_word(words, quoted=not rest.strip()):
            return None
        if number and key:
            found.setdefault(key, b"".join(words).strip())
    return found


def _plain_word(words: list[bytes], *, quoted: bool) -> bool:
    """Say whether a value is one word to every reader: some strip a quoted one, or decode encoded words in it."""
    if len(words) != 1 or (b"=?" in words[0] and b"?=" in words[0]):
        return False
    return words[0] == words[0].strip() if quoted else len(words[0].split()) == 1


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


def _split(body: bytes, boundary: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the parts between the boundary lines, and what stands behind lines that only begin like one: parts to
    those who compare as RFC 2046 section 5.1.1 says."""
    marker = b"--" + boundary
    parts: list[bytes] = []
    doubtful: list[bytes] = []
    start = doubt = -1
    at = 0 if body.startswith(marker) else _after(body.find(b"\r\n" + marker))
    while at >= 0:
        line_end = body.find(b"\r\n", at)
        tail = body[at + len(marker) : line_end if line_end >= 0 else len(body)]
        ending = tail.startswith(b"--")
        # Python's reader takes a closing line right behind a boundary line for one more of those.
        closing = ending and at != start
        if doubt >= 0:
            doubtful.append(body[doubt : max(at - 2, doubt)])
            doubt = -1
        if ending or not tail.strip(b" \t"):
            if start >= 0:
                parts.append(body[start : at - 2] if at >= start + 2 else b"")
            # Go on behind a closing line: a reader that does not take it for one sees parts there.
            start = -1 if closing or line_end < 0 else line_end + 2
        elif line_end >= 0:
            doubt = line_end + 2
        if len(parts) + len(doubtful) > PARTS:
            raise TooComplex
        at = _after(body.find(b"\r\n" + marker, max(at - 2, 0) + 1))
    if start >= 0:  # the closing line is missing: readers take the rest as a part
        parts.append(body[start:])
    if doubt >= 0:
        doubtful.append(body[doubt:])
    return parts, doubtful


def _after(found: int) -> int:
    return found + 2 if found >= 0 else -1
