"""What an HTML body says to those who read plain text.

Standards: none; of WHATWG HTML section 13 what mail has: elements, comments, raw text, character references.
Promises: pure; linear time; any text gives a text without tags, scripts and styles; a link keeps its address.
Dangers: for people to read: nothing may be decided by it. Python's own `html.parser` takes the square of the time for
some texts, and raises for others.
Not here: whether the HTML is well-formed (`message.html`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape as _unescape

_SILENT = frozenset({"head", "template"})
_RAW = frozenset({"script", "style", "title", "textarea", "noembed", "xmp"})
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


_NEAR = 2000  # signs before the end of a link, in which its address may stand already

# A tag ends before the next `<`, and a name begins behind a space, so that each sign is looked at a few times at most.
_TAG = re.compile(r"""<(/?)([A-Za-z][^\s/<>]*+)((?:[^<>"']++|"[^"<]*+"|'[^'<]*+')*+)>""")
_ATTRIBUTE = re.compile(r"""(?<![^\s/"'])([^\s=/"']++)\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s"']++))""")


_NUMBER = re.compile("&#0*([0-9]{1,8})[0-9]*+")


def unescape(text: str) -> str:
    """Replace character references. A number too long for any sign is cut: Python would not read it."""
    return _unescape(_NUMBER.sub(r"&#\1", text)) if "&" in text else text


def plain_text(html: str) -> str:
    """Return the text of an HTML document or fragment, for a part beside it. Ends with a line end."""
    reader = _Reader()
    for text, ending, tag, attributes in _pieces(html):
        if text:
            reader.text(text)
        elif ending:
            reader.end(tag)
        else:
            reader.start(tag, attributes)
    lines = [re.sub(r"[ \t\f\v\xa0]+", " ", line).strip() for line in "".join(reader.said).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"


def _pieces(html: str) -> Iterator[tuple[str, bool, str, str]]:
    """Yield texts, and tags: whether one ends an element, its name, its attributes."""
    at = 0
    while (start := html.find("<", at)) >= 0:
        if start > at:
            yield html[at:start], False, "", ""
        found = _TAG.match(html, start)
        if html.startswith("<!--", start):
            end = html.find("-->", start + 4)
            at = end + 3 if end >= 0 else len(html)
        elif html.startswith(("<!", "<?"), start):
            end = html.find(">", start)
            at = end + 1 if end >= 0 else len(html)
        elif found is None:
            yield "<", False, "", ""
            at = start + 1
        else:
            tag = found[2].lower()
            at = found.end()
            yield "", bool(found[1]), tag, found[3]
            if tag in _RAW and not found[1]:
                closing = re.compile(rf"</{tag}\b", re.IGNORECASE).search(html, at)
                at = closing.start() if closing else len(html)
    if at < len(html):
        yield html[at:], False, "", ""


def _attribute(attributes: str, name: str) -> str:
    for found in _ATTRIBUTE.finditer(attributes):
        if found[1].lower() == name:
            return unescape(found[2] or found[3] or found[4] or "").strip()
    return ""


class _Reader:
    def __init__(self) -> None:
        self.said: list[str] = []
        self._silent = 0
        self._links: list[str] = []
        self._preformatted = 0

    def start(self, tag: str, attributes: str) -> None:
        if tag == "body":  # ends a head that nobody closed
            self._silent = 0
        if tag in _SILENT:
            self._silent += 1
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
            self.said.append(_attribute(attributes, "alt"))
        elif tag == "a":
            self._links.append(_attribute(attributes, "href"))

    def end(self, tag: str) -> None:
        if self._silent:
            self._silent -= tag in _SILENT
            return
        if tag == "pre" and self._preformatted:
            self._preformatted -= 1
        if tag in _BLOCKS:
            self._break(2 if tag in _SPACED else 1)
        elif tag == "a" and self._links:
            address = self._links.pop().removeprefix("mailto:")
            shown = "".join(said[-_NEAR:] for said in self.said[-3:]).rstrip()
            if address and not address.startswith("#") and not shown.endswith(address):
                self.said.append(f" <{address}>")

    def text(self, text: str) -> None:
        if not self._silent:
            plain = unescape(text)
            self.said.append(plain if self._preformatted else re.sub(r"\s+", " ", plain))

    def _break(self, lines: int, *, always: bool = False) -> None:
        """End the line, and leave one empty if `lines` is 2; `always`: also where the line is empty already."""
        if always or (self.said and not self.said[-1].endswith("\n" * lines)):
            self.said.append("\n" * lines)
