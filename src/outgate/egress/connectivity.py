"""Test whether an environment's traffic gets to a host and port: names, the port, and HTTP(S) on it.

Standards: RFC 9110, 9112 (GET and status line); the vendor's connectivity test: shape, words, 5 seconds in all.
Promises: what is dialled is dialled as the environment's connections are (`reach`): from its address, past the guard. A
    denied address is told of and never dialled, so its answer says nothing of what listens there. Resolvers are asked
    afresh and in parallel; equal answers are one. A certificate that proves nothing is a note, not a failure.
Dangers: what a server says is a stranger's word: of it, a status and a short printable reason are told.
Not here: who may test (`api.cloud_manager.connectivity`), resolving for forwards (`reach`).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from outgate.domains.ask import Question
from outgate.egress.plan import Way
from outgate.egress.poll import poller
from outgate.egress.reach import Reach, Reached
from outgate.egress.refusal import Kind, Refused
from outgate.net.dns import Asker
from outgate.net.tls import opportunistic_context, verified_context

Json = dict[str, object]

NO_IPS = "No IPs resolved for host"
NOT_HTTP = "Not an HTTP/HTTPS service"
TIMED_OUT = "Connection timed out"
TOO_LATE = "Request timeout"
REACHABLE = "Reachable"
NO_PORT = "Unreachable: Port not accessible"
NO_NAME = "Unreachable: DNS resolution failed"

_ERRORS: dict[Kind, str] = {
    "dns": NO_IPS,
    "guard": "Address not allowed",
    "source": "No address to leave from",
    "refused": "Connection refused",
    "timeout": TIMED_OUT,
    "unreachable": "Network unreachable",
}
_LINE = 8192
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: ([^\r\n]*))?\r?\n")
_GREETING = re.compile(rb"220[ -]")


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds: for everything, for a connection, and for a conversation (of which there are three at most)."""

    total: float = 5.0
    connect: float = 1.5
    converse: float = 1.0


@dataclass(frozen=True, slots=True)
class _Said:
    """What came of one GET: a status with its reason, or what was there instead of HTTP."""

    status: int = 0
    reason: str = ""
    late: bool = False
    tls: bool = False
    certificate: str = ""
    greets: bool = False


