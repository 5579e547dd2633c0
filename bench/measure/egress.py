"""Client, forwarder and server on three hosts of their own, and the forwarders between them.

Standards: Linux network namespaces (tests/support/hosts.py makes them).
Promises: all forwarders stand side by side on the same host, each on an address of its own, and lead to the same
server; what is started here is stopped here, by its process number.
Dangers: needs root. The three hosts share the machine's cores.
Not here: the works (`egress.py`), limits (`measure/egress_report.py`).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from measure.accounting import Account, open_account
from measure.tools import BENCH, BenchError

sys.path.insert(0, str(BENCH.parent / "tests"))
from support.hosts import Host, World, listening

CLIENT, SERVER = "10.92.1.2", "11.92.2.2"
MIDDLE_IN, MIDDLE_OUT = "10.92.1.1", "11.92.2.1"
ECHO, BULK = 30001, 30002
"""The ports of the two services, on the server and on each forwarder."""
_TUNNELS = "10.92.3"
_START_S = 30.0
_ANSWER_S = 120.0
_OPEN_FILES = 100_000
_OTHER_FILES = 1000
"""What a forwarder has open beside its connections, at most."""


class Field:
    """The three hosts, with both services running on the server."""

    def __init__(self, world: World, binaries: Path) -> None:
        self.connections_at_most = allow_open_files()
        self._tcpload = str(binaries / "tcpload")
        self.client, self.middle, self.server = (world.host(name) for name in ("client", "middle", "server"))
        world.wire(self.client, f"{CLIENT}/24", self.middle, f"{MIDDLE_IN}/24")
        world.wire(self.middle, f"{MIDDLE_OUT}/24", self.server, f"{SERVER}/24")
        self.client.ip("route", "add", "default", "via", MIDDLE_IN)
        self.server.ip("route", "add", "default", "via", MIDDLE_OUT)
        # Every address of this network belongs to the host in the middle.
        self.middle.ip("route", "add", "local", f"{_TUNNELS}.0/24", "dev", "lo")
        for host in (self.client, self.middle, self.server):
            host.sysctl(
                ipv4__ip_local_port_range="1024 65535",
                ipv4__tcp_tw_reuse=1,
                ipv4__tcp_max_syn_backlog=8192,
                core__somaxconn=4096,
            )
        self.middle.sysctl(ipv4__ip_forward=1)  # for the direct way
        self._processes = [
            self.start(self.server, [self._tcpload, "serve", SERVER, str(ECHO)]),
            self.start(self.server, ["iperf3", "-s", "-B", SERVER, "-p", str(BULK)]),
        ]
        for port in (ECHO, BULK):
            await_port(self.middle, SERVER, port, "the server")

    def start(self, host: Host, command: Sequence[str], log: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
        """Start a program on one of the hosts."""
        with host.inside():
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log or subprocess.DEVNULL,
                stderr=subprocess.STDOUT if log else subprocess.DEVNULL,
            )

    def tunnel(self, number: int) -> str:
        """Return one of the addresses on the host in the middle that forwarders listen on."""
        return f"{_TUNNELS}.{number}"

    def ask(self, *words: str) -> dict[str, Any]:
        """Run a client's command and return the JSON that it prints. Raises `BenchError`."""
        with self.client.inside():
            try:
                done = subprocess.run(words, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
            except subprocess.TimeoutExpired:
                raise BenchError(f"{' '.join(words)}: no end after {_ANSWER_S:.0f} s") from None
        if not done.stdout:
            raise BenchError(f"{words[0]}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def load(self, verb: str, address: str, *numbers: int) -> dict[str, Any]:
        """Run tcpload against a forwarder (or the server) and return its report."""
        return self.ask(self._tcpload, verb, address, str(ECHO), *map(str, numbers))

    def bulk(self, address: str, streams: int, seconds: int) -> tuple[float, float]:
        """Send as much as goes for `seconds`; return what arrived: bits per second, octets. Raises `BenchError`."""
        words = ("iperf3", "-J", "-c", address, "-p", str(BULK), "-P", str(streams), "-t", str(seconds))
        seen = self.ask(*words)
        if "error" in seen or "sum_received" not in seen.get("end", {}):
            raise BenchError(f"iperf3 to {address}: {seen.get('error', 'no sum')}")
        arrived = seen["end"]["sum_received"]
        return arrived["bits_per_second"], arrived["bytes"]

    def idle(self, address: str, count: int) -> subprocess.Popen[str]:
        """Open connections and return once all are there; they end with the process's standard input."""
        with self.client.inside():
            holding = subprocess.Popen(
                [self._tcpload, "idle", address, str(ECHO), str(count)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert holding.stdout is not None
        if not holding.stdout.readline().startswith("ready"):
            raise BenchError(f"idle connections to {address} cannot be made")
        return holding

    def listeners(self) -> int:
        """Return how many sockets listen in the middle."""
        return len(listening(self.middle))

    def has_listeners(self, count: int) -> bool:
        """Return whether as many sockets listen in the middle; costs little until there are enough of any kind."""
        with self.middle.inside():
            told = Path("/proc/thread-self/net/sockstat").read_text()
        return int(told.partition("TCP: inuse ")[2].split()[0]) >= count <= self.listeners()

    def close(self) -> None:
        """End both services."""
        for process in self._processes:
            process.terminate()
            process.wait()


def allow_open_files() -> int:
    """Let this process and what it starts have as many open files as may be; return how many connections a forwarder
    can have with them."""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    except (OSError, ValueError):  # only with CAP_SYS_RESOURCE may more than the hard limit be had
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (most - _OTHER_FILES) // 2


class Forwarder(Protocol):
    """One forwarder under measurement, or none."""

    name: str
    address: str

    def start(self) -> None:
        """Start it. Raises `BenchError`."""
        ...

    def account(self) -> Account | None:
        """Return what it uses, or None if it is no process."""
        ...

    def stop(self) -> None:
        """Stop it, if it runs."""
        ...


class Direct:
    """No forwarder: the host in the middle only routes."""

    name, address = "direct", SERVER

    def start(self) -> None:
        pass

    def account(self) -> Account | None:
        return None

    def stop(self) -> None:
        pass


class _Program:
    """A forwarder that is a process."""

    name = ""

    def __init__(self, field: Field, directory: Path, number: int) -> None:
        self.address = field.tunnel(number)
        self._field = field
        self._directory = directory / self.name
        self._directory.mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self._account = open_account(f"egress-{self.name}", self._roots)

    def _roots(self) -> list[int]:
        return [self._process.pid] if self._process else []

    def _command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        log = self._directory / "log"
        with log.open("wb") as output:
            self._process = self._field.start(self._field.middle, self._account.wrap(self._command()), output)
        for port in (ECHO, BULK):
            try:
                await_port(self._field.client, self.address, port, self.name, self._process)
            except BenchError as error:
                said = "\n".join(log.read_text("utf-8", "replace").splitlines()[-20:])
                raise BenchError(f"{error}\n{said}") from error

    def account(self) -> Account | None:
        return self._account

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._account.close()


class HaProxy(_Program):
    """HAProxy in TCP mode, as it is shipped."""

    name = "haproxy"
    tuning = ""
    option = ""

    def _command(self) -> list[str]:
        services = "".join(
            f"listen s{port}\n  bind {self.address}:{port}\n  server s {SERVER}:{port}\n" for port in (ECHO, BULK)
        )
        most = self._field.connections_at_most
        configuration = self._directory / "haproxy.cfg"
        configuration.write_text(
            f"global\n  maxconn {most}\n  maxpipes 200\n{self.tuning}"
            f"defaults\n  mode tcp\n  maxconn {most}\n  timeout connect 5s\n"
            f"  timeout client 600s\n  timeout server 600s\n{self.option}{services}"
        )
        return ["haproxy", "-db", "-f", str(configuration)]


class TunedHaProxy(HaProxy):
    """HAProxy with large buffers and splicing."""

    name = "haproxy-tuned"
    tuning = "  tune.bufsize 262144\n"
    option = "  option splice-auto\n"


class Outgate(_Program):
    """`outgate egress serve` with guard, audit and limits on, from a file of rules."""

    name = "outgate"

    def __init__(self, field: Field, directory: Path, number: int, command: Sequence[str]) -> None:
        super().__init__(field, directory, number)
        self._outgate = list(command)
        self.rules = self._directory / "rules.json"

    def want(self, places: dict[str, int]) -> None:
        """Write the wanted state: for each tunnel address as many rules, the first of which are the two services."""
        environments = [
            {
                "environmentId": str(number),
                "programId": "1",
                "tunnelAddress": address,
                "clientNetworks": [f"{CLIENT}/32"],
                "portForwards": [
                    {"name": SERVER, "portOrig": ECHO + each, "portDest": ECHO + each} for each in range(rules)
                ],
            }
            for number, (address, rules) in enumerate(places.items(), 1)
        ]
        new = self.rules.with_suffix(".new")
        new.write_text(json.dumps({"environments": environments}))
        new.replace(self.rules)

    def _command(self) -> list[str]:
        if not self.rules.exists():
            self.want({self.address: 2})
        most = self._field.connections_at_most
        settings = self._directory / "outgate.toml"
        settings.write_text(
            f'[egress]\nshared_addresses = ["{MIDDLE_OUT}"]\n'
            f"connections_per_environment = {most}\nconnections_alert = {most * 3 // 4}\n"
        )
        state = self._directory / "state"
        return [*self._outgate, "--rules", str(self.rules), "--state", str(state), "--config", str(settings)]


def await_port(host: Host, address: str, port: int, who: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Return once somebody accepts there, seen from `host`. Raises `BenchError`."""
    deadline = time.monotonic() + _START_S
    while True:
        try:
            host.connects(address, port, 1.0).close()
            return
        except OSError as error:
            ended = process is not None and process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise BenchError(f"{who} does not answer on {address}:{port}: {error}") from error
            time.sleep(0.1)
