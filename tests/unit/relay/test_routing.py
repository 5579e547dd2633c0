"""Where mail goes, and where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from outgate.base.clock import FrozenClock
from outgate.net.dns import BOTH, AddressAnswer, Exchange, ExchangeAnswer
from outgate.relay.endpoints import Endpoint
from outgate.relay.routing import Router, Unroutable
from outgate.relay.sources import Sources


@dataclass
class Names:
    answer: ExchangeAnswer = field(default_factory=lambda: ExchangeAnswer("nodata", ()))
    found: dict[str, list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    failing: str = ""

    async def exchanges(self, domain: str) -> ExchangeAnswer:
        return self.answer

    async def hosts(self, name: str, *, families: frozenset[str] = BOTH) -> AddressAnswer:
        self.asked.append(name)
        addresses = tuple(self.found.get(name, ()))
        return AddressAnswer("ok" if addresses else self.failing or "nodata", addresses)


def mx(*exchanges: tuple[int, str]) -> ExchangeAnswer:
    return ExchangeAnswer("ok", tuple(Exchange(*exchange) for exchange in exchanges))


def router(
    names: Names,
    *,
    permitted: Callable[[str, str], bool] = lambda n, a: True,
    deliver_to: str = "",
    sources: tuple[str, ...] = ("192.0.2.5", "2001:db8::5"),
    missing: tuple[str, ...] | None = None,
    ourselves: Callable[[str, int], bool] = lambda a, p: False,
) -> Router:
    """`missing` are those of the `sources` that are not plumbed (None: nobody looks)."""
    endpoint = Endpoint("dal", (), "smtp.test", "private.smtp.test", ("192.0.2.9",), sources, "out.test")
    watched = None
    if missing is not None:
        watched = Sources([endpoint], FrozenClock(), trouble=lambda a: "gone" if a in missing else "")
        watched.check()
    return Router(names, port=2525, endpoint=endpoint, deliver_to=deliver_to, own_names=("Relay.Test.", "out.test"), permitted=permitted, sources=watched, ourselves=ourselves)  # fmt: skip


async def failure(names: Names, **options: object) -> Unroutable:
    with pytest.raises(Unroutable) as caught:
        await router(names, **options).route("x.test")  # type: ignore[arg-type]
    return caught.value


async def test_hosts_in_order_of_preference() -> None:
    names = Names(mx((20, "b.test"), (10, "a.test")), {"a.test": ["192.0.2.1", "2001:db8::1"], "b.test": ["192.0.2.2"]})
    route = await router(names).route("x.test")
    assert [(h.name, h.address, h.port) for h in route.hosts] == [
        ("a.test", "192.0.2.1", 2525), ("a.test", "2001:db8::1", 2525), ("b.test", "192.0.2.2", 2525),
    ]  # fmt: skip
    assert route.site == "a.test,b.test"
    assert [h.source for h in route.hosts] == ["192.0.2.5", "2001:db8::5", "192.0.2.5"]
    assert route.reason == "MX 10 a.test, 20 b.test"
    assert (route.endpoint, route.ehlo_name) == ("dal", "out.test")


async def test_equals_come_in_any_order_but_the_site_is_one() -> None:
    names = Names(mx(*((10, f"h{n}.test") for n in range(5))), {f"h{n}.test": [f"192.0.2.{n}"] for n in range(5)})
    routes = [await router(names).route("x.test") for _ in range(40)]
    assert len({route.hosts[0].name for route in routes}) > 1
    assert len({route.site for route in routes}) == 1


async def test_a_thousand_hosts_fill_neither_the_trail_nor_the_name_of_their_site() -> None:
    long = "x" * 60
    many = [f"{long}.{long}.{long}.h{number}.test" for number in range(1000)]
    names = Names(mx(*((10, name) for name in many)), {name: ["192.0.2.1"] for name in many})
    routes = [await router(names).route("x.test") for _ in range(3)]
    assert len({route.site for route in routes}) == 1 and all(len(route.hosts) <= 10 for route in routes)
    assert len(routes[0].site) < 1000 and len(routes[0].reason) < 2500 and routes[0].reason.endswith(" and 990 more")
    names.answer = mx(*((10, name) for name in many[:-1]), (10, "evil.test"))
    other = await router(names).route("x.test")
    assert other.site != routes[0].site  # one host more or less is another site: its connections are not shared


async def test_implicit_mx() -> None:
    route = await router(Names(found={"x.test": ["192.0.2.9"]})).route("x.test")
    assert (route.hosts[0].name, route.reason) == ("x.test", "implicit MX")


async def test_with_mx_records_the_domain_itself_is_no_host() -> None:
    names = Names(mx((10, "a.test")), {"x.test": ["192.0.2.9"]})
    error = await failure(names)
    assert (error.permanent, error.reason, error.enhanced) == (True, "bad-domain", "5.4.4")
    assert names.asked == ["a.test"]


async def test_a_domain_with_neither_mx_nor_address_bounces_unless_dns_fails() -> None:
    assert (await failure(Names())).permanent
    unknown = await failure(Names(failing="servfail"))
    assert not unknown.permanent and unknown.reason == "dns"


async def test_null_mx_and_nxdomain_bounce() -> None:
    null = await failure(Names(mx((0, ""))))
    assert (null.permanent, null.reason, null.enhanced) == (True, "no-mail", "5.1.10")
    gone = await failure(Names(ExchangeAnswer("nxdomain", ())))
    assert (gone.permanent, gone.reason, gone.enhanced) == (True, "bad-domain", "5.1.2")


@pytest.mark.parametrize("status", ["servfail", "timeout", "refused", "malformed", "unreachable"])
async def test_a_look_up_that_fails_is_a_deferral(status: str) -> None:
    error = await failure(Names(ExchangeAnswer(status, ())))
    assert not error.permanent and error.reason == "dns" and status in str(error)


async def test_mail_does_not_loop() -> None:
    loop = await failure(Names(mx((10, "relay.test"), (20, "b.test"))))
    assert (loop.permanent, loop.reason, loop.enhanced) == (True, "loop", "5.4.6")
    names = Names(mx((10, "a.test"), (20, "relay.test"), (20, "c.test"), (30, "b.test")), {n: ["192.0.2.1"] for n in ("a.test", "b.test", "c.test")})  # fmt: skip
    assert [h.name for h in (await router(names).route("x.test")).hosts] == ["a.test"]
    with pytest.raises(Unroutable, match="loops"):
        await router(Names(found={"out.test": ["192.0.2.1"]})).route("out.test")


async def test_addresses_the_guard_refuses_are_left_out() -> None:
    names = Names(mx((10, "a.test"), (20, "b.test")), {"a.test": ["10.0.0.1", "192.0.2.1"], "b.test": ["10.0.0.2"]})
    route = await router(names, permitted=lambda name, address: not address.startswith("10.")).route("x.test")
    assert [h.address for h in route.hosts] == ["192.0.2.1"]
    assert not (await failure(names, permitted=lambda name, address: False)).permanent


async def test_strangers_cannot_make_us_ask_or_try_without_end() -> None:
    many = {f"h{n}.test": [f"192.0.2.{a}" for a in range(50)] for n in range(50)}
    names = Names(mx(*((n, f"h{n}.test") for n in range(50))), many)
    route = await router(names).route("x.test")
    assert len(names.asked) == 10 and len(route.hosts) == 20


async def test_a_smart_host_takes_all() -> None:
    one = router(Names(), deliver_to="127.0.0.1:2600")
    assert one.fixed is await one.route("x.test")
    assert (one.fixed.hosts[0].address, one.fixed.hosts[0].port) == ("127.0.0.1", 2600)
    six = router(Names(), deliver_to="[::1]:2600").fixed
    assert six is not None and six.hosts[0].address == "::1"
    for wrong in ("127.0.0.1", ":25", "host:port"):
        with pytest.raises(ValueError, match="deliver_to"):
            router(Names(), deliver_to=wrong)


async def test_a_family_without_an_outgoing_address_is_not_tried() -> None:
    names = Names(mx((10, "a.test")), {"a.test": ["2001:db8::1", "192.0.2.1"]})
    route = await router(names, sources=("192.0.2.5",)).route("x.test")
    assert [(h.address, h.source) for h in route.hosts] == [("192.0.2.1", "192.0.2.5")]
    only = Names(mx((10, "a.test")), {"a.test": ["2001:db8::1"]})
    assert not (await failure(only, sources=("192.0.2.5",))).permanent
    with pytest.raises(ValueError, match="family"):
        router(Names(), sources=("192.0.2.5",), deliver_to="[::1]:25")


async def test_equals_share_a_preference_so_that_they_may_be_tried_beside_each_other() -> None:
    names = Names(mx((10, "a.test"), (10, "b.test"), (20, "c.test")), {f"{n}.test": ["192.0.2.1"] for n in "abc"})
    assert [host.preference for host in (await router(names).route("x.test")).hosts] == [10, 10, 20]


@pytest.mark.parametrize(
    ("domain", "address"), [("[198.51.100.7]", "198.51.100.7"), ("[IPv6:2001:db8::7]", "2001:db8::7")]
)
async def test_an_address_literal_leads_to_that_address_and_asks_nobody(domain: str, address: str) -> None:
    names = Names()
    route = await router(names).route(domain)
    (host,) = route.hosts
    assert (host.name, host.address, host.port) == ("", address, 2525)
    assert host.source == ("2001:db8::5" if ":" in address else "192.0.2.5")
    assert (route.site, route.reason, names.asked) == (domain, "address literal", [])


async def test_an_address_literal_that_the_guard_refuses_or_that_is_ours_bounces() -> None:
    asked: list[tuple[str, str]] = []

    def refuse(name: str, address: str) -> bool:
        asked.append((name, address))
        return False

    for options in ({"permitted": refuse}, {"ourselves": lambda a, p: (a, p) == ("127.0.0.1", 2525)}):
        with pytest.raises(Unroutable) as caught:
            await router(Names(), **options).route("[127.0.0.1]")  # type: ignore[arg-type]
        assert (caught.value.permanent, caught.value.reason, caught.value.enhanced) == (True, "bad-domain", "5.1.2")
    assert asked == [("", "127.0.0.1")], "no name's exception opens it"
    with pytest.raises(Unroutable) as caught:
        await router(Names(), sources=("192.0.2.5",)).route("[IPv6:2001:db8::7]")
    assert caught.value.permanent and "no IPv6 address" in str(caught.value)


async def test_a_host_at_which_we_listen_is_not_tried() -> None:
    names = Names(mx((10, "a.test"), (10, "b.test")), {"a.test": ["192.0.2.9"], "b.test": ["192.0.2.1"]})
    route = await router(names, ourselves=lambda a, p: a == "192.0.2.9").route("x.test")
    assert [host.name for host in route.hosts] == ["b.test"]


async def test_a_family_without_an_address_to_leave_from_is_left_out_and_both_defer() -> None:
    names = Names(mx((10, "a.test")), {"a.test": ["198.51.100.1", "2001:db8::1"]})
    route = await router(names, missing=("192.0.2.5",)).route("x.test")
    assert [host.address for host in route.hosts] == ["2001:db8::1"]
    error = await failure(names, missing=("192.0.2.5", "2001:db8::5"))
    assert (error.permanent, error.reason) == (False, "source") and "outgoing_addresses" in str(error)
    error = await failure(Names(mx((10, "a.test")), {"a.test": ["198.51.100.1"]}), missing=("192.0.2.5",))
    assert error.reason == "source" and "192.0.2.5" in str(error)


async def test_sites_are_spread_over_an_endpoints_addresses() -> None:
    sources = tuple(f"192.0.2.{number}" for number in range(1, 5))
    used: set[str | None] = set()
    for number in range(60):
        names = Names(mx((10, f"mx{number}.test")), {f"mx{number}.test": ["198.51.100.1"]})
        found = {(await router(names, sources=sources, missing=()).route("x.test")).hosts[0].source for _ in range(2)}
        assert len(found) == 1
        used |= found
    assert used == set(sources)