class Connectivity:
    """Test connections. Lives on one event loop."""

    def __init__(
        self,
        *,
        resolvers: Sequence[Asker],
        ways: Callable[[str, str, int], Way | str],
        times: Times = Times(),
        verified: Callable[[], ssl.SSLContext] = verified_context,
    ) -> None:
        """`ways` tells how an environment's connections to a host and port leave by what is in force now, or why none
        do."""
        if not resolvers:
            raise ValueError("a connectivity test needs at least one resolver")
        self._resolvers = tuple(resolvers)
        self._ways = ways
        self._times = times
        self._verified = verified

    async def test(self, environment_id: str, host: str, port: int) -> Json:
        """Return the result in the vendor's shape. Raises `Refused` ("closed") if nothing leaves the environment."""
        way = self._ways(environment_id, host, port)
        if isinstance(way, str):
            raise Refused("closed", way)
        try:
            async with asyncio.timeout(self._times.total):
                entries = await self._answers(host)
                found = await asyncio.gather(*(self._entry(*entry, host, port, way) for entry in entries))
                return {"resolvers": list(found)}
        except TimeoutError:
            return {"error": TOO_LATE}

    # -- names ---------------------------------------------------------------------------------------------------------

    async def _answers(self, host: str) -> list[tuple[str, tuple[str, ...], str]]:
        """Return for each resolver its name, the addresses, and why there are none."""
        try:
            return [("default", (str(ip_address(host)),), "")]
        except ValueError:
            pass
        answers = await asyncio.gather(*(self._ask(resolver, host) for resolver in self._resolvers))
        # In another order, or with another failure, the answer is the same.
        if len({frozenset(addresses) for addresses, _ in answers}) == 1:
            return [("default", *answers[0])]
        return [(f"resolver_{number}", *answer) for number, answer in enumerate(answers, 1)]

    async def _ask(self, resolver: Asker, host: str) -> tuple[tuple[str, ...], str]:
        answers = await asyncio.gather(*(resolver.ask(Question(host, kind), fresh=True) for kind in ("A", "AAAA")))
        found = tuple(str(record) for answer in answers for record in answer.records)
        failed = [answer.status for answer in answers if answer.failed] or [answers[0].status]
        return found, "" if found else f"the resolver says {failed[0]}"

    # -- the port ------------------------------------------------------------------------------------------------------

    async def _entry(self, name: str, addresses: tuple[str, ...], why: str, host: str, port: int, way: Way) -> Json:
        if not addresses:
            return {
                "name": name,
                "dns_resolution": {"error": NO_IPS},
                "port_open": False,
                "http_connectivity": {"error": NO_IPS, "note": why},
                "reachability": NO_NAME,
            }
        with contextlib.closing(_Door(host, port, way, addresses, self._times.connect)) as door:
            is_open, http = await self._port(door)
        return {
            "name": name,
            "dns_resolution": {"ips": list(addresses)},
            "port_open": is_open,
            "http_connectivity": http,
            "reachability": REACHABLE if is_open else NO_PORT,
        }

    async def _port(self, door: _Door) -> tuple[bool, Json]:
        # Made first: that takes a moment, and reads files; a connection would be nobody's meanwhile.
        context = await asyncio.to_thread(self._verified)
        try:
            reached = await door.open()
        except Refused as refused:
            return False, {"error": _ERRORS.get(refused.kind, "Connection failed"), "note": str(refused)}
        try:
            return True, await self._http(door, reached, context)
        except Refused as refused:
            # It was open a moment ago; that it is not any more is about what speaks there.
            return True, {"error": _ERRORS.get(refused.kind, "Connection failed"), "note": str(refused)}

    # -- HTTP ----------------------------------------------------------------------------------------------------------

    async def _http(self, door: _Door, reached: Reached, context: ssl.SSLContext) -> Json:
        """GET `/` over TLS, then without."""
        secure = await self._get(door, reached, context)
        if secure.certificate:
            again = await self._get(door, await door.open(), opportunistic_context())
            secure = _Said(again.status, again.reason, again.late, again.tls, secure.certificate, again.greets)
        if secure.status:
            return _told("HTTPS", secure)
        plain = await self._get(door, await door.open(), None)
        if plain.status:
            return _told("HTTP", plain)
        error: Json = {"error": TIMED_OUT if plain.late and not secure.tls else NOT_HTTP}
        if secure.tls:
            error["note"] = "TLS is spoken there, HTTP is not" + (
                f"; {secure.certificate}" if secure.certificate else ""
            )
        elif plain.greets:
            error["note"] = "it greets as a mail server does: lead a port forward there"
        elif plain.late:
            error["note"] = "the port is open, and nothing is said there"
        return error

    async def _get(self, door: _Door, reached: Reached, context: ssl.SSLContext | None) -> _Said:
        """GET `/` over a connection, which is closed then."""
        writer: asyncio.StreamWriter | None = None
        tls = False
        try:
            async with asyncio.timeout(self._times.converse):
                reader, writer = await asyncio.open_connection(
                    sock=reached.socket, limit=_LINE, ssl=context, server_hostname=door.host if context else None
                )
                tls = context is not None
                writer.write(door.request)
                line = await reader.readline()
        except TimeoutError:
            return _Said(late=True, tls=tls)
        except ssl.SSLCertVerificationError as error:
            said = re.sub(r"[^ -~]", "?", str(error.verify_message or error))[:200]
            return _Said(tls=True, certificate=f"the certificate does not prove the name: {said}")
        except (OSError, ValueError):
            # No TLS, a name that cannot be one in TLS, a line without an end, a reset.
            return _Said(tls=tls)
        finally:
            if writer is not None:
                writer.transport.abort()
            else:
                reached.socket.close()
        found = _STATUS.fullmatch(line)
        if found is None:
            return _Said(tls=tls, greets=_GREETING.match(line) is not None)
        reason = re.sub(r"[^ -~]", "?", (found[2] or b"").decode("latin-1").strip())[:100]
        return _Said(int(found[1]), reason, tls=tls)


class _Door:
    """The port that is tested, by way of the addresses that one resolver has told."""

    def __init__(self, host: str, port: int, way: Way, addresses: tuple[str, ...], seconds: float) -> None:
        async def known(_name: str) -> Sequence[str]:
            return addresses

        self.host = host
        self._port = port
        self._way = way
        self._poller = poller(asyncio.get_running_loop())
        self._reach = Reach(known, connect_timeout_s=seconds, poller=self._poller)
        shown = (f"[{host}]" if ":" in host else host) + ("" if port in (80, 443) else f":{port}")
        self.request = (
            f"GET / HTTP/1.1\r\nHost: {shown}\r\nUser-Agent: outgate\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        ).encode("ascii")

    async def open(self) -> Reached:
        """Connect as a connection of the environment would. Raises `Refused`."""
        return await self._reach.connect(self.host, self._port, self._way)

    def close(self) -> None:
        """Give up what is being connected."""
        self._reach.close()
        self._poller.stop()


def _told(protocol: str, said: _Said) -> Json:
    told: Json = {"protocol": protocol, "status_code": said.status, "reason": said.reason}
    if said.certificate:
        told["note"] = said.certificate
    return told
