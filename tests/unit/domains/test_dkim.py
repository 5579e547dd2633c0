"""The DKIM-Signature field: what it lists and how it looks."""

from __future__ import annotations

import re
import tracemalloc
from base64 import b64encode
from hashlib import sha256

import pytest

from outgate.domains import dkim

CONTENT = b"To: b@x.test\r\nFrom: a@shop.test\r\nSubject: one\r\nto : c@x.test\r\nX-Other: no\r\nCC:\r\n\td@x.test\r\n\r\nbody\r\n"


def unsigned(content: bytes = CONTENT, trace: bytes = b"") -> dkim.Unsigned:
    return dkim.prepare(
        trace, content, domain="shop.test", selector="00000000-0000-0000-0000-000000000000", timestamp=1_800_000_000
    )


def tags(field: bytes) -> dict[bytes, bytes]:
    value = field.removeprefix(b"DKIM-Signature:").replace(b"\r\n", b"")
    pairs = (part.split(b"=", 1) for part in value.split(b";"))
    return {key.strip(): b"".join(text.split()) for key, text in pairs}


def test_tags() -> None:
    found = tags(unsigned().finish(b"x" * 256))
    assert {key: found[key] for key in (b"v", b"a", b"c", b"d", b"s", b"t")} == {
        b"v": b"1", b"a": b"rsa-sha256", b"c": b"relaxed/relaxed", b"d": b"shop.test",
        b"s": b"00000000-0000-0000-0000-000000000000", b"t": b"1800000000",
    }  # fmt: skip
    assert found[b"h"] == (
        b"From:From:To:To:To:Cc:Cc:Subject:Subject:Date:Message-ID:Reply-To"
        b":MIME-Version:Content-Type:Content-Transfer-Encoding"
    )
    assert found[b"bh"] == b64encode(sha256(b"body\r\n").digest())
    assert len(found[b"b"]) == 344


def test_repeated_fields_are_taken_from_the_bottom_in_relaxed_form() -> None:
    signed = unsigned().signed
    assert signed.startswith(
        b"from:a@shop.test\r\nto:c@x.test\r\nto:b@x.test\r\ncc:d@x.test\r\nsubject:one\r\ndkim-signature:v=1; a="
    )
    assert signed.endswith(b" b=")


def test_fields_of_the_trace_are_covered_and_received_is_not() -> None:
    signed = unsigned(trace=b"Received: from x\r\n\tby y\r\nMessage-ID: <1@x>\r\nDate: today\r\n").signed
    assert b"message-id:<1@x>\r\n" in signed
    assert b"date:today\r\n" in signed
    assert b"received" not in signed


def test_every_field_worth_signing_is_covered_where_present() -> None:
    names = [name.decode() for name in dkim.SIGNED]
    content = "".join(f"{name}: x\r\n" for name in names).encode() + b"\r\n"
    assert tags(unsigned(content).field)[b"h"].lower().decode().split(":") == [name for name in names for _ in "ab"]


def test_lines_are_short_and_the_field_ends_in_one_line_end() -> None:
    content = "".join(f"{name.decode()}: x\r\n" for name in dkim.SIGNED).encode() + b"\r\n"
    field = unsigned(content).finish(b"\xff" * 256)
    assert max(len(line) for line in field.split(b"\r\n")) <= 78
    assert field.endswith(b"\r\n")
    assert all(line[:1] == b" " for line in field.split(b"\r\n")[1:-1])


@pytest.mark.parametrize(("name", "always"), dkim.COVERED.items())
def test_a_field_is_listed_once_more_than_it_occurs_and_some_where_there_is_none(name: bytes, always: bool) -> None:
    for count in range(3):
        content = b"X: y\r\n" + (name + b": x\r\n") * count + b"\r\n"
        listed = tags(unsigned(content).field)[b"h"].lower().split(b":")
        assert listed.count(name) == (count + 1 if count or always else 0)


