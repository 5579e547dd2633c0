"""Which route a message takes and why: order, health, fail-over within an attempt, return, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.flow import Attempt, Job, JobRecipient, Location, Prepared, SigningKey, Status, TlsLevel
from outgate.model.routes import DIRECT, Forward, RouteSpec, RouteTls, RouteType
from outgate.net.dns import BOTH, AddressAnswer, Exchange, ExchangeAnswer
from outgate.relay.bundles import Bundle, Tried, Work
from outgate.relay.delivery import Delivery, DeliveryLimits
from outgate.relay.dialling import Dialler, NoHost
from outgate.relay.endpoints import Endpoint
from outgate.relay.routing import Router, Unroutable
from outgate.relay.sources import Sources
from outgate.relay.transports import Transports, demand_of
from support.scripted_peer import Peer, authority, server_context

HOME = Endpoint("lo", (), "smtp.test", "private.smtp.test", ("127.0.0.1",), ("127.0.0.1", "::1"), "out.test")
NONE = RouteTls.NONE


def smart(name: str, port: int, host: str = "127.0.0.1", **more: Any) -> RouteSpec:
    return RouteSpec(f"id-{name}", name, RouteType.SMART_HOST, host, port, **{"tls": NONE} | more)


WANTS_LOGIN = {
    "MAIL": b"530 5.7.0 Authentication required\r\n",
    "RCPT": b"503 5.5.1 Need MAIL command\r\n",
    "DATA": b"503 5.5.1 Need RCPT command\r\n",
}


@dataclass
class World:
    """DNS, the store, and what is asked of them."""

    specs: dict[str, tuple[RouteSpec, ...]] = field(default_factory=dict)
    forwards: dict[int, Forward] = field(default_factory=dict)
    addresses: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"mx.other.test": ("127.0.0.1",)})
    mx: dict[str, ExchangeAnswer] = field(default_factory=dict)
    read: int = 0

    async def exchanges(self, domain: str) -> ExchangeAnswer:
        return self.mx.get(domain, ExchangeAnswer("ok", (Exchange(10, f"mx.{domain}"),)))

    async def hosts(self, name: str, *, families: frozenset[str] = BOTH) -> AddressAnswer:
        found = self.addresses.get(name, ())
        return AddressAnswer("ok" if found else "servfail", found)

    def of(self, smtp_config_id: str) -> tuple[RouteSpec, ...]:
        self.read += 1
        return self.specs.get(smtp_config_id, ())

    def names(self, smtp_config_ids: Collection[str]) -> tuple[str, ...]:
        wanted = smtp_config_ids or self.specs
        return tuple(spec.name for key in wanted for spec in self.specs.get(key, ()))

    def forward(self, program_id: str, environment_id: str, port_orig: int) -> Forward:
        self.read += 1
        return self.forwards.get(port_orig, Forward(trouble=f"no forward at portOrig {port_orig}"))


def job(name: str = "q", domain: str = "other.test", **more: Any) -> Job:
    return Job(
        name, "inst", "cfg", SigningKey("k", "shop.test", "s"), "a@shop.test", domain,
        (JobRecipient(1, f"b@{domain}", domain, 0),), Location(0, 0, 0, 0), 0.0, 1e12, False, False,
        b"", b"Subject: x\r\n\r\nx\r\n", **more,
    )  # fmt: skip


@dataclass
class Desk:
    world: World
    transports: Transports
    delivery: Delivery
    clock: FrozenClock
    sources: Sources
    attempts: asyncio.Queue[Attempt]

    async def send(self, it: Job | None = None) -> Attempt:
        self.delivery.deliver(it or job())
        return await self.attempts.get()

    async def reason(self, it: Job | None = None) -> str:
        return (await self.transports.route(it or job())).reason


class Signer:
    def prepare(self, it: Job, done: Any) -> None:
        done(Prepared(it, b"", it.content or b""), None)


@asynccontextmanager
async def desk(
    *specs: RouteSpec, direct: int = 1, endpoint: Endpoint = HOME, deliver_to: str = "", **options: Any
) -> AsyncIterator[Desk]:
    world, clock = World({"cfg": specs}), FrozenClock(1_795_762_800.0)  # 2026-11-27T07:00:00Z
    sources = Sources([endpoint], clock)
    sources.check()
    permitted = options.pop("permitted", lambda name, address: True)
    own = options.pop("own_names", frozenset[str]())
    router = Router(
        world,
        port=direct,
        endpoint=endpoint,
        deliver_to=deliver_to,
        own_names=own,
        permitted=permitted,
        sources=sources,
    )
    transports = Transports(
        names=world, routers={"lo": router}, endpoint_of=lambda _: endpoint, stored=world, sources=sources, clock=clock,
        permitted=permitted, own_names=own, **options,
    )  # fmt: skip
    limits = DeliveryLimits(reply=5.0)
    attempts: asyncio.Queue[Attempt] = asyncio.Queue()
    delivery = Delivery(
        ways=transports,
        signer=Signer(),
        finished=lambda it, attempt: attempts.put_nowait(attempt),
        clock=clock,
        limits=limits,
        dialler=Dialler(clock=clock, limits=limits, tls=None, sources=sources),
        given_back=lambda job, due_at, *_why: attempts.put_nowait(due_at),
    )
    try:
        yield Desk(world, transports, delivery, clock, sources, attempts)
    finally:
        await delivery.stop()


# -- order, fail-over, return -----------------------------------------------------------------------------------------


async def test_without_routes_mail_goes_directly_and_the_reason_is_the_mx() -> None:
    async with Peer() as peer, desk(direct=peer.port) as d:
        attempt = await d.send()
    assert attempt.outcomes[0].status is Status.DELIVERED
    assert (attempt.site, attempt.route_reason) == ("mx.other.test", "MX 10 mx.other.test")


async def test_what_one_route_cannot_hand_over_goes_to_the_next_in_the_same_attempt() -> None:
    async with Peer() as backup, desk(smart("primary", 1), smart("backup", backup.port)) as d:
        attempt = await d.send()
    assert attempt.outcomes[0].status is Status.DELIVERED
    assert attempt.site == f"127.0.0.1:{backup.port}"
    assert attempt.route_reason.startswith("route backup: primary failed just now (")
    did = [step.did for step in attempt.steps]
    assert did[0] == "connect to 127.0.0.1:1 from 127.0.0.1" and "refused" in attempt.steps[0].reply
    assert any(step.startswith("MAIL FROM") for step in did), "one attempt tells all of it"


async def test_after_three_failures_the_primary_rests_and_returns_by_a_try() -> None:
    async with Peer() as backup:
        async with Peer() as primary:
            port = primary.port
        async with desk(smart("primary", port), smart("backup", backup.port)) as d:
            for _ in range(3):
                assert "failed just now" in (await d.send()).route_reason
            d.clock.advance(1)
            attempt = await d.send()
            assert attempt.route_reason == (
                f"route backup: primary failed 3 times, tried again at 07:00:30Z; smart host 127.0.0.1:{backup.port}"
            )
            assert not any(f":{port}" in step.did for step in attempt.steps), "it was tried though it rests"
            d.clock.advance(30)
            attempt = await d.send()
            assert "failed just now" in attempt.route_reason and attempt.outcomes[0].status is Status.DELIVERED
            assert "tried again at 07:01:31Z" in (await d.send()).route_reason
            async with Peer() as again:
                spec = smart("primary", again.port)
                d.world.specs["cfg"] = (spec, smart("backup", backup.port))
                d.transports.forget()
                # The same name at another place: what is known of the place before is not held against it.
                assert (await d.send()).route_reason.startswith("route primary: preferred; ")


async def test_it_returns_to_the_same_place_when_a_try_goes_well() -> None:
    async with (
        Peer() as backup,
        Peer(answers={"greeting": b"554 5.3.2 not now\r\n"}) as primary,
        desk(smart("primary", primary.port), smart("backup", backup.port)) as d,
    ):
        for _ in range(3):
            await d.send()
        assert "failed 3 times" in (await d.send()).route_reason
        primary.answers.clear()
        assert "failed 3 times" in (await d.send()).route_reason
        d.clock.advance(31)
        attempt = await d.send()
        assert attempt.route_reason.startswith("route primary: tried again after 3 failures; ")
        assert attempt.site == f"127.0.0.1:{primary.port}"
        assert (await d.send()).route_reason.startswith("route primary: preferred; ")


async def test_who_says_421_is_left_alone_while_others_carry_the_mail() -> None:
    async with (
        Peer() as backup,
        Peer(answers={"greeting": b"421 4.3.2 not now\r\n"}) as primary,
        desk(smart("primary", primary.port), smart("backup", backup.port)) as d,
    ):
        await d.send()
        for _ in range(3):
            attempt = await d.send()
            assert attempt.route_reason.startswith("route backup: primary failed just now (the site has a pause (")
            assert attempt.outcomes[0].status is Status.DELIVERED
        primary.answers.clear()
        d.clock.advance(61)
        assert (await d.send()).site == f"127.0.0.1:{primary.port}"


async def test_only_one_tries_what_rests() -> None:
    async with desk(smart("primary", 1), smart("backup", 2)) as d:
        made = await d.transports.route(job())
        for _ in range(3):
            d.transports.unreached(job(), made, "network")
        d.clock.advance(31)
        assert (await d.reason()).startswith("route primary: tried again")
        assert (await d.reason()).startswith("route backup: primary failed 3 times")


async def test_a_server_that_says_421_to_each_message_rests_too() -> None:
    answers = {"MAIL": b"421 4.3.2 going down\r\n"}
    async with (
        Peer(answers=answers) as primary,
        Peer() as backup,
        desk(smart("primary", primary.port), smart("backup", backup.port)) as d,
    ):
        said = [(await d.send()).route_reason for _ in range(6)]
    assert any(reason.startswith("route backup: primary failed") for reason in said), said


async def test_when_all_rest_the_first_is_tried_all_the_same() -> None:
    async with desk(smart("primary", 1), smart("backup", 2)) as d:
        for _ in range(3):
            attempt = await d.send()
            assert attempt.outcomes[0].status is Status.DEFERRED and attempt.outcomes[0].reason == "network"
        assert attempt.outcomes[0].text.count("refused") == 2
        d.transports.forget()  # until it is read anew, what was read before is known
        assert d.transports.has_others(job(), ())
        assert "none works well" in attempt.route_reason or "failed just now" in attempt.route_reason
        assert (await d.reason()).startswith("route primary: none works well (primary failed 3 times")
        # What comes now loses nothing by waiting.
        assert await d.send() > d.clock.now()  # type: ignore[operator]


async def test_a_site_that_is_not_reached_directly_does_not_condemn_direct_for_others() -> None:
    async with Peer() as good, Peer() as backup, desk(DIRECT, smart("backup", backup.port), direct=good.port) as d:
        d.world.addresses |= {"mx.dead.test": ("127.0.0.99",), "mx.fine.test": ("127.0.0.1",)}
        for _ in range(3):
            assert (await d.send(job(domain="dead.test"))).site == f"127.0.0.1:{backup.port}"
        assert "direct failed 3 times" in (await d.send(job(domain="dead.test"))).route_reason
        assert (await d.send(job(domain="fine.test"))).route_reason == "route direct: preferred; MX 10 mx.fine.test"


async def test_a_bad_login_is_one_routes_matter_and_a_dead_place_is_everybodys() -> None:
    one, two = smart("one", 1), smart("two", 2)
    async with desk(one, two) as d:
        d.world.specs["cfg2"] = (smart("mine", 1), two)
        await d.transports.route(job())
        other = replace(job(), smtp_config_id="cfg2")
        await d.transports.route(other)
        made = await d.transports._made(job(), one)
        d.transports.unreached(job(), made, "login")
        assert (await d.reason()).startswith("route two: one failed 1 time,")
        assert (await d.reason(other)).startswith("route mine: preferred")
        for _ in range(3):
            d.transports.unreached(job(), made, "network")
        assert (await d.reason(other)).startswith("route two: mine failed 3 times")


async def test_an_address_of_ours_that_is_gone_is_no_fault_of_the_route() -> None:
    endpoint = replace(HOME, outgoing_addresses=("127.0.0.1", "192.0.2.77"))
    async with Peer() as peer, desk(smart("primary", peer.port), DIRECT, endpoint=endpoint) as d:
        for _ in range(5):
            d.transports.unreached(job(), await d.transports._made(job(), smart("primary", peer.port)), "source")
        assert (await d.send()).route_reason.startswith("route primary: preferred")


async def test_a_wish_for_a_login_defers_and_never_bounces() -> None:
    async with (
        Peer(answers=WANTS_LOGIN) as peer,
        desk(smart("primary", peer.port)) as d,
    ):
        attempt = await d.send()
    assert (attempt.outcomes[0].status, attempt.outcomes[0].reason) == (Status.DEFERRED, "login")


async def test_messages_of_different_logins_share_no_connection() -> None:
    ca, _ = authority()
    async with Peer(context=server_context(ca, "mx.test"), auth="PLAIN") as peer:
        login: dict[str, Any] = {"tls": RouteTls.STARTTLS, "verify": False, "password": "x"}
        async with desk(smart("primary", peer.port, username="one", **login)) as d:
            d.world.specs["cfg2"] = (replace(smart("primary", peer.port, username="two", **login), id="other"),)
            await d.send()
            await d.send(replace(job("r"), smtp_config_id="cfg2"))
            await d.send(job("s"))
    assert [user for user, _ in peer.logins] == ["one", "two"]


async def test_a_pause_that_one_login_has_earned_is_not_anothers() -> None:
    async with desk(smart("relay", 1, username="me", password="x", tls=RouteTls.STARTTLS)) as d:
        other = smart("relay", 1, username="you", password="y", tls=RouteTls.STARTTLS)
        d.world.specs["cfg2"] = (replace(other, id="id-other"),)
        for _ in range(3):
            await d.send()
        assert isinstance(await d.send(), float)  # given back: there is a pause
        assert isinstance(await d.send(replace(job(), smtp_config_id="cfg2")), Attempt)


async def test_the_names_that_an_operator_may_choose_from() -> None:
    async with desk(smart("primary", 1), defaults=(smart("house", 3), DIRECT)) as d:
        assert d.transports.names(["cfg"]) == ("direct", "house", "primary")
        assert d.transports.names(["other"]) == ("direct", "house")
        d.world.specs.clear()
        d.transports.forget()
        assert (await d.reason()).startswith("route house: preferred")


# -- permanent verdicts -------------------------------------------------------------------------------------------


async def test_a_domain_that_is_none_bounces_where_direct_is_preferred_and_not_where_it_stands_in() -> None:
    gone = {"gone.test": ExchangeAnswer("nxdomain", ())}
    async with desk(DIRECT, smart("backup", 1)) as d:
        d.world.mx = gone
        assert (await d.send(job(domain="gone.test"))).outcomes[0].status is Status.BOUNCED
    async with desk(smart("internal", 1), DIRECT) as d:
        d.world.mx = gone
        attempt = await d.send(job(domain="gone.test"))
        assert attempt.outcomes[0].status is Status.DEFERRED
        assert "refused" in attempt.outcomes[0].text and "does not exist" in attempt.outcomes[0].text


# -- an operator's choice -----------------------------------------------------------------------------------------


async def test_a_forced_route_is_the_only_one() -> None:
    async with (
        Peer() as backup,
        Peer() as direct,
        desk(smart("primary", 1), smart("backup", backup.port), direct=direct.port) as d,
    ):
        assert (await d.send(job(route="backup"))).route_reason.startswith("route backup: an operator's choice")
        attempt = await d.send(job(route="direct"))
        assert attempt.route_reason == "route direct: an operator's choice; MX 10 mx.other.test"
        attempt = await d.send(job(route="primary"))
        assert attempt.outcomes[0].status is Status.DEFERRED and not backup.messages[1:]
        attempt = await d.send(job(route="nowhere"))
    assert (attempt.outcomes[0].status, attempt.outcomes[0].reason) == (Status.DEFERRED, "route")
    assert "'nowhere'" in attempt.outcomes[0].text and "direct, primary, backup" in attempt.outcomes[0].text


async def test_the_setting_that_takes_all_mail_takes_it_without_a_look_at_routes() -> None:
    async with Peer() as peer, desk(smart("primary", 1), deliver_to=f"127.0.0.1:{peer.port}") as d:
        attempt = await d.send()
    assert attempt.outcomes[0].status is Status.DELIVERED and d.world.read == 0


@pytest.mark.parametrize("requiretls", [False, True])
async def test_nothing_leads_past_the_setting_that_takes_all_mail(requiretls: bool) -> None:
    """Not what a sender requires of TLS, and not a failure, where the configuration's routes are known already."""
    async with Peer() as elsewhere, Peer(answers={"EHLO": b"421 4.3.2 not now\r\n"}) as peer:
        smart_host = smart("primary", elsewhere.port, verify=True, tls=RouteTls.IMPLICIT)
        async with desk(smart_host, deliver_to=f"127.0.0.1:{peer.port}") as d:
            assert (await d.transports.made("inst", "cfg", "primary", "x.test")).via == "primary"
            assert not d.transports.has_others(job(), ())
            attempt = await d.send(job(requiretls=requiretls))
        assert attempt.outcomes[0].status is Status.DEFERRED and attempt.address == f"127.0.0.1:{peer.port}"
        assert attempt.route_reason == "setting deliver_to" and peer.connections == 1 and elsewhere.connections == 0


