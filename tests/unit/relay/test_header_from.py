"""Header From, case by case: what is in `corpora/header_from.json`, and what Python's own reader makes of anything."""

from __future__ import annotations

import email
import email.header
import email.policy
import email.utils
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.message.fields import unstuffed
from outgate.relay import policy
from outgate.relay.policy import Case, Facts, Refused
from outgate.smtp.grammar import BadSyntax, mailbox
from support.rule_book import submission
from support.submission import configuration, sender

CORPUS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "corpora" / "header_from.json").read_text("utf-8")
)
BY = sender(configuration("shop.test"), configuration("xn--bcher-kva.test"))


def judged(header: bytes, smtputf8: bool) -> Case | Refused:
    content = header + b"To: b@dest.test\r\n\r\nhello\r\n"
    return policy.opened(submission(content, smtputf8=smtputf8), Facts(BY, "relay.test", "0Q", 0.0, 1.0))


@pytest.mark.parametrize("case", CORPUS, ids=[case["name"] for case in CORPUS])
def test_corpus(case: dict[str, Any]) -> None:
    verdict = judged(case["header"].encode("utf-8", "surrogateescape"), case["smtputf8"])
    if case["domain"] is None:
        assert isinstance(verdict, Refused), verdict
        assert verdict.reply in (policy.FROM_UNREADABLE, policy.HEADER_UNREADABLE)
        assert verdict.reason and verdict.remedy
        assert "bank" not in verdict.reply.text
    else:
        assert isinstance(verdict, Case), verdict
        assert verdict.author.domain == case["domain"]


def domains(header: bytes) -> set[str]:
    """The domains of From addresses that Python's readers find, by whatever way of reading."""
    wire = unstuffed(header + b"\r\nhello\r\n")
    found: list[str] = []
    for message in (email.message_from_bytes(wire), email.message_from_bytes(wire, policy=email.policy.SMTPUTF8)):
        try:
            for value in message.get_all("from", []):
                found += [address for _, address in email.utils.getaddresses([str(value)])]
                found += [each.addr_spec for each in getattr(value, "addresses", ())]
                if '"' not in str(value):  # a quoted name may hold any address
                    decoded = str(email.header.make_header(email.header.decode_header(value)))
                    found += [address for _, address in email.utils.getaddresses([decoded])]
        except Exception:
            continue
    named: set[str] = set()
    for address in found:
        try:
            named.add(mailbox(address.encode("utf-8", "surrogateescape")).domain)
        except BadSyntax:
            continue
    return named - {""}


PIECES = st.sampled_from([
    b"a@shop.test", b"ceo@bank.test", b"<a@shop.test>", b"<ceo@bank.test>", b"Shop", b'"', b"\\", b"(", b")", b",", b";", b":", b"<", b">", b"@", b".",
    b" ", b"\r\n ", b"\r\n\t", b"\r\nFrom: ", b"\r\n.From: ", b"\r\nfrom : ", b"=?utf-8?q?ceo=40bank.test?=", b"=?utf-8?q?=3Cceo=40bank.test=3E?=",
    b"=?utf-8?q?,?=", b"\xc3\xa9", b"\x1c", b"\xc2\x85", b"\xe2\x80\xa8", b"\0", b"[", b"]", b"shop.test", b"bank.test",
    b"=?utf-8?q?a=40shop.test?=", b"=?utf-8?q?.bank?=", b"=?utf-8?q?ceo=40?=", b"ing",
])  # fmt: skip


@given(st.lists(PIECES, max_size=8).map(b"".join))
def test_another_reader_sees_the_same_domain_or_we_refuse(value: bytes) -> None:
    header = b"From: " + value + b"\r\n"
    verdict = judged(header, True)
    if isinstance(verdict, Case):
        assert domains(header) <= {verdict.author.domain}


@pytest.mark.parametrize("case", [case for case in CORPUS if case["domain"]], ids=lambda case: case["name"])
def test_another_reader_agrees_on_what_we_accept(case: dict[str, Any]) -> None:
    assert domains(case["header"].encode("utf-8", "surrogateescape")) <= {case["domain"]}


@pytest.mark.parametrize(
    ("field", "allowed"),
    [
        (b"Sender: b@shop.test", True), (b"Sender: b@bank.test", False), (b"Sender:", False),
        (b"Sender: a@shop.test\r\nSender: a@shop.test", False), (b"Sender: a@shop.test, b@shop.test", False),
        (b"Resent-From: ceo@bank.test", True), (b"Reply-To: ceo@bank.test", True),
    ],
)  # fmt: skip
def test_who_sends_on_behalf_is_judged_like_the_author(field: bytes, allowed: bool) -> None:
    verdict = judged(b"From: a@shop.test\r\n" + field + b"\r\n", False)
    assert (
        isinstance(verdict, Case) if allowed else isinstance(verdict, Refused) and verdict.reply == policy.SENDER_FIELD
    )
