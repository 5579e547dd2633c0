"""Keep the listeners of private endpoints as the store's endpoint gateways want them, and say how that went.

Standards: the vendor's lifecycle of an endpoint gateway (pending, stable, failed, deleting).
Promises: a gateway is `stable` once its address is listened on, and gone only when nobody listens there any more; one
    whose address cannot be had, or is outside the networks of now, is `failed` with the reason, and tried again; a
    restart takes all of them up.
Dangers: two gateways never share an address: what is still being drained for one is not opened for another.
Not here: rows (`store.gateways`), listeners (`app`), who is let in through them (`access`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Protocol

from outgate.base.log import Log
from outgate.base.tasks import cancel, spawn
from outgate.model.vpc import EndpointGateway, GatewayState
from outgate.store.gateways import GatewayQueries

_log = Log("outgate.gateways")


class Open(Protocol):
    """Listens on an address for a VPC (CRN) and the endpoint of a region; raises `OSError` if it cannot."""

    def __call__(self, address: str, *, vpc: str, region: str) -> object: ...


@dataclass(frozen=True, slots=True)
class _Listening:
    gateway_id: str
    vpc: str
    region: str
    name: str


class Gateways:
    """The gateways of one machine. Lives on the event loop of its listeners."""

    def __init__(
        self,
        store: GatewayQueries,
        *,
        networks: Collection[str],
        open: Open,
        close: Callable[[str], Awaitable[object]],
        publish: Callable[[str, str], None] = lambda name, address: None,
        withdraw: Callable[[str, str], None] = lambda name, address: None,
        retry_s: float = 5.0,
    ) -> None:
        """`networks` hold the addresses that may be opened; `close` stops accepting on one, drains it and returns;
        `publish` and `withdraw` are told (name, address) once an address is open and once it is not wanted any more.
        What failed is tried every `retry_s` seconds."""
        self._store = store
        self._networks = [ip_network(each, strict=False) for each in networks]
        self._open = open
        self._close = close
        self._publish = publish
        self._withdraw = withdraw
        self._retry_s = retry_s
        self._listening: dict[str, _Listening] = {}
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._passing = asyncio.Lock()
        self._poked = asyncio.Event()
        self._stuck = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up what is wanted; then follow what changes."""
        self._loop = asyncio.get_running_loop()
        await self.look()
        self._task = spawn(self._run(), "gateways")

    async def stop(self) -> None:
        """Follow no more. What listens goes on until its owner stops it."""
        await cancel(self._task)
        if self._closing:
            await asyncio.wait(self._closing.values())

    def poke(self) -> None:
        """Look at the store now: something may have changed there. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._poked.set)

    def listens(self, address: str) -> bool:
        """Say whether a gateway's address is open."""
        return address in self._listening

    async def look(self) -> None:
        """Make one pass: close what is not wanted any more, open what is, and write down what has become of it."""
        async with self._passing:
            gateways = await asyncio.to_thread(self._store.wanted)
            wanted = {
                gateway.ip.address: gateway
                for gateway in gateways  # no two want one address: subnets do not overlap
                if gateway.ip is not None and gateway.state is not GatewayState.DELETING
            }
            for address, listening in list(self._listening.items()):
                if address not in wanted or _as_wanted(wanted[address]) != listening:
                    self._shut(address, listening)
            self._stuck = False
            for gateway in gateways:
                await self._bring(gateway)

    async def _bring(self, gateway: EndpointGateway) -> None:
        if gateway.state is GatewayState.DELETING:
            await self._end(gateway)
            return
        address = "" if gateway.ip is None else gateway.ip.address
        if address in self._closing:
            return  # its end pokes
        reason = ""
        if address and address not in self._listening:
            reason = self._listen(gateway, address)
        state = GatewayState.FAILED if reason else GatewayState.STABLE
        self._stuck = self._stuck or bool(reason)
        if (state, reason) == (gateway.state, gateway.reason):
            return
        ip_id = None if gateway.ip is None else gateway.ip.id
        if await asyncio.to_thread(self._store.settle, gateway.id, ip_id, state, reason):
            told = _log.warning if reason else _log.info
            told(f"gateway.{state.value}", gateway=gateway.id, vpc=gateway.vpc.crn, address=address, reason=reason)

    def _listen(self, gateway: EndpointGateway, address: str) -> str:
        """Open an address; return why it could not be, or ""."""
        # Its subnet was judged when it was made, perhaps by other settings.
        if not any(ip_address(address) in network for network in self._networks):
            return f"{address} is in no network that relay.private_networks names: add one, or bind another address"
        try:
            self._open(address, vpc=gateway.vpc.crn, region=gateway.region)
        except OSError as error:
            why = error.strerror or str(error)
            return f"{address} cannot be listened on ({why}): give it to this machine, or bind another address"
        self._listening[address] = _as_wanted(gateway)
        self._tell(self._publish, gateway.service_endpoint, address)
        return ""

    def _tell(self, names: Callable[[str, str], None], name: str, address: str) -> None:
        try:
            names(name, address)
        except Exception:
            # A zone may be full, or not be saved: addresses are opened and closed all the same.
            _log.exception("gateway.name_failed", name=name, address=address)

    def _shut(self, address: str, listening: _Listening) -> None:
        del self._listening[address]
        self._tell(self._withdraw, listening.name, address)
        self._closing[address] = spawn(self._drain(address), "gateway close")

    async def _drain(self, address: str) -> None:
        try:
            await self._close(address)
        finally:
            del self._closing[address]
            self._poked.set()

    async def _end(self, gateway: EndpointGateway) -> None:
        """Forget a gateway, unless its address is still open: the end of that pokes."""
        if gateway.ip is not None and gateway.ip.address in self._closing:
            return
        if await asyncio.to_thread(self._store.end, gateway.id):
            _log.info("gateway.gone", gateway=gateway.id, vpc=gateway.vpc.crn)

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._retry_s if self._stuck else None):
                    await self._poked.wait()
            except TimeoutError:
                pass
            self._poked.clear()
            try:
                await self.look()
            except Exception:
                # The store may be busy or gone for a moment: what listens goes on, and it is looked at again.
                self._stuck = True
                _log.exception("gateways.failed")


def _as_wanted(gateway: EndpointGateway) -> _Listening:
    return _Listening(gateway.id, gateway.vpc.crn, gateway.region, gateway.service_endpoint)