# -- what is refused ----------------------------------------------------------------------------------------------


async def refusal(d: Desk, it: Job | None = None) -> Unroutable:
    with pytest.raises(Unroutable) as caught:
        await d.transports.route(it or job())
    assert not caught.value.permanent
    return caught.value


async def test_a_smart_host_that_is_ourselves_is_not_used() -> None:
    async with desk(smart("primary", 587, "smtp.test"), own_names=frozenset({"smtp.test"})) as d:
        error = await refusal(d)
        assert error.reason == "loop" and "ourselves" in str(error)
    listens = {("127.0.0.1", 2587)}
    async with desk(smart("primary", 2587), ourselves=lambda a, p: (a, p) in listens) as d:
        assert (await refusal(d)).reason == "loop"
        d.world.specs["cfg"] = (smart("primary", 2587, "relay.example.test"),)
        d.world.addresses["relay.example.test"] = ("127.0.0.1",)
        d.transports.forget()
        error = await refusal(d)
        assert error.reason == "loop" and "relay.example.test (127.0.0.1:2587) is ourselves" in str(error)
        d.world.specs["cfg"] = (*d.world.specs["cfg"], smart("backup", 25))
        d.transports.forget()
        assert "cannot be used" in await d.reason()


async def test_a_private_smart_host_needs_an_exception_and_the_text_says_so() -> None:
    async with desk(smart("primary", 25, "10.0.0.1"), permitted=lambda n, a: not a.startswith("10.")) as d:
        error = await refusal(d)
    assert error.reason == "policy" and "egress.guard_exceptions" in str(error)


