"""Mail templates in the vendor's form: lines `Name: value`, an empty line, the body, `${variable}` everywhere.

Standards: the vendor's `MailTemplate` (which reads `${…}` with Commons Lang's StrSubstitutor and makes one of Commons
Email's three kinds); RFC 5322 (fields).
Promises: a value never becomes a field, a recipient, or an element of HTML: the template is read first, and each value
put where it belongs; a value that cannot go there is an error that names the variable, its line and column, and shows
no value. The message is a plain `EmailMessage`.
Dangers: `escape=False` and `nested=True` are the vendor's behaviour, and let whoever chose a value write HTML into the
mail, or read other variables with it.
Not here: `${…}` itself (`mailer.template.substitution`), values in address fields (`mailer.template.addresses`),
sending.
"""

from __future__ import annotations

import difflib
import html
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.charset import Charset
from email.errors import CharsetError
from email.message import EmailMessage
from email.policy import SMTPUTF8
from pathlib import Path
from typing import Literal

from outgate.mailer.config import run_modes_from, secrets_from
from outgate.mailer.configuration.properties import properties_of
from outgate.mailer.folders import open_configurations
from outgate.mailer.interpolate import Source
from outgate.mailer.sending.writing import CANNOT
from outgate.mailer.template.addresses import ADDRESS_FIELDS, in_field, mailboxes, places
from outgate.mailer.template.html_text import plain_text
from outgate.mailer.template.substitution import Piece, Render, TemplateError, Variable, lacking, pieces, replaced

__all__ = ["Kind", "Template", "TemplateError", "charset_from"]

PID = "com.day.cq.mailer.impl.email.CqEmailTemplateFactory"
CHARSET_PROPERTY = "mailer.email.charset"
_LARGEST = 1_048_576  # octets of a template
_FIELDS = 1000
_LONGEST_FIELD = 20_000

Kind = Literal["simple", "html", "multipart", "SimpleEmail", "HtmlEmail", "MultiPartEmail"]
_KINDS = {"SimpleEmail": "simple", "HtmlEmail": "html", "MultiPartEmail": "multipart"}
_NAME = re.compile(r"[!-9;-~]{1,76}")
_ENCODED_WORD = re.compile(r"=\?[^\s?]+\?[^\s?]+\?")
_ONCE = frozenset({"from", "sender", "subject", "date", "message-id", "in-reply-to", "references", "bounce-to"})
_KNOWN = ("From", "Sender", "To", "Cc", "Bcc", "Reply-To", "Subject", "Bounce-To", "Date", "Message-ID", "In-Reply-To")
_OURS = {
    "content-type": "it follows from kind and charset",
    "content-transfer-encoding": "it follows from the body",
    "content-disposition": "a body has none",
    "mime-version": "it is written by itself",
    "return-path": "the address that bounces go to is Bounce-To",
    "received": "servers write it",
}


@dataclass(frozen=True, slots=True)
class _Field:
    name: tuple[Piece, ...]
    value: list[Piece]
    line: int
    column: int

    @property
    def written(self) -> str:
        """Return the name as the template has it: errors show no value."""
        return "".join(piece if isinstance(piece, str) else piece.written for piece in self.name)

    def refused(self, text: str) -> TemplateError:
        return TemplateError(text, name=self.written, line=self.line, column=self.column)


