"""Which run modes are active, which configuration folders count then, and how much.

Standards: Apache Sling's names of configuration folders (`config[.mode…]`); the vendor's list of run modes.
Promises: a folder counts if all its run modes are active, and the more there are, the more it counts; what can be no
run mode is told.
Dangers: the vendor's preview service has no run mode of its own: it runs as publish.
Not here: files (`mailer.folders`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from outgate.mailer.values import ConfigError, shown

FOLDER = "config"
_NAME = re.compile(r"[\w\-]+")
_SERVICES = ("author", "publish")
_ENVIRONMENTS = ("dev", "rde", "stage", "prod")
ORDER = (*_SERVICES, *_ENVIRONMENTS)
_MEANT = {
    "development": "dev",
    "staging": "stage",
    "production": "prod",
    "live": "prod",
    "authoring": "author",
    "publisher": "publish",
}


@dataclass(frozen=True, slots=True)
class Active:
    """The run modes of an instance; `inherited` are those that it has by another one: they count less."""

    own: frozenset[str]
    inherited: frozenset[str]

    def rank(self, modes: Iterable[str], needed: Iterable[str] = ()) -> tuple[int, int] | None:
        """Say how well a folder with these run modes matches, None if it does not. `needed` run modes must be active
        too, but give no weight: they are those of the folder that a package is installed from."""
        asked = set(modes)
        if not asked.union(needed) <= self.own | self.inherited:
            return None
        return len(asked), -len(asked & self.inherited)


def active(run_modes: Iterable[str]) -> Active:
    """Return what is active. A text may have several run modes, separated by commas; an empty one has none.

    `preview` is `publish`; `rde` has `dev` too, but a folder of its own counts more. Raises `ConfigError` for what
    cannot be a run mode: no folder would ever match it."""
    own = set(entries(run_modes))
    if "preview" in own:
        own = own - {"preview"} | {"publish"}
    return Active(frozenset(own), frozenset({"dev"} if "rde" in own else ()))


def entries(run_modes: Iterable[str]) -> tuple[str, ...]:
    """Return each run mode of a list, or of a text with commas between. Raises `ConfigError` for what can be none."""
    if isinstance(run_modes, str) and not run_modes.strip():
        return ()
    texts = [run_modes] if isinstance(run_modes, str) else run_modes
    found = tuple(mode.strip() for text in texts for mode in text.split(","))
    for mode in found:
        if _NAME.fullmatch(mode) is None:
            raise ConfigError(
                f"{shown(mode)!r} is no run mode: expected names with commas between, such as author,dev",
                name="run modes",
            )
    return found


def of_folder(name: str, stem: str = FOLDER) -> tuple[str, ...] | None:
    """Return the run modes in the name of a folder, None if it is no configuration folder."""
    first, *modes = name.split(".")
    return tuple(modes) if first == stem else None


def oddity(modes: tuple[str, ...]) -> tuple[str, str] | None:
    """Say what is wrong with a folder for these run modes on the cloud service, and what to do. None if nothing is."""
    name = ".".join((FOLDER, *modes))
    if "" in modes:
        return f"{name} has a dot too many, so it never counts", "rename the folder"
    if "preview" in modes:
        return (
            f"{name} never counts: the preview service runs with the run mode publish",
            "use config.publish, and for what differs a placeholder with a variable of the service preview",
        )
    unknown = [mode for mode in modes if mode not in _SERVICES and mode not in _ENVIRONMENTS]
    if unknown:
        meant = _MEANT.get(unknown[0].lower(), unknown[0].lower())
        exists = meant in _SERVICES or meant in _ENVIRONMENTS
        return (
            f"{name}: the cloud service has no run mode {unknown[0]}, so the folder counts on a local instance at most",
            f"did you mean {meant}?" if exists else f"use {', '.join(ORDER)}, or keep it for a local instance only",
        )
    services = [mode for mode in dict.fromkeys(modes) if mode in _SERVICES]
    environments = [mode for mode in dict.fromkeys(modes) if mode in _ENVIRONMENTS]
    for kind in (services, environments):
        if len(kind) > 1 and set(kind) != {"dev", "rde"}:
            return f"{name} never counts: {kind[0]} and {kind[1]} are not active together", "make a folder for each"
    right = ".".join((FOLDER, *services, *environments[:1]))
    if right != name:
        return f"{name} is not among the folders that the cloud service supports", f"rename it to {right}"
    return None
