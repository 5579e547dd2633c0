"""What the egress let through and what it refused: one line at decision, one at close, notices in between.

Standards: RFC 8259, one object a line.
Promises: a refused connection has one line, an opened one has two with the same connection id; half a line, which a
    full disk may leave, is skipped by readers; the files are bounded; who asks sees all that was told before.
Dangers: on an event loop lines wait for `BATCH_S` to be written together: a crash may lose those. A full disk loses
    lines, not connections: it is logged as `audit.lost`. Lines are not synced. A connection is found if its decision
    lies no more than `LOOK_BACK` octets of lines before the time it is asked for.
Not here: files (`line_file`), figures (`figures`), who changed what (`store.egress`), the relay's record
    (`store.sqlite`).
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any

from outgate.egress.line_file import LineFile, Span
from outgate.egress.plan import Forward, Rule

BATCH_S = 0.05
LOOK_BACK = 32 * 1024 * 1024
# How much later than `at` a decision may be written and still be the one meant: the target can have its say
# before our line about the connection is out.
_SKEW_S = 5.0
_BATCH_OCTETS = 256 * 1024
_LONGEST_REASON = 1000
_LINE = b'{"at":'
_STAMP = re.compile(rb'\{"at":([0-9]+\.[0-9]+),')
_RULES_KEPT = 32_768

_quoted = encode_basestring_ascii


@dataclass(frozen=True, slots=True)
class Connection:
    """What is known of a connection; "" where it did not get so far. Addresses read `addr:port`, `[v6]:port`.

    `name` and `port` are where it leads: the forward's, or what the proxy was asked for by `method`."""

    id: str
    rule: Rule
    client: str
    name: str = ""
    port: int = 0
    method: str = ""
    proxy_header: bool = False
    target: str = ""
    source: str = ""
    exception: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are looked for; what is "" is any. `client` is an address, or an address and port; `before` in epoch
    seconds leaves out all that is not older."""

    environment: str = ""
    refusal: str = ""
    client: str = ""
    before: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The lines, newest first; `older` is the `before` to go on with, None if there are no more."""

    lines: tuple[dict[str, Any], ...]
    older: float | None


