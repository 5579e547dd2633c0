"""The page at `/`: the inbox, each mail's trail, where to connect and what to paste.

Standards: HTML with a strict content policy (CSP level 3); htmx refreshes parts of it.
Promises: what a mail holds is shown as text or in a sandboxed frame without scripts and without network;
every value is escaped by the template engine.
Dangers: in the laptop mode the page shows credentials to whoever may open it: it is served on loopback, to
requests that name it as such (`sandbox.local`), and not beyond.
Not here: the data (handed in), other modes' pages.
"""

from __future__ import annotations

import email
import email.policy
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, select_autoescape

from outgate.console.paste import recipes
from outgate.trail import hops

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
# A mail's HTML: no scripts, no network, no forms; pictures only those it carries in data URLs.
_MAIL_HEADERS = {
    **_HEADERS,
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
}


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


def build(data: ConsoleData) -> FastAPI:
    """Return the pages as an application to mount at `/`."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    pages = Environment(
        loader=PackageLoader("outgate.console"),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")

    def page(name: str, status: int = 200, /, **values: Any) -> HTMLResponse:
        return HTMLResponse(pages.get_template(name).render(**values), status, _HEADERS)

    @app.get("/", response_class=HTMLResponse)
    def overview() -> Response:
        dev = data.dev()
        return page(
            "overview.html",
            dev=dev,
            recipes=recipes(dev),
            inbox=data.inbox.items()[:100],
            messages=data.messages(),
            variables=data.variables(),
            networking=data.networking(),
            clock_offset=data.clock_offset(),
        )

    @app.get("/part/inbox", response_class=HTMLResponse)
    def inbox_part() -> Response:
        return page("inbox_part.html", inbox=data.inbox.items()[:100])

    @app.get("/part/messages", response_class=HTMLResponse)
    def messages_part() -> Response:
        return page("messages_part.html", messages=data.messages())

    @app.get("/inbox/{item_id}", response_class=HTMLResponse)
    def mail(item_id: str) -> Response:
        raw = data.inbox.raw(item_id)
        found = next((item for item in data.inbox.items() if item["id"] == item_id), None)
        if raw is None or found is None:
            return page("missing.html", 404, what="mail", name=item_id)
        content = read_mail(raw)
        return page("mail.html", item=found, mail=content, source=raw.decode("utf-8", "replace"))

    @app.get("/inbox/{item_id}/html")
    def mail_html(item_id: str) -> Response:
        raw = data.inbox.raw(item_id)
        html = read_mail(raw).html if raw is not None else None
        if html is None:
            return PlainTextResponse("no HTML here", 404, _MAIL_HEADERS)
        return HTMLResponse(html, 200, _MAIL_HEADERS)

    @app.get("/inbox/{item_id}/source")
    def mail_source(item_id: str) -> Response:
        raw = data.inbox.raw(item_id)
        if raw is None:
            return PlainTextResponse("no such mail", 404, _HEADERS)
        return Response(raw, 200, {**_HEADERS, "Content-Disposition": "inline"}, media_type="text/plain")

    @app.get("/messages/{queue_id}", response_class=HTMLResponse)
    def message(queue_id: str) -> Response:
        found = data.message(queue_id)
        if found is None:
            return page("missing.html", 404, what="message", name=queue_id)
        return page("message.html", message=found, hops=hops(found))

    @app.get("/find")
    def find(request: Request) -> Response:
        wanted = request.query_params.get("queue_id", "").strip().upper()
        if not wanted.isalnum():
            return page("missing.html", 404, what="message", name=wanted)
        return RedirectResponse(f"/messages/{wanted}", 303, _HEADERS)

    return app


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail for reading: its text and HTML bodies (None if it has none), and the names of its other parts."""

    text: str | None
    html: str | None
    parts: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]


def read_mail(raw: bytes) -> Mail:
    """Read a mail for showing; what cannot be decoded is shown with replacement signs."""
    parsed = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    text, html = _body(parsed, "plain"), _body(parsed, "html")
    parts = tuple(
        f"{part.get_content_type()} {part.get_filename() or ''}".strip() for part in parsed.iter_attachments()
    )
    shown = ("From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To")
    fields = tuple((name, str(parsed[name])) for name in shown if parsed[name] is not None)
    return Mail(text, html, parts, fields)


def _body(parsed: EmailMessage, kind: str) -> str | None:
    part = parsed.get_body((kind,))
    if part is None:
        return None
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return None
    try:
        return payload.decode(part.get_content_charset() or "utf-8", "replace")
    except LookupError:
        return payload.decode("utf-8", "replace")
