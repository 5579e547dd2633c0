"""What leaves: our own fields are right whatever a client says, and everything else is as it came."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.message.fields import read
from outgate.message.trace import received
from outgate.model.flow import Accepted
from outgate.relay import policy
from outgate.relay.policy import Facts, Refused
from outgate.smtp.grammar import BadSyntax, hello_name
from support.rule_book import NOW, submission
from support.submission import sender

HEAD = b"From: a@shop.test\r\nMessage-ID: <1@shop.test>\r\nDate: Sat, 21 Nov 2026 07:03:00 +0000\r\n"

# RFC 5321 section 4.4 (Time-stamp-line) with RFC 8314's clause, written down here once more.
FWS = r"(?:[ \t]*\r\n)?[ \t]+"
COMMENT = r"\([^()\\\r\n]*\)"
DOMAIN = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
LITERAL = r"\[(?:\d+\.\d+\.\d+\.\d+|IPv6:[0-9A-Fa-f:.]+)\]"
STAMP = re.compile(
    rf"Received: from (?P<helo>{DOMAIN}|{LITERAL}) \((?P<address>{LITERAL})\){FWS}by (?P<by>{DOMAIN}) {COMMENT}"
    rf" with (?P<with>ESMTPSA|UTF8SMTPSA) id (?P<id>[A-Z0-9]+)(?:{FWS}tls (?P<cipher>[A-Z0-9_]+))?(?:{FWS}{COMMENT})?;{FWS}(?P<date>[^\r\n]+)\r\n"
)


def judged(content: bytes, **options: object) -> Accepted | Refused:
    verdict = policy.accept(submission(content, **options), Facts(sender(), "relay.test", "0QUEUE", NOW, 100.0))  # type: ignore[arg-type]
    assert isinstance(verdict, Accepted | Refused)
    return verdict


def taken(content: bytes, **options: object) -> Accepted:
    verdict = judged(content, **options)
    assert isinstance(verdict, Accepted), verdict
    return verdict


def stamp(accepted: Accepted) -> dict[str, str]:
    found = STAMP.match(accepted.trace.decode("ascii"))
    assert found is not None, accepted.trace
    assert parsedate_to_datetime(found["date"]).timestamp() == NOW
    return found.groupdict()


def test_received_in_every_part() -> None:
    found = stamp(taken(HEAD + b"\r\nx\r\n"))
    assert (found["helo"], found["address"], found["by"]) == ("client.example", "[192.0.2.1]", "relay.test")
    assert (found["with"], found["id"], found["cipher"]) == ("ESMTPSA", "0QUEUE", "TLS_AES_256_GCM_SHA384")
    assert stamp(taken(HEAD + b"\r\nx\r\n", smtputf8=True))["with"] == "UTF8SMTPSA"


@pytest.mark.parametrize("tls", ["TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384", "TLSv1.3 TLS_A;B"])
def test_only_a_name_of_the_registry_is_a_tls_clause(tls: str) -> None:
    made = received(helo="a", address="192.0.2.1", by="b", tls=tls, utf8=False, queue_id="0Q", at=NOW)
    assert f"\r\n\t({tls});\r\n".encode() in made


@pytest.mark.parametrize("to", [1, 2, 50])
def test_received_tells_no_recipient(to: int) -> None:
    assert b"dest.test" not in taken(HEAD + b"\r\nx\r\n", to=to).trace


HELLOS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=255) | st.sampled_from(
    ["[192.0.2.9]", "[IPv6:2001:db8::1]", "[IPv6:x", "[]", "a.", "-a-", "_", "x)\\(y", "a;b=c", '"', "a_b.example", "[1.2.3.4](x)"]
)  # fmt: skip


@given(HELLOS)
def test_header_injection_through_ehlo(helo: str) -> None:
    try:
        hello_name(helo.encode())
    except BadSyntax:
        return
    accepted = taken(HEAD + b"\r\nx\r\n", helo=helo)
    stamp(accepted)
    assert [name for name, _ in read(accepted.trace + b"\r\n").fields] == ["received"]


@pytest.mark.parametrize("helo", ["[192.0.2.9]", "[IPv6:2001:db8::1]", "host_1.example"])
def test_names_that_are_kept(helo: str) -> None:
    assert stamp(taken(HEAD + b"\r\nx\r\n", helo=helo))["helo"] == helo


@pytest.mark.parametrize("helo", [b"a\r\nX: 1", b"a\nX", b"a\0", "é".encode(), b"", b"a b", b"a" * 256])
def test_names_that_are_refused_at_once(helo: bytes) -> None:
    with pytest.raises(BadSyntax):
        hello_name(helo)


FIELDS = st.lists(
    st.sampled_from([
        b"Bcc: x@y.test\r\n", b"bcc : x,\r\n\ty\r\n", b"BCC:\r\n x\r\n", b"Resent-Bcc: x\r\n", b".Bcc: x\r\n", b"Bcc-Not: x\r\n", b"X-Bcc: x\r\n", b"Subject: Bcc: x\r\n",
        b"Message-ID: <1@x>\r\n", b"Message-ID: garbage (\r\n", b"Date: yesterday\r\n", b"X: \xc3\xa9\r\n folded\r\n", b"Received: from a by b; now\r\n", b"To: b@dest.test\r\n", b"..Dots: 1\r\n",
        b"DKIM-Signature: v=1; a=x\r\n", b"X:no space\r\n", b"X: trailing  \t\r\n",
    ]),
    max_size=8,
)  # fmt: skip
BODIES = st.lists(
    st.binary(max_size=30).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"")) | st.sampled_from([b"Bcc: x", b"", b".", b"From: ceo@bank.test"]),
    max_size=5,
).map(lambda lines: b"".join((b"." + line if line.startswith(b".") else line) + b"\r\n" for line in lines))  # fmt: skip


@given(FIELDS, FIELDS, BODIES)
def test_nothing_is_touched_but_blind_copies(before: list[bytes], after: list[bytes], body: bytes) -> None:
    blind = (b"bcc:", b"bcc :", b"resent-bcc:", b".bcc:")
    content = b"".join([*before, b"From: a@shop.test\r\n", *after]) + b"\r\n" + body
    accepted = taken(content)
    kept = [line for line in (*before, b"From: a@shop.test\r\n", *after) if not line.lower().startswith(blind)]
    assert accepted.submission.content == b"".join(kept) + b"\r\n" + body
    names = [name for name, _ in read(content).fields]
    added = [name for name, _ in read(accepted.trace + b"\r\n").fields]
    assert added[0] == "received"
    assert ("message-id" in added) is ("message-id" not in names) and ("date" in added) is ("date" not in names)
    assert set(added) <= {"received", "message-id", "date"}


@pytest.mark.parametrize(
    "value", [b"x\x1cFrom: ceo@bank.test", b"x\x0bBcc: y", b"x\0y", b"\x7f", b"\x1b]0;x\x07", b"x\x08"]
)
def test_controls_in_a_header(value: bytes) -> None:
    verdict = judged(HEAD + b"Subject: " + value + b"\r\n\r\nx\r\n")
    assert isinstance(verdict, Refused) and verdict.reply == policy.HEADER_UNREADABLE
    assert verdict.reason == "the header holds a control character"


@pytest.mark.parametrize(
    "sign", [b"\x1c", b"\x1d", b"\x1e", b"\x0b", b"\x0c", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9"]
)
def test_signs_that_python_splits_lines_at_split_nothing_here(sign: bytes) -> None:
    content = b"X: a" + sign + b"From: ceo@bank.test" + sign + b"Bcc: x\r\n" + HEAD + b"\r\nx" + sign + b"y\r\n"
    assert [name for name, _ in read(content).fields] == ["x", "from", "message-id", "date"]
    assert isinstance(judged(content), Refused)
    body = HEAD + b"\r\nx" + sign + b"From: ceo@bank.test\r\n"
    assert taken(body).submission.content == body


def test_a_long_message_id_is_not_kept_whole_beside_the_message() -> None:
    content = b"From: a@shop.test\r\nMessage-ID: <" + b"x" * 200_000 + b">\r\n\r\nx\r\n"
    accepted = taken(content)
    assert len(accepted.message_id) == 998 and accepted.submission.content == content


def test_header_injection_through_subject_message_id_and_user_name() -> None:
    accepted = taken(
        b"From: a@shop.test\r\nSubject: =?utf-8?q?a=0D=0ABcc:_x=00?=\r\nMessage-ID: <a\r\n b>\r\n\r\nx\r\n"
    )
    assert accepted.subject == "a  Bcc: x " and accepted.message_id == "<a b>"
    assert b"user" not in accepted.trace and b"Bcc" not in accepted.trace


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (b"X: " + b"x" * 300_000 + b"\r\n" + HEAD + b"\r\nx\r\n", policy.HEADER_TOO_LARGE),
        (b"X: 1\r\n" * 1001 + HEAD + b"\r\nx\r\n", policy.HEADER_TOO_LARGE),
        (b"From: " + b"(" * 20_000 + b"\r\n\r\nx\r\n", policy.FROM_UNREADABLE),
        (b"From: " + b"a@shop.test, " * 5_000 + b"\r\n\r\nx\r\n", policy.FROM_UNREADABLE),
        (b"From: a@shop.test\r\n" + b" \r\n" * 80_000 + b"\r\nx\r\n", None),
    ],
    ids=["long", "many", "nested", "list", "folded"],
)
def test_oversized_headers(content: bytes, reply: object) -> None:
    verdict = judged(content)
    assert isinstance(verdict, Accepted) if reply is None else isinstance(verdict, Refused) and verdict.reply == reply
