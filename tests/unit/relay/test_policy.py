"""The rule book: the first rule that refuses decides, replies are generic, reasons exact."""

from __future__ import annotations

import pytest

from outgate.message.fields import read
from outgate.model.flow import Accepted, Client, Recipient, Submission
from outgate.model.tenancy import Sender, Verification
from outgate.relay import policy
from outgate.relay.policy import Facts, Refused
from outgate.smtp.grammar import mailbox
from support.submission import configuration, sender

NOW = 1_795_158_180.0
BODY = b"\r\nhello\r\n"


def submission(content: bytes, *, reverse_path: str = "a@shop.test", helo: str = "client.example") -> Submission:
    client = Client("192.0.2.1", 1, "public", "submission")
    return Submission("S", client, helo, "TLSv1.3 X", "user", reverse_path, (Recipient("b@x.test", "x.test"),), content, NOW)  # fmt: skip


def judge(content: bytes, by: Sender | None = None, **options: str) -> Accepted | Refused:
    return policy.accept(submission(content, **options), Facts(by or sender(), "relay.test", "0QUEUE", NOW, 100.0))


def accepted(content: bytes, by: Sender | None = None, **options: str) -> Accepted:
    verdict = judge(content, by, **options)
    assert isinstance(verdict, Accepted), verdict
    return verdict


def refused(content: bytes, by: Sender | None = None, **options: str) -> Refused:
    verdict = judge(content, by, **options)
    assert isinstance(verdict, Refused)
    assert verdict.reason and verdict.remedy
    return verdict


def test_what_is_accepted_knows_where_it_belongs() -> None:
    verdict = accepted(
        b"From: A <a@shop.test>\r\nSubject: =?utf-8?q?h=C3=A9?=\r\nMessage-ID: <1@x>\r\nDate: now\r\n" + BODY
    )
    assert (verdict.queue_id, verdict.instance_id, verdict.smtp_config_id) == ("0QUEUE", "inst", "cfg-shop.test")
    assert (verdict.header_from, verdict.subject, verdict.message_id) == ("a@shop.test", "hé", "<1@x>")
    assert (verdict.signing_key.domain, verdict.signing_key.selector) == ("shop.test", "sel")
    assert (verdict.accepted_at, verdict.expires_at) == (NOW, NOW + 100)
    assert verdict.trace.startswith(b"Received: from client.example ([192.0.2.1])")
    assert b"Message-ID" not in verdict.trace and b"Date:" not in verdict.trace


def test_a_missing_message_id_and_date_are_added() -> None:
    verdict = accepted(b"From: a@shop.test\r\n" + BODY)
    assert b"\r\nMessage-ID: <0QUEUE@shop.test>\r\n" in verdict.trace
    assert b"\r\nDate: Fri, 20 Nov 2026 07:03:00 +0000\r\n" in verdict.trace
    assert verdict.message_id == "<0QUEUE@shop.test>"


def test_bcc_goes_and_nothing_else_changes() -> None:
    content = (
        b"To: b@x.test\r\nBcc: secret@x.test,\r\n more@x.test\r\n.Bcc: hidden@x.test\r\nFrom: a@shop.test\r\n" + BODY
    )
    assert accepted(content).submission.content == b"To: b@x.test\r\nFrom: a@shop.test\r\n" + BODY
    untouched = b"From: a@shop.test\r\n" + BODY
    assert accepted(untouched).submission.content is untouched


def test_nothing_enters_the_header_through_the_ehlo_name() -> None:
    verdict = accepted(b"From: a@shop.test\r\n" + BODY, helo='x)\\"(;')
    names = [name for name, _ in read(verdict.trace + b"\r\n").fields]
    assert names == ["received", "message-id", "date"]


