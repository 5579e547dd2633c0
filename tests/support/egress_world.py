"""The egress among hosts of its own: applications on one side, a gateway, and what is outside with its resolver.

    a 10.81.0.2, b 10.82.0.2, stranger 10.83.0.2 -- gateway (tunnel addresses 10.88.0.N) -- outside 11.7.0.N

Standards: none.
Promises: the gateway routes nothing: what gets outside went through Outgate; outside counts every packet by its sender.
Dangers: needs root and iproute2, nftables (tests/packages.sh installs them). The outside addresses look public, so that
the guard lets them through; they exist in these namespaces only.
Not here: namespaces (`hosts`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from outgate.egress import status_socket
from outgate.sandbox.nameserver import NameServer
from outgate.sandbox.zone import Zone
from support.hosts import Host, World, listening
from support.running import await_ready, wait_for

A, B, STRANGER = "10.81.0.2", "10.82.0.2", "10.83.0.2"
TUNNELS = "10.88.0.0/26"
ONE, TWO = "10.88.0.1", "10.88.0.2"
"""The tunnel addresses of two environments."""
SHARED, DEDICATED, UNPLUMBED = "198.51.100.10", "198.51.100.20", "198.51.100.99"
TARGET, OTHER, RESOLVER = "11.7.0.10", "11.7.0.11", "11.7.0.53"
PROXY = 3128

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class EgressWorld:
    """The hosts. `zone` is what the resolver outside answers."""

    def __init__(self, world: World) -> None:
        self.a, self.b, self.stranger = (world.host(name) for name in ("a", "b", "stranger"))
        self.gateway, self.outside = world.host("gateway"), world.host("outside")
        for app, network in ((self.a, "10.81.0"), (self.b, "10.82.0"), (self.stranger, "10.83.0")):
            world.wire(app, f"{network}.2/24", self.gateway, f"{network}.1/24")
            app.ip("route", "add", "default", "via", f"{network}.1")
        self.way_out, _ = world.wire(self.gateway, "198.51.100.1/24", self.outside, "198.51.100.254/24")
        self.gateway.ip("route", "add", "default", "via", "198.51.100.254")
        self.gateway.ip("route", "add", "local", TUNNELS, "dev", "lo")
        for address in (SHARED, DEDICATED):
            self.gateway.has(address, self.way_out)
        for address in (TARGET, OTHER, RESOLVER):
            self.outside.has(address)
        self.outside.watch()
        self.zone = Zone()
        self.names = {"target.example": TARGET, "other.example": OTHER, "www.other.example": OTHER}
        self._ready = threading.Event()
        self._stop: Callable[[], None] = lambda: None
        self._resolver = threading.Thread(target=self._resolve, name="resolver")
        self._resolver.start()
        assert self._ready.wait(10)
        for name, address in self.names.items():
            self.resolves(name, address)

    def resolves(self, name: str, *addresses: str) -> None:
        """Have the resolver answer a name with these addresses from now on."""
        self.zone.put(name, "A", addresses, 0)

    def close(self) -> None:
        """End the resolver."""
        self._stop()
        self._resolver.join()

    def _resolve(self) -> None:
        async def run() -> None:
            server = NameServer(self.zone)
            await server.start(RESOLVER, 53)
            over, loop = asyncio.Event(), asyncio.get_running_loop()
            self._stop = lambda: loop.call_soon_threadsafe(over.set)
            self._ready.set()
            await over.wait()
            await server.stop()

        with self.outside.inside():
            asyncio.run(run())


@contextlib.contextmanager
def egress_world() -> Iterator[EgressWorld]:
    """Make the hosts, and remove them in any case."""
    with World() as world:
        made = EgressWorld(world)
        try:
            yield made
        finally:
            made.close()


def forward(port_orig: int, port_dest: int, name: str = "target.example") -> dict[str, Any]:
    """Return one of `portForwards`."""
    return {"name": name, "portOrig": port_orig, "portDest": port_dest}


def environment(
    *forwards: dict[str, Any],
    tunnel: str = ONE,
    clients: Sequence[str] = (f"{A}/32",),
    kind: str = "flexiblePortEgress",
    **other: Any,
) -> dict[str, Any]:
    """Return an environment as a file of rules has it."""
    own = {"egressAddresses": [DEDICATED]} if kind == "dedicatedEgressIp" else {}
    fixed = {"kind": kind, "tunnelAddress": tunnel, "clientNetworks": list(clients), "portForwards": list(forwards)}
    return {"environmentId": tunnel, "programId": f"program-{tunnel}", **fixed, **own, **other}


def _standing(state: Path) -> dict[str, Any]:
    """Return how the egress stands. Whoever asks may be on an event loop, which waits."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(status_socket.read, state).result()


