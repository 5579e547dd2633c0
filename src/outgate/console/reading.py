"""A mail read for people: its fields, its text, its HTML with the pictures it carries, its other parts.

Standards: RFC 5322, RFC 2045 and 2047, RFC 2392 (`cid:`).
Promises: any bytes give a `Mail`; what cannot be decoded is shown with replacement signs, and every text can be
encoded again (no lone surrogates).
Dangers: a stranger wrote it: the HTML may go into a frame without scripts and network only.
Not here: how it is shown (`views`, `templates`), the verdicts (`sandbox.judges`).
"""

from __future__ import annotations

import base64
import email
import email.policy
import html as markup
import re
from dataclasses import dataclass, replace
from email.message import Message

from outgate.message import fields

_FIELDS = ("From", "To", "Cc", "Reply-To", "Subject", "Date", "Message-ID")
_CID = re.compile(r"cid:([^\s\"'<>()]{1,200})", re.IGNORECASE)
_LINK = re.compile(
    r"""<a(?:rea)?\b[^<>]{0,500}?\bhref\s{0,9}=\s{0,9}(?:"(https?://[^"]{1,2000})"|'(https?://[^']{1,2000})'|(https?://[^\s>"']{1,2000}))""",
    re.IGNORECASE,
)
_MOST_LINKS = 50
# What a policy keeps from loading may still have the browser open a connection ahead of time.
_REACHING_OUT = re.compile(r"<(/?)(iframe|frame|object|embed|link|applet|portal|fencedframe)\b", re.IGNORECASE)
# A frame that a click sends elsewhere shows the browser's error page; where links lead is listed beside it.
_NO_CLICKS = "<style>a, area { pointer-events: none !important }</style>"
_RECEIVED_ID = re.compile(rb"\bid ([0-9A-Za-z]{1,40})(?=[\s;]|$)")


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail for reading: `text` and `html` are None if it has none; `parts` are the others, in words.

    `html` is made ready for a frame without network; `links` are where it leads (http and https only).
    `readable` is False if its parts could not be told apart; `queue_id` is what the server that handed it over
    says it was (its Received field), or ""."""

    fields: tuple[tuple[str, str], ...]
    text: str | None = None
    html: str | None = None
    parts: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    readable: bool = True
    queue_id: str = ""


def read_mail(raw: bytes) -> Mail:
    """Read a mail for showing. Never raises, whatever the bytes."""
    try:
        header = fields.read(raw, wire=False)
    except fields.BadHeader:
        header = fields.Header((), 0)
    found = tuple((name, fields.shown(value)) for name in _FIELDS for value in header.all(name.lower()))
    received = _RECEIVED_ID.search(header.first("received") or b"")
    mail = Mail(found, queue_id=received[1].decode("ascii") if received else "")
    try:
        return _with_parts(mail, email.message_from_bytes(raw, policy=email.policy.compat32))
    except Exception:  # the email package fails in many ways on what strangers make, nesting among them
        return replace(mail, readable=False)


def clean(text: str) -> str:
    """Return `text` with a question mark for what cannot be encoded (lone surrogates)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _with_parts(mail: Mail, message: Message) -> Mail:
    text: str | None = None
    html: str | None = None
    parts: list[str] = []
    pictures: dict[str, str] = {}
    for part in message.walk():
        if part.is_multipart():
            continue
        kind, name = part.get_content_type(), part.get_filename()
        shown_inline = not name and part.get_content_disposition() != "attachment"
        if kind == "text/plain" and text is None and shown_inline:
            text = _decoded(part)
        elif kind == "text/html" and html is None and shown_inline:
            html = _decoded(part)
        else:
            parts.append(_words(part, kind, name))
            _keep_picture(part, kind, pictures)
    links: tuple[str, ...] = ()
    if html is not None:
        links = _links(html)
        html = (
            _REACHING_OUT.sub(r"<\1x-\2", _CID.sub(lambda match: pictures.get(match[1], match[0]), html)) + _NO_CLICKS
        )
    return replace(mail, text=text, html=html, parts=tuple(parts), links=links)


def _links(html: str) -> tuple[str, ...]:
    found = (markup.unescape(one or two or three) for one, two, three in _LINK.findall(html))
    return tuple(dict.fromkeys(clean(link) for link in found))[:_MOST_LINKS]


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _decoded(part: Message) -> str:
    payload = _payload(part)
    try:
        return clean(payload.decode(part.get_content_charset() or "utf-8", "replace"))
    except (LookupError, ValueError):  # no such charset, or one that is no charset
        return payload.decode("utf-8", "replace")


def _words(part: Message, kind: str, name: str | None) -> str:
    shown_name = fields.shown(name.encode("utf-8", "surrogateescape")) if name else ""
    return clean(f"{kind} {shown_name}".strip()) + f", {len(_payload(part))} octets"


def _keep_picture(part: Message, kind: str, pictures: dict[str, str]) -> None:
    content_id = str(part.get("Content-ID", "")).strip().strip("<>")
    if content_id and re.fullmatch(r"image/[a-z0-9.+-]+", kind):
        pictures[content_id] = f"data:{kind};base64,{base64.b64encode(_payload(part)).decode('ascii')}"
