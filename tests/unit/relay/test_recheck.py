"""The round that never ends: who is looked at when, how many together, what is kept, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.tenancy import Instance, SmtpConfiguration, Standing, Verification
from outgate.relay.onboarding import Finding
from outgate.relay.recheck import Recheck
from outgate.relay.standing import Schedule, after
from outgate.store.control import ControlStore, open_control
from outgate.store.keys import NewKey
from outgate.store.secrets import open_box

HOUR = 3600.0
STATES = {"ok": Verification.SUCCESSFUL, "bad": Verification.FAILED, "?": None}


@dataclass
class World:
    """Configurations in a real store, and an examiner that finds what the test says."""

    store: ControlStore
    clock: FrozenClock
    instance: Instance
    found: dict[str, str] = field(default_factory=dict)
    looked_at: list[str] = field(default_factory=list)
    together: int = 0
    most_together: int = 0
    slow: dict[str, asyncio.Event] = field(default_factory=dict)
    changes: int = 0

    def add(self, domain: str, due_in: float = 6 * HOUR) -> SmtpConfiguration:
        key = NewKey("rsa", "public", b"private")
        made = self.store.tenancy.create_configuration(
            self.instance.id, name="n", domain=domain, description="", key=key, authorization=Verification.SUCCESSFUL
        )
        found = [Finding(check, Verification.SUCCESSFUL, "ok", "", domain, ()).checked() for check in ("spf", "dkim")]
        schedule = Schedule(due_in, 72 * HOUR, HOUR)
        self.store.verification.record([(made.id, found)], lambda it, what, now: after(it, what, now, schedule))
        return made

    async def examine(
        self, configuration: SmtpConfiguration, types: Sequence[str], *, fresh: bool
    ) -> tuple[Finding, ...]:
        assert tuple(types) == ("spf", "dkim") and not fresh
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        try:
            domain = configuration.domain
            self.looked_at.append(domain)
            await asyncio.sleep(0)
            if domain in self.slow:
                await self.slow[domain].wait()
            result = self.found.get(domain, "ok")
            if result == "trouble":
                raise RuntimeError("of ours")
            return tuple(
                Finding(check, STATES[result], result, f"it is {result}", domain, ()) for check in ("a", "spf", "dkim")
            )
        finally:
            self.together -= 1

    async def changed(self) -> None:
        self.changes += 1

    def standing(self, made: SmtpConfiguration) -> Standing:
        found = self.store.tenancy.configuration(self.instance.id, made.id)
        assert found is not None
        return found.standing

    @asynccontextmanager
    async def running(self, at_once: int = 20) -> AsyncIterator[Recheck]:
        recheck = Recheck(
            self,
            self.store.verification,
            self.clock,
            schedule=Schedule(6 * HOUR, 72 * HOUR, HOUR),
            changed=self.changed,
            at_once=at_once,
            jitter=lambda: 0.0,
        )
        recheck.start()
        await recheck.poke()
        try:
            yield recheck
        finally:
            await recheck.stop()


@pytest.fixture
def world(tmp_path: Path):  # type: ignore[no-untyped-def]
    clock = FrozenClock()
    store = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), clock)
    yield World(store, clock, store.tenancy.create_instance(store.tenancy.create_account(), "eu-de", "test"))
    store.close()


async def test_each_is_looked_at_when_it_is_due_and_not_before(world: World) -> None:
    world.add("a.test")
    world.add("b.test", 8 * HOUR)
    async with world.running() as recheck:
        assert world.looked_at == []
        world.clock.advance(6 * HOUR)
        await recheck.poke()
        assert world.looked_at == ["a.test"]
        world.clock.advance(2 * HOUR)
        await recheck.poke()
        assert world.looked_at == ["a.test", "b.test"]
        world.clock.advance(4 * HOUR)
        await recheck.poke()
        assert world.looked_at == ["a.test", "b.test", "a.test"]


async def test_from_warning_to_suspension_and_back(world: World) -> None:
    made = world.add("a.test")
    async with world.running() as recheck:
        for result, hours, standing, changes in (
            ("ok", 6, Standing.VERIFIED, 0),
            ("bad", 6, Standing.WARNING, 1),
            ("?", 6, Standing.WARNING, 1),
            ("bad", 66, Standing.SUSPENDED, 2),
            ("?", 1, Standing.SUSPENDED, 2),
            ("ok", 1, Standing.VERIFIED, 3),
        ):
            world.found["a.test"] = result
            world.clock.advance(hours * HOUR)
            await recheck.poke()
            assert (world.standing(made), world.changes) == (standing, changes), result


async def test_trouble_of_ours_is_nobodys_failure(world: World) -> None:
    made, other = world.add("a.test"), world.add("b.test")
    world.found["a.test"] = "trouble"
    async with world.running() as recheck:
        for _ in range(30):
            world.clock.advance(6 * HOUR)
            await recheck.poke()
        assert world.standing(made) is world.standing(other) is Standing.VERIFIED
        assert world.looked_at.count("a.test") == world.looked_at.count("b.test") == 30
    assert world.store.verification.evidence(made.id)[0].result == "error"


async def test_a_bounded_number_together_and_results_kept_many_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(333):
        world.add(f"{number}.test")
    batches: list[int] = []
    record = world.store.verification.record

    def counted(findings, decide, *, quiet=False):  # type: ignore[no-untyped-def]
        batches.append(len(findings))
        return record(findings, decide, quiet=quiet)

    monkeypatch.setattr(world.store.verification, "record", counted)
    world.clock.advance(6 * HOUR)
    revision = world.store.revision()
    async with world.running(at_once=7):
        assert len(world.looked_at) == len(set(world.looked_at)) == 333
        assert world.most_together == 7
    assert sum(batches) == 333 and len(batches) <= 50
    assert (world.store.revision(), world.changes) == (revision, 0)  # nothing has changed, so nobody is woken


async def test_a_slow_domain_keeps_only_itself_waiting(world: World) -> None:
    slow = world.add("slow.test")
    others = [world.add(f"{number}.test") for number in range(60)]
    world.slow["slow.test"] = asyncio.Event()
    for each in others:
        world.found[each.domain] = "bad"
    async with world.running(at_once=4) as recheck:
        world.clock.advance(6 * HOUR)
        poked = asyncio.ensure_future(recheck.poke())
        while len(world.looked_at) < 61 or world.together > 1:
            await asyncio.sleep(0)
        while world.changes == 0 or any(world.standing(each) is not Standing.WARNING for each in others):
            await asyncio.sleep(0.001)
        assert not poked.done()
        assert world.looked_at.count("slow.test") == 1  # due still, but being looked at
        world.slow["slow.test"].set()
        await poked
        assert world.standing(slow) is Standing.VERIFIED


async def test_what_is_deleted_meanwhile_is_left_out(world: World) -> None:
    made = world.add("a.test")
    world.slow["a.test"] = asyncio.Event()
    async with world.running() as recheck:
        world.clock.advance(6 * HOUR)
        poked = asyncio.ensure_future(recheck.poke())
        while not world.looked_at:
            await asyncio.sleep(0)
        world.store.tenancy.delete_configuration(world.instance.id, made.id)
        world.slow["a.test"].set()
        await poked
    assert world.store.verification.evidence(made.id)[0].result == "ok"


async def test_stopping_in_the_middle_loses_nothing(world: World) -> None:
    made = world.add("a.test")
    world.slow["a.test"] = asyncio.Event()
    world.found["a.test"] = "bad"
    async with world.running() as recheck:
        world.clock.advance(6 * HOUR)
        poked = asyncio.ensure_future(recheck.poke())
        while not world.looked_at:
            await asyncio.sleep(0)
        await recheck.stop()
        await poked
    assert world.standing(made) is Standing.VERIFIED
    world.slow.clear()
    async with world.running():
        assert world.standing(made) is Standing.WARNING


async def test_a_store_that_fails_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = world.add("a.test")
    world.found["a.test"] = "bad"
    record = world.store.verification.record
    failures = [OSError("disk full")]

    def failing(findings, decide, *, quiet=False):  # type: ignore[no-untyped-def]
        if failures:
            raise failures.pop()
        return record(findings, decide, quiet=quiet)

    monkeypatch.setattr(world.store.verification, "record", failing)
    async with world.running() as recheck:
        world.clock.advance(6 * HOUR)
        await recheck.poke()
        assert world.standing(made) is Standing.VERIFIED
        await recheck.poke()
        assert world.standing(made) is Standing.WARNING


async def test_a_finding_that_cannot_be_kept_keeps_nobody_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    poison, *others = [world.add(f"{number}.test") for number in range(12)]
    for each in others:
        world.found[each.domain] = "bad"
    record = world.store.verification.record

    def choosy(findings, decide, *, quiet=False):  # type: ignore[no-untyped-def]
        if any(smtp_config_id == poison.id and found[0].result != "error" for smtp_config_id, found in findings):
            raise ValueError("cannot be stored")
        return record(findings, decide, quiet=quiet)

    monkeypatch.setattr(world.store.verification, "record", choosy)
    async with world.running() as recheck:
        world.clock.advance(6 * HOUR)
        await recheck.poke()
        assert {world.standing(each) for each in others} == {Standing.WARNING}
        assert world.standing(poison) is Standing.VERIFIED
        assert world.looked_at.count(poison.domain) == 1  # and not again at once
