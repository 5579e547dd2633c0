"""Mails of every kind, read for people."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.console.reading import clean, read_mail


def mail(*lines: str) -> bytes:
    return "\r\n".join(lines).encode("latin-1")


def test_a_plain_mail() -> None:
    found = read_mail(
        mail("Received: from a by b with ESMTPSA id 001ABC; today", "From: A <a@x.test>", "SUBJECT: =?utf-8?q?Gr=C3=BC=C3=9Fe?=", "", "Hi", "")
    )  # fmt: skip
    assert found.fields == (("From", "A <a@x.test>"), ("Subject", "Grüße"))
    assert (found.text, found.html, found.parts, found.queue_id) == ("Hi\r\n", None, (), "001ABC")


def test_alternatives_and_other_parts() -> None:
    found = read_mail(
        mail(
            'Content-Type: multipart/mixed; boundary="m"', "",
            "--m", 'Content-Type: multipart/alternative; boundary="a"', "",
            "--a", "Content-Type: text/plain; charset=iso-8859-1", "", "Gr\xfc\xdfe",
            "--a", "Content-Type: text/html; charset=utf-8", "Content-Transfer-Encoding: base64", "", base64.b64encode("<p>Grüße".encode()).decode(),
            "--a--",
            "--m", 'Content-Type: text/plain; name="notes.txt"', "Content-Disposition: attachment", "", "notes",
            "--m", 'Content-Type: application/pdf; name="<b>.pdf"', "Content-Transfer-Encoding: base64", "", "eHh4",
            "--m--",
        )
    )  # fmt: skip
    assert found.text == "Grüße"
    assert found.html is not None and found.html.startswith("<p>Grüße")
    assert found.parts == ("text/plain notes.txt, 5 octets", "application/pdf <b>.pdf, 3 octets")
    assert found.readable


def test_pictures_that_the_mail_carries_are_put_into_its_html() -> None:
    found = read_mail(
        mail(
            'Content-Type: multipart/related; boundary="r"', "",
            "--r", "Content-Type: text/html", "", '<img src="cid:logo@x"><img src="CID:none"><img src="cid:page">',
            "--r", "Content-Type: image/png", "Content-ID: <logo@x>", "Content-Transfer-Encoding: base64", "", "eHh4",
            "--r", "Content-Type: text/html", "Content-ID: <page>", "", "<script>",
            "--r--",
        )
    )  # fmt: skip
    assert found.html is not None
    assert '<img src="data:image/png;base64,eHh4"><img src="CID:none"><img src="cid:page">' in found.html


def test_html_opens_no_connection_by_itself_and_its_links_are_listed() -> None:
    found = read_mail(
        mail("Content-Type: text/html", "", '<IFRAME/src="http://x/"></iframe><link rel=preconnect href="http://y/"><area HREF = "http://y/?a&amp;b">',
             "<object data=o><a href='https://z/'>z</a><a href=https://z/>again</a><a href='javascript:alert(1)'>j</a><linked>")
    )  # fmt: skip
    assert found.html is not None
    assert "<x-IFRAME/src=" in found.html and "</x-iframe>" in found.html
    assert "<x-link " in found.html and "<x-object " in found.html and "<linked>" in found.html
    assert found.links == ("http://y/?a&b", "https://z/")


@pytest.mark.parametrize("charset", ["no-such", "hex", "undefined", "idna", "a\0b", "=?x?=", '""', "utf-16", "unicode_escape", "punycode"])  # fmt: skip
def test_broken_charsets_are_read_all_the_same(charset: str) -> None:
    found = read_mail(mail(f"Content-Type: text/plain; charset={charset}", "", "abc \\ud800 \xff", ""))
    assert found.text
    assert clean(found.text) == found.text


def test_eight_bit_headers_are_shown() -> None:
    raw = "Subject: Grüße\r\nFrom: Zoë <z@x.test>\r\nTo: \r\n\r\n".encode()
    assert read_mail(raw).fields == (("From", "Zoë <z@x.test>"), ("To", ""), ("Subject", "Grüße"))
    latin = 'Subject: Gr\xfc\r\nContent-Type: application/x; name="gr\xfc"\r\n\r\nx'.encode("latin-1")
    found = read_mail(latin)
    assert found.fields == (("Subject", "Gr�"),)
    assert found.parts == ("application/x gr�, 1 octets",)


def test_no_body_no_header_nothing() -> None:
    assert read_mail(b"").text == ""
    assert read_mail(b"Subject: only\r\n").fields == (("Subject", "only"),)
    assert read_mail(b" begins folded\r\n\r\nbody").fields == ()
    assert read_mail(b"Content-Type: text/html\r\n\r\n").html is not None


def test_broken_mime_is_read_as_far_as_it_goes() -> None:
    no_boundary = read_mail(mail("Content-Type: multipart/mixed", "", "--x", "", "hi"))
    assert no_boundary.readable and no_boundary.text is None
    unended = read_mail(mail("Content-Type: multipart/mixed; boundary=b", "", "--b", "", "hi"))
    assert unended.text == "hi"
    bad_base64 = read_mail(mail("Content-Transfer-Encoding: base64", "", "a*b"))
    assert bad_base64.text is not None


def test_a_mail_nested_too_deep_is_said_to_be_unreadable() -> None:
    deep = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(3000)
    )
    found = read_mail(b"Subject: deep\r\n" + deep)
    assert not found.readable
    assert found.fields == (("Subject", "deep"),)


_PIECES = st.sampled_from(
    [b"Subject: ", b"From: ", b"Content-Type: ", b"multipart/mixed; boundary=b", b"text/html; charset=", b"\r\n", b"\r\n\r\n", b"--b", b"--", b"=?utf-8?b?", b"Content-Transfer-Encoding: base64", b"Content-Disposition: attachment; filename*=x''%ff", b"Content-ID: <a>", b"message/rfc822"]
)  # fmt: skip


@given(st.lists(st.one_of(_PIECES, st.binary(max_size=8)), max_size=30).map(b"".join))
def test_any_bytes_can_be_shown(raw: bytes) -> None:
    found = read_mail(raw)
    told = [found.text or "", found.html or "", *found.parts, *found.links, *(value for _, value in found.fields)]
    joined = "".join(told)
    assert joined.encode().decode() == joined


def test_reading_takes_linear_time() -> None:
    """Each of these is quadratic for a careless pattern: far beyond the run's patience, not a matter of seconds."""
    for piece in (b"<a ", b"<a href=", b"cid:", b"<iframe", b"<!--"):
        assert read_mail(b"Content-Type: text/html\r\n\r\n" + piece * 300_000).html
