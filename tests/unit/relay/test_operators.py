"""Operators' verbs in a running relay: what delivery has, what comes, what stands over a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from outgate.model.operations import DIRECT, Done, Order, Scope, Verb
from outgate.relay.operators import NoSuchRoute, Operators
from support.relay import TestRelay, letter, relay

HOUR = 3600.0


@dataclass
class Silent:
    """A server that takes connections and greets nobody until it is told to; then it takes mail, or answers RCPT as it
    is told."""

    greets: asyncio.Event = field(default_factory=asyncio.Event)
    dialled: asyncio.Event = field(default_factory=asyncio.Event)
    rcpt: str = "250 2.1.5 Ok"
    taken: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    at_dot: asyncio.Event | None = None
    """If given: the final dot is answered when it is set."""
    dots: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled.set()
        await self.greets.wait()
        writer.write(b"220 receiver.test\r\n")
        to: list[str] = []
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            verb = line[:4].upper()
            if verb == "RCPT":
                self.asked.append(line[9:-1].partition(">")[0])
                if self.rcpt.startswith("250"):
                    to.append(self.asked[-1])
                writer.write(f"{self.rcpt}\r\n".encode())
            elif verb == "DATA":
                writer.write(b"354 go\r\n" if to else b"503 5.5.1 no recipients\r\n")
                while to and (await reader.readline()) != b".\r\n":
                    pass
                if to:
                    self.dots.set()
                    if self.at_dot is not None:
                        await self.at_dot.wait()
                    self.taken += to
                    writer.write(b"250 2.0.0 Ok\r\n")
                to = []
            elif verb == "QUIT":
                break
            else:
                writer.write(b"250 2.0.0 Ok\r\n")
        writer.close()


@asynccontextmanager
async def house(data: Path) -> AsyncIterator[tuple[TestRelay, Silent]]:
    """Run a relay that delivers everything to a `Silent`."""
    silent = Silent()
    server = await asyncio.start_server(silent.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with relay(data, deliver_to=f"127.0.0.1:{port}", delivery_tls="none") as running:
            yield running, silent
            silent.greets.set()
            if silent.at_dot is not None:
                silent.at_dot.set()
    finally:
        server.close()


async def send(running: TestRelay, *recipients: str) -> str:
    """Hand a message in; return its queue id."""
    client = await running.client()
    await client.envelope("a@example.test", *recipients)
    said = await client.send(letter(recipients[0]))
    client.close()
    assert said.startswith("250 2.0.0 Ok: queued as "), said
    return said.rpartition(" ")[2]


def order(running: TestRelay, verb: Verb, scope: Scope, **more: str) -> Order:
    return Order(verb, scope, "iam-ann", running.clock.now(), **more)


async def states(running: TestRelay, queue_id: str) -> dict[str, str]:
    await asyncio.to_thread(running.service.store.flush)
    record = await asyncio.to_thread(running.service.store.message, queue_id)
    assert record is not None
    return {each.mailbox: each.status.value for each in record.recipients}


async def until(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Ask until the answer is as wanted."""
    async with asyncio.timeout(30):
        while (found := await ask()) != wanted:
            await asyncio.sleep(0.01)
    assert found == wanted


@pytest.mark.parametrize("verb", [Verb.HOLD, Verb.CANCEL])
async def test_what_waits_inside_delivery_comes_back_for_a_verb(tmp_path: Path, verb: Verb) -> None:
    async with house(tmp_path / "data") as (running, silent):
        queue_id = await send(running, "ann@one.test", "bob@two.test")
        await silent.dialled.wait()
        done = await running.service.operators.carry_out(order(running, verb, Scope(domain="one.test")))
        assert (done.changed, done.under_way) == (0, 1)
        # At once, while the server still says nothing.
        status = "held" if verb is Verb.HOLD else "cancelled"
        await until(lambda: states(running, queue_id), {"ann@one.test": status, "bob@two.test": "queued"})
        silent.greets.set()
        await until(lambda: states(running, queue_id), {"ann@one.test": status, "bob@two.test": "delivered"})
        assert silent.taken == ["bob@two.test"]


async def test_what_is_being_sent_cannot_be_called_back(tmp_path: Path) -> None:
    async with house(tmp_path / "data") as (running, silent):
        silent.at_dot = asyncio.Event()
        silent.greets.set()
        queue_id = await send(running, "ann@one.test")
        await silent.dots.wait()
        done = await running.service.operators.carry_out(order(running, Verb.CANCEL, Scope(queue_ids=(queue_id,))))
        assert done == Done(under_way=1)
        silent.at_dot.set()
        await until(lambda: states(running, queue_id), {"ann@one.test": "delivered"})
        done = await running.service.operators.carry_out(order(running, Verb.CANCEL, Scope(queue_ids=(queue_id,))))
        assert done == Done(final=1)


async def test_a_standing_hold_by_site_stops_what_comes_before_anything_is_dialled(tmp_path: Path) -> None:
    async with house(tmp_path / "data") as (running, silent):
        silent.greets.set()
        operators, service = running.service.operators, running.service
        first = await send(running, "ann@one.test")
        await until(lambda: states(running, first), {"ann@one.test": "delivered"})
        record = service.store.message(first)
        assert record is not None
        site = record.attempts[-1].site
        await operators.carry_out(order(running, Verb.HOLD, Scope(site=site), why="a pause"), standing=True)
        before = len(silent.asked)
        second = await send(running, "bob@two.test")
        await until(lambda: states(running, second), {"bob@two.test": "held"})
        running.clock.advance(40 * HOUR)
        await service.queue.poke()
        assert await states(running, second) == {"bob@two.test": "held"}
        assert len(silent.asked) == before
        held = service.store.message(second)
        assert held is not None
        told = [(event.kind, event.actor, event.text) for event in held.events if event.kind == "held"]
        assert told == [("held", "iam-ann", f"held: site {site}: a pause")]
        # Held mail has no site yet, for nobody tried it: a release by its domain lets it go only if no hold stands.
        kept = await operators.carry_out(order(running, Verb.RELEASE, Scope(domain="two.test")))
        assert (kept.changed, [hold.scope.site for hold in operators.holds()]) == (1, [site])
        await until(lambda: states(running, second), {"bob@two.test": "held"})
        await operators.carry_out(order(running, Verb.RELEASE, Scope(site=site)))
        assert operators.holds() == []
        await operators.carry_out(order(running, Verb.RELEASE, Scope(domain="two.test")))
        await until(lambda: states(running, second), {"bob@two.test": "delivered"})


