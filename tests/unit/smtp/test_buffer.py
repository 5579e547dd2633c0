"""Lines and message data: limits to the octet, line ends, and the final dot wherever it is cut."""

from __future__ import annotations

import pytest

from outgate.smtp.buffer import (
    BareLineEnd,
    DataCollector,
    InputBuffer,
    LineTooLong,
    has_bare_line_ends,
    replace_bare_line_ends,
)


def test_lines_come_whole() -> None:
    lines = InputBuffer()
    lines.feed(b"NO")
    assert lines.line(10) is None
    lines.feed(b"OP\r")
    assert lines.line(10) is None
    lines.feed(b"\nQUIT\r\nrest")
    assert lines.line(10) == b"NOOP"
    assert lines.line(10) == b"QUIT"
    assert lines.line(10) is None
    assert len(lines) == 4
    assert lines.take() == b"rest" and len(lines) == 0


@pytest.mark.parametrize("piece", [1, 2, 3, 100])
def test_the_limit_is_exact(piece: int) -> None:
    lines = InputBuffer()
    found: list[bytes | str] = []
    data = b"a" * 8 + b"\r\n" + b"b" * 9 + b"\r\n" + b"c" * 50 + b"\r\nok\r\n"
    for at in range(0, len(data), piece):
        lines.feed(data[at : at + piece])
        while True:
            try:
                line = lines.line(10)
            except LineTooLong:
                found.append("too long")
                continue
            if line is None:
                break
            found.append(line)
        assert len(lines) <= 10 + piece
    assert found == [b"a" * 8, "too long", "too long", b"ok"]


@pytest.mark.parametrize("text", [b"NOOP\n", b"\n", b"NO\rOP\r\n", b"\r\r\n"])
def test_a_bare_line_end_is_told_and_thrown_away(text: bytes) -> None:
    lines = InputBuffer()
    lines.feed(text + b"NOOP\r\n")
    with pytest.raises(BareLineEnd):
        lines.line(10)
    assert lines.line(10) == b"NOOP"


@pytest.mark.parametrize("piece", range(1, 14))
@pytest.mark.parametrize(("limit", "large"), [(9, True), (10, False), (11, False)])
def test_the_dot_line_does_not_count_wherever_it_is_cut(piece: int, limit: int, large: bool) -> None:
    collector = DataCollector(limit)
    data = b"12345678\r\n.\r\nNOOP"
    rest: bytes | None = None
    for at in range(0, len(data), piece):
        rest = collector.feed(data[at : at + piece])
        if rest is not None:
            rest += data[at + piece :]
            break
    assert rest == b"NOOP"
    assert collector.too_large is large
    if not large:
        assert collector.content() == b"12345678\r\n"


def test_what_is_too_large_is_not_kept() -> None:
    collector = DataCollector(1000)
    for _ in range(1000):
        assert collector.feed(b"x" * 1000) is None
        assert sum(map(len, collector._pieces)) <= 2000
    assert collector.feed(b"\r\n.\r\n") == b""
    assert collector.too_large


def test_an_empty_message() -> None:
    collector = DataCollector(10)
    assert collector.feed(b".\r\n") == b""
    assert collector.content() == b"" and not collector.too_large


@pytest.mark.parametrize("text", [b"a\r\n.\nb\r\n", b"a\n.\r\nb\r\n", b"a\n.\nb", b"a\r.\rb", b"a\r\n.\rb"])
def test_only_the_true_end_ends(text: bytes) -> None:
    collector = DataCollector(100)
    assert collector.feed(text) is None
    assert collector.feed(b"\r\n.\r\n") == b""
    assert has_bare_line_ends(collector.content())


def test_replaced_line_ends() -> None:
    assert replace_bare_line_ends(b"a\nb\rc\r\nd\n.e\r.f\r\n") == b"a\r\nb\r\nc\r\nd\r\n..e\r\n..f\r\n"
    assert not has_bare_line_ends(b"a\r\nb\r\n")


@pytest.mark.parametrize(
    ("wire", "mended"),
    [
        (b"a\r\n.\nb\r\n", b"a\r\n..\r\nb\r\n"), (b"a\r\n.\rb\r\n", b"a\r\n..\r\nb\r\n"), (b".\nb\r\n", b"..\r\nb\r\n"), (b".\rb\r\n", b"..\r\nb\r\n"),
        (b"a\n.\n.\nb\r\n", b"a\r\n..\r\n..\r\nb\r\n"), (b"a\r\n.\n.\r\nb\r\n", b"a\r\n..\r\n..\r\nb\r\n"), (b"a\r\n..\nb\r\n", b"a\r\n..\r\nb\r\n"),
        (b"a\r\n.b\r\n", b"a\r\n.b\r\n"),
    ],
)  # fmt: skip
def test_a_dot_that_was_no_end_does_not_become_one(wire: bytes, mended: bytes) -> None:
    assert replace_bare_line_ends(wire) == mended
