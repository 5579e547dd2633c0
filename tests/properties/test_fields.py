"""Any bytes as a header: read or refused, and nobody downstream reads another one."""

from __future__ import annotations

import email
import email.policy

from hypothesis import given
from hypothesis import strategies as st

from outgate.message.fields import BadHeader, mailboxes, read, separated, shown, unstuffed, without

PIECES = st.sampled_from([b"From: a@b.example\r\n", b".From: c@d.example\r\n", b"Bcc: x\r\n", b".bcc : y\r\n", b" folded\r\n", b"\tmore\r\n", b"..Dots: 1\r\n", b". dotted fold\r\n", b"\r\n", b"stray\r\n", b"X: \xff\r\n", b":\r\n"])  # fmt: skip
WIRE = st.lists(st.one_of(PIECES, st.binary(max_size=10).map(lambda b: b.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n")), max_size=10)  # fmt: skip
CONTENT = WIRE.map(b"".join).map(lambda c: (b"\r\n" + c).replace(b"\r\n.\r\n", b"\r\n..\r\n")[2:])


@given(CONTENT)
def test_we_and_the_receiver_see_the_same_fields(content: bytes) -> None:
    try:
        header = read(content)
    except BadHeader:
        return
    content, header = separated(content, header)
    assert not header.unseparated
    again = read(content)
    assert again.fields == header.fields and again.body_at == header.body_at
    received = email.message_from_bytes(unstuffed(content), policy=email.policy.compat32)
    if b" :" not in content:  # an old form that we read and Python does not
        ours = [name for name, _ in header.fields if name in ("from", "bcc")]
        theirs = [name.strip().lower() for name in received if name.strip().lower() in ("from", "bcc")]
        assert ours == theirs


@given(CONTENT)
def test_without_takes_the_field_and_nothing_else(content: bytes) -> None:
    try:
        content, header = separated(content, read(content))
    except BadHeader:
        return
    left = without(content, header, "bcc")
    after = read(left)
    assert after.fields == tuple(field for field in header.fields if field[0] != "bcc")
    assert left[after.body_at :] == content[header.body_at :]


@given(st.binary(max_size=200))
def test_anything_can_be_shown_and_addresses_read_or_refused(data: bytes) -> None:
    assert shown(data).isprintable() and len(shown(data)) <= 500
    assert shown(b"=?utf-8?" + data).isprintable()
    try:
        found = mailboxes(data)
    except BadHeader:
        return
    assert all(b"@" in address for address in found)
