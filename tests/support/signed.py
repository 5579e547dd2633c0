"""DNSSEC for tests: a signed zone, the name server that speaks for it, and a real Unbound that validates it."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.dnssec
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rdtypes.ANY.RRSIG
import dns.rrset
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec

from support.ports import reserved_port

Server = socketserver.BaseServer
_IN = dns.rdataclass.IN
_SOA = "ns.{zone} hostmaster.{zone} 1 3600 600 86400 1"


class SignedZone:
    """A zone that is signed anew whenever something is put. `spoilt` names have signatures that are wrong;
    questions for types that are `failing` get SERVFAIL."""

    def __init__(self, name: str = "test.", *, signed: bool = True) -> None:
        self.origin = dns.name.from_text(name)
        self._key = ec.generate_private_key(ec.SECP256R1()) if signed else None
        self._records: dict[tuple[dns.name.Name, str], list[str]] = {}
        self._spoilt: set[tuple[dns.name.Name, str]] = set()
        self.failing: set[str] = set()
        self.clear()

    def clear(self) -> None:
        """Forget what was put."""
        name = self.origin.to_text()
        self._records.clear()
        self.failing.clear()
        self._spoilt.clear()
        self.put(name, "SOA", _SOA.format(zone=name))
        self.put(name, "NS", f"ns.{name}")
        self.put(f"ns.{name}", "A", "127.0.0.1")
        self.sign()

    @property
    def anchor(self) -> str:
        """Return the key that vouches for the zone, as a resolver's configuration has it."""
        assert self._key is not None
        return f"{self.origin} IN DNSKEY {self._dnskey().to_text()}"

    def _dnskey(self) -> dns.rdata.Rdata:
        assert self._key is not None
        return dns.dnssec.make_dnskey(self._key.public_key(), dns.dnssec.Algorithm.ECDSAP256SHA256, flags=257)

    def put(self, name: str, rdtype: str, *values: str, spoilt: bool = False) -> None:
        """Put records of a name and type in place of those that were; `sign` makes them count."""
        key = (dns.name.from_text(name), rdtype)
        self._records[key] = list(values)
        (self._spoilt.add if spoilt else self._spoilt.discard)(key)

    def sign(self) -> None:
        """Make the zone anew, with its signatures and the NSEC records that deny."""
        zone = dns.zone.Zone(self.origin, relativize=False)
        with zone.writer() as change:
            for (name, rdtype), values in self._records.items():
                change.add(name, dns.rdataset.from_text("IN", rdtype, 1, *values))
            if self._key is not None:
                keys: Any = [(self._key, self._dnskey())]
                dns.dnssec.sign_zone(zone, change, keys=keys, lifetime=86_400)
        for name, rdtype in self._spoilt:
            self._spoil(zone, name, rdtype)
        self._zone = zone

    def _spoil(self, zone: dns.zone.Zone, name: dns.name.Name, rdtype: str) -> None:
        rdataset = zone.find_rdataset(name, "RRSIG", rdtype)
        for good in list(rdataset):
            assert isinstance(good, dns.rdtypes.ANY.RRSIG.RRSIG)
            wrong = good.replace(signature=bytes(64))
            rdataset.clear()
            rdataset.add(wrong)
        with zone.writer() as change:
            change.replace(name, rdataset)

    # -- answering ------------------------------------------------------------------------------------------

    def answer(self, wire: bytes) -> bytes:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        response = dns.message.make_response(query)
        if dns.rdatatype.to_text(question.rdtype) in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response.to_wire()
        response.flags |= dns.flags.AA
        name = question.name
        for _ in range(8):
            node = self._zone.get_node(name)
            alias = node.get_rdataset(_IN, dns.rdatatype.CNAME) if node else None
            if alias is not None and question.rdtype != dns.rdatatype.CNAME:
                self._add(response.answer, name, dns.rdatatype.CNAME)
                name = alias[0].target  # type: ignore[attr-defined]
                if not name.is_subdomain(self.origin):
                    return response.to_wire()
                continue
            if node is not None and node.get_rdataset(_IN, question.rdtype) is not None:
                self._add(response.answer, name, question.rdtype)
            else:
                self._deny(response, name, node is not None)
            return response.to_wire()
        return response.to_wire()

    def _add(self, section: list[dns.rrset.RRset], name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> None:
        for kind, covers in ((rdtype, dns.rdatatype.NONE), (dns.rdatatype.RRSIG, rdtype)):
            rdataset = self._zone.get_rdataset(name, kind, covers)
            if rdataset is None:
                continue
            rrset = dns.rrset.RRset(name, _IN, kind, covers)
            rrset.update(rdataset)
            if rrset not in section:
                section.append(rrset)

    def _deny(self, response: dns.message.Message, name: dns.name.Name, there: bool) -> None:
        names = sorted(self._zone.nodes)
        self._add(response.authority, self.origin, dns.rdatatype.SOA)
        between = any(other.is_subdomain(name) for other in names)
        if there:
            self._add(response.authority, name, dns.rdatatype.NSEC)
            return
        before = [other for other in names if other < name][-1]
        self._add(response.authority, before, dns.rdatatype.NSEC)
        if between:
            return
        response.set_rcode(dns.rcode.NXDOMAIN)
        encloser = name.parent()
        while not any(other.is_subdomain(encloser) for other in names):
            encloser = encloser.parent()
        wildcard = dns.name.Name([b"*", *encloser.labels])
        self._add(response.authority, [other for other in names if other < wildcard][-1], dns.rdatatype.NSEC)


@contextlib.contextmanager
def authoritative(zone: SignedZone) -> Iterator[int]:
    """Serve `zone` in threads of its own on 127.0.0.1, over UDP and TCP; yield the port."""

    class Udp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            answer = zone.answer(data)
            if len(answer) > 1232:
                answer = dns.message.make_response(dns.message.from_wire(data)).to_wire()
                answer = answer[:2] + bytes([answer[2] | 0x02]) + answer[3:]
            sock.sendto(answer, self.client_address)

    class Tcp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while len(head := self.request.recv(2, socket.MSG_WAITALL)) == 2:
                answer = zone.answer(self.request.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL))
                self.request.sendall(struct.pack("!H", len(answer)) + answer)

    class TcpServer(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with contextlib.ExitStack() as stack:
        udp, tcp = _on_one_port(lambda at: socketserver.UDPServer(at, Udp), lambda at: TcpServer(at, Tcp))
        stack.enter_context(udp)
        stack.enter_context(tcp)
        for server in (udp, tcp):
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        yield int(udp.server_address[1])


def _on_one_port(udp: Callable[[Any], Server], tcp: Callable[[Any], Server]) -> tuple[Server, Server]:
    """Return both servers on a port that is free for both."""
    for _ in range(50):
        first = udp(("127.0.0.1", 0))
        try:
            return first, tcp(first.server_address)
        except OSError:
            first.server_close()
    raise AssertionError("no port is free for UDP and TCP")


@contextlib.contextmanager
def unbound(folder: Path, *zones: tuple[SignedZone, int], anchors: tuple[SignedZone, ...]) -> Iterator[tuple[str, int]]:
    """Run Unbound with these zones (and the ports of their servers); yield its address. It believes `anchors` alone."""
    port = reserved_port()
    lines = [
        "server:", 'directory: ""', 'chroot: ""', 'username: ""', f'pidfile: "{folder / "unbound.pid"}"',
        "interface: 127.0.0.1", f"port: {port}", "do-ip6: no", "do-daemonize: no", "use-syslog: no", 'logfile: ""',
        "do-not-query-localhost: no", 'module-config: "validator iterator"', "num-threads: 1", "verbosity: 0",
        "aggressive-nsec: no", "cache-max-negative-ttl: 1", "val-bogus-ttl: 1", "outbound-msg-retry: 2",
        *(f'local-zone: "{zone.origin}" nodefault' for zone, _ in zones),
        *(f'trust-anchor: "{zone.anchor}"' for zone in anchors),
        "remote-control:", "control-enable: no",
    ]  # fmt: skip
    for zone, at in zones:
        lines += ["stub-zone:", f'name: "{zone.origin}"', f"stub-addr: 127.0.0.1@{at}"]
    (folder / "unbound.conf").write_text("\n".join(lines) + "\n")
    with (
        (folder / "unbound.log").open("wb") as log,
        subprocess.Popen(
            ["unbound", "-d", "-c", str(folder / "unbound.conf")], stdout=subprocess.DEVNULL, stderr=log
        ) as process,
    ):
        try:
            _wait(process, port, folder)
            yield "127.0.0.1", port
        finally:
            process.terminate()


def _wait(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    pause = threading.Event()
    for _ in range(1000):
        assert process.poll() is None, (folder / "unbound.log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        pause.wait(0.02)
    raise AssertionError((folder / "unbound.log").read_text())