async def test_a_smart_host_whose_name_is_not_found_is_passed_over_and_defers() -> None:
    async with Peer() as backup, desk(smart("primary", 25, "gone.test"), smart("backup", backup.port)) as d:
        assert "primary cannot be used (no address of gone.test is found: servfail)" in (await d.send()).route_reason
        d.world.specs["cfg"] = (smart("primary", 25, "gone.test"),)
        d.transports.forget()
        assert (await refusal(d)).reason == "dns"


async def test_where_every_address_of_a_family_is_suspended_nothing_leaves() -> None:
    endpoint = replace(HOME, outgoing_addresses=("192.0.2.77", "192.0.2.78"))
    async with Peer() as peer, desk(smart("primary", peer.port), DIRECT, direct=peer.port, endpoint=endpoint) as d:
        attempt = await d.send()
        assert (attempt.outcomes[0].status, attempt.outcomes[0].reason) == (Status.DEFERRED, "source")
        assert "192.0.2.77, 192.0.2.78" in attempt.outcomes[0].text and "interface" in attempt.outcomes[0].text
    assert peer.connections == 0


async def test_an_address_that_goes_away_while_all_mail_goes_to_one_place_defers_and_comes_back() -> None:
    missing: set[str] = set()
    async with Peer() as peer, desk(deliver_to=f"127.0.0.1:{peer.port}") as d:
        d.sources._trouble = lambda address: "gone" if address in missing else ""
        assert (await d.send()).source == "127.0.0.1"
        missing.add("127.0.0.1")
        d.sources.check()
        attempt = await d.send()
        assert (attempt.outcomes[0].status, attempt.outcomes[0].reason) == (Status.DEFERRED, "source")
        missing.clear()
        d.sources.check()
        assert (await d.send()).outcomes[0].status is Status.DELIVERED


