"""A mail template and the values that are put into it.

Property: any text is a template or refused with a `TemplateError` that has a line. With any values the mail is made or
refused so; it has the fields of the template and no other, as many recipients as the template has addresses, and no
element of HTML that the template has not; and what is refused shows no value. Names and places are those of the text.
"""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.errors import MessageError
from email.message import EmailMessage

from outgate.mailer.template import Template, TemplateError
from outgate.mailer.template.addresses import ADDRESS_FIELDS
from outgate.mailer.template.substitution import Variable, pieces

SEEDS = (
    b"To: ${a}\nSubject: x ${b}\n\nDear ${a}\n\0a@x.example\0B\r\nBcc: c@x.example",
    b'From: "${a}" <${b}@x.example>\nTo: ${b} <a@x.example>, ${a}\n\n<p>${b}</p>\0O\'Hara, "A"\0<script>',
    b"X-${a}: $${b}\n  ${c\n\n${a}${b}\0${b}\0${a}",
    b"To: ${a}\nTo: b@x.example\nCc: ${b}\n\n$$${a}\0a@x.example, b@x.example\0=?utf-8?q?x=0D=0A?=",
    b"Subject: =?utf-8?q?a?= ${a}\n\n\n\0((((\0[[[[",
    b"no field\n\nbody\0\0",
    b"\xef\xbb\xbf\nbody ${\xc3\xbc} $${}\0\xed\xa0\x80\0\xe2\x80\xa8",
)
_FIXED = {"mime-version", "content-type", "content-transfer-encoding"}


def one_input(data: bytes) -> None:
    text, *values = (
        part.decode("utf-8", "surrogatepass" if part.isascii() else "replace") for part in data.split(b"\0")
    )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    _split(text)
    variables = dict(zip("abc", values, strict=False))
    try:
        template = Template(text)
    except TemplateError as error:
        assert error.line and error.column
        return
    for nested in (False, True):
        for kind in ("simple", "html"):
            _filled(template, text, variables, kind, nested)


def _split(text: str) -> None:
    """The pieces are the text, but for the dollars before literal markers; each variable stands where it says."""
    found = pieces(text)
    joined = "".join(piece if isinstance(piece, str) else piece.written for piece in found)
    assert joined.replace("$${", "${") == re.sub(r"\$(?=\$\{)", "", joined) and len(joined) <= len(text)
    assert len(text) - len(joined) <= text.count("$${")
    lines = text.split("\n")
    for piece in found:
        if isinstance(piece, Variable):
            assert lines[piece.line - 1][piece.column - 1 :].startswith("${")


def _filled(template: Template, text: str, variables: dict[str, str], kind: str, nested: bool) -> None:
    try:
        message = template.message(variables, kind=kind, nested=nested)  # type: ignore[arg-type]
    except TemplateError as error:
        for value in variables.values():
            assert len(value) < 9 or value in text or value not in str(error)
        return
    head = text.removeprefix("\ufeff").partition("\n\n")[0] if not text.removeprefix("\ufeff").startswith("\n") else ""
    names = len([line for line in head.split("\n") if ":" in line and line[:1] not in (" ", "\t")])
    assert len([name for name in message if name.lower() not in _FIXED]) <= names
    for name in ADDRESS_FIELDS & {name.lower() for name in message}:
        written = [line for line in head.split("\n") if not line[:1].isspace() or line]
        assert len(message[name].addresses) <= 1 + sum(line.count(",") + 1 for line in written)
    if kind == "html":
        part = message.get_body(("html",))
        assert part is not None
        assert part.get_content().count("<") <= text.count("<")
    _written(message)


def _written(message: EmailMessage) -> None:
    """What goes on the wire has the same fields."""
    try:
        data = message.as_bytes(policy=policy.SMTPUTF8)
    except (MessageError, ValueError, LookupError, TypeError):
        return  # `mailer.sending.wire` makes its own error of this
    read = message_from_bytes(data, policy=policy.SMTPUTF8)
    assert sorted(name.lower() for name in read) == sorted(name.lower() for name in message)


if __name__ == "__main__":
    from _run import run

    run(__file__)
