"""Read HTML as mail has it: is it well-formed, and where do its links lead?

Standards: WHATWG HTML section 13 (void elements, end tags that may be left out, raw text, attributes).
Promises: linear time and no tree, whatever comes; the first fault is told with its line and column; what mail programs
    need is no fault: no DOCTYPE, an old one, conditional comments, `o:p`, end tags that HTML lets one leave out,
    XHTML's `/>`, a bare `&`.
Dangers: well-formed is not valid: unknown elements, attributes and nesting (`div` in `p`) are not judged.
Not here: decoding (`text`), what follows from a fault (`relay.policy`).
"""

from __future__ import annotations

import html as entities
import re
from collections.abc import Iterator
from dataclasses import dataclass

_VOID = frozenset(
    [
        "area",
        "base",
        "basefont",
        "bgsound",
        "br",
        "col",
        "embed",
        "frame",
        "hr",
        "img",
        "input",
        "keygen",
        "link",
        "meta",
        "param",
        "source",
        "track",
        "wbr",
    ]
)
_MAY_STAY_OPEN = frozenset(
    [
        "html",
        "head",
        "body",
        "p",
        "li",
        "dt",
        "dd",
        "rb",
        "rt",
        "rtc",
        "rp",
        "optgroup",
        "option",
        "caption",
        "colgroup",
        "thead",
        "tbody",
        "tfoot",
        "tr",
        "td",
        "th",
    ]
)
# Elements whose start tag may be left out, and what they stand in then.
_MAY_NOT_BEGIN = {"html": "", "head": "", "body": "", "tbody": "table", "colgroup": "table"}
_RAW = {
    name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE | re.ASCII)
    for name in ("script", "style", "title", "textarea")
}
_NAME = re.compile(r"[A-Za-z][^\s/>]*")
_ATTRIBUTE = re.compile(r"([^\s/>=][^\s/>=]*)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]+)))?")
_SPACE = re.compile(r"[\s/]*")
_LINK_TEXT = 500


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where: line and column, counted from 1."""

    line: int
    column: int
    text: str


@dataclass(frozen=True, slots=True)
class Link:
    """An anchor: its address and what it shows, 500 signs of it at most; where it begins and ends (offsets)."""

    href: str
    text: str
    at: int
    end: int


@dataclass(slots=True)
class _Tag:
    """Something in angle brackets. `kind` is start, end or other; `fault` says what is wrong within it."""

    kind: str
    name: str
    at: int
    end: int
    attributes: dict[str, str]
    closed: bool = False
    fault: str = ""


def fault(text: str) -> Fault | None:
    """Return the first thing that is not well-formed, or None."""
    null = text.find("\0")
    if null >= 0:
        return _fault(text, null, "a NUL")
    opened: list[tuple[str, int]] = []
    for tag in _tags(text):
        if tag.fault:
            return _fault(text, tag.at, tag.fault)
        if tag.kind == "start":
            if tag.name not in _VOID and not tag.closed:
                opened.append((tag.name, tag.at))
        elif tag.kind == "end":
            wrong = _close(opened, tag.name)
            if wrong:
                return _fault(text, tag.at, wrong)
    for name, at in opened:
        if name not in _MAY_STAY_OPEN:
            return _fault(text, at, f"<{name}> is not closed")
    return None


def links(text: str) -> Iterator[Link]:
    """Give the anchors that have an address."""
    href, shown, length, last, begun = "", [""], 0, 0, 0
    for tag in _tags(text):
        if href and length < _LINK_TEXT:
            shown.append(text[last : min(tag.at, last + _LINK_TEXT)])
            length += len(shown[-1])
        last = tag.end
        if tag.name not in ("a", "area"):
            if href and tag.name == "img" and "alt" in tag.attributes:
                shown.append(tag.attributes["alt"])
            continue
        if href:
            yield _link(href, shown, begun, tag.at)
        href, begun, length = tag.attributes.get("href", "") if tag.kind == "start" else "", tag.at, 0
        shown = [tag.attributes[name] for name in ("title", "alt") if name in tag.attributes]
    if href:
        yield _link(href, [*shown, text[last : last + _LINK_TEXT]], begun, len(text))


def _link(href: str, shown: list[str], at: int, end: int) -> Link:
    return Link(href, " ".join(entities.unescape(" ".join(shown)).split())[:_LINK_TEXT], at, end)


def _close(opened: list[tuple[str, int]], name: str) -> str:
    """Take an element off the stack; return what is wrong with closing it here."""
    if name in _VOID:
        return f"</{name}>: the element has no end tag"
    while opened and opened[-1][0] != name and opened[-1][0] in _MAY_STAY_OPEN:
        opened.pop()
    if (opened[-1][0] if opened else "") == _MAY_NOT_BEGIN.get(name):
        return ""
    if not opened:
        return f"</{name}> closes nothing"
    if opened[-1][0] != name:
        return f"</{name}> comes before </{opened[-1][0]}>"
    opened.pop()
    return ""


def _tags(text: str) -> Iterator[_Tag]:
    """Give what is in angle brackets, in order; a fault does not end it."""
    at = text.find("<")
    while at >= 0:
        tag = _tag(text, at)
        yield tag
        end = tag.end
        raw = _RAW.get(tag.name) if tag.kind == "start" and not tag.closed else None
        if raw is not None:
            found = raw.search(text, end)
            if found is None:
                yield _Tag("other", "", tag.at, len(text), {}, fault=f"<{tag.name}> is not closed")
                return
            end = found.start()
        at = text.find("<", end)


def _tag(text: str, at: int) -> _Tag:
    if text.startswith("<!--", at):
        # The shortest comments end with what begins them.
        short = next((form for form in ("<!-->", "<!--->") if text.startswith(form, at)), "")
        end = at + len(short) if short else text.find("-->", at + 4) + 3
        return _Tag("other", "", at, end, {}) if end > 2 else _rest(text, at, "a comment does not end")
    ending = text.startswith("</", at)
    name = _NAME.match(text, at + (2 if ending else 1))
    if name is not None:
        return _element(text, at, name, ending)
    if text.startswith(("<!", "<?"), at):
        end = text.find(">", at) + 1
        return _Tag("other", "", at, end, {}) if end else _rest(text, at, "a declaration does not end")
    return _Tag("other", "", at, at + 1, {}, fault="a < that begins no tag: write &lt;")


def _element(text: str, at: int, name: re.Match[str], ending: bool) -> _Tag:
    tag = _Tag("end" if ending else "start", name[0].lower()[:50], at, name.end(), {})
    place = name.end()
    while True:
        gap = _SPACE.match(text, place)
        assert gap is not None  # it matches the empty text
        if text.startswith(">", gap.end()):
            tag.end, tag.closed = gap.end() + 1, gap[0].endswith("/")
            return tag
        found = _ATTRIBUTE.match(text, gap.end())
        if found is None:
            if gap.end() < len(text):  # an equals sign where a name should be
                tag.fault = tag.fault or "an attribute without a name"
                place = gap.end() + 1
                continue
            return _rest(text, at, "a tag does not end")
        key, value = found[1].lower(), found[2] or found[3] or found[4] or ""
        tag.fault = tag.fault or _attribute_fault(tag, key, found[4] or "", spaced=bool(gap[0]))
        tag.attributes.setdefault(key, entities.unescape(value))
        place = found.end()


def _attribute_fault(tag: _Tag, key: str, unquoted: str, *, spaced: bool) -> str:
    if not spaced:
        return "two attributes without a space between them"
    if any(sign in key for sign in "\"'<") or any(sign in unquoted for sign in "\"'<`"):
        return "a quote or < where it does not belong: does a quoted value end?"
    return "an attribute is given twice" if key in tag.attributes else ""


def _rest(text: str, at: int, what: str) -> _Tag:
    return _Tag("other", "", at, len(text), {}, fault=what)


def _fault(text: str, at: int, what: str) -> Fault:
    return Fault(text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at), what)
