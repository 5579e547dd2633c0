"""Traps in the placeholders of any configuration file: misspelt ones, directives, types, variables of the wrong kind.

Standards: the grammar of Apache Felix's ConfigAdmin interpolation plugin; the vendor's rules for variables.
Promises: pure; one function for each trap; what is right by the grammar and the vendor's pages is not complained of.
Dangers: a default may be a secret: messages name sources and variables only.
Not here: what a property of the mail service must be (`doctor.traps.mail`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from difflib import get_close_matches

from outgate.base.secret_names import like_a_secret, named_secret
from outgate.doctor.report import Finding
from outgate.doctor.traps.look import Look
from outgate.doctor.traps.names import TUNNEL_VARIABLE, USER
from outgate.doctor.traps.source import shows_a_secret
from outgate.doctor.traps.written import DIRECTIVES, SOURCES, Written, near, scan, valid_name
from outgate.mailer.interpolate import typed
from outgate.mailer.osgi import Property
from outgate.mailer.values import ConversionError, known

_TYPES = ("String", "Integer", "Long", "Float", "Double", "Byte", "Short", "Character", "Boolean")
_TYPE_ALIASES = {"bool": "Boolean", "int32": "Integer", "number": "Integer", "str": "String", "text": "String"}
_OF_SIGNS = ("char[]", "Character[]")  # without a delimiter an array of the text's signs
_RESERVED = ("INTERNAL_", "ADOBE_", "CONST_")
_VENDORS = frozenset(
    f"AEM_{rest}"
    for rest in ("PROXY_HOST", "HTTP_PROXY_PORT", "HTTPS_PROXY_PORT", "HTTP_PROXY_HOST", "HTTPS_PROXY_HOST")
)
_NO_DIRECTIVES = "Give the inner placeholder no directives."
_DOCUMENTED = "EMAIL_USERNAME"
_MOST_DIRECTIVES = 50  # of one placeholder: it has three, and a hostile one could have any number


def of(look: Look, *, every: bool) -> Iterator[Finding]:
    """Give the traps in the placeholders of a file. `every`: it is the mail service's, where what only resembles a
    placeholder is one."""
    for each in look.properties.values():
        if "$[" in each.name:
            yield look.find(
                "placeholder-in-name", "a name is not searched for placeholders: it stays as it is", at=each
            )
        if each.value.type.startswith("Collection"):
            yield from _in_collection(look, each)
            continue
        for at, text in _texts(each):
            scanned = scan(text) if "$[" in text else []
            if every or "$" in text or text.startswith("{"):
                yield from _misspelt(look, at, text, scanned, every)
            for written in _read(text, scanned):
                if written.escaped:
                    if every and written.plain:
                        yield _escaped(look, at, text, written)
                elif written.source in SOURCES and written.closed:
                    for trap in TRAPS:
                        yield from trap(look, at, text, written)


def _in_collection(look: Look, each: Property) -> Iterator[Finding]:
    for at, text in _texts(each):
        for written in _read(text, scan(text)):
            if written.source in SOURCES and written.closed and not written.escaped:
                said = f"{at.name}: {written.shown} stands in a collection, and is not replaced"
                yield look.find("placeholder-in-collection", said, at=at, near=_raw(text, written))


def _texts(each: Property) -> Iterator[tuple[Property, str]]:
    """Give the texts of a value in which placeholders are replaced; of a list's element, the property at its place."""
    value = each.value.value
    if isinstance(value, str):
        yield each, value
    elif isinstance(value, tuple):
        places = each.elements_at if len(each.elements_at) == len(value) else (each.value_at,) * len(value)
        for item, place in zip(value, places, strict=True):
            if isinstance(item, str) and ("$" in item or "[" in item or "{" in item):
                yield replace(each, value_at=place), item


def _read(text: str, scanned: list[Written]) -> Iterable[Written]:
    """Give each of its kind once; nothing behind one that is not closed is looked at by the service."""
    end = min((each.start for each in scanned if not (each.closed or each.escaped)), default=len(text))
    return {(_raw(text, each), each.escaped): each for each in scanned if each.start <= end}.values()


def _raw(text: str, written: Written) -> str:
    return text[written.start : written.end]


def _misspelt(look: Look, at: Property, text: str, scanned: list[Written], every: bool) -> Iterator[Finding]:
    for each in {text[each.start : each.end]: each for each in near(text, every=every, scanned=scanned)}.values():
        whole = (each.start, each.end) == (0, len(text))
        # Of a secret nothing is shown but what is certainly no part of it.
        fit = (whole and each.certain) if like_a_secret(at.name) else not shows_a_secret(each.meant)
        meant = each.meant if fit else ""
        if named_secret(at.name):
            meant = meant.replace("$[env:", "$[secret:", 1)
        raw = text[each.start : each.end]
        change = look.replaced(at, raw, meant) if meant else ""
        said = f": write {meant}" if meant else ""
        yield look.find(
            "misspelt-placeholder", f"{at.name}: this is not replaced, {each.why}{said}", at=at, near=raw, change=change
        )