# -- through an egress forward ------------------------------------------------------------------------------------


def tunnel(port: int, **more: Any) -> RouteSpec:
    return RouteSpec("id-t", "tunnel", RouteType.EGRESS_FORWARD, "", port, "p", "e", **{"tls": NONE} | more)


async def test_a_forward_is_dialled_at_its_tunnel_address_under_its_targets_name() -> None:
    ca, _ = authority()
    pem = ca.cert_pem.bytes().decode()
    async with Peer(context=server_context(ca, "smtp.example.net"), auth="LOGIN") as peer:
        spec = tunnel(peer.port, tls=RouteTls.STARTTLS, authorities=pem, username="u", password="x")
        async with desk(spec) as d:
            d.world.forwards[peer.port] = Forward("127.0.0.1", "smtp.example.net", 25)
            attempt = await d.send()
    assert attempt.outcomes[0].status is Status.DELIVERED and attempt.site == "smtp.example.net:25"
    assert peer.server_names == ["smtp.example.net"] and peer.logins == [("u", "x")]
    assert attempt.route_reason == f"route tunnel: forward {peer.port} of environment e to smtp.example.net:25"


async def test_a_forward_that_is_not_there_defers_or_fails_over_and_is_read_anew_after_a_change() -> None:
    async with Peer() as peer, desk(tunnel(5025)) as d:
        error = await refusal(d)
        assert error.reason == "route" and "no forward at portOrig 5025" in str(error)
        read = d.world.read
        await refusal(d)
        assert d.world.read == read, "the store is asked once"
        d.world.specs["cfg"] = (tunnel(5025), smart("backup", peer.port))
        d.transports.forget()
        assert "tunnel cannot be used (no forward" in (await d.send()).route_reason
        d.world.forwards[5025] = Forward("127.0.0.1", "out.example.net", 25)
        d.transports.forget()
        assert (await d.reason()).startswith("route tunnel: preferred")


