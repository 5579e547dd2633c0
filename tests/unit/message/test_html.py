"""HTML of mail: what is well-formed, where the first fault is, and where links lead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.message.html import Fault, Link, fault, links

XHTML = (
    '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">\r\n'
    '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:o="urn:x"><head><meta charset="utf-8" /><title>a < b</title>\r\n'
    "<!--[if mso]><xml><o:x/></xml><![endif]--><style>a > b { content: '</'; }</style></head>\r\n"
    "<body><!--[if !mso]><!--><p>x<![if !mso]>y<![endif]></p><!--<![endif]--><o:p></o:p><?xml:namespace o ?>\r\n"
    '<table><tr><td>1<td>2<tr><td><a href="https://x.test/?a=1&b=2">x</a></table><img src=x alt=\'a "b"\'/><br></body></html>'
)
WELL_FORMED = {
    "nothing": "", "text": "hello", "fragment": "<p>hello <b>you</b></p>", "XHTML of mail programs": XHTML,
    "end tags left out": "<ul><li>a<li>b</ul><dl><dt>a<dd>b</dl><p>a<p>b", "void elements": "<br><hr><img src=x><input disabled>",
    "self-closed": "<p/><div/><br/>", "upper case": "<P><B>x</b></P>", "table": "<table><thead><tr><th>a<tbody><tr><td>b</table>",
    "short comments": "<!--><!---><p>x</p>", "script": "<script>if (a < b) { x('<b>') }</script>", "text area": "<textarea><b></textarea>",
    "no quotes": "<a href=https://x.test/?a=b>x</a>", "svg": '<svg viewBox="0 0 1 1"><path d="M0"/></svg>', "ampersand": "<p>a & b &copy</p>",
    "start tags left out": "<title>x</title></head><table><col></colgroup><tr><td>x</td></tr></tbody></table></body></html>", "footer put behind": "<html><body>x</body></html><p>y</p></body></html>",
}  # fmt: skip
FAULTY = {
    "open": ("<div><p>x", 1, 1), "open within": ("<p>a\r\n<b>b</p>", 2, 5), "crossed": ("<b><i>x</b></i>", 1, 8), "stray end": ("<p>x</p></div>", 1, 9),
    "stray end of p": ("x</p>", 1, 2), "end of a void element": ("<br></br>", 1, 5), "tag without end": ("<p>x</p>\n<a href='x'", 2, 1),
    "quote without end": ('<a href="x>y</a>', 1, 1), "attribute twice": ("<a b=1 B=2>x</a>", 1, 1), "no space": ('<a b="1"c="2">x</a>', 1, 1),
    "quote in a name": ('<a b="1" c"=2>x</a>', 1, 1), "no value's name": ("<a =x>x</a>", 1, 1), "bare <": ("<p>1 < 2</p>", 1, 6),
    "comment without end": ("<p>x</p><!-- y", 1, 9), "declaration without end": ("<!DOCTYPE html", 1, 1), "script without end": ("<p><script>x</p>", 1, 4),
    "stray end of a body of a table": ("<div>x</tbody></div>", 1, 7), "stray end of body": ("<div>x</body></div>", 1, 7), "NUL": ("<p>\0</p>", 1, 4), "div in a cell": ("<table><tr><td><div>x</td></tr></table>", 1, 22),
}  # fmt: skip


@pytest.mark.parametrize("name", WELL_FORMED)
def test_well_formed(name: str) -> None:
    assert fault(WELL_FORMED[name]) is None


@pytest.mark.parametrize("name", FAULTY)
def test_the_first_fault_has_its_place(name: str) -> None:
    text, line, column = FAULTY[name]
    found = fault(text)
    assert isinstance(found, Fault) and found.text
    assert (found.line, found.column) == (line, column)


def test_links() -> None:
    text = "<a name=x>no</a><A HREF='https://a.test/?x=1&amp;y=2'>one <b>bold</b>\n<img alt='pic'></A> - <!-- <a href=hidden>x</a> --><a href=mailto:b@c.test>two<p>three"
    assert list(links(text)) == [
        Link("https://a.test/?x=1&y=2", "one bold pic", text.index("<A"), text.index("</A>")),
        Link("mailto:b@c.test", "two three", text.index("<a href=mailto"), len(text)),
    ]
    assert [link.text for link in links("<a href=x title='a &amp; b'><img src=y></a><area href=z alt=c>")] == [
        "a & b",
        "c",
    ]


PIECES = st.sampled_from(["<", ">", "<p>", "</p>", "<b", "</", "<!--", "-->", "<a href=", '"', "'", "=", " ", "/", "<script>", "</script", "<![if", "x", "\0", "&lt", "İ"])  # fmt: skip


@given(st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=60))
def test_anything_gives_a_verdict(text: str) -> None:
    found = fault(text)
    assert found is None or (found.line >= 1 and found.column >= 1)
    assert all(len(link.text) <= 500 for link in links(text))


@pytest.mark.parametrize(
    "text",
    ["<b>" * 30_000 + "<div>" * 30_000 + "</b>" * 30_000, "<a " + " ".join(f"x{n}=1" for n in range(60_000)) + ">", "<" * 200_000, "<a href=\"" * 60_000, "<a b='" * 50_000 + "\"",
     "<!--" * 60_000, "<a b" + " " * 300_000 + ">", "<p>" * 100_000 + "</div>", "<a href=x>" * 50_000, "<script>" * 40_000, "<a b= " * 60_000],
    ids=str.__len__,
)  # fmt: skip
def test_hostile_html_takes_linear_time(text: str) -> None:
    """The first of these took a tree-building parser most of a minute at a fiftieth of the size."""
    fault(text)
    assert sum(1 for _ in links(text)) <= 50_000
