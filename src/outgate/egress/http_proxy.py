"""The HTTP(S) proxy of each environment: CONNECT to any port, and plain requests in absolute form.

Standards: RFC 9110, RFC 9112; PROXY protocol version 2 (towards targets that are listed); the vendor's modes and
    `nonProxyHosts`.
Promises: connections are made by `Reach` only, by the way that the rule gives the host asked for; whatever a client
    sends ends in an answer that says cause and remedy, or in a reset; each request to a target is told of at decision
    and at close, without its path; a client holds one connection to a target at a time.
Dangers: a client from no client network is reset unheard, and so is one whose response breaks off: only that shows it.
    The ledger has reasons with addresses; answers have none.
Not here: listening (`listeners`), heads (`proxy_request`), plain requests once connected (`proxy_exchange`), tunnels
    (the pump).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import h11

from outgate.base import ids
from outgate.base.tasks import spawn
from outgate.egress import proxy_request, proxy_response
from outgate.egress.audit import Connection, endpoint
from outgate.egress.forwarder import HeaderTo, Live, nobody
from outgate.egress.gate import Gate, Limits
from outgate.egress.ledger import Ledger
from outgate.egress.non_proxy_hosts import spared
from outgate.egress.plan import WEB_PORTS, Proxy, Rule, Way
from outgate.egress.proxy_exchange import Exchange, Result
from outgate.egress.proxy_request import Asked, BadRequest, Kind
from outgate.egress.pump import Ended, Flow, Pump
from outgate.egress.reach import Reach
from outgate.egress.refusal import Refused
from outgate.egress.sockets import Key, plain
from outgate.smtp.proxy_header import encode_v2

_PIECE = 64 * 1024
# How long, and for how many octets, a client that has been answered may go on sending before it is cut off.
_LINGER_S = 2.0
_LINGER_OCTETS = 1024 * 1024
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Patience:
    """What a client may take: octets of a head, seconds for it, seconds between requests, and seconds for a response
    to begin once the client has closed its side."""

    head_bytes: int = 32_768
    head_s: float = 15.0
    keep_s: float = 60.0
    closed_s: float = 30.0


class HttpProxy:
    """A carrier of proxies. Lives on one event loop."""

    def __init__(
        self,
        *,
        reach: Reach,
        gate: Gate,
        ledger: Ledger,
        limits: Limits,
        pump: Pump,
        header_to: HeaderTo = nobody,
        patience: Patience | None = None,
    ) -> None:
        """`header_to` says which targets get a PROXY header."""
        self.reach, self.gate, self.ledger, self.limits, self.pump = reach, gate, ledger, limits, pump
        self.header_to = header_to
        self.patience = patience or Patience()
        # How Via names us: another proxy of ours on the way is no loop.
        self.own = f"outgate-{ids.hex_id()[:12]}".encode("ascii")
        self._sessions: set[_Session] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    def __len__(self) -> int:
        return len(self._sessions)

    def live(self) -> list[Live]:
        """Return what goes on under each proxy that has clients."""
        by_rule: dict[int, list[_Session]] = {}
        for session in self._sessions:
            by_rule.setdefault(id(session.rule), []).append(session)
        return [
            Live(every[0].rule, len(every), sum(each.up for each in every), sum(each.down for each in every))
            for every in by_rule.values()
        ]

    def accepted(self, rule: Rule, sock: socket.socket, client: Key, dialled: Key) -> None:
        """Serve a new client of a proxy. Its non-blocking socket is ours from now on."""
        assert isinstance(rule, Proxy)
        session = _Session(self, rule, sock, client, dialled)
        self._sessions.add(session)
        self._quiet.clear()
        session.begin()

    def withdrawn(self, rules: Collection[Rule]) -> None:
        """Let the clients of these very rules finish what they are at, for `drain_s`."""
        gone = {id(rule) for rule in rules}
        old = [session for session in self._sessions if id(session.rule) in gone]
        for session in old:
            session.drain()

        def end() -> None:
            for session in old:
                session.abort("drained")

        if old:
            asyncio.get_running_loop().call_later(self.limits.drain_s, end)

    def changed(self, rules: Sequence[tuple[Rule, Rule]]) -> None:
        """Let the clients of the old ones finish: a client asks for many targets, and each change may concern one."""
        self.withdrawn([old for old, _ in rules])

    async def close(self) -> None:
        """End every connection."""
        for session in list(self._sessions):
            session.abort("shutdown")
        await self._quiet.wait()

    def forget(self, session: _Session) -> None:
        """Take note that a client has gone."""
        self._sessions.discard(session)
        if not self._sessions:
            self._quiet.set()


class _Gone(Exception):
    """The client left, or has nothing more to ask."""


class _Session:
    """One client, from its acceptance to its end."""

    def __init__(self, proxy: HttpProxy, rule: Proxy, sock: socket.socket, client: Key, dialled: Key) -> None:
        self.rule = rule
        self._proxy = proxy
        self._sock = sock
        self._client = client
        self._dialled = dialled
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._served = 0
        self._draining = False
        self._asking = False
        self._reason = ""
        self._places: list[Callable[[str], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._flow: Flow | None = None
        self._exchange: Exchange | None = None

    @property
    def up(self) -> int:
        """Return how many octets its open connection has given the target so far."""
        return sum(each.up for each in (self._flow, self._exchange) if each is not None)

    @property
    def down(self) -> int:
        """Return how many octets the target has given its open connection so far."""
        return sum(each.down for each in (self._flow, self._exchange) if each is not None)

    def begin(self) -> None:
        """Judge the client by who it is; serve it or not."""
        try:
            self._proxy.gate.admit(self.rule, self._client[0])
        except Refused as refused:
            self._proxy.ledger.refused(self._connection(), refused)
            self._proxy.pump.poller.close(self._sock, reset=True)
            self._proxy.forget(self)
            return
        self._task = spawn(self._run(), "egress http client")
        # Not at the end of the task itself: one that is cancelled before its first step has none.
        self._task.add_done_callback(self._served_all)

    def drain(self) -> None:
        """Ask nothing more of the client; one that asks nothing now is let go."""
        self._draining = True
        if not self._asking and self._flow is None and self._task is not None:
            self.abort("drained")

    def abort(self, reason: str) -> None:
        """End this client at once."""
        self._reason = self._reason or reason
        if self._flow is not None:
            self._flow.abort(reason)
        elif self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            try:
                self._enter(self._proxy.gate.enter_proxy, self._proxy.gate.leave_proxy)
            except Refused as refused:
                await self._refuse(self._connection(), refused)
                return
            while await self._request():
                self._served += 1
        except _Gone:
            pass
        except OSError:
            pass  # the client is not there to be told anything
        except BaseException:
            if self._asking:
                self._reset()
            raise

    def _served_all(self, _: asyncio.Task[None]) -> None:
        if self._flow is None:
            self._sock.close()
            self._leave_all()

    def _leave_all(self) -> None:
        self._leave(0)
        self._proxy.forget(self)

    def _enter(self, enter: Callable[[str], None], leave: Callable[[str], None]) -> None:
        enter(self.rule.environment_id)
        self._places.append(leave)

    def _leave(self, keep: int) -> None:
        while len(self._places) > keep:
            self._places.pop()(self.rule.environment_id)

    async def _request(self) -> bool:
        """Serve one request; say whether there may be another."""
        connection, method = self._connection(), ""
        self._asking = bool(self._buffer)
        try:
            asked = proxy_request.read_head(
                await self._head(), own=self._proxy.own, most=max(self._proxy.patience.head_bytes, _PIECE)
            )
        except BadRequest as bad:
            self._proxy.ledger.refused(connection, Refused("request", str(bad)))
            await self._answer(proxy_response.bad(bad), method)
            return False
        self._asking = True
        if asked.kind is Kind.OURSELVES:
            return await self._of_ourselves(asked)
        connection = replace(connection, name=asked.name, port=asked.port, method=asked.method)
        try:
            way = self._way(asked)
            if asked.port not in WEB_PORTS:
                self._enter(self._proxy.gate.enter, self._proxy.gate.leave)
            reached = await self._proxy.reach.connect(asked.name, asked.port, way, self._sock)
        except Refused as refused:
            self._leave(1)
            await self._refuse(connection, refused)
            return False
        except asyncio.CancelledError:
            self._proxy.ledger.refused(connection, Refused("withdrawn", self._reason or "shutdown"))
            raise
        source = endpoint(*plain(reached.socket.getsockname()))
        header = self._proxy.header_to(asked.name, asked.port, reached.address)
        target = endpoint(reached.address, asked.port)
        connection = replace(connection, proxy_header=header, target=target, source=source, exception=reached.exception)
        first = encode_v2(self._client, self._dialled) if header else b""
        self._proxy.ledger.opened(connection, reason=f"leaves from {source} ({way.mode.value})")
        if asked.kind is Kind.CONNECT:
            self._tunnel(connection, reached.socket, first)
            return False
        return await self._forward(connection, asked, reached.socket, first)

    async def _head(self) -> bytes:
        """Return the next head. Raises `BadRequest`, or `_Gone` when there is none."""
        patience = self._proxy.patience
        looked_at, preceded = 0, False
        if not self._buffer:
            try:
                async with asyncio.timeout(patience.keep_s if self._served else patience.head_s):
                    await self._more()
            except TimeoutError:
                raise _Gone from None  # it asked for nothing
        self._asking = True
        try:
            async with asyncio.timeout(patience.head_s):
                while True:
                    if not preceded and self._buffer.startswith(b"\r\n"):
                        # RFC 9112 section 2.2: an empty line before a request is some old client's mistake.
                        self._buffer, looked_at, preceded = self._buffer[2:], 0, True
                    length = proxy_request.head_length(self._buffer, looked_at)
                    if (length or len(self._buffer)) > patience.head_bytes:
                        raise BadRequest(431, f"the head is longer than {patience.head_bytes} octets")
                    if length:
                        break
                    looked_at = len(self._buffer)
                    await self._more()
        except TimeoutError:
            raise BadRequest(408, f"the head was not whole within {patience.head_s:g} s") from None
        head, self._buffer = self._buffer[:length], self._buffer[length:]
        return head

    async def _more(self) -> None:
        data = await self._loop.sock_recv(self._sock, _PIECE)
        if not data:
            raise _Gone
        self._buffer += data

    def _way(self, asked: Asked) -> Way:
        """Return how the host that is asked for may be reached. Raises `Refused`."""
        entry = spared(asked.name, self.rule.non_proxy_hosts)
        if not entry:
            return self.rule.way
        if asked.port not in WEB_PORTS:
            raise Refused("port", f"{asked.name} is a non-proxy host ({entry}): port {asked.port} is closed")
        if self.rule.spared is None:
            raise Refused("closed", f"{asked.name} is a non-proxy host ({entry}), and there is no way for those")
        return self.rule.spared

    async def _of_ourselves(self, asked: Asked) -> bool:
        """Answer OPTIONS that is meant for the proxy; what it had as content ends the connection."""
        again = isinstance(asked.inbound.next_event(), h11.EndOfMessage) and not self._draining
        head = asked.inbound.send(proxy_response.ourselves(last=not again))
        await self._tell(head + asked.inbound.send(h11.EndOfMessage()))
        if again and asked.inbound.our_state is h11.DONE:
            # One piece may hold thousands of these, and neither reading nor sending need wait: others have their turn.
            await asyncio.sleep(0)
            return True
        await self._linger()
        return False

    def _tunnel(self, connection: Connection, target: socket.socket, first: bytes) -> None:
        """Give both sockets to the pump, which closes them; the client has no more to ask of us."""
        early, self._buffer = self._buffer, b""

        def ended(how: Ended) -> None:
            self._told(connection, how.up + len(early), how.down, how.duration_s, how.reason)
            self._leave_all()

        self._flow = self._proxy.pump.join(
            self._sock, target, to_target=first + early, to_client=_ESTABLISHED, ended=ended
        )

    async def _forward(self, connection: Connection, asked: Asked, target: socket.socket, first: bytes) -> bool:
        limits, patience = self._proxy.limits, self._proxy.patience
        began = self._loop.time()
        self._exchange = exchange = Exchange(
            asked,
            self._sock,
            target,
            own=self._proxy.own,
            first=first,
            idle_s=limits.idle_timeout_s,
            closed_s=patience.closed_s,
            head_bytes=max(patience.head_bytes, _PIECE),
        )
        try:
            result = await exchange.run(self._buffer, lambda: self._draining)
        except BaseException:
            target.close()
            self._told(connection, exchange.up, exchange.down, self._loop.time() - began, self._reason or "failed")
            raise
        self._buffer = result.rest
        if result.switched:
            self._switch(connection, exchange, target, result, began)
            return False
        target.close()
        self._exchange = None
        self._told(connection, exchange.up, exchange.down, self._loop.time() - began, result.reason)
        self._leave(1)
        if result.answer:
            await self._answer(_failed(result, connection), asked.method)
        elif result.broken:
            self._reset()
        elif result.keep and not self._draining:
            return True
        elif result.reason == "finished":
            await self._linger()
        return False

    def _switch(
        self, connection: Connection, exchange: Exchange, target: socket.socket, result: Result, began: float
    ) -> None:
        """Go on as a tunnel. What the exchange has moved is counted with what the tunnel moves."""
        up, down = exchange.up + len(result.rest), exchange.down

        def ended(how: Ended) -> None:
            self._told(connection, up + how.up, down + how.down, self._loop.time() - began, how.reason)
            self._leave_all()

        self._flow = self._proxy.pump.join(
            self._sock, target, to_target=result.rest, to_client=result.begun, ended=ended
        )

    def _told(self, connection: Connection, up: int, down: int, seconds: float, reason: str) -> None:
        self._proxy.ledger.closed(connection, bytes_up=up, bytes_down=down, duration_s=seconds, reason=reason)

    async def _refuse(self, connection: Connection, refused: Refused) -> None:
        self._proxy.ledger.refused(connection, refused)
        await self._answer(proxy_response.refusal(refused, connection.name, connection.port), connection.method)

    async def _answer(self, answer: proxy_response.Answer, method: str) -> None:
        """Send an answer of our own, the last on this connection."""
        await self._tell(proxy_response.encode(answer, method))
        await self._linger()

    async def _tell(self, octets: bytes) -> None:
        """Send what is our own, which the client has to take in time. Raises `OSError` if it does not."""
        async with asyncio.timeout(self._proxy.patience.head_s):
            await self._loop.sock_sendall(self._sock, octets)

    async def _linger(self) -> None:
        """Let the client read what it was sent: closing on what it still sends would be a reset."""
        octets = 0
        with contextlib.suppress(TimeoutError, OSError):
            self._sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(_LINGER_S):
                while octets < _LINGER_OCTETS and (data := await self._loop.sock_recv(self._sock, _PIECE)):
                    octets += len(data)

    def _reset(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _connection(self, **known: Any) -> Connection:
        return Connection(ids.short_id(), self.rule, endpoint(*self._client), **known)


def _failed(result: Result, connection: Connection) -> proxy_response.Answer:
    """Return what a client is told of an exchange that ended before its response began."""
    if result.answer in (400, 408):
        return proxy_response.bad(BadRequest(result.answer, result.reason))
    if result.answer == 504:
        return proxy_response.refusal(Refused("timeout", result.reason), connection.name, connection.port)
    return proxy_response.broke_off(connection.name, connection.port)
