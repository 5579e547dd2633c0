"""Connections to a site, over real sockets: what shares them, what is split, dead peers, pauses, turns and rates."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from outgate.model.flow import Attempt, Status
from outgate.relay.dialling import DeliveryLimits
from outgate.relay.shaping import PaceRules, RuleBook
from support.delivering import Desk
from support.scripted_peer import OFFER, Peer


def statuses(attempt: Attempt | float) -> list[Status]:
    assert isinstance(attempt, Attempt)
    return [outcome.status for outcome in attempt.outcomes]


async def all_of(*lists: list[asyncio.Future[Attempt | float]]) -> list[Attempt | float]:
    return await asyncio.gather(*(one for each in lists for one in each))


class Limited(Peer):
    """A server that takes `most` recipients in a transaction and says `refusal` to the others."""

    most = 3
    refusal = b"452 4.5.3 Too many recipients\r\n"
    taken = 0

    async def _say(self, writer: asyncio.StreamWriter, at: str, usual: bytes) -> bool:
        if at == "MAIL":
            self.taken = 0
        if at == "RCPT":
            self.taken += 1
            self.answers["RCPT"] = b"250 2.1.5 Ok\r\n" if self.taken <= self.most else self.refusal
        return await super()._say(writer, at, usual)


async def test_domains_of_one_site_share_a_transaction_and_each_job_has_its_attempt() -> None:
    async with Peer() as peer:
        d = Desk(peer.port)
        attempts = await all_of(d.send("m", "a@one.test", "b@two.test", "c@one.test"), d.send("n", "a@one.test"))
        assert [statuses(a) for a in attempts] == [[Status.DELIVERED] * 2, [Status.DELIVERED], [Status.DELIVERED]]
        assert len(peer.messages) == 2 and d.prepared == 2  # signed once, too
        asked = [re.findall(r"<(.@[a-z.]+)>", " ".join(envelope[1:])) for envelope in peer.envelopes]
        assert sorted(asked) == [["a@one.test"], ["a@one.test", "c@one.test", "b@two.test"]]
        one, two = attempts[0], attempts[1]
        assert isinstance(one, Attempt) and isinstance(two, Attempt)
        assert one.steps == two.steps and one.queue_id == two.queue_id == "m"
        await d.delivery.stop()


async def test_a_domain_with_a_pace_of_its_own_does_not_travel_with_others() -> None:
    async with Peer() as peer:
        rules = RuleBook(PaceRules(), {"slow.test": PaceRules(1, 6.0, name="slow.test")})
        d = Desk(peer.port, rules=rules)
        await all_of(*(d.send(f"m{number}", "a@fast.test", "b@slow.test")[:1] for number in range(3)))
        paces = {each.pace.per_minute: each for each in d.delivery.status()}
        assert set(paces) == {0.0, 6.0} and paces[6.0].pace.slots == 1
        assert not [envelope for envelope in peer.envelopes if "fast" in str(envelope) and "slow" in str(envelope)]
        await d.delivery.stop()


async def test_what_is_asked_of_tls_keeps_connections_apart() -> None:
    async with Peer() as peer:
        d = Desk()
        d.routes = {
            "one.test": d.route_to("mx.test", peer.port),
            "two.test": d.route_to("mx.test", peer.port, "sts two.test"),
        }
        attempts = await all_of(d.send("m", "a@one.test", "b@two.test"))
        assert [statuses(a) for a in attempts] == [[Status.DELIVERED]] * 2
        assert peer.connections == 2 and len(peer.messages) == 2
        (status,) = d.delivery.status()
        assert status.pace.connections == 2  # and both count
        await d.delivery.stop()


async def test_slots_are_the_sites_whatever_is_asked_of_tls() -> None:
    async with Peer() as peer:
        d = Desk(limits=DeliveryLimits(connections_per_site=1))
        d.routes = {
            "one.test": d.route_to("mx.test", peer.port),
            "two.test": d.route_to("mx.test", peer.port, "sts two.test"),
        }
        for number in range(6):  # each in turn has the other give up its connection
            await all_of(d.send(f"m{number}", "a@one.test"))
            await all_of(d.send(f"n{number}", "b@two.test"))
        assert len(peer.messages) == 12
        await all_of(
            *(d.send(f"x{n}", "a@one.test") for n in range(20)), *(d.send(f"y{n}", "b@two.test") for n in range(20))
        )
        await d.delivery.stop()


async def test_recipients_beyond_what_the_server_takes_go_at_once_in_the_next_transaction() -> None:
    async with Limited() as peer:
        d = Desk(peer.port)
        paths = [f"u{n}@one.test" for n in range(8)]
        attempt = await d.sent("m", *paths)
        assert statuses(attempt) == [Status.DELIVERED] * 8
        assert [len(e) - 1 for e in peer.envelopes] == [
            8,
            3,
            2,
        ] and peer.connections == 1  # asked for; 3, 3 and 2 taken
        assert len(d.attempts) == 1 and any("4.5.3" in step.reply for step in attempt.steps)
        await d.sent("n", *paths)
        assert [len(e) - 1 for e in peer.envelopes[3:]] == [3, 3, 2]  # it has learned
        await d.delivery.stop()


async def test_a_full_mailbox_is_not_taken_for_a_limit() -> None:
    async with Limited(answers={}) as peer:
        peer.most, peer.refusal = 1, b"452 4.2.2 Mailbox full\r\n"
        d = Desk(peer.port)
        attempt = await d.sent("m", "a@one.test", "b@one.test", "c@one.test")
        assert statuses(attempt) == [Status.DELIVERED, Status.DEFERRED, Status.DEFERRED]
        assert len(peer.messages) == 1
        await d.delivery.stop()


async def test_announced_limits_are_kept() -> None:
    async with Peer(offer=(*OFFER, "LIMITS RCPTMAX=2 MAILMAX=2 RCPTDOMAINMAX=1")) as peer:
        d = Desk(peer.port)
        attempts = await all_of(d.send("m", "a@one.test", "b@one.test", "c@one.test", "d@two.test"))
        assert [statuses(a) for a in attempts] == [[Status.DELIVERED] * 3, [Status.DELIVERED]]
        assert [len(e) - 1 for e in peer.envelopes] == [2, 1, 1]
        assert peer.connections == 2  # two transactions each
        await d.delivery.stop()


async def test_a_hundred_recipients_where_the_server_says_nothing() -> None:
    async with Peer() as peer:
        d = Desk(peer.port)
        attempt = await d.sent("m", *(f"u{n}@one.test" for n in range(230)))
        assert [o.recipient_id for o in attempt.outcomes] == [r.id for r in attempt.recipients]
        assert [len(e) - 1 for e in peer.envelopes] == [100, 100, 30]
        await d.delivery.stop()


async def test_a_connection_that_was_idle_is_asked_before_a_message_uses_it() -> None:
    async with Peer() as peer:
        d = Desk(peer.port, limits=DeliveryLimits(probe_after=0.0))
        await d.sent("m")
        await d.sent("n")
        assert peer.connections == 1 and peer.commands.count("RSET") == 1
        await d.delivery.stop()


async def test_a_half_open_peer_costs_no_attempt_and_no_doubt() -> None:
    async with Peer() as peer:
        d = Desk(peer.port, limits=DeliveryLimits(probe_after=0.0, probe=0.05))
        await d.sent("m")
        peer.silent_at = "RSET"  # as when a firewall has forgotten the connection: nothing comes back, ever
        attempt = await d.sent("n")
        assert statuses(attempt) == [Status.DELIVERED] and len(d.attempts) == 2
        assert peer.connections == 2
        assert [text for text in peer.commands if text.startswith("MAIL")] == ["MAIL FROM:<a@shop.test> SIZE=33"] * 2
        await d.delivery.stop()


async def test_a_pause_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with Peer(answers={"MAIL": b"450 4.7.1 Rate limit exceeded\r\n"}) as peer:
        d = Desk(peer.port, limits=DeliveryLimits(connections_per_site=1))
        with caplog.at_level("WARNING", "outgate.delivery"):
            await all_of(*(d.send(f"m{n}") for n in range(20)))
            await all_of(d.send("later"))
        assert [record.message for record in caplog.records] == ["site.paused"]
        await d.delivery.stop()


async def test_a_site_that_slows_us_down_has_a_pause_and_memory_does_not_fill() -> None:
    async with Peer(answers={"MAIL": b"450 4.7.1 Rate limit exceeded\r\n"}) as peer:
        d = Desk(peer.port, limits=DeliveryLimits(connections_per_site=1))
        answers = await all_of(*(d.send(f"m{n}") for n in range(50)))
        tried = [answer for answer in answers if isinstance(answer, Attempt)]
        assert 1 <= len(tried) <= 2  # what was on the wire
        assert {answer for answer in answers if not isinstance(answer, Attempt)} == {d.clock.now() + 60}
        prepared = d.prepared
        assert await all_of(d.send("later")) == [d.clock.now() + 60]
        assert d.prepared == prepared and d.delivery.busy == 0  # neither read nor signed
        (status,) = d.delivery.status()
        assert status.site == "mx.test" and status.pace.until == d.clock.now() + 60
        assert "slows us down" in status.pace.why and "Rate limit" in status.pace.last_reply
        assert status.pace.given_back == 51 - len(tried)
        assert set(d.told) == {
            ("mx.test", "the site has a pause (the server slows us down: 450 4.7.1 Rate limit exceeded)")
        }

        # After it one message probes; as long as that is under way the others wait.
        d.clock.advance(60)
        again = await all_of(*(d.send(f"n{n}") for n in range(20)))
        assert sum(isinstance(answer, Attempt) for answer in again) == 1
        d.clock.advance(120)
        peer.answers.clear()
        last = await all_of(*(d.send(f"o{n}") for n in range(20)))
        assert [statuses(answer) for answer in last] == [[Status.DELIVERED]] * 20
        assert d.delivery.status()[0].pace.why == ""
        await d.delivery.stop()


async def test_mail_that_would_expire_in_the_pause_gets_an_attempt_that_says_so() -> None:
    async with Peer(answers={"greeting": b"421 4.7.0 Too many connections\r\n"}) as peer:
        d = Desk(peer.port)
        (first,) = await all_of(d.send("m"))
        assert statuses(first) == [Status.DEFERRED]
        (late,) = await all_of(d.send("n", expires_at=d.clock.now() + 10))
        assert statuses(late) == [Status.DEFERRED] and isinstance(late, Attempt)
        assert late.outcomes[0].reason == "rate" and "Too many connections" in late.outcomes[0].text
        assert peer.connections == 1
        await d.delivery.stop()


async def test_greylisting_slows_nobody() -> None:
    refusals = {"RCPT": b"450 4.2.0 Greylisted, try again later\r\n", "DATA": b"503 5.5.1 No recipients\r\n"}
    async with Peer(answers=refusals) as peer:
        d = Desk(peer.port)
        answers = await all_of(*(d.send(f"m{n}") for n in range(30)))
        assert [statuses(answer) for answer in answers] == [[Status.DEFERRED]] * 30
        await d.delivery.stop()


async def test_recipients_that_were_taken_are_told_when_the_rest_has_to_wait() -> None:
    async with Limited() as peer:
        real: Callable[[asyncio.StreamWriter, str, bytes], Awaitable[bool]] = peer._say

        async def say(writer: asyncio.StreamWriter, at: str, usual: bytes) -> bool:
            if at == "MAIL" and peer.messages:
                writer.write(b"421 4.7.0 Temporarily rate limited\r\n")
                return True
            return await real(writer, at, usual)

        peer._say = say  # type: ignore[method-assign]
        d = Desk(peer.port)
        await all_of(d.send("m", *(f"u{n}@one.test" for n in range(5))))
        assert [o.status for a in d.attempts for o in a.outcomes] == [Status.DELIVERED] * 3
        assert d.given_back == [("m", d.clock.now() + 60)] and d.delivery.busy == 0
        await d.delivery.stop()


async def test_one_large_sender_lets_another_have_its_turn() -> None:
    async with Peer() as peer:
        d = Desk(peer.port, limits=DeliveryLimits(connections_per_site=1))
        large = [d.send(f"large{n}", configuration="large") for n in range(500)]
        small = d.send("small", configuration="small")
        await all_of(*large, small)
        order = [re.search(rb"Subject: (\S+)", message)[1] for message in peer.messages]  # type: ignore[index]
        assert order.index(b"small") < 5 and len(order) == 501
        await d.delivery.stop()


async def test_a_rate_is_kept_and_the_rest_waits_in_the_store() -> None:
    async with Peer() as peer:
        rules = RuleBook(PaceRules(), {"other.test": PaceRules(per_minute=12, name="other.test")})
        d = Desk(peer.port, rules=rules)
        sent = [one for n in range(40) for one in d.send(f"m{n}")]
        free = await all_of(*(d.send(f"f{n}", "a@free.test") for n in range(40)))
        assert [statuses(answer) for answer in free] == [
            [Status.DELIVERED]
        ] * 40  # by the usual rules, at the same host
        at_once = [await sent[0], await sent[1]]
        assert [statuses(answer) for answer in at_once] == [[Status.DELIVERED]] * 2
        (site,) = (site for site in d.delivery._sites.values() if site.waiting)
        assert site.waiting == 10 and not any(one.done() for one in sent[2:12])  # as many as a minute lets go
        later = [one.result() - d.clock.now() for one in sent[12:]]  # type: ignore[operator]
        assert later == [60.0 + 5.0 * n for n in range(28)]
        for number in range(2, 12):
            d.clock.advance(5.0)
            site.pump()
            assert statuses(await sent[number]) == [Status.DELIVERED]
        assert d.delivery.busy == 0 and len(peer.messages) == 52
        await d.delivery.stop()
