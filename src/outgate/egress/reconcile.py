"""Bring what is in force to what is wanted, again and again, and say how that went.

Standards: none.
Promises: an environment becomes `ready` only once the engine has applied its last change, a way out only once its
    addresses are proven; an environment whose ports cannot be had becomes `failed` with the reason while its old rules
    stay in force, unless they leave another way or let others in than is wanted now, or listen where another
    environment is by now; what is wanted of a way out that cannot be used is closed, also while the store cannot be
    asked, and opened again when it can; a change by any process is noticed within `poll_s`; a port that could not be
    had is tried again at each poll; an infrastructure's own addresses are free only once the last connection from them
    has ended.
Dangers: after a restart there are no old rules to keep: what cannot be applied then is closed.
Not here: what is wanted (`wanted`), the rules (`plan`), sockets (`engine`), how an address is proven (`proving`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from outgate.base.log import Log
from outgate.base.tasks import cancel, spawn
from outgate.egress.listeners import ListenError
from outgate.egress.plan import (
    FAILED,
    NO_DEDICATED,
    NO_SHARED,
    NO_SPARED,
    NO_TUNNEL,
    READY,
    Planned,
    Rule,
    Terms,
    Way,
    external_names,
    plan,
)
from outgate.egress.proving import Proving
from outgate.egress.wanted import Wanted
from outgate.model.egress import EgressTarget, Mode, NetworkInfrastructure

_log = Log("outgate.egress.reconcile")
_DELETING = "deleting"
_FIRST_PROOFS_S = 5.0


class Applies(Protocol):
    """What puts rules into force."""

    async def apply(self, environment_id: str, rules: Sequence[Rule], /) -> None:
        """Put exactly `rules` into force for an environment. Raises `ListenError`, with the old ones in force."""
        ...

    def leaves_from(self, addresses: Collection[str], /) -> bool:
        """Tell whether any connection, also one that is drained, may leave from one of `addresses`."""
        ...


def _nothing(_name: str, _address: str) -> None:
    """Have no names."""


@dataclass(frozen=True, slots=True)
class Names:
    """Where the names of addresses are told from outside: `publish` and `withdraw` take a name and an address."""

    domain: str = ""
    vpn_address: str = ""
    publish: Callable[[str, str], None] = _nothing
    withdraw: Callable[[str, str], None] = _nothing


@dataclass(frozen=True, slots=True)
class State:
    """How one environment stands: what is in force, and why what is wanted is not ("" if it is)."""

    target: EgressTarget
    in_force: Planned | None
    reason: str


class Reconciler:
    """Keep an engine in line with what is wanted. Lives on the engine's event loop."""

    def __init__(
        self,
        *,
        wanted: Wanted,
        engine: Applies,
        terms: Terms,
        proving: Proving,
        names: Names = Names(),
        poll_s: float = 1.0,
    ) -> None:
        self._wanted = wanted
        self._engine = engine
        self._terms = terms
        self._proving = proving
        self._names = names
        self._published: frozenset[tuple[str, str]] = frozenset()
        self._poll_s = poll_s
        self._seen: object = None
        self._poked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._passing = asyncio.Lock()
        self._in_force: dict[str, Planned] = {}
        self._states: dict[str, State] = {}
        self._at: dict[str | None, str] = {}
        self._dedicated: frozenset[str] = frozenset()
        self._unproven = False
        self._task: asyncio.Task[None] | None = None
        proving.changed = self.poke

    async def start(self) -> None:
        """Make the first pass, so that everything that can be in force is; then keep at it.

        Addresses that must be proven first get some seconds for it."""
        self._loop = asyncio.get_running_loop()
        await self.reconcile()
        if self._unproven:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._proving.settled(), _FIRST_PROOFS_S)
            await self.reconcile()
        self._task = spawn(self._run(), "egress reconcile")

    def poke(self) -> None:
        """Look at what is wanted now and not only at the next poll. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._poked.set)

    async def look(self) -> None:
        """Prove the addresses that are due, and go by that."""
        await self.reconcile()
        await self._proving.settled()
        await self.reconcile()

    def states(self) -> tuple[State, ...]:
        """Return how each environment stood after the last pass, in the order of what is wanted."""
        return tuple(self._states.values())

    def way(self, environment_id: str, host: str, port: int) -> Way | str:
        """Return how an environment's connections to a host leave by what is in force now, or why none do."""
        planned = self._in_force.get(environment_id)
        if planned is not None and planned.way is not None:
            return planned.way_to(host, port) or NO_SPARED
        state = self._states.get(environment_id)
        if state is not None and state.reason:
            return state.reason
        return "advanced networking is not enabled: nothing leaves"

    async def reconcile(self) -> None:
        """Make one pass: settle the ways out, apply what is wanted, record each environment's state."""
        async with self._passing:
            await self._close_unproven()
            # Read before the rest, so that a change in between is seen by the next poll.
            seen = await asyncio.to_thread(self._wanted.changes)
            found = await asyncio.to_thread(self._wanted.infrastructures)
            self._dedicated = frozenset(self._to_prove(found))
            self._proving.look(self._dedicated)
            self._unproven = any(self._why_not(each) is None for each in found)
            ways = [await self._settle_way(each) for each in found]
            targets = await asyncio.to_thread(self._wanted.targets)
            planned = plan(targets, self._terms, found).environments
            self._at = {each.environment.tunnel_address: each.environment.id for each in targets}
            results = await self._apply(planned)
            wanted = {each.environment_id: each for each in planned}
            # Told as a whole and at once, whatever the store says to being told.
            places = {target.environment.id: target for target in targets}
            self._states = {
                place: State(target, self._in_force.get(place), results[place]) for place, target in places.items()
            }
            for place, target in places.items():
                await self._settle(target, wanted[place], results[place])
            finished = await self._finish(ways, targets)
            self._publish(ways)
            # A port that another program holds may come free, and a connection end, without any change in the store:
            # keep trying.
            stuck = any(reason and not wanted[environment_id].refusal for environment_id, reason in results.items())
            self._seen = seen if finished and not stuck else None

    async def close(self) -> None:
        """Stop reconciling. What is in force stays so until the engine is closed; names lead nowhere any more."""
        await cancel(self._task)
        await self._proving.close()
        self._publish(())

    # -- the ways out ---------------------------------------------------------------------------------------

    async def _settle_way(self, way: NetworkInfrastructure) -> NetworkInfrastructure:
        """Record whether a way out can be used, if that is known; return it as it is then."""
        if way.status == _DELETING:
            return way
        reason = self._why_not(way)
        if reason is None:
            return way
        status = FAILED if reason else READY
        if (way.status, way.reason) == (status, reason):
            return way
        if not await asyncio.to_thread(self._wanted.settle_infrastructure, way.id, way.generation, reason):
            return way  # something else is wanted by now: the next pass will see it
        said = {"infrastructure": way.id, "program": way.program_id, "kind": way.kind.value}
        if reason:
            _log.warning("egress.way_failed", reason=reason, **said)
        else:
            _log.info("egress.way_ready", **said)
        return replace(way, status=status, reason=reason)

    def _why_not(self, way: NetworkInfrastructure) -> str | None:
        """Return "" if a way out can be used, else why not; None while that is not known."""
        if way.kind is Mode.FLEXIBLE:
            return "" if way.addresses or self._terms.shared_addresses else NO_SHARED
        if way.kind is Mode.VPN and way.id not in self._terms.tunnels:
            return NO_TUNNEL
        if way.kind is Mode.NONE:
            return "a way out of kind none lets nothing out"
        if not way.addresses:
            return NO_DEDICATED
        reasons = [self._proving.reason(address) for address in way.addresses]
        told = "; ".join(reason for reason in reasons if reason)
        return None if not told and None in reasons else told

    def _to_prove(self, ways: Iterable[NetworkInfrastructure]) -> Iterable[str]:
        """Return the addresses of programs, but for those that nothing can use yet."""
        for way in ways:
            if way.kind is Mode.DEDICATED or (way.kind is Mode.VPN and way.id in self._terms.tunnels):
                yield from way.addresses

    def _publish(self, ways: Collection[NetworkInfrastructure]) -> None:
        names = external_names(ways, domain=self._names.domain, vpn_address=self._names.vpn_address)
        for name, address in sorted(self._published - names):
            self._names.withdraw(name, address)
        for name, address in sorted(names - self._published):
            self._names.publish(name, address)
        self._published = names

    async def _finish(self, ways: Iterable[NetworkInfrastructure], targets: Iterable[EgressTarget]) -> bool:
        """Forget what was to be deleted, now that nothing of it is in force; return whether all of it could be.

        An address is another program's as soon as its infrastructure is forgotten: what is drained leaves from it
        still."""
        for target in targets:
            if target.environment.status == _DELETING:
                await asyncio.to_thread(self._wanted.finish_deletion, target.environment.id)
        finished = True
        for way in ways:
            if way.status != _DELETING:
                continue
            if way.addresses and self._engine.leaves_from(way.addresses):
                finished = False
            else:
                await asyncio.to_thread(self._wanted.finish_infrastructure, way.id, way.generation)
        return finished

    # -- the environments -----------------------------------------------------------------------------------

    async def _apply(self, environments: Sequence[Planned]) -> dict[str, str]:
        """Apply each environment; return for each why it failed, or "". Ports may move between environments."""
        for environment_id in self._in_force.keys() - {planned.environment_id for planned in environments}:
            await self._close(environment_id)
        results: dict[str, str] = {}
        waiting = list(environments)
        while waiting:
            failed: list[Planned] = []
            before = len(self._in_force)
            for planned in waiting:
                reason = results[planned.environment_id] = await self._apply_one(planned)
                if reason and not planned.refusal:
                    failed.append(planned)
            # A port that one wants may have been given up by another in this very round, by success or for good.
            if len(failed) == len(waiting) and len(self._in_force) == before:
                break
            waiting = failed
        return results

    async def _apply_one(self, planned: Planned) -> str:
        before = self._in_force.get(planned.environment_id)
        if not planned.rules:
            if before is not None:
                await self._close(planned.environment_id)
            return planned.refusal
        if before is None or before.rules != planned.rules:
            try:
                await self._engine.apply(planned.environment_id, planned.rules)
            except ListenError as error:
                if before is not None and (_admits(before) != _admits(planned) or self._is_others(before)):
                    # To leave by what was wanted before would be worse than not to leave.
                    await self._close(planned.environment_id)
                return str(error)
        self._in_force[planned.environment_id] = planned
        return ""

    def _is_others(self, planned: Planned) -> bool:
        """Say whether who dials where this environment listens is another environment's application by now."""
        address = None if planned.proxy is None else planned.proxy.listen_address
        return self._at.get(address, planned.environment_id) != planned.environment_id

    async def _close_unproven(self) -> None:
        """Close what leaves from an address that is no longer proven: that needs nobody's word but the proof's."""
        for environment_id, planned in list(self._in_force.items()):
            sources = () if planned.way is None else planned.way.sources
            if reason := "; ".join(filter(None, map(self._proving.reason, sources))):
                await self._close(environment_id)
                if (state := self._states.get(environment_id)) is not None:
                    self._states[environment_id] = State(state.target, None, reason)

    async def _close(self, environment_id: str) -> None:
        await self._engine.apply(environment_id, ())
        self._in_force.pop(environment_id, None)

    async def _settle(self, target: EgressTarget, planned: Planned, reason: str) -> None:
        if target.environment.status == _DELETING:
            return
        known = "" if target.networking is None else target.networking.reason
        if (target.environment.status, known) == (FAILED if reason else READY, reason):
            return
        settled = await asyncio.to_thread(self._wanted.settle, planned.environment_id, planned.generation, reason)
        if settled and reason:
            _log.warning("egress.failed", environment=planned.environment_id, reason=reason)
        elif settled:
            _log.info("egress.applied", environment=planned.environment_id, forwards=len(planned.forwards))

    async def _run(self) -> None:
        told = ""
        while True:
            try:
                async with asyncio.timeout(self._poll_s):
                    await self._poked.wait()
            except TimeoutError:
                pass
            try:
                self._proving.look(self._dedicated)
                if self._poked.is_set() or await asyncio.to_thread(self._wanted.changes) != self._seen:
                    self._poked.clear()
                    await self.reconcile()
            except Exception as error:
                # The store may be busy or gone for a moment; what is in force stays, and the next poll tries again.
                self._seen = None
                if told != (told := repr(error)):  # once, not at each poll
                    _log.exception("egress.reconcile_failed", error=told)
                continue
            if told:
                told = ""
                _log.info("egress.reconciled_again")


def _admits(planned: Planned) -> object:
    """Return all by which a rule decides who gets out, and by which addresses."""
    proxy = planned.proxy
    return None if proxy is None else (proxy.way, proxy.client_networks)
