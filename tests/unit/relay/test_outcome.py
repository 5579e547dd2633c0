"""From replies to outcomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.model.flow import JobRecipient, Status
from outgate.relay import outcome
from outgate.smtp.reply import Reply, reply
from outgate.smtp.transaction import Transaction, TransactionResult

ONE = JobRecipient(7, "b@x.test", "x.test", 0)
TWO = JobRecipient(8, "c@x.test", "x.test", 0)
OK = reply(250, "2.0.0", "Ok")
GO = reply(354, "", "go")
B, L = Status.BOUNCED, Status.DEFERRED
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


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "status", "reason"),
    [
        # The replies that operators meet most, as servers and large providers word them.
        (450, "4.2.0", "<b@x.test>: Recipient address rejected: Greylisted, see http://postgrey.test/", L, "greylisted"),
        (451, "4.7.1", "Greylisting in action, please come back later", L, "greylisted"),
        (421, "4.7.0", "Try again later, closing connection", L, "rate"),
        (421, "4.7.28", "Our system has detected an unusual rate of unsolicited mail", L, "rate"),
        (550, "5.7.28", "flood detected", B, "rate"),
        (451, "4.7.500", "Server busy. Please try again later", L, "rate"),
        (452, "4.5.3", "Too many recipients", L, "rate"),
        (450, "4.2.1", "The user you are trying to contact is receiving mail at a rate that prevents more", L, "rate"),
        (421, "", "Too many concurrent SMTP connections", L, "rate"),
        (550, "5.7.1", "Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", B, "reputation"),
        (554, "", "IP 192.0.2.1 is on our blacklist", B, "reputation"),
        (550, "5.7.606", "Access denied, banned sending IP [192.0.2.1]", B, "reputation"),
        (550, "5.7.1", "very low reputation of the sending domain", B, "reputation"),
        (550, "5.7.1", "[192.0.2.1] Your IP has been blocked", B, "reputation"),
        (554, "5.7.1", "Message rejected as spam", B, "content"),
        (550, "5.7.1", "this message is likely unsolicited mail. To protect our users it has been blocked", B, "content"),
        (552, "5.7.0", "This message was blocked because its content presents a potential security issue", B, "content"),
        (554, "5.3.0", "infected with Eicar-Test VIRUS", B, "content"),
        (550, "5.7.515", "Access denied, sending domain does not meet the required level", B, "auth"),
        (421, "4.7.26", "unauthenticated", L, "auth"),
        (550, "5.7.1", "Unauthenticated email from x.test is not accepted due to domain's DMARC policy", B, "auth"),
        (550, "", "SPF check failed", B, "auth"),
        (550, "5.7.25", "no PTR", B, "auth"),
        (450, "4.7.1", "Client host rejected: cannot find your reverse hostname", L, "auth"),
        (530, "5.7.0", "Must issue a STARTTLS command first", B, "tls"),
        (530, "5.7.0", "Authentication required", B, "login"),
        (530, "", "", B, "login"),
        (535, "5.7.8", "credentials invalid", B, "login"),
        (538, "5.7.11", "Encryption required", B, "tls"), (550, "5.7.10", "x", B, "tls"), (550, "5.7.30", "x", B, "tls"),
        (454, "4.7.0", "TLS not available due to local problem", L, "tls"),
        (454, "4.7.0", "Temporary authentication failure", L, "login"),
        (552, "5.2.2", "Over quota", B, "full"), (452, "4.2.2", "x", L, "full"), (550, "", "Mailbox full", B, "full"),
        (552, "", "Message size exceeds fixed limit", B, "too-large"), (523, "5.3.4", "x", B, "too-large"),
        (452, "4.3.1", "Insufficient system storage", L, "server-error"),
        (550, "5.4.1", "Recipient address rejected: Access denied", B, "bad-mailbox"),
        (550, "5.5.0", "Requested action not taken: no such user here", B, "bad-mailbox"),
        (550, "", "account disabled", B, "inactive"), (550, "5.2.1", "x", B, "inactive"),
        (554, "5.7.1", "<b@x.test>: Relay access denied", B, "policy"),
        (554, "5.4.6", "x", B, "loop"), (554, "", "too many hops", B, "loop"), (554, "5.4.14", "Hop count exceeded", B, "loop"),
        (450, "4.4.1", "x", L, "network"), (451, "4.4.3", "x", L, "dns"), (550, "5.4.4", "x", B, "dns"),
        (500, "5.5.2", "x", B, "protocol"), (555, "", "x", B, "protocol"), (553, "5.6.7", "x", B, "smtputf8"),
        (550, "5.1.8", "Domain of sender address does not exist", B, "bad-sender"),
        (556, "", "x", B, "no-mail"), (521, "", "we take no mail", B, "no-mail"),
        # Its name is not what it says: addresses are no words.
        (550, "", "<spam-blacklist@x.test> unknown user", B, "bad-mailbox"),
    ],
)  # fmt: skip
def test_what_operators_meet(code: int, enhanced: str, text: str, status: Status, reason: str) -> None:
    for said in (text, text.upper()):
        found = outcome.of_reply(ONE, reply(code, enhanced, said))
        assert (found.status, found.reason) == (status, reason)


@pytest.mark.parametrize(
    ("code", "enhanced", "status", "reason"),
    [
        (250, "5.1.1", Status.DELIVERED, "accepted"), (450, "5.1.1", L, "bad-mailbox"), (550, "4.2.2", B, "full"),
        (450, "2.0.0", L, "mailbox-busy"), (550, "2.1.5", B, "bad-mailbox"), (354, "", L, "protocol"), (250, "9.9.9", Status.DELIVERED, "accepted"),
        (199, "", L, "protocol"), (999, "5.0.0", L, "protocol"), (0, "", L, "protocol"),
    ],
)  # fmt: skip
def test_the_reply_decides_over_an_enhanced_code_that_contradicts_it(
    code: int, enhanced: str, status: Status, reason: str
) -> None:
    found = outcome.of_reply(ONE, Reply(code, enhanced, ("",)))
    assert (found.status, found.reason) == (status, reason)


WORDS = st.sampled_from([word for _, phrases in outcome.WORDING for word in phrases] + ["<", ">", "-", " "])
TEXTS = st.text(max_size=2000) | st.lists(WORDS, max_size=300).map(" ".join) | st.integers(0, 100_000).map("<".__mul__)


@given(st.integers(0, 1000), st.text("0123456789.", max_size=12) | st.just(""), TEXTS)
def test_any_code_and_any_text_give_an_outcome(code: int, enhanced: str, text: str) -> None:
    text = text.replace("\r", "").replace("\n", "").replace("\0", "")
    found = outcome.of_reply(ONE, Reply(code, enhanced, (text,)))
    expected = {2: Status.DELIVERED, 5: B}.get(code // 100, L)
    assert found.status is expected and len(found.text) <= 1000
    assert outcome.explained(found.reason).word == found.reason


def test_what_a_long_text_says_behind_its_thousandth_sign_is_not_read() -> None:
    assert outcome.of_reply(ONE, reply(550, "", "x" * 1000 + " spam")).reason == "bad-mailbox"


def test_every_class_is_explained_and_every_word_is_a_class() -> None:
    words = [each.word for each in outcome.REASONS]
    assert len(set(words)) == len(words)
    used = {*outcome.EXACT.values(), *outcome.HINT.values(), *outcome.SUBJECT.values(), *outcome.BASIC.values()}
    used |= {*outcome.TOGETHER.values(), *outcome.FAILURES, *(word for word, _ in outcome.WORDING)}
    used |= {"source", "route", "login", "rate", "incident"}  # what delivery says without a reply
    assert used <= set(words)
    for each in outcome.REASONS:
        assert each.meaning and (each.advice or each.word == "accepted"), each.word
    assert outcome.explained("never heard of").word == "other"


def test_a_reply_that_is_taken_over_says_so() -> None:
    made = TransactionResult(SENT, mail=OK, recipients=(OK, reply(550, "5.1.1", "x")), data=GO, final=OK, dsn=True)
    assert [each.handed_on for each in outcome.of_transaction((ONE, TWO), made)] == [True, False]
