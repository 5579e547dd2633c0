"""The walk through MIME parts: whatever some reader could take for a file is never reported as text."""

from __future__ import annotations

import pytest

from outgate.message.fields import read
from outgate.message.mime import Leaf, TooComplex, leaves

PDF = b"Content-Type: application/pdf\r\n\r\n%PDF\r\n"
TEXT = b"Content-Type: text/plain\r\n\r\nhello\r\n"
MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"


def types(content: bytes) -> list[str]:
    return [leaf.type for leaf in leaves(content, read(content))]


def test_parts_in_order_with_what_is_around_them() -> None:
    inner = (
        b"Content-Type: multipart/alternative; boundary=i\r\n\r\n--i\r\n"
        + TEXT
        + b"--i\r\nContent-Type: TEXT/HTML\r\n\r\nx\r\n--i--\r\n"
    )
    content = MIXED + b"preamble\r\n--b\r\n" + inner + b"--b\r\n" + PDF + b"--b--\r\nepilogue\r\n"
    assert leaves(content, read(content)) == [
        Leaf("text/plain", False, False, False, ("multipart/mixed", "multipart/alternative")),
        Leaf("text/html", False, False, False, ("multipart/mixed", "multipart/alternative")),
        Leaf("application/pdf", False, False, False, ("multipart/mixed",)),
    ]


def test_a_plain_message_is_one_leaf_whatever_its_body_looks_like() -> None:
    assert types(b"Subject: x\r\n\r\n--b\r\n" + PDF) == ["text/plain"]


HIDDEN = {
    "behind a transparency dot": MIXED + b"--b\r\n" + TEXT + b".--b\r\n" + PDF + b"--b--\r\n",
    "in a part's stuffed field": MIXED + b"--b\r\n.Content-Type: application/pdf\r\n\r\nx\r\n--b--\r\n",
    "behind a closing line that is none": MIXED + b"--b\r\n" + TEXT + b"--b--junk\r\n--b\r\n" + PDF + b"--b--\r\n",
    "behind a closing line that follows a boundary line": MIXED + b"--b\r\n--b--\r\n" + PDF,
    "behind the closing line": MIXED + b"--b\r\n" + TEXT + b"--b--\r\n--b\r\n" + PDF + b"--b--\r\n",
    "behind white space on the boundary line": MIXED + b"--b\r\n" + TEXT + b"--b \t\r\n" + PDF + b"--b--\r\n",
    "without a closing line": MIXED + b"--b\r\n" + TEXT + b"--b\r\n" + PDF,
    "in a digest": b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: x\r\n\r\nx\r\n--b--\r\n",
    "in a part whose header is broken": MIXED + b"--b\r\nstray\r\nContent-Type: application/pdf\r\n\r\nx\r\n--b--\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_nothing_hides(name: str) -> None:
    assert any(not found.startswith("text/") for found in types(HIDDEN[name]))


@pytest.mark.parametrize(
    "value",
    [
        b"multipart/mixed", b"multipart/mixed; boundary=", b"multipart/mixed; boundary=a; boundary=b", b"multipart/mixed; boundary=b c",
        b'multipart/mixed; boundary="a"b', b"multipart/mixed; boundary*0=b", b"multipart/mixed; (; boundary=a) boundary=b",
        b'multipart/mixed; boundary="b', b'multipart/mixed; x="unclosed; boundary=b', b"multipart/mixed boundary=b",
    ],
)  # fmt: skip
def test_a_boundary_that_readers_may_read_differently_is_no_structure(value: bytes) -> None:
    body = b"--b\r\n" + TEXT + b"--a\r\n" + TEXT + b"--b--\r\n"
    assert types(b"Content-Type: " + value + b"\r\n\r\n" + body) == ["application/octet-stream"]


@pytest.mark.parametrize("value", [b'multipart/mixed; boundary="b"', b"Multipart/Mixed;\r\n\tBOUNDARY=b ; x=y", b'multipart/mixed; x="; boundary=q"; boundary=b', b'multipart/mixed; boundary="\\b"'])  # fmt: skip
def test_boundaries_as_they_are_written(value: bytes) -> None:
    assert types(b"Content-Type: " + value + b"\r\n\r\n--b\r\n" + TEXT + b"--b--\r\n") == ["text/plain"]


def test_a_boundary_with_a_space_in_quotes() -> None:
    content = b'Content-Type: multipart/mixed; boundary="=_a b"\r\n\r\n--=_a b\r\n' + TEXT + b"--=_a b--\r\n"
    assert types(content) == ["text/plain"]


@pytest.mark.parametrize(
    ("fields", "attachment", "named", "kind"),
    [
        (b"Content-Disposition: inline", False, False, "text/plain"),
        (b"Content-Disposition: ATTACHMENT", True, False, "text/plain"),
        (b"Content-Disposition: inline; filename=a", False, True, "text/plain"),
        (b"Content-Disposition: inline; filename*=utf-8''a", False, True, "text/plain"),
        (b'Content-Type: text/plain; NAME="a b"', False, True, "text/plain"),
        (b'Content-Disposition: inline; x="', False, False, "application/octet-stream"),
        (b"Content-Disposition: inline\r\nContent-Disposition: attachment", False, False, "application/octet-stream"),
        (b'Content-Type: text/plain; x="unclosed', False, False, "application/octet-stream"),
    ],
)
def test_what_a_part_says_of_itself(fields: bytes, attachment: bool, named: bool, kind: str) -> None:
    content = fields + b"\r\n\r\nx\r\n"
    (leaf,) = leaves(content, read(content))
    assert (leaf.attachment, leaf.named, leaf.type) == (attachment, named, kind)


def test_too_many_and_too_deep() -> None:
    many = MIXED + (b"--b\r\n" + TEXT) * 1200 + b"--b--\r\n"
    with pytest.raises(TooComplex):
        types(many)
    deep = TEXT
    for level in range(25):
        name = b"n%dx" % level
        deep = (
            b"Content-Type: multipart/mixed; boundary="
            + name
            + b"\r\n\r\n--"
            + name
            + b"\r\n"
            + deep
            + b"\r\n--"
            + name
            + b"--\r\n"
        )
    with pytest.raises(TooComplex):
        types(deep)


def test_hostile_parameters_take_linear_time() -> None:
    """Each of these took minutes where the time grew with the square of the length."""
    for value in (
        b'text/plain; x="' + b'\\"' * 100_000,
        b"text/plain" + b';a="\\"' * 40_000,
        b"text/plain" + b";" * 200_000,
    ):
        content = b"Content-Type: " + value + b"\r\n\r\nx\r\n"
        assert len(types(content)) == 1
