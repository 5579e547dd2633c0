"""dkimpy verifies whatever we sign, and agrees with our canonical forms."""

from __future__ import annotations

import base64
import functools
import time

import dkim as dkimpy
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from dkim.canonicalization import Relaxed, Simple
from hypothesis import example, given
from hypothesis import strategies as st

from outgate.domains import dkim
from outgate.message import fields


@functools.cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=1024)


@functools.cache
def _record() -> bytes:
    der = _key().public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)


def _txt(name: bytes, timeout: int = 5) -> bytes | None:
    return _record() if name == b"sel-1._domainkey.shop.test." else None


def stuffed(text: bytes) -> bytes:
    """Put text that ends in CR LF (or is empty) into wire form."""
    lines = text.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)


def sign(trace: bytes, content_wire: bytes) -> bytes:
    unsigned = dkim.prepare(trace, content_wire, domain="shop.test", selector="sel-1", timestamp=int(time.time()))
    return unsigned.finish(_key().sign(unsigned.signed, padding.PKCS1v15(), hashes.SHA256()))


def verifies(message: bytes) -> bool:
    return dkimpy.verify(message, dnsfunc=_txt)


_words = st.text("ab.Z \t:;=<>@,éß", max_size=20).map(lambda text: text.encode())
_lines = st.lists(_words, max_size=12).map(lambda lines: b"".join(line + b"\r\n" for line in lines))
_names = st.sampled_from(
    [b"From", b"fRoM", b"To", b"Cc", b"Subject", b"Date", b"Message-ID", b"MIME-Version", b"Content-Type",
     b"Reply-To", b"References", b"X-Other", b"List-Unsubscribe", b"List-Unsubscribe-Post"]
)  # fmt: skip
_value_parts = st.lists(st.text("ab.Z:;=<>@ \t", min_size=1, max_size=12).filter(lambda t: t.strip(" \t")), min_size=1)
_values = _value_parts.map(lambda parts: "\r\n ".join(parts).encode())
_fields = st.lists(st.tuples(_names, _values), max_size=8)


def header(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(name + b": " + value + b"\r\n" for name, value in [(b"From", b"a@shop.test"), *fields])


@given(_fields, _lines)
@example([], b"")
@example([(b"Subject", b"a")], b"\r\n\r\n")
@example([(b"To", b"a"), (b"To", b"b")], b".\r\n..\r\n")
@example([], b"a\t \r\n  b  c \r\n\r\n \r\n")
def test_dkimpy_verifies_what_is_signed(fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    content = header(fields) + b"\r\n" + body
    trace = b"Received: from a by b;\r\n\tSat, 21 Nov 2026 07:00:00 +0000\r\nMessage-ID: <1@shop.test>\r\n"
    assert verifies(sign(trace, stuffed(content)) + trace + content)


@given(_fields, _lines, st.randoms(use_true_random=False))
def test_a_relay_that_folds_anew_does_not_break_it(fields: list[tuple[bytes, bytes]], body: bytes, random) -> None:
    content = header(fields) + b"\r\n" + body
    signature = sign(b"", stuffed(content))

    def refold(line: bytes) -> bytes:
        name, _, value = line.partition(b":")
        words = value.replace(b"\r\n", b"").split(b" ")
        folds = [random.choice((b" ", b"\r\n ", b"  ", b"\t", b"\r\n\t ")) for _ in words[1:]] + [b""]
        # A fold needs something on its line: never one of blanks only.
        text = words[0]
        for fold, word in zip(folds, words[1:], strict=False):
            text += (fold if text.strip() and word.strip() else b" ") + word
        return name.swapcase() + b":" + text + b" \r\n"

    block = signature + header(fields)
    unfolded = block.replace(b"\r\n ", b" ").replace(b"\r\n\t", b"\t")
    again = b"".join(refold(line) for line in unfolded.split(b"\r\n") if line)
    assert verifies(again + b"\r\n" + body)


@given(_lines, st.sampled_from(["subject", "from", "body"]))
def test_a_change_or_a_second_from_breaks_it(body: bytes, what: str) -> None:
    content = header([(b"Subject", b"hello")]) + b"\r\n" + body
    signature = sign(b"", stuffed(content))
    changed = {
        "subject": content.replace(b"hello", b"hallo"),
        "from": b"From: other@shop.test\r\n" + content,
        "body": content + b"more\r\n",
    }[what]
    assert not verifies(signature + changed)


@given(_lines)
@example(b"")
@example(b"\r\n")
@example(b" \r\n")
@example(b"a\r\n \t \r\n\r\n")
@example(b"..a\r\n.\r\n")
@example(b"a" + b" " * 5000 + b"b\r\n")
def test_bodies_have_dkimpys_canonical_forms(body: bytes) -> None:
    assert dkim.relaxed_body(stuffed(body)) == Relaxed.canonicalize_body(body)
    assert dkim.simple_body(stuffed(body)) == Simple.canonicalize_body(body)


@given(_names, _values)
def test_fields_have_dkimpys_canonical_forms(name: bytes, value: bytes) -> None:
    ((theirs, text),) = Relaxed.canonicalize_headers([(name, b" " + value + b"\r\n")])
    assert dkim.relaxed_header(name, b" " + value) == theirs + b":" + text


@given(_lines)
@example(b"a.b\r\n.\r\n..c\r\n\r\n" * 400)
def test_taking_the_dots_out_undoes_putting_them_in(text: bytes) -> None:
    assert fields.unstuffed(stuffed(text)) == text
