"""Carry the connections of port forwards: judge, reach the target, join, and tell the ledger.

Standards: PROXY protocol version 2 (towards targets that the plan marks).
Promises: a connection is made only if the gate lets it in, and only to where `reach` has checked; every
    connection is told of to the ledger; a place at the gate is given back exactly once. When a forward changes,
    a connection that could be made anew under the changed one just as it is stays; every other one drains.
Dangers: a refusal is a reset; its reason is in the audit only.
Not here: listening (`listeners`), what shall be in force (`plan`), copying (`pump`), looking into mail (`mail_watch`).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from outgate.base import ids
from outgate.base.log import Log
from outgate.egress.audit import Connection, endpoint
from outgate.egress.gate import Gate, Limits
from outgate.egress.ledger import Ledger
from outgate.egress.plan import Forward, Rule
from outgate.egress.pump import Ended, Flow, Pump, Watch
from outgate.egress.reach import Dial, Reach, Reached, Route
from outgate.egress.refusal import Refused
from outgate.egress.sockets import Key, plain
from outgate.smtp.proxy_header import encode_v2

_log = Log("outgate.egress")

WatchFor = Callable[[Connection], Watch | None]
HeaderTo = Callable[[str, int, str], bool]
"""Says by name, port and checked address whether a target gets a PROXY header. It believes one that comes from here: no
client may be the one to write it."""


def nobody(_name: str, _port: int, _address: str) -> bool:
    """Have no target that gets a PROXY header."""
    return False


@dataclass(frozen=True, slots=True)
class Live:
    """What goes on under one rule: connections, and octets so far of those that are open."""

    rule: Rule
    open: int
    up: int
    down: int


class _Served:
    """A forward that is in force, or still has connections."""

    __slots__ = ("calls", "forward", "leaves", "route", "withdrawn")

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self.route = Route(forward.name, forward.port, forward.way)
        self.leaves = f" ({forward.mode.value})"
        self.calls: set[_Call] = set()
        self.withdrawn = False


class Forwarder:
    """A carrier of forwards. Lives on one event loop."""

    def __init__(
        self,
        *,
        reach: Reach,
        gate: Gate,
        ledger: Ledger,
        limits: Limits,
        pump: Pump,
        header_to: HeaderTo = nobody,
        watch_for: WatchFor | None = None,
    ) -> None:
        """`header_to` tells who gets a PROXY header beside those that the plan marks; `watch_for` returns what looks
        into an opened connection that is known to carry mail."""
        self.reach = reach
        self.gate = gate
        self.ledger = ledger
        self.pump = pump
        self.header_to = header_to
        self.watch_for = watch_for
        self._drain_s = limits.drain_s
        self._served: dict[int, _Served] = {}
        self._draining: set[_Served] = set()

    def live(self) -> list[Live]:
        """Return what goes on under each forward that has connections."""
        return [
            Live(served.forward, len(served.calls), sum(call.up for call in calls), sum(call.down for call in calls))
            for served in (*self._served.values(), *self._draining)
            if (calls := served.calls)
        ]

    def accepted(self, rule: Rule, sock: socket.socket, client: Key, dialled: Key) -> None:
        """Judge a new connection by what is known at once, and begin to reach its target."""
        served = self._served.get(id(rule))
        if served is None:
            assert isinstance(rule, Forward)
            served = self._served[id(rule)] = _Served(rule)
        call = _Call(self, served, sock, client, dialled)
        try:
            self.gate.admit(rule, client[0])
            self.gate.enter(rule.environment_id)
        except Refused as refused:
            call.refuse(refused)
            return
        served.calls.add(call)
        call.begin()

    def withdrawn(self, rules: Collection[Rule]) -> None:
        """Let the connections of these forwards finish, for `drain_s`."""
        # Taken out at once: the same rule may come back while these drain.
        self._drain(served for rule in rules if (served := self._served.pop(id(rule), None)) is not None)

    def changed(self, rules: Sequence[tuple[Rule, Rule]]) -> None:
        """Have the connections of old forwards judged by the new ones in their place, each (old, new)."""
        old: list[_Served] = []
        for before, after in rules:
            served = self._served.pop(id(before), None)
            if served is None:
                continue
            assert isinstance(after, Forward)
            if _leads_alike(served.forward, after):
                now = self._served[id(after)] = _Served(after)
                for call in list(served.calls):
                    call.move(now)
            old.append(served)
        self._drain(old)

    def _drain(self, withdrawn: Iterable[_Served]) -> None:
        old: list[_Call] = []
        for served in withdrawn:
            served.withdrawn = True
            if served.calls:
                self._draining.add(served)
                old += served.calls
        if not old:
            return
        _log.info("egress.draining", connections=len(old), seconds=self._drain_s)
        asyncio.get_running_loop().call_later(self._drain_s, _end, old)

    async def close(self) -> None:
        """End every connection."""
        for served in (*self._served.values(), *self._draining):
            for call in list(served.calls):
                call.abort("shutdown")

    def forget(self, served: _Served, call: _Call) -> None:
        """Take note that a connection that had a place is over."""
        served.calls.discard(call)
        self.gate.leave(served.forward.environment_id)
        if not served.calls:
            self._draining.discard(served)


class _Call:
    """One accepted connection."""

    __slots__ = (
        "_address", "_client", "_dial", "_dialled", "_flow", "_forwarder", "_id", "_known", "_served", "_sock",
        "_source",
    )  # fmt: skip

    def __init__(self, forwarder: Forwarder, served: _Served, sock: socket.socket, client: Key, dialled: Key) -> None:
        self._forwarder = forwarder
        self._served = served
        self._sock = sock
        self._client = client
        self._dialled = dialled
        self._id = ids.short_id()
        self._known: Connection | None = None
        self._source = self._address = ""
        self._flow: Flow | None = None
        self._dial: Dial | None = None

    @property
    def up(self) -> int:
        """Return how many octets have come from the client so far."""
        return 0 if self._flow is None else self._flow.up

    @property
    def down(self) -> int:
        """Return how many octets have come from the target so far."""
        return 0 if self._flow is None else self._flow.down

    def begin(self) -> None:
        """Begin to reach the target."""
        self._dial = self._forwarder.reach.dial(self._served.route, self.reached, self._sock)

    def refuse(self, refused: Refused) -> None:
        """Reset the client and say why where that is written down."""
        forward = self._served.forward
        known = Connection(self._id, forward, endpoint(*self._client), forward.name, forward.port)
        self._forwarder.ledger.refused(known, refused)
        self._forwarder.pump.poller.close(self._sock, reset=True)

    def abort(self, reason: str) -> None:
        """End this connection now, in whatever state it is; nothing happens to one that is over."""
        if self not in self._served.calls:
            return
        if self._flow is not None:
            self._flow.abort(reason)
            return
        if self._dial is not None:
            self._dial.cancel()
        self.reached(Refused("withdrawn", f"it was not opened yet ({reason})"))

    def move(self, now: _Served) -> None:
        """Go on under a changed forward, if that lets this connection be; what is being reached is begun anew."""
        forwarder = self._forwarder
        try:
            forwarder.gate.admit(now.forward, self._client[0])
        except Refused:
            return
        if self._flow is not None and self._source not in now.route.judge(self._address).sources:
            return
        self._served.calls.discard(self)
        self._served = now
        now.calls.add(self)
        if self._flow is None:
            if self._dial is not None:
                self._dial.cancel()
            self.begin()

    def reached(self, how: Reached | Refused) -> None:
        """Join the two sides, or refuse."""
        served, forwarder = self._served, self._forwarder
        if isinstance(how, Reached) and served.withdrawn:
            forwarder.pump.poller.close(how.socket)
            how = Refused("withdrawn", "the forward went away meanwhile")
        if isinstance(how, Refused):
            try:
                self.refuse(how)
            finally:
                forwarder.forget(served, self)
            return
        forward = served.forward
        self._source, port = plain(how.socket.getsockname())
        self._address = how.address
        source = endpoint(self._source, port)
        target = endpoint(how.address, forward.port)
        header = forward.proxy_header or forwarder.header_to(forward.name, forward.port, how.address)
        client = endpoint(*self._client)
        self._known = known = Connection(
            self._id, forward, client, forward.name, forward.port, "", header, target, source, how.exception
        )
        forwarder.ledger.opened(known, reason=f"leaves from {source}{served.leaves}")
        watch = forwarder.watch_for(known) if forward.mail and forwarder.watch_for is not None else None
        first = encode_v2(self._client, self._dialled) if header else b""
        self._flow = forwarder.pump.join(self._sock, how.socket, to_target=first, watch=watch, ended=self._ended)

    def _ended(self, how: Ended) -> None:
        known = self._known
        assert known is not None
        try:
            self._forwarder.ledger.closed(
                known, bytes_up=how.up, bytes_down=how.down, duration_s=how.duration_s, reason=how.reason
            )
        finally:
            self._forwarder.forget(self._served, self)


def _leads_alike(old: Forward, new: Forward) -> bool:
    """Say whether two forwards differ in nothing but who may connect and what addresses may be used."""
    return (old.program_id, old.mode, old.name, old.port, old.proxy_header, old.mail) == (
        new.program_id, new.mode, new.name, new.port, new.proxy_header, new.mail
    )  # fmt: skip


def _end(calls: list[_Call]) -> None:
    for call in calls:
        call.abort("drained")