class Serving:
    """`outgate egress serve` on the gateway, from a file of rules."""

    def __init__(self, world: EgressWorld, directory: Path, **settings: Any) -> None:
        self.world = world
        self.state = directory / "state"
        self.rules = directory / "rules.json"
        self.log = directory / "log"
        self._config = directory / "outgate.toml"
        chosen = {"shared_addresses": [SHARED], "dedicated_addresses": [DEDICATED], "resolvers": [RESOLVER]} | settings
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in chosen.items()]
        self._config.write_text("[egress]\n" + "".join(lines))
        self.process: subprocess.Popen[str] | None = None
        self.want()

    def want(self, *environments: dict[str, Any]) -> None:
        """Write the wanted state, by rename."""
        new = self.rules.with_suffix(".new")
        new.write_text(json.dumps({"environments": environments}))
        new.replace(self.rules)

    def start(self) -> Serving:
        """Start the process and return once it says that it is ready."""
        command = [sys.executable, "-m", "outgate.cli", "egress", "serve", "--rules", str(self.rules)]
        command += ["--state", str(self.state), "--config", str(self._config)]
        with self.log.open("ab") as log, self.world.gateway.inside():
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )
        await_ready(self.process, self.log)
        return self

    def kill(self) -> None:
        """SIGKILL, at once."""
        assert self.process is not None
        self.process.kill()
        self._gone()

    def stop(self) -> int:
        """SIGTERM; return the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._gone()

    def _gone(self) -> int:
        assert self.process is not None and self.process.stdout is not None
        status = self.process.wait(30)
        self.process.stdout.close()
        return status

    def listening(self) -> set[tuple[str, int]]:
        """Return where the gateway listens on tunnel addresses."""
        return {place for place in listening(self.world.gateway) if place[0].startswith("10.88.0.")}

    def told(self, *environments: dict[str, Any]) -> None:
        """Want these, and tell the process so."""
        self.want(*environments)
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def in_force(self, *environments: dict[str, Any]) -> None:
        """Want these, and wait until exactly they are in force: their forwards and a proxy each, and nothing else
        listens. Rules that were there before are withdrawn first."""
        self.told()
        wait_for(self.listening, lambda found: found == set(), 20)
        self.told(*environments)
        self.await_force(*environments)

    def await_force(self, *environments: dict[str, Any]) -> None:
        """Wait until exactly these are in force."""
        expected = {
            (each["tunnelAddress"], port, each["kind"])
            for each in environments
            for port in (PROXY, *(rule["portOrig"] for rule in each["portForwards"]))
        }

        def found() -> tuple[set[tuple[str, int, str]], set[tuple[str, int]]]:
            rules = [rule for each in _standing(self.state)["environments"] for rule in each["rules"]]
            told = {(*rule["listen"].split(":"), rule["mode"]) for rule in rules}
            return {(address, int(port), mode) for address, port, mode in told}, self.listening()

        wait_for(found, lambda seen: seen == (expected, {place[:2] for place in expected}), 20)

    def status(self, tunnel: str) -> dict[str, Any]:
        """Return how the environment of a tunnel address stands, as the process tells it."""
        document = _standing(self.state)
        return next((each for each in document["environments"] if each["environment"] == tunnel), {})

    def failed(self, tunnel: str, *words: str) -> None:
        """Wait until an environment is not as it is wanted, for a reason that has these words."""
        wait_for(
            lambda: self.status(tunnel).get("reason", ""),
            lambda reason: reason and all(word in reason for word in words),
            20,
        )

    def leaves_from(self, tunnel: str, source: str) -> None:
        """Wait until all rules of an environment leave from this address."""

        def sources() -> set[str]:
            return {address for rule in self.status(tunnel)["rules"] for address in rule["sources"]}

        wait_for(sources, lambda found: found == {source}, 20)

    def audit(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the audit's lines of one kind that have these fields, oldest first."""
        file = self.state / "egress-audit.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [
            line
            for line in lines
            if line["event"] == event and all(line.get(name) == value for name, value in fields.items())
        ]

    def refused(self, kind: str, words: str) -> dict[str, Any]:
        """Wait until the audit has a refusal of this class whose reason has these words, and return it."""
        lines = wait_for(
            lambda: [line for line in self.audit("decision", refusal=kind) if words in line["reason"]], bool, 20
        )
        return lines[-1]

    def resident_mb(self) -> float:
        """Return the process's resident memory."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1000


@contextlib.contextmanager
def serving_in(world: EgressWorld, directory: Path, **settings: Any) -> Iterator[Serving]:
    """Have the gateway serve; in the end it must stop without complaint."""
    made = Serving(world, directory, **settings)
    try:
        yield made.start()
    finally:
        assert made.stop() == 0


class Service:
    """A server outside; `peers` are the addresses that its clients came from."""

    def __init__(self, host: Host, address: str, port: int, handler: Handler) -> None:
        self.address, self.port = address, port
        self.peers: list[str] = []
        self._socket = host.listener(address, port)
        self._handler = handler

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(writer.get_extra_info("peername")[0])
        try:
            await self._handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def __aenter__(self) -> Service:
        self._server = await asyncio.start_server(self._serve, sock=self._socket, limit=2**20)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one HTTP request with 200 and its first line."""
    request = await reader.readuntil(b"\r\n\r\n")
    body = request.partition(b"\r\n")[0]
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
    await writer.drain()