def _escaped(look: Look, at: Property, text: str, written: Written) -> Finding:
    raw = _raw(text, written)
    said = f"{at.name}: {written.shown} has a backslash before it and is not replaced"
    return look.find("placeholder-escaped", said, at=at, near=raw, change=look.replaced(at, "\\" + raw, raw))


# -- one function for each trap: what is wrong with one placeholder ---------------------------------------------


def name_of_a_variable(look: Look, at: Property, text: str, each: Written) -> Iterator[Finding]:
    if each.source not in ("env", "secret") or valid_name(each.name) or "$[" in each.name:
        return
    if each.source == "secret" and "/" in each.name and ".." not in each.name:
        return  # a folder of secrets, on a machine of one's own
    stripped = each.name.strip()
    better = stripped if valid_name(stripped) else stripped.replace("-", "_").replace(".", "_")
    meant = f"$[{each.source}:{better}]" if valid_name(better) and not each.directives else ""
    said = "has a space at its beginning or end" if stripped != each.name and valid_name(stripped) else ""
    said = said or ("is empty" if not stripped else "cannot be the name of a variable")
    change = look.replaced(at, _raw(text, each), meant) if meant else ""
    yield look.find(
        "placeholder-name",
        f"{at.name}: the name behind {each.source}: {said}",
        at=at,
        near=_raw(text, each),
        change=change,
    )


def directives(look: Look, at: Property, text: str, each: Written) -> Iterator[Finding]:
    if each.name.count("[") > each.name.count("]"):
        said = f"{at.name}: the first semicolon ends the name, also if it stands in a placeholder in the name"
        yield look.find("unescaped-semicolon", said, at=at, near=_raw(text, each), remedy=_NO_DIRECTIVES)
        return
    before = ""
    for directive in each.directives[:_MOST_DIRECTIVES]:
        if directive.name in DIRECTIVES:
            before = directive.name
            continue
        meant = directive.name[:20].strip().lower()
        if meant not in DIRECTIVES:
            meant = next(iter(get_close_matches(meant, DIRECTIVES, 1, 0.7)), "")
        if meant and directive.has_value:
            better = f";{meant}="
            raw = _raw(text, each)
            fixed = raw.replace(f";{directive.name}=", better, 1)
            secret = each.source == "secret" or like_a_secret(at.name)
            change = "" if secret else look.replaced(at, raw, fixed)
            said = f"{at.name}: {each.shown} has a directive that is ignored: it is written {meant}"
            yield look.find("unknown-directive", said, at=at, near=raw, change=change)
        elif before in ("default", "delimiter"):
            said = f"{at.name}: in {each.shown} a semicolon ends the {before}: what follows is ignored"
            yield look.find("unescaped-semicolon", said, at=at, near=_raw(text, each))
        else:
            said = f"{at.name}: {each.shown} has a directive that is ignored: there are {', '.join(DIRECTIVES)}"
            yield look.find("unknown-directive", said, at=at, near=_raw(text, each))


def types(look: Look, at: Property, text: str, each: Written) -> Iterator[Finding]:
    given = each.last("type")
    if given is None or "$[" in given:
        return
    raw = _raw(text, each)
    if not known(given):
        scalar, array = (given[:-2], "[]") if given.endswith("[]") else (given, "")
        lower = {name.lower(): name for name in _TYPES} | _TYPE_ALIASES
        meant = lower.get(scalar.strip().lower()) or next(iter(get_close_matches(scalar[:20], _TYPES, 1, 0.6)), "")
        said = f": write type={meant}{array}" if meant else ""
        fixed = raw.replace(f";type={given}", f";type={meant}{array}") if meant and each.source != "secret" else ""
        change = look.replaced(at, raw, fixed) if fixed else ""
        yield look.find(
            "unknown-type", f"{at.name}: {each.shown} has a type that is none{said}", at=at, near=raw, change=change
        )
        return
    default = each.last("default")
    if default is None or "$[" in default or look.known.has(each.source, each.name):
        return
    try:
        typed(default, {"type": given, "delimiter": each.last("delimiter") or ""})
    except ConversionError as error:
        said = f"{at.name}: the default of {each.shown} {error.text}"
        yield look.find("default-does-not-convert", said, at=at, near=raw)


def arrays(look: Look, at: Property, text: str, each: Written) -> Iterator[Finding]:
    given, delimiter = each.last("type") or "", each.last("delimiter")
    if "$[" in given or (given and not known(given)):
        return
    if delimiter is not None and not given.endswith("[]"):
        said = f"{at.name}: {each.shown} has a delimiter, but no array type: it has no effect"
        yield look.find("array-directives", said, at=at, near=_raw(text, each))
    elif delimiter or given in _OF_SIGNS:
        return
    elif given.endswith("[]") and all(directive.name for directive in each.directives):
        said = f"{at.name}: {each.shown} gives an array of one element, for it has no delimiter"
        yield look.find("array-directives", said, at=at, near=_raw(text, each))


