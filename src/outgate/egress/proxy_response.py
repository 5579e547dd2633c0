"""What a client of the proxy is answered: a target's response as it may go on, or a refusal with cause and remedy.

Standards: RFC 9110 (sections 7.6, 15), RFC 9112 (section 6.3), RFC 9209 (Proxy-Status).
Promises: pure; a response goes on without the fields of its hop, with one framing and our own entry in Via; a refusal
    is plain text and tells no address, no source and no reason of the guard.
Dangers: the reason of a `Refused` is for the audit: it holds addresses.
Not here: which status a bad head gets (`proxy_request`), writing (`proxy_exchange`, `http_proxy`).
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

import h11

from outgate.egress.proxy_request import METHODS, BadRequest, Field, host_of, onward_fields
from outgate.egress.refusal import Kind, Refused


@dataclass(frozen=True, slots=True)
class Answer:
    """A status of our own; `error` is its RFC 9209 type."""

    status: int
    cause: str
    remedy: str
    error: str


def refusal(refused: Refused, name: str, port: int) -> Answer:
    """Return what a client is told of a refusal. `name` and `port` are what it asked for."""
    status, cause, remedy, error = _REFUSALS[refused.kind]
    to = host_of(name, port, None).decode("ascii")
    return Answer(status, cause.format(to=to), remedy.format(port=port), error)


def broke_off(name: str, port: int) -> Answer:
    """Return what a client is told of a target that took the connection and gave no response that can be read."""
    to = host_of(name, port, None).decode("ascii")
    return Answer(502, f"{to} gave no HTTP response", "Check that it speaks HTTP there.", "http_response_incomplete")


def bad(request: BadRequest) -> Answer:
    """Return what a client is told of a request that cannot be read."""
    error = "proxy_loop_detected" if request.status == 508 else "http_request_error"
    return Answer(request.status, str(request), _REMEDIES.get(request.status, "Correct the client."), error)


def encode(answer: Answer, method: str) -> bytes:
    """Write an answer that ends the connection."""
    body = f"Outgate: {answer.cause}.\n{answer.remedy}\n".encode()
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        f"Proxy-Status: outgate; error={answer.error}",
        "Connection: close",
    ]
    if answer.status == 405:
        lines.append(f"Allow: {METHODS.decode('ascii')}")
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + (b"" if method == "HEAD" else body)


def ourselves(*, last: bool) -> h11.Response:
    """Return what the proxy says of itself; `last`: the connection ends with it."""
    fields = [(b"Allow", METHODS), (b"Content-Length", b"0"), *([(b"Connection", b"close")] if last else [])]
    return h11.Response(status_code=200, reason=b"OK", headers=fields)


def onward(response: h11.Response, *, own: bytes, last: bool) -> h11.Response:
    """Return a target's final response as the client gets it; `last`: the connection ends with it."""
    fields = onward_fields(response.headers.raw_items())
    # Chunks win over a length (RFC 9112 section 6.3), and a response without content has no length.
    if response.status_code == 204 or any(name == b"transfer-encoding" for name, _ in response.headers):
        fields = [(name, value) for name, value in fields if name.lower() != b"content-length"]
    fields.append((b"Via", response.http_version + b" " + own))
    if last:
        fields.append((b"Connection", b"close"))
    return h11.Response(status_code=response.status_code, reason=response.reason, headers=fields)


def onward_interim(response: h11.InformationalResponse) -> h11.InformationalResponse:
    """Return a target's interim response as the client gets it; 101 keeps what it switches to."""
    raw = response.headers.raw_items()
    # No interim response has content: a client that took a length at its word would skip what comes behind it.
    fields: list[Field] = [(name, value) for name, value in onward_fields(raw) if name.lower() != b"content-length"]
    if response.status_code == 101:
        fields += [(name, value) for name, value in raw if name.lower() == b"upgrade"]
        fields.append((b"Connection", b"upgrade"))
    return h11.InformationalResponse(status_code=response.status_code, reason=response.reason, headers=fields)


_LATER = "Try again later; if it stays so, ask your operators."
_REFUSALS: dict[Kind, tuple[int, str, str, str]] = {
    "client-network": (403, "this client may not use the proxy", "Ask your operators.", "http_request_denied"),
    "limit": (
        503,
        "the environment has all the connections that it may have",
        "Close connections that are not needed, or reuse them.",
        "connection_limit_reached",
    ),
    "closed": (503, "nothing may leave this way", "Ask your operators for its state.", "proxy_configuration_error"),
    "port": (
        403,
        "{to} is a non-proxy host: it may be reached on 80 and 443 only",
        "Take it out of nonProxyHosts to reach its port {port} through the proxy.",
        "http_request_denied",
    ),
    "request": (400, "the request cannot be read", "Correct the client.", "http_request_error"),
    "dns": (502, "the name of {to} cannot be resolved", "Check its spelling and its DNS zone.", "dns_error"),
    "guard": (
        403,
        "the address of {to} may not be dialled",
        "Only public addresses may, unless your operators make an exception.",
        "destination_ip_prohibited",
    ),
    "source": (503, "there is no address to leave from to {to}", "Ask your operators.", "proxy_configuration_error"),
    "refused": (502, "{to} refused the connection", "Check that it listens there.", "connection_refused"),
    "timeout": (504, "{to} did not answer in time", "Check that it lets us in, and try again.", "connection_timeout"),
    "unreachable": (502, "{to} cannot be reached", "Check that it is up and public.", "destination_ip_unroutable"),
    "withdrawn": (503, "the proxy is being changed", _LATER, "proxy_internal_error"),
    "clear-auth": (403, "a password would go in the clear", "Use TLS.", "http_request_denied"),
}
_REMEDIES = {
    408: "Send the request without long pauses.",
    417: "Send no Expect but 100-continue.",
    431: "Send fewer or shorter fields.",
    501: "Use chunked, or a Content-Length.",
    508: "Look for a proxy that leads back here.",
}
