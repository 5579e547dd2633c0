"""Python's `smtplib`: sending, and what it makes of our refusals."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.policy import SMTP

import pytest

from support.clients import all_queued, arrived, check_trail, queued_as
from support.running import Running

pytestmark = pytest.mark.scenario
FROM = "orders@shop.test"
TO = "you@customer.test"
HOUR = 3600


def letter(subject: str, to: str = TO) -> EmailMessage:
    message = EmailMessage()
    message["From"] = f"Shop <{FROM}>"
    message["To"] = to
    message["Subject"] = subject
    message.set_content("Thank you for your order.\n.\n..two dots\n")
    return message


@contextmanager
def session(running: Running, listener: str = "submission", *, login: bool = True) -> Iterator[smtplib.SMTP]:
    context = ssl.create_default_context(cafile=running.dev["ca_file"])
    host, port = running.address(listener)
    if listener == "submission":
        client: smtplib.SMTP = smtplib.SMTP(host, port, timeout=60)
        client.starttls(context=context)
    else:
        client = smtplib.SMTP_SSL(host, port, timeout=60, context=context)
    with client:
        if login:
            client.login(running.dev["smtp_user"], running.dev["smtp_password"])
        yield client


@contextmanager
def answers(client: smtplib.SMTP) -> Iterator[list[str]]:
    """Collect what we answer to each message: `sendmail` keeps that to itself."""
    told: list[str] = []
    data: Callable[..., tuple[int, bytes]] = client.data

    def listening(message: str | bytes) -> tuple[int, bytes]:
        code, text = data(message)
        told.append(f"{code} {text.decode()}")
        return code, text

    client.data = listening  # type: ignore[method-assign]
    yield told
    client.data = data  # type: ignore[method-assign]


@pytest.mark.parametrize("listener", ["submission", "submissions"])
def test_sends(running: Running, listener: str) -> None:
    with session(running, listener) as client:
        client.mail(f"bounces@{running.dev['domain']}")
        client.rcpt(TO)
        code, text = client.data(letter(f"smtplib {listener}").as_bytes(policy=SMTP))
    assert code == 250
    told = check_trail(running, queued_as(f"{code} {text.decode()}"))
    assert listener in told and "MAIL FROM:<bounces@" in told


def test_many_messages_pipelined_over_one_session(running: Running) -> None:
    """Each write has one message's content and the next one's envelope; the replies are read behind it."""
    envelope = f"MAIL FROM:<{FROM}>\r\nRCPT TO:<{TO}>\r\nDATA\r\n".encode()
    said: list[str] = []
    with session(running) as client:
        client.ehlo()
        assert client.has_extn("pipelining")
        client.send(envelope)
        for number in range(30):
            replies = [client.getreply()[0] for _ in range(3)]
            assert replies == [250, 250, 354], (number, replies)
            content = smtplib._quote_periods(letter(f"number {number}").as_bytes(policy=SMTP))  # type: ignore[attr-defined]
            client.send(content + b".\r\n" + (envelope if number < 29 else b"QUIT\r\n"))
            code, text = client.getreply()
            said.append(f"{code} {text.decode()}")
        assert client.getreply()[0] == 221
    queue_ids = all_queued("\n".join(said))
    assert len(set(queue_ids)) == 30
    sources = {running.api.call("GET", running.api.messages(queue_id))["client"]["port"] for queue_id in queue_ids}
    assert len(sources) == 1
    for number in (0, 29):
        item, _ = arrived(running, queue_ids[number])
        assert item["subject"] == f"number {number}"


def test_addresses_in_utf8(running: Running) -> None:
    message = letter("Grüße aus 東京", "Jörg <jörg@bücher.test>")
    with session(running) as client, answers(client) as told:
        assert client.send_message(message) == {}
    item, raw = arrived(running, queued_as(told[0]))
    assert item["envelope"]["rcpt_to"][0].partition("@")[0] == "jörg"
    assert item["subject"] == "Grüße aus 東京"
    assert "To: Jörg <jörg@bücher.test>\r\n".encode() in raw
    assert b" with UTF8SMTPSA id " in raw


def test_a_quoted_local_part(running: Running) -> None:
    with session(running) as client, answers(client) as told:
        client.sendmail(FROM, ['"john doe"@customer.test', r'"a\"b@c"@customer.test'], letter("quoted").as_string())
    item, _ = arrived(running, queued_as(told[0]))
    assert item["envelope"]["rcpt_to"] == ['"john doe"@customer.test', r'"a\"b@c"@customer.test']


def test_fifty_recipients_and_not_one_more(running: Running) -> None:
    everyone = [f"you{number}@customer.test" for number in range(51)]
    with session(running) as client, answers(client) as told:
        assert client.sendmail(FROM, everyone[:50], letter("to fifty").as_string()) == {}
        refused = client.sendmail(FROM, everyone, letter("to fifty-one").as_string())
        assert refused == {"you50@customer.test": (452, b"4.5.3 Too many recipients")}
        assert client.sendmail(FROM, everyone[50:], letter("to the last").as_string()) == {}
    for answer, count in zip(told, (50, 50, 1), strict=True):
        found = running.settled(queued_as(answer))
        assert [each["status"] for each in found["recipients"]] == ["delivered"] * count


def test_some_recipients_are_refused_and_the_others_are_not(running: Running) -> None:
    with session(running) as client, answers(client) as told:
        refused = client.sendmail(FROM, [TO, "root@[10.0.0.1]", "no-domain"], letter("partly").as_string())
        assert {address: code for address, (code, _) in refused.items()} == {"root@[10.0.0.1]": 553, "no-domain": 501}
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail(FROM, ["root@[10.0.0.1]"], letter("to nobody").as_string())
        client.sendmail(FROM, [TO], letter("the session goes on").as_string())
    item, _ = arrived(running, queued_as(told[0]))
    assert item["envelope"]["rcpt_to"] == [TO]
    arrived(running, queued_as(told[1]))


def test_octets_with_lone_line_feeds_are_refused(running: Running) -> None:
    """`as_bytes()` without a policy has them, and `sendmail` sends octets as they are: a common mistake."""
    with session(running) as client:
        with pytest.raises(smtplib.SMTPDataError) as refusal:
            client.sendmail(FROM, [TO], letter("lone line feeds").as_bytes())
        assert refusal.value.args == (550, b"5.6.11 A lone CR or LF is not allowed in a message")
        assert client.noop()[0] == 250


def test_refusals_keep_their_words(running: Running) -> None:
    with session(running, login=False) as client:
        with pytest.raises(smtplib.SMTPSenderRefused) as sender:
            client.sendmail(FROM, [TO], letter("no login").as_string())
        assert sender.value.smtp_code == 530
        with pytest.raises(smtplib.SMTPAuthenticationError) as login:
            client.login(running.dev["smtp_user"], "wrong")
        assert login.value.smtp_code == 535
    with session(running) as client:
        client.ehlo()
        most = int(client.esmtp_features["size"])
        with pytest.raises(smtplib.SMTPSenderRefused) as sender:  # said before a single octet of it
            client.sendmail(FROM, [TO], "x" * (most + 1))
        assert sender.value.smtp_code == 552
        with pytest.raises(smtplib.SMTPDataError) as content:
            client.sendmail(FROM, [TO], letter("whose?").as_string().replace(FROM, "ceo@elsewhere.test"))
        assert content.value.smtp_code == 550
        with_file = letter("a file")
        with_file.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename="bill.pdf")
        with pytest.raises(smtplib.SMTPDataError) as content:
            client.send_message(with_file)
        assert content.value.args == (554, b"5.7.1 Attachments are not allowed")


def test_while_the_domain_is_suspended_mail_stays_with_the_client(running: Running) -> None:
    """A 450: whoever has a queue tries again, and whoever has none is told which check fails."""
    api, zone = running.api, f"zone/{running.dev['domain']}/TXT"
    records = api.call("GET", api.configurations(running.dev["smtp_config_id"]))["config"]["spf"]
    api.call("PUT", api.sandbox(zone), {"values": [], "ttl": 5})
    for hours in (6, 72):
        api.call("POST", api.sandbox("clock"), {"advance_s": hours * HOUR})
    with session(running) as client, answers(client) as told:
        with pytest.raises(smtplib.SMTPDataError) as content:
            client.send_message(letter("suspended"))
        assert content.value.args == (450, b"4.7.1 Sending for the domain is suspended: its SPF fails")
        api.call("PUT", api.sandbox(zone), {"values": [records["txt_value"]], "ttl": 5})
        api.call("POST", api.sandbox("clock"), {"advance_s": HOUR})
        client.send_message(letter("restored"))  # in the same session
    arrived(running, queued_as(told[-1]))
    assert "suspended" not in {item["subject"] for item in running.inbox()}
