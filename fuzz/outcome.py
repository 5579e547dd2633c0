"""A server's words: from a reply to an outcome, to what is suppressed, and to the report that tells of it.

Property: any reply has an outcome, whose status the first digit decides and whose reason is a class that is explained;
LIMITS offer numbers, or nothing. Whatever was said, the report is mail: lines of CR LF, none longer than 998 octets, no
lone dot, ASCII where the sender's address is; and nothing in it is a field or a part that we have not written.

Input: what the server says as a reply, read as the client reads it; then, behind an empty line, the original message.
"""

from __future__ import annotations

import email
import email.policy
import re

from outgate.message import report
from outgate.message.report import Original, Reported
from outgate.model.flow import JobRecipient, Status
from outgate.relay import bundles, outcome
from outgate.smtp.answers import ClientLimits, ReplyReader, extensions_of
from outgate.smtp.errors import RemoteProtocolError

SEEDS = (
    b"550 5.1.1 <b@y.test>: user unknown\r\n\r\nSubject: hi\r\n\r\ntext\r\n",
    b"452-4.5.3 too many\r\n452 4.5.3 recipients\r\n\r\nMessage-ID: <1@x.test>\r\n\r\n..\r\n",
    b"250-peer\r\n250-LIMITS RCPTMAX=5 MAILMAX=x\r\n250 limits rcptdomainmax=1\r\n\r\n\r\n",
    b"554 5.7.1 spam \xc3\xa9\xe2\x80\xa8 see http://x.test/\r\n\r\nSubject: \xc3\xa9\r\nX: "
    + b"y" * 1200
    + b"\r\n\r\n",
    b"421 --=_AQ\r\n\r\n--=_AR\r\nContent-Type: text/html\r\n\r\n<b>\r\n",
    b"550 " + b"word " * 300 + b"\r\n\r\nFrom: a@x.test\r\n",
    b"550 " + b"." * 600 + b"\r\n\r\n.\r\n",
)
ONE = JobRecipient(1, "b@y.test", "y.test", 0)
_FIELDS = {"reporting-mta", "original-envelope-id", "arrival-date", "original-recipient", "final-recipient", "action"}
_FIELDS |= {"status", "remote-mta", "diagnostic-code", "last-attempt-date", "will-retry-until"}
_FIELDS |= {"x-outgate-queue-id", "final-log-id"}


def one_input(data: bytes) -> None:
    said, _, original = data.partition(b"\r\n\r\n")
    reader = ReplyReader(ClientLimits())
    reader.feed(said + b"\r\n")
    try:
        reply = reader.next(True)
    except RemoteProtocolError:
        return
    if reply is None:
        return
    offer = bundles.offered(extensions_of(reply).get("LIMITS", ""))
    assert all(0 <= number < 10**6 for number in (offer.recipients, offer.domains, offer.mails))
    found = outcome.of_reply(ONE, reply)
    assert found.status is {2: Status.DELIVERED, 5: Status.BOUNCED}.get(reply.code // 100, Status.DEFERRED)
    assert outcome.explained(found.reason).word == found.reason and len(found.text) <= 1000
    content = re.sub(rb"(?m)^\.(?!\.)", b"..", original.replace(b"\r", b"").replace(b"\n", b"\r\n") + b"\r\n")
    if b"--=_AQ" in content:  # nobody knew the number of the report when the original was written
        return
    for whole, mailbox in ((True, "b@y.test"), (False, "\u00fc@y.test")):
        _report(found.text, content, whole, mailbox)


def _report(text: str, content: bytes, whole: bool, mailbox: str) -> None:
    told = Reported(
        mailbox, "rfc822;b+2Bx@y.test", "failed", "5.0.0", "mx.y.test", f"550 {text}", "", "m", "a", 0.0, None
    )  # fmt: skip
    original = Original("AX", "env", 0.0, b"Received: x\r\n", content, not mailbox.isascii(), whole)
    made = report.build(
        queue_id="AQ", domain="x.test", host_name="out.x.test", to="a@x.test", at=0.0, original=original, told=[told]
    )
    assert b"\n" not in made.replace(b"\r\n", b"") and b"\r" not in made.replace(b"\r\n", b"")
    assert made.endswith(b"\r\n") and max(map(len, made.split(b"\r\n"))) <= 998
    assert not re.search(rb"(?m)^\.(?!\.)", made), "a lone dot, or a line that is not stuffed"
    parsed = email.message_from_bytes(made, policy=email.policy.compat32)
    assert parsed.get_content_type() == "multipart/report" and parsed["From"].count("<") <= 1
    parts = parsed.get_payload()
    assert 2 <= len(parts) <= 3 and parts[1].get_content_type() == "message/delivery-status"
    for block in parts[1].get_payload():
        assert {name.lower() for name in block.keys()} <= _FIELDS, block.keys()  # noqa: SIM118


if __name__ == "__main__":
    from _run import run

    run(__file__)
