"""A report for people, and for programs.

Standards: none.
Promises: pure; no line for people is longer than its width, but what is to be copied is never broken; nothing from
    outside can steer a terminal; the document's fields stay what they are.
Not here: what is found (the hops), GitHub's and SARIF's forms (`doctor.annotations`).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from outgate.doctor.report import Finding, Hop, Report, State
from outgate.doctor.traps.rules import RULES

WIDTH = 100
_STATE, _HOP = 8, 13
_SHOWN = {State.OK: "ok", State.WARNING: "warning", State.BROKEN: "BROKEN", State.UNKNOWN: "unknown"}
_COLOURS = {State.OK: "32", State.WARNING: "33", State.BROKEN: "31;1", State.UNKNOWN: "36"}
_WORST = (State.BROKEN, State.WARNING, State.UNKNOWN, State.OK)


def for_people(report: Report, heading: str, *, colour: bool = False, width: int = WIDTH) -> str:
    """Return what to print: a line or more for each hop, then the one thing to change."""
    lines = [clean(heading), ""] if heading else []
    broken = report.broken
    for hop in Hop:
        found = [each for each in report.findings if each.hop is hop]
        if broken is not None and broken.hop is hop:
            warnings = [each for each in found if each.state is State.WARNING]
            found = [Finding(hop, State.BROKEN, "see below"), *warnings]
        for number, each in enumerate(found):
            name = hop.value if number == 0 else ""
            lines += _block(_SHOWN[each.state], name, _told(each), width, _COLOURS[each.state] if colour else "")
    if broken is not None:
        seen = {each.hop for each in report.findings}
        left = [hop.value for hop in Hop if hop not in seen]
        lines += _field("not looked at", ", ".join(left), width) if left else []
    lines += ["", *(_whole(report, width) if broken is None else _change(broken, width))]
    return "\n".join(lines) + "\n"


def _told(finding: Finding) -> str:
    """Return what a line says: of a warning where it stands too."""
    if finding.state is State.WARNING:
        place = f" ({finding.file}:{finding.line})" if finding.file and finding.line else ""
        return f"{finding.text}: {finding.remedy}{place}" if finding.remedy else f"{finding.text}{place}"
    return finding.text


def _block(state: str, hop: str, text: str, width: int, colour: str) -> Iterator[str]:
    indent = _STATE + _HOP + 4
    shown = f"\x1b[{colour}m{state:<{_STATE}}\x1b[0m" if colour else f"{state:<{_STATE}}"
    for number, line in enumerate(_wrapped(text, width - indent)):
        yield f"  {shown}{hop:<{_HOP}}  {line}".rstrip() if number == 0 else f"{'':<{indent}}{line}"


def _whole(report: Report, width: int) -> list[str]:
    unknown, warned = (
        ", ".join(hop.value for hop in Hop if any(e.hop is hop and e.state is state for e in report.findings))
        for state in (State.UNKNOWN, State.WARNING)
    )
    said = f"Nothing is broken, as far as could be seen. Not known: {unknown}." if unknown else "The way is whole."
    return _wrapped(f"{said} Look at the warnings: {warned}." if warned else said, width)


def _change(broken: Finding, width: int) -> Iterator[str]:
    yield f"{broken.hop.value} is broken [{broken.rule}]"
    yield ""
    yield from _field("seen", broken.text, width)
    rule = RULES.get(broken.rule)
    if rule is not None:
        yield from _field("why", rule.why, width)
    if broken.file:
        place = f":{broken.line}:{broken.column}" if broken.line else ""
        yield f"  where   {clean(broken.file)}{place}"
    yield from _field("do", _sentence(broken.remedy), width)
    if broken.change:
        yield ""
        for line in broken.change.split("\n"):
            yield f"    {clean(line)}"


def _field(name: str, text: str, width: int) -> Iterator[str]:
    indent = max(len(name) + 2, 8)
    for number, line in enumerate(_wrapped(text, width - indent - 2)):
        yield f"  {name if number == 0 else '':<{indent}}{line}"


def _sentence(text: str) -> str:
    """Return text with a capital, unless it begins with a name that has none."""
    first = text.partition(" ")[0]
    return text if "." in first or "=" in first else text[:1].upper() + text[1:]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(clean(text), width, break_long_words=True, break_on_hyphens=False) or [""]


def for_programs(report: Report, about: dict[str, object]) -> dict[str, object]:
    """Return the report as a document; `about` says what was looked at."""
    broken = report.broken
    return {
        **about,
        "exit_code": report.exit_code,
        "broken": None if broken is None else {"hop": broken.hop.value, **_finding(broken)},
        "hops": [
            {
                "hop": hop.value,
                "state": _worst(each.state for each in report.findings if each.hop is hop),
                "findings": [_finding(each) for each in report.findings if each.hop is hop],
            }
            for hop in Hop
        ],
    }


def _worst(states: Iterable[State]) -> str | None:
    """Return the worst of some states, None if there is none: the hop was not looked at."""
    found = set(states)
    return next((state.value for state in _WORST if state in found), None)


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "state": finding.state.value,
        "text": finding.text,
        "rule": finding.rule,
        "remedy": finding.remedy,
        "change": finding.change,
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
    }


def clean(text: str) -> str:
    """Return text with a sign in place of each character that would steer a terminal."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
