"""What DSN asks for goes on to a server that offers DSN, and to no other."""

from __future__ import annotations

import asyncio

import pytest

from outgate.base.clock import FrozenClock
from outgate.smtp.asyncio.client import ClientTimeouts, connect
from outgate.smtp.client import ClientMachine, Transaction, TransactionResult
from outgate.smtp.errors import LocalProtocolError
from outgate.smtp.transaction import check
from support.scripted_peer import OFFER, Peer

PATIENT = ClientTimeouts(connect=5, handshake=5, reply=5, final=5, content=5, quit=5)
WISH = Transaction(
    "a@x.test", ("b@y.test", "c@y.test"), (b"Subject: x\r\n\r\nx\r\n",),
    ret="FULL", envid="id+2B1", notify=("SUCCESS,FAILURE", ""), orcpt=("rfc822;b+2Bold@y.test", ""),
)  # fmt: skip


async def sent(peer: Peer, *transactions: Transaction, pipelining: bool = True) -> list[TransactionResult]:
    connection = await connect(
        "127.0.0.1", peer.port, ehlo_name="me.test", clock=FrozenClock(), timeouts=PATIENT, pipelining=pipelining
    )
    results: list[TransactionResult] = []
    for transaction in transactions:
        ended: asyncio.Future[TransactionResult] = asyncio.get_running_loop().create_future()
        connection.send(transaction, ended.set_result)
        results.append(await ended)
    await connection.quit()
    return results


@pytest.mark.parametrize("pipelining", [True, False])
async def test_passed_on_where_it_is_offered(pipelining: bool) -> None:
    plain = Transaction("a@x.test", ("b@y.test",), WISH.content)
    async with Peer(offer=(*OFFER, "DSN")) as peer:
        wish, nothing = await sent(peer, WISH, plain, pipelining=pipelining)
    assert peer.envelopes == [
        [
            "MAIL FROM:<a@x.test> RET=FULL ENVID=id+2B1",
            "RCPT TO:<b@y.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+2Bold@y.test",
            "RCPT TO:<c@y.test>",
        ],
        ["MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>"],
    ]
    assert wish.dsn and nothing.dsn and wish.final is not None and wish.final.ok
    assert wish.steps[0].did.startswith(" + ".join(peer.envelopes[0]))


@pytest.mark.parametrize("pipelining", [True, False])
async def test_kept_back_where_it_is_not(pipelining: bool) -> None:
    async with Peer() as peer:
        (result,) = await sent(peer, WISH, pipelining=pipelining)
    assert peer.envelopes == [["MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "RCPT TO:<c@y.test>"]]
    assert not result.dsn and "NOTIFY" not in result.steps[0].did


@pytest.mark.parametrize(
    "wrong",
    [
        {"envid": "x\r\nRSET"}, {"envid": "a b"}, {"ret": "FULL\r\n"}, {"notify": ("NEVER",)}, {"orcpt": ("a;b", "c;d\nDATA")},
        {"notify": ("NEVER X=1", "")},
    ],
)  # fmt: skip
def test_what_would_be_another_command_is_not_sent(wrong: dict[str, object]) -> None:
    values = {"ret": "", "envid": "", "notify": (), "orcpt": (), **wrong}
    with pytest.raises(LocalProtocolError):
        check(Transaction("a@x.test", ("b@y.test", "c@y.test"), (), **values))  # type: ignore[arg-type]


def test_a_server_that_breaks_the_protocol_is_told_from_one_that_is_lost() -> None:
    for said, broken in ((b"999 what\r\n", True), (b"", False)):
        machine = ClientMachine(ehlo_name="me.test")
        machine.receive(b"220 hi\r\n")
        machine.next_event()
        machine.ehlo()
        machine.receive(b"250 hi\r\n")
        machine.next_event()
        machine.send(WISH)
        machine.receive(said)
        if broken:
            with pytest.raises(Exception, match="not a reply"):
                machine.next_event()
        else:
            machine.receive_eof()
        done = machine.next_event()
        assert done is not None and done.result.broken is broken  # type: ignore[union-attr]
