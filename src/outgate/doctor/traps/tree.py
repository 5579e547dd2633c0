"""Traps between files: PIDs that nobody has, folders that are never read, ties, environments without a file, OAuth
without a provider.

Standards: Apache Sling's names of configuration folders and files; the vendor's list of run modes.
Promises: pure; one function for each trap; which file counts is asked of `mailer.folders`.
Dangers: a tie holds for every service, whatever the file is about.
Not here: what is in a file (`doctor.traps`), finding the files (`doctor.lint`).
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import PurePosixPath

from outgate.doctor.report import Finding
from outgate.doctor.traps.look import Look
from outgate.doctor.traps.names import MAIL, OAUTH
from outgate.doctor.traps.rules import RULES, STATES
from outgate.mailer.configuration import run_modes
from outgate.mailer.folders import SUFFIX, ConfigFile, Configurations, Oddity, OldFile
from outgate.mailer.values import ConfigError

SERVICES = ("author", "publish")
ENVIRONMENTS = ("dev", "rde", "stage", "prod")
COMBINATIONS = tuple(product(SERVICES, ENVIRONMENTS))
SUPPORTED = frozenset([(), *((mode,) for mode in (*SERVICES, *ENVIRONMENTS)), *COMBINATIONS])
_NAMED = 5  # of the files that tie with one
_BY_CONTENT = {frozenset(modes): modes for modes in SUPPORTED}


@dataclass(slots=True)
class Tree:
    """All configuration files of one place; `old` are those in other formats, `oddities` what else the reader noticed.

    `looks` has those of the mail service and its OAuth provider that could be read, by where they are."""

    files: Sequence[ConfigFile]
    old: Sequence[OldFile] = ()
    oddities: Sequence[Oddity] = ()
    looks: Mapping[str, Look] = field(default_factory=dict[str, Look])
    taken: frozenset[str] = field(init=False, repr=False)
    """Names of files and folders that are there already."""

    def __post_init__(self) -> None:
        names = [each.where for each in (*self.files, *self.old)]
        self.taken = frozenset(names) | {str(PurePosixPath(name).parent) for name in names}


def of(tree: Tree) -> Iterator[Finding]:
    """Give the traps between the files of a tree."""
    yield from wrong_pids(tree)
    yield from other_formats(tree)
    yield from never_read(tree)
    yield from folders(tree)
    chosen = _Chosen(tree.files)
    yield from ties(chosen)
    yield from environments(tree, chosen)
    yield from providers(tree, chosen)


def meant_pid(pid: str) -> str:
    """Return the PID that is meant by one that resembles the mail service's or its OAuth provider's, "" for others."""
    if pid in (MAIL, OAUTH):
        return pid
    bare = re.split(r"[~-]", pid, maxsplit=1)[0].lower()
    if bare.rpartition(".")[0] and not bare.startswith(
        ("com.day.cq.mailer", "com.adobe.cq.mailer", "com.day.cq.mail.")
    ):
        return ""
    last = bare.rpartition(".")[2]
    if last in ("defaultmailservice", "defaultmailserviceimpl"):
        return MAIL
    return OAUTH if last in ("oauthconfigurationproviderimpl", "oauthconfigurationprovider") else ""


def only_local(file: ConfigFile) -> bool:
    """Say whether a file lies in a folder that counts at a developer's at most, where there is no tunnel."""
    meant = frozenset(mode.lower() for mode in file.run_modes)
    return file.run_modes not in SUPPORTED and meant not in _BY_CONTENT


def in_production(tree: Tree) -> frozenset[str]:
    """Return where the mail service's files are that count for production: another one may have more run modes."""
    chosen = _Chosen([file for file in tree.files if file.pid == MAIL])
    return frozenset(where for modes in COMBINATIONS if "prod" in modes for where in chosen.winners(MAIL, modes))


def _find(rule: str, text: str, where: str, change: str = "", remedy: str = "") -> Finding:
    found = RULES[rule]
    return Finding(found.hop, STATES[found.level], text, rule, remedy or found.remedy, change, where, 1, 1)


def _move(tree: Tree, old: str, new: str) -> str:
    """Return the command that renames; "" inside a package, and if the new name is taken (a folder would be moved into
    the other one)."""
    fit = "!" not in old and old.isprintable() and new not in tree.taken
    return f"mv {shlex.quote(old)} {shlex.quote(new)}" if fit else ""


def _copy(old: str, new: str) -> str:
    """Return the command that puts a copy into a folder that need not be there yet; "" inside a package."""
    folder = str(PurePosixPath(new).parent)
    fit = "!" not in old and old.isprintable()
    return f"mkdir -p {shlex.quote(folder)} && cp {shlex.quote(old)} {shlex.quote(folder)}/" if fit else ""


class _Chosen:
    """Which files count for which run modes."""

    def __init__(self, files: Iterable[ConfigFile]) -> None:
        self._by_pid: dict[str, list[ConfigFile]] = defaultdict(list)
        for file in files:
            if file.run_modes in SUPPORTED:
                self._by_pid[file.pid].append(file)
        self._cache: dict[tuple[str, tuple[str, ...]], list[str]] = {}

    def pids(self) -> Iterator[str]:
        """Give the PIDs that have several files."""
        return (pid for pid, files in self._by_pid.items() if len(files) > 1)

    def files(self, pid: str) -> list[ConfigFile]:
        return self._by_pid.get(pid, [])

    def winners(self, pid: str, modes: tuple[str, ...]) -> list[str]:
        """Return where the file is that counts; several if they tie, none if there is none."""
        key = (pid, modes)
        if key not in self._cache:
            there = Configurations("", tuple(self.files(pid)))
            try:
                self._cache[key] = [there.resolve(pid, modes).where]
            except ConfigError:
                best = there.candidates(pid, modes)
                self._cache[key] = [each.where for each in best if len(each.run_modes) == len(best[0].run_modes)]
        return self._cache[key]


