"""An environment with one extra of ours installed and nothing else, made from what is installed here."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def with_only(extra: str, directory: Path) -> Path:
    """Return the Python of a new environment that has this source and what `extra` asks for, all the way down."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True, timeout=120)
    python = directory / "bin" / "python"
    (packages,) = directory.glob("lib/python*/site-packages")
    for name in sorted(_asked_for(extra)):
        for entry in _top_level(name):
            link = packages / entry.name
            if not link.exists():
                link.symlink_to(entry)
    (packages / "outgate").symlink_to(ROOT / "src" / "outgate")
    return python


def _asked_for(extra: str) -> set[str]:
    """Return the distributions that our extra leads to."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    found: set[str] = set()
    waiting = [Requirement(text) for text in (*project["dependencies"], *extras[extra])]
    while waiting:
        wanted = waiting.pop()
        if wanted.name == "outgate":
            waiting += [Requirement(text) for each in wanted.extras for text in extras[each]]
            continue
        if wanted.marker is not None and not any(
            wanted.marker.evaluate({"extra": each}) for each in ("", *wanted.extras)
        ):
            continue
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if name in found and not wanted.extras:
            continue
        found.add(name)
        for text in distribution(name).requires or ():
            needed = Requirement(text)
            environments = [{"extra": each} for each in ("", *wanted.extras)]
            if needed.marker is None or any(needed.marker.evaluate(each) for each in environments):
                needed.marker = None
                waiting.append(needed)
    return found


def _top_level(name: str) -> set[Path]:
    """Return what a distribution has put into its site-packages: directories and modules."""
    found: set[Path] = set()
    for file in distribution(name).files or ():
        first = Path(str(file)).parts[0]
        if first not in {"..", "__pycache__"}:
            found.add(Path(str(distribution(name).locate_file(first))))
    return found
