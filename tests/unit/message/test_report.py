"""Reports on what became of a message: in the form of the standards, whatever servers and clients wrote."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.message.fields import unstuffed
from outgate.message.report import Original, Reported, build
from support.dsn import Dsn, read_dsn

NOW = 1_800_000_000.0
TRACE = b"Received: from app.test ([192.0.2.1])\r\n\tby smtp.test (Outgate) with ESMTPSA id 0Q; now\r\n"
CONTENT = b"From: a@shop.test\r\nSubject: =?utf-8?q?caf=C3=A9?=\r\nMessage-ID: <1@shop.test>\r\n\r\n..dots\r\nbody\r\n"
ORIGINAL = Original("0QUEUEID", "", NOW - 60, TRACE, CONTENT, smtputf8=False, whole=False)
ONE = Reported(
    mailbox="bob@dest.test",
    original="",
    action="failed",
    status="5.1.1",
    remote="mx.dest.test",
    reply="550 5.1.1 no such mailbox",
    trouble="",
    meaning="the address does not exist there",
    advice="Check how it is spelt.",
    at=NOW - 1,
)


def wire(*told: Reported, original: Original = ORIGINAL, to: str = "a@shop.test") -> bytes:
    return build(
        queue_id="0REPORT", domain="shop.test", host_name="smtp.test", to=to, at=NOW, original=original, told=told or (ONE,)
    )  # fmt: skip


def written(*told: Reported, original: Original = ORIGINAL, to: str = "a@shop.test") -> Dsn:
    return read_dsn(unstuffed(wire(*told, original=original, to=to)))


def test_a_failure_in_full() -> None:
    dsn = written(replace(ONE, original="rfc822;Bob+2BList@dest.test"), original=replace(ORIGINAL, envid="order+2042"))
    assert dsn.message["From"].addresses[0].addr_spec == "MAILER-DAEMON@shop.test"
    assert [address.addr_spec for address in dsn.message["To"].addresses] == ["a@shop.test"]
    assert dsn.message["Message-ID"] == "<0REPORT@shop.test>"
    assert dsn.message["In-Reply-To"] == dsn.message["References"] == "<1@shop.test>"
    assert dsn.message["Subject"] == "Delivery Status Notification (Failure)"
    assert dsn.fields == {
        "original-envelope-id": "order 42",
        "reporting-mta": "dns; smtp.test",
        "arrival-date": "Fri, 15 Jan 2027 07:59:00 +0000",
    }
    assert dsn.recipients == [
        {
            "original-recipient": "rfc822; Bob+List@dest.test",
            "final-recipient": "rfc822; bob@dest.test",
            "action": "failed",
            "status": "5.1.1",
            "remote-mta": "dns; mx.dest.test",
            "diagnostic-code": "smtp; 550 5.1.1 no such mailbox",
            "last-attempt-date": "Fri, 15 Jan 2027 07:59:59 +0000",
            "final-log-id": "0QUEUEID",
        }
    ]
    for words in (
        "<bob@dest.test>", "What happened: the address does not exist there.", "What you can do: Check how it is spelt.",
        "mx.dest.test answered: 550 5.1.1 no such mailbox", "caf\xe9", "(0QUEUEID)", "The header of the message is returned",
    ):  # fmt: skip
        assert words in dsn.text.replace("\r\n", "\n").replace("\n    ", " ").replace("\n", " "), words
    assert (dsn.returned_type, dsn.returned) == (
        "text/rfc822-headers",
        TRACE + CONTENT.partition(b"\r\n\r\n")[0] + b"\r\n",
    )


def test_the_whole_message_comes_back_as_it_was() -> None:
    dsn = written(original=replace(ORIGINAL, whole=True))
    assert dsn.returned_type == "message/rfc822"
    assert dsn.returned == TRACE + unstuffed(CONTENT)
    eight = CONTENT + b"caf\xe9\r\n"
    dsn = written(original=replace(ORIGINAL, whole=True, content=eight))
    assert dsn.returned == TRACE + unstuffed(eight)
    too_long = replace(ORIGINAL, whole=True, content=CONTENT + b"x" * 2000 + b"\r\n")
    assert written(original=too_long).returned_type == "text/rfc822-headers"


def test_one_report_tells_of_all() -> None:
    late = replace(
        ONE,
        mailbox="c@dest.test",
        action="delayed",
        status="4.7.1",
        until=NOW + 80_000,
        reply="",
        trouble="no route",
        remote="",
    )
    done = replace(ONE, mailbox="d@dest.test", action="relayed", status="2.0.0", reply="250 2.0.0 Ok", advice="")
    dsn = written(ONE, late, done)
    assert [each["action"] for each in dsn.recipients] == ["failed", "delayed", "relayed"]
    assert dsn.recipients[1]["diagnostic-code"] == "x-outgate; no route"
    assert "remote-mta" not in dsn.recipients[1] and "will-retry-until" in dsn.recipients[1]
    assert "late, but nothing is lost" in dsn.text and "handed on" in dsn.text and "In detail: no route" in dsn.text


def test_what_cannot_be_read_any_more_is_not_returned() -> None:
    dsn = written(original=replace(ORIGINAL, content=None, trace=b""))
    assert (dsn.returned_type, dsn.returned) == ("", b"")
    assert "could not be read" in dsn.text and "In-Reply-To" not in dsn.message


def test_addresses_that_are_not_ascii() -> None:
    told = replace(ONE, mailbox="käse@dest.test", original="utf-8;k\\x{E4}se@dest.test")
    utf8 = replace(ORIGINAL, smtputf8=True, content=CONTENT.replace(b"body", "käse".encode()), whole=True)
    plain = wire(told, original=utf8)
    assert plain.isascii()
    dsn = read_dsn(unstuffed(plain))
    assert (
        dsn.recipients[0]["final-recipient"] == "utf-8; k\\x{E4}se@dest.test" == dsn.recipients[0]["original-recipient"]
    )
    assert dsn.returned_type == "message/global" and dsn.returned == TRACE + unstuffed(utf8.content or b"")
    dsn = written(told, original=replace(utf8, whole=False), to="ö@shop.test")
    assert dsn.recipients[0]["final-recipient"] == "utf-8; käse@dest.test" == dsn.recipients[0]["original-recipient"]
    assert "<käse@dest.test>" in dsn.text and dsn.returned_type == "message/global-headers"


def test_an_original_recipient_in_utf8_as_postfix_writes_it() -> None:
    told = replace(ONE, original="rfc822;j+C3+B6rg@dest.test")
    assert written(told).recipients[0]["original-recipient"] == "utf-8; j\\x{F6}rg@dest.test"
    assert written(told, to="ö@shop.test").recipients[0]["original-recipient"] == "utf-8; jörg@dest.test"


@pytest.mark.parametrize("bad", ["a b", "+ZZ", "caf\xe9", "+0D+0AX: y", "x" * 2000])
def test_parameters_that_should_never_have_been_stored_are_left_out(bad: str) -> None:
    dsn = written(replace(ONE, original=f"rfc822;{bad}"), original=replace(ORIGINAL, envid=bad))
    assert "original-envelope-id" not in dsn.fields and "original-recipient" not in dsn.recipients[0]


NASTY = st.text(max_size=400) | st.sampled_from([
    "x\r\nAction: delivered\r\n\r\n.\r\nMAIL FROM:<>", "\r\n--=_0REPORT--\r\n", "a" * 5000, ". ." * 300, "\u2028\x85\x1c", "é" * 2000, "\t \t",
    "--=_0REPORT", ".", "..", " " * 3000 + "x",
])  # fmt: skip


@given(NASTY, NASTY, st.booleans())
def test_nothing_that_others_wrote_adds_a_field_a_line_or_a_part(reply: str, more: str, utf8: bool) -> None:
    told = (replace(ONE, reply=reply, remote=more[:200]), replace(ONE, reply="", trouble=more))
    octets = wire(*told, to="ö@shop.test" if utf8 else "a@shop.test")
    for line in octets.split(b"\r\n")[:-1]:
        assert line != b"." and len(line) <= 998
        assert not line.startswith(b".") or line.startswith(b"..")
    dsn = read_dsn(unstuffed(octets))
    assert len(dsn.recipients) == 2 and all(each["action"] == "failed" for each in dsn.recipients)
    assert dsn.returned.startswith(b"Received: ")


CONTENTS = st.lists(
    st.binary(max_size=40).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b""))
    | st.sampled_from([b"Subject: x", b"Message-ID: <a@b>\xff", b"Message-ID: <a b@c>", b"", b".", b"--=_0REPORT", b"Subject: " + b"y" * 1500]),
    max_size=8,
).map(lambda lines: b"".join((b"." + line if line.startswith(b".") else line) + b"\r\n" for line in lines))  # fmt: skip


@given(CONTENTS, st.booleans(), st.booleans())
def test_any_original_can_be_reported_on(content: bytes, whole: bool, utf8: bool) -> None:
    # Nobody who writes a message knows the report's id: a line that is the boundary all the same is none of it.
    content = content.replace(b"0REPORT", b"0OTHER")
    octets = wire(original=replace(ORIGINAL, content=content, whole=whole, smtputf8=utf8))
    dsn = read_dsn(unstuffed(octets))
    if whole and max(map(len, content.split(b"\r\n"))) <= 998:
        assert dsn.returned == TRACE + unstuffed(content)