def test_what_each_hop_adds_is_never_covered() -> None:
    hops = b"Received: x\r\nReturn-Path: <>\r\nAuthentication-Results: y\r\nResent-From: z\r\nList-ID: l\r\nX-A: b\r\n"
    assert unsigned(hops + CONTENT) == unsigned(CONTENT)


def test_more_fields_than_are_remembered_are_listed_as_well() -> None:
    listed = tags(unsigned(b"To: x\r\n" * 900 + b"\r\n").field)[b"h"]
    assert listed.split(b":").count(b"To") == 901
    assert max(len(line) for line in unsigned(b"To: x\r\n" * 900 + b"\r\n").field.split(b"\r\n")) <= 78


def test_both_algorithms_cover_the_same() -> None:
    of = dkim.cover(b"", CONTENT)
    one, other = (
        of.unsigned(algorithm, domain="shop.test", selector="s", timestamp=1)
        for algorithm in ("rsa-sha256", "ed25519-sha256")
    )
    assert one.signed.replace(b"a=rsa-sha256", b"a=ed25519-sha256") == other.signed
    assert tags(other.field)[b"a"] == b"ed25519-sha256"


def test_it_is_the_same_each_time() -> None:
    assert unsigned() == unsigned()


def test_body_hash_of_nothing_is_that_of_no_octets() -> None:
    # RFC 6376 section 3.4.4 gives the value.
    assert tags(unsigned(b"From: a\r\n\r\n").field)[b"bh"] == b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert tags(unsigned(b"From: a\r\n\r\n\r\n\r\n").field)[b"bh"] == tags(unsigned(b"From: a\r\n\r\n").field)[b"bh"]


def test_rfc_6376_section_3_4_5_examples() -> None:
    assert dkim.relaxed_body(b" C \r\nD \t E\r\n\r\n\r\n") == b" C\r\nD E\r\n"
    assert dkim.simple_body(b" C \r\nD \t E\r\n\r\n\r\n") == b" C \r\nD \t E\r\n"
    assert dkim.relaxed_header(b"A", b" X") == b"a:X\r\n"
    assert dkim.relaxed_header(b"B ", b" Y\t\r\n\tZ  ") == b"b:Y Z\r\n"
    assert dkim.simple_header(b"B ", b" Y\t\r\n\tZ  ") == b"B : Y\t\r\n\tZ  \r\n"
    assert dkim.simple_body(b"") == b"\r\n"
    assert dkim.relaxed_body(b"") == b""


def test_lone_line_ends_at_the_end_are_text() -> None:
    assert dkim.relaxed_body(b"a\r\n\r\r\n\r\n") == b"a\r\n\r\r\n"


def test_dots_are_taken_out_of_header_and_body() -> None:
    with_dots = dkim.prepare(b"", b"Subject: x\r\n\r\n..\r\n...a\r\n", domain="d.test", selector="s", timestamp=1)
    assert dkim.relaxed_body(b"..\r\n...a\r\n") == b".\r\n..a\r\n"
    assert tags(with_dots.field)[b"bh"] == tags(
        dkim.prepare(b"", b"\r\n..\r\n...a\r\n", domain="d", selector="s", timestamp=1).field
    )[b"bh"]  # fmt: skip


def test_a_message_without_a_header() -> None:
    assert dkim.split(b"\r\nbody\r\n") == (b"", b"body\r\n")
    assert dkim.split(b"From: a\r\n") == (b"From: a\r\n", b"")


@pytest.mark.parametrize(
    "line", [b"ab  " * 240 + b"\r\n", b" " * 990 + b"x\r\n", b"ab \r\n", b".ab\r\n", b". a  b   c \r\n"]
)
def test_a_body_made_to_be_cut_into_pieces_takes_little_memory(line: bytes) -> None:
    body = line * (2_000_000 // len(line))
    tracemalloc.start()
    try:
        canonical = dkim.relaxed_body(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert canonical == re.sub(rb" +\r\n", b"\r\n", re.sub(rb" +", b" ", re.sub(rb"(?m)^\.", b"", body)))
    assert peak < 5 * len(body)
