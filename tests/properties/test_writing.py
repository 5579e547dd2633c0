"""What is written of a message is what a reader finds in it, and never a line that the message does not have."""

from __future__ import annotations

import email
from email import policy
from email.header import decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage
from email.mime.text import MIMEText
from email.utils import parseaddr

from hypothesis import example, given
from hypothesis import strategies as st

from outgate.mailer.sending.errors import MessageError
from outgate.mailer.sending.wire import letter

ALL = {"8BITMIME": "", "SMTPUTF8": ""}
LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=120)
NAMES = LINE.map(str.strip)
BODIES = st.lists(LINE, max_size=8).map(lambda lines: "".join(f"{line}\n" for line in lines))
LOCAL = st.text(st.sampled_from("abcdefgh0123456789-_+"), min_size=1, max_size=20)
DOMAINS = st.sampled_from(["x.test", "shop.example", "bücher.example", "xn--bcher-kva.example"])
PEOPLE = st.lists(st.tuples(NAMES, LOCAL, DOMAINS), min_size=1, max_size=8)
EXTENSIONS = st.sampled_from([{}, ALL, {"8BITMIME": ""}])


def unstuffed(data: bytes) -> bytes:
    return (
        data.replace(b"\r\n..", b"\r\n.").removeprefix(b".")
        if data.startswith(b"..")
        else data.replace(b"\r\n..", b"\r\n.")
    )


def mailboxes(value: str) -> list[tuple[str, str]]:
    """Read a field of mailboxes by splitting it where commas stand outside quotes, and the words by RFC 2047."""
    parts, quoted, escaped = [""], False, False
    for sign in value:
        if sign == "," and not quoted:
            parts.append("")
            continue
        quoted ^= sign == '"' and not escaped
        escaped = sign == "\\" and not escaped
        parts[-1] += sign
    found = [parseaddr(part) for part in parts]
    return [(str(make_header(decode_header(name))) if name else "", address) for name, address in found]


@given(PEOPLE, NAMES, BODIES, EXTENSIONS)
@example([("Müller, Hans " * 8, "a", "x.test")] * 3, "x", "", {})
@example([("x", "a", "x.test")], "4711 4711 日本語のとても長い件名です 日本語のとても長い件名です naïve — = a", "", {})
@example([('"quoted\\', "a", "bücher.example")], "=?utf-8?q?a?=", ".\n", {})
def test_a_reader_finds_what_was_meant(people, subject: str, body: str, extensions) -> None:
    message = EmailMessage()
    message["From"] = "shop@shop.test"
    message["To"] = tuple(Address(name, local, domain) for name, local, domain in people)
    message["Subject"] = subject
    message.set_content(body)
    found = letter(message, "")
    data = unstuffed(found.wire(extensions))
    head, _, rest = data.partition(b"\r\n\r\n")
    assert head.isascii() and max(map(len, head.split(b"\r\n"))) <= 998
    assert data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r")
    assert rest.isascii() or "8BITMIME" in extensions
    (value,) = [line[4:] for line in head.replace(b"\r\n ", b" ").split(b"\r\n") if line.startswith(b"To: ")]
    expected = [(name, f"{local}@{domain.replace('bücher', 'xn--bcher-kva')}") for name, local, domain in people]
    got = mailboxes(value.decode())
    assert [address for _, address in got] == [address for _, address in expected]
    assert ["".join(name.split()) for name, _ in got] == ["".join(name.split()) for name, _ in expected]
    assert set(found.recipients) == {address for _, address in expected}
    read = email.message_from_bytes(data, policy=policy.default)
    assert not read.defects and [name.lower() for name in read].count("subject") == 1
    assert str(read["Subject"]) == str(message["Subject"])
    assert read.get_content().replace("\r\n", "\n").rstrip("\n") == body.rstrip("\n")


@given(
    st.lists(st.tuples(st.text(max_size=12), st.text(max_size=40)), max_size=4),
    st.text(max_size=60),
    EXTENSIONS,
)
def test_anything_gives_lines_of_the_message_or_an_error(fields, body: str, extensions) -> None:
    """As the older `email.mime` classes take it: any name, any value, any body."""
    try:
        message = MIMEText("")
        message["From"] = message["To"] = "a@x.test"
        for name, value in fields:
            message[name] = value
        message.set_payload(body)
    except (ValueError, UnicodeError):
        return
    try:
        data = letter(message, "").wire(extensions)
    except MessageError:
        return
    head = data.partition(b"\r\n\r\n")[0]
    assert b"\0" not in data and data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r")
    names = [line.partition(b":")[0].decode() for line in head.split(b"\r\n") if line[:1] not in (b" ", b"\t")]
    given_names = [name for name, _ in message.items()]
    assert sorted(names) == sorted(
        [
            *(name for name in given_names if name.lower() not in ("bcc", "return-path", "resent-bcc")),
            "Date",
            "Message-ID",
        ]
    ) or {"date", "message-id"} & {name.lower() for name in given_names}
    assert not data.startswith(b".\r\n") and b"\r\n.\r\n" not in data