# -- one function for each trap ---------------------------------------------------------------------------------


def wrong_pids(tree: Tree) -> Iterator[Finding]:
    for file in tree.files:
        meant = meant_pid(file.pid)
        if meant and meant != file.pid:
            new = PurePosixPath(file.where).with_name(f"{meant}{SUFFIX}")
            said = (
                "the service's PID has no name behind it" if file.pid.startswith(meant) else "no service has this PID"
            )
            yield _find("wrong-pid", f"{said}; it is {meant}", file.where, _move(tree, file.where, str(new)))


def other_formats(tree: Tree) -> Iterator[Finding]:
    """Those of the mail service and its OAuth provider; what else is in an old format is not looked into here."""
    mail = {str(PurePosixPath(file.where).parent) for file in tree.files if file.pid in (MAIL, OAUTH)}
    for file in tree.old:
        if meant_pid(file.pid):
            beside = str(PurePosixPath(file.where).parent) in mail
            other = "beside the .cfg.json of the same service" if beside else "where a .cfg.json is expected"
            said = f"a mail configuration in another format lies {other}"
            yield _find("other-format", said, file.where)


def never_read(tree: Tree) -> Iterator[Finding]:
    """Files that are not read for their name, or for where they lie."""
    for each in tree.oddities:
        if each.kind == "name":
            new = PurePosixPath(each.where).with_name(each.remedy.removeprefix("rename it to "))
            yield _find("file-name", f"the file {each.text}", each.where, _move(tree, each.where, str(new)))
        elif each.kind == "place":
            yield _find("folder-none", f"the file {each.text}", each.where)


def folders(tree: Tree) -> Iterator[Finding]:
    """One finding for a folder, at a file of the mail service if it has one."""
    first: dict[str, ConfigFile] = {}
    for file in tree.files:
        folder = str(PurePosixPath(file.where).parent)
        if file.run_modes not in SUPPORTED and (folder not in first or file.pid == MAIL):
            first[folder] = file
    for folder, file in first.items():
        said, remedy = run_modes.oddity(file.run_modes) or ("the files of this folder are not read", "")
        if not only_local(file):
            meant = _BY_CONTENT[frozenset(mode.lower() for mode in file.run_modes)]
            right = PurePosixPath(folder).with_name(".".join((run_modes.FOLDER, *meant)))
            yield _find("folder-order", said, file.where, _move(tree, folder, str(right)))
        else:
            remedy = f"{remedy[:1].upper()}{remedy[1:]}{'' if remedy.endswith('?') else '.'}" if remedy else ""
            yield _find("folder-unsupported", said, file.where, remedy=remedy)


def ties(chosen: _Chosen) -> Iterator[Finding]:
    for pid in chosen.pids():
        tied: dict[tuple[str, ...], list[str]] = {}
        for modes in COMBINATIONS:
            best = chosen.winners(pid, modes)
            if len(best) > 1:
                tied.setdefault(tuple(sorted(best)), []).append(" and ".join(modes))
        for names, modes in tied.items():
            there = [file for file in chosen.files(pid) if file.where in names]
            folder = _joined(there)
            change = ""
            if folder:
                old = PurePosixPath(names[0])
                new = old.parent.with_name(folder) / old.name
                # A copy: for its other run modes the file goes on to count where it is.
                change = _copy(names[0], str(new))
            others = ", ".join(names[1 : 1 + _NAMED])
            others += f" and {len(names) - 1 - _NAMED} more" if len(names) > 1 + _NAMED else ""
            yield _find("folders-tie", f"{others} matches {'; '.join(modes)} equally well", names[0], change)


def _joined(files: list[ConfigFile]) -> str:
    """Return the folder that names the run modes of all, "" if there is none."""
    together = _BY_CONTENT.get(frozenset(mode for file in files for mode in file.run_modes))
    apart = len({file.run_modes for file in files}) > 1
    return ".".join(("config", *together)) if together and apart and len(together) == 2 else ""


def environments(tree: Tree, chosen: _Chosen) -> Iterator[Finding]:
    files = chosen.files(MAIL)
    if not files or any(file.pid == MAIL for file in tree.old):
        return
    without = [
        environment
        for environment in ENVIRONMENTS
        if not any(chosen.winners(MAIL, (service, environment)) for service in SERVICES)
    ]
    if without:
        said = f"neither author nor publish has a mail configuration on {', '.join(without)}"
        yield _find("environment-without-file", said, min(file.where for file in files))


def providers(tree: Tree, chosen: _Chosen) -> Iterator[Finding]:
    """OAuth without its provider for the same run modes, and a provider that nothing uses."""
    lacking: dict[str, list[str]] = {}
    used: set[str] = set()
    for modes in COMBINATIONS:
        for where in chosen.winners(MAIL, modes):
            look = tree.looks.get(where)
            if look is None or look.flag("oauth.flow") is not False:
                used.update(chosen.winners(OAUTH, modes))
                if look and look.flag("oauth.flow") and not chosen.winners(OAUTH, modes):
                    lacking.setdefault(where, []).append(" and ".join(modes))
    for where, modes in lacking.items():
        look = tree.looks[where]
        on = "" if len(modes) == len(COMBINATIONS) else f" for {'; '.join(modes)}"
        yield look.find(
            "oauth-no-provider",
            f"oauth.flow is true, and there is no {OAUTH}{SUFFIX}{on}",
            at=look.properties["oauth.flow"],
        )
    for file in chosen.files(OAUTH):
        if file.where not in used and chosen.files(MAIL):
            yield _find(
                "oauth-unused", "no mail configuration with oauth.flow true counts together with it", file.where
            )
