"""Start background tasks that are kept alive, named, and whose failures are logged.

Promises: a spawned task is referenced until it ends; an exception in it is logged, never lost.
Dangers: the event loop keeps only weak references to tasks: use `spawn`, not `asyncio.create_task`.
Not here: threads (`store.sqlite`, `relay.signer`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from outgate.base.log import Log

_log = Log("outgate.tasks")
_running: set[asyncio.Task[Any]] = set()


def spawn(coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    """Run `coroutine` as a named task and log how it failed, if it does."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _running.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("task.failed", task=task.get_name(), error=repr(error))


async def cancel(task: asyncio.Task[Any] | None) -> None:
    """Cancel `task` and wait until it has ended."""
    if task is None or task.done():
        return
    task.cancel()
    await asyncio.wait([task])
