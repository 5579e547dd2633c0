"""What a re-check round costs submission: 10,000 domains are due at once while mail is handed in.

    .venv/bin/python bench/recheck.py [--domains 10000] [--repetitions 5] [--messages 2000]

The domains lie in 20 zones with two name servers each, which this program plays on loopback addresses of their own.
Prints the 99th percentile of the 250 before, during and after the round, how fast domains are looked at, and the most
questions that any name server was asked within a second. Exit status 1 if the round more than doubles the percentile
(medians), or asks a server more often than 20 times a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from measure import tools
from measure.servers import DOMAIN, Ground, Outgate, prepare_ground
from measure.tools import Load, Sink, Submission
from sqlalchemy import insert

from outgate.base.clock import OffsetClock
from outgate.connection import Api, NotReachable, Refusal, read_dev_json
from outgate.store.control import ControlStore, open_control
from outgate.store.secrets import open_box
from outgate.store.tables import smtp_configurations

ZONES = 20
_SIX_HOURS = 21_600


class NameServers:
    """Authoritative servers for the zones z0.bench … on 127.3.0.N and 127.3.1.N, in a thread of their own loop."""

    def __init__(self, port: int, spf: str, dkim: str) -> None:
        self.asked: dict[str, deque[float]] = defaultdict(deque)
        self._answers: dict[str, Callable[[str], list[str]]] = {
            "A": lambda name: [] if "_domainkey" in name else ["127.0.0.1"],
            "TXT": lambda name: [f'"{dkim[:200]}" "{dkim[200:]}"'] if "_domainkey" in name else [f'"{spf}"'],
        }
        self._port = port
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, daemon=True).start()
        self._ready.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        for zone in range(ZONES):
            for second in (0, 1):
                address = f"127.3.{second}.{zone + 1}"
                endpoint = self._loop.create_datagram_endpoint(
                    lambda address=address: _Answering(self, address), local_addr=(address, self._port)
                )
                self._loop.run_until_complete(endpoint)
        self._ready.set()
        self._loop.run_forever()

    def answer(self, wire: bytes, address: str) -> bytes:
        """Answer a query with authority; note when it came."""
        self.asked[address].append(time.monotonic())
        query = dns.message.from_wire(wire)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        question = query.question[0]
        name, rdtype = question.name.to_text(), question.rdtype.name
        values = self._answers[rdtype](name) if rdtype in self._answers else []
        if values:
            response.answer.append(dns.rrset.from_text(name, 300, "IN", rdtype, *values))
        return response.to_wire()

    def most_in_a_second(self) -> int:
        """Return the most questions that any server had within any second."""
        most = 0
        for times in self.asked.values():
            window: deque[float] = deque()
            for at in times:
                window.append(at)
                while window[0] <= at - 1.0:
                    window.popleft()
                most = max(most, len(window))
        return most


class _Answering(asyncio.DatagramProtocol):
    def __init__(self, servers: NameServers, address: str) -> None:
        self._servers = servers
        self._address = address
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        self._transport.sendto(self._servers.answer(data, self._address), addr)


class World:
    """A running `outgate dev` with many verified domains beside its own."""

    def __init__(self, ground: Ground, outgate: Outgate, domains: int) -> None:
        self.to: Submission = outgate.start()
        data = ground.directory / outgate.name / "data"
        self.api = Api(read_dev_json(data))
        self._offset = data / "clock"
        clock = OffsetClock(self._offset)
        self.store: ControlStore = open_control(data / "control.db", open_box(data / "master.key"), clock)
        spf, dkim = self._add(domains)
        port = int(str(self.api.dev["dns"]).rpartition(":")[2])
        self.servers = NameServers(port, spf, dkim)
        for zone in range(ZONES):
            hosts = [f"ns{second}.z{zone}.bench" for second in (0, 1)]
            self._zone(f"z{zone}.bench", "NS", [f"{host}." for host in hosts])
            for second, host in enumerate(hosts):
                self._zone(host, "A", [f"127.3.{second}.{zone + 1}"])

    def _zone(self, name: str, rdtype: str, values: list[str]) -> None:
        self.api.call("PUT", self.api.sandbox(f"zone/{name}/{rdtype}"), {"values": values, "ttl": 3600})

    def _add(self, domains: int) -> tuple[str, str]:
        """Write verified configurations straight into the store, all with the key that is there; return SPF, DKIM."""
        instance = self.api.dev["instance_id"]
        found = self.store.tenancy.configurations(instance).items[0]
        now = time.time()
        rows = [
            {
                "id": f"{number:08x}-0000-4000-8000-000000000000",
                "instance_id": instance,
                "name": "bench",
                "description": "",
                "domain": f"d{number}.z{number % ZONES}.bench",
                "spf": "SUCCESSFUL",
                "dkim": "SUCCESSFUL",
                "authorization": "SUCCESSFUL",
                "key_id": found.key.id,
                "created_at": now,
                "updated_at": now,
                "standing": "verified",
                "standing_since": now,
                "recheck_at": now + _SIX_HOURS,
            }
            for number in range(domains)
        ]
        with self.store._database.writing() as connection:
            connection.execute(insert(smtp_configurations), rows)
        config = self.api.call("GET", self.api.configurations(found.id))["config"]
        return config["spf"]["txt_value"], config["dkim"]["txt_value"]

    def begin_round(self) -> threading.Thread:
        """Move the clock to when all are due; the call answers when all have been looked at."""

        def advance() -> None:
            try:
                self.api.call("POST", self.api.sandbox("clock"), {"advance_s": _SIX_HOURS + 1})
            except (NotReachable, Refusal):
                pass  # the call outlives its time limit, or the service; the round goes on

        thread = threading.Thread(target=advance, daemon=True)
        thread.start()
        return thread

    def left(self) -> int:
        """Return how many domains are still due."""
        now = time.time() + float(self._offset.read_text("ascii"))
        return len(self.store.verification.due(now, 1_000_000))


def percentiles(world: World, binaries: Path, sink: Sink, messages: int, repetitions: int) -> list[float]:
    """Hand mail in again and again; return the 99th percentile of each run in milliseconds."""
    found: list[float] = []
    for _ in range(repetitions):
        load = Load(messages, 20, 25, 4096)
        seen = tools.hand_in(binaries, world.to, load, sink, sender=f"sender@{DOMAIN}", limit_s=60.0)
        if seen["accepted"] != messages or seen["missing"]:
            raise tools.BenchError(f"accepted {seen['accepted']} of {messages}: {seen['last_error']}")
        found.append(float(seen["latency_ms"]["p99"]))
    return found


def shown(name: str, found: list[float]) -> str:
    """Return a line with the median and the extremes."""
    return f"{name:<22} {statistics.median(found):7.1f} ms  ({min(found):.1f}-{max(found):.1f})"


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    options.add_argument("--domains", type=int, default=10_000)
    options.add_argument("--repetitions", type=int, default=5)
    options.add_argument("--messages", type=int, default=2000)
    options.add_argument("--outgate", default=str(Path(sys.executable).parent / "outgate"))
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="outgate-bench-") as name, ExitStack() as stack:
        directory = Path(name)
        binaries = tools.BENCH / "bin"
        tools.build(binaries)
        sink = stack.enter_context(Sink(binaries, directory / "samples", 10_000))
        ground = prepare_ground(directory, sink.port)
        outgate = Outgate(ground, [given.outgate])
        stack.callback(outgate.stop)
        world = World(ground, outgate, given.domains)
        percentiles(world, binaries, sink, given.messages, 1)
        before = percentiles(world, binaries, sink, given.messages, given.repetitions)
        world.begin_round()
        time.sleep(2)
        begun, left = time.monotonic(), world.left()
        during = percentiles(world, binaries, sink, given.messages, given.repetitions)
        looked_at, took = left - world.left(), time.monotonic() - begun
        still = world.left()
        most = world.servers.most_in_a_second()
        states = world.store.tenancy.configurations(world.api.dev["instance_id"], limit=1).total
        world.store.close()
    print("99th percentile of the 250, 20 connections that send as fast as they can, 4 KiB")
    print(shown("before the round", before))
    print(shown("during the round", during) + f"   ratio {statistics.median(during) / statistics.median(before):.2f}")
    print(f"looked at {looked_at} domains in {took:.0f} s; {still} of {states} still due when the last run ended")
    print(f"at most {most} questions within a second to any of {len(world.servers.asked)} name servers")
    print(json.dumps({"before": before, "during": during, "domains_per_s": round(looked_at / took, 1), "most": most}))
    return 0 if statistics.median(during) <= 2 * statistics.median(before) and most <= 20 and still else 1


if __name__ == "__main__":
    sys.exit(main())
