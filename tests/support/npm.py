"""Packages from npm for tests: one exact version each, believed only if it is what we have looked at."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

from support.clients import run

_NODEMAILER = (
    "9.1.1",
    "sha512-izw9mVKFix6YSnC9eLgV6g1opl9DUlRio9ZNcq+Wu9Ujn2UwF+8Nl0B8nz22kEC+CTZCvinkxwJ0DeFbb6NwcQ==",
)
_JEST_SARIF = (
    "1.0.0-beta.0",
    "sha512-A1fOhPd6Ic5iDk4F9YPw1qNB4XF+7+IviR7xl8r2F6QzQkx5cpY9LsGk2rExiFIEcBbjpVnSmwWGBukASkiQ9A==",
)


def sarif_schema(into: Path) -> dict[str, Any]:
    """Return the JSON schema of SARIF 2.1.0 (its final draft), which Microsoft's package for tests carries."""
    package = unpack("@microsoft/jest-sarif", *_JEST_SARIF, into) / "@microsoft" / "jest-sarif"
    schema = json.loads((package / "lib" / "schemas" / "sarif-2.1.0-rtm.5.json").read_text("utf-8"))
    # A stray bracket in it: browsers take that for a character, strict readers for an error. We write no language.
    for name in ("run", "toolComponent"):
        schema["definitions"][name]["properties"].get("language", {}).pop("pattern", None)
    return schema


def nodemailer(into: Path) -> Path:
    """Fetch and unpack nodemailer; return a directory for NODE_PATH."""
    return unpack("nodemailer", *_NODEMAILER, into)


def locked(pinned: Path, into: Path) -> Path:
    """Install what `pinned` (a directory with package.json and package-lock.json) names; return a NODE_PATH.

    Every package is held against the digest in the lock, and none of their scripts is run."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(pinned / name, into / name)
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier")
    done = run(["npm", "ci", "--ignore-scripts", "--prefer-offline", *quiet], cwd=into)
    assert done.returncode == 0, f"npm could not install what {pinned} names: {done.stderr}"
    return into / "node_modules"


def unpack(name: str, version: str, integrity: str, into: Path) -> Path:
    """Fetch a package without dependencies and unpack it; return a directory for NODE_PATH.

    `integrity` is what npm calls it: "sha512-" and base64. None of the package's scripts is run. npm asks the network
    only for what its own cache lacks."""
    packed = run(
        [
            *("npm", "pack", f"{name}@{version}", "--json", "--ignore-scripts", "--prefer-offline"),
            *("--no-audit", "--no-fund", "--no-update-notifier", "--pack-destination", str(into)),
        ],
        cwd=into,
    )
    assert packed.returncode == 0, f"npm could not fetch {name}@{version}: {packed.stderr}"
    archive = into / json.loads(packed.stdout)[0]["filename"]
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    assert found == integrity, f"{archive.name} is not the one that was pinned: {found}"
    modules = into / "node_modules"
    with tarfile.open(archive) as tar:
        tar.extractall(modules / "unpacked", filter="data")
    (modules / name).parent.mkdir(exist_ok=True)  # the scope of "@scope/name"
    (modules / "unpacked" / "package").rename(modules / name)
    return modules
