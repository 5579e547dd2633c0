"""Look for configuration files in a content package (zip), and in the packages within it.

Standards: Apache Jackrabbit FileVault's packages (`jcr_root`), the vendor's containers (`/apps/*-packages/…/install`).
Promises: a package is read in bounded memory and time, whatever it claims: number of entries, their size, levels of
packages; what cannot be read is a `ConfigError` that names it. Nothing is written but nameless temporary files.
Dangers: sizes in a zip are claims: only what comes out is counted.
Not here: which of the files count (`mailer.folders`).
"""

from __future__ import annotations

import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from outgate.mailer.configuration import run_modes
from outgate.mailer.configuration.commented_json import LONGEST
from outgate.mailer.values import ConfigError, printable

MOST_ENTRIES = 50_000  # of one package
MOST_TOGETHER = 200_000  # entries of all packages
MOST_DIRECTORY = 8 << 20  # octets of its table of contents
MOST_INNER = 512 << 20  # octets of all packages within
LEVELS = 3
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of others, a few octets may become any number at one stroke
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    ArithmeticError,
    LookupError,
)


@dataclass(frozen=True, slots=True)
class Packed:
    """A file in a package: its path there, the run modes that the package is installed for, what it is called."""

    parts: tuple[str, ...]
    needs: tuple[str, ...]
    where: str
    read: Callable[[], bytes]


def open_package(file: Path, wanted: Callable[[str], bool]) -> Iterator[Packed]:
    """Go through the files whose name is `wanted`; each is there until the next is asked for. Raises `ConfigError`."""
    try:
        with file.open("rb") as opened:
            yield from _Opening(wanted).package(opened, printable(str(file)), (), 1)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None


class _Opening:
    """What has been read so far, of all packages together."""

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._inner = 0
        self._entries = 0

    def package(self, opened: IO[bytes], where: str, needs: tuple[str, ...], level: int) -> Iterator[Packed]:
        try:
            archive = zipfile.ZipFile(_Bounded(opened, where))
        except _BROKEN:
            raise ConfigError(f"{where} is not a zip file that can be read: is it complete?") from None
        with archive:
            entries = archive.infolist()
            self._entries += len(entries)
            if len(entries) > MOST_ENTRIES or self._entries > MOST_TOGETHER:
                raise ConfigError(f"{where} has too many entries: give the package with the configurations")
            seen: set[str] = set()
            for entry in entries:
                parts = _parts(entry, where)
                name = f"{where}!/{printable(entry.filename)}"
                inner = _inner(parts)
                if entry.is_dir() or (inner is None and not self._wanted(parts[-1])):
                    continue
                if entry.filename in seen:
                    raise ConfigError(f"{name} is in the package twice: build it anew")
                seen.add(entry.filename)
                if inner is None:
                    yield Packed(parts, needs, name, partial(_read, archive, entry, name))
                    continue
                if level == LEVELS:
                    raise ConfigError(f"{name}: packages are within each other at most {LEVELS} deep")
                with tempfile.TemporaryFile() as copy:
                    self._copy(archive, entry, name, copy)
                    yield from self.package(copy, name, (*needs, *inner), level + 1)

    def _copy(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, copy: IO[bytes]) -> None:
        with _entry(archive, entry, name) as source:
            while data := _next(source, 1 << 16, name):
                self._inner += len(data)
                if self._inner > MOST_INNER:
                    raise ConfigError(f"{name}: the packages within are too large: give the one with configurations")
                copy.write(data)
        copy.seek(0)


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> bytes:
    with _entry(archive, entry, name) as source:
        return _next(source, LONGEST + 1, name)


class _Bounded:
    """A file for `zipfile`, which reads the table of contents at one stroke, of whatever size the file claims."""

    def __init__(self, opened: IO[bytes], where: str) -> None:
        self._opened = opened
        self._where = where
        self.seek = opened.seek
        self.tell = opened.tell
        self.seekable = opened.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._opened.read(size if 0 <= size <= MOST_DIRECTORY else MOST_DIRECTORY + 1)
        if len(data) > MOST_DIRECTORY:
            raise ConfigError(
                f"{self._where} has a table of contents that is too large: give the package with the configurations"
            )
        return data


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> IO[bytes]:
    if entry.flag_bits & 1:
        raise ConfigError(f"{name} is encrypted: a content package has no password")
    if entry.compress_type not in _PLAIN:
        raise ConfigError(f"{name} is compressed in a way that content packages are not: build the package anew")
    try:
        return archive.open(entry)
    except _BROKEN:
        raise ConfigError(f"{name} is broken: build the package anew") from None


def _next(source: IO[bytes], size: int, name: str) -> bytes:
    try:
        return source.read(size)
    except _BROKEN:
        raise ConfigError(f"{name} is broken: build the package anew") from None


def _parts(entry: zipfile.ZipInfo, where: str) -> tuple[str, ...]:
    name = entry.filename
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or "\0" in entry.orig_filename:
        raise ConfigError(f"{where} has an entry whose name leads out of it, {printable(name[:200])}: do not use it")
    return tuple(part for part in name.split("/") if part)


def _inner(parts: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the run modes that a package within is installed for, None if that is none that is installed."""
    if len(parts) < 3 or parts[0] != "jcr_root" or not parts[-1].lower().endswith(".zip"):
        return None
    if parts[1] == "apps":
        return run_modes.of_folder(parts[-2], "install")
    return () if parts[1:3] == ("etc", "packages") else None
