"""Calls of a Cloud Manager API.

Standards: the vendor's OpenAPI (1.0.0), whose paths are called as they are written there; its headers; HAL lists, page
    after page.
Promises: the token goes to the address that was given and nowhere else: https unless that is this machine, no redirect,
    no absolute link, no proxy for loopback. An answer has an end in size and time. No error has the token or a value
    that was sent.
Dangers: nothing is tried twice: a change whose answer is lost may have been made.
Not here: which address and token (`choice`), what refusals say (`refusals`).
"""

from __future__ import annotations

import io
import ipaddress
import json
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import (
    BadStatusLine,
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    InvalidURL,
    RemoteDisconnected,
    UnknownProtocol,
)
from typing import Any, cast
from urllib.parse import quote, urlsplit

from outgate.cloud_manager.refusals import BadToken, Misconfigured, NotReachable, Refused, words

_TIMEOUT_S = 30.0
"""How long one step may take: to connect, to send, until the next octets come."""
_WHOLE_S = 120.0
"""How long an answer may take, however steadily it drips."""
_ANSWER_OCTETS = 16 * 1024 * 1024
_REFUSAL_OCTETS = 65_536
_PAGES = 100
_LINK = re.compile(r"/(?![/\\])[!-~]+")


class CloudManager:
    """Calls of one organization, with one token. Each raises `Refused` or `NotReachable`; ids are texts."""

    def __init__(
        self,
        base_url: str,
        org_id: str,
        client_id: str,
        token: str,
        ca_file: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Take `base_url` with or without a path in front of `/api`; `ca_file` are roots in place of the system's.
        `timeout` is how long an answer may take, in seconds; None is two minutes, with steps of half a minute.

        Raises `Misconfigured` for an address that would show the token on the wire, and for headers that are none."""
        self.base_url, loopback = _checked(base_url)
        self.org_id = org_id
        self._timeout = _TIMEOUT_S if timeout is None else timeout
        plain, tls = _within(_WHOLE_S if timeout is None else timeout)
        for name, text in (("x-gw-ims-org-id", org_id), ("x-api-key", client_id), ("Authorization", token)):
            # http.client's own refusal would show the text.
            if re.fullmatch(r"[!-~][ -~]*", text) is None:
                kind = BadToken if name == "Authorization" else Misconfigured
                raise kind(f"what is to be sent as {name} is empty or has characters that no header may have")
        self._token = token
        self._headers = {"x-gw-ims-org-id": org_id, "x-api-key": client_id, "Authorization": f"Bearer {token}"}
        self._headers |= {"Accept": "application/json", "User-Agent": "outgate"}
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect(), _Http(plain)]
        scheme, _, place = self.base_url.partition("://")
        if scheme == "https":
            try:
                context = ssl.create_default_context(cafile=ca_file)
            except (OSError, ssl.SSLError) as error:
                raise Misconfigured(f"{ca_file} holds no certificates that can be used: {error}") from None
            handlers.append(_Https(context, tls))
        if loopback:
            # A proxy set for the Internet must not get the token of a server on this machine.
            handlers.append(urllib.request.ProxyHandler({}))
        proxied = scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(place.partition("/")[0])
        self._proxy = f"{scheme}_proxy" if proxied and not loopback else ""
        self._opener = urllib.request.build_opener(*handlers)

    def __repr__(self) -> str:
        return f"CloudManager({_shown(self.base_url)!r}, {self.org_id!r})"

    # What there is

    def environment(self, program: str, environment: str) -> dict[str, Any]:
        """Return an environment: `status`, `type`, `name`, `region` …"""
        return _object(self._call("GET", _place(program, environment)), self.where)

    def variables(self, program: str, environment: str) -> list[dict[str, Any]]:
        """Return the variables of an environment; what is no plain one has no `value`, whatever the server sends."""
        found = self._list(_place(program, environment) + "/variables", "variables")
        return [
            {key: value for key, value in each.items() if key != "value" or each.get("type") == "string"}
            for each in found
        ]

    def infrastructures(self, program: str) -> list[dict[str, Any]]:
        """Return a program's network infrastructures."""
        return self._list(f"{_place(program)}/networkInfrastructures", "networkInfrastructures")

    def networking(self, program: str, environment: str) -> dict[str, Any]:
        """Return what an environment has of advanced networking; {} if it has none."""
        found = self._list(_place(program, environment) + "/advancedNetworking", "networkingConfigurations")
        for name, kind in (("portForwards", dict), ("nonProxyHosts", str)) if found else ():
            several = found[0].get(name) or []
            if not isinstance(several, list) or not all(
                isinstance(each, kind) for each in cast("list[object]", several)
            ):
                raise _no_api(self.where)
        return found[0] if found else {}

    # What can be done

    def set_variables(self, program: str, environment: str, changes: Sequence[Mapping[str, Any]]) -> None:
        """Change variables: each of `changes` has name, value, type and, for one service, service; an empty value
        deletes. What is not named stays. All changes are made or, by Outgate, none."""
        try:
            self._call("PATCH", _place(program, environment) + "/variables", [dict(each) for each in changes])
        except Refused as refused:
            # The vendor's validations repeat what was wrong.
            masked = refused.without(str(each.get("value", "")) for each in changes)

            def named(index: re.Match[str]) -> str:
                at = int(index[1])
                return f"{changes[at].get('name')}: " if at < len(changes) else index[0]

            text = re.sub(r"\[(\d{1,6})\]\.", named, masked.text)
            raise Refused(masked.status, text, masked.request_id) from None

    def runtime(self, program: str, environment: str, service: str) -> dict[str, Any]:
        """Return what an application of a service is started with, secrets in clear. Outgate only."""
        return _object(self._call("POST", _place(program, environment) + "/runtime", {"service": service}), self.where)

    def connectivity_test(self, program: str, environment: str, host: str, port: int) -> dict[str, Any]:
        """Return what a test of `host` and `port` from where the environment's traffic leaves found. Outgate only."""
        path = _place(program, environment) + "/connectivityTest"
        return _object(self._call("POST", path, {"host": host, "port": port}), self.where)

    # How it is asked

    @property
    def where(self) -> str:
        """Return the base URL, fit to be shown."""
        return _shown(self.base_url)

    def _list(self, path: str, name: str) -> list[dict[str, Any]]:
        """Return all items of a list, page after page."""
        items: list[dict[str, Any]] = []
        for _ in range(_PAGES):
            page = _object(self._call("GET", path), self.where)
            try:
                found = page["_embedded"][name] if "_embedded" in page else []
                items += [_object(each, self.where) for each in found]
                link = page.get("_links", {}).get("next")
                following = None if link is None else link["href"]
            except (LookupError, TypeError, AttributeError):
                raise _no_api(self.where) from None
            if following is None:
                return items
            # An absolute link would take the token elsewhere.
            if not isinstance(following, str) or _LINK.fullmatch(following) is None or following == path:
                raise _no_api(self.where)
            path = following
        raise _no_api(self.where)

    def _call(self, method: str, path: str, body: object = None) -> Any:
        """Return the decoded answer, None if it is empty."""
        headers = dict(self._headers)
        data = None
        if body is not None:
            data = json.dumps(body).encode("utf-8")
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.base_url + path, data, headers, method=method)  # noqa: S310 - see _checked
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                raw = _read(answer, _ANSWER_OCTETS)
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(error).without([self._token]) from None
        except (OSError, ValueError, HTTPException) as error:
            raise self._not_reachable(error) from None
        if not raw:
            return None
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise _no_api(self.where) from None

    def _not_reachable(self, error: Exception) -> NotReachable:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        remedy, way = "Check the address, and that it is running", ""
        if isinstance(reason, ssl.SSLCertVerificationError):
            remedy = "Check the address; an authority of your own goes into SSL_CERT_FILE"
        elif isinstance(reason, ssl.SSLError):
            remedy = "Check the address, and that it speaks TLS"
        elif isinstance(reason, BadStatusLine | UnknownProtocol) and not isinstance(reason, RemoteDisconnected):
            # Its words may be what it was sent.
            reason = "what answers there does not speak HTTP"
        elif self._proxy:
            way, remedy = f" through the proxy that {self._proxy} names", f"{remedy}; no_proxy names hosts without"
            if isinstance(reason, ValueError | InvalidURL) and not isinstance(reason, UnicodeError):
                # It would show the proxy's password.
                reason, remedy = "that is no address", "It has the form http://HOST:PORT"
        return NotReachable(f"Cloud Manager at {self.where} cannot be reached{way}: {reason}. {remedy}")


