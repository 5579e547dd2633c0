#!/usr/bin/env python3
"""What a forwarded connection costs: Outgate's egress beside HAProxy, over the same two links to the same server.

    make bench PEERS=haproxy
    .venv/bin/python bench/egress.py [--repetitions 3] [--seconds 3] [--only direct,outgate]

Standards: none.
Promises: client, forwarder and server are hosts of their own (network namespaces, joined by veth); repetitions of the
forwarders are interleaved, so that a slow minute of the machine hits all of them; Outgate runs with guard, audit and
limits on; exit status 0 only if no connection failed and every limit holds.
Dangers: needs root. All share the machine's cores, so rates depend on them: compare within one run.
Not here: the hosts and forwarders (measure/egress.py), the limits (measure/egress_report.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from measure import egress_report, tools
from measure.accounting import Account, peak_bytes, resident_bytes
from measure.egress import Direct, Field, Forwarder, HaProxy, Outgate, TunedHaProxy, World
from measure.egress_report import Applied, Idle, Measurement
from measure.tools import BENCH, BenchError

_AT_ONCE = 50
_CONNECTIONS = 6000
_ROUND_TRIPS = 10_000
_IDLE = 10_000
_PLACES = 10
_RULES_EACH = 1000
_APPLY_S = 30.0
# After the last connection a forwarder still writes down that it ended: this belongs to it.
_AFTERMATH_S = 0.2


@dataclass(frozen=True, slots=True)
class Bench:
    """One run: the hosts, and how hard to press."""

    field: Field
    seconds: int
    connections: int

    def warm_up(self, forwarder: Forwarder) -> None:
        """Send a little. Raises `BenchError` if it does not arrive."""
        seen = self.field.load("connections", forwarder.address, 300, 10)
        if seen["failed"]:
            raise BenchError(f"{forwarder.name} does not forward: {seen['last_error']}")
        self.field.bulk(forwarder.address, 2, 1)

    def measure(self, forwarder: Forwarder, repetition: int) -> Measurement:
        """Do all works once and account for them."""
        account = forwarder.account()
        address = forwarder.address
        meter = _Meter(account)
        rate = self.field.load("connections", address, self.connections, _AT_ONCE)
        cpu_rate = meter.used()
        trips = self.field.load("round-trips", address, _ROUND_TRIPS)
        meter.used()
        bits, octets = self.field.bulk(address, 1, self.seconds)
        cpu_1 = meter.used() / octets * 1e9
        bits_50, octets = self.field.bulk(address, 50, self.seconds)
        cpu_50 = meter.used() / octets * 1e9
        return Measurement(
            forwarder=forwarder.name,
            repetition=repetition,
            connections_per_s=rate["per_s"],
            cpu_per_1000=round(cpu_rate / max(1, rate["done"]) * 1000, 4),
            rtt_p50_us=trips["p50_us"],
            rtt_p99_us=trips["p99_us"],
            gbit_s_1=round(bits / 1e9, 3),
            cpu_per_gb_1=round(cpu_1, 4),
            gbit_s_50=round(bits_50 / 1e9, 3),
            cpu_per_gb_50=round(cpu_50, 4),
            peak_mb=round(sum(peak_bytes(pid) for pid in account.pids()) / 1e6, 1) if account else 0.0,
            failed=rate["failed"] + trips["failed"],
            accounting=type(account).__name__ if account else "",
            last_error=rate["last_error"] or trips["last_error"],
        )

    def idle(self, forwarder: Forwarder) -> Idle:
        """Open connections that say nothing after a first exchange, and see what the forwarder has resident."""
        account = forwarder.account()
        assert account is not None
        count = min(_IDLE, self.field.connections_at_most)
        before = resident_bytes(account.pids())
        holding = self.field.idle(forwarder.address, count)
        time.sleep(_AFTERMATH_S)
        during = resident_bytes(account.pids())
        said, _ = holding.communicate(timeout=60)
        seen = json.loads(said.splitlines()[-1])
        return Idle(forwarder.name, seen["done"], seen["failed"], before / 1e6, during / 1e6)

    def apply(self, outgate: Outgate) -> Applied:
        """Want 10,000 rules, and time until all of them listen. Raises `BenchError` if they do not."""
        before = self.field.listeners()
        places = {self.field.tunnel(100 + number): _RULES_EACH for number in range(_PLACES)}
        rules = _PLACES * _RULES_EACH
        meter = _Meter(outgate.account())
        began = time.monotonic()
        outgate.want({outgate.address: 2, **places})
        # Each place may have its HTTP proxy too: at least as many sockets as rules.
        while not self.field.has_listeners(before + rules):
            if time.monotonic() > began + _APPLY_S:
                raise BenchError(f"{self.field.listeners() - before} of {rules} rules after {_APPLY_S:.0f} s")
            time.sleep(0.01)
        return Applied(outgate.name, rules, round(time.monotonic() - began, 3), round(meter.used(), 3))


class _Meter:
    """CPU seconds of an account from one question to the next."""

    def __init__(self, account: Account | None) -> None:
        self._account = account
        self._last = self._now()

    def _now(self) -> float:
        return self._account.cpu_seconds() if self._account else 0.0

    def used(self) -> float:
        """Return what was used since the last time, with its aftermath."""
        time.sleep(_AFTERMATH_S)
        before, self._last = self._last, self._now()
        return self._last - before


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", default="", help="only these, by commas: direct, haproxy, haproxy-tuned, outgate")
    parser.add_argument(
        "--outgate",
        default=f"{Path(sys.executable).parent / 'outgate'} egress serve",
        help="the command to measure; --rules, --state and --config are added",
    )
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="length of one bulk transfer")
    parser.add_argument("--connections", type=int, default=_CONNECTIONS, help="connections in one repetition")
    parser.add_argument("--keep", action="store_true", help="leave the forwarders' files for a look")
    return parser.parse_args()


def _forwarders(arguments: argparse.Namespace, field: Field, directory: Path) -> list[Forwarder]:
    known: list[Forwarder] = [
        Direct(),
        HaProxy(field, directory, 1),
        TunedHaProxy(field, directory, 2),
        Outgate(field, directory, 3, arguments.outgate.split()),
    ]
    names = [name for name in arguments.only.split(",") if name] or [each.name for each in known]
    for name in names:
        if name not in [each.name for each in known]:
            raise BenchError(f"no such forwarder: {name} (there is: {', '.join(each.name for each in known)})")
    return [each for each in known if each.name in names]


def _line(one: Measurement) -> str:
    return (
        f"{one.forwarder:13s} {one.connections_per_s:6.0f} conn/s  {one.cpu_per_1000:5.3f} CPU s/1,000"
        f"  RTT p50 {one.rtt_p50_us:4.0f} us  1: {one.gbit_s_1:4.1f} Gbit/s {one.cpu_per_gb_1:4.2f} s/GB"
        f"  50: {one.gbit_s_50:4.1f} Gbit/s {one.cpu_per_gb_50:4.2f} s/GB"
    )


def _write(out: TextIO, document: dict[str, object]) -> None:
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    out.write(json.dumps({**document, "machine": machine}) + "\n")
    out.flush()


def _results_file() -> Path:
    directory = BENCH / "results"
    directory.mkdir(exist_ok=True)
    return directory / f"egress-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"


def _run(arguments: argparse.Namespace, directory: Path, stack: ExitStack) -> bool:
    if os.geteuid() != 0:
        raise BenchError("the egress can only be measured by root: it makes network namespaces")
    tools.need_packages("ip=iproute2", "nft=nftables", "haproxy=haproxy", "iperf3=iperf3")
    binaries = BENCH / "bin"
    tools.build(binaries)
    field = Field(stack.enter_context(World()), binaries)
    stack.callback(field.close)
    bench = Bench(field, arguments.seconds, arguments.connections)
    forwarders = _forwarders(arguments, field, directory)
    for forwarder in forwarders:
        stack.callback(forwarder.stop)
        print(f"starting {forwarder.name}", flush=True)
        forwarder.start()
        bench.warm_up(forwarder)

    results = _results_file()
    measurements: list[Measurement] = []
    idle: list[Idle] = []
    applied: list[Applied] = []
    with results.open("w", encoding="utf-8") as out:
        for repetition in range(arguments.repetitions):
            for forwarder in forwarders:
                one = bench.measure(forwarder, repetition)
                measurements.append(one)
                _write(out, one.as_json())
                print(_line(one), flush=True)
        for forwarder in forwarders:
            if forwarder.account() is not None:
                idle.append(bench.idle(forwarder))
                _write(out, idle[-1].as_json())
            if isinstance(forwarder, Outgate):
                applied.append(bench.apply(forwarder))
                _write(out, applied[-1].as_json())
    print(f"\n{egress_report.table(measurements)}\n")
    lines, holds = egress_report.verdict(measurements, idle, applied)
    print("\n".join(lines))
    print(f"\nmeasurements: {os.path.relpath(results)}")
    return holds


def main() -> int:
    """Run the benchmark; 0 when all holds, 1 when something fails, 2 when it could not be measured."""
    arguments = _arguments()
    return tools.carry_out(lambda directory, stack: _run(arguments, directory, stack), keep=arguments.keep)


if __name__ == "__main__":
    sys.exit(main())
