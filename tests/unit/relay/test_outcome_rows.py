"""Each row of the table of outcomes, by a reply that only this row explains: what the registry says of a code, and what
servers write.

The texts are what an operator would read; a row without one fails, and so does one that is changed or taken out.
"""

from __future__ import annotations

import pytest

from outgate.relay import outcome
from outgate.smtp.reply import Reply

# The registry of enhanced codes (IANA), RFC 3463, 7372, 7504, 7505, 8689; the last line is a provider's own list.
BY_CODE = """
    1.1 bad-mailbox    bad destination mailbox address
    1.2 bad-domain     bad destination system address
    1.3 bad-mailbox    bad destination mailbox address syntax
    1.4 bad-mailbox    destination mailbox address ambiguous
    1.6 bad-mailbox    destination mailbox has moved
    1.7 bad-sender     bad sender's mailbox address syntax
    1.8 bad-sender     bad sender's system address
    1.10 no-mail       recipient address has null MX
    2.2 full           mailbox full
    2.3 too-large      message length exceeds administrative limit
    3.1 server-error   mail system full
    3.3 protocol       system not capable of selected features
    3.4 too-large      message too big for system
    3.5 server-error   system incorrectly configured
    4.3 dns            directory server failure
    4.4 dns            unable to route
    4.6 loop           routing loop detected
    4.7 expired        delivery time expired
    5.3 rate           too many recipients
    6.7 smtputf8       non-ASCII addresses not permitted for that sender or recipient
    6.9 smtputf8       UTF-8 header message cannot be transferred
    7.8 login          authentication credentials invalid
    7.10 tls           encryption needed
    7.11 tls           encryption required for requested authentication mechanism
    7.12 login         a password transition is needed
    7.13 login         user account disabled
    7.14 login         trust relationship required
    7.17 bad-mailbox   mailbox owner has changed
    7.18 bad-mailbox   domain owner has changed
    7.20 auth          no passing DKIM signature found
    7.21 auth          no acceptable DKIM signature found
    7.22 auth          no valid author-matched DKIM signature found
    7.23 auth          SPF validation failed
    7.24 auth          SPF validation error
    7.25 auth          reverse DNS validation failed
    7.26 auth          multiple authentication checks failed
    7.27 bad-sender    sender address has null MX
    7.28 rate          mail flood detected
    7.29 auth          ARC validation failure
    7.30 tls           REQUIRETLS support required
    7.508 rate         exceeded its limit
    7.509 auth         does not pass verification
    7.515 auth         does not meet the required level
    7.650 rate         exceeded its pace
    7.708 reputation   not accepting traffic from this address
"""
OPEN = (
    (550, "5.1.0", "bad-mailbox"), (550, "5.2.1", "inactive"), (450, "4.4.5", "network"), (550, "5.7.0", "policy"),
    (550, "5.7.1", "policy"), (550, "5.7.5", "tls"), (550, "5.7.6", "tls"), (550, "5.7.9", "login"),
    (450, "4.4.99", "network"), (550, "5.5.99", "protocol"), (550, "5.6.99", "content"), (550, "5.7.99", "policy"),
    (421, "", "unavailable"), (450, "", "mailbox-busy"), (451, "", "server-error"), (452, "", "full"), (454, "", "tls"),
    (500, "", "protocol"), (501, "", "protocol"), (502, "", "protocol"), (503, "", "protocol"), (504, "", "protocol"),
    (555, "", "protocol"), (521, "", "no-mail"), (556, "", "no-mail"), (530, "", "login"), (534, "", "login"),
    (535, "", "login"), (538, "", "tls"), (550, "", "bad-mailbox"), (551, "", "bad-mailbox"), (552, "", "full"),
    (553, "", "bad-mailbox"), (554, "", "policy"),
    (421, "4.7.0", "rate"), (450, "4.2.0", "mailbox-busy"), (451, "4.7.500", "rate"), (454, "4.7.0", "tls"),
    (530, "5.7.0", "login"),
)  # fmt: skip
SAID = {
    "loop": "too many hops|maximum hop count exceeded|mail loop detected|mail for x.test loops back to myself",
    "greylisted": "greylisted, come again|graylisted for 5 minutes|you are on the grey list|you are on the gray list",
    "rate": "rate limit reached|ratelimited|too many connections|an unusual rate of mail|throttled|sending limit reached"
    "|unexpected volume from you|server busy|the user is receiving mail at a rate that is high"
    "|the user is receiving mail too quickly",
    "tls": "must issue a STARTTLS command first|TLS required|we require TLS|this server requires TLS|encryption required"
    "|TLS is required",
    "auth": "DMARC policy says no|SPF fail|no DKIM|unauthenticated mail|no reverse DNS|rDNS missing|no PTR record"
    "|cannot find your hostname",
    "login": "authentication required|client was not authenticated|authentication failed|bad credentials",
    "full": "mailbox full|mailbox is full|user is over quota|user is overquota|quota exceeded|exceeded storage"
    "|storage allocation used up|out of storage",
    "bad-sender": "sender address rejected|sender domain unknown|domain of sender not found|sender rejected"
    "|sender verify failed",
    "inactive": "account disabled|account is disabled|mailbox disabled|mailbox is disabled|account inactive"
    "|account has been disabled|inactive mailbox|mailbox is inactive",
    "bad-mailbox": "user unknown|unknown user|no such user|no such mailbox|no such recipient|user not found"
    "|recipient not found|mailbox not found|this does not exist|this doesn't exist|invalid recipient|unknown recipient"
    "|invalid mailbox|recipient address rejected: access denied",
    "too-large": "message size too high|message too large|message too big|size limit reached|maximum size is 1 MB"
    "|message is too large",
    "reputation": "on a blocklist|on our block list|on a blacklist|on our black list|on a denylist|spam source blocked using x.test"
    "|see spamhaus.test|see spamcop.test|see barracudacentral.test|RBL hit|DNSBL hit|poor reputation|you are banned"
    "|listed at x.test|listed in x.test|you are blocked|your IP is odd",
    "content": "this is spam|virus found|malware found|phishing|unsolicited mail|bad content|junk mail|bad attachment",
    "policy": "relay denied|against policy|access denied|prohibited|not allowed|not permitted|not authorized",
}