class _Timed(io.RawIOBase):
    """What comes from a socket, until the time for the whole answer is over: headers may drip as well as a body."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, whole: float) -> None:
        self._sock, self._raw = sock, raw
        self._step, self._until = sock.gettimeout() or _TIMEOUT_S, time.monotonic() + whole

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer does not end")
        self._sock.settimeout(min(self._step, left))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _within(whole: float) -> tuple[type[HTTPConnection], type[HTTPSConnection]]:
    """Return connections whose answers take no more than `whole` seconds."""

    class Answer(HTTPResponse):
        def __init__(self, sock: socket.socket, *arguments: Any, **named: Any) -> None:
            super().__init__(sock, *arguments, **named)
            self.fp = io.BufferedReader(_Timed(sock, self.fp.detach(), whole))

    class Plain(HTTPConnection):
        response_class = Answer

    class Tls(HTTPSConnection):
        response_class = Answer

    return Plain, Tls


class _Http(urllib.request.HTTPHandler):
    def __init__(self, connection: type[HTTPConnection]) -> None:
        super().__init__()
        self._connection = connection

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext, connection: type[HTTPSConnection]) -> None:
        super().__init__(context=context)
        self._trusting, self._connection = context, connection

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._connection, req, context=self._trusting)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to wherever it points."""

    def redirect_request(self, *_arguments: Any, **_named: Any) -> None:
        return None


