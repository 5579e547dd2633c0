"""Text parts, decoded for judging."""

from __future__ import annotations

import base64
import encodings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.message.fields import read, shown
from outgate.message.mime import texts
from outgate.message.text import decoded


@pytest.mark.parametrize(
    ("body", "encoding", "charset", "said"),
    [
        (b"caf\xc3\xa9", "", "", "café"), (b"caf\xe9", "8bit", "iso-8859-1", "café"), (b"caf=C3=\r\n=A9", "quoted-printable", "utf-8", "café"),
        (b"Y2Fm\r\nw6k=\r\n", "base64", "utf-8", "café"), (b"Y2Fmw6k", "base64", "utf-8", "café"), (b"!!Y2Fmw6k=", "base64", "utf-8", "café"), (b"A", "base64", "utf-8", ""),
        (b"abc", "x-unknown", "x-unknown", "abc"), (b"abc", "", "idna", "abc"), (b"\\x41", "", "unicode_escape", "\\x41"), (b"abc", "", "rot13", "abc"), (b"abc", "", "a\0b", "abc"),
        ("配信停止".encode("iso2022_jp"), "7bit", "iso-2022-jp", "配信停止"),
    ],
)  # fmt: skip
def test_decoded(body: bytes, encoding: str, charset: str, said: str) -> None:
    assert decoded(body, encoding, charset) == said


def test_names_of_strangers_are_not_kept() -> None:
    """Python keeps each name that a codec was looked for by, found or not, for as long as the process runs."""
    kept: dict[str, object] = encodings._cache  # pyright: ignore[reportAttributeAccessIssue]
    before = set(kept)
    for number in range(20):
        for charset in (f"x-{number}", "utf" + "-" * (number + 2) + "8", "x" * (60 + number)):
            assert decoded(b"abc", "", charset) == "abc"
            shown(f"=?{charset}?q?abc?=".encode())
    # What reading a header needs itself may be new, if nobody has read one before; of the sixty names there is none.
    assert not [name for name in set(kept) - before if name.startswith(("x", "utf")) and name != "utf_8"]


@given(
    st.binary(max_size=100),
    st.sampled_from(["", "base64", "quoted-printable", "8bit"]),
    st.sampled_from(["", "utf-8", "utf-16", "punycode", "shift_jis", "hz", "undefined", "base64_codec"]),
)
def test_anything_is_decoded(body: bytes, encoding: str, charset: str) -> None:
    assert isinstance(decoded(body, encoding, charset), str)


@given(st.binary(max_size=200))
def test_base64_as_it_was_encoded(data: bytes) -> None:
    assert decoded(base64.encodebytes(data), "base64", "latin-1").encode("latin-1") == data


def test_text_parts_of_a_message() -> None:
    content = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: TEXT/HTML; charset=UTF-8\r\nContent-Transfer-Encoding: Base64\r\n\r\nPGI+\r\n"
        b"--b\r\n\r\n..dotted\r\n--b\r\nContent-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nx\r\n--b\r\nContent-Type: text/csv\r\n\r\nx\r\n--b--\r\n"
    )
    html, plain = texts(content, read(content))
    assert (html.type, html.body, html.encoding, html.charset) == ("text/html", b"PGI+", "base64", "utf-8")
    assert (plain.type, plain.body) == ("text/plain", b".dotted")
    single = b"Content-Type: text/html\r\n\r\n..<p>\r\n"
    assert [part.body for part in texts(single, read(single))] == [b".<p>\r\n"]
