"""Write a delivery status notification: what became of a message, for its sender and for programs.

Standards: RFC 6522 (multipart/report), RFC 3464 (message/delivery-status), RFC 3461 section 6 (what is returned), RFC
6533 (addresses that are not ASCII), RFC 3834 (Auto-Submitted).
Promises: pure; the result is in wire form: dot-stuffed, CR LF lines of at most 998 octets; it is ASCII but for what is
returned of the original, unless the sender's own address is not; nothing that a server or a client wrote can add a
field, a line or a part.
Dangers: the boundary is made from the report's queue id, which nobody knew when the original was written.
Not here: who is told of what (`relay.reports`), words for a reason (`relay.outcome`), signing (`relay.signer`).
"""

from __future__ import annotations

import base64
import binascii
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from outgate.message import trace
from outgate.message.fields import BadHeader, HeaderTooLarge, read, shown, unstuffed
from outgate.smtp.envelope import BadArgument, decode_utf8_address, decode_xtext

_WIDTH = 72
_LONGEST = 900
"""Octets after which a line is broken, wherever that is."""
_LINE_MOST = 998
_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{1,250}>")
_SUBJECTS = {"failed": "Failure", "delayed": "Delay", "relayed": "Success", "delivered": "Success"}
_OPENINGS = {
    "failed": "Your message could not be delivered to:",
    "delayed": "Your message is late, but nothing is lost: we go on trying to deliver it to:",
    "relayed": "Your message was handed on, to a server that does not report further, for:",
    "delivered": "Your message was delivered to:",
}
_DOT = re.compile(rb"^\.", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reported:
    """What is told of one recipient.

    `original` is ORCPT as it came, "" if it did not. `action` is failed, delayed, relayed or delivered; `status` an
    enhanced code. `remote` is the server that spoke last, `reply` what it said ("" if none did: then `trouble` says
    what went wrong). `meaning` and `advice` are for people. Times are epoch seconds; `until`: how long we go on
    trying."""

    mailbox: str
    original: str
    action: str
    status: str
    remote: str
    reply: str
    trouble: str
    meaning: str
    advice: str
    at: float
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Original:
    """The message that is reported on: ENVID as it came ("" if it did not), our trace fields and its content in wire
    form (None: cannot be read any more), and whether all of it is wanted back or the header only."""

    queue_id: str
    envid: str
    accepted_at: float
    trace: bytes
    content: bytes | None
    smtputf8: bool
    whole: bool


def build(
    *, queue_id: str, domain: str, host_name: str, to: str, at: float, original: Original, told: Sequence[Reported]
) -> bytes:
    """Return the report `queue_id` that `host_name` makes at `at` (epoch seconds) from `domain` to the mailbox `to`."""
    utf8 = not to.isascii()
    boundary = f"=_{queue_id}"
    head = [
        f'From: "Mail Delivery System" <MAILER-DAEMON@{domain}>',
        f"To: <{to}>",
        f"Subject: {subject(told[0].action)}",
        f"Date: {trace.date(at)}",
        f"Message-ID: <{queue_id}@{domain}>",
        *_references(original),
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
        "",
        "This is a delivery status notification in MIME format.",
    ]
    text = _for_people(original, told, host_name, utf8)
    status = _for_programs(original, told, host_name, utf8)
    kind = "message/global-delivery-status" if utf8 else "message/delivery-status"
    encoding = "8bit" if utf8 else "7bit"
    charset, text_encoding = "utf-8" if utf8 else "us-ascii", encoding
    if not utf8 and not text.isascii():  # the subject, as its author reads it
        charset, text_encoding = "utf-8", "quoted-printable"
        text = binascii.b2a_qp(text.encode("utf-8", "replace"), istext=True).decode("ascii")
    delimiter = f"\r\n--{boundary}".encode()
    parts = [
        ("\r\n".join(head) + "\r\n").encode("utf-8"),
        delimiter,
        f"\r\nContent-Type: text/plain; charset={charset}\r\n".encode(),
        f"Content-Transfer-Encoding: {text_encoding}\r\n\r\n".encode(),
        _stuffed(text),
        delimiter,
        f"\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode(),
        _stuffed(status),
    ]
    returned = _returned(original)
    if returned:
        parts += [delimiter, *returned]
    parts += [delimiter, b"--\r\n"]
    return b"".join(parts)


def subject(action: str) -> str:
    """Return the subject of a report whose first recipient has this action."""
    return f"Delivery Status Notification ({_SUBJECTS[action]})"


def _references(original: Original) -> list[str]:
    """Return the fields that tie the report to the message, if that has a Message-ID that can be repeated."""
    field = _header_field(original, "message-id")
    match = _MESSAGE_ID.fullmatch(field.strip())
    if match is None:
        return []
    message_id = match[0].decode("ascii")
    return [f"In-Reply-To: {message_id}", f"References: {message_id}"]


def _header_field(original: Original, name: str) -> bytes:
    for block in (original.content, original.trace + b"\r\n"):
        if block is None:
            continue
        try:
            found = read(block).first(name)
        except (BadHeader, HeaderTooLarge):
            found = None
        if found is not None:
            return found
    return b""


# -- what people read ---------------------------------------------------------------------------------------


def _for_people(original: Original, told: Sequence[Reported], host_name: str, utf8: bool) -> str:
    about_what = shown(_header_field(original, "subject")).strip()[:200]
    lines = [f"This is the mail server {host_name}.", ""]
    about = f"It is about your message of {trace.date(original.accepted_at)}"
    about += f' with the subject "{_plain(about_what, True)}"' if about_what else ""
    lines += [*_wrapped(f"{about} ({original.queue_id})."), ""]
    for action in _OPENINGS:
        some = [each for each in told if each.action == action]
        if not some:
            continue
        lines += [*_wrapped(_OPENINGS[action]), ""]
        for each in some:
            lines += _one_for_people(each, utf8)
    if original.content is None:
        lines += _wrapped("The message itself could not be read any more, so nothing of it is returned.")
    else:
        what = "The message" if _whole(original) else "The header of the message"
        lines += _wrapped(f"{what} is returned with this report.")
    return "\r\n".join(lines) + "\r\n"


def _one_for_people(each: Reported, utf8: bool) -> list[str]:
    lines = [*_wrapped(f"<{_plain(each.mailbox, utf8)}>", "  ")]
    if each.meaning and each.action != "relayed":
        lines += _wrapped(f"What happened: {each.meaning}.", "    ")
    if each.reply:
        server = _plain(each.remote, utf8) or "The server"
        lines += _wrapped(f"{server} answered: {_plain(each.reply, utf8)}", "    ")
    elif each.trouble:
        lines += _wrapped(f"In detail: {_plain(each.trouble, utf8)}", "    ")
    if each.until is not None:
        lines += _wrapped(f"We go on trying until {trace.date(each.until)}.", "    ")
    elif each.advice:
        lines += _wrapped(f"What you can do: {each.advice}", "    ")
    return [*lines, ""]


def _wrapped(text: str, indent: str = "") -> list[str]:
    """Break text into lines; `indent` keeps what others wrote from beginning one."""
    lines = textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [piece for line in lines for piece in _cut(line, indent)]


def _cut(line: str, indent: str = " ") -> list[str]:
    """Cut a line without spaces that is longer than lines may be; a sign has up to four octets."""
    most = _LONGEST if line.isascii() else _LONGEST // 4
    if len(line) <= most:
        return [line]
    return [line[:most], *_cut(indent + line[most:], indent)] if len(line) <= 20 * most else [line[:most]]


def _plain(text: str, utf8: bool) -> str:
    r"""Return text from outside as printable signs, ASCII unless `utf8`; anything else as \x{HEX}."""
    return "".join(
        sign if sign.isprintable() and (utf8 or sign.isascii()) else f"\\x{{{ord(sign):X}}}" for sign in text
    )


# -- what programs read -------------------------------------------------------------------------------------


def _for_programs(original: Original, told: Sequence[Reported], host_name: str, utf8: bool) -> str:
    fields: list[str] = []
    envid = _decoded(original.envid)
    if envid:
        fields.append(f"Original-Envelope-Id: {envid}")
    fields += [f"Reporting-MTA: dns; {host_name}", f"Arrival-Date: {trace.date(original.accepted_at)}"]
    for each in told:
        fields += ["", *_one_for_programs(each, original.queue_id, utf8)]
    return "\r\n".join(fields) + "\r\n"


def _one_for_programs(each: Reported, queue_id: str, utf8: bool) -> list[str]:
    fields: list[str] = []
    asked = _original_recipient(each.original, utf8)
    if asked:
        fields.append(f"Original-Recipient: {asked}")
    fields += [f"Final-Recipient: {_address(each.mailbox, utf8)}", f"Action: {each.action}", f"Status: {each.status}"]
    if each.remote:
        fields.append(_folded(f"Remote-MTA: dns; {_plain(each.remote, utf8)}"))
    if each.reply:
        fields.append(_folded(f"Diagnostic-Code: smtp; {_plain(each.reply, utf8)}"))
    elif each.trouble:
        fields.append(_folded(f"Diagnostic-Code: x-outgate; {_plain(each.trouble, utf8)}"))
    fields.append(f"Last-Attempt-Date: {trace.date(each.at)}")
    fields.append(f"Final-Log-ID: {queue_id}")
    if each.until is not None:
        fields.append(f"Will-Retry-Until: {trace.date(each.until)}")
    return fields


def _decoded(xtext: str) -> str:
    try:
        return decode_xtext(xtext, _LONGEST) if xtext else ""
    except BadArgument:  # stored before anybody checked it: then it is left out
        return ""


def _original_recipient(orcpt: str, utf8: bool) -> str:
    kind, _, address = orcpt.partition(";")
    if not address:
        return ""
    try:
        if kind.lower() == "utf-8":
            return f"utf-8; {_utf8_address(decode_utf8_address(address), utf8)}"
        decoded = decode_xtext(address, _LONGEST, utf8=True)
    except BadArgument:
        return ""
    return f"{kind}; {decoded}" if decoded.isascii() else f"utf-8; {_utf8_address(decoded, utf8)}"


def _address(mailbox: str, utf8: bool) -> str:
    return f"rfc822; {mailbox}" if mailbox.isascii() else f"utf-8; {_utf8_address(mailbox, utf8)}"


def _utf8_address(mailbox: str, utf8: bool) -> str:
    r"""Write an address of the type utf-8: as it is, or with \x{HEX} where only ASCII may stand."""
    return "".join(
        sign if sign not in "+\\=" and sign != " " and (utf8 or sign.isascii()) else f"\\x{{{ord(sign):X}}}"
        for sign in mailbox
    )


def _folded(field: str) -> str:
    """Fold a field at its spaces."""
    return "\r\n ".join(piece for line in textwrap.wrap(
        field, _WIDTH, break_long_words=False, break_on_hyphens=False
    ) for piece in _cut(line, ""))  # fmt: skip


# -- what is returned ---------------------------------------------------------------------------------------


def _whole(original: Original) -> bool:
    """Say whether the whole message is returned: asked for, and every line of it fits."""
    content = original.content
    return original.whole and content is not None and max(map(len, content.split(b"\r\n"))) <= _LINE_MOST


def _returned(original: Original) -> list[bytes]:
    """Return the part that holds the original, or its header, in pieces; none if it cannot be read."""
    content = original.content
    if content is None:
        return []
    if _whole(original):
        kind, pieces = "message/global" if original.smtputf8 else "message/rfc822", [original.trace, content]
    else:
        end = content.find(b"\r\n\r\n")
        header = b"" if content.startswith(b"\r\n") else content[: end + 2] if end >= 0 else content
        lines = [line[:_LINE_MOST] for line in (original.trace + header).split(b"\r\n")]
        kind, pieces = "message/global-headers" if original.smtputf8 else "text/rfc822-headers", [b"\r\n".join(lines)]
    encoding = "7bit" if all(piece.isascii() for piece in pieces) else "8bit"
    if encoding == "8bit" and original.smtputf8:
        # These types may be encoded, so that the report goes where only ASCII does.
        encoding, pieces = "base64", [base64.encodebytes(unstuffed(b"".join(pieces))).replace(b"\n", b"\r\n")]
    charset = "; charset=utf-8" if kind == "text/rfc822-headers" and encoding == "8bit" else ""
    head = f"\r\nContent-Type: {kind}{charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return [head.encode(), *pieces]


def _stuffed(text: str) -> bytes:
    return _DOT.sub(b"..", text.encode("utf-8"))
