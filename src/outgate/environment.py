"""Start a command with everything that its environment gives it, and leave no secret behind.

Standards: POSIX signals and exit codes (128 + n for a command that a signal ended).
Promises: standard library only; secrets reach the command as files (0600, in a 0700 directory, in memory where
    the system has such a place) and are gone when the command ends, when this process is told to end, and when it
    is killed: a watchdog process sees to that.
Dangers: a command that outlives a killed parent goes on without its secret files. Its own children see its
    variables, as always.
Not here: the call (`cloud_manager`), who may ask and what is given (`api.cloud_manager`), reading it in an application
    (`mailer`).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, cast

from outgate.cloud_manager import CloudManager, NotReachable, Refused

EXIT_CONFIGURATION = 2
EXIT_API = 30
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z_0-9]{0,99}")
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# Runs apart from us, in its own session, so that what kills our process group spares it. The pipe on its standard
# input ends when we do, however we do.
_WATCHDOG = """
import shutil, signal, sys
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
sys.stdout.write("x")
sys.stdout.close()
sys.stdin.buffer.read()
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


class RunError(Exception):
    """The command was not started; the message says why and what to do, `code` is the exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def run(api: CloudManager, *, program_id: str, environment_id: str, service: str, command: Sequence[str]) -> int:
    """Run `command` as a service of an environment; return its exit code (128 + n if signal n ended it).

    Raises `RunError` with 2 if the command cannot be started, with 30 if Cloud Manager refuses or cannot be reached."""
    if not command:
        raise RunError(EXIT_CONFIGURATION, "there is no command: put one after --")
    try:
        document = _checked(api.runtime(program_id, environment_id, service))
    except NotReachable as error:
        raise RunError(EXIT_API, str(error)) from None
    except Refused as error:
        raise RunError(EXIT_API, f"{error}. {error.remedy('runtime', ours=True)}") from None
    return _run_with(document, list(command))


# What the environment gives


def _checked(document: dict[str, Any]) -> dict[str, Any]:
    """Return the runtime document if it is one. Raises `RunError`."""
    wrong = RunError(
        EXIT_API, "what answered is not a Cloud Manager API that can start environments: check the address"
    )
    try:
        tables = [document[name] for name in ("variables", "secrets", "reserved")]
        sound = all(_is_table(table) for table in tables) and isinstance(document["portForwards"], list)
        modes = document.setdefault("runModes", [])
        sound = sound and isinstance(modes, list) and all(_NAME.fullmatch(mode) for mode in modes)
        _ = document["tunnelAddress"]
    except (ValueError, LookupError, TypeError):
        raise wrong from None
    if not sound:
        raise wrong
    return document


def _is_table(table: object) -> bool:
    """Say whether this is names to texts; a name becomes a file's name, so it must be a plain one."""
    if not isinstance(table, dict):
        return False
    entries = cast("dict[str, object]", table).items()
    return all(_NAME.fullmatch(name) and isinstance(text, str) and _writable(text) for name, text in entries)


def _writable(text: str) -> bool:
    """Say whether a value can be in a file and in an environment; half a surrogate, which JSON may have, cannot."""
    return "\0" not in text and not any("\ud800" <= sign <= "\udfff" for sign in text)


# The directory, and what removes it


class _Vault:
    """A directory for secrets that does not survive us."""

    def __init__(self) -> None:
        self.path = _memory() / f"outgate-{os.getpid()}-{secrets.token_hex(8)}"
        # First the watchdog, then the directory: at no moment is there one that nobody would remove.
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCHDOG, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        # From its first byte on, no signal but SIGKILL stops the watchdog.
        alive = cast("IO[bytes]", self._watchdog.stdout)
        ready = alive.read(1)
        alive.close()
        if ready != b"x":
            raise OSError("the watchdog for the secrets does not start")
        self.path.mkdir(mode=0o700)

    def write(self, name: str, content: bytes) -> Path:
        """Write a file that only its owner can read; directories on the way are made."""
        file = self.path / name
        file.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
        return file

    def close(self) -> None:
        """Remove the directory and end the watchdog."""
        shutil.rmtree(self.path, ignore_errors=True)
        cast("IO[bytes]", self._watchdog.stdin).close()
        self._watchdog.wait()


def _memory() -> Path:
    """Return a place in memory if the system has one that is ours to use, else the temporary directory."""
    for name in (os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"):  # noqa: S108 - our names in it are random
        if name and os.path.isdir(name) and os.access(name, os.W_OK | os.X_OK):
            return Path(name)
    return Path(tempfile.gettempdir())


# The command


def _run_with(document: dict[str, Any], command: list[str]) -> int:
    """Write the files, run the command, clean up, return its exit code. Raises `RunError`."""
    with _Signals() as signals:
        try:
            vault = _Vault()
        except OSError as error:
            raise RunError(EXIT_CONFIGURATION, f"there is no place for the secrets: {error}") from None
        try:
            # Nothing to start if we were told to end meanwhile.
            if signals.pending is not None:
                return 128 + signals.pending
            try:
                variables = _variables(document, vault)
            except OSError as error:
                message = f"the secrets cannot be written to {vault.path}: {error.strerror or error}"
                raise RunError(EXIT_CONFIGURATION, message) from None
            child = _start(command, variables)
            signals.to(child.send_signal)
            code = child.wait()
            return 128 - code if code < 0 else code
        except OSError as error:
            message = f"{command[0]} cannot be started: {error.strerror or error}. Check its name and PATH"
            raise RunError(EXIT_CONFIGURATION, message) from None
        finally:
            vault.close()


def _variables(document: dict[str, Any], vault: _Vault) -> dict[str, str]:
    """Return the command's environment: ours, then the customer's variables, then what is reserved."""
    for name, text in document["secrets"].items():
        vault.write(f"secrets/{name}", text.encode("utf-8"))
    (vault.path / "secrets").mkdir(mode=0o700, exist_ok=True)
    forwards = {name: document[name] for name in ("tunnelAddress", "portForwards")}
    file = vault.write("forwards.json", json.dumps(forwards).encode("utf-8"))
    return {
        **os.environ,
        **document["variables"],
        **document["reserved"],
        "OUTGATE_SECRETS": str(vault.path / "secrets"),
        "OUTGATE_FORWARDS": str(file),
        "OUTGATE_RUN_MODES": ",".join(document["runModes"]),
    }


def _start(command: list[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=variables)


class _Signals:
    """Pass SIGTERM, SIGINT and SIGHUP on to the command, also those that come before it is there."""

    def __init__(self) -> None:
        self.pending: int | None = None
        self._send: Callable[[int], None] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Signals:
        # Only the main thread may say what a signal does.
        if threading.current_thread() is threading.main_thread():
            for number in _FORWARDED:
                # What was ignored when we were started (nohup) stays so, for us and for the command.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def to(self, send: Callable[[int], None]) -> None:
        """Send what has come so far, and what comes from now on."""
        self._send = send
        if self.pending is not None:
            send(self.pending)

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if self._send is None:
            self.pending = number
        elif number == signal.SIGTERM or not _from_terminal():
            self._send(number)


def _from_terminal() -> bool:
    """Say whether the terminal signals our whole group, so that the command has the signal already."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
