"""Judge what a domain publishes as its DKIM key, against the key that we sign with.

Standards: RFC 6376 sections 3.2 (tag lists), 3.6.1 (key records), 3.6.2.2 (one record per name); RFC 8463 (Ed25519).
Promises: no I/O; each way to be wrong has its own word and says what to publish instead.
Dangers: a failed look-up is "temperror", never a verdict on the domain.
Not here: signing (`dkim`), asking (`net.dns`).
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass

from outgate.domains.ask import Evaluation, Question, is_askable


@dataclass(frozen=True, slots=True)
class KeyResult:
    """`result` is "ok", "missing", "revoked", "wrong-key", "wrong-type", "several", "malformed" or "temperror";
    `explanation` says in words what was found and what to do, for "ok" perhaps with a warning."""

    result: str
    explanation: str


class _Malformed(Exception):
    """The record is no key record; the text says why."""


def check_key(domain: str, selector: str, public: str, algorithm: str = "rsa") -> Evaluation[KeyResult]:
    """Ask whether `selector` of `domain` publishes our key `public`: base64 of the DER SubjectPublicKeyInfo if
    `algorithm` is "rsa", of the 32 octets if it is "ed25519"."""
    name = f"{selector}._domainkey.{domain}"
    if not is_askable(name):
        return KeyResult("malformed", f"{name} is too long for a DNS name")
    answer = yield Question(name, "TXT")
    if answer.failed:
        return KeyResult("temperror", f"TXT of {name} could not be asked: {answer.status}")
    if answer.alias:
        name = f"{name} (an alias of {answer.alias})"
    texts = [text for text in answer.records if isinstance(text, bytes)]
    if not texts:
        return KeyResult("missing", f"there is no TXT record at {name}: publish the one shown")
    if len(texts) > 1:
        return KeyResult("several", f"{name} has {len(texts)} TXT records: leave only the one shown")
    try:
        tags = _tags(texts[0])
        return _judge(name, tags, algorithm, public.encode("ascii"))
    except _Malformed as error:
        return KeyResult("malformed", f"the TXT record at {name} is no key record: {error}")


def _judge(name: str, tags: dict[str, bytes], algorithm: str, ours: bytes) -> KeyResult:
    kind = tags.get("k", b"rsa").lower().decode("ascii", "replace")
    if kind != algorithm:
        return KeyResult("wrong-type", f"the key at {name} is of type {kind}, not {algorithm}")
    read = _key if algorithm == "rsa" else _octets
    hashes = _list(tags.get("h", b"sha256"))
    if b"sha256" not in hashes:
        return KeyResult("wrong-type", f"the key at {name} does not allow sha256 (tag h=)")
    services = _list(tags.get("s", b"*"))
    if b"*" not in services and b"email" not in services:
        return KeyResult("wrong-type", f"the key at {name} is not for e-mail (tag s=)")
    if not tags["p"]:
        return KeyResult("revoked", f"the key at {name} is revoked (p= is empty): publish the record shown")
    if read(tags["p"]) != read(ours):
        return KeyResult("wrong-key", f"{name} publishes another key: replace it by the record shown")
    if b"y" in _list(tags.get("t", b"")):
        warning = "but says that the domain is testing DKIM (t=y), so receivers may ignore signatures: remove that"
        return KeyResult("ok", f"{name} publishes our key, {warning}")
    return KeyResult("ok", f"{name} publishes our key")


def _tags(text: bytes) -> dict[str, bytes]:
    """Read a tag list; white space is dropped from p=, trimmed elsewhere."""
    tags: dict[str, bytes] = {}
    for number, part in enumerate(text.strip(b" \t\r\n").removesuffix(b";").split(b";")):
        name, equals, value = part.partition(b"=")
        key = name.strip(b" \t\r\n").decode("ascii", "replace")
        if not equals or not key or not key.replace("_", "").isalnum() or key in tags:
            raise _Malformed(f"{part.decode('ascii', 'backslashreplace')!r} is not a new tag")
        if key == "v" and (number > 0 or value.strip(b" \t\r\n") != b"DKIM1"):
            raise _Malformed("v= must come first and be DKIM1")
        tags[key] = value.strip(b" \t\r\n")
    if "p" not in tags:
        raise _Malformed("the tag p= is missing")
    tags["p"] = b"".join(tags["p"].split())
    return tags


def _list(value: bytes) -> list[bytes]:
    return [item.strip().lower() for item in value.split(b":")]


def _key(text: bytes) -> bytes:
    """Return the RSAPublicKey (PKCS#1) of a key in base64: records hold it bare or as SubjectPublicKeyInfo."""
    try:
        der = b64decode(text, validate=True)
    except binascii.Error:
        raise _Malformed("p= is not base64") from None
    outer, behind = _element(der, 0x30)
    if outer[:1] != b"\x30":  # a modulus, not an algorithm: it is bare
        return der
    algorithm, rest = _element(outer, 0x30)
    if algorithm not in (_RSA, _RSA + _NULL):
        raise _Malformed("p= is not an RSA key")
    bits, more = _element(rest, 0x03)
    if behind or more or bits[:1] != b"\0":
        raise _Malformed("p= is a key and something else")
    return bits[1:]


def _octets(text: bytes) -> bytes:
    """Return an Ed25519 key: records hold its 32 octets and nothing around them (RFC 8463 section 4)."""
    try:
        key = b64decode(text, validate=True)
    except binascii.Error:
        raise _Malformed("p= is not base64") from None
    if len(key) != 32:
        raise _Malformed(f"p= holds {len(key)} octets, where an Ed25519 key has 32")
    return key


_RSA = bytes.fromhex("06092a864886f70d010101")
_NULL = b"\x05\x00"  # the algorithm's parameters, which some leave out


def _element(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """Return the contents of the first DER element, which must have `tag`, and what follows it."""
    if len(der) < 2 or der[0] != tag:
        raise _Malformed("p= is not an RSA key")
    length, at = der[1], 2
    if length & 0x80:
        at += length & 0x7F
        length = int.from_bytes(der[2:at], "big")
    if at + length > len(der):
        raise _Malformed("p= is cut short")
    return der[at : at + length], der[at + length :]
