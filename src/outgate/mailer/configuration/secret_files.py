"""Secrets as files in directories, one secret a file, as a cluster mounts them.

Standards: none but Apache Felix's ConfigAdmin interpolation plugin (1.2.8 line), whose behaviour this is.
Promises: the first directory that has the name counts; contents are trimmed as Java trims; a name never leads above
its directory; what is no regular file, cannot be read or is longer than 1 MiB is no secret, with a reason that shows
neither name nor content; a pipe is never waited for.
Dangers: contents that are not text in the encoding are an error here; the plugin would go on with other characters, and
a login would fail without a reason. Symbolic links are followed wherever they lead: clusters mount secrets so.
Not here: which directories there are (`mailer.config`), what a placeholder means (`mailer.interpolate`).
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from outgate.mailer.configuration.java_numbers import trimmed
from outgate.mailer.values import ConfigError

Directories = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

LONGEST = 1_048_576


class SecretFiles:
    """Secrets in directories: a path, several in a text with commas between, or any number of paths."""

    def __init__(self, directories: Directories, encoding: str = "utf-8") -> None:
        """Raises `ConfigError` for an encoding that does not exist."""
        self.directories = _paths(directories)
        self._encoding = _codec(encoding)

    def get(self, key: str, /) -> str | None:
        """Return a secret, None if there is none: `reason` says why. Raises `ConfigError` if it is no text."""
        data = self._read(key)[0]
        return None if data is None else trimmed(self._decode(data))

    def reason(self, key: str, /) -> str:
        """Say why there is no such secret, "" if there is one."""
        return self._read(key)[1]

    @property
    def missing(self) -> tuple[Path, ...]:
        """Return the directories that are none."""
        return tuple(directory for directory in self.directories if not directory.is_dir())

    def _read(self, key: str) -> tuple[bytes | None, str]:
        if not self.directories:
            return None, "no directory with secrets is given"
        if ".." in key:
            return None, "a secret's name may not have .. in it"
        closed = ""
        for directory in self.directories:
            # A name that begins with / lies in the directory all the same; one that ends so is it without, as in Java.
            place = f"{directory}/{key.rstrip('/')}"
            try:
                status = os.stat(place)
            except (OSError, ValueError) as error:  # ValueError: a NUL, or a character that no file name has
                if isinstance(error, PermissionError):
                    closed = f"{directory} may not be looked into: {error.strerror}"
                continue
            if not stat.S_ISREG(status.st_mode):
                return None, f"what {directory} has of that name is no regular file"
            return _contents(place, directory)
        if closed:
            return None, closed
        missing = self.missing
        if missing:
            return (
                None,
                f"{' and '.join(map(str, missing))} {'are no directories' if missing[1:] else 'is no directory'}",
            )
        return None, f"no file of that name in {' or '.join(map(str, self.directories))}"

    def _decode(self, data: bytes) -> str:
        encoding = self._encoding
        if encoding == "utf-16" and data[:2] not in (codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE):
            encoding = "utf-16-be"  # as Java takes it
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            shown = self._encoding.upper()
            raise ConfigError(f"a secret's file cannot be read as {shown} text: expected that encoding") from None


def _contents(place: str, directory: Path) -> tuple[bytes | None, str]:
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return None, f"its file in {directory} cannot be read: {error.strerror}"
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # it has been exchanged since
            return None, f"what {directory} has of that name is no regular file"
        try:
            data = file.read(LONGEST + 1)
        except OSError as error:
            return None, f"its file in {directory} cannot be read: {error.strerror}"
    if len(data) > LONGEST:
        return None, f"its file in {directory} is longer than 1 MiB"
    return data, ""


def _paths(given: Directories) -> tuple[Path, ...]:
    if isinstance(given, str):
        return tuple(Path(part) for part in re.split(r"\s*,\s*", given.strip()) if part)
    if isinstance(given, os.PathLike):
        return (Path(given),)
    return tuple(Path(each) for each in given)


def _codec(name: str) -> str:
    try:
        found = codecs.lookup(name)
        "".encode(name)  # refuses those that are for no text
    except (LookupError, ValueError):
        raise ConfigError("expected the name of an encoding for secret files that exists, such as UTF-8") from None
    return found.name
