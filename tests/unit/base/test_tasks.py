"""Background tasks are kept, named, and their failures heard."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from outgate.base.tasks import cancel, spawn


async def test_a_task_is_kept_until_it_ends() -> None:
    released = asyncio.Event()
    ended = asyncio.Event()

    async def work() -> None:
        await released.wait()
        ended.set()

    spawn(work(), "work")
    await asyncio.sleep(0)
    gc.collect()
    released.set()
    await ended.wait()


async def test_a_failure_is_logged_by_name(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("outgate"), "propagate", True)

    async def work() -> None:
        raise RuntimeError("boom")

    with caplog.at_level(logging.ERROR, "outgate.tasks"):
        await asyncio.wait([spawn(work(), "the work")])
        await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.getMessage() == "task.failed" and record.fields == {
        "task": "the work",
        "error": "RuntimeError('boom')",
    }  # type: ignore[attr-defined]


async def test_cancel_waits_for_the_end() -> None:
    cleaned: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    task = spawn(work(), "work")
    await asyncio.sleep(0)
    await cancel(task)
    assert task.cancelled() and cleaned == [True]
    await cancel(task)
    await cancel(None)
