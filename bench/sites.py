#!/usr/bin/env python3
"""What a thousand sites cost: CPU per 1,000 messages to as many sites at once, beside as many to one site.

    .venv/bin/python bench/sites.py [--sites 1000] [--messages 1000] [--repetitions 3]

Standards: none.
Promises: the parts are those of the relay: spool and rows, signer with RSA-2048, routes by MX from a name server of
this program's own, delivery over real sockets to one sink that listens at all of 127/8. Both cases do the same work
but for where it goes. Only this process's CPU counts: names and sink run in others. Exit status 1 if a thousand
sites cost more than twice what one does, or a message did not arrive.
Dangers: everything is on loopback, so nothing waits for a network.
Not here: submission (`run.py`), which costs the same whatever the recipient.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from outgate.base.clock import SystemClock
from outgate.base.ids import queue_id
from outgate.model.flow import Accepted, Attempt, Client, Job, Recipient, SigningKey, Status, Submission
from outgate.net.dns import Resolver
from outgate.relay.delivery import Delivery
from outgate.relay.dialling import DeliveryLimits, Dialler
from outgate.relay.endpoints import Endpoint
from outgate.relay.queue import Queue, Retry
from outgate.relay.routing import Router
from outgate.relay.signer import Signer
from outgate.sandbox.nameserver import NameServer
from outgate.sandbox.zone import Zone
from outgate.store.sqlite import open_queue

MOST = 2.0
_BODY = b"Subject: hello\r\nFrom: a@shop.test\r\n\r\n" + (b"x" * 76 + b"\r\n") * 50  # 4 KB
_IN_FLIGHT = 2000


def domain(number: int) -> str:
    """Return the recipient domain of a site."""
    return f"d{number}.test"


def address(number: int) -> str:
    """Return where a site's mail host is: all of 127/8 is this machine."""
    return f"127.7.{number // 250}.{1 + number % 250}"


async def _sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take all mail, as fast as it comes."""
    writer.write(b"220 mx.test ESMTP\r\n")
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while line := await reader.readuntil(b"\r\n"):
            verb = line[:4].upper()
            if verb == b"EHLO":
                writer.write(b"250-mx.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n")
            elif verb == b"DATA":
                writer.write(b"354 go on\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(b"250 2.0.0 Ok\r\n")
            elif verb == b"QUIT":
                writer.write(b"221 2.0.0 Bye\r\n")
                break
            else:
                writer.write(b"250 2.0.0 Ok\r\n")
        await writer.drain()
    writer.close()


def world(ready: Connection, sites: int) -> None:
    """Be the rest of the world: a name server and all mail hosts. Runs in a process of its own."""

    async def run() -> None:
        zone = Zone()
        for number in range(sites):
            zone.put(domain(number), "MX", [f"10 mx.{domain(number)}."], 300)
            zone.put(f"mx.{domain(number)}", "A", [address(number)], 300)
        names = NameServer(zone)
        at = await names.start()
        server = await asyncio.start_server(_sink, "0.0.0.0", 0, limit=1 << 20, backlog=4096)
        ready.send((at, server.sockets[0].getsockname()[1]))
        await asyncio.to_thread(ready.recv)

    allow_files()
    asyncio.run(run())


def allow_files() -> None:
    """Let this process have as many connections as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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


async def measure(data: Path, names: tuple[str, int], port: int, sites: int, messages: int, key: bytes) -> float:
    """Send `messages` to as many of the `sites` as there are; return CPU seconds per 1,000. Raises `RuntimeError`."""
    loop = asyncio.get_running_loop()
    clock = SystemClock()
    store = open_queue(data, shard="0", clock=clock, segment_bytes=1 << 26, notify=loop.call_soon_threadsafe)
    signer = Signer(threads=2, key_pem=lambda _: key, load=store.load, notify=loop.call_soon_threadsafe)
    endpoint = Endpoint("dal", (), "smtp.test", "private.smtp.test", ("127.0.0.1",), ("127.0.0.1",), "out.test")
    router = Router(
        Resolver([names], clock, timeout=10.0),
        port=port,
        endpoint=endpoint,
        deliver_to="",
        own_names=(),
        permitted=lambda *_: True,
    )
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
        router=lambda _: router,
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
    used = time.process_time() - before
    await delivery.stop()
    await queue.stop()
    signer.close()
    await asyncio.to_thread(store.close)
    lost = sum(status is not Status.DELIVERED for status in done)
    if lost:
        raise RuntimeError(f"{lost} of {messages} messages were not delivered: {min(troubles)}")
    return used / messages * 1000


def main() -> int:
    """Measure both cases in turn; print and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=3)
    chosen = parser.parse_args()
    allow_files()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    other = multiprocessing.get_context("spawn").Process(target=world, args=(theirs, chosen.sites), daemon=True)
    other.start()
    names, port = ours.recv()
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    found: dict[int, list[float]] = {1: [], chosen.sites: []}
    try:
        for repetition in range(chosen.repetitions + 1):
            for sites, times in found.items():
                with tempfile.TemporaryDirectory() as data:
                    used = asyncio.run(measure(Path(data), names, port, sites, chosen.messages, key))
                if repetition:  # the first is to warm up
                    times.append(used)
    finally:
        ours.send("stop")
        other.join(timeout=10)
    for sites, times in found.items():
        low, high = min(times), max(times)
        print(f"{sites:5d} sites: {statistics.median(times):.3f} CPU s per 1,000 messages ({low:.3f}-{high:.3f})")
    ratio = statistics.median(found[chosen.sites]) / statistics.median(found[1])
    print(f"ratio {ratio:.2f} (at most {MOST:g})")
    return int(ratio > MOST)


if __name__ == "__main__":
    sys.exit(main())
