"""What every long-running process of ours needs of its machine: open files, memory, directories that are its own.

Standards: none.
Promises: what keeps a process from starting is one error with cause and remedy; a directory or a task that another
    process has taken is refused.
Not here: the parts (`app`, `egress_service`), the modes (`laptop`, `standalone`).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import resource
import sqlite3
from collections.abc import Generator
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from outgate.base.log import Log
from outgate.store.migrations import SchemaError
from outgate.store.secrets import SealError
from outgate.store.spool import SpoolError
from outgate.store.sqlite import QueueLocked

_log = Log("outgate.process")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of the GNU C library
_UNUSABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    SealError,
    SpoolError,
    SchemaError,
    QueueLocked,
    sqlite3.Error,
    SQLAlchemyError,
)
_YOUNG = 10_000
"""Objects made before the collector looks among them for what nobody reaches. Almost all that a message needs ends by
itself: at the usual 700 a twentieth of the CPU went into looking at it in vain."""


class StartFailed(Exception):
    """The service cannot start; the text says cause and remedy."""


@contextlib.contextmanager
def usable(file: Path) -> Generator[None]:
    """Say of which file it is that what is done here fails. Raises `StartFailed`."""
    try:
        yield
    except _UNUSABLE as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise StartFailed(
            f"{file} cannot be used: {why}. Put a good copy back, or begin anew in another directory (--data DIR)"
        ) from None


def take(directory: Path, name: str, *, taken: str, option: str = "--data") -> int:
    """Take the lock `name` of a directory, made if need be, for as long as this process has the descriptor returned.

    Raises `StartFailed`: with `taken` if another process has it."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartFailed(f"{directory} cannot be used: {error.strerror}; choose another with {option} DIR") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StartFailed(taken) from None
    return descriptor


def tame_memory() -> None:
    """Have the C library give freed memory back: many threads and large buffers would keep twice what is used.

    Measured with 64 KiB messages on 20 connections: 150 MB of resident memory without, 115 MB with it."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for parameter, value in ((_M_ARENA_MAX, 2), (_M_MMAP_THRESHOLD, 1 << 20), (_M_TRIM_THRESHOLD, 4 << 20)):
            libc.mallopt(parameter, value)


def settle_memory() -> None:
    """Have the collector leave alone what is there now: it stays, and need not be looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)


def allow_files(wanted: int, remedy: str) -> None:
    """Let this process have `wanted` open files, or as many as the system allows it; `remedy` is what else would help.

    Most systems begin with 1024: a few clients that stay would keep others out, and a store from its files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit that it does not tell
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    if soft < wanted:
        remedy = f"allow {wanted} (LimitNOFILE, ulimit -n), or {remedy}"
        _log.warning("process.few_files", allowed=soft, remedy=remedy)
