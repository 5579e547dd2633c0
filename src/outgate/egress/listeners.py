"""Listen for the rules of every environment, and give what is accepted to the rule's carrier.

Standards: none.
Promises: an environment's rules change as a whole or not at all; a port that cannot be had leaves the old rules in
    force and is named, with who has it; busy listeners do not keep others waiting; when the process has no files left,
    accepting pauses and goes on.
Dangers: accepted sockets take after their listener (no delay, keep-alive): that saves three calls for each.
Not here: who may connect (`gate`), what is done with a connection (a `Carrier`).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

from outgate.base.log import Log
from outgate.egress.audit import endpoint
from outgate.egress.holder import holder
from outgate.egress.plan import Forward, Rule
from outgate.egress.poll import Poller
from outgate.egress.sockets import Key, keep_alive, plain

_log = Log("outgate.egress")
_BACKLOG = 1024
_BATCH = 64
# Binding thousands of ports takes a while: others have their turn in between.
_AT_ONCE = 250
_PAUSE_S = 0.25
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class ListenError(Exception):
    """A port cannot be listened on; the message names it and says why. Nothing has changed."""


class Carrier(Protocol):
    """What carries the connections of some kind of rule."""

    def accepted(self, rule: Rule, sock: socket.socket, client: Key, dialled: Key) -> None:
        """Take a new connection over: non-blocking, from `client`, which dialled `dialled` (address, port)."""
        ...

    def withdrawn(self, rules: Collection[Rule]) -> None:
        """Let the connections of these very rules finish, for a while; there will be no new ones."""
        ...

    def changed(self, rules: Sequence[tuple[Rule, Rule]]) -> None:
        """Judge the connections of old rules by the new ones that listen in their place, each (old, new); those that
        may not go on finish as if withdrawn."""
        ...

    async def close(self) -> None:
        """End every connection."""
        ...


@dataclass(frozen=True, slots=True)
class _Change:
    """What one carrier is to be told."""

    carrier: Carrier
    changed: list[tuple[Rule, Rule]]
    withdrawn: list[Rule]


class _Listener:
    __slots__ = ("_all", "carrier", "dialled", "rule", "sock", "withdrawn")

    def __init__(self, listeners: Listeners, rule: Rule, carrier: Carrier, sock: socket.socket) -> None:
        self._all = listeners
        self.rule = rule
        self.carrier = carrier
        self.sock = sock
        self.withdrawn = False
        anywhere = ip_address(rule.listen_address).is_unspecified
        self.dialled: Key | None = None if anywhere else (rule.listen_address, rule.listen_port)

    def ready(self, events: int) -> None:
        """Accept what waits, a batch at most."""
        self.go_on()

    def go_on(self) -> None:
        listening, accepted = self.sock, self.carrier.accepted
        if self.withdrawn:
            return
        family = listening.family
        for _ in range(_BATCH):
            try:
                # The public call makes the same socket and looks up its family and type once more.
                number, address = listening._accept()  # pyright: ignore
            except BlockingIOError:
                self._all.poller.wait_read(listening.fileno())
                return
            except OSError as error:
                if error.errno in _FULL:
                    self._all.pause(self, error)
                    return
                continue  # that client has gone already
            sock = socket.socket(family, socket.SOCK_STREAM, 0, fileno=number)
            sock.setblocking(False)
            client = address if family == socket.AF_INET else plain(address)
            try:
                accepted(self.rule, sock, client, self.dialled or plain(sock.getsockname()))
            except Exception as error:
                # The others that wait here are not told of again.
                _log.exception("egress.carrier_failed", error=repr(error))
                self._all.poller.close(sock, reset=True)
        self._all.poller.soon(self.go_on)


class Listeners:
    """Every listener of the egress. Lives on one event loop."""

    def __init__(self, poller: Poller, carrier_of: Callable[[Rule], Carrier | None], *, keepalive_s: float) -> None:
        """`carrier_of` returns who carries a kind of rule, or None if nobody does."""
        self.poller = poller
        self._carrier_of = carrier_of
        self._keepalive_s = max(int(keepalive_s), 1)
        self._listeners: dict[Key, _Listener] = {}
        self._mine: dict[str, set[Key]] = {}
        self._paused: dict[_Listener, None] = {}
        self._resume: asyncio.TimerHandle | None = None
        self._told_full = False

    def rules(self) -> tuple[Rule, ...]:
        """Return the rules that are in force now."""
        return tuple(listener.rule for listener in self._listeners.values())

    async def apply(self, environment_id: str, rules: Sequence[Rule]) -> None:
        """Put exactly `rules` into force for an environment; those that go are withdrawn from their carriers.

        Raises `ListenError`, with the old ones still in force. One call at a time."""
        wanted: dict[Key, Rule] = {}
        for rule in rules:
            key = rule.listen_address, rule.listen_port
            if key in wanted:
                raise ListenError(f"{endpoint(*key)} is wanted twice by environment {environment_id}")
            wanted[key] = rule
        carriers = {key: self._carrier(rule) for key, rule in wanted.items()}
        mine = self._mine.get(environment_id, set())
        added = await self._listen({key: rule for key, rule in wanted.items() if key not in mine})
        # From here on nothing can fail, so the change is whole.
        by_carrier: dict[int, _Change] = {}
        gone: list[_Listener] = []
        for key in mine:
            listener = self._listeners[key]
            rule = wanted.get(key)
            if rule == listener.rule:
                continue
            change = by_carrier.setdefault(id(listener.carrier), _Change(listener.carrier, [], []))
            if rule is not None and carriers[key] is listener.carrier:
                change.changed.append((listener.rule, rule))
            else:
                change.withdrawn.append(listener.rule)
            if rule is None:
                del self._listeners[key]
                self._stop(listener)
                gone.append(listener)
            else:
                listener.carrier, listener.rule = carriers[key], rule
        for key, listener in added.items():
            self._listeners[key] = listener
            self.poller.add(listener.sock.fileno(), listener)
        if wanted:
            self._mine[environment_id] = set(wanted)
        else:
            self._mine.pop(environment_id, None)
        for change in by_carrier.values():
            change.carrier.changed(change.changed)
            change.carrier.withdrawn(change.withdrawn)
        for number, listener in enumerate(gone, 1):
            self.poller.close(listener.sock)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def close(self) -> None:
        """Stop listening."""
        for listener in self._listeners.values():
            self._stop(listener)
            self.poller.close(listener.sock)
        self._listeners.clear()
        self._mine.clear()
        self._paused.clear()
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None

    def pause(self, listener: _Listener, error: OSError) -> None:
        """Accept no more there for a moment: this process has no files (or memory) left."""
        self._paused[listener] = None  # once, however often it is knocked at
        if not self._told_full:
            self._told_full = True
            _log.error(
                "egress.accepting_paused",
                error=error.strerror,
                remedy="allow the process more open files (LimitNOFILE, ulimit -n)",
            )
        if self._resume is None:
            self._resume = asyncio.get_running_loop().call_later(_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        paused, self._paused = self._paused, {}
        for listener in paused:
            listener.go_on()
        if not self._paused:
            self._told_full = False
            _log.info("egress.accepting_again")

    def _stop(self, listener: _Listener) -> None:
        """Accept nothing more there; what the system has accepted meanwhile ends with the socket."""
        listener.withdrawn = True
        self.poller.drop(listener.sock.fileno())

    def _carrier(self, rule: Rule) -> Carrier:
        carrier = self._carrier_of(rule)
        if carrier is None:
            raise ListenError(f"{endpoint(rule.listen_address, rule.listen_port)}: nothing here carries such a rule")
        return carrier

    async def _listen(self, wanted: dict[Key, Rule]) -> dict[Key, _Listener]:
        """Return a listener for each, all or none; they are not watched yet."""
        added: dict[Key, _Listener] = {}
        try:
            for key, rule in wanted.items():
                other = self._listeners.get(key)
                if other is not None:
                    whose = f"environment {other.rule.environment_id} ({_name(rule)} wants it)"
                    raise ListenError(f"{endpoint(*key)} is taken by {whose}")
                added[key] = _Listener(self, rule, self._carrier(rule), await self._bound(key))
                if len(added) % _AT_ONCE == 0:
                    await asyncio.sleep(0)
        except BaseException:
            for listener in added.values():
                listener.sock.close()
            raise
        return added

    async def _bound(self, key: Key) -> socket.socket:
        """Return a socket that listens there. Raises `ListenError`."""
        opened: socket.socket | None = None
        try:
            version = ip_address(key[0]).version
            opened = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
            opened.setblocking(False)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(opened, self._keepalive_s)
            opened.bind(key)
            # Only listening finds out about another listener.
            opened.listen(_BACKLOG)
        except (OSError, ValueError) as error:
            if opened is not None:
                opened.close()
            number = error.errno if isinstance(error, OSError) else None
            if number == errno.EADDRINUSE:
                who = await asyncio.to_thread(holder, *key)
                said = f"is taken by another program on this host{f' ({who})' if who else ''}"
            elif number == errno.EADDRNOTAVAIL:
                said = "is on an address that this host does not have"
            else:
                said = f"cannot be listened on: {error}"
            raise ListenError(f"{endpoint(*key)} {said}") from error
        return opened


def _name(rule: Rule) -> str:
    return rule.name if isinstance(rule, Forward) else "its proxy"
