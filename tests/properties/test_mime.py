"""Any MIME soup: no exception but `TooComplex`, and no file that Python's parser finds is called text."""

from __future__ import annotations

import contextlib
import email
import email.policy

from hypothesis import given
from hypothesis import strategies as st

from outgate.message.fields import BadHeader, read, separated, unstuffed
from outgate.message.mime import TooComplex, leaves

LINES = st.sampled_from([
    b"--b", b"--b--", b"--b ", b"--b--x", b".--b", b"--c", b"--c--", b"--bc", b"", b"text", b"..", b"Content-Type: text/plain", b"Content-Type: application/pdf",
    b"Content-Type: multipart/mixed; boundary=c", b"Content-Type: multipart/digest; boundary=c", b".Content-Type: image/png", b"Content-Disposition: attachment",
    b"Content-Type: multipart/mixed; boundary=\"c\"; boundary=b", b" folded", b"Content-Type: multipart/alternative;", b" boundary=c",
])  # fmt: skip
SOUP = st.lists(LINES, max_size=25).map(lambda lines: b"".join(line + b"\r\n" for line in lines))


@given(SOUP)
def test_no_file_that_another_reader_finds_is_called_text(body: bytes) -> None:
    content = b"From: a@b.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + body
    found = leaves(content, read(content))
    theirs = [
        part.get_content_type()
        for part in email.message_from_bytes(unstuffed(content), policy=email.policy.compat32).walk()
    ]
    if any(not kind.startswith(("text/", "multipart/")) for kind in theirs):
        assert any(not leaf.type.startswith("text/") for leaf in found)


@given(st.one_of(SOUP, st.binary(max_size=300)))
def test_any_bytes_at_all(content: bytes) -> None:
    with contextlib.suppress(BadHeader, TooComplex):
        content, header = separated(content, read(content))
        assert leaves(content, header)
