"""The header as it came: fields, From, and what is refused rather than guessed."""

from __future__ import annotations

import pytest

from outgate.message.fields import BadHeader, mailboxes, read, separated, shown, without


def test_fields_keep_their_order_and_are_unfolded() -> None:
    header = read(b"A: 1\r\nSubject: one\r\n two\r\nA: 2\r\n\r\nbody: no\r\n")
    assert [name for name, _ in header.fields] == ["a", "subject", "a"]
    assert header.all("a") == [b"1", b"2"]
    assert header.first("subject") == b"one two"
    assert header.first("body") is None


def test_body_begins_behind_the_empty_line() -> None:
    content = b"A: 1\r\n\r\nbody\r\n"
    assert content[read(content).body_at :] == b"body\r\n"
    assert read(b"\r\nbody\r\n").fields == ()
    only = b"A: 1\r\n"
    assert read(only).body_at == len(only)


@pytest.mark.parametrize("line", [b"no colon", b": x", b"A B: x", b"\xff: 1"])
def test_a_line_that_is_no_field_ends_the_header(line: bytes) -> None:
    """The vendor's documented dialogue has no empty line between header and body."""
    content = b"Subject: x\r\n" + line + b"\r\nFrom: not@a.field\r\n"
    header = read(content)
    assert header.unseparated and [name for name, _ in header.fields] == ["subject"]
    mended, header = separated(content, header)
    assert mended == b"Subject: x\r\n\r\n" + line + b"\r\nFrom: not@a.field\r\n"
    assert read(mended) == header and mended[header.body_at :].startswith(line)


def test_a_header_that_begins_with_a_continued_line_is_refused() -> None:
    with pytest.raises(BadHeader):
        read(b" A: 1\r\n\r\n")


def test_an_endless_header_is_refused() -> None:
    with pytest.raises(BadHeader, match="longer"):
        read(b"A: 1\r\n" * 50_000)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"a@b.example", [b"a@b.example"]),
        (b"Name <a@b.example>", [b"a@b.example"]),
        (b'"Na, me" <a@b.example>', [b"a@b.example"]),
        (b"(c (nested)) a@b.example (d)", [b"a@b.example"]),
        (b"J. Q. Public <a.b@c.example>", [b"a.b@c.example"]),
        (b'"a b"@c.example', [b'"a b"@c.example']),
        (b"a@b.example, c@d.example", [b"a@b.example", b"c@d.example"]),
        (b"=?utf-8?q?a=40evil.example?= <a@b.example>", [b"a@b.example"]),
        (b"a @ b . example", [b"a@b.example"]),
        (b"", []),
    ],
)
def test_mailboxes(value: bytes, expected: list[bytes]) -> None:
    assert mailboxes(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"group: a@b.example;",
        b"a@b@c.example",
        b"a@evil.example <a@b.example>",
        b"<a@b.example> x",
        b"<a@b.example",
        b"<<a@b.example>>",
        b"<a@b.example><c@d.example>",
        b"nobody",
        b"a@",
        b"@b.example",
        b"a..b@c.example",
        b"a@b..example",
        b"(unclosed a@b.example",
        b'"unclosed a@b.example',
        b"a@b.example\0",
        b"a@[1.2.3.4]x",
        b"a@[x@b.example]",
        b"a@[1.2.3.4\x00]",
    ],
)
def test_doubtful_addresses_are_refused(value: bytes) -> None:
    with pytest.raises(BadHeader):
        mailboxes(value)


def test_without_drops_a_field_with_its_folded_lines() -> None:
    content = b"To: a\r\nBcc: b,\r\n c\r\nbCC: d\r\nX: 1\r\n\r\nBcc: in the body\r\n"
    assert without(content, read(content), "bcc") == b"To: a\r\nX: 1\r\n\r\nBcc: in the body\r\n"
    untouched = b"To: a\r\n\r\nx\r\n"
    assert without(untouched, read(untouched), "bcc") is untouched


def test_shown_decodes_words_and_hides_controls() -> None:
    assert shown(b"=?utf-8?b?w6TDtsO8?=") == "äöü"
    assert shown(b"a\x1b[31mb") == "a [31mb"
    assert shown(b"=?x-unknown?q?a?=") == "=?x-unknown?q?a?="
