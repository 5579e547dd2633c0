"""Structured log lines: one event name per fact, JSON on standard error or in a file.

Standards: RFC 8259, RFC 3339.
Promises: one line per record; no secret reaches a line: fields named like one are masked, and so is every mailbox,
wherever it stands in the line; no value that JSON or the
stream refuses raises to who logs it, or loses the line; what the interpreter cannot raise anywhere is a line too.
Dangers: text from outside is a JSON string, so it cannot forge a line.
Not here: the audit of the egress (`egress.audit`) and the status events of messages (`store.sqlite`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from functools import lru_cache
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, TextIO

from outgate.base.clock import rfc3339
from outgate.base.masking import masked, masked_in

_SECRET_WORDS = ("password", "secret", "token", "apikey", "api_key", "authorization", "private")
_ROOT = logging.getLogger("outgate")

_encode = json.JSONEncoder(default=str, ensure_ascii=False, allow_nan=False).encode


def _value(value: object) -> str:
    """Write a value: as JSON, else what it says of itself, else its type."""
    try:
        text = _encode(value)
        return _encode(masked_in(json.loads(text))) if "@" in text else text
    except Exception:
        with contextlib.suppress(Exception):
            return encode_basestring(masked(repr(value)))
    return f'"<{type(value).__name__}>"'


@lru_cache(maxsize=1024)
def _key(name: str) -> tuple[str, bool]:
    """Return how a field's name is written, and whether its value is masked."""
    return f", {encode_basestring(name)}: ", any(word in name.lower() for word in _SECRET_WORDS)


@lru_cache(maxsize=4)
def _second(epoch: int) -> str:
    return rfc3339(epoch)[:-1]


def _line(created: float, level: str, logger: str, event: str, fields: dict[str, Any], exception: str = "") -> str:
    """Write one JSON object. Put together by hand: two of these are in each session's cost."""
    milliseconds = int(created * 1000)
    parts = [
        f'{{"time": "{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z", "level": "{level}"'
        f', "logger": {encode_basestring(logger)}, "event": {encode_basestring(masked(event))}'
    ]
    for name, value in fields.items():
        key, secret = _key(name)
        parts.append(key)
        if secret:
            parts.append('"****"')
        elif type(value) is str:
            parts.append(encode_basestring(masked(value) if "@" in value else value))
        else:
            parts.append(_value(value))
    if exception:
        parts.append(f', "exception": {encode_basestring(masked(exception))}')
    parts.append("}")
    return "".join(parts)


class JsonFormatter(logging.Formatter):
    """Turn a record into one JSON object: time, level, logger, event, and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        exception = self.formatException(record.exc_info) if record.exc_info else ""
        fields: dict[str, Any] = getattr(record, "fields", {})
        return _line(record.created, record.levelname.lower(), record.name, record.getMessage(), fields, exception)


class _Output(logging.StreamHandler[TextIO]):
    """Where lines go. `Log.info` writes here without a record in between, which costs as much as all the rest."""

    def emit(self, record: logging.LogRecord) -> None:
        self.write(self.format(record))

    def write(self, line: str) -> None:
        self.acquire()
        try:
            try:
                self.stream.write(line + "\n")
            except UnicodeEncodeError:  # half a surrogate pair, a terminal of another age
                ascii_only = (sign if sign.isascii() else encode_basestring_ascii(sign)[1:-1] for sign in line)
                self.stream.write("".join(ascii_only) + "\n")
            self.flush()
        except (OSError, ValueError):  # a reader that went away, a stream that is closed: nobody is left to tell
            pass
        finally:
            self.release()


class Log:
    """A logger whose calls take an event name and fields: `log.info("message.accepted", queue_id=…)`."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        if self._logger.isEnabledFor(logging.DEBUG):
            self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, **fields: Any) -> None:
        logger = self._logger
        if not logger.isEnabledFor(logging.INFO):
            return
        handlers = _ROOT.handlers
        if len(handlers) == 1 and type(handlers[0]) is _Output:
            handlers[0].write(_line(time.time(), "info", logger.name, event, fields))
        else:
            logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: Any) -> None:
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, **fields: Any) -> None:
        self._logger.error(event, extra={"fields": fields})

    def exception(self, event: str, **fields: Any) -> None:
        self._logger.exception(event, extra={"fields": fields})


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Send every `outgate` record at `level` and above to `stream` (standard error if none) as JSON lines.

    So do exceptions that nobody is there to catch, such as a server name in a TLS hello that is not ASCII."""
    _ROOT.handlers.clear()
    handler = _Output(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    _ROOT.addHandler(handler)
    _ROOT.setLevel(level.upper())
    _ROOT.propagate = False
    sys.unraisablehook = _unraisable


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    found = unraisable.object
    fields = {"where": unraisable.err_msg or "", "object": getattr(found, "__qualname__", type(found).__name__)}
    error = unraisable.exc_value or Exception(unraisable.exc_type.__name__)
    logging.getLogger("outgate.python").warning(
        "python.unraisable",
        exc_info=(unraisable.exc_type, error, unraisable.exc_traceback),
        extra={"fields": fields},
    )
