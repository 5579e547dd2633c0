"""What the text parts of a message say, decoded for rules that read it.

Standards: RFC 2045 section 6 (transfer encodings), RFC 2046 section 4.1 (charset).
Promises: linear time; any bytes give a text: what cannot be decoded is shown by replacement characters.
Dangers: for judging only; no mail program need decode broken parts as we do. The caller bounds the size.
Not here: the walk through the parts (`mime`), what is looked for in the text (`relay.content`).
"""

from __future__ import annotations

import binascii
import codecs
import quopri
from encodings import normalize_encoding
from encodings.aliases import aliases

_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_NO_BASE64 = bytes(sign for sign in range(256) if sign not in _BASE64)
# Python keeps every name that it was ever asked for, so it is asked for names of charsets only, each in one spelling.
_CHARSETS = frozenset(
    {*aliases, *aliases.values()}
    | {"cp720", "cp737", "cp856", "cp874", "cp875", "cp1006", "koi8_t", "koi8_u", "utf_8_sig"}
    | {"mac_arabic", "mac_croatian", "mac_farsi", "mac_romanian"}
)
_LONGEST_NAME = 40


def decoded(body: bytes, encoding: str, charset: str) -> str:
    """Return the text of a part's body; `encoding` and `charset` as its fields name them, in lower case."""
    if encoding == "base64":
        body = _from_base64(body)
    elif encoding == "quoted-printable":
        body = quopri.decodestring(body)
    return body.decode(codec(charset) or "utf-8", "replace")


def codec(charset: str) -> str:
    """Return Python's name for a charset, "" if it is none or unknown."""
    name = normalize_encoding(charset.lower()) if charset.isascii() and len(charset) <= _LONGEST_NAME else ""
    if name not in _CHARSETS:
        return ""
    try:
        found = codecs.lookup(name)
        b" ".decode(found.name, "replace")  # what is no codec of texts refuses
    except (LookupError, ValueError):
        return ""
    return found.name


def _from_base64(body: bytes) -> bytes:
    signs = body.partition(b"=")[0].translate(None, _NO_BASE64)
    signs = signs[: len(signs) - 1] if len(signs) % 4 == 1 else signs
    return binascii.a2b_base64(signs + b"=" * (-len(signs) % 4))
