"""Hosts for tests: network namespaces with links between them, and sockets, programs and rules inside.

Standards: Linux network namespaces (`ip netns`), veth, nftables.
Promises: names are this process's own; all of it is gone after `with World()`, also when the test failed, and what a
killed process left behind goes when the next one begins; no address or route outside the namespaces changes.
Dangers: needs root and the commands `ip` and `nft` (tests/packages.sh installs them). `inside` moves the calling thread:
no `await` within. The addresses are made up; the namespaces have no way out, so nothing real is ever reached.
Not here: what the hosts talk about.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PREFIX = "outgate-test-"
_CLONE_NEWNET = 0x40000000
_PLACES = Path("/run/netns")
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"
    return done.stdout


class Host:
    """One namespace. Made by `World.host`."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name = name
        self.namespace = namespace
        _ip("netns", "add", namespace)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words: str) -> str:
        """Run `ip` for this host."""
        return _ip("-n", self.namespace, *words)

    def nft(self, *words: str, rules: str = "") -> str:
        """Run an nftables command, or apply `rules` as a file has them, on this host; return what is printed."""
        command = ["ip", "netns", "exec", self.namespace, "nft", *(words or ("-f", "-"))]
        done = subprocess.run(command, input=rules, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"nft: {done.stderr.strip()}"
        return done.stdout

    def sysctl(self, **values: object) -> None:
        """Set kernel parameters of this host's network; `__` stands for the dot."""
        with self.inside():
            for name, value in values.items():
                Path("/proc/sys/net", *name.split("__")).write_text(str(value))

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Be on this host: sockets made and programs started by this thread belong to it."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            there = os.open(_PLACES / self.namespace, os.O_RDONLY)
            try:
                _enter(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _enter(own)
        finally:
            os.close(own)

    def socket(self, source: str = "") -> socket.socket:
        """Return a non-blocking TCP socket of this host, bound to `source` if one is given. Raises `OSError`."""
        with self.inside():
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        try:
            if source:
                made.bind((source, 0))
        except OSError:
            made.close()
            raise
        return made

    def listener(self, address: str, port: int = 0, backlog: int = 1024) -> socket.socket:
        """Return a non-blocking socket that listens on this host."""
        with self.inside():
            made = socket.create_server((address, port), backlog=backlog)
        made.setblocking(False)
        return made

    def connects(self, address: str, port: int, seconds: float = 5.0) -> socket.socket:
        """Return a blocking connection from this host. Raises `OSError`."""
        with self.inside():
            return socket.create_connection((address, port), seconds)

    def has(self, address: str, device: str = "lo") -> None:
        """Give this host one more address."""
        self.ip("address", "add", f"{address}/32", "dev", device)

    def loses(self, address: str, device: str = "lo") -> None:
        """Take an address away."""
        self.ip("address", "del", f"{address}/32", "dev", device)

    def watch(self) -> None:
        """Begin to count each packet of TCP and UDP that comes in, by who sent it and to which port."""
        self.nft(
            rules="table ip seen {\n"
            "  set packets { type ipv4_addr . inet_service; flags dynamic; counter; }\n"
            "  chain input {\n"
            "    type filter hook input priority 0;\n"
            "    meta l4proto { tcp, udp } add @packets { ip saddr . th dport };\n"
            "  }\n"
            "}\n"
        )

    def forget_seen(self) -> None:
        """Begin to count anew."""
        self.nft("flush", "set", "ip", "seen", "packets")

    def seen(self) -> set[tuple[str, int]]:
        """Return (source address, port) of all packets since `watch` or `forget_seen`."""
        documents: list[dict[str, Any]] = json.loads(self.nft("-j", "list", "set", "ip", "seen", "packets"))["nftables"]
        (found,) = (document["set"] for document in documents if "set" in document)
        return {tuple(entry["elem"]["val"]["concat"]) for entry in found.get("elem", [])}

    def _close(self) -> None:
        _remove(self.namespace)


def _remove(namespace: str) -> None:
    """End what runs in a namespace of ours, and delete it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for _ in range(40):
            pids = [int(line) for line in _ip("netns", "pids", namespace).split()]
            # A thread that is `inside` counts as its process, which is this one.
            pids = [pid for pid in pids if pid != os.getpid()]
            if not pids:
                break
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.05)
    _ip("netns", "del", namespace)


def _sweep() -> None:
    """Remove what processes that are gone have left."""
    for place in _PLACES.glob(f"{_PREFIX}*"):
        owner = place.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", owner).exists():
            with contextlib.suppress(AssertionError):  # another process may be sweeping too
                _remove(place.name)


class World:
    """Hosts and the links between them: `with World() as world`."""

    def __init__(self) -> None:
        assert os.geteuid() == 0, "network namespaces need root: run these tests as root"
        _sweep()
        self._mark = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(2)}-"
        self._hosts: list[Host] = []
        self._links = 0

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def host(self, name: str) -> Host:
        """Make a host. It has loopback and no link yet."""
        made = Host(name, self._mark + name)
        self._hosts.append(made)
        return made

    def wire(self, one: Host, one_address: str, other: Host, other_address: str) -> tuple[str, str]:
        """Join two hosts by a cable whose ends have these addresses (`10.0.0.1/24`); return the names of the ends."""
        self._links += 1
        ends = f"{other.name[:10]}{self._links}", f"{one.name[:10]}{self._links}"
        _ip("link", "add", ends[0], "netns", one.namespace, "type", "veth",
            "peer", "name", ends[1], "netns", other.namespace)  # fmt: skip
        for host, end, address in ((one, ends[0], one_address), (other, ends[1], other_address)):
            host.ip("address", "add", address, "dev", end)
            host.ip("link", "set", end, "up")
        return ends

    def close(self) -> None:
        """Remove everything."""
        while self._hosts:
            self._hosts.pop()._close()


def listening(host: Host) -> set[tuple[str, int]]:
    """Return (address, port) of every IPv4 socket that listens on a host."""
    with host.inside():
        lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
    found: set[tuple[str, int]] = set()
    for line in lines:
        _, local, _, state, *_ = line.split()
        if state == "0A":
            address, _, port = local.partition(":")
            found.add((socket.inet_ntoa(int(address, 16).to_bytes(4, sys.byteorder)), int(port, 16)))
    return found
