"""Any bytes, split anywhere: the server machine gives replies or RemoteProtocolError, always the same ones."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from outgate.smtp import buffer
from outgate.smtp.buffer import DataCollector, has_bare_line_ends, replace_bare_line_ends
from outgate.smtp.errors import RemoteProtocolError
from outgate.smtp.events import TlsRequested
from outgate.smtp.server import Limits, ServerMachine
from support.dialogue import Dialogue, ScriptedSession, machine

DIALOGUE = Dialogue("property", [], {"size": "200", "errors": "30"})
WORDS = st.sampled_from(
    [
        b"EHLO c\r\n", b"HELO c\r\n", b"AUTH PLAIN AHVzZXIAc2VjcmV0\r\n", b"AUTH LOGIN\r\n", b"dXNlcg==\r\n", b"c2VjcmV0\r\n", b"*\r\n",
        b"MAIL FROM:<a@b.example>\r\n", b"mail from: a@b.example\r\n", b"RCPT TO:<c@d.example>\r\n", b"DATA\r\n", b"x\r\n", b".\r\n",
        b"..\r\n", b"\r\n.\r\n", b"\n.\n", b"\r.\r", b"\n", b"\r", b"RSET\r\n", b"NOOP\r\n",
        b"BDAT 0\r\n", b"BDAT 3\r\n", b"BDAT 7 LAST\r\n", b"bdat 0 last\r\n", b"BDAT 150\r\n", b"BDAT x\r\n", b"LAST", b"BDAT ", b"STARTTLS\r\n", b"QUIT\r\n", b"\0", b"GET / HTTP/1.1\r\n",
    ]
)  # fmt: skip
STREAM = st.lists(st.one_of(WORDS, st.binary(max_size=12)), max_size=30).map(b"".join)


PROLOGUE = b"EHLO c\r\nAUTH PLAIN AHVzZXIAc2VjcmV0\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
LIMIT = 200


def kept(server: ServerMachine) -> int:
    """Return how many octets of content a machine keeps."""
    content = server._content
    return sum(map(len, content._collector._pieces if content._collector else ())) + sum(
        map(len, content._chunks._pieces if content._chunks else ())
    )


def run(stream: bytes, cuts: list[int]) -> tuple[bytes, list[bytes], str]:
    session = ScriptedSession(machine(DIALOGUE, tls=True))
    server = session.machine
    intake = server._content._intake
    heard = bytearray()

    def pump() -> None:
        while (event := server.next_event()) is not None:
            assert not isinstance(event, TlsRequested)
            session.handle(event)
        heard.extend(server.outgoing())
        # Every question has its answer: what is left is a line without end, or content within its limit.
        assert len(server._input) <= Limits().auth_line and kept(server) <= LIMIT + 2
        assert kept(server) <= intake.held

    pump()
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    try:
        for start, end in itertools.pairwise(edges):
            server.receive(stream[start:end])
            pump()
        server.receive_eof()
        pump()
    except RemoteProtocolError:
        return bytes(heard), session.messages, "error"
    assert intake.held == 0
    return bytes(heard), session.messages, server.state.value


@given(STREAM, st.lists(st.integers(0, 500), max_size=8))
def test_splitting_changes_nothing(stream: bytes, cuts: list[int]) -> None:
    for whole in (stream, PROLOGUE + b"DATA\r\n" + stream, PROLOGUE + b"BDAT 20\r\n" + stream):
        assert run(whole, cuts) == run(whole, [])


@given(STREAM, st.sampled_from([b"DATA\r\n", b"BDAT 20 LAST\r\n", b"BDAT 10\r\n"]))
def test_a_message_that_is_taken_holds_no_bare_line_end_and_no_early_end(stream: bytes, begin: bytes) -> None:
    for message in run(PROLOGUE + begin + stream, [])[1]:
        assert not has_bare_line_ends(message)
        assert b"\r\n.\r\n" not in b"\r\n" + message
        assert b"\r\n.\r\n" not in b"\r\n" + message.replace(b"\0", b"")
        assert message == b"" or message.endswith(b"\r\n")


def chunked(raw: bytes, cuts: list[int]) -> bytes:
    edges = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    chunks = [raw[start:end] for start, end in itertools.pairwise(edges)] or [b""]
    last = len(chunks) - 1
    return b"".join(
        b"BDAT %d%b\r\n%b" % (len(chunk), b" LAST" if number == last else b"", chunk)
        for number, chunk in enumerate(chunks)
    )


@given(
    st.lists(st.sampled_from([b"\r\n", b".", b"..", b"x", b"\0", b"\r\n.\r\n", b"\r", b"\n", b"\xff"]), max_size=30).map(b"".join),
    st.lists(st.integers(0, 90), max_size=5),
    st.booleans(),
)  # fmt: skip
def test_a_message_is_the_same_by_data_and_in_chunks(raw: bytes, cuts: list[int], replace: bool) -> None:
    def say(content: bytes) -> tuple[bytes, list[bytes]]:
        options = {"size": "60", "text_line": "15"} | ({"replace": ""} if replace else {})
        session = ScriptedSession(machine(Dialogue("property", [], options), tls=True))
        session.machine.receive(PROLOGUE + content)
        while (event := session.machine.next_event()) is not None:
            session.handle(event)
        last = session.machine.outgoing().splitlines()[-1]
        return last, session.messages

    whole = raw + b"\r\n"
    wire = (b"\r\n" + whole).replace(b"\r\n.", b"\r\n..")[2:]
    by_data, by_chunks = say(b"DATA\r\n" + wire + b".\r\n"), say(chunked(whole, cuts))
    if by_data[0].startswith(b"552"):  # too large is too large, whichever chunk finds out
        assert by_chunks[1] == []
    else:
        assert by_chunks == by_data
    if not raw.endswith(b"\r") and raw and not raw.endswith(b"\r\n"):  # a last line without CR LF gets one
        assert say(chunked(raw, cuts))[1] == by_data[1]


@given(st.binary(max_size=60).map(lambda b: b.replace(b"x", b"\r\n").replace(b"y", b".")))
def test_replaced_line_ends_never_make_an_end(raw: bytes) -> None:
    wire = raw + b"\r\n"
    if b"\r\n.\r\n" in b"\r\n" + wire:  # the collector would have ended there
        return
    mended = replace_bare_line_ends(wire)
    assert not has_bare_line_ends(mended)
    assert b"\r\n.\r\n" not in b"\r\n" + mended


@given(st.binary(max_size=80), st.lists(st.integers(0, 80), max_size=6))
def test_collector_finds_the_first_true_end(raw: bytes, cuts: list[int]) -> None:
    data = raw.replace(b"a", b"\r\n").replace(b"b", b".") + b"\r\n.\r\nREST"
    first = (b"\r\n" + data).find(b"\r\n.\r\n")
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    collector = DataCollector(1000)
    rest: bytes | None = None
    for start, end in itertools.pairwise(edges):
        if rest is None:
            rest = collector.feed(data[start:end])
        else:
            rest += data[start:end]
    assert rest == data[first + 3 :]
    assert collector.content() == data[:first]


@given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"x", b"\x0b", b"\x85", b"\0"]), max_size=12).map(b"".join))
def test_bare_line_ends_are_counted_right(content: bytes) -> None:
    without_pairs = content.replace(b"\r\n", b"")
    assert has_bare_line_ends(content) == (b"\r" in without_pairs or b"\n" in without_pairs)


@given(
    st.lists(st.tuples(st.sampled_from([b"", b".", b".."]), st.integers(0, 12)), max_size=30),
    st.sampled_from([4, 1 << 20]),
)
def test_long_lines_are_found_in_pieces_too(lines: list[tuple[bytes, int]], split: int) -> None:
    content = b"".join(dot + b"x" * count + b"\r\n" for dot, count in lines)
    expected = any(len((dot + b"x" * count).removeprefix(b".")) > 9 for dot, count in lines)
    before = buffer._SPLIT_LIMIT
    buffer._SPLIT_LIMIT = split + 12
    try:
        assert buffer.examine(content, 9) == (False, expected)
    finally:
        buffer._SPLIT_LIMIT = before


@given(
    st.lists(st.sampled_from([b".", b"\r\n", b"\r\n.\r\n", b"x", b"\r", b"\n"]), max_size=30).map(b"".join),
    st.sampled_from([0, 1, 2, 100]),
)
def test_the_end_is_found_by_its_dot(data: bytes, few: int) -> None:
    before = buffer._FEW_DOTS
    buffer._FEW_DOTS = few
    try:
        assert buffer._find_end(data) == data.find(b"\r\n.\r\n")
    finally:
        buffer._FEW_DOTS = before
