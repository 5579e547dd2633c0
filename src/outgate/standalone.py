"""`outgate egress serve`: the egress as a process of its own, over the control store or over a file of rules.

Standards: none.
Promises: nothing listens before it is known that no other process carries the same; the line `ready` comes once all
    that can be in force is; SIGTERM and SIGINT end it once open connections have finished or `egress.drain_s` is
    over, a second one at once; SIGHUP reads again what is wanted.
Dangers: with a control store, the file of its master key is read: run it as the service's user.
Not here: the parts (`egress_service`), the command (`cli.egress_serve`), relay and HTTP API.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outgate import settings as settings_module
from outgate.base import log
from outgate.base.clock import Clock, OffsetClock, SystemClock
from outgate.egress import connectivity_socket, status_socket
from outgate.egress.rules_file import BadRules, RulesFile
from outgate.egress.wanted import StoreWanted, Wanted
from outgate.egress_service import EgressService, egress_service, files_wanted, take_egress
from outgate.net import resolv_conf
from outgate.net.dns import Resolver
from outgate.process import StartFailed, allow_files, settle_memory, tame_memory, usable
from outgate.settings import EgressSettings


@dataclass(frozen=True, slots=True)
class Place:
    """Where the process keeps lock, audit and socket; what it serves: the control store there, or a file of rules."""

    state: Path
    rules: Path | None = None


def run(place: Place, config: Path | None) -> None:
    """Carry connections until a signal ends it. Raises `StartFailed`."""
    tame_memory()
    os.umask(0o077)
    try:
        settings = settings_module.load(config)
    except settings_module.BadSettings as error:
        raise StartFailed(str(error)) from None
    log.configure(settings.log.level)
    egress = settings.egress
    allow_files(files_wanted(egress), "lower egress.connections_per_environment")
    source = _Source(place, egress)
    lock = take_egress(place.state, "--data" if place.rules is None else "--state")
    try:
        import uvloop

        uvloop.run(_serve(place, egress, source))
    except ImportError:
        asyncio.run(_serve(place, egress, source))
    finally:
        source.close()
        os.close(lock)


class _Source:
    """What is wanted, opened once the lock is ours; told again on SIGHUP."""

    def __init__(self, place: Place, egress: EgressSettings) -> None:
        """Raises `StartFailed` if there is nothing to serve."""
        self._place = place
        self._egress = egress
        self._file: RulesFile | None = None
        self.close: Callable[[], None] = lambda: None
        if place.rules is None and not (place.state / "control.db").exists():
            raise StartFailed(
                f"{place.state} has no control.db: name the --data directory of the relay, or use --rules"
            )

    def open(self) -> tuple[Wanted, Clock]:
        """Return what is wanted, and the clock that goes with it. Raises `StartFailed`."""
        place = self._place
        if place.rules is not None:
            try:
                self._file = RulesFile(place.rules, client_networks=self._egress.client_networks)
            except BadRules as error:
                raise StartFailed(str(error)) from None
            return self._file, SystemClock()
        from outgate.store.control import open_control
        from outgate.store.secrets import open_box

        with usable(place.state / "clock"):
            clock = OffsetClock(place.state / "clock")
        with usable(place.state / "master.key"):
            box = open_box(place.state / "master.key")
        with usable(place.state / "control.db"):
            control = open_control(place.state / "control.db", box, clock)
        self.close = control.close
        return StoreWanted(control.egress, control.infrastructures, control.data_version), clock

    def again(self) -> None:
        """Have a file read again though it seems to be the same."""
        if self._file is not None:
            self._file.again()

    def about(self) -> dict[str, Any]:
        """Return what is served, and why it is not all in force."""
        source = self._place.state if self._place.rules is None else self._place.rules
        return {"pid": os.getpid(), "source": str(source), "problem": "" if self._file is None else self._file.problem}


async def _serve(place: Place, egress: EgressSettings, source: _Source) -> None:
    stop, enough = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        (enough if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    service: EgressService | None = None

    def again() -> None:
        source.again()
        if service is not None:  # else the start reads it anyway, and must not be ended by this signal
            service.poke()

    loop.add_signal_handler(signal.SIGHUP, again)
    wanted, clock = source.open()
    resolver = Resolver(resolv_conf.chosen(egress.resolvers), clock)
    service = await egress_service(egress, data=place.state, wanted=wanted, resolver=resolver, clock=clock)
    try:
        async with contextlib.AsyncExitStack() as sockets:
            status = await status_socket.serve(place.state, lambda: source.about() | service.status.document())
            sockets.push_async_callback(status.stop)
            tests = await connectivity_socket.serve(place.state, service)
            sockets.push_async_callback(tests.stop)
            settle_memory()
            print(f"ready {len(service.reconciler.states())} environments ({place.rules or place.state})", flush=True)
            await stop.wait()
            await service.drain(enough)
    finally:
        await service.stop()