async def test_a_forward_that_leads_back_here_is_a_loop() -> None:
    async with desk(tunnel(5025), own_names=frozenset({"smtp.test"})) as d:
        d.world.forwards[5025] = Forward("127.0.0.1", "SMTP.test.", 2587)
        assert (await refusal(d)).reason == "loop"


# -- demands ------------------------------------------------------------------------------------------------------


def test_a_login_is_never_without_tls() -> None:
    for tls in RouteTls:
        for verify in (True, False):
            demand = demand_of(smart("a", 25, tls=tls, verify=verify, username="u", password="p"))
            assert demand.level in (TlsLevel.VERIFIED, TlsLevel.ENCRYPTED)
    assert demand_of(smart("a", 25, tls=RouteTls.OPPORTUNISTIC)).level is TlsLevel.OPPORTUNISTIC
    assert demand_of(smart("a", 25)).level is TlsLevel.NONE
    assert demand_of(smart("a", 25, tls=RouteTls.IMPLICIT)).level is TlsLevel.VERIFIED


async def test_what_a_sender_requires_of_tls_is_no_fault_of_the_route() -> None:
    async with desk(smart("sure", 587, tls=RouteTls.STARTTLS)) as d:
        route = await d.transports.route(job(requiretls=True))
        bundle = Bundle([Work(job(requiretls=True), route, 0.0)])
        d.delivery.unreached([bundle], NoHost("REQUIRETLS is not offered", "tls", route.hosts[0], None, "5.7.30"), ())
        assert (await d.attempts.get()).outcomes[0].status is Status.BOUNCED and not d.transports.troubled