def rows() -> list[tuple[str, str, str]]:
    return [tuple(line.split(None, 2)) for line in BY_CODE.strip().splitlines()]  # type: ignore[misc]


@pytest.mark.parametrize(("detail", "reason", "registered"), rows())
def test_what_a_code_says_for_sure(detail: str, reason: str, registered: str) -> None:
    # Whatever the words and the reply's own code hint at.
    for text in (registered, "", "spam and a virus, by policy"):
        assert outcome.reason(Reply(550, f"5.{detail}", (text,))) == reason
        assert outcome.reason(Reply(421, f"4.{detail}", (text,))) == reason


@pytest.mark.parametrize(("code", "enhanced", "reason"), OPEN)
def test_what_a_code_hints_at_where_no_word_does(code: int, enhanced: str, reason: str) -> None:
    assert outcome.reason(Reply(code, enhanced, ("x",))) == reason
    assert outcome.reason(Reply(code, enhanced, ("too many hops",))) == "loop"


@pytest.mark.parametrize(("reason", "text"), [(word, text) for word, said in SAID.items() for text in said.split("|")])
def test_what_words_say(reason: str, text: str) -> None:
    # 555 alone would be "protocol", 5.7.1 "policy": where that is the class too, a code that says nothing.
    assert outcome.reason(Reply(555, "", (text,))) == reason
    for around in (f"<b@x.test>: {text}", f"{text.upper()}!", f"[192.0.2.1]\u2003\u201c{text}\u201d \U0001f6ab"):
        assert outcome.reason(Reply(555, "", (around,))) == reason
    assert outcome.reason(Reply(555, "", ("x" + text.replace(" ", "x"),))) == "protocol"  # no word begins there


def test_no_row_is_without_its_reply() -> None:
    assert {detail: reason for detail, reason, _ in rows()} == outcome.EXACT
    said = {(code, enhanced[2:]) for code, enhanced, _ in OPEN}
    assert set(outcome.TOGETHER) | {(code, "") for code in outcome.BASIC} <= said
    assert set(outcome.HINT) <= {detail for _, detail in said}
    assert set(outcome.SUBJECT) == {detail.partition(".")[0] for _, detail in said if detail.endswith(".99")}


def test_no_phrase_can_be_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = outcome.WORDING
    for number, (reason, phrases) in enumerate(whole):
        for phrase in phrases:
            row = (reason, tuple(other for other in phrases if other != phrase))
            monkeypatch.setattr(outcome, "WORDING", (*whole[:number], row, *whole[number + 1 :]))
            found = [outcome.reason(Reply(555, "", (text,))) == reason for text in SAID[reason].split("|")]
            assert not all(found), f"no reply shows that {phrase!r} means {reason}"
