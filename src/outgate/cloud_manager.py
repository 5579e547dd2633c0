"""A Cloud Manager API, Outgate's or the vendor's, as commands on this machine call it.

Standards: the vendor's OpenAPI (1.0.0), whose paths are called as they are written there; its headers; HAL lists, page
    after page; RFC 9457 and the gateway's errors; standard library only.
Promises: the token goes to the address that was given and nowhere else: https unless that is this machine, no redirect,
    no absolute link, no proxy for loopback. An answer has an end in size and time. An error says what was asked, what
    came back (with its x-request-id) and what to do; no token and no value that was sent is ever in one.
Dangers: nothing is tried twice: a change whose answer is lost may have been made.
Not here: the commands (`cli.cloud_manager`, `environment`, `doctor`), finding `dev.json` (`connection`).
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

VENDOR_URL = "https://cloudmanager.adobe.io"
_TIMEOUT_S = 30.0
"""How long one step may take: to connect, to send, until the next octets come."""
_WHOLE_S = 120.0
"""How long an answer may take, however steadily it drips."""
_ANSWER_OCTETS = 16 * 1024 * 1024
_REFUSAL_OCTETS = 65_536
_PAGES = 100
_MASK = "****"
_TELLING = 3
"""A value shorter than this tells nothing and would be found in every sentence."""


class NotReachable(Exception):
    """Nobody could be asked, or what answered makes no sense; the text says cause and remedy."""


class Misconfigured(NotReachable):
    """Nobody was asked: an address or a setting cannot be used."""


class BadToken(Misconfigured):
    """Nobody was asked: the access token is missing, expired, or of the wrong kind."""


class Refused(Exception):
    """Cloud Manager answered, but not with success. `status` is the HTTP status, `text` what it said in one line."""

    def __init__(self, status: int, text: str, request_id: str = "") -> None:
        told = f" (x-request-id {request_id})" if request_id else ""
        super().__init__(f"Cloud Manager refused ({status}): {text}{told}")
        self.status = status
        self.text = text
        self.request_id = request_id

    def without(self, values: Iterable[str]) -> Refused:
        """Return this refusal with a mask in place of each of `values`, however the server wrote it."""
        text = self.text
        for value in sorted(set(values), key=len, reverse=True):
            for written in (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
                if len(written) >= _TELLING:
                    text = text.replace(" ".join(written.split()), _MASK).replace(written, _MASK)
        return Refused(self.status, text, self.request_id)


class CloudManager:
    """Calls of one organization, with one token. Each raises `Refused` or `NotReachable`; ids are texts."""

    def __init__(
        self,
        base_url: str,
        org_id: str,
        client_id: str,
        token: str,
        ca_file: str | None = None,
        timeout: float = _TIMEOUT_S,
    ) -> None:
        """Take `base_url` with or without a path in front of `/api`; `ca_file` are roots in place of the system's.

        Raises `Misconfigured` for an address that would show the token on the wire, and for headers that are none."""
        loopback = _check_url(base_url)
        self.base_url = base_url.rstrip("/")
        self.org_id = org_id
        self._timeout = timeout
        self._headers = {"x-gw-ims-org-id": org_id, "x-api-key": client_id, "Authorization": f"Bearer {token}"}
        for name, text in self._headers.items():
            # http.client's own refusal would show the text.
            if re.fullmatch(r"[!-~][ -~]*", text) is None or text == "Bearer ":
                kind = BadToken if name == "Authorization" else Misconfigured
                raise kind(f"what is to be sent as {name} is empty or has characters that no header may have")
        self._headers |= {"Accept": "application/json", "User-Agent": "outgate"}
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if base_url.startswith("https:"):
            try:
                context = ssl.create_default_context(cafile=ca_file)
            except (OSError, ssl.SSLError) as error:
                raise Misconfigured(f"{ca_file} holds no certificates that can be used: {error}") from None
            handlers.append(urllib.request.HTTPSHandler(context=context))
        if loopback:
            # A proxy set for the Internet must not get the token of a server on this machine.
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def __repr__(self) -> str:
        return f"CloudManager({_shown(self.base_url)!r}, {self.org_id!r})"

    # What there is

    def environment(self, program: str, environment: str) -> dict[str, Any]:
        """Return an environment: `status`, `type`, `name`, `region` …"""
        return _object(self._call("GET", _place(program, environment)), self._where)

    def variables(self, program: str, environment: str) -> list[dict[str, Any]]:
        """Return the variables of an environment; a secret has no `value`, whatever the server sends."""
        found = self._list(_place(program, environment) + "/variables", "variables")
        return [
            {key: value for key, value in each.items() if key != "value" or each.get("type") != "secretString"}
            for each in found
        ]

    def infrastructures(self, program: str) -> list[dict[str, Any]]:
        """Return a program's network infrastructures."""
        return self._list(f"{_place(program)}/networkInfrastructures", "networkInfrastructures")

    def networking(self, program: str, environment: str) -> dict[str, Any]:
        """Return what an environment has of advanced networking; {} if it has none."""
        found = self._list(_place(program, environment) + "/advancedNetworking", "networkingConfigurations")
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
            raise Refused(refused.status, text, refused.request_id) from None

    def runtime(self, program: str, environment: str, service: str) -> dict[str, Any]:
        """Return what an application of a service is started with, secrets in clear. Outgate only."""
        return _object(self._call("POST", _place(program, environment) + "/runtime", {"service": service}), self._where)

    def connectivity_test(self, program: str, environment: str, host: str, port: int) -> dict[str, Any]:
        """Return what a test of `host` and `port` from where the environment's traffic leaves found. Outgate only."""
        path = _place(program, environment) + "/connectivityTest"
        return _object(self._call("POST", path, {"host": host, "port": port}), self._where)

    # How it is asked

    @property
    def _where(self) -> str:
        return _shown(self.base_url)

    def _list(self, path: str, name: str) -> list[dict[str, Any]]:
        """Return all items of a list, page after page."""
        items: list[dict[str, Any]] = []
        for _ in range(_PAGES):
            page = _object(self._call("GET", path), self._where)
            try:
                found = page["_embedded"][name] if "_embedded" in page else []
                items += [_object(each, self._where) for each in found]
                link = page.get("_links", {}).get("next")
                following = None if link is None else link["href"]
            except (LookupError, TypeError, AttributeError):
                raise _no_api(self._where) from None
            if following is None:
                return items
            # An absolute link would take the token elsewhere.
            if not isinstance(following, str) or re.match(r"/[^/\\]", following) is None or following == path:
                raise _no_api(self._where)
            path = following
        raise _no_api(self._where)

    def _call(self, method: str, path: str, body: object = None) -> Any:
        """Return the decoded answer, None if it is empty."""
        headers = dict(self._headers)
        data = None
        if body is not None:
            data = json.dumps(body).encode("utf-8")
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.base_url + path, data, headers, method=method)  # noqa: S310 - see _check_url
        until = time.monotonic() + _WHOLE_S
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                raw = _read(answer, _ANSWER_OCTETS, until)
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(error, until) from None
        except (OSError, ValueError, HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            remedy = "Check the address, and that it is running"
            raise NotReachable(f"Cloud Manager at {self._where} cannot be reached: {reason}. {remedy}") from None
        if not raw:
            return None
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise _no_api(self._where) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to wherever it points."""

    def redirect_request(self, *_arguments: Any, **_named: Any) -> None:
        return None


def _place(program: str, environment: str | None = None) -> str:
    """Return the path of a program or an environment; whatever a person typed stays one part."""
    path = f"/api/program/{quote(program, safe='')}"
    return path if environment is None else f"{path}/environment/{quote(environment, safe='')}"


def _read(answer: Any, most: int, until: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := answer.read1(65_536):
        parts.append(part)
        size += len(part)
        if size > most:
            raise OSError(f"the answer is longer than {most} octets")
        if time.monotonic() > until:
            raise TimeoutError("the answer does not end")
    return b"".join(parts)


def _object(found: object, where: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise _no_api(where)
    return cast("dict[str, Any]", found)


def _no_api(where: str) -> NotReachable:
    return NotReachable(f"what answered at {where} is not a Cloud Manager API: check the address")


# Addresses


def _check_url(url: str) -> bool:
    """Say whether `url` is on this machine. Raises `Misconfigured` for one that would show secrets on the wire."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host, parts = "", urlsplit("")
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment or not url.isprintable():
        raise Misconfigured(f"{_shown(url)!r} is not the address of a Cloud Manager API: it begins with https://")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if parts.scheme == "http" and not loopback:
        raise Misconfigured(f"{_shown(url)} would send secrets in the clear: use https:// for another machine")
    return loopback


def _shown(url: str) -> str:
    """Return an address without what it may have of user name and password: they are nobody's business."""
    return re.sub(r"//[^/@]*@", "//", url)


# What Cloud Manager says


def _refused(error: urllib.error.HTTPError, until: float) -> Refused:
    """Return a refusal in its own words, whichever of the vendor's bodies it has."""
    try:
        said = _said(json.loads(_read(error, _REFUSAL_OCTETS, until)))
    except (ValueError, LookupError, TypeError, AttributeError, OSError, RecursionError, HTTPException):
        said = ""
    text = " ".join((said or str(error.reason)).split())
    return Refused(error.code, text, str(error.headers.get("x-request-id", ""))[:100])


def _said(body: Any) -> str:
    """Return what the body of a refusal says, "" if nothing. Raises anything for a body of another kind."""
    if "error_code" in body:
        # The gateway: token, client, organization, role.
        return f"{body['message']} (Code: {body['error_code']})"
    errors = body.get("errors") or []
    entries = list(errors.values()) if isinstance(errors, dict) else errors
    said = [each if isinstance(each, str) else _violation(each) for each in entries]
    if not said:
        said = [f"{each['name']} is missing" for each in body.get("missingParams") or []]
        said += [f"{each['name']} {each['reason']}" for each in body.get("invalidParams") or []]
    return "; ".join(said) or str(body.get("title", ""))


def _violation(entry: Mapping[str, Any]) -> str:
    """Return what is wrong with a field, and which: "[0].name (1X) must match …". A value is never shown."""
    field = str(entry.get("field", "")).removeprefix("patchEnvironmentVariables.arg2").rpartition("arg2.")[2]
    shown = entry.get("invalidValue")
    told = f" ({shown})" if field.endswith(".name") and isinstance(shown, str) else ""
    return f"{field}{told} {entry['message']}".strip()


# Which Cloud Manager, and who asks


@dataclass(frozen=True, slots=True)
class Chosen:
    """A Cloud Manager to ask, the program and environment that are meant if nobody names others ("" if none are
    known), and where all this was found, for people."""

    api: CloudManager
    program: str
    environment: str
    source: str


def from_environment(
    env: Mapping[str, str],
    dev_json: Callable[[], Mapping[str, Any]],
    *,
    ca_file: str | None = None,
    now: Callable[[], float] = time.time,
) -> Chosen:
    """Choose as the vendor's client is told to, by `AIO_` variables and the file `AIO_CONFIG_FILE`; if these name
    neither a base URL nor a token, what `dev_json` returns: the `dev.json` of a running `outgate dev`.

    Raises `BadToken` (missing, expired), `Misconfigured`, and what `dev_json` raises. Settings of the two are never
    mixed: the token of one would go to the other."""
    settings = _vendor_settings(env)
    if not settings.get("cloudmanager.base_url") and not any(_token_of(settings, name) for name in _CONTEXTS):
        return from_dev_json(dev_json(), ca_file=ca_file)
    context = next((name for name in _CONTEXTS if _token_of(settings, name)), "")
    source = f"the AIO_ variables and {env['AIO_CONFIG_FILE']}" if env.get("AIO_CONFIG_FILE") else "the AIO_ variables"
    if not context:
        wanted = "AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN"
        raise BadToken(f"there is a base URL but no access token for it in {source}: set {wanted}")
    token = _token_of(settings, context)
    _check_expiry(settings.get(f"ims.contexts.{context}.access_token.expiry", ""), token, now())
    if context == _SERVICE:
        client_id, org_id = (settings.get(f"ims.contexts.{context}.{key}", "") for key in ("client_id", "ims_org_id"))
    else:
        client_id, org_id = client_id_of(token), ""
        if not client_id:
            raise BadToken("the access token names no client_id: it must be one of the vendor's login (a JWT)")
    org_id = org_id or settings.get("cloudmanager_orgid", "") or settings.get("console.org.code", "")
    for text, what in ((org_id, "organization: set AIO_CLOUDMANAGER__ORGID"), (client_id, "client_id")):
        if not text:
            raise Misconfigured(f"{source} name no {what}")
    return Chosen(
        CloudManager(settings.get("cloudmanager.base_url") or VENDOR_URL, org_id, client_id, token, ca_file),
        settings.get("cloudmanager_programid", ""),
        settings.get("cloudmanager_environmentid", ""),
        source,
    )


def from_dev_json(dev: Mapping[str, Any], *, ca_file: str | None = None) -> Chosen:
    """Choose the Cloud Manager of a running `outgate dev`. Raises `Misconfigured`."""
    token = str(dev["token"])
    api = CloudManager(str(dev["cloud_manager_url"]), str(dev["org_id"]), client_id_of(token), token, ca_file)
    return Chosen(
        api, str(dev.get("program_id", "")), str(dev.get("environment_id", "")), "the dev.json of outgate dev"
    )


def client_id_of(token: str) -> str:
    """Return the `client_id` claim of a JWT, read without checking it; "" if there is none."""
    return str(_claims(token).get("client_id", ""))


_SERVICE = "aio-cli-plugin-cloudmanager"
_CONTEXTS = (_SERVICE, "cli")
"""Contexts of the vendor's client that may hold a token, the one it takes first first."""
_SETTINGS_OCTETS = 1024 * 1024


def _vendor_settings(env: Mapping[str, str]) -> dict[str, str]:
    """Return the vendor's settings by dotted key: what the file has, and before it what variables say."""
    found: dict[str, str] = {}
    name = env.get("AIO_CONFIG_FILE")
    if name:
        try:
            with Path(name).open("rb") as file:
                raw = file.read(_SETTINGS_OCTETS + 1)
            if len(raw) > _SETTINGS_OCTETS:
                raise ValueError("is too long")
            _flatten(json.loads(raw), "", found)
        except OSError as error:
            raise Misconfigured(f"AIO_CONFIG_FILE: {name} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            at = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
            raise Misconfigured(f"AIO_CONFIG_FILE: {name} is not JSON{at}") from None
    for variable, text in env.items():
        if variable.startswith("AIO_"):
            # "_" parts the key, "__" is the sign itself.
            key = ".".join(part.replace("\0", "_") for part in variable[4:].lower().replace("__", "\0").split("_"))
            found[key] = text
    return found


def _flatten(value: object, key: str, into: dict[str, str]) -> None:
    if isinstance(value, dict):
        for name, each in cast("dict[str, object]", value).items():
            _flatten(each, f"{key}.{name}" if key else name, into)
    elif isinstance(value, str | int) and not isinstance(value, bool):
        into[key] = str(value)


def _token_of(settings: Mapping[str, str], context: str) -> str:
    place = f"ims.contexts.{context}.access_token"
    return (settings.get(f"{place}.token") or settings.get(place) or "").strip()


def _check_expiry(expiry: str, token: str, now: float) -> None:
    """Raise `BadToken` if the token is over: as the setting beside it says (ms), else as it says itself (s)."""
    said = _claims(token).get("exp")
    try:
        until = int(expiry) / 1000 if expiry else float(said) if isinstance(said, int | float) else now + 1
        if until > now:
            return
        when = datetime.fromtimestamp(until, UTC)
    except (ValueError, OverflowError, OSError):
        raise BadToken("the access token's expiry is not a time in milliseconds") from None
    raise BadToken(f"the access token is over since {when:%Y-%m-%d %H:%M} UTC: log in again and set the new one")


def _claims(token: str) -> dict[str, Any]:
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", claims) if isinstance(claims, dict) else {}
