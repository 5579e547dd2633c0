"""A real OAuth token server for tests: refresh, introspection, rotation, and every way to answer badly."""

from __future__ import annotations

import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import trustme

CLIENT, CLIENT_SECRET = "mailer-client", "client-secret-0123456789"


@dataclass(repr=False)
class TokenServer:
    """Serves `/token` (RFC 6749) and `/introspect` (RFC 7662) on loopback, with TLS if `authority` is given.

    `answer` stands in for the next answers of `/token`; `now` is the time by which tokens expire."""

    authority: trustme.CA | None = None
    user: str = "mailer@shop.test"
    lifetime: object = 3600
    rotates: bool = False
    refresh_token: str = field(default_factory=lambda: f"refresh-{secrets.token_urlsafe(24)}")
    now: Callable[[], float] = time.time
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None
    forms: list[dict[str, str]] = field(default_factory=list)
    issued: dict[str, tuple[str, float]] = field(default_factory=dict)
    introspected: list[str] = field(default_factory=list)
    padding: int = 0
    names: tuple[str, ...] = ("127.0.0.1", "localhost")

    def __enter__(self) -> TokenServer:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server._serve(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that go away are the test's
        if self.authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.authority.issue_cert(*self.names).configure_cert(context)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{'http' if self.authority is None else 'https'}://127.0.0.1:{self.port}/token"

    def revoke(self) -> None:
        """Take back the refresh token, and all that was issued for it."""
        self.refresh_token = f"revoked-{secrets.token_urlsafe(8)}"
        self.issued.clear()

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("Content-Length") or 0)
        form = {name: values[0] for name, values in parse_qs(request.rfile.read(length).decode()).items()}
        if request.path == "/introspect":
            self.introspected.append(form["token"])
            user, until = self.issued.get(form["token"], ("", 0.0))
            reply(request, 200, {"active": True, "username": user} if until > self.now() else {"active": False})
            return
        self.forms.append(form)
        if self.answer is not None:
            self.answer(request)
        elif (form.get("client_id"), form.get("client_secret")) != (CLIENT, CLIENT_SECRET):
            reply(
                request, 401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret."}
            )
        elif form.get("grant_type") != "refresh_token" or form.get("refresh_token") != self.refresh_token:
            reply(request, 400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."})
        else:
            reply(request, 200, self._issue())

    def _issue(self) -> dict[str, Any]:
        access = f"access-{len(self.issued)}-{secrets.token_urlsafe(24)}" + "p" * self.padding
        lasting = self.lifetime if isinstance(self.lifetime, (int, float)) else 3600
        self.issued[access] = (self.user, self.now() + lasting)
        document: dict[str, Any] = {"access_token": access, "token_type": "Bearer", "expires_in": self.lifetime}
        if self.rotates:
            self.refresh_token = f"refresh-{secrets.token_urlsafe(24)}"
            document["refresh_token"] = self.refresh_token
        return document


def reply(request: BaseHTTPRequestHandler, status: int, document: object, **headers: str) -> None:
    """Answer with a document as JSON, or with bytes as they are."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)
