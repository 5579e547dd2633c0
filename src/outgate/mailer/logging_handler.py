"""A `logging` handler that mails: at once what is rare, as a digest with counts what is not.

Standards: RFC 3834 (Auto-Submitted); the standard library's `logging.Handler`.
Promises: who logs never waits for a server: a thread of our own sends; memory has an end, and what had no room is
counted and told in the next mail; one mail per interval at most; what is logged by the mailer, or while a mail is sent,
makes no mail; what waits goes at `logging.shutdown`, and when a child of `multiprocessing` ends; both wait for that a
bounded time.
Dangers: a mail holds what was logged, with its tracebacks: send it to those only who may read the log. A process that
is killed, or ends with `os._exit`, takes with it what waits. A mail whose answer was lost is sent again.
Not here: what a mail tells (`mailer.digest`), sending (`mailer.client`).

    logging.getLogger().addHandler(MailHandler("osgiconfig", to=["ops@shop.example"], level="ERROR"))
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any, cast

from outgate.base.masking import masked
from outgate.mailer.client import MailService
from outgate.mailer.digest import Batch, Digest, one_line
from outgate.mailer.sending.errors import MessageError
from outgate.mailer.sending.wire import letter
from outgate.mailer.values import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger("outgate.mailer.logging_handler")
_OWN = "outgate"
_SHUTDOWN = 10.0


class MailHandler(logging.Handler):
    """Mails what is logged. May be named in `logging.config.dictConfig`."""

    def __init__(
        self,
        path: str | Path | None = None,
        run_modes: Iterable[str] | None = None,
        *,
        to: str | Iterable[str],
        sender: str = "",
        subject: str = "",
        interval: float = 300.0,
        level: int | str = logging.ERROR,
        service: MailService | None = None,
        options: Mapping[str, Any] | None = None,
        shutdown_timeout: float = _SHUTDOWN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`path` and `run_modes` name the configuration, as `MailService.load` takes it with `options`; or `service` is
        one that is there already, and stays open. `sender` "" is from.address; `subject` begins each subject;
        `interval` are seconds from one mail to the next, `shutdown_timeout` those that `flush` waits at most.

        Raises `ConfigError`."""
        if (path is None) == (service is None):
            raise ConfigError("give the path of the configuration, or a service")
        self._to = [to] if isinstance(to, str) else [str(each) for each in to]
        if not self._to:
            raise ConfigError("expected somebody to mail to", name="to")
        self._sender = sender
        self._subject = subject
        self._interval = float(interval)
        self._shutdown_timeout = min(float(shutdown_timeout), threading.TIMEOUT_MAX)
        if not (self._interval >= 0 and self._shutdown_timeout >= 0):
            raise ConfigError("expected seconds", name="interval, shutdown_timeout")
        self._clock = clock
        self._owned = service is None
        self._service = service or MailService.load(str(path), run_modes, **dict(options or {}))
        try:  # what is no address shall be told now, not when something burns
            letter(self._compose(Batch({}, 0, 0)), self._service.config.from_address)
        except MessageError as error:
            raise ConfigError(str(error), name="to, sender") from None
        self._begin()
        _handlers.add(self)
        super().__init__(level)  # last: `logging.shutdown` flushes what has come so far, and it must be able to

    def _begin(self) -> None:
        self._digest = Digest(self._interval)
        self._changed = threading.Condition()  # re-entrant: a signal's handler may log
        self._worker: threading.Thread | None = None
        self._at_once = self._closing = self._sending = self._waited = False

    # -- who logs -------------------------------------------------------------------------------------------

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter a record and take it. Without the handler's lock: `logging.shutdown` holds that while it flushes, and
        the thread that sends may log."""
        kept = cast("object", self.filter(record))  # since Python 3.12 a filter may give another record
        if kept:
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)
        return bool(kept)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record for the next mail. Never waits for a server."""
        if record.name.partition(".")[0] == _OWN or threading.current_thread() is self._worker:
            return
        try:
            # Formatted here, not later: what the record refers to may change. And outside the lock: it may log.
            kind = _kind(record)
            message = record.getMessage()
            if not self._add(kind, record, message, None):
                self._add(kind, record, message, self.format(record))
        except Exception:
            self.handleError(record)

    def _add(self, kind: Hashable, record: logging.LogRecord, message: str, text: str | None) -> bool:
        """Add a record; False: nothing of its kind waits (any more), so that its text is needed."""
        with self._changed:
            if self._closing:
                return True
            if text is None and self._digest.wants(kind):
                return False
            self._digest.add(kind, record.levelname, message, record.created, text or "")
            self._start()
            self._changed.notify_all()
            return True

    def _start(self) -> None:
        if self._worker is None or not self._worker.is_alive():
            worker = threading.Thread(target=self._work, name="outgate-log-mail", daemon=True)
            try:
                worker.start()
            except RuntimeError:  # the interpreter is about to end: `flush` sends what there is
                return
            self._worker = worker
            self._flush_with_process()

    def _flush_with_process(self) -> None:
        """Have a child of `multiprocessing` send what waits when it ends: there it ends without `logging.shutdown`."""
        processes = sys.modules.get("multiprocessing.process")
        if processes is not None and processes.parent_process() is not None:
            from multiprocessing.util import Finalize

            Finalize(None, self.flush, exitpriority=0)

    # -- who sends ------------------------------------------------------------------------------------------

    def _work(self) -> None:
        with self._changed:
            while True:
                due = self._digest.due
                if due is None and self._closing:
                    return
                if due is None:
                    self._changed.wait()
                elif self._at_once or self._closing or due <= self._clock():
                    self._send_one()
                else:
                    self._changed.wait(min(due - self._clock(), threading.TIMEOUT_MAX))

    def _send_one(self) -> None:
        """Send what waits. Called with the lock held, which is open while the server is talked to."""
        batch = self._digest.take(self._clock())
        self._at_once = False
        if batch is None:
            return
        self._sending = True
        self._changed.release()
        try:
            again, why = self._deliver(batch)
        finally:
            self._changed.acquire()
            self._sending = False
        if why and again and not self._closing:
            self._digest.put_back(batch)
        elif why:
            self._digest.give_up(batch)
        self._changed.notify_all()

    def _deliver(self, batch: Batch) -> tuple[bool, str]:
        """Send a mail; return whether to try again later, and why it did not go ("" if it did)."""
        try:
            result = self._service.send(self._compose(batch))
            why = "" if any(reply.ok for reply in result.recipients.values()) else str(result.reply)
            again = 400 <= result.reply.code < 500
        except (ConfigError, MessageError) as error:
            again, why = False, str(error)
        except Exception as error:
            again, why = True, str(error) or type(error).__name__
        if why:
            then = "they are tried again" if again else "they are lost"
            _warn("%d log records could not be mailed, %s: %s", batch.records, then, masked(why))
        return again, why

    def _compose(self, batch: Batch) -> EmailMessage:
        message = EmailMessage()
        try:
            if self._sender:
                message["From"] = self._sender
            message["To"] = ", ".join(self._to)
        except (ValueError, IndexError):
            raise ConfigError("expected addresses without line ends", name="to, sender") from None
        message["Subject"] = one_line(f"{self._subject} {batch.summary}", 200)
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(batch.body.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd"))
        return message

    # -- the end --------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what waits, without regard to the interval; wait for that, `shutdown_timeout` seconds at most."""
        with self._changed:
            if self._worker is not None and self._worker.is_alive():
                self._at_once = self._digest.due is not None
                self._changed.notify_all()
                done = self._changed.wait_for(lambda: not self._sending and not self._at_once, self._shutdown_timeout)
                self._waited = not done
            else:
                self._send_one()

    def close(self) -> None:
        """Send what waits, as `flush` does, and end. Who has waited in vain in `flush` does not wait once more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            if self._worker is None or not self._worker.is_alive():
                self._send_one()
        if self._worker is not None and self._worker is not threading.current_thread():
            self._worker.join(0 if self._waited else self._shutdown_timeout)
            if self._worker.is_alive():
                _warn("the last log records may not have been mailed: the mail server does not answer")
        if self._owned and not self._sending:
            self._service.close()
        super().close()


_handlers: weakref.WeakSet[MailHandler] = weakref.WeakSet()


def _after_fork() -> None:
    """Begin anew in a forked process: threads and locks are its parent's, and so are the records that wait."""
    for handler in list(_handlers):
        handler._begin()  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _warn(text: str, *values: object) -> None:
    """Log a warning. Where handlers like ours are all that there are, nobody would see it: then on standard error."""
    _log.warning(text, *values)
    logger: logging.Logger | None = _log
    while logger is not None:
        if not all(isinstance(handler, MailHandler) for handler in logger.handlers):
            return
        logger = logger.parent if logger.propagate else None
    if _log.hasHandlers() and logging.lastResort is not None:
        logging.lastResort.handle(_log.makeRecord(_log.name, logging.WARNING, __file__, 0, text, values, None))


def _kind(record: logging.LogRecord) -> Hashable:
    """Return what records have in common that are the same trouble: where they were logged, where it was raised."""
    raised: tuple[object, ...] = ()
    if record.exc_info and record.exc_info[0] is not None:
        trace = record.exc_info[2]
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace is not None else ()
        raised = (record.exc_info[0].__qualname__, *place)
    return (record.name, record.levelno, record.pathname, record.lineno, *raised)
