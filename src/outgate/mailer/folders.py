"""Which configuration file counts: files by PID and run modes, in a folder, a project tree or a content package.

Standards: Apache Sling's names of configuration folders and files (`<pid>[(~|-)<name>].cfg.json`); the vendor's place
for them, `/apps/<project>/osgiconfig/config[.<run modes>]`.
Promises: the file with the most run modes that are all active counts, for the whole PID: files are never mixed. What is
not read although somebody may think so (another format, another folder) is told in `oddities`.
Dangers: two files that match equally well have no documented order: that is an error, not a guess. A tree or package
may be hostile: what is looked at and read is bounded, and nothing is unpacked to a path.
Not here: what a file says (`mailer.osgi`), run modes (`mailer.configuration.run_modes`), the inside of zip files
(`mailer.configuration.packages`).
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal, TypeVar

from outgate.mailer import osgi
from outgate.mailer.configuration import run_modes as modes
from outgate.mailer.configuration.commented_json import LONGEST
from outgate.mailer.configuration.run_modes import Active
from outgate.mailer.values import ConfigError, printable

SUFFIX = ".cfg.json"
_OLD = (".config", ".cfg", ".properties", ".xml")
_PID = re.compile(r"[A-Za-z_][\w$]*(?:\.[\w$]+){2,}(?:[~-].*)?", re.DOTALL)  # of other people's files, package.json
_SKIPPED = frozenset({"target", "node_modules"})  # and what begins with a dot: none of it is the project's source
_DEEPEST = 60
_MOST_ENTRIES = 500_000
_MOST_FILES = 10_000
_MOST_DATA = 64 << 20  # octets of all files


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One file. `pid` is `factory~name` for an instance of a factory, `run_modes` are those of its folder ("" each
    is never there), `where` names it to a person, `data` is what it holds. `needs` are the run modes that its package
    is installed for: without them it is not there."""

    pid: str
    run_modes: tuple[str, ...]
    where: str
    data: bytes = field(repr=False)
    needs: tuple[str, ...] = ()

    @property
    def factory(self) -> str:
        """Return the PID of the factory that this is an instance of, "" if of none."""
        return self.pid.partition("~")[0] if self.name else ""

    @property
    def name(self) -> str:
        """Return the name of the factory's instance, "" if it is none."""
        factory, _, name = self.pid.partition("~")
        return name if factory else ""

    def parse(self) -> dict[str, osgi.Property]:
        """Return its properties and where they stand. Raises `OsgiError`, with the file's name."""
        try:
            return osgi.parse(osgi.decode(self.data))
        except osgi.OsgiError as error:
            raise error.at(file=self.where) from None


@dataclass(frozen=True, slots=True)
class OldFile:
    """A file in another format than `.cfg.json`, which is not read here, but would be in force."""

    pid: str
    run_modes: tuple[str, ...]
    where: str
    needs: tuple[str, ...] = ()


_File = TypeVar("_File", ConfigFile, OldFile)


@dataclass(frozen=True, slots=True)
class Oddity:
    """What the vendor would not read, or not as somebody may think. `kind`: "run-modes" (of a folder), "old-format",
    "name" (of a file), "place" (a file in no configuration folder)."""

    kind: Literal["run-modes", "old-format", "name", "place"]
    where: str
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Configurations:
    """All configuration files of one place."""

    where: str
    files: tuple[ConfigFile, ...]
    old: tuple[OldFile, ...] = ()
    oddities: tuple[Oddity, ...] = ()

    def candidates(self, pid: str, run_modes: Iterable[str] = ()) -> list[ConfigFile]:
        """Return the files of a PID that match the run modes, the best match first."""
        ranked = _ranked(self.files, pid, modes.active(run_modes))
        return [file for _, file in sorted(ranked, key=lambda each: each[0], reverse=True)]

    def resolve(self, pid: str, run_modes: Iterable[str] = ()) -> ConfigFile:
        """Return the file of a PID that counts. Raises `ConfigError` for none, for a tie, and if a file in an old
        format counts more or as much."""
        active = modes.active(run_modes)
        ranked = [*_ranked(self.files, pid, active), *_ranked(self.old, pid, active)]
        if not ranked:
            raise ConfigError(self._none(pid, active))
        best = max(rank for rank, _ in ranked)
        winners = sorted((file for rank, file in ranked if rank == best), key=lambda file: file.where)
        for file in winners:
            if isinstance(file, OldFile):
                raise ConfigError(
                    f"{file.where} would be in force, but is in an old format that is not read here:"
                    f" write it as {_identity(pid)}{SUFFIX}, and remove it"
                )
        if len(winners) > 1:
            names = " and ".join(file.where for file in winners)
            both = {mode for file in winners for mode in file.run_modes}
            folder = ".".join((modes.FOLDER, *(mode for mode in modes.ORDER if mode in both)))
            hint = (
                "" if any(set(file.run_modes) == both for file in winners) else f", or a folder {folder} have a third"
            )
            raise ConfigError(
                f"{names} match the run modes equally well: only one may have {_identity(pid)}{SUFFIX}{hint}"
            )
        return next(file for file in winners if isinstance(file, ConfigFile))

    def _none(self, pid: str, active: Active) -> str:
        pid = _identity(pid)
        run_modes = sorted(active.own)
        told = f" for the run modes {', '.join(run_modes)}" if run_modes else ""
        text = f"no config folder in {self.where} has {pid}{SUFFIX}{told}"
        others = [file for file in (*self.files, *self.old) if file.pid == pid]
        if others:
            needed = sorted({*others[0].run_modes, *others[0].needs})
            return f"{text}: {others[0].where} counts for the run modes {', '.join(needed)} only"
        last = pid.rpartition(".")[2].lower()
        near = [file for file in self.files if file.pid.partition("~")[0].rpartition(".")[2].lower() == last]
        if near:
            what = "is an instance of a factory" if near[0].factory == pid else "is for another PID"
            return f"{text}: {near[0].where} {what}, rename it to {pid}{SUFFIX}"
        misplaced = [each for each in self.oddities if each.kind in ("name", "place") and pid in each.where]
        return f"{text}: {misplaced[0].where} {misplaced[0].text}, {misplaced[0].remedy}" if misplaced else text


