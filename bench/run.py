#!/usr/bin/env python3
"""Measure what a message costs: Outgate alone, or beside other servers on the same work.

Standards: none.
Promises: every server gets the same mail from the same generator and hands it to the same sink; repetitions of the
servers are interleaved, so that a slow minute of the machine hits all of them; exit status 0 only if nothing was
lost, doubled, refused or badly signed and every limit holds.
Dangers: generator, server and sink share the machine, so rates depend on its cores: CPU per message is the figure.
Not here: the parts (measure/), the limits (measure/report.py), forwarded connections (egress.py), the application's
side (mailer.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measure import report, tools
from measure.accounting import MemoryWatch
from measure.judge import Judge
from measure.report import Measurement, Work
from measure.servers import DOMAIN, SELECTOR, Ground, Outgate, Peer, Server, prepare_ground
from measure.tools import BENCH, BenchError, Load, Sink, Submission

OTHERS = {"haproxy": "egress.py", "mailer": "mailer.py"}
"""What is measured by a run of its own: no peer of the relay."""
_SAMPLE_EVERY = 97
_LIMIT_S = 60.0
# After the last delivery a server still writes down that it happened: this belongs to the message.
_AFTERMATH_S = 0.3


@dataclass(frozen=True, slots=True)
class Bench:
    """One run: tools, sink, judge and how hard to press."""

    binaries: Path
    sink: Sink
    judge: Judge
    connections: int
    seconds: float
    most: int

    def _hand_in(self, to: Submission, work: Work, count: int) -> dict[str, Any]:
        load = Load(count, self.connections, work.per_connection, work.size)
        return tools.hand_in(self.binaries, to, load, self.sink, sender=f"sender@{DOMAIN}", limit_s=_LIMIT_S)

    def warm_up(self, server: Server, to: Submission, work: Work) -> int:
        """Send a little, and return how many messages fill the time at the rate seen. Raises `BenchError`."""
        seen = self._hand_in(to, work, max(60, self.connections * min(work.per_connection, 5)))
        if not seen["accepted"]:
            raise BenchError(f"{server.name} accepts nothing: {seen['last_error']}")
        rate = min(seen["accepted_per_s"], seen["delivered_per_s"])
        # Whole rounds: every connection carries all its messages, so all servers open the same share of sessions.
        round_size = self.connections * work.per_connection
        return round_size * max(2, round(min(self.most, rate * self.seconds) / round_size))

    def measure(self, server: Server, to: Submission, work: Work, count: int, repetition: int) -> Measurement:
        """Do the work once and account for it."""
        before = server.account.cpu_seconds()
        with MemoryWatch(server.account) as memory:
            seen = self._hand_in(to, work, count)
            time.sleep(_AFTERMATH_S)
            used = server.account.cpu_seconds() - before
        good, bad = self.judge.count(sorted(self.sink.samples.glob(f"{seen['run_id']}-*.eml")))
        return Measurement(
            server=server.name,
            work=work.key,
            repetition=repetition,
            count=count,
            accepted=seen["accepted"],
            refused=seen["refused"],
            missing=seen["missing"],
            duplicates=seen["duplicates"],
            unknown=seen["unknown"],
            signatures_good=good,
            signatures_bad=bad,
            cpu_per_1000=round(used / max(1, seen["accepted"]) * 1000, 4),
            accounting=type(server.account).__name__,
            accepted_per_s=seen["accepted_per_s"],
            delivered_per_s=seen["delivered_per_s"],
            p50_ms=seen["latency_ms"]["p50"],
            p99_ms=seen["latency_ms"]["p99"],
            peak_mb=round(memory.peak / 1e6, 1),
            generator_cpu_s=seen["generator_cpu_s"],
            last_error=seen["last_error"],
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--peers",
        default="",
        help="peers to run beside Outgate, by commas: postfix; haproxy runs egress.py, mailer mailer.py",
    )
    parser.add_argument("--without-outgate", action="store_true", help="measure the peers only")
    parser.add_argument(
        "--outgate", default=str(Path(sys.executable).parent / "outgate"), help="the command to measure"
    )
    parser.add_argument("--works", default="", help="only these, by commas: " + ", ".join(w.key for w in report.WORKS))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.5, help="length of one repetition, about")
    parser.add_argument("--most", type=int, default=6000, help="messages in one repetition at most")
    parser.add_argument("--keep", action="store_true", help="leave the servers' files for a look")
    return parser.parse_args()


def _chosen_works(names: str) -> list[Work]:
    wanted = [name for name in names.split(",") if name]
    known = {work.key: work for work in report.WORKS}
    for name in wanted:
        if name not in known:
            raise BenchError(f"no such work: {name} (there is: {', '.join(known)})")
    return [known[name] for name in wanted] or list(report.WORKS)


def _servers(arguments: argparse.Namespace, ground: Ground) -> list[Server]:
    servers: list[Server] = []
    if not arguments.without_outgate:
        servers.append(Outgate(ground, [arguments.outgate]))
    servers.extend(Peer(name, ground) for name in arguments.peers.split(",") if name)
    if not servers:
        raise BenchError("nothing to measure: --without-outgate needs --peers")
    return servers


def _results_file() -> Path:
    directory = BENCH / "results"
    directory.mkdir(exist_ok=True)
    return directory / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"


def _line(one: Measurement) -> str:
    return (
        f"{one.work:9s} {one.server:8s} {one.accepted:5d} messages  {one.cpu_per_1000:6.3f} CPU s/1,000"
        f"  {one.delivered_per_s:6.0f}/s  p50 {one.p50_ms:5.1f} ms  p99 {one.p99_ms:5.0f} ms"
    )


def _run(arguments: argparse.Namespace, directory: Path, stack: ExitStack) -> bool:
    works = _chosen_works(arguments.works)
    binaries = BENCH / "bin"
    tools.build(binaries)
    tools.need_packages("openssl=openssl")
    sink = stack.enter_context(Sink(binaries, directory / "samples", _SAMPLE_EVERY))
    ground = prepare_ground(directory, sink.port)
    judge = Judge(ground.dkim_public_der, SELECTOR, DOMAIN)
    bench = Bench(binaries, sink, judge, arguments.connections, arguments.seconds, arguments.most)

    doors: list[tuple[Server, Submission]] = []
    for server in _servers(arguments, ground):
        stack.callback(server.stop)
        print(f"starting {server.name}", flush=True)
        doors.append((server, server.start()))

    results = _results_file()
    measurements: list[Measurement] = []
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    with results.open("w", encoding="utf-8") as out:
        for work in works:
            counts = {server.name: bench.warm_up(server, to, work) for server, to in doors}
            for repetition in range(arguments.repetitions):
                for server, to in doors:
                    one = bench.measure(server, to, work, counts[server.name], repetition)
                    measurements.append(one)
                    out.write(json.dumps({**one.as_json(), "machine": machine}) + "\n")
                    out.flush()
                    print(_line(one), flush=True)
    print(f"\n{report.table(measurements, works)}\n")
    lines, holds = report.verdict(measurements, works)
    print("\n".join(lines))
    print(f"\nmeasurements: {os.path.relpath(results)}")
    return holds


def main() -> int:
    """Run the benchmark; 0 when all holds, 1 when something fails, 2 when it could not be measured."""
    arguments = _arguments()
    peers = [name for name in arguments.peers.split(",") if name]
    others = [name for name in peers if name in OTHERS]
    if not others:
        return _mail(arguments)
    ends = [subprocess.run([sys.executable, str(BENCH / OTHERS[name])], check=False).returncode for name in others]
    arguments.peers = ",".join(name for name in peers if name not in OTHERS)
    return max(*ends, _mail(arguments)) if arguments.peers else max(ends)


def _mail(arguments: argparse.Namespace) -> int:
    return tools.carry_out(lambda directory, stack: _run(arguments, directory, stack), keep=arguments.keep)


if __name__ == "__main__":
    sys.exit(main())
