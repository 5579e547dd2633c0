"""Read an SPF record: its directives and modifiers, and its macro strings, before anything is evaluated.

Standards: RFC 7208 sections 4.5, 4.6.1, 5, 6, 7 and 12 (grammar); 4.6: any syntax error anywhere is a permerror.
Promises: linear time; a record that parses needs no further syntax check during evaluation.
Dangers: the record is a stranger's text; a macro string is not a name until it is expanded.
Not here: look-ups and results (`spf`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import quote

QUALIFIERS = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
_MECHANISM = re.compile(r"([+\-~?]?)([A-Za-z][A-Za-z0-9]*)(.*)", re.DOTALL)
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9._-]*)=(.*)", re.DOTALL)
_DUAL_CIDR = re.compile(r"(.*?)(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?", re.DOTALL)
_NETWORK = re.compile(r"([^/]*)(?:/(0|[1-9][0-9]{0,2}))?")
_MACRO = re.compile(r"%(?:([%_-])|\{([slodiphcrtvSLODIPHCRTV])([0-9]*)([rR]?)([.\-+,/_=]*)\})")
_TOP_LABEL = re.compile(r"\.(?:[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*|[A-Za-z0-9]+-[A-Za-z0-9-]*[A-Za-z0-9])\.?\Z")
_ENDS_IN_MACRO = re.compile(r"%(?:[%_-]|\{[^}]*\})\Z")
_ONLY_IN_EXPLANATION = frozenset("crt")


class BadRecord(Exception):
    """The record cannot be read; the text quotes the term."""


@dataclass(frozen=True, slots=True)
class Directive:
    """A qualifier's result, a mechanism and its argument. `target` is a macro string, "" for the current domain."""

    result: str
    mechanism: str
    target: str
    network: IPv4Network | IPv6Network | None
    prefix4: int
    prefix6: int
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """A whole record; `redirect` and `explanation` are macro strings, "" where absent."""

    directives: tuple[Directive, ...]
    redirect: str
    explanation: str


def is_spf(text: bytes) -> bool:
    """Say whether a TXT record is an SPF record, version 1 (section 4.5)."""
    return text[:6].lower() == b"v=spf1" and (len(text) == 6 or text[6:7] == b" ")


def parse(text: bytes) -> Record:
    """Read a record for which `is_spf` holds. Raises `BadRecord`."""
    try:
        terms = [term for term in text[6:].decode("ascii").split(" ") if term]
    except UnicodeDecodeError:
        raise BadRecord("the record is not plain ASCII") from None
    directives: list[Directive] = []
    modifiers: dict[str, str] = {}
    for term in terms:
        modifier = _MODIFIER.fullmatch(term)
        if modifier is None:
            directives.append(_directive(term))
            continue
        name, value = modifier[1].lower(), modifier[2]
        if name not in ("redirect", "exp"):
            _check_macros(value, term, explanation=False)
            continue
        if name in modifiers:
            raise BadRecord(f"{name}= appears twice")
        _check_domain_spec(value, term)
        modifiers[name] = value
    return Record(tuple(directives), modifiers.get("redirect", ""), modifiers.get("exp", ""))


def _directive(term: str) -> Directive:
    match = _MECHANISM.fullmatch(term)
    if match is None:
        raise BadRecord(f"{term!r} is not a mechanism")
    result, mechanism, rest = QUALIFIERS[match[1] or "+"], match[2].lower(), match[3]
    if mechanism == "all":
        if rest:
            raise BadRecord(f"{term!r}: all takes no argument")
        return Directive(result, mechanism, "", None, 32, 128, term)
    if mechanism in ("ip4", "ip6"):
        return Directive(result, mechanism, "", _network(mechanism, rest, term), 32, 128, term)
    if mechanism in ("a", "mx"):
        target, prefix4, prefix6 = _dual_cidr(rest, term)
    elif mechanism in ("include", "exists", "ptr"):
        target, prefix4, prefix6 = rest, 32, 128
    else:
        raise BadRecord(f"{term!r}: there is no mechanism {mechanism}")
    if target:
        if target[0] != ":":
            raise BadRecord(f"{term!r} is not a mechanism")
        _check_domain_spec(target[1:], term)
    elif mechanism in ("include", "exists"):
        raise BadRecord(f"{term!r} needs a domain")
    return Directive(result, mechanism, target[1:], None, prefix4, prefix6, term)


