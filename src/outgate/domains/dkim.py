"""What a DKIM signature covers: canonical forms over whole buffers, and the field that says so.

Standards: RFC 6376 (relaxed/relaxed; sections 3.4, 3.5, 3.7, 5.4, 8.15), RFC 8301 (rsa-sha256), RFC 8463
(ed25519-sha256), RFC 8058 (both List-Unsubscribe fields are covered).
Promises: the same message, time and names give the same bytes; nobody can add a field that decides what a reader sees
or whom an answer goes to (`COVERED`); of two signatures neither covers the other, so one may be lost; the message
itself is never written anew.
Dangers: hot path: no loop over lines and no `re` touches the body; each pass over 64 KiB shows.
Not here: the keys and the multiplication (`relay.signer`), key records in DNS (`dkim_key`).
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from outgate.message.fields import PIECES, replaced, unstuffed

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]

ALWAYS, IF_THERE = True, False
COVERED = {
    # Listed once more than they occur, also where there is none (over-signed): a field of these that is added later
    # changes what is shown, who is answered, or how the signed body is read.
    b"from": ALWAYS,
    b"to": ALWAYS,
    b"cc": ALWAYS,
    b"subject": ALWAYS,
    b"date": ALWAYS,  # Date and Message-ID are always there: the relay adds them
    b"message-id": ALWAYS,
    b"reply-to": ALWAYS,
    b"mime-version": ALWAYS,  # a Content-Type put before a plain body can hide or replace all of it
    b"content-type": ALWAYS,
    b"content-transfer-encoding": ALWAYS,
    # Covered and over-signed where there is one, else not listed: who forwards may add the first.
    b"sender": IF_THERE,  # mailing lists and "on behalf of" add theirs
    b"in-reply-to": IF_THERE,
    b"references": IF_THERE,
    b"list-unsubscribe": IF_THERE,  # a list adds its own; beside the sender's, a second is an attack
    b"list-unsubscribe-post": IF_THERE,
}
"""In the order in which h= lists them; `From` comes first. Never covered, because each hop adds or changes them:
Received, Return-Path, Authentication-Results, ARC, Resent-*, the other List-*, X-*."""
SIGNED = tuple(COVERED)
_SHOWN = {name: name.title().replace(b"Id", b"ID").replace(b"Mime", b"MIME") for name in SIGNED}
_WIDTH = 76
_COMMON = 64


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A message ready to be signed: `signed` are the bytes that the signature covers, `field` is the
    DKIM-Signature field up to and including "b="."""

    signed: bytes
    field: bytes

    def finish(self, signature: bytes) -> bytes:
        """Return the complete folded field with its CR LF."""
        text = b64encode(signature)
        folded = b"\r\n ".join(text[at : at + _WIDTH - 2] for at in range(0, len(text), _WIDTH - 2))
        return self.field + folded + b"\r\n"


@dataclass(frozen=True, slots=True)
class Cover:
    """What every signature of a message covers: the canonical `fields`, the lines of `h=` and the body's `bh`."""

    fields: bytes
    listed: tuple[bytes, ...]
    bh: bytes

    def unsigned(self, algorithm: Algorithm, *, domain: str, selector: str, timestamp: int) -> Unsigned:
        """Return what to sign by `domain` (A-labels) with the key at `selector` at `timestamp` (epoch seconds)."""
        lines = [
            b"DKIM-Signature: v=1; a=%s; c=relaxed/relaxed; t=%d;" % (algorithm.encode("ascii"), timestamp),
            b"d=%s;" % domain.encode("ascii"),
            b"s=%s;" % selector.encode("ascii"),
            *self.listed,
            b"bh=%s;" % self.bh,
            b"b=",
        ]
        # In relaxed form the folds are single spaces, and the field ends where its signature will begin.
        canonical = b"dkim-signature:" + b" ".join(lines)[len(b"DKIM-Signature: ") :]
        return Unsigned(self.fields + canonical, b"\r\n ".join(lines))


def cover(trace: bytes, content_wire: bytes) -> Cover:
    """Return what signatures cover of a message: `trace` and the wire-form content that follows it."""
    header, body = split(content_wire)
    fields = signed_fields(trace + unstuffed(header))
    names = tuple([name for name, _ in fields])
    listed = _listed(names) if len(names) <= _COMMON else _listed.__wrapped__(names)
    return Cover(b"".join([value for _, value in fields]), listed, b64encode(body_hash(body)))


def prepare(trace: bytes, content_wire: bytes, *, domain: str, selector: str, timestamp: int) -> Unsigned:
    """Return what an RSA key signs of a message: `cover`, then `Cover.unsigned`."""
    return cover(trace, content_wire).unsigned("rsa-sha256", domain=domain, selector=selector, timestamp=timestamp)