@pytest.mark.parametrize(
    "header",
    [
        b"", b"Subject: x\r\n", b"From: a@shop.test\r\nFrom: a@shop.test\r\n", b"From: a@shop.test, b@shop.test\r\n", b"From: \r\n",
        b"From: group: a@shop.test;\r\n", b"From: a@evil.test <a@shop.test>\r\n", b"From: \xff@shop.test\r\n",
        b"From: a@shop.test\r\n.From: ceo@bank.test\r\n",  # the next server takes the dot away
    ],
)  # fmt: skip
def test_one_from_with_one_address_is_needed(header: bytes) -> None:
    assert refused(header + BODY).reply.code == 550


def test_from_outside_the_domains() -> None:
    verdict = refused(b"From: ceo@bank.test\r\n" + BODY)
    assert verdict.reply == policy.FROM_NOT_ALLOWED
    assert "bank.test" in verdict.reason and "bank.test" not in verdict.reply.text
    assert refused(b"From: a@sub.shop.test\r\n" + BODY).reply == policy.FROM_NOT_ALLOWED


def test_header_from_names_the_configuration() -> None:
    by = sender(configuration("shop.test"), configuration("other.test"))
    assert accepted(b"From: a@Other.Test\r\n" + BODY, by).smtp_config_id == "cfg-other.test"
    assert accepted(b"From: a@shop.test\r\n" + BODY, by, reverse_path="").smtp_config_id == "cfg-shop.test"


@pytest.mark.parametrize(("check", "word"), [("spf", "SPF"), ("dkim", "DKIM"), ("authorization", "authorisation")])
@pytest.mark.parametrize("result", [Verification.PENDING, Verification.FAILED])
def test_a_configuration_that_is_not_verified_has_to_wait(check: str, word: str, result: Verification) -> None:
    verdict = refused(b"From: a@shop.test\r\n" + BODY, sender(configuration(**{check: result})))
    assert 400 <= verdict.reply.code < 500 and word in verdict.reply.text
    assert "shop.test" in verdict.reason


def test_attachments_by_instance() -> None:
    pdf = b"From: a@shop.test\r\nContent-Type: application/pdf\r\n" + BODY
    assert refused(pdf).reply == policy.ATTACHMENT
    assert accepted(pdf, sender(attachments=True))
    report = b"From: a@shop.test\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nx\r\n--b--\r\n"
    assert refused(report).reply == policy.ATTACHMENT
    assert accepted(report, reverse_path="")


def test_an_earlier_rule_decides() -> None:
    both = b"From: ceo@bank.test\r\nContent-Type: application/pdf\r\n" + BODY
    assert refused(both).reply == policy.FROM_NOT_ALLOWED


def test_a_header_that_does_not_end_where_it_should_gets_its_empty_line() -> None:
    verdict = accepted(b"From: a@shop.test\r\nhello there\r\nFrom: ceo@bank.test\r\n")
    assert verdict.submission.content == b"From: a@shop.test\r\n\r\nhello there\r\nFrom: ceo@bank.test\r\n"
    assert refused(b" folded\r\nFrom: a@shop.test\r\n" + BODY).reply == policy.HEADER_UNREADABLE


def test_reverse_and_forward_path() -> None:
    assert policy.reverse_path(sender(), mailbox(b"x@SHOP.test")) is None
    assert policy.reverse_path(sender(), mailbox(b"")) is None
    assert policy.reverse_path(sender(), mailbox(b"x@sub.shop.test")) is not None
    assert policy.forward_path(mailbox(b"x@y.test"), lambda address: False) is None
    assert policy.forward_path(mailbox(b"x@[192.0.2.1]"), lambda address: False) is not None
    assert policy.forward_path(mailbox(b"x@[IPv6:2001:DB8::1]"), "2001:db8::1".__eq__) is None


def test_no_subject_can_break_it() -> None:
    assert accepted(b"From: a@shop.test\r\nSubject: =?utf-8?b?a?=\r\n" + BODY).subject == "=?utf-8?b?a?="
    long = b"From: a@shop.test\r\nSubject: " + b"=?a?q?" * 40_000 + b"\r\n" + BODY
    assert len(accepted(long).subject) == 500
    assert accepted(b"From: a@shop.test\r\nSubject: x" + b"\r\n " * 80_000 + b"\r\n" + BODY)