def _network(mechanism: str, rest: str, term: str) -> IPv4Network | IPv6Network:
    match = _NETWORK.fullmatch(rest[1:])
    version = int(mechanism[2])
    longest = 32 if version == 4 else 128
    if rest[:1] != ":" or match is None:
        raise BadRecord(f"{term!r} is not {mechanism}:network")
    prefix = int(match[2]) if match[2] else longest
    try:
        # The scope of an IPv6 address ("%eth0") is no part of SPF's grammar.
        network = ip_network((match[1], prefix), strict=False) if "%" not in rest else None
    except ValueError:
        network = None
    if network is None or network.version != version:
        raise BadRecord(f"{term!r} is not {mechanism}:network")
    return network


def _dual_cidr(rest: str, term: str) -> tuple[str, int, int]:
    match = _DUAL_CIDR.fullmatch(rest)
    assert match is not None  # all of its parts are optional
    prefix4 = int(match[2]) if match[2] else 32
    prefix6 = int(match[3]) if match[3] else 128
    if prefix4 > 32 or prefix6 > 128:
        raise BadRecord(f"{term!r}: the prefix is too long")
    return match[1], prefix4, prefix6


def _check_domain_spec(text: str, term: str) -> None:
    _check_macros(text, term, explanation=False)
    if not (_TOP_LABEL.search(text) or _ENDS_IN_MACRO.search(text)):
        raise BadRecord(f"{term!r}: {text!r} is not a domain name")


def _check_macros(text: str, term: str, *, explanation: bool) -> None:
    """Check a macro string (section 7.1); `%{c}`, `%{r}` and `%{t}` belong in explanations only."""
    if any(not (("!" <= sign <= "~") or (explanation and sign == " ")) for sign in text):
        raise BadRecord(f"{term!r} holds a sign that does not belong there")
    for macro in _macros(text):
        if macro is None or (macro[3] and int(macro[3][:9]) == 0):
            raise BadRecord(f"{term!r} holds a broken macro")
        if macro[2] and macro[2].lower() in _ONLY_IN_EXPLANATION and not explanation:
            raise BadRecord(f"{term!r}: that macro belongs in an explanation")


def _macros(text: str) -> list[re.Match[str] | None]:
    """Return each macro of `text`; None stands for a % that begins none."""
    found: list[re.Match[str] | None] = []
    at = text.find("%")
    while at >= 0:
        match = _MACRO.match(text, at)
        found.append(match)
        at = text.find("%", match.end() if match else at + 1)
    return found


def check_explanation(text: str) -> None:
    """Check the text of an explanation. Raises `BadRecord`."""
    _check_macros(text, "the explanation", explanation=True)


def uses(text: str, letter: str) -> bool:
    """Say whether a checked macro string uses the macro `letter`."""
    return any(macro is not None and (macro[2] or "").lower() == letter for macro in _macros(text))


def expand(text: str, values: Mapping[str, str]) -> str:
    """Return a checked macro string with its macros replaced (section 7.3)."""

    def one(macro: re.Match[str]) -> str:
        if macro[1]:
            return {"%": "%", "_": " ", "-": "%20"}[macro[1]]
        parts = re.split("[" + re.escape(macro[5] or ".") + "]", values[macro[2].lower()])
        if macro[4]:
            parts.reverse()
        if macro[3]:
            parts = parts[-min(int(macro[3][:9]), len(parts)) :]
        value = ".".join(parts)
        return quote(value, safe="~") if macro[2].isupper() else value

    return _MACRO.sub(one, text)


def expand_name(text: str, values: Mapping[str, str]) -> str:
    """Return the domain name that a domain-spec means: no final dot, labels dropped on the left beyond 253."""
    name = expand(text, values).removesuffix(".") if text else values["d"]
    while len(name) > 253 and "." in name:
        name = name.partition(".")[2]
    return name
