"""Read the header of a message as it came: fields, addresses, dates; never write it anew.

Standards: RFC 5322 sections 2.2 and 3.4 (fields, mailboxes), RFC 2047 (encoded words, for showing only).
Promises: linear time; every function takes any bytes; what cannot be read raises `BadHeader` with a reason.
Dangers: two readers of one header may see two senders: anything doubtful in From is refused, not guessed.
Wire form hides a field behind a dot (`.From:`) that the next server takes away: names are read without it.
Not here: MIME structure (`message.mime`), what a From means for us (`relay.policy`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.header import decode_header

from outgate.message.text import codec, decoded

HEADER_LIMIT = 262_144
FIELDS_LIMIT = 1000
_CONTROLS = bytes(sign for sign in (*range(32), 127) if sign not in b"\t\r\n")
_FEW_DOTS = 200
# Each piece of a split text takes memory of its own, forty octets and more: a body that has them by the million must
# not take a gigabyte.
PIECES = 10_000
_NAME_SIGNS = bytes(range(33, 127))
_SHOWN = 2000


class BadHeader(Exception):
    """A header cannot be read the one way everybody would read it; the text says why."""


class HeaderTooLarge(BadHeader):
    """A header is longer, or has more fields, than we read."""


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of a message, in order, and where its body begins (offset behind the empty line).

    `unseparated`: there is no empty line; the body begins with a line that cannot be a field."""

    fields: tuple[tuple[str, bytes], ...]
    body_at: int
    unseparated: bool = False

    def all(self, name: str) -> list[bytes]:
        """Return the values of every field called `name` (lower case), unfolded and stripped."""
        return [unfold(value) for key, value in self.fields if key == name]

    def first(self, name: str) -> bytes | None:
        """Return the first field called `name` (lower case), unfolded and stripped, or None."""
        for key, value in self.fields:
            if key == name:
                return unfold(value)
        return None


def read(content: bytes, *, wire: bool = True) -> Header:
    """Read the header of `content`, which is in wire form unless `wire` is False. Raises `BadHeader`.

    The names come in lower case, the values raw: folded, with their line ends inside. A line that is no field
    ends the header where it stands, as old mailers and people at a terminal have it: `unseparated` says so."""
    if content.startswith(b"\r\n"):
        return Header((), 2)
    end = content.find(b"\r\n\r\n", 0, HEADER_LIMIT)
    if end < 0:
        if len(content) >= HEADER_LIMIT:
            raise HeaderTooLarge(f"the header is longer than {HEADER_LIMIT} octets")
        block, body_at = content, len(content)
    else:
        block, body_at = content[: end + 2], end + 4
    fields: list[tuple[str, bytes]] = []
    stray = _read_block(block, fields, b"." if wire else b"")
    return Header(tuple(fields), body_at) if stray < 0 else Header(tuple(fields), stray, unseparated=True)


def unstuffed(wire: bytes) -> bytes:
    """Take the transparency dots out of wire-form lines (RFC 5321 section 4.5.2); `wire` begins a line."""
    # In wire form every leading dot has one in front of it, so that one goes, whatever follows.
    pieces: list[bytes] = []
    start = 0
    if wire.startswith(b"."):
        start = 1
    at = wire.find(b".", start + 1)
    # One octet is found far faster than three, so look at the dots; where they are many, looking for all three wins.
    for _ in range(_FEW_DOTS):
        if at < 0:
            pieces.append(wire[start:])
            return b"".join(pieces)
        if wire[at - 2 : at] == b"\r\n":
            pieces.append(wire[start:at])
            start = at + 1
        at = wire.find(b".", at + 1)
    pieces.append(replaced(wire[start:], b"\r\n.", b"\r\n"))
    return b"".join(pieces)


def replaced(text: bytes, old: bytes, new: bytes) -> bytes:
    """Return what `text.replace(old, new)` does, in half the time where `old` is rare."""
    # To split and join looks through the text once, `replace` counts first and so does it twice.
    pieces = text.split(old, PIECES)
    return new.join(pieces) if len(pieces) <= PIECES else text.replace(old, new)


def _read_block(block: bytes, fields: list[tuple[str, bytes]], dot: bytes) -> int:
    """Gather the fields of `block`, whose lines may begin with a transparency `dot`; return the offset of the
    first line that is none, or -1."""
    at = 0
    name = ""
    value: list[bytes] = []
    for stuffed in block.split(b"\r\n"):
        line = stuffed.removeprefix(dot)
        if line[:1] in (b" ", b"\t"):
            if not name:
                raise BadHeader("the header begins with a continued line")
            value.append(line)
        elif line:
            if name:
                fields.append((name, b"\r\n".join(value)))
            key, colon, first = line.partition(b":")
            key = key.rstrip(b" \t")
            if not colon or not key or key.translate(None, _NAME_SIGNS):
                return at
            if len(fields) >= FIELDS_LIMIT:
                raise HeaderTooLarge(f"the header has more than {FIELDS_LIMIT} fields")
            name, value = key.decode("ascii").lower(), [first]
        at += len(stuffed) + 2
    if name:
        fields.append((name, b"\r\n".join(value)))
    return -1