def _ranked(files: Iterable[_File], pid: str, active: Active) -> list[tuple[tuple[int, int], _File]]:
    wanted = _identity(pid)
    ranked = [(active.rank(file.run_modes, file.needs), file) for file in files if file.pid == wanted]
    return [(rank, file) for rank, file in ranked if rank is not None]


def open_configurations(path: str | Path, pid: str = "") -> Configurations:
    """Return the configurations at `path`. Raises `ConfigError`.

    `path` is a file (taken for `pid` if that is given), a folder with files, a folder with `config[.modes]` folders, a
    project with such folders in `osgiconfig` or below `jcr_root/apps` at any depth, or a content package (zip)."""
    if path == "":
        raise ConfigError("expected the path of a file or folder, found an empty text")
    place = Path(path)
    shown = printable(str(place))
    try:
        is_file, is_folder = place.is_file(), place.is_dir()
        there = is_file or is_folder or place.exists()
    except OSError as error:
        raise ConfigError(f"{shown} cannot be read: {error.strerror}") from None
    if is_file and not _is_package(place):
        data = _bytes(place)
        return Configurations(shown, (ConfigFile(_identity(pid) or printable(_pid(place.name)), (), shown, data),))
    found = _Gathering(place.absolute().parts if is_folder else ())
    if is_file:
        from outgate.mailer.configuration import packages  # and with it zipfile, which most who send mail do without

        for packed in packages.open_package(place, _wanted):
            found.take(packed.parts, packed.where, packed.needs, packed.read)
    elif is_folder:
        for parts, file in _walk(place):
            found.take(parts, printable(str(file)), (), lambda file=file: _bytes(file))
    else:
        raise ConfigError(f"{shown} {'is neither a file nor a folder' if there else 'does not exist'}")
    return found.all(str(place))


def _is_package(file: Path) -> bool:
    return file.suffix.lower() in (".zip", ".jar") or _bytes(file, 4) in (b"PK\3\4", b"PK\5\6")


# -- names ------------------------------------------------------------------------------------------------------


def _identity(stem: str) -> str:
    """Return the PID that a file's name without suffix stands for: the first ~, else the first -, ends a factory's."""
    at = stem.find("~")
    if at < 0:
        at = stem.find("-")
    return f"{stem[:at]}~{stem[at + 1 :]}" if at > 0 else stem


def _pid(file_name: str) -> str:
    return _identity(file_name.removesuffix(SUFFIX))


def _wanted(name: str) -> bool:
    """Say whether a file may be a configuration, or somebody may think so."""
    return name.endswith((SUFFIX, *_OLD)) or name.lower().endswith(".json")