async def test_a_hold_of_a_configuration_stands_over_a_restart_and_retry_does_not_pass_it(tmp_path: Path) -> None:
    async with house(tmp_path / "data") as (running, silent):
        silent.greets.set()
        silent.rcpt = "451 4.7.1 later"
        queue_id = await send(running, "ann@one.test")
        await until(lambda: states(running, queue_id), {"ann@one.test": "deferred"})
        record = running.service.store.message(queue_id)
        assert record is not None
        scope = Scope(smtp_config_id=record.smtp_config_id)
        done = await running.service.operators.carry_out(order(running, Verb.HOLD, scope), standing=True)
        assert done == Done(changed=1, messages=1)
    async with house(tmp_path / "data") as (running, silent):
        silent.greets.set()
        operators = running.service.operators
        assert [hold.scope for hold in operators.holds()] == [scope]
        other = await send(running, "bob@two.test")
        await until(lambda: states(running, other), {"bob@two.test": "held"})
        assert await operators.carry_out(order(running, Verb.RETRY, scope)) == Done(held=2)
        running.clock.advance(2 * HOUR)
        await running.service.queue.poke()
        assert await states(running, queue_id) == {"ann@one.test": "held"} and silent.asked == []
        assert (await operators.carry_out(order(running, Verb.RELEASE, scope))).changed == 2
        await until(lambda: states(running, queue_id), {"ann@one.test": "delivered"})
        await until(lambda: states(running, other), {"bob@two.test": "delivered"})


async def test_retry_now_tries_now_and_forgives_the_site(tmp_path: Path) -> None:
    async with house(tmp_path / "data") as (running, silent):
        silent.greets.set()
        silent.rcpt = "451 4.7.1 later"
        queue_id = await send(running, "ann@one.test")
        await until(lambda: states(running, queue_id), {"ann@one.test": "deferred"})
        silent.rcpt = "250 2.1.5 Ok"
        forgiven: list[str] = []
        running.service.operators._forgive = forgiven.append
        done = await running.service.operators.carry_out(order(running, Verb.RETRY, Scope(domain="one.test")))
        assert done == Done(changed=1, messages=1)
        await until(lambda: states(running, queue_id), {"ann@one.test": "delivered"})
        record = running.service.store.message(queue_id)
        assert record is not None and len(record.attempts) == 2
        assert forgiven == [record.attempts[0].site]


async def test_an_unknown_route_is_refused_with_those_there_are(tmp_path: Path) -> None:
    async with house(tmp_path / "data") as (running, _):
        operators: Operators = running.service.operators
        scope = Scope(domain="one.test")
        with pytest.raises(NoSuchRoute, match="'moon': there are direct"):
            await operators.carry_out(order(running, Verb.REROUTE, scope, route="moon"))
        with pytest.raises(NoSuchRoute):
            await operators.weigh(order(running, Verb.REROUTE, scope, route="moon"))
        assert await operators.carry_out(order(running, Verb.REROUTE, scope, route=DIRECT)) == Done()
        with pytest.raises(ValueError, match="scope"):
            await operators.carry_out(order(running, Verb.CANCEL, Scope()))


async def test_a_reroute_takes_back_what_waits_inside_delivery(tmp_path: Path) -> None:
    async with house(tmp_path / "data") as (running, silent):
        queue_id = await send(running, "ann@one.test")
        await silent.dialled.wait()
        begun: list[str] = []
        deliver = running.service.queue._deliver
        running.service.queue._deliver = lambda job: (begun.append(job.route), deliver(job))  # type: ignore[func-returns-value]
        done = await running.service.operators.carry_out(
            order(running, Verb.REROUTE, Scope(domain="one.test"), route=DIRECT)
        )
        assert done == Done(under_way=1)

        async def again() -> list[str]:
            return begun

        await until(again, [DIRECT])
        silent.greets.set()
        await until(lambda: states(running, queue_id), {"ann@one.test": "delivered"})
        assert silent.taken == ["ann@one.test"]


async def test_depths_name_connections_and_the_hold(tmp_path: Path) -> None:
    async with house(tmp_path / "data") as (running, silent):
        silent.greets.set()
        silent.rcpt = "451 4.7.1 later"
        queue_id = await send(running, "ann@one.test")
        await until(lambda: states(running, queue_id), {"ann@one.test": "deferred"})
        operators = running.service.operators
        found = await operators.depths(Scope(), by_age=False, limit=10, offset=0)
        ((site, live, hold),) = found.page
        assert (found.sites, site.deferred, live.connections, hold) == (1, 1, 1, None)
        assert site.reply == "451 4.7.1 later" and site.next_at is not None and site.oldest_at is not None
        await operators.carry_out(order(running, Verb.HOLD, Scope(domain="one.test")), standing=True)
        ((site, _, hold),) = (await operators.depths(Scope(), by_age=True, limit=10, offset=0)).page
        assert site.held == 1 and hold is not None and hold.scope == Scope(domain="one.test")