def separated(content: bytes, header: Header) -> tuple[bytes, Header]:
    """Return `content` with the empty line between header and body that it lacks, and the header to it."""
    if not header.unseparated:
        return content, header
    at = header.body_at
    return content[:at] + b"\r\n" + content[at:], Header(header.fields, at + 2)


def second_reading(content: bytes, header: Header, *names: str) -> None:
    """Raise `BadHeader` if another reader of this header could find a field called one of `names` (lower case) that we
    do not.

    Many split lines at more signs than CR LF: the controls from VT to RS, NEL, the line separators of Unicode."""
    block = content[: header.body_at]
    if len(block.translate(None, _CONTROLS)) != len(block):
        raise BadHeader("the header holds a control character")
    if block.isascii():
        return
    ours = sum(key in names for key, _ in header.fields)
    for charset in ("utf-8", "latin-1"):
        lines = block.decode(charset, "replace").splitlines()
        plain = (line.lstrip(".") for line in lines)
        # What begins with a space goes on with the line before, to whoever ends that line there.
        begun = (line.partition(":")[0].strip().lower() for line in plain if not line.startswith((" ", "\t")))
        if sum(name in names for name in begun) > ours:
            what = " or ".join(names)
            raise BadHeader(f"the header holds a {what} field behind a sign that some readers take for a line end")


def unfold(value: bytes) -> bytes:
    """Return a field's value on one line, stripped."""
    return value.replace(b"\r\n", b"").strip(b" \t") if b"\r\n" in value else value.strip(b" \t")


def shown(value: bytes) -> str:
    """Return a value for people: encoded words decoded, controls as spaces, at most 500 signs."""
    text = value[:_SHOWN].decode("utf-8", "replace")  # the decoder's time grows with the square of the length
    if "=?" in text:
        with contextlib.suppress(Exception):  # a stranger chose the charset, and each codec fails in its own way
            text = "".join(
                part.decode(codec(charset or "ascii"), "replace") if isinstance(part, bytes) else part
                for part, charset in decode_header(text)
            )
    return "".join(sign if sign.isprintable() else " " for sign in text)[:500]


_TOKEN = re.compile(
    rb"""(?P<space>[ \t\r\n]+)
       |(?P<quoted>"(?:[^"\\]|\\.)*")
       |(?P<literal>\[[A-Za-z0-9.:-]*\])
       |(?P<atom>[^\x00-\x20()<>\[\]:;@\\,."\x7f]+)
       |(?P<special>[<>:;@,.])""",
    re.VERBOSE | re.DOTALL,
)


def mailboxes(value: bytes) -> list[bytes]:
    """Return the addresses (`local@domain`) of a mailbox list. Raises `BadHeader`; a group is refused."""
    if len(value) > 16_384:
        raise BadHeader("the address list is too long")
    found: list[bytes] = []
    entry: list[tuple[str, bytes]] = []
    for token in _tokens(value):
        if token[0] == "comment":
            continue
        if token == ("special", b","):
            if entry:
                found.append(_mailbox(entry))
            entry = []
        else:
            entry.append(token)
    if entry:
        found.append(_mailbox(entry))
    return found


_WORD = re.compile(rb"=\?([^?]*)\?([bq])\?(.*?)\?=", re.IGNORECASE | re.DOTALL)
_MOST_WORDS = 100
_OF_LISTS = b"<@>,:;+AEA-"
_BETWEEN = re.compile(rb"\?=[ \t\r\n]+=\?")
_AT = "\ufdd0"
"""Stands for an @ that was encoded; no text has it."""
_NAME_END = re.compile(f'[<>()"@{_AT}]')


def same_if_decoded(value: bytes) -> None:
    """Raise `BadHeader` if a reader that decodes encoded words first, wherever they stand, could find another address
    than `mailboxes`, which found one."""
    if b"=?" not in value:
        return
    if value.count(b"=?") > _MOST_WORDS:
        raise BadHeader("it holds too many encoded words")
    words: list[str] = []

    def word(match: re.Match[bytes]) -> bytes:
        words.append(_said(match))
        return words[-1].encode()

    plain = _WORD.sub(word, value)
    if plain.count(b"@") > 1 and any(sign in said for said in words for sign in "<>,:;"):
        raise BadHeader("the display name looks like another address")


