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

_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_NO_BASE64 = bytes(sign for sign in range(256) if sign not in _BASE64)
# Python has codecs that are no charsets of mail: their time or their warnings are not ours to bear.
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})


def decoded(body: bytes, encoding: str, charset: str) -> str:
    """Return the text of a part's body; `encoding` and `charset` as its fields name them, in lower case."""
    if encoding == "base64":
        body = _from_base64(body)
    elif encoding == "quoted-printable":
        body = quopri.decodestring(body)
    return body.decode(_codec(charset), "replace")


def _from_base64(body: bytes) -> bytes:
    signs = body.partition(b"=")[0].translate(None, _NO_BASE64)
    signs = signs[: len(signs) - 1] if len(signs) % 4 == 1 else signs
    return binascii.a2b_base64(signs + b"=" * (-len(signs) % 4))


def _codec(charset: str) -> str:
    try:
        found = codecs.lookup(charset or "utf-8")
        if found.name.replace("-", "_") not in _NO_CHARSETS:
            b" ".decode(found.name, "replace")  # what is no codec of texts refuses
            return found.name
    except (LookupError, ValueError):
        pass
    return "utf-8"