async def test_what_requires_tls_takes_no_route_that_does_not_verify() -> None:
    async with desk(smart("primary", 25), smart("sure", 587, tls=RouteTls.STARTTLS)) as d:
        route = await d.transports.route(job(requiretls=True))
        assert route.via == "sure" and route.requiretls
        d.world.specs["cfg"] = (smart("primary", 25),)
        d.transports.forget()
        assert (await refusal(d, job(requiretls=True))).reason == "tls"


async def test_a_change_while_routes_are_read_is_not_overwritten_by_what_was_read_before() -> None:
    async with desk(smart("primary", 1)) as d:
        before = d.world.of

        def changed_meanwhile(smtp_config_id: str) -> tuple[RouteSpec, ...]:
            found = before(smtp_config_id)
            d.world.specs["cfg"] = (smart("other", 2),)
            d.transports.forget()
            return found

        d.world.of = changed_meanwhile  # type: ignore[method-assign]
        assert (await d.transports.route(job())).via == "primary"
        d.world.of = before  # type: ignore[method-assign]
        assert (await d.transports.route(job())).via == "other"


async def test_tried_routes_are_not_taken_again() -> None:
    async with desk(smart("a", 1), smart("b", 2), smart("c", 3)) as d:
        route = await d.transports.route(job(), (Tried("a", "refused"), Tried("b", "mute")))
        assert route.reason.startswith("route c: a failed just now (refused); b failed just now (mute); smart host")
        with pytest.raises(Unroutable):
            await d.transports.route(job(), tuple(Tried(name, "x") for name in "abc"))
