"""A message of the `email` package as octets: its fields and its body, with line ends of the wire.

Standards: RFC 5322 (fields, folding), RFC 2047 (encoded words), RFC 6532 (UTF-8 in fields), RFC 6152 (8BITMIME).
Promises: the message object is not changed; a field is written so that a reader finds in it what the object says: the
commas between addresses stay commas (the package's own folding may encode them), a domain beyond ASCII is written in
A-labels, an id of any length stays one word; no value begins a field of its own; octets that are no text
are refused, unless the message came with them. ASCII fields and bodies take the short way.
Dangers: a message that came from elsewhere is rewritten by this: its signature would break. Send its octets instead.
Not here: who gets it (`mailer.sending.wire`).
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Sequence
from email import errors, policy
from email.errors import MessageError as EmailError
from email.generator import BytesGenerator
from email.header import Header
from email.headerregistry import Address, AddressHeader, Group, HeaderRegistry
from email.message import Message
from email.policy import EmailPolicy
from functools import lru_cache
from io import BytesIO
from itertools import groupby
from typing import Any, Self, cast

from outgate.mailer.sending.errors import MessageError
from outgate.smtp import grammar

Fields = Sequence[tuple[str, str]]

_PRIVATE = frozenset({"bcc", "resent-bcc", "return-path"})
ADDRESS_FIELDS = frozenset(
    {"from", "sender", "reply-to", "to", "cc", "resent-from", "resent-sender", "resent-to", "resent-cc"}
)
_WITH_PARAMETERS = frozenset({"content-type", "content-disposition"})
_LONGEST = 998  # octets of a line
_LINE = 78  # signs of a line, where it can be broken
_ENCODED = 75  # signs of a line of an encoded name: most are one word then, which every reader joins right
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+)*")
_INJECTED = re.compile(r"(?:\r\n?+|\n)(?![ \t]+\S)")
_WORDS = re.compile(r"[ \t]*[^ \t]+(?:[ \t]+\Z)?")
_ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[^?\s]\?")
_OTHER_ENDS = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")  # line ends to the `email` package, and to nobody else
_BROKEN = re.compile(rb"\r?\n(?!\Z|[ \t])|\r(?!\n)")
_NO_FAULTS = (
    *(errors.ObsoleteHeaderDefect, errors.NonASCIILocalPartDefect, errors.UndecodableBytesDefect, errors.CharsetError),
    *(errors.InvalidBase64CharactersDefect, errors.InvalidBase64LengthDefect, errors.InvalidBase64PaddingDefect),
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_registry = HeaderRegistry()
CANNOT = (EmailError, ValueError, LookupError, TypeError, AttributeError, NameError, RecursionError)
"""What the `email` package raises for what it cannot read or write: variables that it forgot to set, too."""


def octets(message: Message, added: Fields, *, utf8: bool, eight_bit: bool) -> bytes:
    """Return the message with the fields `added` and without Bcc and Return-Path, all lines ending in CR LF.

    `utf8` writes fields in UTF-8; `eight_bit` False encodes bodies down to ASCII. Raises `MessageError`, and what the
    `email` package raises for a message that cannot be written."""
    if not message.is_multipart():
        body = cast("object", message.get_payload())
        if body is None:
            body = ""
        if isinstance(body, str) and body.isascii():
            return b"".join(_head(message, added, utf8, eight_bit, whole=True)) + b"\r\n" + _crlf(body)
    out = BytesIO()
    _Writer(out, added, utf8=utf8, eight_bit=eight_bit).flatten(_framed(message))
    return out.getvalue()


def size(message: Message) -> int:
    """Return about how many octets a message has, 0 for one that cannot be written."""
    try:
        bodies = [cast("object", part.get_payload()) for part in message.walk() if not part.is_multipart()]
    except CANNOT:
        return 0
    return sum(len(body) for body in bodies if isinstance(body, (str, bytes)))


def _framed(message: Message) -> Message:
    """Return a copy of the frame of a message, whose parts all have boundaries: the package would give the caller's
    parts some, under the hands of other threads that send the same message."""
    if not message.is_multipart():
        return message
    framed = copy.copy(message)
    framed.set_payload([_framed(part) for part in cast("list[Message]", message.get_payload())])
    if framed.get_content_maintype() == "multipart" and framed.get_boundary() is None:
        framed.set_boundary(f"=={os.urandom(16).hex()}==")
    return framed


def _crlf(text: str) -> bytes:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\n", "\r\n").encode("ascii", "surrogateescape")


class _Writer(BytesGenerator):
    """The package's writer of bodies, with our fields. Each part has a writer of its own, made by `clone`."""

    def __init__(self, out: BytesIO, added: Fields, *, utf8: bool, eight_bit: bool, whole: bool = True) -> None:
        super().__init__(out, mangle_from_=False, policy=_rules(utf8, eight_bit))
        self._added = added
        self._how = (utf8, eight_bit)
        self._whole = whole

    def clone(self, fp: Any) -> Self:
        utf8, eight_bit = self._how
        return type(self)(fp, (), utf8=utf8, eight_bit=eight_bit, whole=False)

    def _write_lines(self, lines: str) -> None:
        # As the package does it, but not line by line.
        out: BytesIO = cast("Any", self)._fp
        out.write(_crlf(lines))

    def _write_headers(self, msg: Message) -> None:
        utf8, eight_bit = self._how
        out: BytesIO = cast("Any", self)._fp
        out.writelines(_head(msg, self._added, utf8, eight_bit, whole=self._whole))
        out.write(b"\r\n")