class Audit:
    """Append lines to `file`, and find them again. Thread-safe; lines written on an event loop wait for a batch."""

    def __init__(self, file: Path, *, max_bytes: int = 64 * 1024 * 1024, keep: int = 4) -> None:
        self._file = LineFile(file, max_bytes=max_bytes, keep=keep)
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._waiting: list[str] = []
        self._octets = 0
        self._rules: dict[int, tuple[Rule, str]] = {}

    @property
    def lost(self) -> int:
        """Return how many lines could not be written."""
        return self._file.lost

    def decision(self, at: float, connection: Connection, *, refusal: str = "", reason: str) -> None:
        """Write that a connection was opened or, with a `refusal` (a class word), why not."""
        about = self._about(at, "decision", connection)
        self._add(f'{about},"refusal":"{refusal}","reason":{_quoted(reason[:_LONGEST_REASON])}}}\n')

    def notice(self, at: float, connection: Connection, *, code: str, reason: str) -> None:
        """Write what was noticed about an open connection: `code` is a class word, `reason` says it in words."""
        about = self._about(at, "notice", connection)
        self._add(f'{about},"code":{_quoted(code)},"reason":{_quoted(reason[:_LONGEST_REASON])}}}\n')

    def close_of(
        self,
        at: float,
        connection: Connection,
        *,
        bytes_up: int,
        bytes_down: int,
        duration_s: float,
        reason: str,
        notices: tuple[str, ...] = (),
    ) -> None:
        """Write that an opened connection ended: octets from the client (up) and to it (down), codes of notices."""
        about = self._about(at, "close", connection)
        noticed = json.dumps(notices, separators=(",", ":")) if notices else "[]"
        self._add(
            f'{about},"bytes_up":{bytes_up},"bytes_down":{bytes_down},"duration_s":{duration_s:.6f}'
            f',"notices":{noticed},"reason":{_quoted(reason[:_LONGEST_REASON])}}}\n'
        )

    def find(self, client_address: str, client_port: int, at: float) -> list[dict[str, Any]]:
        """Return the lines of the connection that this client had at `at` (epoch seconds), decision first.

        Ports come round again: of several, the last that was decided before `at` is meant. [] if none. Blocks for
        some hundredths of a second at most."""
        self.flush()
        client = endpoint(client_address, client_port)
        latest = at + _SKEW_S
        with self._file.reading() as lines:
            start = lines.after(latest, _stamp)
            for position, line in lines.back(start, b'"client":' + _quoted(client).encode("ascii"), LOOK_BACK):
                entry = _read(line)
                if entry is None or entry["client"] != client or entry["event"] != "decision" or entry["at"] > latest:
                    continue
                return [entry, *_what_followed(lines, position + len(line) + 1, entry["connection_id"])]
        return []

    def recent(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return the newest lines, newest first."""
        return list(self.search(Wanted(), limit).lines)

    def search(self, wanted: Wanted, limit: int) -> Found:
        """Return the newest lines that are wanted, newest first; looks at `LOOK_BACK` octets at most. Blocks."""
        self.flush()
        found: list[dict[str, Any]] = []
        with self._file.reading() as lines:
            start = lines.end if wanted.before is None else lines.after(wanted.before, _stamp)
            for _, line in lines.back(start, _needle(wanted), LOOK_BACK):
                entry = _read(line)
                if entry is None or not _fits(entry, wanted):
                    continue
                if len(found) == limit:
                    return Found(tuple(found), found[-1]["at"])
                found.append(entry)
            bound = start - LOOK_BACK
            older = lines.stamp_from(bound, _stamp) if bound > 0 else None
        return Found(tuple(found), older)

    def flush(self) -> None:
        """Write what waits."""
        # One writer at a time, so that lines stay in order; who adds one does not wait for the disk.
        with self._writing:
            with self._lock:
                waiting, self._waiting, self._octets = self._waiting, [], 0
            if waiting:
                self._file.write(waiting)

    def close(self) -> None:
        """Write what waits and close the file."""
        self.flush()
        self._file.close()

    def _add(self, line: str) -> None:
        with self._lock:
            self._waiting.append(line)
            self._octets += len(line)
            first, full = len(self._waiting) == 1, self._octets >= _BATCH_OCTETS
        if full:
            self.flush()
        elif first:
            try:
                asyncio.get_running_loop().call_later(BATCH_S, self.flush)
            except RuntimeError:
                self.flush()  # nobody would come back for it

    def _about(self, at: float, event: str, connection: Connection) -> str:
        """Return the beginning that all lines about a connection share."""
        leads = self._leads(connection.rule)
        if connection.method:
            method, name = _quoted(connection.method), _quoted(connection.name)
            leads = f'{leads},"method":{method},"name":{name},"port":{connection.port}'
        return (
            f'{{"at":{at:.6f},"event":"{event}","connection_id":{_quoted(connection.id)},{leads}}}'
            f',"client":{_quoted(connection.client)},"target":{_quoted(connection.target)}'
            f',"source":{_quoted(connection.source)},"proxy_header":{"true" if connection.proxy_header else "false"}'
            f',"exception":{_quoted(connection.exception)}'
        )

    def _leads(self, rule: Rule) -> str:
        """Return what is the same for all connections of a rule: whose it is, and where it leads, yet unclosed."""
        kept = self._rules.get(id(rule))
        if kept is not None and kept[0] is rule:
            return kept[1]
        place = f'"program":{_quoted(rule.program_id)},"environment":{_quoted(rule.environment_id)}'
        place = f'{place},"mode":"{rule.mode.value}"'
        if isinstance(rule, Forward):
            fields = f'"portOrig":{rule.listen_port},"name":{_quoted(rule.name)},"portDest":{rule.port}'
            text = f'{place},"forward":{{{fields}'
        else:
            text = f'{place},"proxy":{{"listen":{rule.listen_port}'
        if len(self._rules) >= _RULES_KEPT:
            self._rules.clear()
        # The rule is kept with its text, so that its id stays its own.
        self._rules[id(rule)] = (rule, text)
        return text


def endpoint(address: str, port: int) -> str:
    """Write an address and a port: `192.0.2.1:25`, `[2001:db8::1]:25`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _what_followed(lines: Span, position: int, connection_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in lines.on(position, b'"connection_id":' + _quoted(connection_id).encode("ascii"), LOOK_BACK):
        entry = _read(line)
        if entry is None or entry["connection_id"] != connection_id:
            continue
        found.append(entry)
        if entry["event"] == "close":
            break
    return found


def _needle(wanted: Wanted) -> bytes:
    """Return octets that each wanted line holds: what is rarest, so that few lines are read in vain."""
    if wanted.client:
        return b'"client":' + _quoted(wanted.client).encode("ascii").rstrip(b'"')
    if wanted.refusal:
        return b'"refusal":' + _quoted(wanted.refusal).encode("ascii")
    if wanted.environment:
        return b'"environment":' + _quoted(wanted.environment).encode("ascii")
    return _LINE


def _fits(entry: dict[str, Any], wanted: Wanted) -> bool:
    client = str(entry["client"])
    return (
        (wanted.before is None or entry["at"] < wanted.before)
        and wanted.environment in ("", entry["environment"])
        and wanted.refusal in ("", entry.get("refusal", ""))
        and wanted.client in ("", client, client.rpartition(":")[0])
    )


def _read(line: bytes) -> dict[str, Any] | None:
    """Return a line, or None if it is none of ours: half of one, or octets that a broken disk made up."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    known = isinstance(entry, dict) and {"at", "event", "connection_id", "environment", "client"} <= entry.keys()
    return entry if known else None  # pyright: ignore[reportUnknownVariableType]


def _stamp(line: bytes) -> float | None:
    found = _STAMP.match(line)
    return None if found is None else float(found[1])