def references(look: Look, at: Property, text: str, each: Written) -> Iterator[Finding]:
    if each.source == "conf" and "$[" not in each.name and each.name.lower() not in {*look.properties, "service.pid"}:
        said = f"{at.name}: {each.shown} names a property that this file does not have"
        yield look.find("conf-missing", said, at=at, near=_raw(text, each))
    if each.source == "prop":
        yield look.find("prop-source", f"{at.name}: {each.shown} reads a system property", at=at, near=_raw(text, each))


def reserved(look: Look, at: Property, text: str, each: Written) -> Iterator[Finding]:
    if each.source not in ("env", "secret") or not each.plain:
        return
    if each.name.startswith(_RESERVED):
        prefix = each.name.partition("_")[0]
        said = f"{at.name}: {each.name} begins with {prefix}_, which is the vendor's: yours would be ignored"
        yield look.find("reserved-variable", said, at=at, near=_raw(text, each))
    elif each.name.startswith("AEM_") and each.name not in _VENDORS:
        said = f"{at.name}: {each.name} is none of the product's variables that are documented for this"
        yield look.find("vendor-variable", said, at=at, near=_raw(text, each))


def secret_defaults(look: Look, at: Property, text: str, each: Written) -> Iterator[Finding]:
    default = each.last("default")
    if not default or "$[" in default or not (each.source == "secret" or named_secret(at.name)) or not each.plain:
        return
    if look.is_tunnel(default):
        return
    meant = f"$[secret:{each.name}]"
    change = look.line(at, meant) if _raw(text, each) == text == at.value.value else ""
    yield look.find(
        "secret-default", f"{at.name}: {each.shown} has a default", at=at, near=_raw(text, each), change=change
    )


def of_the_wrong_kind(look: Look, at: Property, text: str, each: Written) -> Iterator[Finding]:
    """With the variables known, what their types say; without, what their names and the vendor's page do."""
    if each.source not in ("env", "secret") or not each.plain:
        return
    raw = _raw(text, each)
    stored = look.known.variables
    kind = (stored or {}).get(each.name)
    if each.source == "env" and kind == "secretString":
        said = f"{at.name}: {each.name} is stored as a secret, which $[env:…] does not see{_then(each)}"
        yield _of_a_secret(look, "env-reads-secret", said, at, raw, each.name)
    elif each.source == "secret" and kind == "string":
        said = f"{at.name}: {each.name} is stored as a plain variable, which $[secret:…] does not see{_then(each)}"
        change = "" if named_secret(at.name) else look.replaced(at, raw, f"$[env:{each.name}]")
        yield look.find("secret-reads-variable", said, at=at, near=raw, change=change)
    elif each.source == "env" and (named_secret(at.name) or named_secret(each.name)):
        said = f"{at.name}: {each.name} is a secret by its name, and read from env"
        yield _of_a_secret(look, "secret-from-env", said, at, raw, each.name)
    elif each.source == "env" and stored is None and each.name == _DOCUMENTED and each.last("default") is not None:
        said = f"{at.name}: the vendor's page stores {each.name} with --secret; env does not see it then{_then(each)}"
        yield look.find(
            "documented-as-secret", said, at=at, near=raw, change=look.replaced(at, raw, f"$[secret:{each.name}]")
        )
    missing = stored is not None and kind is None and each.name not in _VENDORS and each.last("default") is None
    if missing and each.depth == 0:
        said = f"{at.name}: nothing is set for {each.shown}, and it has no default: it stays as it is"
        yield look.find("variable-missing", said, at=at, near=raw)


def _of_a_secret(look: Look, rule: str, said: str, at: Property, raw: str, name: str) -> Finding:
    """Tell of a secret that is read from env; where it is the password's already, the user's variable was meant."""
    password = look.properties.get("smtp.password")
    if at.name.lower() == "smtp.user" and password and f"$[secret:{name}]" in str(password.value.value):
        remedy = "Read the user's own variable: this secret is the password."
        return look.find(rule, said, at=at, near=raw, change=look.line(at, USER), remedy=remedy)
    return look.find(rule, said, at=at, near=raw, change=look.replaced(at, raw, f"$[secret:{name}]"))


def _then(each: Written) -> str:
    return ": its default is used" if each.last("default") is not None else ": it stays as it is"


def tunnel_by_hand(look: Look) -> Iterator[Finding]:
    """The one trap of variables that no file shows."""
    if TUNNEL_VARIABLE in (look.known.variables or {}):
        yield look.find("tunnel-variable-set", f"{TUNNEL_VARIABLE} is among the variables of the environment")


Trap = Callable[[Look, Property, str, Written], Iterator[Finding]]
TRAPS: tuple[Trap, ...] = (
    name_of_a_variable,
    directives,
    types,
    arrays,
    references,
    reserved,
    secret_defaults,
    of_the_wrong_kind,
)
