"""The question whether a server takes a sender: MAIL and RSET, and no mail."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.smtp.client import ClientMachine, Done, Event, State, Transaction
from outgate.smtp.errors import LocalProtocolError
from outgate.smtp.sync.client import ClientTimeouts, connect
from support.mail_peers import Authority, Script, serving


def ready(*offers: str) -> ClientMachine:
    machine = ClientMachine(ehlo_name="me.example", tls=True)
    machine.receive(b"220 x\r\n")
    assert machine.next_event() is not None
    machine.ehlo()
    lines = ["x", *offers]
    machine.receive(
        "".join(f"250{'-' if at < len(lines) - 1 else ' '}{each}\r\n" for at, each in enumerate(lines)).encode()
    )
    assert machine.next_event() is not None
    machine.outgoing()
    return machine


def events(machine: ClientMachine) -> list[Event]:
    return list(iter(machine.next_event, None))


@pytest.mark.parametrize("offers", [(), ("PIPELINING", "SIZE 1000", "DSN")])
def test_a_sender_that_is_taken_is_taken_back(offers: tuple[str, ...]) -> None:
    machine = ready(*offers)
    machine.ask_sender("a@shop.example")
    assert b"".join(machine.outgoing()) == b"MAIL FROM:<a@shop.example>\r\n"
    machine.receive(b"250 2.1.0 Ok\r\n")
    assert events(machine) == []
    assert b"".join(machine.outgoing()) == b"RSET\r\n"
    machine.receive(b"250 2.0.0 Ok\r\n")
    (done,) = events(machine)
    assert isinstance(done, Done) and str(done.result.mail) == "250 2.1.0 Ok" and not done.result.error
    assert machine.state is State.READY
    machine.send(Transaction("a@shop.example", ("b@there.example",), (b"x\r\n",)))
    assert b"".join(machine.outgoing()).startswith(b"MAIL FROM:<a@shop.example>")


def test_a_refusal_is_the_answer_and_the_session_goes_on() -> None:
    machine = ready()
    machine.ask_sender("a@shop.example")
    machine.receive(b"550 5.7.1 no\r\n")
    (done,) = events(machine)
    assert isinstance(done, Done) and done.result.mail is not None and done.result.mail.code == 550
    assert machine.state is State.READY


@pytest.mark.parametrize("answer", [b"421 4.3.2 bye\r\n", b"354 what\r\n", b"250 2.1.0 Ok\r\n550 no\r\n"])
def test_a_session_that_ends_meanwhile_tells_so(answer: bytes) -> None:
    machine = ready()
    machine.ask_sender("a@shop.example")
    machine.receive(answer)
    try:
        found = events(machine)
    except Exception:
        found = events(machine)
    assert any(isinstance(each, Done) and each.result.error for each in found)
    assert machine.state is State.CLOSED


def test_what_is_no_path_and_what_has_no_turn_is_not_asked() -> None:
    machine = ready()
    with pytest.raises(LocalProtocolError):
        machine.ask_sender("a@shop.example>\r\nRCPT TO:<b@there.example")
    assert machine.outgoing() == [] and machine.state is State.READY
    machine.ask_sender("")
    assert b"".join(machine.outgoing()) == b"MAIL FROM:<>\r\n"
    with pytest.raises(LocalProtocolError):
        machine.ask_sender("a@shop.example")


def test_a_sender_that_needs_smtputf8_is_not_asked_for_without_it() -> None:
    machine = ready()
    machine.ask_sender("ä@shop.example")
    (done,) = events(machine)
    assert isinstance(done, Done) and done.result.mail is not None and done.result.mail.code == 553
    assert machine.outgoing() == []


@pytest.fixture
def trust(tmp_path: Path) -> Iterator[tuple[Authority, ssl.SSLContext]]:
    authority = Authority(tmp_path)
    yield authority, ssl.create_default_context(cafile=str(authority.file))


def test_over_a_socket(trust: tuple[Authority, ssl.SSLContext]) -> None:
    authority, context = trust
    script = Script(authority.context("localhost"), implicit=True)
    with serving(script) as port:
        timeouts = ClientTimeouts(connect=10, reply=10)
        with connect(
            "localhost", port, ehlo_name="me", tls="implicit", context=context, timeouts=timeouts
        ) as connection:
            found = connection.ask_sender("a@shop.example")
            assert found.mail is not None and found.mail.ok and connection.usable()
    assert [line.split()[0] for line in script.seen] == [b"EHLO", b"MAIL", b"RSET", b"QUIT"]