async def dial(host: Host, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect from a host. Raises `OSError`."""
    made = host.socket()
    try:
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(made, (address, port)), 10)
    except BaseException:
        made.close()
        raise
    return await asyncio.open_connection(sock=made, limit=2**20)


@contextlib.asynccontextmanager
async def dialled(
    host: Host, address: str, port: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect from a host, and close in the end."""
    reader, writer = await dial(host, address, port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Return all that comes before a connection ends, however it ends."""
    seen = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(30):
            while data := await reader.read(65_536):
                seen += data
    return seen


async def answer(host: Host, address: str, port: int, said: bytes) -> bytes:
    """Say something through a forward and return what comes back until the end; nothing if one is not let in."""
    try:
        async with dialled(host, address, port) as (reader, writer):
            writer.write(said)
            writer.write_eof()
            return await rest(reader)
    except OSError as error:
        # Who is not let in may be gone (ENOTCONN) before the end of what is said has left.
        if not isinstance(error, ConnectionError) and error.errno != errno.ENOTCONN:
            raise
        return b""


async def through_proxy(host: Host, tunnel: str, place: str, *, connect: bool) -> tuple[int, bytes]:
    """Ask for `http://place/` by the proxy, in a tunnel (CONNECT) or plainly; return the proxy's or the server's status
    and what follows its head."""
    get = b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"
    named = place.encode()
    async with dialled(host, tunnel, PROXY) as (reader, writer):
        if connect:
            writer.write(b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (named, named))
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split()[1])
            if status != 200:
                return status, await rest(reader)
            writer.write(get % (b"/tunnelled", named))
        else:
            writer.write(get % (b"http://%s/plain" % named, named))
        head = await reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1]), await rest(reader)
