"""Walk the MIME structure of a message and report its leaf parts; nothing is decoded.

Standards: RFC 2045 and 2046 (structure), RFC 2183 (disposition), RFC 2231 (parameters).
Promises: linear time in the message and bounded depth and number of parts; a plain text message is judged
by its header alone; what is malformed is reported as a part of type `application/octet-stream`, so that a
rule that fears attachments refuses it.
Dangers: readers disagree about broken MIME: never answer "text" where another reader could see a file.
Not here: which parts are allowed (`relay.content`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from outgate.message.fields import BadHeader, Header, read

DEPTH = 20
PARTS = 1000
_TYPE = re.compile(rb"\s*([A-Za-z0-9!#$&^_.+-]+)/([A-Za-z0-9!#$&^_.+-]+)\s*(?:;|$)")
_PARAMETER = re.compile(rb";\s*([A-Za-z0-9!#$&^_.+*'%-]+)\s*=\s*(\"(?:[^\"\\]|\\.)*\"|[^\s;\"]*)", re.DOTALL)
_OCTETS = "application/octet-stream"


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


def leaves(content: bytes, header: Header) -> list[Leaf]:
    """Return the leaf parts of a message. Raises `TooComplex`."""
    found: list[Leaf] = []
    _walk(content, header, (), found)
    return found


def _walk(content: bytes, header: Header, within: tuple[str, ...], found: list[Leaf]) -> None:
    if len(within) > DEPTH or len(found) >= PARTS:
        raise TooComplex
    kind, parameters = _content_type(header)
    boundary = parameters.get("boundary", b"")
    if kind.startswith("multipart/") and boundary:
        parts = _split(content[header.body_at :], boundary)
        if parts is not None:
            for part in parts:
                _walk_part(part, (*within, kind), found)
            return
    found.append(_leaf(kind, parameters, header, within))


def _walk_part(part: bytes, within: tuple[str, ...], found: list[Leaf]) -> None:
    try:
        header = read(part)
    except BadHeader:
        found.append(Leaf(_OCTETS, False, False, False, within))
        return
    _walk(part, header, within, found)


def _leaf(kind: str, parameters: dict[str, bytes], header: Header, within: tuple[str, ...]) -> Leaf:
    if kind.startswith("multipart/"):  # no boundary, or none of its lines: nobody knows what readers make of it
        kind = _OCTETS
    dispositions = header.all("content-disposition")
    disposition = dispositions[0] if dispositions else b""
    word = disposition.partition(b";")[0].strip().lower()
    given = _parameters(disposition)
    return Leaf(
        kind if len(dispositions) < 2 else _OCTETS,
        word not in (b"", b"inline"),
        any(name.startswith("filename") for name in given) or any(name.startswith("name") for name in parameters),
        header.first("content-id") is not None,
        within,
    )


def _content_type(header: Header) -> tuple[str, dict[str, bytes]]:
    values = header.all("content-type")
    if not values:
        return "text/plain", {}
    match = _TYPE.match(values[0])
    if len(values) > 1 or match is None:
        return _OCTETS, {}
    return f"{match[1].decode()}/{match[2].decode()}".lower(), _parameters(values[0])


def _parameters(value: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for match in _PARAMETER.finditer(value):
        text: bytes = match[2]
        if text[:1] == b'"':
            text = re.sub(rb"\\(.)", rb"\1", text[1:-1], flags=re.DOTALL)
        found.setdefault(match[1].decode("ascii").lower(), text)
    return found


def _split(body: bytes, boundary: bytes) -> list[bytes] | None:
    """Return the parts between the boundary lines, or None if there is no such line."""
    marker = b"--" + boundary
    parts: list[bytes] = []
    start = -1
    at = 0 if body.startswith(marker) else _after(body.find(b"\r\n" + marker))
    while at >= 0:
        line_end = body.find(b"\r\n", at)
        tail = body[at + len(marker) : line_end if line_end >= 0 else len(body)]
        closing = tail.startswith(b"--")
        if closing or not tail.strip(b" \t"):
            if start >= 0:
                parts.append(body[start : at - 2] if at >= start + 2 else b"")
            start = -1 if closing or line_end < 0 else line_end + 2
            if len(parts) > PARTS:
                raise TooComplex
            if closing:
                break
        at = _after(body.find(b"\r\n" + marker, max(at - 2, 0) + 1))
    if start >= 0:  # the closing line is missing: readers take the rest as a part
        parts.append(body[start:])
    return parts or None


def _after(found: int) -> int:
    return found + 2 if found >= 0 else -1
