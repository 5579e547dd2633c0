"""What of a message goes on the wire, and to whom."""

from __future__ import annotations

import email
from email import policy
from email.headerregistry import Address, Group
from email.message import EmailMessage, Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest

from outgate.mailer.sending import writing
from outgate.mailer.sending.wire import Letter, MessageError, letter

ALL = {"8BITMIME": "", "SMTPUTF8": "", "SIZE": "1000000"}


def mail(body: str = "text\n", **fields: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in ({"From": "Shop <shop@shop.test>", "To": "a@x.test"} | fields).items():
        if value:
            message[name] = value
    message.set_content(body)
    return message


def wire(message: Message | bytes, extensions: dict[str, str] = ALL, **options: object) -> bytes:
    return letter(message, "", **options).wire(extensions)


def read(data: bytes) -> EmailMessage:
    return email.message_from_bytes(data.replace(b"\r\n..", b"\r\n."), policy=policy.default)


class TestEnvelope:
    def test_fields_say_who(self) -> None:
        message = mail(To="A <a@x.test>, b@x.test", Cc="a@x.test, c@x.test", Bcc="d@x.test", Sender="s@shop.test")
        found = letter(message, "")
        assert (found.sender, found.recipients) == ("s@shop.test", ("a@x.test", "b@x.test", "c@x.test", "d@x.test"))
        assert not found.utf8

    @pytest.mark.parametrize(
        "fields",
        [
            {"To": ""},
            {"To": "undisclosed-recipients:;"},
            {"To": "nobody"},
            {"From": "x"},
            {"From": "a@b..c"},
            {"To": "a\udcff@x.test"},
            {"Cc": "a@x_y.test"},
        ],
    )
    def test_none(self, fields: dict[str, str]) -> None:
        with pytest.raises(MessageError):
            letter(mail(**fields), "")

    def test_groups(self) -> None:
        message = mail(To="")
        message["To"] = Group("Team, all", (Address("Ann", addr_spec="ann@x.test"), Address(addr_spec="bob@x.test")))
        assert letter(message, "").recipients == ("ann@x.test", "bob@x.test")
        assert b'To: "Team, all": Ann <ann@x.test>, bob@x.test;\r\n' in wire(message)

    def test_as_given(self) -> None:
        found = letter(mail(To=""), "", sender="", recipients=["z@x.test", "z@x.test"])
        assert (found.sender, found.recipients) == ("", ("z@x.test",))
        assert letter(mail(), "", recipients="one@x.test").recipients == ("one@x.test",)
        for wrong in ({"sender": "x"}, {"recipients": ["x"]}, {"recipients": []}, {"recipients": [""]}):
            with pytest.raises(MessageError):
                letter(mail(), "", **wrong)
        with pytest.raises(MessageError, match="address in recipients"):
            letter(mail(), "", recipients=["a@x.test\r\nRCPT TO:<b@x.test>"])

    def test_a_domain_beyond_ascii_needs_no_extension(self) -> None:
        message = mail(To="Jörg <anna@bücher.example>", From="shop@größe.example")
        found = letter(message, "")
        assert found.recipients == ("anna@xn--bcher-kva.example",) and not found.utf8
        data = wire(message, {})
        assert data.isascii() and read(data)["To"].addresses[0].addr_spec == "anna@xn--bcher-kva.example"
        assert read(data)["To"].addresses[0].display_name == "Jörg"

    def test_a_name_beyond_ascii_needs_smtputf8(self) -> None:
        found = letter(mail(To="jürgen@x.test"), "")
        assert found.utf8 and "jürgen@x.test".encode() in found.wire(ALL)
        with pytest.raises(MessageError, match="does not offer SMTPUTF8, which jürgen"):
            found.wire({"8BITMIME": ""})
        assert letter(mail(**{"Reply-To": "jürgen@x.test"}), "").utf8


class TestFields:
    def test_bcc_never_leaves_and_the_message_is_not_changed(self) -> None:
        message = mail(Bcc="secret@x.test")
        message.add_alternative("<p>text</p>", subtype="html")
        message["Resent-Bcc"] = "secret@x.test"
        message["Return-Path"] = "<x@x.test>"
        message.add_attachment(b"PDF", maintype="application", subtype="pdf")
        before, text = list(message.items()), message.as_string
        with pytest.raises(MessageError, match="Resent-Bcc field: say in recipients"):
            wire(message)
        data = wire(message, recipients=["a@x.test"])
        assert b"secret" not in data and b"bcc" not in data.lower() and b"Return-Path" not in data
        assert list(message.items()) == before and text
        assert {part.get_boundary() for part in message.walk()} == {None}, "another thread may write it too"
        assert [part.get_content_type() for part in read(data).iter_attachments()] == ["application/pdf"]

    def test_from_of_the_configuration(self) -> None:
        data = letter(mail(From=""), "Wknd Größe <noreply@wknd.site>").wire({})
        assert read(data)["From"] == "Wknd Größe <noreply@wknd.site>" and data.count(b"From:") == 1
        assert read(wire(mail()))["From"] == "Shop <shop@shop.test>"
        with pytest.raises(MessageError, match="From address required"):
            letter(mail(From=""), "")
        with pytest.raises(MessageError, match=r"from\.address"):
            letter(mail(From=""), "no address")

    def test_date_and_id_are_added_once(self) -> None:
        found = read(wire(mail()))
        assert found["Date"].datetime is not None and found["Message-ID"].endswith("@shop.test>")
        given = mail(Date="Thu, 26 Nov 2026 12:00:00 +0000", **{"Message-ID": "<one@x.test>"})
        assert wire(given).count(b"Date:") == 1 and read(wire(given))["Message-ID"] == "<one@x.test>"

    def test_commas_between_encoded_names_stay_commas(self) -> None:
        people = [f"Jürgen Groß-Müller von und zu {number}" for number in range(20)]
        message = mail(To="")
        message["To"] = tuple(Address(name, addr_spec=f"p{number}@x.test") for number, name in enumerate(people))
        message["Cc"] = Address('Müller, "Hans"; <x@y>', addr_spec="h@x.test")
        message["Reply-To"] = Address("Smith, John (no comment)", addr_spec="j@x.test")
        data = wire(message, {})
        found = read(data)
        assert [(each.display_name, each.addr_spec) for each in found["To"].addresses] == [
            (name, f"p{number}@x.test") for number, name in enumerate(people)
        ]
        assert [each.display_name for each in found["Cc"].addresses] == ['Müller, "Hans"; <x@y>']
        assert found["Reply-To"].addresses[0].display_name == "Smith, John (no comment)"
        assert max(map(len, data.splitlines())) <= 120

    @pytest.mark.parametrize(
        ("name", "value"),
        [("Subject", "a\r\nBcc: x@x.test"), ("X-A", "a\nb"), ("To", "a@x.test\nBcc: b@x.test"), ("X", "a\r\n\r\nb")],
    )
    def test_no_value_begins_a_field(self, name: str, value: str) -> None:
        message = MIMEText("body")
        message["From"] = "a@x.test"
        del message[name]
        message[name] = value
        if name != "To":
            message["To"] = "b@x.test"
        with pytest.raises(MessageError, match="line end"):
            wire(message)
        whole = MIMEMultipart()
        whole["From"] = whole["To"] = "a@x.test"
        whole.attach(message)
        with pytest.raises(MessageError, match="line end"):
            wire(whole)

    @pytest.mark.parametrize("name", ["Subject", "References", "Message-ID", "X-A"])
    @pytest.mark.parametrize(
        "word", ["=?utf-8?q?a=0D=0AX-Evil:_y?=", "=?utf-8?b?DQpYLUV2aWw6IHk=?=", "=?utf-8?q?=0A.?="]
    )
    def test_no_word_that_is_decoded_begins_a_field(self, name: str, word: str) -> None:
        """The `email` package writes what it has decoded: a mail that is sent on may hold such words."""
        for tail in ("", "é", "w" * 80):
            raw = f"From: a@x.test\r\nTo: a@x.test\r\n{name}: {word}{tail}\r\n\r\nbody\r\n".encode()
            for rules in (policy.default, policy.compat32):
                message = email.message_from_bytes(raw, policy=rules)
                try:
                    data = wire(message)
                except MessageError as error:
                    assert "line end" in str(error)
                    continue
                self.assert_fields(data, name)

    @pytest.mark.parametrize("sign", "\v\f\x1c\x1d\x1e\x85\u2028\u2029")
    def test_no_sign_that_others_take_for_a_line_end_begins_a_field(self, sign: str) -> None:
        for value in (f"a{sign}X-Evil: y", f"a{sign}\t", sign, f"{'w ' * 60}{sign}X-Evil: y"):
            message = MIMEText("body")
            message["From"] = message["To"] = "a@x.test"
            message["X-A"] = value
            self.assert_fields(wire(message), "X-A")
            raw = f"From: a@x.test\r\nTo: a@x.test\r\nX-A: {value}\r\n\r\nbody\r\n".encode()
            for rules in (policy.default, policy.compat32):
                self.assert_fields(wire(email.message_from_bytes(raw, policy=rules)), "X-A")

    def assert_fields(self, data: bytes, name: str) -> None:
        head = data.partition(b"\r\n\r\n")[0].decode()
        names = [line.partition(":")[0] for line in head.split("\r\n") if line[:1] not in (" ", "\t")]
        assert not {*names} - {
            "From",
            "To",
            "Date",
            "Message-ID",
            "Content-Type",
            "MIME-Version",
            "Content-Transfer-Encoding",
            name,
        }
        assert all(line.strip() for line in head.split("\r\n"))

    def test_an_id_that_cannot_be_read(self) -> None:
        """As it came from elsewhere: it is there, so it stays."""
        raw = b"From: a@x.test\r\nTo: a@x.test\r\nMessage-ID: <\r\nDate: <\r\n\r\nbody\r\n"
        data = wire(email.message_from_bytes(raw, policy=policy.default))
        assert data == raw

    def test_no_name_begins_a_field(self) -> None:
        for name in ("X\r\nBcc", "X: y", "X y", "Ü", ""):
            message = mail()
            message[name] = "value"
            with pytest.raises(MessageError, match="whose name is none"):
                wire(message)

    def test_half_a_surrogate_pair(self) -> None:
        for name, value in (("Subject", "a\ud800"), ("X-Note", "\ud800" * 60), ("Reply-To", "J\ud800 <a@x.test>")):
            message = MIMEText("body")
            message["From"] = message["To"] = "a@x.test"
            message[name] = value
            with pytest.raises(MessageError, match="cannot be"):
                wire(message)
        whole = mail()
        whole.set_payload("a\ud800")
        with pytest.raises(MessageError, match="cannot be written"):
            wire(whole)

    @pytest.mark.parametrize("name", ["Subject", "X-Note", "Keywords", "Reply-To"])
    def test_octets_that_are_no_text(self, name: str) -> None:
        """As arguments and file names have them. What came from elsewhere goes on as it came."""
        message = mail()
        message[name] = "gr\udcfcn <a@x.test>"
        with pytest.raises(MessageError, match=f"the field {name} has octets that are no text"):
            wire(message)
        message.replace_header(name, "gr\ufffdn <a@x.test>")
        wire(message)
        raw = f"From: a@x.test\r\nTo: a@x.test\r\n{name}: gr\xfcn <a@x.test>\r\n\r\nbody\r\n".encode("latin-1")
        message = email.message_from_bytes(raw, policy=policy.default)
        wire(message)

    @pytest.mark.parametrize("made", [EmailMessage, lambda: MIMEText("body")], ids=["new", "old"])
    def test_a_word_too_long_for_a_line_stays_one(self, made) -> None:
        """Ids and addresses are not decoded: an encoded one is nobody's, and no click on it unsubscribes."""
        one, other = f"<{'a1B2' * 24}@x.test>", f"<https://x.test/?token={'a1B2' * 40}>"
        values = {"In-Reply-To": one, "References": f"<s@x.test> {one}\t{one}", "List-Unsubscribe": f"{other}, {one}"}
        values |= {"Content-ID": one, "Message-ID": one, "Subject": f"see  {other}  =?x"}
        message = made()
        for name, value in ({"From": "a@x.test", "To": "a@x.test"} | values).items():
            message[name] = value
        head = wire(message).partition(b"\r\n\r\n")[0].decode().replace("\r\n ", " ").replace("\r\n\t", "\t")
        assert {f"{name}: {value}" for name, value in values.items()} <= set(head.split("\r\n"))
        message.replace_header("Subject", "x" * 2000)
        assert read(wire(message))["Subject"] == "x" * 2000

    @pytest.mark.parametrize("made", [EmailMessage, lambda: MIMEText("body")], ids=["new", "old"])
    def test_only_words_that_need_it_are_encoded(self, made) -> None:
        """The id of a list and the address of a receipt are read as they stand."""
        values = {
            "List-Id": ("Größe für alle ", "<list.x.test>"),
            "List-Unsubscribe": ("(Größe)  ", "<mailto:leave@x.test>, <https://x.test/leave>"),
            "Disposition-Notification-To": ("Jörg ", "<joerg@x.test>"),
            "X-A": ("ö " * 90, "<x.test>"),
        }
        message = made()
        for name, value in {"From": ("a@x.test",), "To": ("a@x.test",), **values}.items():
            message[name] = "".join(value)
        data = wire(message)
        read_again = read(data)
        lines = data.partition(b"\r\n\r\n")[0].decode().replace("\r\n ", " ").split("\r\n")
        for name, (text, plain) in values.items():
            assert read_again[name] == text + plain
            (line,) = [line for line in lines if line.startswith(f"{name}: ")]
            assert line.isascii() and line.endswith(f" {plain}")

    @pytest.mark.parametrize("value", ["a" + " " * 2000 + "b", ("a" + " " * 1000) * 3, " " * 500_000])
    def test_spaces_are_as_many_as_they_were(self, value: str) -> None:
        message = MIMEText("body")
        message["Subject"] = value
        data = writing.octets(message, (), utf8=False, eight_bit=True)
        assert str(read(data)["Subject"]).strip(" ") == value.strip(" ")
        assert max(map(len, data.split(b"\r\n"))) <= 998

    def test_what_is_no_encoded_word_stays_none(self) -> None:
        """To servers with SMTPUTF8 and to others."""
        message = MIMEText("body")
        message["Subject"] = "=?utf-8?q?x?= Größe =?utf-8?q?x?="
        for utf8 in (False, True):
            assert read(writing.octets(message, (), utf8=utf8, eight_bit=True))["Subject"] == message["Subject"]

    def test_what_was_folded_elsewhere_stays_so(self) -> None:
        raw = f"From: a@x.test\r\nTo: a@x.test\r\nDate: x\r\nMessage-ID: <x@x.test>\r\nX-A: =?utf-8?q?{'x' * 90}?=\r\n\tb\r\n"
        for rules in (policy.default, policy.compat32):
            assert wire(email.message_from_string(f"{raw}\r\n", policy=rules)) == f"{raw}\r\n".encode()

    def test_what_other_packages_make(self) -> None:
        message = MIMEMultipart("alternative")
        message["From"] = "Jürgen <shop@shop.test>"
        message["To"] = "Ännchen <a@x.test>, b@x.test"
        message["Subject"] = "größer " * 20
        message.attach(MIMEText("grüße", "plain", "utf-8"))
        message.attach(MIMEText("<p>grüße</p>", "html", "utf-8"))
        found = read(wire(message, {}))
        assert [str(each) for each in found["To"].addresses] == ["Ännchen <a@x.test>", "b@x.test"]
        assert found["From"].addresses[0].display_name == "Jürgen" and found["Subject"] == "größer " * 20
        assert found.get_body(("html",)).get_content().strip() == "<p>grüße</p>"


class TestBody:
    def test_lines_and_dots(self) -> None:
        data = wire(mail(".one\n..two\n.\nend"))
        assert data.endswith(b"\r\n\r\n..one\r\n...two\r\n..\r\nend\r\n")
        assert data.count(b"\n") == data.count(b"\r\n")

    def test_eight_bit_only_where_allowed(self) -> None:
        message = mail("grüße\n", Subject="größer")
        message.replace_header("Content-Transfer-Encoding", "8bit")
        assert not wire(message).isascii()
        plain = wire(message, {})
        assert plain.isascii() and b"=?utf-8?" in plain and read(plain).get_content() == "grüße\n"

    def test_what_is_signed_is_not_encoded_anew(self) -> None:
        raw = (
            b"From: a@x.test\r\nTo: a@x.test\r\nMIME-Version: 1.0\r\nDate: x\r\nMessage-ID: <x@x.test>\r\n"
            b'Content-Type: multipart/signed; boundary="b"\r\n\r\n--b\r\n'
            b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n--b\r\n"
            b"Content-Type: application/pgp-signature\r\n\r\nxyz\r\n--b--\r\n"
        )
        for rules in (policy.default, policy.compat32):
            assert wire(email.message_from_bytes(raw, policy=rules), {"8BITMIME": ""}) == raw
            with pytest.raises(MessageError, match="does not offer 8BITMIME: encode what is signed"):
                wire(email.message_from_bytes(raw, policy=rules), {})
            ascii_only = raw.replace("Grüße".encode(), b"hello")
            assert wire(email.message_from_bytes(ascii_only, policy=rules), {}) == ascii_only

    def test_a_message_within(self) -> None:
        within = mail("grüße\n", Subject="within", Bcc="shown@x.test")
        message = mail()
        message.add_attachment(within)
        for extensions in (ALL, {}):
            data = wire(message, extensions)
            (found,) = read(data).iter_attachments()
            assert found.get_content()["Bcc"] == "shown@x.test" and found.get_content().get_content().strip() == "grüße"
            assert data.count(b"Message-ID:") == 1

    def test_long_lines(self) -> None:
        message = mail()
        message.set_content("x" * 2000, cte="7bit")
        with pytest.raises(MessageError, match="longer than 998"):
            wire(message)
        assert read(wire(mail("x" * 2000 + "\n"))).get_content() == "x" * 2000 + "\r\n"

    def test_nul(self) -> None:
        message = mail()
        message.set_payload("a\0b")
        with pytest.raises(MessageError, match="NUL"):
            wire(message)

    def test_too_large_for_the_server(self) -> None:
        with pytest.raises(MessageError, match="the server takes 500 at most"):
            wire(mail("line\n" * 200), {"SIZE": "500"})
        for unlimited in ("", "0", "x"):
            assert wire(mail("line\n" * 200), {"SIZE": unlimited})


class TestOctets:
    GIVEN = b"From: a@x.test\r\nDKIM-Signature: v=1\r\n\r\n.body\r\n"

    def sent(self, given: bytes, extensions: dict[str, str] = ALL) -> bytes:
        return wire(given, extensions, sender="a@x.test", recipients=["b@x.test"])

    def test_go_as_they_are(self) -> None:
        assert self.sent(self.GIVEN) == self.GIVEN.replace(b"\r\n.body", b"\r\n..body")

    @pytest.mark.parametrize(
        "given",
        [
            b"A: b\n\nbody\n",
            b"A: b\r\n\r\nbo\rdy\r\n",
            b"Bcc: x@x.test\r\n\r\nbody\r\n",
            b"A: b\r\nbcc : x@x.test\r\n\r\n",
            b"A: b\r\nResent-Bcc: x@x.test\r\n\r\nbody\r\n",
            b"A: b\r\n\r\n" + b"x" * 999 + b"\r\n",
            b"A: b\r\n\r\n\0\r\n",
        ],
    )
    def test_what_cannot_go(self, given: bytes) -> None:
        with pytest.raises(MessageError):
            self.sent(given)

    def test_eight_bit(self) -> None:
        with pytest.raises(MessageError, match="8BITMIME"):
            self.sent(self.GIVEN + b"\xff\r\n", {})
        assert self.sent(self.GIVEN + b"\xff\r\n").endswith(b"\xff\r\n")

    def test_nothing_else_does(self) -> None:
        with pytest.raises(MessageError, match="not str"):
            letter("From: a@x.test\n\nbody", "a@x.test")  # type: ignore[arg-type]

    def test_need_an_envelope(self) -> None:
        for options in ({}, {"sender": "a@x.test"}, {"recipients": ["a@x.test"]}):
            with pytest.raises(MessageError, match="must be given"):
                letter(self.GIVEN, "a@x.test", **options)


def test_a_letter_is_what_a_message_says() -> None:
    assert isinstance(letter(mail(), ""), Letter)


@pytest.mark.parametrize("name", ["To", "Cc", "Bcc"])
@pytest.mark.parametrize("value", ["a@x.test; b@x.test", "a@x.test b@x.test", "a@x.test (b@x.test", "Anna a@x.test"])
def test_a_list_of_addresses_that_is_none_loses_nobody(name: str, value: str) -> None:
    """The `email` package reads the first of them, or another address, and says nothing."""
    message = EmailMessage()
    message["From"] = "f@x.test"
    message[name] = value
    with pytest.raises(MessageError, match=f"{name} is no list of addresses"):
        letter(message, "")
    assert letter(message, "", recipients=["c@x.test"]).recipients == ("c@x.test",)


def test_an_old_spelling_of_addresses_is_a_list() -> None:
    message = EmailMessage()
    message["To"] = "Dr. Anna B. <a@x.test>, , c . d@x.test (Carl), käse@x.test, friends: e@x.test;"
    assert letter(message, "f@x.test").recipients == ("a@x.test", "c.d@x.test", "käse@x.test", "e@x.test")


@pytest.mark.parametrize(
    "name",
    [
        "=?utf-8?q?a?=",
        '"=?utf-8?q?a?="',
        "=?utf-8?b?w6Q?= ",
        "=?utf-8?q?a b?= ",
        "=?nothing?q?=E4?= ",
        "=?utf-8?q?=E4?= ",
    ],
)
def test_a_name_that_is_encoded_wrongly_keeps_no_mail(name: str) -> None:
    message = email.message_from_string(f"From: f@x.test\nTo: {name}<a@x.test>, b@x.test\n\nx\n", policy=policy.SMTP)
    assert letter(message, "").recipients == ("a@x.test", "b@x.test")
