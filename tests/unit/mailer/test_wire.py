"""What of a message goes on the wire, and to whom."""

from email.message import EmailMessage

import pytest

from outgate.mailer.wire import MessageError, envelope, prepare, serialise


def mail(body: str = "text\n", **fields: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in ({"From": "Shop <shop@shop.test>", "To": "a@x.test"} | fields).items():
        if value:
            message[name] = value
    message.set_content(body)
    return message


def test_envelope() -> None:
    message = mail(To="A <a@x.test>, b@x.test", Cc="a@x.test, c@x.test", Bcc="d@x.test", Sender="s@shop.test")
    found = envelope(message)
    assert (found.sender, found.recipients) == ("s@shop.test", ("a@x.test", "b@x.test", "c@x.test", "d@x.test"))
    assert not found.utf8


@pytest.mark.parametrize("fields", [{"To": ""}, {"To": "undisclosed-recipients:;"}, {"To": "nobody"}, {"From": "x"}])
def test_no_envelope(fields: dict[str, str]) -> None:
    with pytest.raises(MessageError):
        envelope(mail(**fields))


def test_bcc_never_leaves_and_the_message_is_not_changed() -> None:
    message = mail(Bcc="secret@x.test")
    before = list(message.items())
    ready = prepare(message, "")
    data = serialise(ready, utf8=False, eight_bit=True)
    assert b"secret" not in data and b"bcc" not in data.lower()
    assert list(message.items()) == before
    assert ready["Date"] and ready["Message-ID"].endswith("@shop.test>")


def test_from_of_the_configuration() -> None:
    assert prepare(mail(From=""), "noreply@wknd.site")["From"] == "noreply@wknd.site"
    assert prepare(mail(), "noreply@wknd.site")["From"] == "Shop <shop@shop.test>"
    with pytest.raises(MessageError, match="From address required"):
        prepare(mail(From=""), "")


def test_lines_and_dots() -> None:
    data = serialise(mail(".one\n..two\n.\nend"), utf8=False, eight_bit=True)
    assert data.endswith(b"\r\n\r\n..one\r\n...two\r\n..\r\nend\r\n")
    assert data.count(b"\n") == data.count(b"\r\n")


def test_eight_bit_only_where_allowed() -> None:
    message = mail("grüße\n")
    message["Subject"] = "größer"
    assert not serialise(message, utf8=False, eight_bit=True).isascii()
    plain = serialise(message, utf8=False, eight_bit=False)
    assert plain.isascii() and b"=?utf-8?" in plain


def test_addresses_beyond_ascii_need_smtputf8() -> None:
    message = mail(To="jürgen@x.test")
    assert envelope(message).utf8
    assert "jürgen@x.test".encode() in serialise(message, utf8=True, eight_bit=True)
