"""The sink: nothing lost, doubled or foreign goes unseen."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from measure.tools import Sink

RUN = "abcdefgh"


def message(number: int, *, run: str = RUN, body: str = "text\r\n") -> bytes:
    return f"Received: by relay\r\nX-Bench-Message: {run}-{number:08d}\r\n\r\n{body}".encode()


def ask(sink: Sink, question: str) -> str:
    host, _, port = sink.control.partition(":")
    with socket.create_connection((host, int(port))) as control:
        control.sendall(f"{question}\n".encode())
        return control.makefile("r").read()


def counts(sink: Sink) -> dict[str, int]:
    pairs = (word.split("=") for word in ask(sink, "STAT").split())
    return {name: int(value) for name, value in pairs if name in ("distinct", "duplicates", "unknown")}


@pytest.fixture
def sink(binaries: Path, tmp_path: Path) -> Iterator[Sink]:
    with Sink(binaries, tmp_path / "samples", sample_every=2) as running:
        assert ask(running, f"RESET {RUN} 10") == "ok\n"
        yield running


def test_counts_each_id_once_and_tells_copies_and_strangers_apart(sink: Sink) -> None:
    with smtplib.SMTP("127.0.0.1", sink.port) as client:
        for content in (
            message(1),
            message(2),
            message(1),
            message(9),
            message(10),  # beyond the expected count
            message(3, run="otherrun"),
            b"Subject: no id\r\n\r\nX-Bench-Message: abcdefgh-00000004\r\n",  # in the body it is no id
        ):
            client.sendmail("a@example.test", ["b@example.net"], content)
    assert counts(sink) == {"distinct": 3, "duplicates": 1, "unknown": 3}


def test_reset_forgets(sink: Sink) -> None:
    with smtplib.SMTP("127.0.0.1", sink.port) as client:
        client.sendmail("a@example.test", ["b@example.net"], message(1))
        assert ask(sink, f"RESET {RUN} 10") == "ok\n"
        assert counts(sink) == {"distinct": 0, "duplicates": 0, "unknown": 0}
        client.sendmail("a@example.test", ["b@example.net"], message(1))
    assert counts(sink) == {"distinct": 1, "duplicates": 0, "unknown": 0}


@pytest.mark.parametrize("question", ["RESET short 10", "RESET abcdefgh", "RESET abcdefgh -1", "HELP"])
def test_a_wrong_question_changes_nothing(sink: Sink, question: str) -> None:
    with smtplib.SMTP("127.0.0.1", sink.port) as client:
        client.sendmail("a@example.test", ["b@example.net"], message(1))
    assert ask(sink, question).startswith("error:")
    assert counts(sink)["distinct"] == 1


def test_keeps_every_second_message_as_it_was_before_dot_stuffing(sink: Sink) -> None:
    body = "first\r\n.dot\r\n..two\r\n\r\n.\r\nlast\r\n"
    with smtplib.SMTP("127.0.0.1", sink.port) as client:
        for number in (2, 3):
            client.sendmail("a@example.test", ["b@example.net"], message(number, body=body))
    assert [file.name for file in sink.samples.iterdir()] == [f"{RUN}-00000002.eml"]
    assert (sink.samples / f"{RUN}-00000002.eml").read_bytes() == message(2, body=body)


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7])
def test_pieces_of_any_size_make_the_same_messages(sink: Sink, step: int) -> None:
    dialogue = b"EHLO a\r\n"
    for number in (4, 5):
        envelope = b"MAIL FROM:<a@example.test>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
        dialogue += envelope + message(number, body="..x\r\ny.\r\n") + b".\r\n"
    dialogue += b"QUIT\r\n"
    with socket.create_connection(("127.0.0.1", sink.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(dialogue), step):
            connection.sendall(dialogue[start : start + step])
        replies = connection.makefile("rb").read()
    assert replies.count(b"250 2.0.0 Ok: counted") == 2
    assert replies.endswith(b"221 2.0.0 Bye\r\n")
    assert counts(sink) == {"distinct": 2, "duplicates": 0, "unknown": 0}
    assert (sink.samples / f"{RUN}-00000004.eml").read_bytes() == message(4, body=".x\r\ny.\r\n")
