"""A Cloud Manager as the vendor's is: https with a CA of its own, exact headers, path-only links, pages, slow statuses."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ORG, CLIENT = "ABC@AdobeOrg", "aio-cli-console-auth"
_REL = "http://ns.adobe.com/adobecloud/rel/"
BASE = "/api/program/4/environment/10"


def jwt(**claims: object) -> str:
    """Return a token that decodes, whose signature is none."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in ({"alg": "x"}, claims)
    ]
    return ".".join([*parts, "c2ln"])


TOKEN = jwt(client_id=CLIENT, user_id="me")


def _links(**paths: str) -> dict[str, Any]:
    return {
        (name if name == "self" else _REL + name): {"href": path, "templated": False} for name, path in paths.items()
    }


# What leads the vendor's client to an environment.
_ENVIRONMENT = {"id": "10", "programId": "4", "_links": _links(self=BASE, variables=f"{BASE}/variables")}
_PLACES: dict[str, Any] = {
    "/api/programs": {"_embedded": {"programs": [{"id": "4", "_links": _links(self="/api/program/4")}]}},
    "/api/program/4": {"id": "4", "_links": _links(self="/api/program/4", environments="/api/program/4/environments")},
    "/api/program/4/environments": {"_embedded": {"environments": [_ENVIRONMENT]}},
}


@dataclass
class Answer:
    """What is answered once, whatever is asked."""

    status: int
    body: object
    headers: dict[str, str] = field(default_factory=dict)
    media: str = "application/json"


@dataclass(repr=False)
class Vendor:
    """The server's state, which a test may change, and every request in order."""

    url: str = ""
    variables: list[dict[str, str]] = field(default_factory=list)
    status: str = "ready"
    rounds: int = 0
    page: int = 1000
    networking: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    answers: list[Answer | None] = field(default_factory=list)
    """Answers to come; None: as usual."""

    def calls(self) -> list[tuple[str, str]]:
        return [(method, path) for method, path, _, _ in self.requests]

    def bodies(self) -> list[Any]:
        return [body for method, _, _, body in self.requests if method == "PATCH"]

    def answer(self, method: str, path: str, headers: dict[str, str], body: Any) -> Answer:
        given = self.answers.pop(0) if self.answers else None
        if given is not None:
            return given
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return Answer(401, {"error_code": "401013", "message": "Oauth token is not valid"})
        if headers.get("x-api-key") != CLIENT:
            return Answer(403, {"error_code": "403003", "message": "Api Key is invalid"})
        if headers.get("x-gw-ims-org-id") != ORG or headers.get("accept") != "application/json":
            return Answer(403, {"error_code": "403010", "message": "Missing header"})
        place, _, query = path.partition("?")
        if (method, place) == ("GET", f"{BASE}/variables"):
            return self._variables(int(query.removeprefix("start=") or 0))
        if (method, place) == ("PATCH", f"{BASE}/variables"):
            return self._patch(headers, body)
        if method == "GET" and place in _PLACES:
            return Answer(200, _PLACES[place])
        if (method, place) == ("GET", BASE):
            if self.rounds:
                self.rounds -= 1
                if not self.rounds:
                    self.status = "ready"
                    for each in self.variables:
                        each["status"] = "ready"
            return Answer(200, {"id": "10", "status": self.status})
        if (method, place) == ("GET", f"{BASE}/advancedNetworking"):
            return Answer(200, {"_embedded": {"networkingConfigurations": self.networking}})
        return Answer(404, {"title": "Not Found", "errors": [{"code": "x", "message": f"no {place}"}]})

    def _variables(self, start: int) -> Answer:
        shown = [
            {key: value for key, value in each.items() if key != "value" or each["type"] == "string"}
            for each in self.variables
        ]
        links: dict[str, Any] = {"self": {"href": f"{BASE}/variables"}, _REL + "environment": {"href": BASE}}
        if start + self.page < len(shown):
            links["next"] = {"href": f"{BASE}/variables?start={start + self.page}", "templated": False}
        body = {"_totalNumberOfItems": len(shown), "_embedded": {"variables": shown[start : start + self.page]}}
        return Answer(200, body | {"_links": links})

    def _patch(self, headers: dict[str, str], body: Any) -> Answer:
        if headers.get("content-type") != "application/json":
            return Answer(415, {"title": "Unsupported Media Type"})
        for change in body:
            key = (change["name"], change.get("service"))
            mine = next((each for each in self.variables if (each["name"], each.get("service")) == key), None)
            if mine is not None and mine["type"] != change["type"]:
                problem = {"field": "patchEnvironmentVariables.arg2[0].type", "message": "must not change"}
                errors = {problem["field"]: problem}
                return Answer(
                    400, {"title": "Constraint Violations", "errors": errors}, media="application/problem+json"
                )
            self.variables = [each for each in self.variables if each is not mine]
            if change["value"]:
                self.variables.append({**change, "status": "updating" if self.rounds else "ready"})
        if self.rounds:
            self.status = "updating"
        return Answer(204, None)


@contextmanager
def vendor(prefix: str = "", tls: ssl.SSLContext | None = None) -> Iterator[Vendor]:
    """Run one on a free loopback port, below a path prefix if given."""
    state = Vendor()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.loads(raw) if raw else None
            path = self.path.removeprefix(prefix)
            state.requests.append((self.command, path, headers, body))
            answer = state.answer(self.command, path, headers, body)
            octets = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            self.send_header("x-request-id", f"req-{len(state.requests)}")
            if answer.status != 204:
                self.send_header("content-type", answer.media)
                self.send_header("content-length", str(len(octets)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if answer.status != 204:
                self.wfile.write(octets)

        do_GET = do_POST = do_PATCH = handle_any

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    state.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}{prefix}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
