"""Rule 10: what counts as an attachment."""

from __future__ import annotations

import pytest

from outgate.message.fields import read
from outgate.relay.content import attachment


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
    "boundary that begins like another": multipart("mixed", multipart("mixed", TEXT, boundary="b12"), TEXT),
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
