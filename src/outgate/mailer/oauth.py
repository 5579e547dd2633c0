"""OAuth for the mail service: its eight properties, and access tokens that are fetched again when they expire.

Standards: the vendor's `com.day.cq.mailer.oauth.impl.OAuthConfigurationProviderImpl`; RFC 6749 sections 5 and 6
(refresh tokens), RFC 6750 (bearer tokens).
Promises: one refresh at a time, whatever the number of threads; a token is not used up to its last second; an error
says what to get and where to store it; no error, log line or `repr` shows a secret, nor a part that can be known again.
Dangers: some servers (Microsoft) give a new refresh token with each access token. It is kept for this process, and told
to `on_rotated`: whoever does not store it starts with the old one, until the server no longer takes that.
Not here: the form's way to the server (`mailer.form_post`), AUTH XOAUTH2 (`smtp.login`), how the first refresh token is
got (`docs/oauth.md`).

**Proxies.** The server is reached through the proxy in HTTPS_PROXY, unless NO_PROXY names it. Without HTTPS_PROXY it is
the environment's own, AEM_PROXY_HOST:AEM_HTTPS_PROXY_PORT: with a dedicated address or a VPN that makes the call come
from there, as a server may demand. That proxy only listens once advanced networking is enabled: if nobody does, the
call goes out directly. This machine itself is asked directly always.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, quote_plus, urlsplit

from outgate.base.clock import Clock, SystemClock
from outgate.mailer.configuration.oauth_names import PID, PROPERTIES
from outgate.mailer.configuration.properties import Properties, properties_of
from outgate.mailer.folders import ConfigFile, Configurations
from outgate.mailer.form_post import PROXY_SHARE, Answer, NotAnswered, checked, is_loopback, post
from outgate.mailer.interpolate import Source
from outgate.mailer.values import ConfigError
from outgate.smtp.connecting import unfit
from outgate.smtp.masks import Masks

MICROSOFT_SCOPES = ("https://outlook.office.com/SMTP.Send", "openid", "offline_access", "email", "profile")
GOOGLE_SCOPES = ("https://mail.google.com/",)

_log = logging.getLogger("outgate.mailer.oauth")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.\-]{0,252}")
_SCOPE = re.compile(r"[!#-\[\]-~]{1,1000}")  # RFC 6749 section 3.3
_TOKEN = re.compile(r"[!-~]{1,65536}")
_ERROR = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_LEFT_OVER = re.compile(r"<[^<>]{1,60}>")
_MARGIN = 60.0  # seconds before its end in which a token is fetched anew, so that it does not expire on the way
_UNTOLD_LIFE = 300.0  # seconds, if the server does not say
_LONGEST_LIFE = 86_400.0
_REMEMBERED = 60.0  # seconds for which a final refusal is not asked about again
_STORE_REFRESH = (
    "get a new one (docs/oauth.md says how) and store it as the secret SECRET_SMTP_OAUTH_REFRESH_TOKEN, or as what"
    " refreshToken names"
)


class TokenError(Exception):
    """There is no access token; the text says why and what to do.

    `reason` is "refresh-token" (no longer valid), "client" (id or secret refused), "request" (refused for another
    reason: scope, tenant), "server" (in trouble), "answer" (cannot be understood) or "network"; `final`: asking again
    will not help, somebody has to change something."""

    def __init__(self, text: str, *, reason: str) -> None:
        super().__init__(text)
        self.reason = reason

    @property
    def final(self) -> bool:
        return self.reason in ("refresh-token", "client", "request")


@dataclass(frozen=True, slots=True)
class OAuthConfig:
    """What is needed to fetch access tokens. `token_url` is where the refresh token is sent (`refreshUrl`, if there is
    one). An empty `client_secret` is a public client, which has none."""

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    refresh_token: str = field(repr=False)
    scopes: tuple[str, ...] = ()
    auth_url: str = ""
    redirect_url: str = ""

    def __post_init__(self) -> None:
        """Raise `ConfigError`, with the vendor's name of the property, for what cannot be used."""
        if wrong := checked(self.token_url):
            raise ConfigError(wrong, name="tokenUrl")
        for name, value, needed in (
            ("clientId", self.client_id, True),
            ("clientSecret", self.client_secret, False),
            ("refreshToken", self.refresh_token, True),
        ):
            if needed and not value:
                raise ConfigError("a value is needed", name=name)
            if not value.isprintable() or value != value.strip():
                raise ConfigError("holds a line end, a space at an end, or another sign that none can have", name=name)
        for scope in self.scopes:
            if _SCOPE.fullmatch(scope) is None:
                raise ConfigError("expected a list with one scope in each element", name="scopes")


