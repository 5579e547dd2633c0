"""The laptop mode's door: HTTP only from pages and programs that mean this machine.

Standards: RFC 9110 section 7.2 (Host), RFC 6454 (Origin).
Promises: a request whose Host names another machine, or whose Origin is another machine's or another port's page,
is refused before anything reads it, so that a page elsewhere cannot reach this one through the user's browser (DNS
rebinding, cross-site requests).
Dangers: a program on this machine can send any Host it likes: tokens guard what matters.
Not here: tokens (`api.identity.tokens`).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class LocalOnly:
    """An ASGI application that lets only local requests through to another."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refused = foreign([(name.lower(), value) for name, value in scope["headers"]])
            if refused:
                await _refuse(send, refused)
                return
        await self._app(scope, receive, send)


def foreign(headers: list[tuple[bytes, bytes]]) -> str:
    """Return which header names another machine ("Host" or "Origin"), or ""."""
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 or _name(f"//{hosts[0].decode('latin-1')}") not in _LOCAL:
        return "Host"
    port = _port(f"//{hosts[0].decode('latin-1')}")
    for name, value in headers:
        # "null" is nobody we know. Another port of this machine is another's page, and an origin of its own.
        origin = value.decode("latin-1")
        if name == b"origin" and (_name(origin) not in _LOCAL or _port(origin) != port):
            return "Origin"
    return ""


def _name(url: str) -> str:
    try:
        parts = urlsplit(url)
        return "" if "@" in parts.netloc else (parts.hostname or "").rstrip(".")
    except ValueError:
        return ""


def _port(url: str) -> int | None:
    try:
        parts = urlsplit(url)
        return parts.port or {"https": 443}.get(parts.scheme, 80)
    except ValueError:
        return None


async def _refuse(send: Send, header: str) -> None:
    body = json.dumps(
        {
            "error": f"the {header} header names another machine" + (" or port" if header == "Origin" else ""),
            "remedy": "call the laptop mode as 127.0.0.1 or localhost, from a page it served itself",
        }
    ).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
