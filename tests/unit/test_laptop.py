"""The laptop mode on a data directory that cannot be used."""

from __future__ import annotations

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
