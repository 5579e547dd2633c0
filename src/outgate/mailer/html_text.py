"""What an HTML body says to those who read plain text.

Standards: none; WHATWG HTML as Python's `html.parser` reads it.
Promises: pure; any text gives a text without tags, scripts and styles; a link keeps its address.
Dangers: for people to read: nothing may be decided by it.
Not here: whether the HTML is well-formed (`message.html`).
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

_SILENT = frozenset({"script", "style", "head", "template", "title"})
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "dd",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "tr",
        "ul",
    ]
)
_SPACED = frozenset(["blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "pre", "table", "ul"])


def plain_text(html: str) -> str:
    """Return the text of an HTML document or fragment, for a part beside it. Ends with a line end."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    text = "".join(reader.said)
    lines = [re.sub(r"[ \t\f\v\xa0]+", " ", line).strip() for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.said: list[str] = []
        self._silent: list[str] = []
        self._links: list[str] = []
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "body":  # ends a head that nobody closed
            self._silent.clear()
        if tag in _SILENT:
            self._silent.append(tag)
        if self._silent:
            return
        if tag == "pre":
            self._preformatted += 1
        if tag == "br" or tag in _BLOCKS:
            self._break(2 if tag in _SPACED else 1, always=tag == "br")
        if tag == "li":
            self.said.append("* ")
        elif tag in ("td", "th"):
            self.said.append(" ")
        elif tag == "img":
            self.said.append(dict(attrs).get("alt") or "")
        elif tag == "a":
            self._links.append((dict(attrs).get("href") or "").strip())

    def handle_endtag(self, tag: str) -> None:
        if self._silent:
            if tag in self._silent:
                while self._silent.pop() != tag:
                    pass
            return
        if tag == "pre" and self._preformatted:
            self._preformatted -= 1
        if tag in _BLOCKS:
            self._break(2 if tag in _SPACED else 1)
        elif tag == "a" and self._links:
            address = self._links.pop().removeprefix("mailto:")
            if address and not address.startswith("#") and not "".join(self.said[-3:]).rstrip().endswith(address):
                self.said.append(f" <{address}>")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.said.append(data if self._preformatted else re.sub(r"\s+", " ", data))

    def _break(self, lines: int, *, always: bool = False) -> None:
        """End the line, and leave one empty if `lines` is 2; `always`: also where the line is empty already."""
        if always or (self.said and not self.said[-1].endswith("\n" * lines)):
            self.said.append("\n" * lines)
