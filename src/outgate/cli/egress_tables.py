"""What `outgate egress` prints for people: tables that fit a terminal, and below a row what is too long for it.

Standards: none.
Promises: pure; nothing is left out but for the end of a long name; what stands below a row is broken at words.
Not here: asking (`cli.egress`), removing what would steer a terminal (its printer).
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from outgate.cli.calling import clean, shortened
from outgate.cli.queue import span
from outgate.trail import ended, leads

_LEAST = 8
_GAP = "  "
Row = tuple[Sequence[object], Sequence[str]]
"""The cells, and the lines below them."""


def table(
    heads: Sequence[str], rows: Sequence[Row], room: int | None, *, wide: int, right: Sequence[int] = ()
) -> list[str]:
    """Return a table: column `wide` is cut where the row would not fit into `room`, columns `right` stand right."""
    texts = [
        [clean("" if cell is None else str(cell)) for cell in cells] for cells in (heads, *(row[0] for row in rows))
    ]
    widths = [max(len(row[column]) for row in texts) for column in range(len(heads))]
    if room is not None:
        over = sum(widths) + len(_GAP) * (len(widths) - 1) - room
        widths[wide] = max(min(widths[wide], _LEAST), widths[wide] - max(over, 0))
    lines: list[str] = []
    for text, (_, below) in zip(texts, (((), ()), *rows), strict=True):
        cells = [
            cell.rjust(width) if column in right else shortened(cell, width).ljust(width)
            for column, (cell, width) in enumerate(zip(text, widths, strict=True))
        ]
        lines += [_GAP.join(cells).rstrip(), *(f"    {line}" for line in below)]
    return lines


def fitted(lines: Sequence[str], room: int | None) -> list[str]:
    """Return lines that fit: a row is cut, what stands below one or begins with ! goes on in the next line."""
    found: list[str] = []
    for line in lines:
        if room is None or len(line) <= room:
            found.append(line)
        elif line.startswith(("!", "    ")):
            after = "      " if line.startswith(" ") else "  "
            found += textwrap.wrap(line, room, subsequent_indent=after, break_on_hyphens=False)
        else:
            found.append(shortened(line, room))
    return found


def status(document: dict[str, Any], room: int | None) -> list[str]:
    """Return how the egress stands."""
    environments, limits = document["environments"], document["limits"]
    rules = sum(len(each["rules"]) for each in environments)
    lines = [
        f"{_count(len(environments), 'environment')}, {_count(rules, 'rule')}, "
        f"{_count(document['open'], 'connection')} open; figures since {_time(document['since'])}"
    ]
    if document.get("problem"):
        lines.append(f"! not all of {document['source']} is in force: {document['problem']}")
    if document["audit_lines_lost"]:
        lines.append(f"! {_count(document['audit_lines_lost'], 'line')} of the audit lost: make room on its disk")
    lines += [
        f"! source ports {budget['source']} to {budget['target']}: {budget['used']} of {budget['ports']} in use: "
        "give it more addresses"
        for budget in document["source_ports"]
        if budget["alert"]
    ]
    for each in environments:
        lines += ["", *_one(each, limits, room)]
    return lines


def _one(environment: dict[str, Any], limits: dict[str, Any], room: int | None) -> list[str]:
    head = f"environment {environment['environment']}  program {environment['program']}  {environment['mode']}"
    lines = [f"{head}  {environment['counted']} of {limits['connections']} places taken"]
    if environment["alert"]:
        lines.append(f"! near its limit of {limits['connections']} connections")
    if environment["reason"]:
        lines.append(f"! what it wants is not in force: {environment['reason']}")
    if not environment["rules"]:
        return [*lines, "    nothing is in force"]
    heads = ("LISTEN", "TARGET", "OPEN", "TOTAL", "REFUSED", "UP", "DOWN", "LONGEST")
    rows: list[Row] = [(_rule_cells(rule), _rule_below(rule)) for rule in environment["rules"]]
    return [*lines, *table(heads, rows, room, wide=1, right=range(2, 8))]


def _rule_cells(rule: dict[str, Any]) -> tuple[object, ...]:
    longest = rule["longest_open_s"]
    return (
        rule["listen"],
        rule["target"] or "(proxy)",
        rule["open"],
        rule["opened"],
        sum(rule["refused"].values()),
        octets(rule["octets_up"]),
        octets(rule["octets_down"]),
        "" if longest is None else span(int(longest)),
    )


def _rule_below(rule: dict[str, Any]) -> list[str]:
    below: list[str] = []
    if rule["refused"]:
        below.append(f"refused: {_counts(rule['refused'])}")
    if rule["last_refusal"]:
        last = rule["last_refusal"]
        below.append(f"last at {_time(last['at'])}: {last['kind']}: {last['reason']}")
    if rule["notices"]:
        below.append(f"noticed: {_counts(rule['notices'])}")
    return below


def environments(found: Sequence[dict[str, Any]], room: int | None) -> list[str]:
    """Return where environments are."""
    heads = ("ID", "PROGRAM", "NAME", "STATUS", "MODE", "TUNNEL ADDRESS", "FORWARDS")
    rows: list[Row] = []
    for each in found:
        networks = ", ".join(each["clientNetworks"]) or "nobody may: set --client-network"
        below = [f"clients: {networks}", *([f"! {each['reason']}"] if each["reason"] else [])]
        cells = ("id", "program", "name", "status", "mode", "tunnelAddress", "forwards")
        rows.append((tuple(each[name] for name in cells), below))
    return table(heads, rows, room, wide=2, right=(6,))


def addresses(found: dict[str, Any], room: int | None) -> list[str]:
    """Return the addresses that leave, and their source ports."""
    rows: list[Row] = [((address, "shared", "", "", "", ""), ()) for address in found["shared"]]
    for each in found["dedicated"]:
        proven = {None: "not yet" if each["program"] else "", True: "yes", False: "NO"}[each["proven"]]
        state = each["state"] if each["pooled"] else f"{each['state']}, not in the pool"
        below = [each["reason"]] if each["reason"] else []
        cells = (each["address"], state, each["program"], each["kind"], each["status"], proven)
        rows.append((cells, below))
    lines = table(("ADDRESS", "STATE", "PROGRAM", "KIND", "STATUS", "PROVEN"), rows, room, wide=1)
    if found["source_ports"] is None:
        return [*lines, "", "the egress cannot be asked for its source ports: is `outgate egress serve` running?"]
    ports: list[Row] = [
        (
            (each["source"], each["target"], each["used"], each["ports"], f"{each['share']:.1%}"),
            ["! nearly full: give it more addresses"] if each["alert"] else [],
        )
        for each in found["source_ports"]
    ]
    if ports:
        lines += ["", *table(("SOURCE", "TARGET", "IN USE", "OF", "SHARE"), ports, room, wide=1, right=(2, 3, 4))]
    return lines


def exceptions(found: Sequence[dict[str, Any]], room: int | None) -> list[str]:
    """Return what the guard lets through."""
    rows: list[Row] = []
    for each in found:
        since = _time(each["created_at"]) if each["created_at"] else ""
        below = [part for part in (each["reason"], f"id {each['id']}" if each["id"] else "") if part]
        rows.append(((each["entry"], each["environment"] or "all", since, each["created_by"]), below))
    return table(("ENTRY", "ENVIRONMENT", "SINCE", "BY"), rows, room, wide=0)


def audit(found: Sequence[dict[str, Any]], room: int | None) -> list[str]:
    """Return lines of the audit, the newest last: when, what and where to; below it how, or why not."""
    heads = ("TIME", "WHAT", "CLIENT", "WHERE TO")
    rows: list[Row] = []
    for line in reversed(found):
        cells = (_epoch(line["at"]), _what(line), line["client"], leads(line))
        rows.append((cells, [f"environment {line['environment']}: {_how(line)}"]))
    return table(heads, rows, room, wide=3) if rows else []


def _what(line: dict[str, Any]) -> str:
    if line["event"] == "decision":
        return "refused" if line["refusal"] else "opened"
    return {"notice": "noticed", "close": "closed"}[line["event"]]


def _how(line: dict[str, Any]) -> str:
    if line["event"] == "close":
        return ended(line)
    if line["event"] == "notice":
        return f"{line['code']}: {line['reason']}"
    if line["refusal"]:
        return f"{line['refusal']}: {line['reason']}"
    by = f", let through by the exception {line['exception']}" if line["exception"] else ""
    header = ", PROXY v2 header" if line["proxy_header"] else ""
    return f"to {line['target']} from {line['source']} ({line['mode']}){header}{by}"


def octets(number: int) -> str:
    """Return a number of octets as short as it can be read."""
    if number < 1000:
        return str(number)
    size = float(number)
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.1f} {unit}" if size < 99.95 else f"{size:.0f} {unit}"
    return f"{size / 1000:.1f} PB"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {word}" for word, number in sorted(counts.items(), key=lambda item: -item[1]))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _time(text: str) -> str:
    """Return an RFC 3339 time to the second."""
    return f"{text[:10]} {text[11:19]}"


def _epoch(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
