"""What to send so that an environment's variables become as wanted, and what is wrong or unwise about it.

Standards: the vendor's OpenAPI on Variable (name 2 to 100 characters, value up to 2048, a secret's below 500, 200 for
    an environment, a type never changes); its client's bodies: a deletion has the current type and an empty value.
Promises: pure; all that the server would refuse is found before anything is sent; no text has a value in it.
Not here: which names are those of secrets (`base.secret_names`), where wishes come from (`variable_arguments`,
    `variable_documents`), asking (`cloud_manager`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outgate.base.secret_names import named_secret

STRING, SECRET = "string", "secretString"
SERVICES = ("author", "publish", "preview")
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z_0-9]*")
_WORDS = {STRING: "variable", SECRET: "secret"}
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_VALUE_LIMIT = {STRING: 2048, SECRET: 499}
_VARIABLES_LIMIT = 200
_IGNORED = ("INTERNAL_", "ADOBE_", "CONST_")
_TUNNEL = "AEM_PROXY_HOST"
_MASK = "****"
_PUBLIC_ENDS = re.compile(r"(.*_)?(USER(_?NAME)?|HOST(_?NAME)?|PORT|FROM|SENDER)")


@dataclass(frozen=True, slots=True)
class Wish:
    """One variable as somebody wants it: an empty `value` deletes it, a `type` of "" is the one it has (else string).
    `service` is "" for all; `where` says who wants that: an option, or a line of a file."""

    name: str
    value: str = field(repr=False)
    type: str
    service: str
    where: str

    @property
    def key(self) -> tuple[str, str]:
        """Return what makes it one and the same variable."""
        return self.name, self.service

    @property
    def shown(self) -> str:
        """Return name and service for people."""
        return f"{self.name} ({self.service})" if self.service else self.name


class Unfit(Exception):
    """Nothing may be sent; each of `reasons` is a sentence with the remedy."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = tuple(reasons)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send, in the order of the vendor's client, and what people should hear before."""

    changes: tuple[Mapping[str, str], ...] = field(repr=False)
    warnings: tuple[str, ...]


def together(options: Sequence[Wish], document: Sequence[Wish]) -> list[Wish]:
    """Return the wishes of both; where they contradict each other, the options count. Raises `Unfit` for one variable
    that stands twice among the options, or twice in the document."""
    for group in (options, document):
        seen: dict[tuple[str, str], Wish] = {}
        for wish in group:
            before = seen.setdefault(wish.key, wish)
            if before is not wish and is_name(wish.name):
                raise Unfit([f"{wish.where}: {wish.shown} stands twice ({before.where}): say once what it is to be"])
    said = {wish.key for wish in options}
    return [*options, *(wish for wish in document if wish.key not in said)]


def plan(current: Iterable[Mapping[str, Any]], wishes: Sequence[Wish], *, strict: bool = False) -> Plan:
    """Return what to send. Raises `Unfit`; if `strict`, also for names whose values are ignored or set by others."""
    types = {(str(each.get("name")), str(each.get("service") or "")): str(each.get("type")) for each in current}
    changes: list[Mapping[str, str]] = []
    warnings: list[str] = []
    reasons: list[str] = []
    for wish in wishes:
        now = types.get(wish.key)
        wrong = _wrong(wish, now)
        if wrong:
            reasons.append(f"{wish.where}: {wrong}")
            continue
        if wish.value:
            reserved = _reserved(wish)
            if strict and reserved:
                reasons.append(f"{wish.where}: {reserved}")
            warnings += [each for each in (reserved, _unwise(wish, wish.type or now or STRING)) if each]
        elif now is None:
            warnings.append(_not_there(wish, types))
            continue
        kind = (wish.type if wish.value else "") or now or STRING
        change = {"name": wish.name, "type": kind, "value": wish.value}
        changes.append(change | {"service": wish.service} if wish.service else change)
    kept = set(types) - {wish.key for wish in wishes if not wish.value} | {wish.key for wish in wishes if wish.value}
    if len(kept) > max(_VARIABLES_LIMIT, len(types)) and not reasons:
        reasons.append(f"the environment would have {len(kept)} variables, and {_VARIABLES_LIMIT} are the limit")
    if reasons:
        raise Unfit(reasons)
    return Plan(tuple(changes), tuple(warnings))


