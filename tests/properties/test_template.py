"""Whatever a value of a template says, it is that value in its place, or refused."""

from __future__ import annotations

import html
from email import message_from_bytes, policy

from hypothesis import given
from hypothesis import strategies as st

from outgate.mailer import MessageError, Template, TemplateError
from outgate.mailer.sending.wire import letter

TEMPLATE = Template(
    'From: Shop <shop@shop.test>\nTo: "${name}" <${email}>\nSubject: To ${name}!\nX-Name: ${name}\n\n<p>${name}|${other}</p>\n'
)
_NASTY = st.sampled_from(
    [
        "\r\n",
        "\n",
        "${other}",
        "${",
        "}",
        "$",
        '"',
        "\\",
        "<",
        ">",
        ",",
        ";",
        "@",
        "=?utf-8?q?",
        "?=",
        " ",
        "\t",
        "\0",
        "&",
        "é",
        "a",
    ]
)
_TEXT = st.one_of(st.text(max_size=40), st.lists(_NASTY, max_size=12).map("".join))
_OTHER = "the other's own value"


def values(name: str, email: str) -> dict[str, object]:
    return {"name": name, "email": email, "other": _OTHER}


@given(_TEXT)
def test_a_value_is_text_in_each_place(name: str) -> None:
    try:
        message = TEMPLATE.message(values(name, "you@x.test"), kind="html")
    except TemplateError as error:
        assert error.line and (len(name) < 6 or name not in str(error))
        return
    expected = ["Content-Type", "From", "MIME-Version", "Subject", "To"] + (["X-Name"] if name.strip() else [])
    assert sorted(message.keys()) == expected
    assert [each.addr_spec for each in message["To"].addresses] == ["you@x.test"]
    assert message["Subject"] == f"To {name}!"
    part = message.get_body(("html",))
    assert part is not None
    written = part.get_content()
    assert written.count("<") == 2 == written.count(">") and written.count("own value") == 1
    body = html.unescape(written.removeprefix("<p>").removesuffix("</p>\n"))
    assert body == f"{name}|{_OTHER}".replace("\r\n", "\n").replace("\r", "\n")


@given(_TEXT)
def test_an_address_is_one_or_refused(email: str) -> None:
    try:
        message = TEMPLATE.message(values("Anna", email))
    except TemplateError as error:
        assert error.line == 2 and (len(email) < 6 or email not in str(error))
        return
    assert len(message["To"].addresses) == 1
    try:
        sent = letter(message, "")
    except MessageError:
        return
    assert len(sent.recipients) == 1


@given(_TEXT, st.booleans())
def test_on_the_wire_it_is_the_same(name: str, eight_bit: bool) -> None:
    try:
        data = letter(TEMPLATE.message(values(name, "you@x.test")), "").wire({"8BITMIME": ""} if eight_bit else {})
    except (TemplateError, MessageError):
        return
    read = message_from_bytes(data, policy=policy.SMTP)
    assert sorted(set(read.keys())) == sorted(read.keys()) and "Bcc" not in read
    assert read["To"].addresses[0].addr_spec == "you@x.test" and len(read["To"].addresses) == 1
    assert "".join(read["Subject"].split()) == "".join(f"To {name}!".split())
