"""Structured log lines: one event name per fact, JSON on standard error or in a file.

Standards: RFC 8259, RFC 3339.
Promises: one line per record; no secret reaches a line: fields named like one are masked.
Dangers: text from outside is a JSON string, so it cannot forge a line.
Not here: the audit of the egress (`egress.audit`) and the status events of messages (`store.sqlite`).
"""

from __future__ import annotations

import json
import logging
import sys
from functools import lru_cache
from typing import Any, TextIO

from outgate.base.clock import rfc3339

_SECRET_WORDS = ("password", "secret", "token", "apikey", "api_key", "authorization", "private")


_encode = json.JSONEncoder(default=str, ensure_ascii=False).encode


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_WORDS)


class JsonFormatter(logging.Formatter):
    """Turn a record into one JSON object: time, level, logger, event, and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": rfc3339(record.created, milliseconds=True),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        fields: dict[str, Any] = getattr(record, "fields", {})
        for name, value in fields.items():
            entry[name] = "****" if _is_secret(name) else value
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return _encode(entry)


class Log:
    """A logger whose calls take an event name and fields: `log.info("message.accepted", queue_id=…)`."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        if self._logger.isEnabledFor(logging.DEBUG):
            self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, **fields: Any) -> None:
        if self._logger.isEnabledFor(logging.INFO):
            self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: Any) -> None:
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, **fields: Any) -> None:
        self._logger.error(event, extra={"fields": fields})

    def exception(self, event: str, **fields: Any) -> None:
        self._logger.exception(event, extra={"fields": fields})


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Send every `outgate` record at `level` and above to `stream` (standard error if none) as JSON lines."""
    root = logging.getLogger("outgate")
    root.handlers.clear()
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root.addHandler(handler)
    root.setLevel(level.upper())
    root.propagate = False
