"""Two other readers of HTML as witnesses: lexbor for links, JustHTML for faults."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from justhtml import JustHTML
from selectolax.lexbor import LexborHTMLParser

from outgate.message.html import fault, links

WORDS = st.sampled_from(["hello", "a &amp; b", "x &lt; y", "<br>", "<img src='y' alt='pic'>", "<!-- <a href='hidden'>x</a> -->", "<style>a > b {}</style>", "\r\n"])  # fmt: skip
NAMES = st.sampled_from(["b", "i", "em", "span", "u", "font"])
ANCHORS = st.builds(
    lambda quote, words: f"<a class=x href={quote}https://shop.test/?a=1&amp;b=2{quote}>{words}</a>", st.sampled_from("'\""), st.sampled_from(["out", "un<b>sub</b>"])
)  # fmt: skip
INLINE = st.recursive(
    WORDS | ANCHORS,
    lambda inner: st.builds(
        lambda name, parts: f"<{name}>{''.join(parts)}</{name}>", NAMES, st.lists(inner, max_size=3)
    ),
    max_leaves=8,
)
BLOCKS = st.lists(
    st.builds("<{0}>{1}</{0}>".format, st.sampled_from(["div", "p", "td", "h1"]), INLINE), max_size=3
).map("".join)
SOUP = st.lists(st.sampled_from(["<b>", "</b>", "<div>", "</div>", "<i x=1>", "</i>", "x", "<br>", "<a href='x'", ">", "</span>"]), max_size=10).map("".join)  # fmt: skip
# What HTML forbids and mail is full of; mending it by hand is no reader's trouble.
NOT_OURS = {"expected-doctype-but-got-start-tag", "expected-doctype-but-got-chars", "expected-doctype-but-got-end-tag"}


@given(BLOCKS)
def test_well_formed_html_has_the_links_that_another_reader_finds(html: str) -> None:
    assert fault(html) is None
    theirs = [node.attributes.get("href") for node in LexborHTMLParser(html).css("a[href]")]
    assert [link.href for link in links(html)] == theirs


@given(SOUP)
def test_what_another_reader_calls_a_fault_is_one(html: str) -> None:
    found = {error.code for error in JustHTML(html, collect_errors=True).errors} - NOT_OURS
    if found:
        assert fault(html) is not None, found
