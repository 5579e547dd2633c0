"""Which targets get a PROXY header: those that operators list, under whatever name a connection leads there.

Standards: none.
Promises: a listed name stands for its addresses too, which are looked up every `interval_s`; those of its last answers
    count, so that an address is not forgotten because one answer lacks it; what was known of a name stays while it
    cannot be resolved. A name that is not resolved at the start is told of.
Dangers: such a target believes a header that comes from here: a client that gets there without ours could write its
    own. An address that is new to a listed name is not known until the next look.
Not here: the header (`smtp.proxy_header`), who sends it (`forwarder`, `http_proxy`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

from outgate.base import addresses
from outgate.base.log import Log
from outgate.base.tasks import cancel, spawn
from outgate.egress.audit import endpoint
from outgate.egress.targets import Targets

_log = Log("outgate.egress")
_FIRST_S = 5.0
# A name with many addresses has some of them in an answer, and one IP version only while the other cannot be asked for.
_ANSWERS = 20
Resolve = Callable[[str], Awaitable[Sequence[str]]]


class HeaderTargets:
    """The targets. Lives on one event loop."""

    def __init__(
        self, entries: Iterable[str], resolve: Resolve, *, others: Collection[str] = (), interval_s: float = 30.0
    ) -> None:
        """`others` are addresses (`ip:port`) beside those of the entries; they may change."""
        self._listed = Targets(entries)
        self._resolve = resolve
        self._others = others
        self._interval_s = interval_s
        self._answers: dict[str, deque[frozenset[str]]] = {}
        self._found: dict[str, frozenset[str]] = {}
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def wants(self, name: str, port: int, address: str) -> bool:
        """Say whether a connection to a name that has led to an address begins with a header."""
        listed = self._listed
        return (
            listed.has(name, port)
            or listed.has(address, port)
            or endpoint(address, port) in self._others
            or any(address in found and listed.has(each, port) for each, found in self._found.items())
        )

    async def start(self) -> None:
        """Look names up, again and again; return when that was done once, after some seconds at most."""
        if self._listed.names:
            self._task = spawn(self._run(), "egress header targets")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._looked.wait(), _FIRST_S)
            for name in self._listed.names - self._found.keys():
                remedy = (
                    "list its addresses too (egress.proxy_protocol_targets): until it is resolved they get no header"
                )
                _log.warning("egress.header_target_unknown", name=name, remedy=remedy)

    async def look(self) -> None:
        """Look all names up."""
        await asyncio.gather(*(self._look_up(name) for name in self._listed.names))

    async def close(self) -> None:
        """Look no more."""
        await cancel(self._task)

    async def _look_up(self, name: str) -> None:
        with contextlib.suppress(Exception):  # whatever a resolver runs into: what was known stays
            found = await self._resolve(name)
            if found:
                answers = self._answers.setdefault(name, deque(maxlen=_ANSWERS))
                answers.append(frozenset(addresses.plain(each) for each in found))
                self._found[name] = frozenset().union(*answers)

    async def _run(self) -> None:
        while True:
            await self.look()
            self._looked.set()
            await asyncio.sleep(self._interval_s)
