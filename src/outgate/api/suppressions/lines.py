"""Suppressed addresses as CSV: what is exported reads back as it was, and what others export reads too.

Standards: RFC 4180 (CSV), UTF-8 with or without a byte order mark.
Promises: pure; a file is read whole or not at all: each fault names its line; no cell that is written begins a formula
    in a spreadsheet.
Dangers: a spreadsheet takes a cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return for a formula, so an
    apostrophe goes in front, as OWASP advises; one is taken off again where it was put on. A file of others in which a
    cell begins with an apostrophe and such a sign loses the apostrophe.
Not here: storing (`store.suppressions`), HTTP (`api.suppressions`).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from outgate.api.errors import BadRequest
from outgate.api.messages.queries import moment
from outgate.base.clock import rfc3339
from outgate.model.suppression import (
    LONGEST_DETAIL,
    LONGEST_SOURCE,
    MANUAL,
    REASON,
    NewSuppression,
    Suppression,
    key,
)
from outgate.smtp.grammar import BadSyntax

COLUMNS = ("address", "reason", "source", "detail", "created_at", "expires_at")
MOST_OCTETS = 16 * 1024 * 1024
MOST_ROWS = 100_000
LONGEST_LINE = 4096
"""Characters of one line, its line end included."""
FAULTS_SHOWN = 20
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_STEERS = frozenset("=+-@\t\r'")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a file, and on which line (the first is 1)."""

    line: int
    text: str


class BadFile(Exception):
    """A file that cannot be taken; `faults` are the first ones, at least one."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(faults[0].text)
        self.faults = tuple(faults)


def read(octets: bytes, *, source: str, now: float) -> tuple[list[NewSuppression], int]:
    """Return the entries of a CSV file, and how many were left out because they have ended.

    The first line names the columns, `address` among them. `source` is whose entries are that name none. Raises
    `BadFile`."""
    names, records = _records(_text(octets))
    found: dict[str, NewSuppression] = {}
    faults: list[Fault] = []
    ended = rows = 0
    try:
        for line, record in records:
            rows += 1
            if rows > MOST_ROWS:
                faults.append(Fault(line, f"there are more than {MOST_ROWS} rows: import the rest as another file"))
            else:
                try:
                    entry = _entry(names, record, source)
                except ValueError as error:
                    faults.append(Fault(line, str(error)))
                    entry = None
                if entry is not None and entry.expires_at is not None and entry.expires_at <= now:
                    ended += 1
                elif entry is not None:
                    found[key(entry.address)] = entry  # of two lines for one address the later counts
            if len(faults) >= FAULTS_SHOWN or rows > MOST_ROWS:
                break
    except BadFile as error:
        faults += error.faults
    if faults:
        raise BadFile(faults)
    return list(found.values()), ended


def write(entries: Iterable[Suppression]) -> str:
    """Return entries as lines, without the head."""
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\r\n")
    for each in entries:
        ends = "" if each.expires_at is None else rfc3339(each.expires_at, milliseconds=True)
        made = rfc3339(each.created_at, milliseconds=True)
        rows.writerow([_safe(cell) for cell in (each.address, each.reason, each.source, each.detail, made, ends)])
    return out.getvalue()


HEAD = ",".join(COLUMNS) + "\r\n"


def _safe(cell: str) -> str:
    return f"'{cell}" if cell and cell[0] in _STEERS else cell


def _plain(cell: str) -> str:
    return cell[1:] if len(cell) > 1 and cell[0] == "'" and cell[1] in _STEERS else cell


def _text(octets: bytes) -> str:
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise BadFile([Fault(line, f"octet {error.start + 1} is not UTF-8: save the file as UTF-8")]) from None
    at = text.find("\0")
    if at >= 0:
        raise BadFile([Fault(text.count("\n", 0, at) + 1, "there is a NUL: save the file as UTF-8 text")])
    return text


def _records(text: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the names of the columns, and an iterator of (line, cells) that raises `BadFile`."""
    rows = _rows(text)
    line, head = next(rows, (1, []))
    names = [name.strip().lower() for name in head]
    if "address" not in names:
        raise BadFile(
            [Fault(line, f"the first line must name the columns: address, and any of {', '.join(COLUMNS[1:])}")]
        )
    for name in names:
        if name not in COLUMNS:
            known = ", ".join(COLUMNS)
            raise BadFile([Fault(line, f"there is no column {name[:40]!r}: the columns are {known}")])
        if names.count(name) > 1:
            raise BadFile([Fault(line, f"the column {name!r} is there twice")])
    return names, rows


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Give (first line, cells) of each row that is not empty. Raises `BadFile`."""
    reader = csv.reader(_lines(text), strict=True)
    before = 0
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            said = "a quote is opened and never closed" if "end of data" in str(error) else f"this is not CSV: {error}"
            raise BadFile([Fault(before + 1, said)]) from None
        if cells is None:
            return
        if cells:
            yield before + 1, cells
        before = reader.line_num


def _lines(text: str) -> Iterator[str]:
    for number, line in enumerate(io.StringIO(text, newline=""), 1):
        if len(line) > LONGEST_LINE:
            raise BadFile([Fault(number, f"the line is longer than {LONGEST_LINE} characters")])
        yield line


def _entry(names: list[str], record: list[str], source: str) -> NewSuppression:
    """Read a row. Raises `ValueError` with what is wrong."""
    if len(record) != len(names):
        raise ValueError(f"there are {len(record)} cells under {len(names)} columns")
    cells = {name: _plain(cell) for name, cell in zip(names, record, strict=True)}
    for name, cell in cells.items():
        if _CONTROL.search(cell) is not None:
            raise ValueError(f"{name} has a control character")
        if name not in ("source", "detail"):
            cells[name] = cell.strip(" ")
    address = cells["address"]
    check_address(address)
    reason = cells.get("reason", "").lower() or MANUAL
    if REASON.fullmatch(reason) is None:
        raise ValueError(
            f"reason {reason[:60]!r} is not one word such as hard_bounce, complaint, unsubscribe or manual"
        )
    for name, most in (("source", LONGEST_SOURCE), ("detail", LONGEST_DETAIL)):
        if len(cells.get(name, "")) > most:
            raise ValueError(f"{name} has more than {most} characters")
    return NewSuppression(
        address,
        reason,
        cells.get("source", "") or source,
        cells.get("detail", ""),
        _time("expires_at", cells),
        _time("created_at", cells),
    )


def check_address(address: str) -> None:
    """Raise `ValueError` unless `address` is a mailbox that mail could be sent to."""
    try:
        found = key(address)
    except BadSyntax as error:
        raise ValueError(f"{address[:100]!r} is not a mailbox such as ann@example.com: {error}") from None
    if not address or found.endswith("]"):
        raise ValueError(f"{address[:100]!r} is not a mailbox with a domain, such as ann@example.com")


def _time(name: str, cells: dict[str, str]) -> float | None:
    text = cells.get(name, "")
    if not text:
        return None
    try:
        return moment(name, text)
    except BadRequest as error:
        raise ValueError(str(error)) from None
