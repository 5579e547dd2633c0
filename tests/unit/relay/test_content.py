"""Rule 10: what counts as an attachment."""

from __future__ import annotations

import base64
import quopri

import pytest

from outgate.message.fields import read
from outgate.relay.content import attachment, html_finding, list_unsubscribe, texts_of, unsubscribe_link


def multipart(kind: str, *parts: bytes, boundary: str = "b1") -> bytes:
    body = b"".join(b"--" + boundary.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    head = f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n\r\n'.encode()
    return head + body + b"--" + boundary.encode() + b"--\r\n"


TEXT = b"Content-Type: text/plain\r\n\r\nhello"
HTML = b"Content-Type: text/html; charset=utf-8\r\n\r\n<p>hello</p>"
PDF = b"Content-Type: application/pdf\r\n\r\n%PDF"
IMAGE = b"Content-Type: image/png; name=logo.png\r\nContent-ID: <logo>\r\n\r\nPNG"
BARE_IMAGE = b"Content-Type: image/png\r\n\r\nPNG"
REPORT = b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x"

ALLOWED = {
    "no content type": b"Subject: x\r\n\r\nhello\r\n",
    "text": TEXT,
    "html": HTML,
    "inline text": b"Content-Type: text/plain\r\nContent-Disposition: inline\r\n\r\nx",
    "alternative": multipart("alternative", TEXT, HTML),
    "related image with a Content-ID": multipart("related", HTML, IMAGE),
    "nested": multipart("mixed", multipart("alternative", TEXT, HTML, boundary="inner"), TEXT),
    "calendar": multipart("alternative", TEXT, b"Content-Type: text/calendar; method=REQUEST\r\n\r\nBEGIN:VCALENDAR"),
    "style sheet": multipart("related", HTML, b"Content-Type: text/css\r\nContent-ID: <c>\r\n\r\nb {}"),
    "image in a related within an alternative": multipart(
        "alternative", TEXT, multipart("related", HTML, IMAGE, boundary="inner")
    ),
    "uuencoded in a text": b"Content-Type: text/plain\r\n\r\nbegin 644 a.exe\r\n#AAAA\r\nend\r\n",
    "yEnc in a text": b"\r\n=ybegin line=128 size=1 name=a.exe\r\nx\r\n=yend size=1\r\n",
    "boundary that begins like another": multipart("mixed", multipart("mixed", TEXT, boundary="b12"), TEXT),
    "related whose boundary begins like another": multipart(
        "mixed", multipart("related", HTML, IMAGE, boundary="b12"), TEXT
    ),
    "multipart that says it is not encoded": b"Content-Transfer-Encoding: 8Bit\r\n" + multipart("mixed", TEXT),
    "latin-1 with the octet of a next line": b"Subject: x\x85 y\r\n\r\nhello\r\n",
}
REFUSED = {
    "pdf": PDF,
    "mixed with pdf": multipart("mixed", TEXT, PDF),
    "disposition": multipart("mixed", TEXT, b"Content-Disposition: attachment\r\n\r\nx"),
    "unknown disposition": multipart("mixed", TEXT, b"Content-Disposition: frobnicate\r\n\r\nx"),
    "file name": multipart("mixed", b'Content-Type: text/plain; name="a.txt"\r\n\r\nx'),
    "RFC 2231 file name": multipart(
        "mixed", b"Content-Disposition: inline; filename*0*=utf-8''a; filename*1=b\r\n\r\nx"
    ),
    "image without Content-ID": multipart("related", HTML, BARE_IMAGE),
    "image outside related": multipart("mixed", HTML, IMAGE),
    "attached message": multipart("mixed", TEXT, b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nx"),
    "report with a sender": multipart("report", TEXT, REPORT),
    "two content types": b"Content-Type: text/plain\r\nContent-Type: application/pdf\r\n\r\nx",
    "nonsense type": b"Content-Type: frob\r\n\r\nx",
    "multipart without boundary": b"Content-Type: multipart/mixed\r\n\r\nx",
    "multipart without parts": b"Content-Type: multipart/mixed; boundary=q\r\n\r\nno such line\r\n",
    "no closing line": multipart("mixed", TEXT, PDF)[:-8],
    "folded disposition": b"Content-Disposition:\r\n attachment\r\n\r\nx",
    "deep": TEXT,
    "attachment in capitals": multipart("mixed", TEXT, b"Content-Disposition: ATTACHMENT\r\n\r\nx"),
    "attachment behind a comment": multipart("mixed", TEXT, b"Content-Disposition: (x) attachment\r\n\r\nx"),
    "file name in quotes": multipart("mixed", TEXT, b'Content-Disposition: inline; filename="a;b.txt"\r\n\r\nx'),
    "empty file name": multipart("mixed", TEXT, b'Content-Disposition: inline; filename=""\r\n\r\nx'),
    "encoded word as file name": multipart("mixed", TEXT, b'Content-Type: text/plain; name="=?utf-8?q?a?="\r\n\r\nx'),
    "file name in parts": multipart("mixed", b"Content-Type: text/plain; name*0=a;\r\n name*1=b\r\n\r\nx"),
    "file name over lines": multipart("mixed", b"Content-Disposition: inline;\r\n\tfilename=a.txt\r\n\r\nx"),
    "calendar with a file name": multipart("mixed", TEXT, b"Content-Type: text/calendar; name=a.ics\r\n\r\nx"),
    "calendar as an application": multipart("mixed", TEXT, b"Content-Type: application/ics\r\n\r\nx"),
    "TNEF": multipart("mixed", TEXT, b"Content-Type: application/ms-tnef\r\n\r\nx"),
    "S/MIME signature": multipart("signed", TEXT, b"Content-Type: application/pkcs7-signature\r\n\r\nx"),
    "S/MIME whole": b"Content-Type: application/pkcs7-mime; smime-type=signed-data\r\n\r\nx",
    "PGP": multipart("encrypted", b"Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1"),
    "audio with a Content-ID in related": multipart(
        "related", HTML, b"Content-Type: audio/ogg\r\nContent-ID: <a>\r\n\r\nx"
    ),
    "image in related said to be attached": multipart("related", HTML, b"Content-Disposition: attachment\r\n" + IMAGE),
    "message in parts": b"Content-Type: message/partial; id=a; number=1\r\n\r\nx",
    "message elsewhere": b"Content-Type: message/external-body; access-type=url\r\n\r\nx",
    "digest": multipart("digest", b"\r\nSubject: x\r\n\r\nx"),
    "line that begins like the boundary": multipart("mixed", TEXT + b"\r\n--b1x\r\n" + PDF),
    "line that begins like the boundary, at the end": multipart("mixed", TEXT) + b"--b1 x\r\n" + PDF,
    "multipart behind such a line": multipart("mixed", TEXT + b"\r\n--b1x\r\n" + multipart("mixed", PDF, boundary="q")),
    "file name behind a comment": multipart("mixed", b"Content-Disposition: inline; (c)filename=a.exe\r\n\r\nx"),
    "file name between quotes in comments": multipart(
        "mixed", b'Content-Disposition: inline; (") filename="a.exe" (")\r\n\r\nx'
    ),
    "name behind a comment": multipart("mixed", b"Content-Type: text/plain; (c)name=a.exe\r\n\r\nx"),
    "name behind a space": multipart("mixed", b"Content-Type: text/plain; charset=utf-8 name=a.exe\r\n\r\nx"),
    "encoded multipart": b"Content-Transfer-Encoding: base64\r\n" + multipart("mixed", TEXT),
    "disposition behind a form feed": multipart("mixed", b"X: y\x0cContent-Disposition: attachment\r\n\r\nx"),
    "disposition behind a next line": multipart("mixed", b"X: y\xc2\x85Content-Disposition: attachment\r\n\r\nx"),
    "type behind a line separator": b"X: y\xe2\x80\xa8Content-Type: application/pdf\r\n\r\nx",
    "boundary that begins with a space": b'Content-Type: multipart/mixed; boundary=" b1"\r\n\r\n--b1\r\n\r\nx\r\n-- b1\r\n'
    + PDF,
    "boundary that is an encoded word": b'Content-Type: multipart/mixed; boundary="=?utf-8?q?b1?="\r\n\r\n'
    b"--=?utf-8?q?b1?=\r\n\r\nx\r\n--b1\r\n" + PDF,
    "report within a mixed": multipart("mixed", multipart("report", TEXT, REPORT, boundary="inner")),
}
_deep = TEXT
for level in range(25):
    _deep = multipart("mixed", _deep, boundary=f"n{level}x")
REFUSED["deep"] = _deep


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name: str) -> None:
    assert attachment(ALLOWED[name], read(ALLOWED[name]), null_reverse_path=False) is None


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    assert attachment(REFUSED[name], read(REFUSED[name]), null_reverse_path=False)


def test_a_bounce_may_carry_its_report() -> None:
    bounce = multipart("report", TEXT, REPORT, b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nx")
    assert attachment(bounce, read(bounce), null_reverse_path=True) is None
    mixed = REFUSED["report within a mixed"]
    assert attachment(mixed, read(mixed), null_reverse_path=True)


@pytest.mark.parametrize(
    ("value", "offers"),
    [
        (b"<https://shop.test/u?x=1>", True), (b"<mailto:out@shop.test?subject=unsubscribe>", True), (b"(x) < HTTPS://shop.test/u >", True),
        (b"<http://shop.test/u>, <mailto:out@shop.test>", True), (b"<https://shop.test/\r\n u>", True), (b"<http://shop.test/u>", False), (b"https://shop.test/u", False),
        (b"<https://shop.test/u", False), (b"", False), (b"NO", False),
    ],
)  # fmt: skip
def test_list_unsubscribe(value: bytes, offers: bool) -> None:
    assert list_unsubscribe(read(b"List-Unsubscribe: " + value + b"\r\n\r\nx\r\n")) is offers


def html(text: str, encoding: str = "8bit") -> bytes:
    body = text.encode()
    if encoding == "base64":
        body = base64.encodebytes(body).replace(b"\n", b"\r\n")
    elif encoding == "quoted-printable":
        body = quopri.encodestring(body).replace(b"\n", b"\r\n")
    head = f"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + body + b"\r\n"


def plain(text: str) -> bytes:
    return b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + text.encode() + b"\r\n"


WAY_OUT = {
    "words of the anchor": html("<a href='https://shop.test/x'>Click to <b>unsubscribe</b></a>"),
    "address of the anchor": html("<a href='https://shop.test/un%73ubscribe?id=1'>here</a>"), "mailto": html("<a href=mailto:unsubscribe@shop.test>here</a>"),
    "picture": html("<a href='https://shop.test/x'><img src=y alt='Unsubscribe'></a>"), "German": html("<a href='https://shop.test/x'>Newsletter abbestellen</a>"),
    "French": html("<a href='https://shop.test/x'>Se d&eacute;sabonner</a>"), "Spanish": html("<a href='https://shop.test/x'>Darse de baja</a>"), "Japanese": html("<a href='https://shop.test/x'>配信停止はこちら</a>"),
    "quoted-printable": html("<p>" + "ä" * 300 + "</p><a href='https://shop.test/x'>opt-out</a>", "quoted-printable"), "base64": html("<a href='https://shop.test/x'>Opt out</a>", "base64"),
    "plain text": plain("To unsubscribe go to\r\nhttps://shop.test/x"), "address in plain text": plain("See https://shop.test/unsubscribe?id=1 for that"),
    "either part": multipart("alternative", plain("hello"), html("<a href='https://shop.test/x'>unsubscribe</a>")),
    "words beside the anchor": html("<p>Wenn Sie keine Post mehr m&ouml;chten, k&ouml;nnen Sie sich <b>ab&shy;melden</b>: <a href='https://shop.test/x'>hier</a>"),
    "words behind the anchor": html("<a href='https://shop.test/x'>Click here</a> to unsubscribe"), "title": html("<a href='https://shop.test/x' title='Unsubscribe'><img src=y></a>"),
    "long address": html("<a href='https://shop.test/" + "x" * 5000 + "'>unsubscribe</a>"), "address with a capital": plain("Unsubscribe: Https://shop.test/x"), "address without a scheme": plain("Unsubscribe at www.shop.test/x"),
    "third of close anchors": html("<a href='https://shop.test/x'>a</a> <a href='https://shop.test/x'>b</a> <a href='https://shop.test/x'>c</a>" + " " * 180 + "unsubscribe"),
    "behind much else": html("<p>" + "x" * 1_200_000 + "</p><a href='https://shop.test/x'>unsubscribe</a>"),
}  # fmt: skip
NO_WAY_OUT = {
    "nothing": html("<p>hello</p>"), "words without a link": html("<p>unsubscribe</p>"), "anchor without address": html("<a>unsubscribe</a>"), "script": html("<a href='javascript:unsubscribe()'>unsubscribe</a>"),
    "anchor in a comment": html("<!-- <a href='https://shop.test/x'>unsubscribe</a> -->"), "words far from the anchor": html("<p>unsubscribe" + " x" * 300 + "<a href='https://shop.test/x'>here</a>" + " x" * 300 + "unsubscribe"),
    "plain text, too far": plain("unsubscribe" + " x" * 300 + " https://shop.test/x"), "attached text": multipart("mixed", b"Content-Disposition: attachment\r\n" + plain("unsubscribe https://shop.test/x")),
    "a form": html('<p>To unsubscribe: <form action="https://shop.test/unsubscribe"><button>Unsubscribe</button></form>'),
    "no text": b"Content-Type: image/png\r\n\r\nunsubscribe https://shop.test\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", WAY_OUT)
def test_a_way_to_unsubscribe(name: str) -> None:
    assert unsubscribe_link(texts_of(WAY_OUT[name], read(WAY_OUT[name]))).found


@pytest.mark.parametrize("name", NO_WAY_OUT)
def test_no_way_to_unsubscribe(name: str) -> None:
    assert not unsubscribe_link(texts_of(NO_WAY_OUT[name], read(NO_WAY_OUT[name]))).found


def test_html_is_looked_at_decoded_and_not_without_end() -> None:
    def found(message: bytes) -> tuple[object, str]:
        finding = html_finding(texts_of(message, read(message)))
        return finding.fault and (finding.fault.line, finding.fault.column), finding.unchecked

    assert found(html("<p>\r\n<b>x</p>", "base64")) == ((2, 5), "")
    assert found(html("<p>\r\n<b>x</p>", "quoted-printable")) == ((2, 5), "")
    assert found(plain("<b>")) == (None, "")
    assert found(REFUSED["deep"]) == (None, "HTML was not checked: the structure is too complex")
    fault, unchecked = found(multipart("alternative", html("<b>" * 400_000), html("<p>x</p>")))
    assert fault is None and unchecked.startswith("HTML was not checked: 12")


@pytest.mark.parametrize(
    "words",
    ["I no longer want to receive these", "Cancel your subscription", "Remove me from this list", "Manage email preferences", "Abmeldelink", "Melden Sie sich hier ab", "Newsletter nicht mehr erhalten",
     "Ne plus recevoir", "Darte de baja", "Date de baja", "Desuscribirse", "Cancelar tu suscripción", "Anular suscripción", "Annulla l’iscrizione", "Cancella l'iscrizione", "Cancellati dalla newsletter",
     "Cancelar a subscrição", "Cancele sua inscrição", "Schrijf je uit", "Meld je af", "Meld deg av", "Peru tilaus", "Anuluj subskrypcję", "Odhlášení", "Odhlaste se", "Odhlásiť sa", "Διαγραφή από τη λίστα",
     "Отпишете се", "Отпишитесь", "Odjavite se", "メール配信の停止", "登録解除", "להסרה מרשימת התפוצה", "Hủy đăng ký", "Berhenti berlangganan"],
)  # fmt: skip
def test_ways_out_in_many_languages(words: str) -> None:
    message = html(f"<a href='https://shop.test/x'>{words}</a>")
    assert unsubscribe_link(texts_of(message, read(message))).found


def test_no_more_html_is_read_than_a_message_may_make_work() -> None:
    part = html("<p>" + "x" * 600_000 + "</p>")
    message = multipart("alternative", part, part, html("<p>" + "x" * 600_000 + "</b>"), html("<b>"))
    found = html_finding(texts_of(message, read(message)))
    assert found.fault is not None and found.fault.text == "<b> is not closed"
    assert "1048576 of a message" in found.unchecked


def test_a_large_message_in_many_levels_is_not_searched_for_long() -> None:
    nested = b"Content-Type: text/plain\r\n\r\n" + b"x" * 10_485_760
    for level in range(5):
        nested = multipart("mixed", nested, boundary=f"n{level}x")
    assert attachment(nested, read(nested), null_reverse_path=False) is None
    for level in range(5, 18):
        nested = multipart("mixed", nested, boundary=f"n{level}x")
    assert attachment(nested, read(nested), null_reverse_path=False) == "its structure is too complex to look through"


def test_no_more_text_is_searched_than_a_message_may_make_work() -> None:
    long, link = plain("x" * 1_048_576), plain("unsubscribe: https://shop.test/x")
    for before, found in ((1, True), (2, False), (3, False)):
        message = multipart("mixed", *[long] * before, link)
        finding = unsubscribe_link(texts_of(message, read(message)))
        assert finding.found is found
        assert found or finding.unsearched.startswith("only the last 1048576 signs of each text are searched")
    assert unsubscribe_link([]).unsearched == ""
    assert unsubscribe_link(None).unsearched == "the structure is too complex to look through"


def test_of_the_last_text_that_is_searched_the_end_is_read() -> None:
    link = "unsubscribe: https://shop.test/x"
    message = multipart("mixed", plain("x" * 1_048_576), plain("x" * 1000), plain("x" * 1_048_576 + link))
    assert unsubscribe_link(texts_of(message, read(message))).found