def microsoft(
    tenant: str, client_id: str, client_secret: str, refresh_token: str, scopes: Iterable[str] = MICROSOFT_SCOPES
) -> OAuthConfig:
    """Return the configuration for Microsoft 365 (smtp.office365.com, 587).

    `tenant` is the directory's id, or a domain of it. Raises `ConfigError`."""
    if _TENANT.fullmatch(tenant) is None:
        raise ConfigError("expected the directory (tenant) ID, or a domain of the tenant", name="tenant")
    base = f"https://login.microsoftonline.com/{tenant}/oauth2/v2.0"
    return OAuthConfig(f"{base}/token", client_id, client_secret, refresh_token, tuple(scopes), f"{base}/authorize")


def google(
    client_id: str, client_secret: str, refresh_token: str, scopes: Iterable[str] = GOOGLE_SCOPES
) -> OAuthConfig:
    """Return the configuration for Gmail and Google Workspace (smtp.gmail.com, 587). Raises `ConfigError`."""
    base = "https://accounts.google.com/o/oauth2"
    return OAuthConfig(f"{base}/token", client_id, client_secret, refresh_token, tuple(scopes), f"{base}/auth")


def load(configurations: Configurations, run_modes: Iterable[str] = (), *, env: Source, secrets: Source) -> OAuthConfig:
    """Find, read, interpolate and check the OAuth configuration that goes with a mail service with `oauth.flow`.

    Raises `ConfigError` (for a file that is no configuration `OsgiError`) with file, line and column as far as there
    are any; a file whose name is nearly the PID's is named."""
    modes = run_modes if isinstance(run_modes, str) else tuple(run_modes)
    if not configurations.candidates(PID, modes) and (wrong := misnamed(configurations)):
        raise ConfigError(f"is not read: oauth.flow needs a file with the name {PID}.cfg.json", file=wrong[0].where)
    properties = properties_of(configurations.resolve(PID, modes), env=env, secrets=secrets)
    values = {name: _text(properties, name) for name in PROPERTIES if name != "scopes"}
    for name in ("clientId", "refreshToken"):
        if not values[name]:
            raise _missing(properties, name)
    address = "refreshUrl" if values["refreshUrl"] else "tokenUrl"
    if not values[address]:
        raise _missing(properties, address)
    if "clientSecret" in properties and not values["clientSecret"]:
        raise properties.error("clientSecret", "is empty: give a value, or leave the property out for a public client")
    try:
        return OAuthConfig(
            token_url=values[address],
            client_id=values["clientId"],
            client_secret=values["clientSecret"],
            refresh_token=values["refreshToken"],
            scopes=_scopes(properties),
            auth_url=values["authUrl"],
            redirect_url=values["authCodeRedirectUrl"],
        )
    except ConfigError as error:
        name = address if error.name == "tokenUrl" else error.name
        raise properties.error(name, error.text) from None


def misnamed(configurations: Configurations) -> list[ConfigFile]:
    """Return the files that are named after the PID but not with it, as some pages show it: another package, a word
    before it, an instance's name behind it, other capitals."""
    last = PID.rpartition(".")[2].lower()
    return [
        file
        for file in configurations.files
        if file.pid != PID and re.split(r"[~\-]", file.pid)[0].rpartition(".")[2].strip().lower() in (last, last[:-4])
    ]


def _text(properties: Properties, name: str) -> str:
    text = properties.text(name).strip()
    if name in ("authUrl", "tokenUrl", "refreshUrl", "clientId") and (left := _LEFT_OVER.search(text)):
        raise properties.error(name, f"still has {left[0]} of the example: put your own value there")
    return text


def _missing(properties: Properties, name: str) -> ConfigError:
    if name in properties:
        return properties.error(name, "is empty: a value is needed")
    others = [each.name for each in properties if each.name.lower() not in {known.lower() for known in PROPERTIES}]
    near = difflib.get_close_matches(name, others, n=1)
    if near:
        return properties.error(near[0], f"is no property of this configuration: did you mean {name}?")
    return properties.error(name, f"is missing: the configuration needs {name}")


def _scopes(properties: Properties) -> tuple[str, ...]:
    """Return the scopes; a single text may hold several, as they are sent, with spaces between them."""
    found = properties.texts("scopes")
    return tuple(found[0].split()) if len(found) == 1 else tuple(scope.strip() for scope in found)


