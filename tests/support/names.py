"""DNS for tests: answers from a dictionary, and a real name server with a real resolver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from outgate.base.clock import Clock, FrozenClock
from outgate.domains.ask import Answer, Question
from outgate.net.dns import Resolver
from outgate.sandbox.nameserver import NameServer
from outgate.sandbox.zone import Zone

Records = Mapping[tuple[str, str], list[str] | str]
"""(name, type) → values as `Answer` holds them; a plain string is a failing status."""


def answers(records: Records, asked: list[Question] | None = None) -> Callable[[Question], Answer]:
    """Return a function that answers from `records`, and notes what was asked."""
    names = {name for name, _ in records}

    def answer(question: Question) -> Answer:
        if asked is not None:
            asked.append(question)
        name = question.name.lower()
        found = records.get((name, question.rdtype))
        if isinstance(found, str):
            return Answer(found)
        if found:
            texts = tuple(value.encode() if question.rdtype == "TXT" else value for value in found)
            return Answer("ok", texts, 300, "test")
        return Answer("nodata" if name in names else "nxdomain", (), 0, "test")

    return answer


@asynccontextmanager
async def served(zone: Zone, clock: Clock | None = None, **options: float) -> AsyncIterator[Resolver]:
    """Serve `zone` on loopback and yield a resolver that asks it."""
    server = NameServer(zone)
    address = await server.start()
    try:
        yield Resolver([address], clock or FrozenClock(), **options)  # type: ignore[arg-type]
    finally:
        await server.stop()
