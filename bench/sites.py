#!/usr/bin/env python3
"""What a thousand sites cost: CPU per 1,000 messages to as many sites at once, beside as many to one site.

    .venv/bin/python bench/sites.py [--sites 1000] [--messages 1000] [--repetitions 3]

Standards: none.
Promises: the figure that has a limit is that of `run.py`: a running server, from submission to delivery, to sites that
it has never heard of; both cases do the same work but for where it goes, and both count until the last connection has
said goodbye. Beside it stand the same sites again (their names are remembered, connections are new) and delivery alone.
Only the server's CPU counts: generator, names and sink are other processes. Exit status 1 if a thousand sites cost more
than twice what one does, 2 if a message did not arrive once.
Dangers: everything is on loopback, so nothing waits for a network; the receiving servers offer no TLS.
Not here: the server beside others (`run.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from measure.servers import DOMAIN, Outgate, prepare_ground
from measure.tools import BENCH, BenchError, Load, Sink, build, hand_in
from measure.tools import Submission as Door

from outgate.base.clock import SystemClock
from outgate.base.ids import queue_id
from outgate.domains.mta_sts import Kept
from outgate.model.flow import Accepted, Attempt, Client, Job, Recipient, SigningKey, Status, Submission
from outgate.model.routes import Forward, RouteSpec
from outgate.net.dns import Resolver
from outgate.relay.delivery import Delivery
from outgate.relay.dialling import DeliveryLimits, Dialler
from outgate.relay.endpoints import Endpoint
from outgate.relay.queue import Queue, Retry
from outgate.relay.routing import Router
from outgate.relay.signer import Signer
from outgate.relay.sources import Sources
from outgate.relay.sts_policies import StsPolicies
from outgate.relay.tls_rules import TlsRules
from outgate.relay.transports import Transports
from outgate.sandbox.nameserver import NameServer
from outgate.sandbox.zone import Zone
from outgate.store.sqlite import open_queue

MOST = 2.0
_BODY = b"Subject: hello\r\nFrom: a@shop.test\r\n\r\n" + (b"x" * 76 + b"\r\n") * 50  # 4 KB
_IN_FLIGHT = 2000
_SINK = "127.7.0.1"
_IDLE_S = 2.0
"""How long the measured server keeps an idle connection: opening and closing it both belong to the work."""
_TTL_S = 86_400


def domain(number: int) -> str:
    """Return the recipient domain of a site."""
    return f"d{number}.test"


def world(ready: Connection, sites: int) -> None:
    """Be the name server of `sites` sites. Runs in a process of its own."""

    async def run() -> None:
        zone = Zone()
        zone.put("test", "SOA", [f"ns.test. hostmaster.test. 1 3600 600 86400 {_TTL_S}"], _TTL_S)
        for number in range(sites):
            zone.put(domain(number), "MX", [f"10 mx.{domain(number)}."], _TTL_S)
            zone.put(f"mx.{domain(number)}", "A", [_SINK], _TTL_S)
            # No policy, as most domains have none, and to be remembered as that.
            zone.put(f"_mta-sts.{domain(number)}", "TXT", [], _TTL_S)
        ready.send(await NameServer(zone).start())
        await asyncio.to_thread(ready.recv)

    uvloop.run(run())


# -- the whole way --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bench:
    """The running parts, and how many messages to how many sites."""

    binaries: Path
    sink: Sink
    server: Outgate
    to: Door
    messages: int
    sites: int

    def round(self, sites: int, first: int) -> float:
        """Hand in the messages for `sites` sites from number `first` on; return CPU seconds per 1,000, from the first
        connection in to the last goodbye out. Raises `BenchError` if one is lost."""
        before = self.server.account.cpu_seconds()
        load = Load(self.messages, 20, 25, 4096, to="b@d%.test", sites=sites, first_site=first)
        seen = hand_in(self.binaries, self.to, load, self.sink, sender=f"sender@{DOMAIN}", limit_s=60.0)
        if seen["accepted"] != self.messages or seen["missing"] or seen["duplicates"]:
            raise BenchError(f"not every message arrived once: {seen}")
        time.sleep(_IDLE_S + 1)
        return (self.server.account.cpu_seconds() - before) / self.messages * 1000


def whole_way(chosen: argparse.Namespace, names: tuple[str, int], directory: Path) -> dict[str, list[float]]:
    """Measure a running server: one site, new sites, and the same sites again."""
    found: dict[str, list[float]] = {"one": [], "new": [], "again": []}
    binaries = BENCH / "bin"
    build(binaries)
    with Sink(binaries, directory / "samples", 1_000_000, address=_SINK) as sink:
        relay = f'dane_resolver = "{names[0]}:{names[1]}"\ndelivery_idle_s = {_IDLE_S}'
        server = Outgate(prepare_ground(directory, sink.port), [chosen.outgate], relay=relay, delivery_port=sink.port)
        try:
            bench = Bench(binaries, sink, server, server.start(), chosen.messages, chosen.sites)
            bench.round(1, 0)  # to warm up
            for repetition in range(chosen.repetitions):
                first = 1 + repetition * chosen.sites
                found["one"].append(bench.round(1, 0))
                found["new"].append(bench.round(chosen.sites, first))
                found["again"].append(bench.round(chosen.sites, first))
        finally:
            server.stop()
    return found


# -- delivery alone -------------------------------------------------------------------------------------------


class _Nothing:
    """What is stored: no routes, no policies."""

    def of(self, smtp_config_id: str) -> tuple[RouteSpec, ...]:
        return ()

    def names(self, smtp_config_ids: Collection[str]) -> tuple[str, ...]:
        return ()

    def forward(self, program_id: str, environment_id: str, port_orig: int) -> Forward:
        raise NotImplementedError

    def all(self) -> list[Kept]:
        return []

    def keep(self, kept: Kept) -> None:
        raise NotImplementedError

    def drop(self, domains: Collection[str]) -> None:
        raise NotImplementedError

    async def text(self, host: str, path: str, limit: int) -> bytes:
        raise NotImplementedError


def message(number: int, to: str) -> Accepted:
    """Make an accepted message."""
    now = time.time()
    submission = Submission(
        "session", Client("127.0.0.1", 1, "public", "submission"), "bench.test", "TLSv1.3", "user", "a@shop.test",
        (Recipient(f"b@{to}", to),), _BODY, now,
    )  # fmt: skip
    return Accepted(
        queue_id("0", now + number / 1e4), submission, "inst", f"cfg{number % 7}", SigningKey("key", "shop.test", "s"),
        b"Received: bench\r\n", f"<{number}@shop.test>", "a@shop.test", "hello", now, now + 86_400,
    )  # fmt: skip


def ways(names: tuple[str, int], port: int, clock: SystemClock) -> Transports:
    """Return the ways out as the service makes them."""
    endpoint = Endpoint("dal", (), "smtp.test", "private.smtp.test", ("127.0.0.1",), ("127.0.0.1",), "out.test")
    resolver = Resolver([names], clock, timeout=10.0)
    sources = Sources([endpoint], clock)
    nothing = _Nothing()
    router = Router(
        resolver,
        port=port,
        endpoint=endpoint,
        deliver_to="",
        own_names=(),
        permitted=lambda *_: True,
        tls=TlsRules(policies=StsPolicies(nothing, resolver, nothing, clock)),
        sources=sources,
    )
    return Transports(
        names=resolver,
        routers={endpoint.id: router},
        endpoint_of=lambda _: endpoint,
        stored=nothing,
        sources=sources,
        clock=clock,
        permitted=lambda *_: True,
    )


async def deliver(data: Path, names: tuple[str, int], port: int, sites: int, messages: int, key: bytes) -> float:
    """Send `messages` that are accepted already to as many of the `sites` as there are; return CPU seconds per 1,000.
    Raises `BenchError`."""
    loop = asyncio.get_running_loop()
    clock = SystemClock()
    store = open_queue(data, shard="0", clock=clock, segment_bytes=1 << 26, notify=loop.call_soon_threadsafe)
    signer = Signer(threads=2, key_pem=lambda _: key, load=store.load, notify=loop.call_soon_threadsafe)
    limits = DeliveryLimits()
    done: list[Status] = []
    troubles: set[str] = set()
    over = asyncio.Event()

    def finished(job: Job, attempt: Attempt) -> None:
        queue.record(job, attempt)
        done.extend(outcome.status for outcome in attempt.outcomes)
        troubles.update(outcome.text for outcome in attempt.outcomes if outcome.status is not Status.DELIVERED)
        if len(done) >= messages:
            over.set()

    delivery = Delivery(
        ways=ways(names, port, clock),
        signer=signer,
        finished=finished,
        clock=clock,
        limits=limits,
        dialler=Dialler(clock=clock, limits=limits, tls=None),
        given_back=lambda job, due_at, site, why: queue.release(job, due_at, site, why),
    )
    queue = Queue(
        store, clock, delivery.deliver, lambda: _IN_FLIGHT - delivery.busy, retry=Retry(60, 7200), ready_bytes=1 << 25
    )
    queue.start()
    before = time.process_time()
    for number in range(messages):
        queue.accept(message(number, domain(number % sites)), lambda _error: None)
    await over.wait()
    await delivery.stop()
    used = time.process_time() - before
    await queue.stop()
    signer.close()
    await asyncio.to_thread(store.close)
    lost = sum(status is not Status.DELIVERED for status in done)
    if lost:
        raise BenchError(f"{lost} of {messages} messages were not delivered: {min(troubles)}")
    return used / messages * 1000


def delivery_alone(chosen: argparse.Namespace, names: tuple[str, int], directory: Path) -> dict[str, list[float]]:
    """Measure delivery in this process: one site, and new sites."""
    found: dict[str, list[float]] = {"one": [], "new": []}
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    with Sink(BENCH / "bin", directory / "samples", 1_000_000, address=_SINK) as sink:
        for repetition in range(chosen.repetitions + 1):
            for case, sites in (("one", 1), ("new", chosen.sites)):
                with tempfile.TemporaryDirectory() as data:
                    used = uvloop.run(deliver(Path(data), names, sink.port, sites, chosen.messages, key))
                if repetition:  # the first is to warm up
                    found[case].append(used)
    return found


def told(title: str, cases: dict[str, str], found: dict[str, list[float]]) -> float:
    """Print the figures; return the ratio of new sites to one."""
    print(title)
    one = statistics.median(found["one"])
    for case, words in cases.items():
        times = found[case]
        half = statistics.median(times)
        print(f"  {words:34s} {half:6.3f} ({min(times):.3f}-{max(times):.3f})  {half / one:5.2f} of one site's")
    return statistics.median(found["new"]) / one


def main() -> int:
    """Measure all cases in turn; print and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--outgate", default=str(Path(sys.executable).parent / "outgate"), help="the command to measure"
    )
    parser.add_argument("--only", choices=("whole", "delivery"), help="one part of it")
    chosen = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    sites = 1 + chosen.repetitions * chosen.sites
    other = multiprocessing.get_context("spawn").Process(target=world, args=(theirs, sites), daemon=True)
    other.start()
    names = ours.recv()
    ratio = 0.0
    many = f"{chosen.sites} sites"
    print(f"CPU s per 1,000 messages: median (lowest-highest), {chosen.messages} messages in each repetition")
    try:
        with tempfile.TemporaryDirectory(prefix="outgate-bench-") as directory:
            if chosen.only != "delivery":
                cases = {"one": "one site", "new": f"{many}, never seen before", "again": f"{many}, names remembered"}
                ratio = told("from submission to delivery", cases, whole_way(chosen, names, Path(directory)))
            if chosen.only != "whole":
                build(BENCH / "bin")
                cases = {"one": "one site", "new": f"{many}, never seen before"}
                told("delivery alone", cases, delivery_alone(chosen, names, Path(directory)))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    finally:
        ours.send("stop")
        other.join(timeout=10)
    if chosen.only != "delivery":
        print(f"from submission to delivery, never seen before: {ratio:.2f} (at most {MOST:g})")
    return int(ratio > MOST)


if __name__ == "__main__":
    sys.exit(main())
