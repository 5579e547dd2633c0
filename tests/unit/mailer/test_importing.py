"""What importing the mailer brings along: an application pays for that at each start."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import sys, json
before = set(sys.modules)
{statement}
print(json.dumps(sorted({{name for name in set(sys.modules) - before}})))
"""
# What `import outgate.mailer` has no need of, and what nothing of the blocking mailer has.
LATE = {
    "asyncio",
    "ssl",
    "socket",
    "email",
    "http",
    "urllib.request",
    "logging",
    "dataclasses",
    "json",
    "pathlib",
    "re",
}
NEVER = {"asyncio", "http", "http.client", "urllib.request", "zipfile", "concurrent", "multiprocessing"}
IMPORT = "import outgate.mailer"
SERVICE = "import outgate.mailer.sending.blocking, outgate.mailer.sending.steps, outgate.mailer.config; from outgate.mailer import *"


def loaded(statement: str) -> set[str]:
    """Return the modules that a bare interpreter has more of behind a statement."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM.format(statement=statement)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    )
    return set(json.loads(done.stdout))


def tops(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_the_import_alone() -> None:
    modules = loaded(IMPORT)
    assert tops(modules) - set(sys.stdlib_module_names) <= {"outgate", "idna"}
    assert not modules & LATE
    ours = {name for name in modules if name.startswith("outgate.")}
    assert ours == {
        "outgate.mailer",
        "outgate.mailer.client",
        "outgate.mailer.sending",
        "outgate.mailer.sending.errors",
        "outgate.mailer.sending.service",
    }


@pytest.mark.parametrize(
    ("statement", "never"),
    [
        (SERVICE.replace("; from outgate.mailer import *", ""), NEVER),
        ("from outgate.mailer import AsyncMailService", {"http", "http.client", "urllib.request"}),
        ("import outgate.mailer.osgi, outgate.mailer.interpolate", NEVER | {"ssl", "socket", "email"}),
    ],
)
def test_all_that_sending_needs(statement: str, never: set[str]) -> None:
    modules = loaded(statement)
    assert tops(modules) - set(sys.stdlib_module_names) <= {"outgate", "idna"}
    assert not modules & never
    assert {name.split(".")[1] for name in modules if name.startswith("outgate.")} <= {
        "mailer",
        "smtp",
        "message",
        "base",
    }


def test_every_public_name_is_there() -> None:
    import outgate.mailer

    for name in outgate.mailer.__all__:
        assert getattr(outgate.mailer, name).__name__ == name and name in dir(outgate.mailer)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        outgate.mailer.Nothing  # noqa: B018
