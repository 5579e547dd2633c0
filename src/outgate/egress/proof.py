"""Prove that connections leave this host from an address.

Standards: Linux ip_nonlocal_bind, which lets a socket bind to an address that is not there.
Promises: an address is proven only if it is on this host and, where a witness is set, arrives there as itself; else the
    reason says what was seen and what to do; it takes `seconds` for each of the two at most.
Dangers: without a witness nothing is known of what routers do on the way. The outage of a witness is told as
    what it is, but it is no proof.
Not here: what is done about it (`reconcile`), the other end (`witness`).
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv6Address, ip_address

from outgate.egress import witness as outside
from outgate.egress.audit import endpoint

_PLACE = re.compile(
    r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<host>[a-z0-9](?:[a-z0-9._-]*[a-z0-9.])?)):(?P<port>[0-9]{1,5})", re.I | re.A
)
_REWRITTEN = (
    "something on the way rewrites the source (a masquerading rule on this host or a NAT gateway behind it): exempt"
    " {address} there, or give the program the address that is seen"
)


class Proof:
    """Prove addresses, one after another or several at once. Lives on one event loop."""

    def __init__(
        self, *, witness: str, resolve: Callable[[str], Awaitable[Sequence[str]]], seconds: float = 5.0
    ) -> None:
        """`witness` is host:port or ""; `resolve` finds its addresses. Raises `ValueError`."""
        self._witness = place(witness) if witness else None
        self._resolve = resolve
        self._seconds = seconds

    async def of(self, address: str) -> str:
        """Return "" if connections leave from `address`, else why that is not so and what to do."""
        return await self._is_here(address) or await self._is_seen(address)

    async def _is_here(self, address: str) -> str:
        """Connect from the address to itself: a bare bind would prove nothing."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        plumb = f"give it to this host: ip address add {address}/{'128' if ':' in address else '32'} dev <interface>"
        loop = asyncio.get_running_loop()
        with socket.socket(family) as listening, socket.socket(family) as calling:
            listening.setblocking(False)
            calling.setblocking(False)
            try:
                listening.bind((address, 0))
                listening.listen(1)
                calling.bind((address, 0))
            except OSError as error:
                return f"{address} is not an address of this host ({error.strerror}): {plumb}"
            try:
                async with asyncio.timeout(self._seconds):
                    await loop.sock_connect(calling, listening.getsockname())
                    taken, caller = await loop.sock_accept(listening)
                    taken.close()
            except OSError as error:  # TimeoutError among them
                said = os.strerror(error.errno) if error.errno else f"no answer in {self._seconds:g} s"
                return (
                    f"{address} can be bound to but is not on this host (net.ipv4.ip_nonlocal_bind?): a connection from"
                    f" it to itself fails ({said}); {plumb}"
                )
            if caller != calling.getsockname():
                seen = outside.plain(caller[0])
                return (
                    f"a connection from {address} to itself arrives from {seen}: {_REWRITTEN.format(address=address)}"
                )
        return ""

    async def _is_seen(self, address: str) -> str:
        """Ask the witness which address it sees."""
        if self._witness is None:
            return ""
        name, port = self._witness
        shown = endpoint(name, port)
        try:
            found = await self._addresses(name)
        except Exception as error:
            # Whatever a resolver runs into: there is no proof, and the words say why.
            return f"the witness {shown} (egress.witness) cannot be found: {error or type(error).__name__}"
        fitting = [each for each in found if ip_address(each).version == ip_address(address).version]
        if not fitting:
            return (
                f"the witness {shown} (egress.witness) has no IPv{ip_address(address).version} address to be asked at"
            )
        try:
            seen = await outside.ask((fitting[0], port), address, self._seconds)
        except TimeoutError:
            return (
                f"the witness {shown} (egress.witness) does not answer {address} in {self._seconds:g} s: see that"
                " `outgate egress witness` runs there and that the way back to this address leads here"
            )
        except OSError as error:
            said = os.strerror(error.errno) if error.errno else str(error)
            return (
                f"the witness {shown} (egress.witness) cannot be reached from {address}: {said}; see that"
                " `outgate egress witness` runs there"
            )
        except ValueError as error:
            return f"the witness {shown} (egress.witness): {error}"
        if seen != outside.plain(address):
            return f"a connection from {address} arrives at the witness as {seen}: {_REWRITTEN.format(address=address)}"
        return ""

    async def _addresses(self, name: str) -> Sequence[str]:
        try:
            return (str(ip_address(name)),)
        except ValueError:
            async with asyncio.timeout(self._seconds):
                return await self._resolve(name)


def place(text: str, *, least: int = 1) -> tuple[str, int]:
    """Read `host:port`, `192.0.2.1:7`, `[2001:db8::1]:7`. Raises `ValueError` that says what it should be."""
    found = _PLACE.fullmatch(text)
    if found is None or not least <= int(found["port"]) < 65_536:
        raise ValueError(f"{text!r} is not host:port (an IPv6 address in brackets)")
    if found["six"] is not None:
        return str(IPv6Address(found["six"])), int(found["port"])
    return found["host"].lower().rstrip("."), int(found["port"])