class Tokens:
    """Access tokens for one configuration. May be shared by threads; coroutines call `token` in a thread."""

    def __init__(
        self,
        config: OAuthConfig,
        *,
        clock: Clock | None = None,
        env: Source | None = None,
        cafile: str | Path | None = None,
        seconds: float = 30.0,
        on_rotated: Callable[[str], None] | None = None,
    ) -> None:
        """`env` (the process's environment if None) names the proxy; `cafile` holds authorities to trust beside the
        system's; `seconds` is what one refresh may take in all. `on_rotated` is given each new refresh token, in the
        thread that fetched it, after the access token is ready.

        Raises `ConfigError` if `cafile` holds no certificates."""
        self.config = config
        self._clock = clock or SystemClock()
        self._env: Source = os.environ if env is None else env
        self._context = _context(cafile) if config.token_url.startswith("https:") else None
        self._seconds = seconds
        self._on_rotated = on_rotated
        self._lock = threading.Lock()
        self._refresh_token = config.refresh_token
        self._access = ""
        self._forgotten = ""
        self._until = 0.0
        self._tries = 0
        self._failure: TokenError | None = None
        self._failed_at = 0.0
        _everywhere.add(self)

    def token(self, seconds: float | None = None) -> str:
        """Return an access token that is still good, fetching one if need be. Raises `TokenError`.

        `seconds` are for all of it, waiting for a fetch of somebody else's included (None: what a refresh may take)."""
        seen = self._tries
        began = time.monotonic()
        lock = self._lock
        if not lock.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX)):
            raise self._error("somebody else's fetch of one took all the time there was", "network")
        try:
            if self._access and self._access != self._forgotten and self._clock.now() < self._until:
                return self._access
            self._raise_if_known(seen)
            self._tries += 1
            most = self._seconds if seconds is None else min(self._seconds, began + seconds - time.monotonic())
            try:
                rotated = self._refresh(most)
            except TokenError as error:
                self._failure, self._failed_at = error, self._clock.now()
                raise
            self._failure = None
            access = self._access
        finally:
            lock.release()
        if rotated:
            self._tell(rotated)
        return access

    def forget(self, token: str = "") -> None:
        """Have the next `token` fetch a new one, because a server refused the last (`token`, if others may have fetched
        a newer one already)."""
        # Without the lock: an event loop must not wait for a fetch.
        if token in ("", self._access):
            self._forgotten = self._access

    def _raise_if_known(self, seen: int) -> None:
        """Raise the failure of whoever was waited for, and a final one again for a while: many who wait do not ask a
        server in trouble one after the other."""
        failure = self._failure
        if failure is not None and (
            self._tries != seen or (failure.final and 0 <= self._clock.now() - self._failed_at < _REMEMBERED)
        ):
            raise TokenError(str(failure), reason=failure.reason)

    def _refresh(self, seconds: float) -> str:
        """Fetch an access token; return the new refresh token, "" if it is still the old one."""
        began = self._clock.now()
        self._access = ""
        return self._take(self._ask(seconds), began)

    def _take(self, answer: Answer, began: float) -> str:
        document = _document(answer)
        if answer.status != 200:
            raise self._refused(answer, document)
        access = document.get("access_token")
        kind = document.get("token_type", "Bearer")
        if not isinstance(access, str) or _TOKEN.fullmatch(access) is None:
            raise self._error("the answer holds no access token", "answer")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise self._error("the answer holds a token that is no bearer token, which XOAUTH2 needs", "answer")
        life = _life(document.get("expires_in"))
        self._forgotten = ""
        self._access, self._until = access, began + life - min(_MARGIN, life / 10)
        renewed = document.get("refresh_token")
        if not isinstance(renewed, str) or renewed == self._refresh_token or _TOKEN.fullmatch(renewed) is None:
            return ""
        self._refresh_token = renewed
        return renewed

    def _ask(self, seconds: float) -> Answer:
        proxy, own = _proxy(self.config.token_url, self._env)
        try:
            try:
                return self._post(proxy, seconds)
            except NotAnswered as error:
                if not own or error.hop != "proxy":
                    raise
                _log.info("%s is asked without the environment's proxy: %s", self._server, error)
                return self._post("", (1 - PROXY_SHARE) * seconds)
        except NotAnswered as error:
            text = str(error)
        raise self._error(text, "network")  # it remembers no call that was given a secret

    def _post(self, proxy: str, seconds: float) -> Answer:
        config = self.config
        fields = {
            "grant_type": "refresh_token",
            "client_id": config.client_id,
            "client_secret": config.client_secret,
            "refresh_token": self._refresh_token,
            "scope": " ".join(config.scopes),
        }
        given = {name: value for name, value in fields.items() if value}
        return post(config.token_url, given, seconds=seconds, context=self._context, proxy=proxy)

    @property
    def _server(self) -> str:
        return urlsplit(self.config.token_url).netloc

    def _error(self, text: str, reason: str) -> TokenError:
        return TokenError(f"no access token from {self._server}: {self._without_secrets(text)}", reason=reason)

    def _refused(self, answer: Answer, document: dict[str, Any]) -> TokenError:
        status = answer.status
        if 300 <= status < 400:
            text = f"it redirects ({status}), and secrets are not sent on: give the final address in the configuration"
            return self._error(text, "request")
        error, said = _said(document)
        if status >= 500 or status == 429 or error in ("temporarily_unavailable", "server_error"):
            return self._error(f"the server is in trouble ({status}){said}: try again later", "server")
        if error == "invalid_grant":
            return self._error(f"the refresh token is no longer valid{said}: {_STORE_REFRESH}", "refresh-token")
        if error in ("invalid_client", "unauthorized_client"):
            text = (
                f"the server does not take clientId and clientSecret ({error}){said}: check both, and whether the"
                " secret has expired; it is stored as SECRET_SMTP_OAUTH_CLIENT_SECRET, or as what clientSecret names"
            )
            return self._error(text, "client")
        if error:
            return self._error(f"the server refuses ({status} {error}){said}", "request")
        return self._error(
            f"the answer ({status}) is not one of a token server: check tokenUrl and refreshUrl", "answer"
        )

    def _without_secrets(self, text: str) -> str:
        config = self.config
        secrets = [secret for secret in (config.client_secret, config.refresh_token, self._refresh_token) if secret]
        forms = [form for secret in secrets for form in (secret, quote(secret, safe=""), quote_plus(secret))]
        return Masks("", *forms).text(text)

    def _tell(self, renewed: str) -> None:
        if self._on_rotated is None:
            _log.warning(
                "%s gave a new refresh token, which this process uses from now on: store it (Tokens(on_rotated=…)), for"
                " the one in the configuration may soon be refused",
                self._server,
            )
            return
        _log.info("%s gave a new refresh token, which on_rotated is given", self._server)
        try:
            self._on_rotated(renewed)
        except Exception as error:  # the mail can go all the same
            _log.error(
                "the new refresh token of %s is not stored: on_rotated raised %s", self._server, type(error).__name__
            )


