"""The laptop mode on a data directory that cannot be used, and what it asks of the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from outgate.app import StartFailed
from outgate.laptop import DevPorts, Laptop, read_settings

ANY = DevPorts(0, 0, 0, 0, 0, 0)


async def start_and_stop(data: Path) -> None:
    laptop = Laptop(data, ANY, read_settings(None))
    try:
        await laptop.start()
    finally:
        await laptop.stop()


@pytest.mark.parametrize(
    "name",
    ["clock", "tenant.json", "master.key", "control.db", "zone.json", "inbox/behaviour.json", "queue-0.db"],
)
async def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("neither JSON nor a database, and no number")
    file.chmod(0o600)
    with pytest.raises(StartFailed) as caught:
        await start_and_stop(tmp_path)
    said = str(caught.value)
    assert str(tmp_path / name.partition("/")[0]) in said and "--data" in said


async def test_a_lost_data_key_is_no_stack_trace(tmp_path: Path) -> None:
    await start_and_stop(tmp_path)
    (tmp_path / "master.key.data").unlink()
    with pytest.raises(StartFailed, match=r"master\.key\.data cannot be used"):
        await start_and_stop(tmp_path)


def test_a_start_asks_for_as_many_files_as_its_connections_need(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code = (
        "import resource; from pathlib import Path; from outgate import app, laptop\n"
        "_, most = resource.getrlimit(resource.RLIMIT_NOFILE); resource.setrlimit(resource.RLIMIT_NOFILE, (1024, most))\n"
        "try: laptop.run_dev(Path('file'), laptop.DevPorts(), None)\n"
        "except app.StartFailed: print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(ran.stdout) > 1024


def test_what_is_rare_is_not_in_memory_from_the_start() -> None:
    """Peak memory counts, and these are several megabytes: DNS over HTTPS, the sandbox's judges, a client of HTTP."""
    rare = ("aiohttp", "dkim", "spf", "dns.query", "httpx2", "httpcore2")
    code = f"import sys, outgate.laptop, outgate.cli.dev; print([name for name in {rare} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