def option(word: str, service: str) -> str:
    """Return the option that does something for a service, or for all if that is ""."""
    return f"--{service}{word[0].upper()}{word[1:]}" if service else f"--{word}"


def is_name(text: str) -> bool:
    """Say whether a text may be a variable's name. One that may not may be anything, also a secret."""
    return _NAME.fullmatch(text) is not None and 2 <= len(text) <= 100


def _wrong(wish: Wish, now: str | None) -> str:
    """Return why the server would refuse this, "" if it would not."""
    if not is_name(wish.name):
        # It may be a piece of a secret that had a blank in it and no quotes.
        return (
            "what stands as a name is none: 2 to 100 letters (a to z), digits and _, no digit first; a value with "
            "blanks needs quotes"
        )
    if wish.service not in ("", *SERVICES):
        return f"{wish.name}: the service must be one of {', '.join(SERVICES)}, or absent for all"
    if wish.type not in ("", STRING, SECRET):
        return f"{wish.name}: the type must be {STRING} or {SECRET}"
    if not wish.value:
        return ""
    kind = wish.type or now or STRING
    if now not in (None, kind):
        remedy = f"delete it first ({option('delete', wish.service)} {wish.name}), then set it"
        return f"{wish.shown} is a {now}, and a type cannot be changed: {remedy}"
    if kind == SECRET and wish.value == _MASK:
        return f"{wish.shown}: the value is the mask that stands for a secret in lists, not the secret"
    if len(wish.value) > _VALUE_LIMIT[kind]:
        return f"{wish.shown}: a {kind} has at most {_VALUE_LIMIT[kind]} characters, this one {len(wish.value)}"
    if "\0" in wish.value or any("\ud800" <= sign <= "\udfff" for sign in wish.value):
        return f"{wish.shown}: the value is not UTF-8 text without NUL"
    return ""


def _reserved(wish: Wish) -> str:
    """Return what becomes of a name that is not the customer's, "" if it is."""
    if wish.name.startswith(_IGNORED):
        prefix = next(each for each in _IGNORED if wish.name.startswith(each))
        return f"{wish.shown}: names that begin with {prefix} are reserved, and its value will be ignored"
    if wish.name == _TUNNEL:
        return (
            f"{_TUNNEL} is set by the environment's tunnel and must not be set by hand: name it in the configuration "
            f"as $[env:{_TUNNEL};default=proxy.tunnel]"
        )
    return ""


def _unwise(wish: Wish, kind: str) -> str:
    """Return why it should rather be of the other type, "" if it is well as it is."""
    if wish.name.startswith("AEM_") and wish.name != _TUNNEL:
        # Customers may set those that the product defines.
        return f"{wish.shown}: names that begin with AEM_ are the product's: choose another if it is not one of them"
    if kind == STRING and named_secret(wish.name):
        remedy = f"set it with {option('secret', wish.service)}"
        return f"{wish.shown} looks like a secret, and who lists variables reads a plain one: {remedy}"
    if kind == SECRET and _PUBLIC_ENDS.fullmatch(wish.name.upper()):
        return f"{wish.shown} is a secret: $[env:{wish.name}] does not see it, only $[secret:{wish.name}] does"
    if wish.where == option(_WORDS[kind], wish.service) and _QUOTED.fullmatch(wish.value):
        return f"{wish.shown}: the quotes at its ends are a part of the value; the vendor's client takes them off"
    if kind == SECRET and wish.value != wish.value.strip():
        return f"{wish.shown} begins or ends with white space, which applications do not get"
    return ""


def _not_there(wish: Wish, types: Mapping[tuple[str, str], str]) -> str:
    """Return what to say of a deletion of nothing; whether the name is there for other services."""
    others = sorted(service for name, service in types if name == wish.name)
    options = " or ".join(option("delete", service) for service in others)
    hint = f"; it is there otherwise: {options} {wish.name}" if others else ""
    return f"{wish.shown} is not there and will not be deleted{hint}"