def _head(message: Message, added: Fields, utf8: bool, eight_bit: bool, *, whole: bool) -> list[bytes]:
    """Return the fields of a message, or of a part of one (which may be a message itself, with a Bcc of its own)."""
    rules = _rules(utf8, eight_bit)
    hidden = _PRIVATE | {name.lower() for name, _ in added} if whole else ()
    given = cast("Iterable[tuple[str, object]]", message.raw_items())
    lines = [_field(name, value, utf8, rules) for name, value in given if name.lower() not in hidden]
    lines += [_field(name, value, utf8, rules) for name, value in added]
    return lines


@lru_cache(maxsize=4)
def _rules(utf8: bool, eight_bit: bool) -> EmailPolicy[Any]:
    return (policy.SMTPUTF8 if utf8 else policy.SMTP).clone(cte_type="8bit" if eight_bit else "7bit")


def _field(name: str, value: object, utf8: bool, rules: EmailPolicy[Any]) -> bytes:
    if not (name.isascii() and name.isprintable()) or ":" in name or " " in name or not name:
        raise MessageError("the message has a field whose name is none")
    if hasattr(value, "name") and "\ufffd" in str(value) and "=?unknown-8bit?" in cast("Any", value).fold(policy=rules):
        raise MessageError(f"the field {name} has octets that are no text")
    if name.lower() in ADDRESS_FIELDS:
        header = address_field(name, value)
        if not cast("Any", header).defects:
            return _folded(name, header.groups, utf8)
        value = header
    text = str(value)
    short = len(name) + len(text) <= _LINE - 2 and text.isascii() and text.isprintable()
    if short and "=?" not in text and not ("*" in text and name.lower().startswith("content-")):
        return f"{name}: {text}\r\n".encode("ascii")
    made = hasattr(value, "name") or isinstance(
        value, Header
    )  # else: as it was read from elsewhere, or an old message's
    lines = _lines(name, text)
    if not made and len(lines) > 1 and text.isascii() and max(map(len, lines)) <= _LONGEST:
        return (f"{name}: " + "\r\n".join(lines) + "\r\n").encode("ascii")
    line = "".join(lines)
    if name.lower() not in _WITH_PARAMETERS and _SURROGATE.search(text) is None:
        return _text(name, line, utf8, made=made).encode("utf-8" if utf8 else "ascii")
    if not hasattr(value, "name"):
        binary = isinstance(value, str) and (text.isascii() or _SURROGATE.search(text))
        value = _OTHER_ENDS.sub(" ", text) if binary else _registry(name, line)
    written = rules.fold_binary(name, cast("str", value))
    if _BROKEN.search(written):  # an encoded word may stand for line ends, and the package writes it decoded
        raise _holds_line_end(name)
    return written


