"""Several applications behind one address: which one a path belongs to.

Standards: ASGI 3 (`root_path`).
Promises: whatever stands behind a prefix, line ends too, goes to the application of that prefix, so that every
    refusal of an API is in that API's own form.
Not here: what the applications answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send


class Mounts:
    """Hand each request to the application of the longest prefix that fits, else to `otherwise`."""

    def __init__(self, prefixes: Mapping[str, ASGIApp], otherwise: ASGIApp) -> None:
        """`prefixes` begin with a slash and do not end with one."""
        self._prefixes = sorted(prefixes.items(), key=lambda item: -len(item[0]))
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            root = scope.get("root_path", "")
            path = scope["path"].removeprefix(root)
            for prefix, app in self._prefixes:
                if path == prefix or path.startswith(prefix + "/"):
                    mounted = {"app_root_path": scope.get("app_root_path", root), "root_path": root + prefix}
                    await app({**scope, **mounted}, receive, send)
                    return
        await self._otherwise(scope, receive, send)
