"""Fetch one small document over HTTPS, from a server that nobody here has chosen.

Standards: RFC 9110; RFC 8461 section 3.3 (what a policy's fetch must hold to); RFC 6125 (names of certificates).
Promises: the certificate is checked for the name; the address that was judged is the one that is connected to; no
redirect is followed, no proxy used, nothing decompressed, no cookie kept; size and time have a limit.
Dangers: whoever publishes a name decides where it leads: `permitted` must keep it from our own network.
Not here: what the document says (`domains.mta_sts`), keeping it (`relay.sts_policies`).
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

_READ = 16_384


class FetchFailed(Exception):
    """There is no document; the text says why."""


class Fetcher:
    """Fetches documents. Belongs to one event loop."""

    def __init__(
        self,
        *,
        addresses: Callable[[str], Awaitable[list[str]]],
        permitted: Callable[[str, str], bool],
        context: Callable[[], ssl.SSLContext],
        port: int = 443,
        deadline: float = 30.0,
    ) -> None:
        """`addresses` looks a name up; `permitted` judges (name, address) before it is connected to; `context`, made
        when it is first needed, checks chain and name; `deadline` is in seconds, for everything together."""
        self._addresses = addresses
        self._permitted = permitted
        self._make_context = context
        self._context: ssl.SSLContext | None = None
        self._port = port
        self._deadline = deadline

    async def text(self, host: str, path: str, limit: int) -> bytes:
        """Return the text/plain document at `https://host/path`, of `limit` octets at most. Raises `FetchFailed`."""
        # Both take a tenth of a second, and few need them: not at the start, and not on the event loop.
        aiohttp = await asyncio.to_thread(importlib.import_module, "aiohttp")
        if self._context is None:
            self._context = await asyncio.to_thread(self._make_context)
        try:
            async with asyncio.timeout(self._deadline):
                return await self._fetch(aiohttp, await self._checked(host), host, path, limit)
        except TimeoutError:
            raise FetchFailed(f"https://{host}{path}: not fetched within {self._deadline:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchFailed(f"https://{host}{path}: {error or type(error).__name__}"[:500]) from None

    async def _checked(self, host: str) -> list[str]:
        found = await self._addresses(host)
        if not found:
            raise FetchFailed(f"{host} has no address")
        allowed = [address for address in found if self._permitted(host, address)]
        if not allowed:
            raise FetchFailed(f"{host} leads to addresses that may not be connected to: {', '.join(found[:5])}")
        return allowed

    async def _fetch(self, aiohttp: Any, addresses: list[str], host: str, path: str, limit: int) -> bytes:
        connector = aiohttp.TCPConnector(
            resolver=_Checked(addresses), ssl=self._context, use_dns_cache=False, force_close=True
        )
        url = f"https://{host}{path}" if self._port == 443 else f"https://{host}:{self._port}{path}"
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={"Accept": "text/plain", "Accept-Encoding": "identity", "User-Agent": "Outgate"},
            ) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise FetchFailed(f"https://{host}{path}: the server answered {response.status}")
            if response.content_type != "text/plain":
                raise FetchFailed(f"https://{host}{path}: it is {response.content_type[:100]}, not text/plain")
            text = bytearray()
            while piece := await response.content.read(_READ):
                text += piece
                if len(text) > limit:
                    raise FetchFailed(f"https://{host}{path}: longer than {limit} octets")
            return bytes(text)


class _Checked:
    """What aiohttp asks for the addresses of a name: those that were found and judged already (its
    `AbstractResolver`)."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[dict[str, object]]:
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": socket.IPPROTO_TCP,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in self._addresses[:8]
        ]

    async def close(self) -> None:
        pass
