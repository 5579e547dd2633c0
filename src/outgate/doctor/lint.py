"""The offline half of the doctor: all configuration of a file, a folder, a project tree or a package, for a build.

Standards: none.
Promises: no network, no variables; whatever the files hold, findings come back and nothing is raised; findings are
    sorted, and each is there once; what is kept of a line to show it has no secret in it.
Dangers: a path that leads to no configuration at all is an error: a build that looks at nothing must not pass.
Not here: the traps (`doctor.traps`, `doctor.traps.tree`), how findings are printed (`doctor.annotations`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from outgate.doctor import traps
from outgate.doctor.report import Finding
from outgate.doctor.traps import tree as tree_traps
from outgate.doctor.traps.look import Known, Look
from outgate.doctor.traps.names import MAIL, OAUTH
from outgate.doctor.traps.rules import Level, level
from outgate.doctor.traps.source import Excerpt, Replacement, Source
from outgate.doctor.traps.tree import Tree
from outgate.mailer.folders import SUFFIX, ConfigFile, Configurations, open_configurations
from outgate.mailer.osgi import OsgiError, Place, Property
from outgate.mailer.values import ConfigError

_IN_DEBUG = "debug-in-production"
_OF_THE_TUNNEL = frozenset({"host-not-tunnel", "host-default", "host-variable"})
_NAMED = (SUFFIX, ".zip", ".jar")
_NOTHING_KNOWN = Known()

Excerpts = Mapping[tuple[str, int, int], Excerpt]


@dataclass(frozen=True, slots=True)
class Linted:
    """What was found. `excerpts` are the lines of findings as they may be shown, by file, line and column; `fixes` what
    a finding's change stands in place of, if it does."""

    findings: list[Finding]
    excerpts: Excerpts
    files: int
    fixes: Mapping[Finding, Replacement] = field(default_factory=dict[Finding, Replacement])

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
    # A single file that is named after no PID is taken for the mail service's.
    found = open_configurations(place, MAIL if place.is_file() and not place.name.endswith(_NAMED) else "")
    if not (found.files or found.old or found.oddities):
        raise ConfigError(f"no configuration ({SUFFIX}) in {place}: name the folder that the config folders are in")
    alone = place.is_file() and [file.where for file in found.files] == [found.where]
    return of(found, known, alone=alone)


def of(configurations: Configurations, known: Known = _NOTHING_KNOWN, *, alone: bool = False) -> Linted:
    """Do as `examine`, with the files at hand. `alone`: one file by itself; of what is beside it nothing is told."""
    files = configurations.files
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
        told = traps.of(meant, properties, known)
        at_home = not alone and tree_traps.only_local(file)
        found += [each for each in told if not (at_home and each.rule in _OF_THE_TUNNEL)]
    tree = Tree(files, configurations.old, configurations.oddities, looks)
    if alone:
        found += tree_traps.wrong_pids(tree)
    else:
        found += tree_traps.of(tree)
        counted = tree_traps.in_production(tree)
        found = [each for each in found if each.rule != _IN_DEBUG or each.file in counted]
    findings = sorted(set(found), key=lambda each: (each.file, each.line, each.column, each.rule, each.text))
    return _shown(findings, files, readable)


def _shown(
    findings: list[Finding], files: Sequence[ConfigFile], readable: Mapping[str, dict[str, Property] | None]
) -> Linted:
    """Return findings with the lines that they are about, and with what their changes stand in place of."""
    data = {file.where: file.data for file in files}
    sources: dict[str, Source] = {}
    excerpts: dict[tuple[str, int, int], Excerpt] = {}
    fixes: dict[Finding, Replacement] = {}
    for each in findings:
        if each.file not in data:
            continue
        if (source := sources.get(each.file)) is None:
            source = sources[each.file] = Source(data[each.file].decode("utf-8", "replace"))
        properties = readable[each.file]
        place = (each.file, each.line, each.column)
        if place not in excerpts:
            excerpt = source.excerpt(each.line, each.column, None if properties is None else properties.values())
            excerpts |= {place: excerpt} if excerpt else {}
        if each.change and properties is not None:
            fix = source.replacement(each.change, Place(each.line, each.column), properties.values())
            fixes |= {each: fix} if fix else {}
    return Linted(findings, excerpts, len(files), fixes)