def _text(name: str, line: str, utf8: bool, *, made: bool) -> str:
    """Write a field of text, broken where it has spaces; words that have to be are encoded, and no others: an address
    or an id beside them stays one. `made`: what looks like an encoded word is none.

    The package encodes each word that is too long for a line, also an address or an id, and may lose the spaces, or
    halve a sign, between words that it encodes."""
    foreign = not line.isascii()

    def needs(word: str) -> bool:
        if "=?" in word and (foreign or _ENCODED_WORD.search(word)):
            return foreign or made
        plain = (utf8 or word.isascii()) and word.strip(" \t").isprintable()
        return not plain or len(f"{name}: {word}".encode()) > _LONGEST

    pieces: list[str] = []
    for encode, words in groupby(_WORDS.findall(line) if line.strip(" \t") else (), needs):
        if not encode:
            pieces += words
            continue
        run = "".join(words)
        text = run[1:] if pieces else run
        header = Header(text, "utf-8", maxlinelen=_ENCODED, header_name=None if pieces else name)
        first, *others = header.encode().split("\n")
        pieces += [run.removesuffix(text) + first, *others]
    lines = [f"{name}: " + "".join(pieces[:1]).lstrip(" \t")]
    for piece in pieces[1:]:
        if len(lines[-1]) + len(piece) > _LINE:
            lines.append(piece)
        else:
            lines[-1] += piece
    return "\r\n".join(lines).rstrip(" \t") + "\r\n"


def _lines(name: str, text: str) -> list[str]:
    """Return the lines of a folded value. Raises `MessageError` if one of them would begin another field."""
    if _INJECTED.search(text):
        raise _holds_line_end(name)
    return _OTHER_ENDS.sub(" ", text).splitlines()


def _holds_line_end(name: str) -> MessageError:
    return MessageError(f"the field {name} holds a line end")


# -- fields of addresses --------------------------------------------------------------------------------------------


def faulty(header: AddressHeader) -> bool:
    """Say whether a list of addresses has more wrong with it than the spelling of a name, or an old spelling.

    What the package has read of it is its beginning then: of "a@x.example; b@x.example" the first one only."""
    # What is wrong with an encoded word concerns a name, and shall keep no mail from going.
    defects = cast("Iterable[Exception]", cast("Any", header).defects)
    return not all(isinstance(each, _NO_FAULTS) or "encoded" in str(each) for each in defects)


def address_field(name: str, value: object) -> AddressHeader:
    """Return what a field of addresses holds; `value` may be text. Raises `MessageError` if it has line ends."""
    if not hasattr(value, "groups"):
        text = "".join(_lines(name, str(value)))
        try:
            value = _registry(name, text)
        except CANNOT:
            raise MessageError(f"the field {name} cannot be read as addresses") from None
    return cast("AddressHeader", value)


def _folded(name: str, groups: Iterable[Group], utf8: bool) -> bytes:
    """Write a field of addresses: lines are broken behind commas, and within encoded names."""
    written: list[str] = []
    for group in groups:
        mailboxes = [_mailbox(address, utf8) for address in group.addresses]
        if group.display_name is None:
            written += mailboxes
        else:
            written.append(f"{_phrase(group.display_name, utf8)}: {', '.join(mailboxes)};")
    line = f"{name}:"
    lines: list[str] = []
    for number, mailbox in enumerate(written):
        piece = mailbox + ("," if number + 1 < len(written) else "")
        first = piece.partition("\r\n")[0]
        if len(line) + 1 + len(first) > _LINE and number:
            lines.append(line)
            line = ""
        line = f"{line} {piece}"
        if "\r\n" in piece:
            before, _, line = line.rpartition("\r\n")
            lines.append(before)
    lines.append(line)
    return ("\r\n".join(lines) + "\r\n").encode("utf-8" if utf8 else "ascii")


def _mailbox(address: Address, utf8: bool) -> str:
    spec = plain_address(address.addr_spec)
    if not utf8 and not spec.isascii():
        raise MessageError(f"{spec} can be written to servers with SMTPUTF8 only")
    return f"{_phrase(address.display_name, utf8)} <{spec}>" if address.display_name else spec


def plain_address(spec: str) -> str:
    """Return an address with its domain in A-labels, if that makes it ASCII; else as it is."""
    local, _, domain = spec.rpartition("@")
    if spec.isascii() or not local.isascii():
        return spec
    try:
        return f"{local}@{grammar.domain(domain)}"
    except grammar.BadSyntax:
        raise MessageError(f"the domain of {spec} is not a valid name") from None


def _phrase(text: str, utf8: bool) -> str:
    """Write a display name: as words, quoted, or encoded."""
    if "=?" not in text and text.isprintable() and (utf8 or text.isascii()):
        if _ATOMS.fullmatch(text):
            return text
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return Header(text, "utf-8", maxlinelen=_ENCODED).encode(linesep="\r\n")