def _folder(root: tuple[str, ...], parts: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the run modes of the configuration folder that `parts` leads to from `root`, None if that is none."""
    if not parts:
        return ()
    *above, name = parts
    if above and above[-1] != "osgiconfig" and not _in_apps((*root, *parts)):
        return None
    return modes.of_folder(name)


def _in_apps(parts: tuple[str, ...]) -> bool:
    return any(pair == ("jcr_root", "apps") for pair in pairwise(parts))


class _Gathering:
    """Sorts files by what they are; `root` is where their paths begin."""

    def __init__(self, root: tuple[str, ...]) -> None:
        self._root = root
        self._files: list[ConfigFile] = []
        self._old: list[OldFile] = []
        self._oddities: dict[str, Oddity] = {}
        self._data = 0

    def take(self, parts: tuple[str, ...], where: str, needs: tuple[str, ...], read: Callable[[], bytes]) -> None:
        """Take a file whose path below the root is `parts`."""
        *folders, name = parts
        run_modes = _folder(self._root, tuple(folders))
        if run_modes is None:
            whole = (*self._root, *parts)
            if name.endswith(SUFFIX) and _PID.fullmatch(name) and ("osgiconfig" in folders or _in_apps(whole)):
                remedy = "move it to osgiconfig/config, or config with run modes (config.author)"
                self._odd("place", where, "lies in no configuration folder, so it is not read", remedy)
            return
        if name.endswith(SUFFIX):
            if len(self._files) == _MOST_FILES:
                raise ConfigError(f"{where}: more than {_MOST_FILES} configuration files are too many")
            self._files.append(ConfigFile(printable(_pid(name)), run_modes, where, self._read(read, where), needs))
        elif not self._other(name, run_modes, where, needs, read):
            return
        if run_modes and (found := modes.oddity(run_modes)):
            self._odd("run-modes", where[: -len(printable(name)) - 1], *found)

    def _other(
        self, name: str, run_modes: tuple[str, ...], where: str, needs: tuple[str, ...], read: Callable[[], bytes]
    ) -> bool:
        """Take a file that is no `.cfg.json`; say whether it looks like a configuration."""
        suffix = next((each for each in (*_OLD, ".json") if name.lower().endswith(each)), "")
        if _PID.fullmatch(name[: -len(suffix)]) is None:
            return False
        pid = printable(_identity(name.removesuffix(suffix)))
        if name.endswith(_OLD) and (suffix != ".xml" or b"sling:OsgiConfig" in self._read(read, where)):
            self._old.append(OldFile(pid, run_modes, where, needs))
            kind = "sling:OsgiConfig" if suffix == ".xml" else suffix
            text = f"is in an old format ({kind}): it would be in force, but is not read here"
            self._odd("old-format", where, text, f"write it as {pid}{SUFFIX}")
            return True
        if suffix == ".json":
            right = re.sub(r"(?i)(?:\.cfg)?\.json$", SUFFIX, printable(name))
            self._odd("name", where, "is not read: its name does not end with .cfg.json", f"rename it to {right}")
            return True
        return False

    def _read(self, read: Callable[[], bytes], where: str) -> bytes:
        data = read()
        self._data += len(data)
        if self._data > _MOST_DATA:
            raise ConfigError(f"{where}: more than {_MOST_DATA} octets of configuration files are too many")
        return data

    def _odd(self, kind: Literal["run-modes", "old-format", "name", "place"], where: str, text: str, hint: str) -> None:
        self._oddities.setdefault(where, Oddity(kind, where, text, hint))

    def all(self, where: str) -> Configurations:
        return Configurations(
            printable(where),
            tuple(sorted(self._files, key=lambda file: file.where)),
            tuple(sorted(self._old, key=lambda file: file.where)),
            tuple(self._oddities[place] for place in sorted(self._oddities)),
        )


# -- the file system --------------------------------------------------------------------------------------------


def _walk(root: Path) -> Iterator[tuple[tuple[str, ...], Path]]:
    """Go through what may be configuration files below `root`: path and its parts. Each folder is visited once,
    so that links that lead back end there; a folder that cannot be read is passed over if none is in it by its name.
    An editor's lock (`.#…`) is a link to nothing."""
    above = root.absolute().parts
    waiting: deque[tuple[str, ...]] = deque([()])
    links: deque[tuple[str, ...]] = deque()  # the last, so that a folder is known by its own name
    visited: set[tuple[int, int]] = set()
    entries = 0
    while waiting or links:
        parts = (waiting or links).popleft()
        folder = root.joinpath(*parts)
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scanned:
                found = sorted(islice(scanned, _MOST_ENTRIES + 1), key=lambda entry: entry.name)
        except OSError as error:
            if "osgiconfig" in parts or _folder(above, parts) is not None or _in_apps((*above, *parts)):
                raise ConfigError(f"{printable(str(folder))} cannot be read: {error.strerror}") from None
            continue
        entries += len(found)
        if entries > _MOST_ENTRIES:
            raise ConfigError(f"{root} has more than {_MOST_ENTRIES} files: give the folder with the configurations")
        for entry in found:
            if _is(entry, folder=True):
                if len(parts) < _DEEPEST and entry.name not in _SKIPPED and not entry.name.startswith("."):
                    (links if entry.is_symlink() else waiting).append((*parts, entry.name))
            elif _wanted(entry.name) and _is(entry, folder=False):
                yield (*parts, entry.name), folder / entry.name
            elif entry.is_symlink() and _counts(above, (*parts, entry.name)) and not entry.name.startswith(".#"):
                raise ConfigError(f"{printable(entry.path)} is a link that leads to nothing: mend it, or remove it")


def _counts(root: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Say whether a configuration folder, or a file in one, is at `parts` by its name."""
    is_file = parts[-1].endswith(SUFFIX) and _folder(root, parts[:-1]) is not None
    return is_file or _folder(root, parts) is not None


def _is(entry: os.DirEntry[str], *, folder: bool) -> bool:
    try:
        return entry.is_dir() if folder else entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def _bytes(file: Path, most: int = LONGEST + 1) -> bytes:
    """Return what a file holds; of one that is too large, enough to see that."""
    try:
        with file.open("rb") as opened:
            return opened.read(most)
    except OSError as error:
        raise ConfigError(f"{printable(str(file))} cannot be read: {error.strerror}") from None
