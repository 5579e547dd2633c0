"""Which configuration file counts: files by PID and run modes, in a folder, a project tree or a content package.

Standards: Apache Sling's names of configuration folders and files; the vendor's list of run modes.
Promises: the file with the most run modes that are all active counts, for the whole PID: files are never mixed.
Dangers: two files that match equally well have no documented order: that is an error, not a guess.
Not here: what a file says (`mailer.osgi`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from outgate.mailer import osgi
from outgate.mailer.values import ConfigError

SUFFIX = ".cfg.json"
_INHERITED = {"rde": "dev", "preview": "publish"}


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One file. `pid` is `factory~name` for an instance of a factory, `run_modes` are those of its folder ("" each
    is never there), `where` names it to a person, `data` is what it holds."""

    pid: str
    run_modes: tuple[str, ...]
    where: str
    data: bytes

    def parse(self) -> dict[str, osgi.Property]:
        """Return its properties and where they stand. Raises `OsgiError`, with the file's name."""
        try:
            return osgi.parse(osgi.decode(self.data))
        except osgi.OsgiError as error:
            raise error.at(file=self.where) from None


@dataclass(frozen=True, slots=True)
class Configurations:
    """All configuration files of one place."""

    where: str
    files: tuple[ConfigFile, ...]

    def candidates(self, pid: str, run_modes: Iterable[str] = ()) -> list[ConfigFile]:
        """Return the files of a PID that match the run modes, the best match first."""
        ranked = self._ranked(pid, run_modes)
        return [file for _, file in sorted(ranked, key=lambda each: each[0], reverse=True)]

    def resolve(self, pid: str, run_modes: Iterable[str] = ()) -> ConfigFile:
        """Return the file of a PID that counts. Raises `ConfigError` for none and for a tie."""
        ranked = self._ranked(pid, run_modes)
        if not ranked:
            active = sorted(_active(run_modes))
            modes = f" for the run modes {', '.join(active)}" if active else ""
            raise ConfigError(f"no config folder in {self.where} has {pid}{SUFFIX}{modes}")
        best = max(rank for rank, _ in ranked)
        winners = [file for rank, file in ranked if rank == best]
        if len(winners) > 1:
            names = " and ".join(sorted(file.where for file in winners))
            raise ConfigError(f"{names} match the run modes equally well: only one may have {pid}{SUFFIX}")
        return winners[0]

    def _ranked(self, pid: str, run_modes: Iterable[str]) -> list[tuple[tuple[int, int], ConfigFile]]:
        active = _active(run_modes)
        inherited = {_INHERITED[mode] for mode in active if mode in _INHERITED} - active
        # An inherited mode is the weaker match: config.rde beats config.dev on a rapid environment.
        return [
            ((len(file.run_modes), -len(set(file.run_modes) & inherited)), file)
            for file in self.files
            if file.pid == pid and set(file.run_modes) <= active | inherited
        ]


def _active(run_modes: Iterable[str]) -> set[str]:
    return {mode.strip() for mode in run_modes if mode.strip()}


def open_configurations(path: str | Path, pid: str = "") -> Configurations:
    """Return the configurations of a file (taken for `pid` if its name is none), of a folder with files, or of a folder
    with `config[.modes]` folders. Raises `ConfigError`."""
    place = Path(path)
    if place.is_file():
        return Configurations(str(place), (ConfigFile(pid or _pid(place), (), str(place), _bytes(place)),))
    if not place.is_dir():
        raise ConfigError(f"{place} does not exist")
    found = [ConfigFile(_pid(file), (), str(file), _bytes(file)) for file in sorted(place.glob(f"*{SUFFIX}"))]
    for folder in sorted(place.iterdir()):
        name, *modes = folder.name.split(".")
        if name == "config" and folder.is_dir():
            found += [
                ConfigFile(_pid(file), tuple(modes), str(file), _bytes(file))
                for file in sorted(folder.glob(f"*{SUFFIX}"))
            ]
    return Configurations(str(place), tuple(found))


def _pid(file: Path) -> str:
    return file.name.removesuffix(SUFFIX)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