@lru_cache(maxsize=256)  # applications' messages have few shapes
def _listed(names: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return the lines of h= for the fields that are there: each name once more, and those that must not come."""
    there = dict.fromkeys(names, 0)
    for name in names:
        there[name] += 1
    lines: list[bytes] = []
    line = b"h="
    for name, always in COVERED.items():
        for _ in range(there[name] + 1 if name in there else always):
            shown = _SHOWN[name]
            if len(line) + len(shown) > _WIDTH:
                lines.append(line)
                line = b""
            line += shown + b":"
    lines.append(line[:-1] + b";")
    return tuple(lines)


def split(content: bytes) -> tuple[bytes, bytes]:
    """Return header block (with its last CR LF) and body (behind the empty line)."""
    if content.startswith(b"\r\n"):
        return b"", content[2:]
    end = content.find(b"\r\n\r\n")
    return (content[: end + 2], content[end + 4 :]) if end >= 0 else (content, b"")


# -- the body -------------------------------------------------------------------------------------------------


def relaxed_body(body_wire: bytes) -> bytes:
    """Return the relaxed canonical form (section 3.4.4) of a body given in wire form."""
    body = unstuffed(body_wire)
    if body and not body.endswith(b"\r\n"):
        body += b"\r\n"
    if b"\t" in body:
        body = body.replace(b"\t", b" ")
    if b" " in body:  # one octet is found a hundred times as fast as two: base64 is done here
        body = _spaces_reduced(body)
        body = replaced(body, b" \r\n", b"\r\n")
    return _without_last_empty_lines(body, b"")


def _spaces_reduced(body: bytes) -> bytes:
    """Make every run of spaces one space; each round halves the longest run."""
    while True:
        pieces = body.split(b"  ", PIECES)
        if len(pieces) == 1:
            return body
        if len(pieces) > PIECES:
            body = body.replace(b"  ", b" ")
            continue
        body = b" ".join(pieces)
        # Two spaces are left only where three were: there a piece is empty or begins with one.
        if all(piece[:1] not in (b" ", b"") for piece in pieces[1:]):
            return body


def simple_body(body_wire: bytes) -> bytes:
    """Return the simple canonical form (section 3.4.3) of a body given in wire form."""
    body = unstuffed(body_wire)
    if not body.endswith(b"\r\n"):
        body += b"\r\n"
    return _without_last_empty_lines(body, b"\r\n")


def _without_last_empty_lines(body: bytes, empty: bytes) -> bytes:
    """Drop the empty lines at the end; a body of nothing else is `empty`."""
    if body == b"\r\n":
        return empty
    if not body.endswith(b"\r\n\r\n"):
        return body
    text = body.rstrip(b"\r\n")
    if body[len(text) :] == b"\r\n" * ((len(body) - len(text)) // 2):
        return text + b"\r\n" if text else empty
    end = len(body)  # a lone CR or LF is among them, which no listener of ours lets in: only whole pairs go
    while body.endswith(b"\r\n\r\n", 0, end):
        end -= 2
    return body[:end]


def body_hash(body_wire: bytes) -> bytes:
    """Return the SHA-256 of the relaxed canonical body."""
    return hashlib.sha256(relaxed_body(body_wire)).digest()


# -- the header -----------------------------------------------------------------------------------------------


def relaxed_header(name: bytes, value: bytes) -> bytes:
    """Return a field in relaxed canonical form (section 3.4.2) with its CR LF; `value` may be folded."""
    return name.rstrip(b" \t").lower() + b":" + _relaxed(value).strip(b" ") + b"\r\n"


def simple_header(name: bytes, value: bytes) -> bytes:
    """Return a field in simple canonical form (section 3.4.1): as it came, with its CR LF."""
    return name + b":" + value + b"\r\n"


def _relaxed(text: bytes) -> bytes:
    """Unfold and reduce white space, over one value or a whole header block."""
    text = text.replace(b"\t", b" ").replace(b"\r\n ", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text


def signed_fields(block: bytes) -> list[tuple[bytes, bytes]]:
    """Return (lower-case name, relaxed field with CR LF) for each field that is signed, in the order of h=.

    Of repeated fields the lowest comes first (section 5.4.2)."""
    found: dict[bytes, list[bytes]] = {}
    for line in _relaxed(block).split(b"\r\n"):
        key, colon, value = line.partition(b":")
        name = key.rstrip(b" ").lower()
        if colon and name in COVERED:
            found.setdefault(name, []).append(name + b":" + value.strip(b" ") + b"\r\n")
    return [(name, field) for name in SIGNED if name in found for field in reversed(found[name])]
