"""What strangers write at length costs time in proportion to it, whatever they write: no reader of ours can be stuck."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from outgate.base.masking import masked
from outgate.domains import dane, mta_sts
from outgate.model.flow import Attempt, JobRecipient, Outcome, Status
from outgate.relay import bundles, outcome
from outgate.relay.suppressing import hard_bounces
from outgate.smtp import answers
from outgate.smtp.reply import Reply
from outgate.smtp.transaction import Transaction, TransactionResult

SHORT, TIMES = 2_048, 8
"""A text and one that is eight times as long: who reads in squared time takes 64 times as long for it."""


def _policy(text: str) -> None:
    with contextlib.suppress(mta_sts.BadPolicy):
        mta_sts.read_policy(f"version: STSv1\n{text}\n".encode())


def _reply(text: str) -> Reply:
    return Reply(550, "", (text,))


def _outcome(text: str) -> None:
    outcome.of_reply(JobRecipient(1, "a@x.test", "x.test", 0), _reply(text))


def _bounce(text: str) -> None:
    found = Outcome(1, Status.BOUNCED, 550, "", text, "bad-mailbox", personal=True)
    hard_bounces(
        Attempt("q", "s", "h", "a", "", "", 0, 0, "", (), (found,), (JobRecipient(1, "a@x.test", "x.test", 0),))
    )


def _too_many(text: str) -> None:
    refused = Reply(450, "", (text,))
    sent = Transaction("", ("a@x.test", "b@x.test"), (b"x\r\n",))
    bundles.too_many(TransactionResult(sent, recipients=(Reply(250, "", ("ok",)), refused)))


def _lines(text: str) -> None:
    reader = answers.ReplyReader(answers.ClientLimits(line=10**7, reply=10**7))
    reader.feed(f"250-x\r\n250 {text}\r\n".encode())
    answers.extensions_of(reader.next(True) or _reply(""))


READERS: dict[str, Callable[[str], object]] = {
    "policy": _policy,
    "policy-mx": lambda text: _policy(f"mx: {text}"),
    "policy-id": lambda text: mta_sts.policy_id([b"v=STSv1;" + text.encode()]),
    "tlsa": lambda text: dane.read(f"3 1 1{text}"),
    "outcome": _outcome,
    "bounce": _bounce,
    "too-many": _too_many,
    "reply": _lines,
    "limits": bundles.offered,
    "masked": lambda text: masked(f"{text}@x"),
    "masked-words": lambda text: masked(f"a@{text}"),
}
PIECES = {
    "spaces": ("a: x", " ", "x"), "hex": (" ", "0", "z"), "tabs": ("", "\t", "z"), "angles": ("", "<", ""),
    "dots": ("*.", "a.", "_"), "quotes": ('"', '\\"', ""), "apostrophes": ("", "a'", ""), "equals": ("id=", "a=;", ""),
    "users": ("", "user ", ""), "maxima": ("", "max ", ""), "ats": ("", "a@", ""), "colons": ("x:", ":", ""),
    "spaced": ("a: x", "x  ", "x"), "brackets": ("", "@[", ""), "numbers": ("", "RCPTMAX=1 ", ""),
}  # fmt: skip


def _seconds(read: Callable[[str], object], text: str) -> float:
    """Return what the quickest of some readings takes of this thread's time."""
    found: list[float] = []
    for _ in range(3):
        before = time.thread_time()
        read(text)
        found.append(time.thread_time() - before)
    return min(found)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("piece", PIECES)
def test_eight_times_the_text_does_not_take_squared_time(name: str, piece: str) -> None:
    before, repeated, behind = PIECES[piece]
    read = READERS[name]
    count = SHORT // len(repeated)
    short = _seconds(read, before + repeated * count + behind)
    long = _seconds(read, before + repeated * count * TIMES + behind)
    # What takes no time at all is as quick as it can be: there the clock would be measured.
    assert long <= 3 * TIMES * max(short, 0.0005)
