"""From replies to outcomes."""

from __future__ import annotations

import pytest

from outgate.model.flow import JobRecipient, Status
from outgate.relay import outcome
from outgate.smtp.reply import Reply, reply
from outgate.smtp.transaction import Transaction, TransactionResult

ONE = JobRecipient(7, "b@x.test", "x.test", 0)
TWO = JobRecipient(8, "c@x.test", "x.test", 0)
OK = reply(250, "2.0.0", "Ok")
GO = reply(354, "", "go")
SENT = Transaction("a@y.test", ("b@x.test", "c@x.test"), (b"x\r\n",))


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        (OK, Status.DELIVERED, "accepted"), (reply(251, "", "x"), Status.DELIVERED, "accepted"),
        (reply(450, "4.2.0", "x"), Status.DEFERRED, "mailbox-busy"), (reply(452, "4.2.2", "x"), Status.DEFERRED, "full"),
        (reply(421, "", "x"), Status.DEFERRED, "unavailable"), (reply(451, "4.7.1", "grey"), Status.DEFERRED, "policy"),
        (reply(550, "5.1.1", "x"), Status.BOUNCED, "bad-mailbox"), (reply(550, "5.1.10", "x"), Status.BOUNCED, "no-mail"),
        (reply(550, "5.1.8", "x"), Status.BOUNCED, "bad-sender"), (reply(552, "5.3.4", "x"), Status.BOUNCED, "too-large"),
        (reply(550, "5.7.26", "x"), Status.BOUNCED, "auth"), (reply(550, "5.7.1", "x"), Status.BOUNCED, "policy"),
        (reply(554, "5.4.6", "x"), Status.BOUNCED, "loop"), (reply(554, "5.6.0", "x"), Status.BOUNCED, "content"),
        (reply(550, "", "x"), Status.BOUNCED, "bad-mailbox"), (reply(599, "9.9.9", "x"), Status.BOUNCED, "other"),
    ],
)  # fmt: skip
def test_of_reply(said: Reply, status: Status, reason: str) -> None:
    found = outcome.of_reply(ONE, said)
    assert (found.recipient_id, found.status, found.code, found.enhanced, found.reason) == (7, status, said.code, said.enhanced, reason)  # fmt: skip


def words(**result: object) -> list[tuple[Status, str]]:
    made = TransactionResult(SENT, **result)  # type: ignore[arg-type]
    return [(o.status, o.reason) for o in outcome.of_transaction((ONE, TWO), made)]


def test_each_recipient_has_the_reply_that_decides() -> None:
    gone = reply(550, "5.1.1", "Nobody")
    assert words(mail=OK, recipients=(OK, gone), data=GO, final=OK) == [
        (Status.DELIVERED, "accepted"),
        (Status.BOUNCED, "bad-mailbox"),
    ]
    full = reply(452, "4.3.1", "full")
    assert words(mail=OK, recipients=(OK, gone), data=GO, final=full)[0][0] is Status.DEFERRED
    assert words(mail=gone, recipients=(OK, OK)) == [(Status.BOUNCED, "bad-mailbox")] * 2
    assert words(mail=OK, recipients=(OK, OK), data=reply(554, "5.7.1", "no"))[1] == (Status.BOUNCED, "policy")


def test_silence_is_never_a_bounce_nor_a_delivery() -> None:
    assert words(mail=OK, recipients=(OK, None), error="it closed") == [(Status.DEFERRED, "network")] * 2
    assert words(mail=OK, recipients=(OK, None), error="timeout: no answer") == [(Status.DEFERRED, "timeout")] * 2
    assert words(mail=OK, recipients=(OK, OK), error="no reply", broken=True) == [(Status.DEFERRED, "protocol")] * 2
    assert (
        words(mail=OK, recipients=(OK, OK), data=GO, sent_all=True, error="lost") == [(Status.DEFERRED, "unknown")] * 2
    )


def test_a_long_reply_is_cut() -> None:
    assert len(outcome.of_reply(ONE, reply(550, "", "x" * 5000)).text) == 1000


def test_our_own_verdicts() -> None:
    assert outcome.failed(ONE, "x", "dns").status is Status.DEFERRED
    assert outcome.rejected(ONE, "5.1.10", "x", "no-mail").code == 550
