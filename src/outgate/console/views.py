"""The page at `/`: the inbox, each mail's trail, where to connect and what to paste.

Standards: HTML with a strict content policy (CSP level 3); htmx refreshes the lists, all works without it.
Promises: what a mail holds is shown as text or in a sandboxed frame without scripts and without network;
every value is escaped by the template engine; every response has the policy; a list that has not changed is not
sent again, so that focus and selection stay.
Dangers: in the laptop mode the page shows credentials to whoever may open it: it is served on loopback, to
requests that name it as such (`sandbox.local`), and not beyond.
Not here: the data (handed in), how a mail is read (`reading`), other modes' pages.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException

from outgate.console.paste import recipes
from outgate.console.reading import clean, read_mail
from outgate.trail import hops, moment

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
# A mail's HTML: no scripts, no network, no forms; pictures only those it carries in data URLs.
_MAIL_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
_MOST_MAILS = 100
_MOST_SHOWN = 131_072
_INBOX_ID = re.compile(r"\b(I[0-9A-Z]{17})\b")


class InboxReads(Protocol):
    """What the page needs of the inbox."""

    def items(self) -> list[dict[str, Any]]:
        """Return the mails received, newest first, as the sandbox call lists them."""
        ...

    def raw(self, item_id: str) -> bytes | None:
        """Return a mail's source, or None."""
        ...


@dataclass(frozen=True, slots=True)
class ConsoleData:
    """Where the page's data comes from. Every callable may block; it runs in a thread."""

    dev: Callable[[], dict[str, Any]]
    inbox: InboxReads
    messages: Callable[[], list[dict[str, Any]]]
    message: Callable[[str], dict[str, Any] | None]
    variables: Callable[[], list[dict[str, Any]]]
    networking: Callable[[], dict[str, Any]]
    clock_offset: Callable[[], float]


def build(data: ConsoleData) -> _App:
    """Return the pages as an application to mount at `/`."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    pages = _Pages()
    parts = _Parts(pages, data)
    _overview(app, pages, parts, data)
    _mails(app, pages, data)
    _trails(app, pages, parts, data)

    @app.exception_handler(HTTPException)
    def missing(request: Request, error: HTTPException) -> Response:
        # A program that asks for something this mode does not have is told so in JSON, a person on a page.
        if "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
        return pages.page("missing.html", error.status_code, what="page", name=request.url.path)

    return _WithHeaders(app)


class _WithHeaders:
    """An application all of whose responses have the page's headers, unless they have stricter ones."""

    def __init__(self, app: _App) -> None:
        self._app = app

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        async def sent(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, sent)