class Template:
    """A mail template. Made by `load` from a file, or of its text; may be used any number of times, by any thread."""

    def __init__(self, text: str, *, file: object = "", charset: str = "utf-8") -> None:
        """`file` is for errors; `charset` that of the mails. Raises `TemplateError`."""
        self.file = str(file)
        self.charset = _charset(charset)
        try:
            head, body, line = _halves(text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"))
            self._fields = _fields(head)
        except TemplateError as error:
            raise error.at(file=file) from None
        self._body = pieces(body, line)

    @classmethod
    def load(cls, path: str | Path, *, charset: str = "utf-8") -> Template:
        """Read the template in a file, which is written in `charset`, as the mails will be. Raises `TemplateError`."""
        codec = _charset(charset)
        try:
            with Path(path).open("rb") as file:
                data = file.read(_LARGEST + 1)
        except OSError as error:
            raise TemplateError(f"the template cannot be read: {error.strerror}", file=path) from None
        if len(data) > _LARGEST:
            raise TemplateError(f"the template is larger than {_LARGEST} octets", file=path)
        try:
            text = data.decode(codec)
        except UnicodeDecodeError as error:
            before = data[: error.start].decode(codec, "replace")
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
            text = f"expected text in {charset}: save the file so, or name its charset"
            raise TemplateError(text, file=path, line=line, column=column) from None
        return cls(text, file=path, charset=charset)

    @property
    def variables(self) -> tuple[Variable, ...]:
        """Return the variables in the template, in order, each as often as it stands there."""
        groups = [part for each in self._fields for part in (each.name, each.value)]
        return tuple(piece for part in (*groups, self._body) for piece in part if isinstance(piece, Variable))

    def message(
        self,
        variables: Mapping[str, object] | None = None,
        *,
        kind: Kind = "simple",
        strict: bool = False,
        escape: bool = True,
        nested: bool = False,
    ) -> EmailMessage:
        """Return the mail with the values of `variables`; None is no value. Raises `TemplateError`.

        `kind`: "simple" (text), "html" (HTML, and its text beside it), "multipart" (text, ready for attachments).
        `strict`: a variable without a value is an error; else it stays as it is, but never in an address.
        `escape`: values are text in HTML; those that have `__html__` are HTML already. `nested`: variables in values
        are replaced too."""
        form = _KINDS.get(kind, kind)
        if form not in _KINDS.values():
            raise TemplateError(f"expected a kind of {', '.join(_KINDS.values())}")
        work = _Filling(variables or {}, strict, nested, form == "html" and escape)
        try:
            return self._filled(work, form)
        except TemplateError as error:
            raise error.at(file=self.file) from None

    def bounce_to(self, variables: Mapping[str, object] | None = None, *, nested: bool = False) -> str | None:
        """Return the address in `Bounce-To`: no field, but the envelope's sender, as in `send(message, sender=…)`.

        None, which leaves it to the fields, if there is none. Raises `TemplateError`."""
        work = _Filling(variables or {}, False, nested, False)
        try:
            for each in self._fields:
                if work.name(each).lower() == "bounce-to":
                    found = work.addresses(each)
                    if len(found) > 1:
                        raise each.refused("expected one address")
                    return SMTPUTF8.header_factory("to", found[0]).addresses[0].addr_spec if found else None
        except TemplateError as error:
            raise error.at(file=self.file) from None
        return None

    def _filled(self, work: _Filling, form: str) -> EmailMessage:
        if work.strict:
            work.all_there(self.variables)
        message = EmailMessage()
        addresses: dict[str, list[str]] = {}
        seen: set[str] = set()
        for each in self._fields:
            name = work.name(each)
            lower = name.lower()
            if lower in seen and lower in _ONCE:
                raise each.refused("a mail has one such field, and this is the second")
            seen.add(lower)
            if lower in ADDRESS_FIELDS:
                addresses.setdefault(name.title() if lower in ("cc", "bcc") else name, []).extend(work.addresses(each))
            elif value := work.text(each):
                _set(message, name, value, each)
        for name, found in addresses.items():
            if found and name.lower() != "bounce-to":
                message[name] = ", ".join(found)
        body = work.body(self._body)
        if work.strict:
            work.all_there(())
        _add_body(message, body, form, self.charset)
        return message


@dataclass(slots=True)
class _Filling:
    """One use of a template: the values, and which are missing."""

    variables: Mapping[str, object]
    strict: bool
    nested: bool
    escape: bool
    missing: list[Variable] = field(default_factory=list[Variable])

    def all_there(self, wanted: Iterable[Variable]) -> None:
        self.missing += [each for each in wanted if not each.closed or self.variables.get(each.name) is None]
        if self.missing:
            raise lacking(self.missing, self.variables)

    def _replaced(self, given: Sequence[Piece], render: Render) -> str:
        return replaced(given, self.variables, render, self.missing, nested=self.nested)

    def name(self, of: _Field) -> str:
        name = self._replaced(of.name, in_field)
        if _NAME.fullmatch(name) is None:
            text = "this is no name of a field with the values of its variables"
            raise of.refused(text)
        return _allowed(name, of.written, of.line, of.column)

    def text(self, of: _Field) -> str:
        value = self._replaced(of.value, in_field).strip()
        if len(value) > _LONGEST_FIELD:
            raise of.refused(f"longer than {_LONGEST_FIELD} signs")
        if _ENCODED_WORD.search(value) and any(isinstance(piece, Variable) for piece in of.value):
            text = "=?…?…? would be read as another text: leave it out of the values of its variables"
            raise of.refused(text)
        return value

    def addresses(self, of: _Field) -> list[str]:
        before = len(self.missing)
        value = self._replaced(of.value, places(of.value)).strip()
        if len(self.missing) > before:  # what stays would be an address that is none
            raise lacking(self.missing[before:], self.variables)
        if not value.strip(", \t"):
            return []
        try:
            return mailboxes(value[: _LONGEST_FIELD + 1], at_most=_LONGEST_FIELD)
        except ValueError as error:
            names = ", ".join(dict.fromkeys(piece.written for piece in of.value if isinstance(piece, Variable)))
            text = f"expected addresses, {error}" + (f"; look at the value of {names}" if names else "")
            raise of.refused(text) from None

    def body(self, given: tuple[Piece, ...]) -> str:
        return self._replaced(given, _in_html if self.escape else _in_text)


def charset_from(
    path: str | Path,
    run_modes: Iterable[str] | None = None,
    *,
    env: Source | None = None,
    secrets: Source | str | Path | None = None,
) -> str:
    """Return `mailer.email.charset` from the configuration at `path`, "utf-8" where it is not set.

    `run_modes`, `env` and `secrets` are as for `MailService.load`. Raises `ConfigError`."""
    place = open_configurations(path, PID)
    source = os.environ if env is None else env
    modes = run_modes_from(run_modes, source)
    if not place.candidates(PID, modes):
        return "utf-8"
    known = properties_of(place.resolve(PID, modes), env=source, secrets=secrets_from(secrets, source))
    name = known.text(CHARSET_PROPERTY).strip() or "utf-8"
    try:
        _charset(name)
    except TemplateError as error:
        raise known.error(CHARSET_PROPERTY, error.text) from None
    return name


# -- reading ------------------------------------------------------------------------------------------------


def _halves(text: str) -> tuple[list[str], str, int]:
    """Return the lines of the header, the body, and the line that this begins with."""
    if text.startswith("\n"):
        return [], text[1:], 2
    head, separator, body = text.partition("\n\n")
    lines = head.split("\n")
    if not separator and lines[-1] == "":
        lines.pop()
    return lines, body, len(lines) + 2


def _fields(lines: list[str]) -> tuple[_Field, ...]:
    found: list[_Field] = []
    length = 0
    for number, line in enumerate(lines, 1):
        length = len(line) + (length if line[:1] in (" ", "\t") else 0)
        if length > _LONGEST_FIELD:
            raise TemplateError(f"a field longer than {_LONGEST_FIELD} signs", line=number, column=1)
        if line[:1] in (" ", "\t"):
            if not found:
                raise TemplateError("expected `Name: value`, found a continued line", line=number, column=1)
            start = len(line) - len(line.lstrip())
            _continue(found[-1].value, pieces(" " + line[start:], number, start))
            continue
        found.append(_field(line, number))
        if len(found) > _FIELDS:
            raise TemplateError(f"more than {_FIELDS} fields", line=number, column=1)
    return tuple(found)


def _continue(value: list[Piece], more: tuple[Piece, ...]) -> None:
    """Add the pieces of a continued line; no text stands beside another."""
    if value and isinstance(value[-1], str) and isinstance(more[0], str):
        value[-1] += more[0]
        more = more[1:]
    value += more


def _field(line: str, number: int) -> _Field:
    colon = _colon(line)
    if colon < 0:
        hint = "" if number > 1 else " (a template without fields begins with an empty line)"
        text = f"expected `Name: value`, or an empty line before the body{hint}"
        raise TemplateError(text, line=number, column=1)
    name = pieces(line[:colon].rstrip(), number)
    if all(isinstance(piece, str) for piece in name):
        plain = "".join(str(piece) for piece in name)
        if _NAME.fullmatch(plain) is None:
            text = "expected the name of a field before the colon: signs of ASCII, none of them a space"
            raise TemplateError(text, line=number, column=1)
        _allowed(plain, plain, number, 1)
    value = line[colon + 1 :]
    start = len(value) - len(value.lstrip())
    return _Field(name, [*pieces(value[start:].rstrip(), number, colon + 2 + start)], number, 1)


def _colon(line: str) -> int:
    """Find the colon behind the name, which is none inside a variable."""
    at = 0
    while (colon := line.find(":", at)) >= 0:
        start = line.rfind("${", at, colon)
        end = line.find("}", colon) if start >= 0 and line.find("}", start, colon) < 0 else -1
        if end < 0:
            return colon
        at = end + 1
    return -1


def _allowed(name: str, written: str, line: int, column: int) -> str:
    why = _OURS.get(name.lower())
    if why is not None:
        raise TemplateError(f"leave this field out: {why}", name=written, line=line, column=column)
    if name.lower() not in (each.lower() for each in _KNOWN) and "-" not in name:
        close = difflib.get_close_matches(name, _KNOWN, 1)
        if close:
            text = f"no field is called so: did you mean {close[0]}?"
            raise TemplateError(text, name=written, line=line, column=column)
    return name


def _charset(name: str) -> str:
    """Return a charset's name as mail has it. Raises `TemplateError`."""
    try:
        "a".encode(name)
        return Charset(name.lower()).input_charset
    except (LookupError, ValueError, CharsetError):
        raise TemplateError("no charset is called so: utf-8 is the usual one", name=CHARSET_PROPERTY) from None


# -- writing ------------------------------------------------------------------------------------------------


def _in_text(variable: Variable, value: object) -> str:
    text = str(value)
    if "\0" in text or not text.isascii():
        _writable(variable, text)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _in_html(variable: Variable, value: object) -> str:
    made = getattr(value, "__html__", None)
    return html.escape(_in_text(variable, value)) if made is None else _in_text(variable, made())


def _writable(variable: Variable, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        pass
    else:
        if "\0" not in text:
            return
    what = "holds a sign that no mail can have (NUL, or half of a surrogate pair)"
    raise TemplateError(f"the value of {variable.written} {what}", line=variable.line, column=variable.column)


def _set(message: EmailMessage, name: str, value: str, of: _Field) -> None:
    try:
        message[name] = value
    except CANNOT:
        raise of.refused("the value cannot be written as this field") from None


def _add_body(message: EmailMessage, body: str, form: str, charset: str) -> None:
    """Add the body; signs that `charset` does not have are no reason to lose a mail: it goes in UTF-8 then."""
    plain = plain_text(body) if form == "html" else body
    try:
        (body + plain).encode(charset)
    except UnicodeEncodeError:
        charset = "utf-8"
    message.set_content(plain, charset=charset)
    if form == "html":
        message.add_alternative(body, subtype="html", charset=charset)
    elif form == "multipart":
        message.make_mixed()
