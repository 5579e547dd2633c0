"""The offline half of the doctor: all configuration of a file, a folder, a project tree or a package, for a build.

Standards: none.
Promises: no network, no variables; whatever the files hold, findings come back and nothing is raised; findings are
    sorted, and each is there once; what is kept of a line to show it has no secret in it.
Dangers: a path that leads to no configuration at all is an error: a build that looks at nothing must not pass.
Not here: the traps (`doctor.traps`, `doctor.tree_traps`), how findings are printed (`doctor.annotations`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from outgate.doctor import traps, tree_traps
from outgate.doctor.look import Known, Look
from outgate.doctor.names import MAIL, OAUTH
from outgate.doctor.report import Finding
from outgate.doctor.rules import Level, level
from outgate.doctor.source import Excerpt, Source
from outgate.doctor.tree_traps import Tree
from outgate.mailer.folders import SUFFIX, ConfigFile, open_configurations
from outgate.mailer.osgi import OsgiError, Property
from outgate.mailer.values import ConfigError

_IN_DEBUG = "debug-in-production"
_BUILT = frozenset({"node_modules", "target", "build", "__pycache__"})
_NOTHING_KNOWN = Known()
_MOST_NAMES = 200_000

Excerpts = Mapping[tuple[str, int, int], Excerpt]


@dataclass(frozen=True, slots=True)
class Linted:
    """What was found. `excerpts` are the lines of findings as they may be shown, by file, line and column."""

    findings: list[Finding]
    excerpts: Excerpts
    files: int

    def exit_code(self, *, strict: bool = False) -> int:
        """Return 1 if there is an error, or if `strict` a warning; else 0."""
        bad = {Level.ERROR, Level.WARNING} if strict else {Level.ERROR}
        return int(any(level(each) in bad for each in self.findings))


def run(path: str | Path) -> list[Finding]:
    """Return all findings on the configuration at a path, by file, line and column.

    Raises `ConfigError` if there is none, or if it cannot be opened."""
    return examine(path).findings


def examine(path: str | Path, known: Known = _NOTHING_KNOWN) -> Linted:
    """Do as `run`, with what is known of an environment, and keep the lines that findings are about.

    Raises `ConfigError`."""
    place = Path(path)
    return of_files(
        _files(place), list(_others(place)), known, alone=place.is_file() and not place.name.endswith(".zip")
    )


def of_files(
    files: Sequence[ConfigFile], others: Sequence[str] = (), known: Known = _NOTHING_KNOWN, *, alone: bool = False
) -> Linted:
    """Do as `examine`, with the files at hand. `others` look like configuration of mail in another format; `alone`: it
    is one file by itself, and of what is beside it nothing is told."""
    found: list[Finding] = []
    looks: dict[str, Look] = {}
    readable: dict[str, dict[str, Property] | None] = {}
    for file in files:
        try:
            properties = file.parse()
        except OsgiError as error:
            readable[file.where] = None
            found.append(traps.unreadable(file, error))
            continue
        readable[file.where] = properties
        meant = replace(file, pid=tree_traps.meant_pid(file.pid) or file.pid)
        if meant.pid in (MAIL, OAUTH):
            looks[file.where] = Look(meant, properties, known)
        found += traps.of(meant, properties, known)
    tree = Tree(files, others, looks)
    if alone:
        found += tree_traps.wrong_pids(tree)
    else:
        found += tree_traps.of(tree)
        found = [each for each in found if each.rule != _IN_DEBUG or not tree_traps.never_in_production(tree, each)]
    findings = sorted(set(found), key=lambda each: (each.file, each.line, each.column, each.rule, each.text))
    return Linted(findings, _excerpts(findings, files, readable), len(files))


def _files(path: Path) -> tuple[ConfigFile, ...]:
    # A single file that is named after no PID is taken for the mail service's.
    alone = MAIL if path.is_file() and not path.name.endswith((SUFFIX, ".zip")) else ""
    found = open_configurations(path, alone).files
    if not found:
        raise ConfigError(f"no configuration ({SUFFIX}) in {path}: name the folder that the config folders are in")
    return found


def _others(path: Path) -> Iterator[str]:
    """Give the files that look like configuration of mail in another format."""
    if not path.is_dir():
        return
    left = _MOST_NAMES
    for folder, folders, names in os.walk(path, onerror=None):
        folders[:] = sorted(each for each in folders if each not in _BUILT and not each.startswith("."))
        left -= len(names)
        if left < 0:
            return
        for name in sorted(names):
            if name.lower().startswith("com.day.cq.mailer.") and not name.endswith(SUFFIX):
                yield str(Path(folder) / name)


def _excerpts(
    findings: list[Finding], files: Sequence[ConfigFile], readable: Mapping[str, dict[str, Property] | None]
) -> Excerpts:
    wanted = {(each.file, each.line, each.column) for each in findings}
    by_name = {file.where: file for file in files}
    sources: dict[str, Source] = {}
    found: dict[tuple[str, int, int], Excerpt] = {}
    for where, line, column in wanted:
        file = by_name.get(where)
        if file is None:
            continue
        source = sources.setdefault(where, Source(file.data.decode("utf-8", "replace")))
        properties = readable[where]
        excerpt = source.excerpt(line, column, None if properties is None else properties.values())
        if excerpt is not None:
            found[where, line, column] = excerpt
    return found
