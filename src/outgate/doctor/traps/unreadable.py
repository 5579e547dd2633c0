"""What is wrong with a file that cannot be read: which trap it is, and the line to write.

Standards: those of `mailer.osgi`.
Promises: pure; any file and any error of its reader give one finding; a line to write shows no secret.
Dangers: the trap is told by what stands at the error's place, not by the words of the error.
Not here: reading (`mailer.osgi`), files that can be read (`doctor.traps`).
"""

from __future__ import annotations

import re

from outgate.base.secret_names import like_a_secret
from outgate.doctor.report import Finding
from outgate.doctor.traps.names import SECRETS
from outgate.doctor.traps.rules import RULES, STATES
from outgate.doctor.traps.source import Source, only_a_placeholder, shows_a_secret
from outgate.mailer.folders import ConfigFile
from outgate.mailer.osgi import OsgiError, Place
from outgate.mailer.values import known

_NAME = re.compile(r"(?P<name>[A-Za-z_][\w.\-]{0,60})[ \t]*[:=][ \t]*(?P<rest>[^\n\r]*)")
_KEY_BEFORE = re.compile(
    r'"(?P<name>[^":\n]{1,100}):(?P<type>Collection<[A-Za-z]{1,20}>|[A-Za-z]{1,20}(?:\[\])?)"\s{0,400}:\s{0,400}(?:\[(?P<before>[^\[\]]{0,400}))?$'
)
_MEMBER = re.compile(r'\s*"(?P<name>[^"\n]{1,100})"[ \t]*:[ \t]*(?P<value>"(?:[^"\\\n]|\\.)*"|[\w.+\-]+)[ \t]*$')
_COMMENT = re.compile(r'"(?:[^"\\\n]|\\.)*"?|//[^\n]*|/\*.*?(?:\*/|\Z)', re.S)
_CLOSED = re.compile(r'["\w\]}]\s*$')


def unreadable(file: ConfigFile, error: OsgiError) -> Finding:
    """Return the finding for a file that its reader refuses."""
    source = Source(_COMMENT.sub(_blanked, file.data.decode("utf-8", "replace")))
    place = Place(max(error.line, 1), max(error.column, 1))
    rule, change = _told(source, source.offset(place))
    change = "" if shows_a_secret(change) else change
    found = RULES[rule]
    return Finding(
        found.hop, STATES[found.level], error.text, rule, found.remedy, change, file.where, place.line, place.column
    )


def _blanked(token: re.Match[str]) -> str:
    """Return a comment as blanks, of which nothing is told; a string as it is."""
    return token[0] if token[0].startswith('"') else re.sub(r"[^\n]", " ", token[0])


def _told(source: Source, at: int) -> tuple[str, str]:
    text = source.text
    before = text[max(at - 1000, 0) : at]
    if re.match(r"null\b", text[at : at + 5]):
        return "null-value", ""
    typed = _KEY_BEFORE.search(before)
    if typed and text[at : at + 1] == "[" and "$[" in text[at : source.end(at)]:
        return "typed-placeholder", ""
    if text[at : at + 1] == '"':
        value = source.string(at)
        if typed and "$[" in value:
            return "typed-placeholder", _untyped(source, at, typed, value)
        is_name = re.match(r"\s*:", text[source.end(at) :][:400]) is not None
        if is_name and "$[" in value:
            return "placeholder-in-name", ""
        if is_name and _again(text[:at], value.partition(":")[0]):
            return "duplicate-property", ""
    outside = before.rstrip()[-1:]
    name = _NAME.match(text, at)
    if name and outside in ("{", ","):
        return "not-json", _quoted(name["name"], name["rest"])
    if outside and _CLOSED.search(before) and (text[at : at + 1] == '"' or name):
        return "not-json", _with_comma(text[:at].rstrip())
    return "unreadable", ""


def _untyped(source: Source, at: int, typed: re.Match[str], value: str) -> str:
    """Return the line with the type in the placeholder, with the comma that it has; "" for a list of more than that
    placeholder."""
    name, type_name, end = typed["name"], typed["type"], source.end(at)
    if typed["before"] is not None:
        closed = re.compile(r"\s*\]").match(source.text, end)
        if typed["before"].strip() or not closed:
            return ""
        end = closed.end()
    whole = re.fullmatch(r"\$\[(?:env|secret):[A-Za-z_]\w*(?P<more>;[^\[\]]*)?\]", value)
    if not whole or "type=" in value or not known(type_name) or (like_a_secret(name) and whole["more"]):
        return ""
    comma = re.compile(r"\s*,").match(source.text, end)
    return f'"{name}": "{value[:-1]};type={type_name}]"{"," if comma else ""}'


def _again(before: str, name: str) -> bool:
    """Say whether a name has stood in the file before."""
    return bool(name) and re.search(rf'"{re.escape(name)}(?::[^"\n]*)?"\s*:', before, re.IGNORECASE) is not None


def _quoted(name: str, rest: str) -> str:
    value = rest.rstrip()
    comma = "," if value.endswith(",") else ""
    bare = value.removesuffix(",").strip()
    if like_a_secret(name) and not only_a_placeholder(bare.strip('"')):
        bare = f'"{SECRETS[name]}"' if name in SECRETS else ""
    elif not re.fullmatch(r'"(?:[^"\\]|\\.)*"|[\[{]|true|false|-?[0-9]+', bare):
        bare = ""
    return f'"{name}": {bare}{comma}' if bare else ""


def _with_comma(before: str) -> str:
    line = before[before.rfind("\n") + 1 :]
    member = _MEMBER.fullmatch(line)
    if not member or (like_a_secret(member["name"]) and not only_a_placeholder(member["value"].strip('"'))):
        return ""
    return f"{line.strip()},"
