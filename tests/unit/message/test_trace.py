"""The fields we prepend."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import pytest

from outgate.message import trace
from outgate.message.fields import read

AT = 1_795_158_180.0


def received(**changes: object) -> bytes:
    given: dict[str, object] = {"helo": "client.example", "address": "192.0.2.1", "by": "relay.test", "tls": "TLSv1.3 X", "utf8": False, "queue_id": "0QUEUE", "at": AT}  # fmt: skip
    return trace.received(**(given | changes))  # type: ignore[arg-type]


def test_received_as_everybody_writes_it() -> None:
    assert received() == (
        b"Received: from client.example ([192.0.2.1])\r\n\tby relay.test (Outgate) with ESMTPSA id 0QUEUE\r\n"
        b"\t(TLSv1.3 X);\r\n\tFri, 20 Nov 2026 07:03:00 +0000\r\n"
    )
    assert b"UTF8SMTPSA" in received(utf8=True)
    assert b"([IPv6:2001:db8::1])" in received(address="2001:db8::1")


@pytest.mark.parametrize("helo", ["x)(by evil", 'x"', "a;b", "a\\", "x<y>", "(", "x,y"])
def test_a_name_cannot_change_how_the_field_is_read(helo: str) -> None:
    line = received(helo=helo)
    said = line.split(b" ", 2)[1].removeprefix(b"from ").split(b" ")[0]
    assert not set(said) & set(b'()";\\<>,')
    header = read(line + b"\r\n")
    assert [name for name, _ in header.fields] == ["received"]
    assert line.count(b"(") == line.count(b")") == 3 and line.count(b";") == 1


def test_a_name_of_which_nothing_is_left() -> None:
    assert received(helo="()").startswith(b"Received: from unknown (")


def test_lines_stay_short_enough() -> None:
    assert all(len(line) <= 998 for line in received(helo="a" * 255).split(b"\r\n"))


@pytest.mark.parametrize("epoch", [0.0, AT, 951_782_400.0, 4_102_444_799.9])
def test_dates_are_read_back(epoch: float) -> None:
    assert parsedate_to_datetime(trace.date(epoch)).timestamp() == int(epoch)
    assert trace.date_field(epoch) == f"Date: {trace.date(epoch)}\r\n".encode()


def test_message_id() -> None:
    assert trace.message_id("0QUEUE", "shop.test") == b"Message-ID: <0QUEUE@shop.test>\r\n"