def _place(program: str, environment: str | None = None) -> str:
    """Return the path of a program or an environment; whatever a person typed stays one part."""
    path = f"/api/program/{quote(program, safe='')}"
    return path if environment is None else f"{path}/environment/{quote(environment, safe='')}"


def _read(answer: Any, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := answer.read1(65_536):
        parts.append(part)
        size += len(part)
        if size > most:
            raise OSError(f"the answer is longer than {most} octets")
    return b"".join(parts)


def _object(found: object, where: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise _no_api(where)
    return cast("dict[str, Any]", found)


def _no_api(where: str) -> NotReachable:
    return NotReachable(f"what answered at {where} is not a Cloud Manager API: check the address")


def _refused(error: urllib.error.HTTPError) -> Refused:
    """Return a refusal in its own words."""
    try:
        said = words(_read(error, _REFUSAL_OCTETS))
    except (OSError, HTTPException):
        said = ""
    return Refused(error.code, said or str(error.reason), str(error.headers.get("x-request-id", ""))[:100])


# Addresses


def _checked(url: str) -> tuple[str, bool]:
    """Return an address without the slash behind it, and whether it is on this machine. Raises `Misconfigured` for one
    that would show secrets on the wire."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    if (
        parts.scheme not in {"http", "https"}
        or not host
        or re.fullmatch(r"[!-~]+", url) is None
        or set("?#") & set(url)
    ):
        form = "it begins with https:// and has neither blanks nor letters outside ASCII"
        raise Misconfigured(f"{_shown(url)!r} is not the address of a Cloud Manager API: {form}")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if parts.scheme == "http" and not loopback:
        raise Misconfigured(f"{_shown(url)} would send secrets in the clear: use https:// for another machine")
    if "@" in parts.netloc:
        raise Misconfigured(f"{_shown(url)} is given with a user name: leave that out, the token says who asks")
    return parts.scheme + url[len(parts.scheme) :].rstrip("/"), loopback


def _shown(url: str) -> str:
    """Return an address without what it may have of user name and password: they are nobody's business."""
    return re.sub(r"//.*@", "//", url, flags=re.DOTALL)
