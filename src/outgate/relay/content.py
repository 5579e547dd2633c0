"""Rule 10, what a message may hold: no attachments unless the instance allows them, well-formed HTML, a way out.

Standards: RFC 2046, 2183, 2387 (multipart/related), 6522 (multipart/report), 2369 and 8058 (List-Unsubscribe); the
    vendor: "attachments are not supported over SMTP", and its questionnaire's unsubscribe link and HTML validation.
Promises: one verdict for every way a message comes in; linear time; what cannot be read clearly counts as an
    attachment.
Dangers: HTML and links of a large message take long: `texts_of` and what follows it belong in a thread then.
    A signed message (`application/pkcs7-signature`) has an attachment, a calendar's `text/calendar` without a file
    name has none; what is uuencoded within a text is text.
Not here: the walk through the parts (`message.mime`), HTML (`message.html`), verdicts (`relay.policy`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from urllib.parse import unquote

from outgate.message import html
from outgate.message.fields import Header
from outgate.message.mime import Leaf, TextPart, TooComplex, leaves, texts
from outgate.message.text import decoded

MOST_HTML = 1_048_576
"""Octets of HTML in a message that are checked; what is more is not."""
_MOST_TEXT = 1_048_576
_NEAR = 200
_SCHEMES = ("https://", "http://", "mailto:")
_TAG = re.compile(r"<[^<>]*>")
_NO_LETTERS = re.compile(r"[\W_]+")

# Without spaces, hyphens and case; each is enough of a word in its language to be no other.
_WAYS_OUT = (
    "unsubscribe", "optout", "optingout", "stopreceiving", "nolongerwish", "nolongerwant",  # English
    "cancelsubscription", "cancelyoursubscription", "removemefrom", "emailpreferences",
    "mailpreferences",
    "abmeld", "abbestell", "austrag", "nichtmehrerhalten", "nichtmehrempfangen", "siesichhierab",  # German
    "dichhierab",
    "désabonn", "desabonn", "désinscri", "desinscri", "plusrecevoir",  # French
    "debaja", "desuscri", "desuscrí", "cancelarsuscripci", "cancelarlasuscripci",  # Spanish
    "cancelartususcripci", "cancelarsususcripci", "anularsuscripci", "anularlasuscripci",
    "anulartususcripci", "anularsususcripci", "dejarderecibir",
    "cancelarinscri", "cancelarainscri", "cancelarsuainscri", "cancelesuainscri", "cancelarassinatura",  # Portuguese
    "cancelaraassinatura", "cancelarsubscri", "cancelarasubscri", "anularsubscri", "anularasubscri",
    "removersubscri", "removerasubscri", "descadastr", "desinscrev", "deixarderecebe",
    "disiscri", "annullaiscrizione", "annullaliscrizione", "annullareliscrizione",  # Italian
    "annullalatuaiscrizione", "annullalasottoscrizione", "cancellaiscrizione", "cancellaliscrizione",
    "cancellarelaiscrizione", "cancellarelatuaiscrizione", "cancellareliscrizione", "cancellatidalla",
    "cancellartidalla", "nonriceverepiù", "nondesideripiùricevere",
    "afmelden", "uitschrijv", "schrijfjeuit", "schrijfuuit", "meldjeaf", "meldjehieraf",  # Dutch
    "meldtuzichaf",
    "avregistrera", "avprenumerera", "avslutaprenumeration", "avmeld", "frameld", "afmeld",  # Nordic
    "melddegav", "meldmegav", "stoppabonnement",
    "peruutatilaus", "peruutatilauksesi", "peruutauutiskirje", "perutilaus", "peruuutiskirje",  # Finnish
    "wypisz", "rezygnuj", "anulujsubskrypcj", "odhlás", "odhlas", "odhláš", "leiratkoz", "dezabon",  # Central Europe
    "odjav", "loobu", "atsisak",  # Croatian, Serbian, Slovenian; Baltic
    "διαγραφή", "απεγγραφ", "κατάργησηεγγραφής",  # Greek
    "отпис", "отпиш", "відпис", "відпиш", "отказатьсяотрассылки",  # Russian, Ukrainian, Bulgarian
    "abonelik", "listedençık", "berhentiberlangganan", "hủyđăngký",  # Turkish, Indonesian, Vietnamese
    "配信停止", "配信の停止", "配信解除", "購読解除", "購読を解除", "購読の解除", "登録解除",
    "登録を解除", "メルマガ解除",
    "退订", "退訂", "取消订阅", "取消訂閱", "수신거부", "구독취소", "구독해지", "إلغاءالاشتراك",
    "הסרהמרשימת", "הסרמרשימת", "להסרהמ",
)  # fmt: skip


def attachment(content: bytes, header: Header, *, null_reverse_path: bool) -> str | None:
    """Return why the message counts as carrying an attachment, or None."""
    try:
        parts = leaves(content, header)
    except TooComplex:
        return "its structure is too complex to look through"
    for part in parts:
        why = _why(part, null_reverse_path)
        if why is not None:
            return why
    return None


def _why(part: Leaf, null_reverse_path: bool) -> str | None:
    if null_reverse_path and part.within and part.within[0] == "multipart/report":
        return None
    if part.attachment:
        return f"a part of type {part.type} has the disposition attachment"
    inline_image = part.type.startswith("image/") and part.content_id and "multipart/related" in part.within
    if part.named and not inline_image:
        return f"a part of type {part.type} has a file name"
    if part.type.startswith("text/") or inline_image:
        return None
    return f"a part has the type {part.type}"


def texts_of(content: bytes, header: Header) -> list[TextPart] | None:
    """Return the text parts of a message; None if its structure is too complex to look through."""
    try:
        return texts(content, header)
    except TooComplex:
        return None


@dataclass(frozen=True, slots=True)
class HtmlFinding:
    """What a look at the HTML came to: `fault` is the first one found; `unchecked` says why a part was not read."""

    fault: html.Fault | None
    unchecked: str


def html_finding(parts: Sequence[TextPart] | None) -> HtmlFinding:
    """Look through the HTML parts for what is not well-formed; None: the parts are not known."""
    unchecked = "HTML was not checked: the structure is too complex" if parts is None else ""
    left = MOST_HTML
    for part in parts or ():
        if part.type != "text/html":
            continue
        if len(part.body) > left:
            unchecked = f"HTML was not checked: {len(part.body)} octets, and {MOST_HTML} of a message are read at most"
            continue
        left -= len(part.body)
        fault = html.fault(_text(part))
        if fault is not None:
            return HtmlFinding(fault, unchecked)
    return HtmlFinding(None, unchecked)


def list_unsubscribe(header: Header) -> bool:
    """Say whether the header offers a way to unsubscribe: List-Unsubscribe with an https or a mailto address."""
    for value in header.all("list-unsubscribe"):
        for part in value.decode("utf-8", "replace").split("<")[1:]:
            address, closed, _ = part.partition(">")
            if closed and address.strip().lower().startswith(("https://", "mailto:")):
                return True
    return False


@dataclass(frozen=True, slots=True)
class LinkFinding:
    """What the search for a link to unsubscribe came to; `unsearched` says what of the texts was not looked at."""

    found: bool
    unsearched: str


def unsubscribe_link(parts: Sequence[TextPart] | None) -> LinkFinding:
    """Search the texts for a link to unsubscribe: an address or anchor that says so, or that has such words beside it
    ("to unsubscribe, click here"). Of long texts the end is read: that is where such links are. A form is no link:
    mail programs mostly do not send forms."""
    if parts is None:
        return LinkFinding(False, "the structure is too complex to look through")
    left, searched_all = 2 * _MOST_TEXT, True
    for part in parts:
        whole = _text(part)
        text = whole[-min(_MOST_TEXT, left) :] if left else ""
        left -= len(text)
        searched_all = searched_all and len(text) == len(whole)
        if any(_leads_out(said) for said in (_anchors if part.type == "text/html" else _addresses)(text)):
            return LinkFinding(True, "")
    limits = f"only the last {_MOST_TEXT} signs of each text are searched, of all together {2 * _MOST_TEXT}"
    return LinkFinding(False, "" if searched_all else limits)


def _anchors(text: str) -> Iterator[str]:
    """Give what each anchor says, its address, and what stands around it."""
    judged = -_NEAR
    for link in html.links(text):
        if not link.href.strip().lower().startswith(_SCHEMES):
            continue
        yield f"{link.text} {unquote(link.href)}"
        if link.end >= judged + _NEAR // 2:  # one look for all that stand close to one another
            judged = link.end
            around = f"{text[max(link.at - _NEAR, 0) : link.at]} {text[link.end : link.end + _NEAR + _NEAR // 2]}"
            yield unescape(_TAG.sub(" ", around))


def _addresses(text: str) -> Iterator[str]:
    lower = text.lower()
    for scheme in (*_SCHEMES, "www."):
        at = lower.find(scheme)
        while at >= 0:
            yield lower[max(at - _NEAR, 0) : at + _NEAR + _NEAR // 2]
            # One look for all addresses that stand close to one another.
            at = lower.find(scheme, at + _NEAR // 2)


def _leads_out(said: str) -> bool:
    words = _NO_LETTERS.sub("", said[:4000].casefold())
    return any(way in words for way in _WAYS_OUT)


def _text(part: TextPart) -> str:
    return decoded(part.body, part.encoding, part.charset)
