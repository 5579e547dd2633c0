"""Policies over time: fetched once, kept for as long as they say, renewed, and never lost to a failure."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.exc import OperationalError

from outgate.base.clock import FrozenClock
from outgate.domains.ask import Answer, Question
from outgate.domains.mta_sts import Kept, Policy
from outgate.net.allowance import Allowance
from outgate.net.http import FetchFailed
from outgate.relay.sts_policies import StsPolicies
from outgate.store.control import ControlStore, open_control
from outgate.store.secrets import open_box
from support.policies import policy
from support.tls_world import Memory

DAY = 86_400.0


@dataclass
class Web:
    """DNS and the Web: ids and texts by domain."""

    ids: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    dns: str = "ok"
    held: asyncio.Event | None = None

    async def ask(self, question: Question, *, fresh: bool = False, allowance: Allowance | None = None) -> Answer:
        assert question.rdtype == "TXT" and question.name.startswith("_mta-sts.")
        found = self.ids.get(question.name.removeprefix("_mta-sts."))
        if self.dns != "ok":
            return Answer(self.dns)
        return Answer("ok", (f"v=STSv1; id={found};".encode(),), 60) if found else Answer("nxdomain")

    async def text(self, host: str, path: str, limit: int) -> bytes:
        assert path == "/.well-known/mta-sts.txt" and limit == 65_536
        domain = host.removeprefix("mta-sts.")
        self.fetched.append(domain)
        if self.held is not None:
            await self.held.wait()
        if domain not in self.texts:
            raise FetchFailed("no such server")
        return self.texts[domain].encode()

    def publish(self, domain: str, id: str, mode: str = "enforce", max_age: int = 7 * 86_400) -> None:
        self.ids[domain] = id
        self.texts[domain] = policy(mode, f"mx.{domain}", max_age=max_age)


def policies(web: Web, store: Memory | None = None, clock: FrozenClock | None = None, **options: int) -> StsPolicies:
    return StsPolicies(store or Memory(), web, web, clock or FrozenClock(), **options)


async def mode(them: StsPolicies, domain: str = "a.test") -> str:
    found = (await them.policy(domain)).policy
    return "" if found is None else found.mode


async def test_a_policy_is_fetched_once_until_its_id_changes() -> None:
    web, clock = Web(), FrozenClock()
    them = policies(web, clock=clock)
    web.publish("a.test", "1")
    assert [await mode(them), await mode(them)] == ["enforce", "enforce"] and web.fetched == ["a.test"]
    web.texts["a.test"] = policy("testing", "mx.a.test")
    assert await mode(them) == "enforce"
    web.ids["a.test"] = "2"
    assert await mode(them) == "testing" and len(web.fetched) == 2


async def test_without_a_record_nothing_is_fetched() -> None:
    web = Web(texts={"a.test": policy("enforce", "mx.a.test")})
    assert await mode(policies(web)) == "" and not web.fetched


async def test_a_kept_policy_counts_until_its_time_whatever_fails() -> None:
    web, clock = Web(), FrozenClock()
    them = policies(web, clock=clock)
    web.publish("a.test", "1", max_age=1000)
    assert await mode(them) == "enforce"
    web.texts.clear()
    for dns, ids in (("ok", {}), ("servfail", {"a.test": "1"}), ("timeout", {}), ("ok", {"a.test": "2"})):
        web.dns, web.ids = dns, dict(ids)
        found = await them.policy("a.test")
        assert found.policy is not None and found.policy.mode == "enforce"
    assert "policy 2 of a.test cannot be had (no such server): the one of before counts" in found.note
    clock.advance(999)
    assert await mode(them) == "enforce"
    clock.advance(1)
    assert await mode(them) == ""


async def test_a_policy_that_ends_at_once_holds_for_its_message_and_is_not_fetched_for_each() -> None:
    web, clock = Web(), FrozenClock()
    them = policies(web, clock=clock)
    web.publish("a.test", "1", max_age=0)
    assert [await mode(them) for _ in range(20)] == ["enforce"] * 20 and len(web.fetched) == 1
    clock.advance(61)
    web.publish("a.test", "2", "none", max_age=0)
    assert await mode(them) == "none" and len(web.fetched) == 2


async def test_a_fetch_that_failed_is_noted_and_not_repeated_for_five_minutes() -> None:
    web, clock = Web(ids={"a.test": "1"}), FrozenClock()
    them = policies(web, clock=clock)
    for _ in range(3):
        found = await them.policy("a.test")
        assert found.policy is None
        assert found.note == "MTA-STS policy 1 of a.test cannot be had (no such server): as if there were none"
    assert len(web.fetched) == 1
    web.publish("a.test", "2")  # another version is another matter
    assert await mode(them) == "enforce"
    web.ids["b.test"] = "1"
    assert await mode(them, "b.test") == ""
    web.publish("b.test", "1")
    assert await mode(them, "b.test") == ""
    clock.advance(301)
    assert await mode(them, "b.test") == "enforce"


async def test_a_policy_that_cannot_be_read_is_none() -> None:
    web = Web(ids={"a.test": "1"}, texts={"a.test": "version: STSv1\nmode: maybe\nmax_age: 1"})
    found = await policies(web).policy("a.test")
    assert found.policy is None and "mode is none of" in found.note


async def test_one_fetch_of_a_domain_at_a_time() -> None:
    web = Web(held=asyncio.Event())
    web.publish("a.test", "1")
    them = policies(web)
    waiting = [asyncio.ensure_future(mode(them)) for _ in range(20)]
    while not web.fetched:
        await asyncio.sleep(0)
    waiting[0].cancel()  # one who gives up takes nothing from the others
    await asyncio.sleep(0)
    assert web.held is not None
    web.held.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert found[1:] == ["enforce"] * 19 and web.fetched == ["a.test"]


async def test_policies_that_are_used_are_renewed_before_their_end() -> None:
    web, clock, store = Web(), FrozenClock(), Memory()
    them = policies(web, store, clock)
    web.publish("a.test", "1")
    web.publish("short.test", "1", max_age=3600)
    await mode(them)
    await mode(them, "short.test")
    await them.renew()
    assert len(web.fetched) == 2
    clock.advance(1800)
    await them.renew()
    assert web.fetched[2:] == ["short.test"]
    clock.advance(DAY)
    web.publish("a.test", "2", "testing")
    await them.renew()
    assert web.fetched[3:] == ["a.test"]  # the short one has ended meanwhile
    assert store.rows.keys() == {"a.test"} and store.rows["a.test"].policy.mode == "testing"
    web.texts.clear()
    clock.advance(DAY)
    await them.renew()
    await them.renew()  # what failed is left alone for a while
    assert len(web.fetched) == 5 and await mode(them) == "testing"


async def test_policies_that_nobody_uses_are_renewed_no_more() -> None:
    web, clock = Web(), FrozenClock()
    them = policies(web, clock=clock)
    web.publish("a.test", "1", max_age=60 * 86_400)
    await mode(them)
    for _ in range(59):
        clock.advance(DAY)
        await them.renew()
    assert len(web.fetched) == 60
    for _ in range(62):
        clock.advance(DAY)
        await them.renew()
    assert len(web.fetched) < 63 and not them._kept


async def test_their_number_is_bounded_and_the_longest_unused_goes() -> None:
    web, store = Web(), Memory()
    them = policies(web, store, most=3)
    for name in "abc":
        web.publish(f"{name}.test", "1")
        await mode(them, f"{name}.test")
    await mode(them, "a.test")
    web.publish("d.test", "1")
    await mode(them, "d.test")
    assert store.rows.keys() == {"a.test", "c.test", "d.test"}


def opened(folder: Path) -> ControlStore:
    return open_control(folder / "control.db", open_box(folder / "master.key"), FrozenClock())


async def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    web, clock, control = Web(), FrozenClock(), opened(tmp_path)
    web.publish("a.test", "1")
    revision = control.revision()
    them = StsPolicies(control.sts, web, web, clock)
    await mode(them)
    web.publish("a.test", "2", "testing")
    await mode(them)
    assert control.revision() == revision  # nobody need act on it
    control.close()
    control = opened(tmp_path)
    (row,) = control.sts.all()
    assert row == Kept("a.test", "2", Policy("testing", ("mx.a.test",), 7 * 86_400), clock.now(), clock.now())
    web.dns = "servfail"
    again = StsPolicies(control.sts, web, web, clock)
    await again.start()
    assert await mode(again) == "testing" and len(web.fetched) == 2
    await again.stop()
    control.sts.drop(["a.test"])
    assert control.sts.all() == []
    control.close()


async def test_a_store_that_fails_costs_no_mail() -> None:
    class Broken(Memory):
        def keep(self, kept: Kept) -> None:
            raise OperationalError("INSERT", {}, Exception("disk I/O error"))

    web = Web()
    web.publish("a.test", "1")
    assert await mode(policies(web, Broken())) == "enforce"


async def test_stop_waits_for_nobody() -> None:
    web = Web(held=asyncio.Event())
    web.publish("a.test", "1")
    them = policies(web)
    await them.start()
    waiting = asyncio.ensure_future(them.policy("a.test"))
    while not web.fetched:
        await asyncio.sleep(0)
    await them.stop()
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