class _Pages:
    """The templates."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=PackageLoader("outgate.console"),
            autoescape=select_autoescape(),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def render(self, name: str, /, **values: Any) -> str:
        return clean(self._templates.get_template(name).render(**values))

    def page(self, name: str, status: int = 200, /, **values: Any) -> HTMLResponse:
        return HTMLResponse(self.render(name, **values), status)

    def live(self, path: str, name: str, /, **values: Any) -> tuple[str, Markup]:
        """Return a part that asks `path` for itself again, and its mark: the digest of what it shows."""
        content = Markup(self.render(name, **values))  # noqa: S704 - it comes from an escaping template
        mark = hashlib.sha256(content.encode()).hexdigest()[:16]
        return mark, Markup(self.render("live.html", path=path, mark=mark, content=content))  # noqa: S704 - likewise


class _Parts:
    """The parts of pages that refresh themselves."""

    def __init__(self, pages: _Pages, data: ConsoleData) -> None:
        self._pages = pages
        self._data = data

    def inbox(self) -> tuple[str, Markup]:
        items = self._data.inbox.items()
        return self._pages.live("/part/inbox", "inbox_part.html", inbox=items[:_MOST_MAILS], total=len(items))

    def messages(self) -> tuple[str, Markup]:
        return self._pages.live("/part/messages", "messages_part.html", messages=self._data.messages())

    def environment(self) -> tuple[str, Markup]:
        return self._pages.live(
            "/part/environment",
            "environment_part.html",
            variables=self._data.variables(),
            networking=self._data.networking(),
        )

    def message(self, found: dict[str, Any]) -> tuple[str, Markup]:
        known = {item["id"] for item in self._data.inbox.items()}
        arrived = {
            recipient["mailbox"]: match[1]
            for recipient in found["recipients"]
            if (match := _INBOX_ID.search(recipient["reply"] or "")) and match[1] in known
        }
        path = f"/part/messages/{found['queue_id']}"
        return self._pages.live(
            path, "message_part.html", message=found, hops=hops(found), arrived=arrived, moment=moment
        )


def _unless_seen(request: Request, part: tuple[str, Markup]) -> Response:
    """Return a part, or 204 (leave it as it is) to who shows just this one."""
    mark, content = part
    return Response(status_code=204) if request.query_params.get("seen") == mark else HTMLResponse(content)


def _overview(app: FastAPI, pages: _Pages, parts: _Parts, data: ConsoleData) -> None:
    @app.get("/")
    def overview() -> Response:
        dev = data.dev()
        return pages.page(
            "overview.html",
            dev=dev,
            recipes=recipes(dev),
            inbox=parts.inbox()[1],
            messages=parts.messages()[1],
            environment=parts.environment()[1],
            clock_offset=data.clock_offset(),
        )

    @app.get("/part/inbox")
    def inbox_part(request: Request) -> Response:
        return _unless_seen(request, parts.inbox())

    @app.get("/part/messages")
    def messages_part(request: Request) -> Response:
        return _unless_seen(request, parts.messages())

    @app.get("/part/environment")
    def environment_part(request: Request) -> Response:
        return _unless_seen(request, parts.environment())


def _mails(app: FastAPI, pages: _Pages, data: ConsoleData) -> None:
    @app.get("/inbox/{item_id}")
    def mail(item_id: str) -> Response:
        raw = data.inbox.raw(item_id)
        found = next((item for item in data.inbox.items() if item["id"] == item_id), None)
        if raw is None or found is None:
            return pages.page("missing.html", 404, what="mail", name=item_id)
        content = read_mail(raw)
        known = bool(content.queue_id) and data.message(content.queue_id) is not None
        return pages.page(
            "mail.html",
            item=found,
            mail=content,
            text=None if content.text is None else content.text[:_MOST_SHOWN],
            queue_id=content.queue_id if known else "",
            source=raw[:_MOST_SHOWN].decode("utf-8", "replace"),
            cut=len(raw) > _MOST_SHOWN,
        )

    @app.get("/inbox/{item_id}/html")
    def mail_html(item_id: str) -> Response:
        raw = data.inbox.raw(item_id)
        html = read_mail(raw).html if raw is not None else None
        headers = {"Content-Security-Policy": _MAIL_POLICY}
        if html is None:
            return PlainTextResponse("no HTML here", 404, headers)
        return HTMLResponse(html, 200, headers)

    @app.get("/inbox/{item_id}/source")
    def mail_source(item_id: str) -> Response:
        raw = data.inbox.raw(item_id)
        if raw is None:
            return PlainTextResponse("no such mail", 404)
        return Response(raw, media_type="text/plain")


def _trails(app: FastAPI, pages: _Pages, parts: _Parts, data: ConsoleData) -> None:
    @app.get("/messages/{queue_id}")
    def message(queue_id: str) -> Response:
        found = data.message(queue_id)
        if found is None:
            return pages.page("missing.html", 404, what="message", name=queue_id)
        return pages.page("message.html", message=found, trail=parts.message(found)[1])

    @app.get("/part/messages/{queue_id}")
    def message_part(queue_id: str, request: Request) -> Response:
        found = data.message(queue_id)
        return Response(status_code=204) if found is None else _unless_seen(request, parts.message(found))

    @app.get("/find")
    def find(request: Request) -> Response:
        wanted = request.query_params.get("queue_id", "").strip().upper()
        if not wanted:
            return RedirectResponse("/", 303)
        if not (wanted.isascii() and wanted.isalnum()):
            return pages.page("missing.html", 404, what="message", name=wanted)
        return RedirectResponse(f"/messages/{wanted}", 303)