def named(value: bytes) -> list[str]:
    """Return what stands behind each @ in the encoded words and comments of a field that `mailboxes` and
    `same_if_decoded` let pass: some readers take it for the domain of an author."""
    found: list[str] = []
    if b"=?" in value:
        words = _WORD.sub(lambda word: _said(word).replace("@", _AT).encode(), _BETWEEN.sub(b"?==?", value))
        found += words.decode("utf-8", "replace").split(_AT)[1:]
    if b"(" in value:
        for kind, text in _tokens(value):
            if kind == "comment":
                found += text.decode("utf-8", "replace").split("@")[1:]
    return [_NAME_END.split(behind, maxsplit=1)[0] for behind in found]


def _said(word: re.Match[bytes]) -> str:
    """Decode an encoded word. Raises `BadHeader` if its charset hides the signs that lists are made of."""
    charset = word[1].partition(b"*")[0].decode("ascii", "replace")
    if _OF_LISTS.decode(codec(charset) or "utf-8", "replace") != _OF_LISTS.decode():
        raise BadHeader(f"an encoded word has the charset {charset}")
    quoted = word[2] in b"qQ"
    body = word[3].replace(b"_", b" ") if quoted else word[3]
    return decoded(body, "quoted-printable" if quoted else "base64", charset)


def _tokens(value: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at < len(value):
        if value[at : at + 1] == b"(":
            end = _comment_end(value, at)
            _undoubted(value[at:end], "a comment")
            yield "comment", value[at:end]
            at = end
            continue
        match = _TOKEN.match(value, at)
        if match is None or match.lastgroup is None:
            raise BadHeader("the address holds a sign that does not belong there")
        at = match.end()
        if match.lastgroup != "space":
            yield match.lastgroup, match[0]


def _comment_end(value: bytes, at: int) -> int:
    depth = 0
    while at < len(value):
        sign = value[at : at + 1]
        if sign == b"\\":
            at += 1
        elif sign == b"(":
            depth += 1
        elif sign == b")":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    raise BadHeader("a comment does not end")


def _mailbox(entry: list[tuple[str, bytes]]) -> bytes:
    """Return `local@domain` of one entry: an addr-spec, or a phrase and an addr-spec in angle brackets."""
    specials = [text for kind, text in entry if kind == "special"]
    if b":" in specials or b";" in specials:
        raise BadHeader("a group is not a mailbox")
    opening = [number for number, token in enumerate(entry) if token == ("special", b"<")]
    if opening or b">" in specials:
        if len(opening) != 1 or entry[-1] != ("special", b">") or specials.count(b">") != 1:
            raise BadHeader("the angle brackets do not match")
        phrase = entry[: opening[0]]
        if any((kind == "special" and text != b".") or kind == "literal" for kind, text in phrase):
            # An @ in an unquoted display name: some readers would show it as the address.
            raise BadHeader("the display name holds an unquoted special sign")
        for kind, text in phrase:
            if kind == "quoted":
                _undoubted(text, "the display name")
        entry = entry[opening[0] + 1 : -1]
    return _addr_spec(entry)


def _undoubted(text: bytes, what: str) -> None:
    """Raise `BadHeader` if a reader that looks for `<…@…>` without knowing quotes and comments finds another one."""
    if b"@" in text and (b"<" in text or b">" in text):
        raise BadHeader(f"{what} looks like another address")


def _addr_spec(entry: list[tuple[str, bytes]]) -> bytes:
    ats = [number for number, token in enumerate(entry) if token == ("special", b"@")]
    if len(ats) != 1:
        raise BadHeader("an address has one @")
    local, domain = entry[: ats[0]], entry[ats[0] + 1 :]
    dots_and_words = all(
        (token == ("special", b".")) == (number % 2 == 1) and token[0] in ("atom", "quoted", "special")
        for number, token in enumerate(local)
    )
    if not local or len(local) % 2 == 0 or not dots_and_words:
        raise BadHeader("the part before the @ is not valid")
    if len(domain) == 1 and domain[0][0] == "literal":
        return b"".join(text for _, text in local) + b"@" + domain[0][1]
    if len(domain) % 2 == 0 or not all(
        (token == ("special", b".")) if number % 2 else token[0] == "atom" for number, token in enumerate(domain)
    ):
        raise BadHeader("the domain is not a name")
    return b"".join(text for _, text in local) + b"@" + b"".join(text for _, text in domain)


def without(content: bytes, header: Header, *names: str) -> bytes:
    """Return `content` without the fields called one of `names` (lower case); the rest stays as it came."""
    if all(key not in names for key, _ in header.fields):
        return content
    unwanted = [name.encode("ascii") for name in names]
    kept: list[bytes] = []
    keep = True
    block_end = max(header.body_at - 2, 0)
    for line in content[:block_end].split(b"\r\n"):
        plain = line.removeprefix(b".")
        if plain[:1] not in (b" ", b"\t"):
            keep = plain.partition(b":")[0].rstrip(b" \t").lower() not in unwanted
        if keep:
            kept.append(line)
    return b"\r\n".join(kept) + content[block_end:]
