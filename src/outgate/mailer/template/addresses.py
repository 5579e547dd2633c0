"""Values of a template's variables inside fields: no value is more than the place it stands in.

Standards: RFC 5322 section 3.4 (mailboxes), RFC 2047 (encoded words).
Promises: pure; a value in an address field adds no recipient (a list does, one for each item); a name is quoted where
it has to be; what cannot go there is a `TemplateError` with the variable, its line and column, and without the value.
Dangers: "Anna <a@b.example>" is one address where a variable stands alone, and an error inside another one. What the
`email` package reads of a list that is none is its beginning: what follows would get no mail, so that is an error.
Not here: the template (`mailer.template`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.policy import SMTPUTF8
from typing import Literal

from outgate.mailer.sending.writing import CANNOT, faulty
from outgate.mailer.template.substitution import Piece, Render, TemplateError, Variable
from outgate.smtp import grammar

ADDRESS_FIELDS = frozenset({"from", "sender", "to", "cc", "bcc", "reply-to", "bounce-to"})
_LONGEST_VALUE = 20_000
_LONGEST_MAILBOX = 1000
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x80-\x9f\u2028\u2029\ud800-\udfff]")
_SPECIAL = re.compile(r'[()<>\[\]:;@\\,."]')
_ADDR_PART = re.compile(r'[^\s()<>\[\]:;\\,"]+')

_Place = Literal["alone", "quoted", "name", "address", "comment", "escaped"]


def in_field(variable: Variable, value: object) -> str:
    """Return a value for a field. Raises `TemplateError` for line ends and other controls: they could end it."""
    text = str(value)
    if _CONTROL.search(text):
        raise _refused(variable, "holds a line end or a control character, and could write fields of its own")
    if len(text) > _LONGEST_VALUE:
        raise _refused(variable, f"is longer than {_LONGEST_VALUE} signs")
    return text


def places(value: Sequence[Piece]) -> Render:
    """Return what puts values into the address field `value`, each by its place in there."""
    known: dict[tuple[int, int], _Place] = {}
    at = _Inside()
    named = _before_angles(value)
    for number, piece in enumerate(value):
        if isinstance(piece, str):
            at.read(piece)
            continue
        place: _Place = "address"
        if at.escaping:
            place = "escaped"
        elif at.quoted:
            place = "quoted"
        elif at.comments:
            place = "comment"
        elif at.angle:
            pass
        elif number in named:
            place = "name"
        elif _edge(value[max(0, number - 2) : number], -1) and _edge(value[number + 1 : number + 3], 0):
            place = "alone"
        known[piece.line, piece.column] = place

    def render(variable: Variable, given: object) -> str:
        return _put(variable, given, known[variable.line, variable.column])

    return render


@dataclass(slots=True)
class _Inside:
    """What the text so far has left open."""

    quoted: bool = False
    angle: bool = False
    comments: int = 0
    escaping: bool = False

    def read(self, text: str) -> None:
        for sign in text:
            if self.escaping:
                self.escaping = False
            elif sign == "\\":
                self.escaping = self.quoted or self.comments > 0  # elsewhere it is a sign like others
            elif self.quoted:
                self.quoted = sign != '"'
            elif sign in "()":
                self.comments = max(0, self.comments + (1 if sign == "(" else -1))
            elif self.comments:
                continue
            elif sign == '"':
                self.quoted = True
            elif sign in "<>":
                self.angle = sign == "<"


def _before_angles(value: Sequence[Piece]) -> set[int]:
    """Return the numbers of the pieces behind which an address in angle brackets comes before the next comma."""
    found: set[int] = set()
    since: list[int] = []
    at = _Inside()
    for number, piece in enumerate(value):
        if not isinstance(piece, str):
            since.append(number)
            continue
        for sign in piece:
            outside = not (at.quoted or at.comments)
            at.read(sign)
            if outside and sign in ",<":
                found.update(since if sign == "<" else ())
                since = []
    return found


def _edge(rest: Sequence[Piece], at: int) -> bool:
    """Say whether the field, or the address, ends next to a variable."""
    if not rest:
        return True
    near = rest[at]
    if not isinstance(near, str):
        return False
    stripped = near.rstrip() if at else near.lstrip()
    return (not stripped and len(rest) == 1) or stripped[at : at + 1 or None] == ","


def _put(variable: Variable, value: object, place: _Place) -> str:
    if place == "alone" and isinstance(value, (list, tuple)):
        items = [in_field(variable, item) for item in value]  # pyright: ignore[reportUnknownArgumentType]
        return ", ".join(_one(variable, item) for item in items if item.strip())
    text = in_field(variable, value)
    if place == "escaped":
        raise _refused(variable, "stands behind a backslash, which would change what it says: take that out")
    if len(text) > _LONGEST_MAILBOX:
        raise _refused(variable, f"is longer than {_LONGEST_MAILBOX} signs")
    if place == "alone":
        return _one(variable, text) if text.strip() else ""
    if place == "quoted":
        return re.sub(r'(["\\])', r"\\\1", text)
    if "=?" in text:
        raise _refused(variable, "holds =?, which could be read as another text")
    if place == "comment":
        if re.search(r"[()\\]", text):
            raise _refused(variable, "holds a bracket or a backslash, and could end the comment that it stands in")
        return text
    if place == "name":
        return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"' if _SPECIAL.search(text) else text
    if text and _ADDR_PART.fullmatch(text) is None:
        raise _refused(variable, "holds signs that an address inside another text cannot have")
    return text


def _one(variable: Variable, text: str) -> str:
    try:
        found = mailboxes(text, at_most=_LONGEST_MAILBOX)
    except ValueError as error:
        raise _refused(variable, f"is no address: {error}") from None
    if len(found) != 1:
        raise _refused(variable, "is more than one address: give a list of them")
    return found[0]


def mailboxes(text: str, *, at_most: int) -> list[str]:
    """Return the mailboxes of an address list in their usual spelling. Raises `ValueError`, without the text."""
    if len(text) > at_most:
        raise ValueError(f"it is longer than {at_most} signs")
    if text.count("(") > 50 or text.count("[") > 50:
        raise ValueError("it has too many brackets")
    try:
        header = SMTPUTF8.header_factory("to", text)
        groups = header.groups
    except CANNOT:
        raise ValueError("it cannot be read") from None
    found: list[str] = []
    for group in groups:
        if group.display_name is not None:
            raise ValueError("groups are not taken")
        for each in group.addresses:
            try:
                grammar.mailbox(each.addr_spec.encode("utf-8"))
            except (grammar.BadSyntax, UnicodeEncodeError) as error:
                raise ValueError(str(error) if isinstance(error, grammar.BadSyntax) else "it cannot be read") from None
            if not each.addr_spec or _CONTROL.search(each.display_name):
                raise ValueError("something in it has no address")
            found.append(str(each))
    if faulty(header):
        raise ValueError("they are written name@domain or Name <name@domain>, with commas between them")
    return found


def _refused(variable: Variable, why: str) -> TemplateError:
    return TemplateError(f"the value of {variable.written} {why}", line=variable.line, column=variable.column)
