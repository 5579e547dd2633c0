"""What the egress let through and what it refused: one line at decision, one at close.

Standards: RFC 8259, one object a line.
Promises: a refused connection has one line, an opened one has two with the same connection id; half a
    line, which a full disk may leave, is skipped by readers; there are `keep` + 1 files of `max_bytes` at most.
Dangers: a full disk loses lines, not connections: it is logged as `audit.lost`. Lines are not synced.
Not here: who changed what (`store.egress`), the relay's record (`store.sqlite`).
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outgate.base.log import Log
from outgate.egress.plan import Forward, Rule

_log = Log("outgate.egress.audit")
# How much later than `at` a decision may be written and still be the one meant: the target can have its say
# before our line about the connection is out.
_SKEW_S = 5.0


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


class Audit:
    """Append lines to `file`, and find them again. Thread-safe."""

    def __init__(self, file: Path, *, max_bytes: int = 64 * 1024 * 1024, keep: int = 4) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._keep = keep
        self._lock = threading.Lock()
        self._descriptor = -1
        self._size = 0
        self._torn = False
        self._open()

    def decision(self, at: float, connection: Connection, *, refusal: str = "", reason: str) -> None:
        """Write that a connection was opened or, with a `refusal` (a class word), why not."""
        self._write({**_entry(at, "decision", connection), "refusal": refusal, "reason": reason})

    def notice(self, at: float, connection: Connection, *, code: str, reason: str) -> None:
        """Write what was noticed about an open connection: `code` is a class word, `reason` says it in words."""
        self._write({**_entry(at, "notice", connection), "code": code, "reason": reason})

    def close_of(
        self, at: float, connection: Connection, *, bytes_up: int, bytes_down: int, duration_s: float, reason: str
    ) -> None:
        """Write that an opened connection ended: octets from the client (up) and to it (down)."""
        counts = {"bytes_up": bytes_up, "bytes_down": bytes_down, "duration_s": round(duration_s, 6)}
        self._write({**_entry(at, "close", connection), **counts, "reason": reason})

    def find(self, client_address: str, client_port: int, at: float) -> list[dict[str, Any]]:
        """Return the lines of the connection that this client had at `at` (epoch seconds), decision first.

        Ports come round again: of several, the last that was decided before `at` is meant. [] if none."""
        needle = endpoint(client_address, client_port)
        found: list[dict[str, Any]] = []
        for entry in self._newest_first(json.dumps(needle)):
            if entry.get("client") != needle:
                continue
            if entry["event"] == "close":
                found.append(entry)
            elif entry["at"] <= at + _SKEW_S:
                closes = [line for line in found if line["connection_id"] == entry["connection_id"]]
                return [entry, *closes]
        return []

    def recent(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return the newest lines, newest first."""
        lines: list[dict[str, Any]] = []
        for entry in self._newest_first(""):
            if len(lines) >= limit:
                break
            lines.append(entry)
        return lines

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._file, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
        try:
            with self._lock:
                if self._size and self._size + len(line) > self._max_bytes:
                    self._rotate()
                if self._torn:
                    line = b"\n" + line
                written = os.write(self._descriptor, line)
                self._size += written
                self._torn = written < len(line)
                if self._torn:
                    raise OSError("the line was written in part only")
        except OSError as error:
            _log.error("audit.lost", error=str(error), line=entry)

    def _rotate(self) -> None:
        for number in range(self._keep, 0, -1):
            older = self._numbered(number)
            newer = self._numbered(number - 1)
            if newer.exists():
                os.replace(newer, older)
        os.close(self._descriptor)
        self._descriptor = -1
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._file if number == 0 else self._file.with_name(f"{self._file.name}.{number}")

    def _newest_first(self, needle: str) -> Iterator[dict[str, Any]]:
        wanted = needle.encode("ascii")
        for number in range(self._keep + 1):
            try:
                content = self._numbered(number).read_bytes()
            except FileNotFoundError:
                continue
            for line in reversed(content.splitlines()):
                if wanted not in line:
                    continue
                try:
                    yield json.loads(line)
                except ValueError:
                    # Half a line can only be left by a disk that was full.
                    continue


def endpoint(address: str, port: int) -> str:
    """Write an address and a port: `192.0.2.1:25`, `[2001:db8::1]:25`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _entry(at: float, event: str, connection: Connection) -> dict[str, Any]:
    rule = connection.rule
    if isinstance(rule, Forward):
        leads = {"forward": {"portOrig": rule.listen_port, "name": rule.name, "portDest": rule.port}}
    else:
        asked = {"method": connection.method, "name": connection.name, "port": connection.port}
        leads = {"proxy": {"listen": rule.listen_port, **asked}}
    return {
        "at": round(at, 6),
        "event": event,
        "connection_id": connection.id,
        "program": rule.program_id,
        "environment": rule.environment_id,
        **leads,
        "mode": rule.mode.value,
        "client": connection.client,
        "target": connection.target,
        "source": connection.source,
        "proxy_header": connection.proxy_header,
        "exception": connection.exception,
    }