_everywhere: weakref.WeakSet[Tokens] = weakref.WeakSet()


def _after_fork() -> None:
    for tokens in list(_everywhere):
        # A thread that held it exists in the parent only.
        tokens._lock = threading.Lock()  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _context(cafile: str | Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if cafile:
        try:
            context.load_verify_locations(cafile)
        except OSError as error:
            raise ConfigError(unfit(cafile, error)) from None
    return context


def _document(answer: Answer) -> dict[str, Any]:
    """Return the JSON object that a body is; {} if it is none."""
    try:
        found: object = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _said(document: dict[str, Any]) -> tuple[str, str]:
    """Return an answer's error code and, in brackets, the first line of its description; "" for what it has not."""
    code, text = document.get("error"), document.get("error_description")
    error = code if isinstance(code, str) and _ERROR.fullmatch(code) else ""
    if not isinstance(text, str) or not text.strip():
        return error, ""
    line = text.strip().splitlines()[0][:300]
    return error, " (" + "".join(sign if sign.isprintable() else "?" for sign in line) + ")"


def _life(given: object) -> float:
    """Return for how many seconds a token is good: some servers write the number as text, some none at all."""
    if isinstance(given, str) and re.fullmatch(r"[0-9]{1,9}", given):
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not given > 0:
        return _UNTOLD_LIFE
    return min(float(min(given, _LONGEST_LIFE)), _LONGEST_LIFE)


def _proxy(url: str, env: Source) -> tuple[str, bool]:
    """Return the proxy to use for an address ("" for none), and whether it is the environment's own."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https" or is_loopback(host):
        return "", False
    named = env.get("HTTPS_PROXY") or env.get("https_proxy") or ""
    if named:
        return ("" if _bypassed(host, env.get("NO_PROXY") or env.get("no_proxy") or "") else named), False
    tunnel, port = env.get("AEM_PROXY_HOST") or "", env.get("AEM_HTTPS_PROXY_PORT") or ""
    if not tunnel or re.fullmatch(r"[0-9]{1,5}", port) is None:
        return "", False
    return f"http://{tunnel}:{port}", True


def _bypassed(host: str, listed: str) -> bool:
    names = [name.strip().lower() for name in listed.split(",")]
    ends = [name.removeprefix("*").removeprefix(".") for name in names]
    return "*" in names or any(host == end or host.endswith(f".{end}") for end in ends if end)
