"""Access tokens: made for API keys and for the laptop mode, checked on every call.

Standards: RFC 7519 (JWT), RFC 7518 (ES256), RFC 6750 (bearer).
Promises: only ES256 with a key of ours is accepted; expiry follows the injected clock; an API key that is deleted,
    has ended or lost a role voids its tokens at once, in every process.
Dangers: a token with `lifetime_s=None` lives 100 years: for the laptop mode only. A token from the future (`iat`) is
    good: processes' clocks differ, and only we sign.
Not here: API keys (`store.identity`), roles per operation (each API's own table).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from outgate.api.errors import Unauthorized
from outgate.base.clock import Clock
from outgate.store.control import ControlStore

ISSUER = "https://iam.outgate.test/identity"
LIFETIME_S = 3600
_NEVER_S = 100 * 365 * 86_400
_LONGEST = 8192
_REMEMBERED = 256
# The subject of a token that was got with an API key is "iam-" and the key's id.
_KEYS_SUBJECT = "iam-ApiKey-"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call: the token's subject, its account and roles, and the client that asked for the token."""

    subject: str
    account_id: str
    roles: frozenset[str]
    client_id: str


class TokenIssuer:
    """Make tokens. Thread-safe."""

    def __init__(self, store: ControlStore, clock: Clock, issuer: str = ISSUER) -> None:
        self._store = store
        self._clock = clock
        self._issuer = issuer

    def issue(
        self,
        subject: str,
        account_id: str,
        roles: Iterable[str],
        client_id: str,
        lifetime_s: float | None = LIFETIME_S,
        at: int | None = None,
    ) -> str:
        """Return a signed token; it expires `lifetime_s` seconds after `at` (None: now), or in 100 years if None."""
        key = self._store.identity.token_keys()[0]
        now = int(self._clock.now()) if at is None else at
        claims: dict[str, Any] = {
            "iat": now,
            "exp": now + int(_NEVER_S if lifetime_s is None else lifetime_s),
            "iss": self._issuer,
            "id": subject,
            "iam_id": subject,
            "sub": subject,
            "account": {"bss": account_id, "valid": True},
            "client_id": client_id,
            "roles": sorted(roles),
            "scope": "ibm openid",
            "grant_type": "urn:ibm:params:oauth:grant-type:apikey",
        }
        header = {"alg": "ES256", "typ": "JWT", "kid": key.id}
        return jwt.encode(header, claims, ECKey.import_key(key.pem), algorithms=["ES256"])

    def jwks(self) -> dict[str, object]:
        """Return the public keys that tokens are checked with (RFC 7517)."""
        keys: list[dict[str, object]] = []
        for key in self._store.identity.token_keys():
            public = ECKey.import_key(key.pem).as_dict(private=False)
            keys.append({**public, "kid": key.id, "alg": "ES256", "use": "sig"})
        return {"keys": keys}


class Authenticator:
    """Check tokens. Thread-safe; remembers those it has checked until the store changes."""

    def __init__(self, store: ControlStore, clock: Clock, issuer: str = ISSUER) -> None:
        self._store = store
        self._clock = clock
        self._issuer = issuer
        self._lock = threading.Lock()
        self._version = -1
        self._keys: dict[str, ECKey] = {}
        self._known: dict[bytes, tuple[Caller, float]] = {}

    async def authenticate(self, authorization: str | None) -> Caller:
        """Return who sent `Authorization: Bearer …`. Raises `Unauthorized` for none, a bad or an old one."""
        token = _bearer(authorization)
        digest = hashlib.sha256(token.encode("ascii")).digest()
        if self._version != self._store.data_version():
            await asyncio.to_thread(self._reload)
        # What is found out below belongs to this moment: a reload meanwhile puts another dictionary in its place.
        known = self._known
        found = known.get(digest)
        if found is None:
            caller, expires = self._check(token)
            if caller.subject.startswith(_KEYS_SUBJECT):
                expires = min(expires, await asyncio.to_thread(self._key_end, caller))
            found = caller, expires
            if len(known) >= _REMEMBERED:
                known.clear()
            known[digest] = found
        caller, expires = found
        if expires <= self._clock.now():
            raise Unauthorized("the bearer token has expired: get a new one")
        return caller

    def _key_end(self, caller: Caller) -> float:
        """Return when the API key behind a token ends. Raises `Unauthorized` if it no longer stands behind it."""
        key = self._store.identity.api_key(caller.subject.removeprefix("iam-"))
        if key is None or key.account_id != caller.account_id:
            raise Unauthorized("the API key of the bearer token has been deleted: get a token with another key")
        if not caller.roles <= key.roles:
            raise Unauthorized("the API key of the bearer token has lost a role: get a new token")
        return math.inf if key.expires_at is None else key.expires_at

    def _reload(self) -> None:
        with self._lock:
            # Read before the keys, so that a change in between is noticed at the next call.
            version = self._store.data_version()
            self._keys = {key.id: ECKey.import_key(key.pem) for key in self._store.identity.token_keys()}
            self._known = {}
            self._version = version

    def _check(self, token: str) -> tuple[Caller, float]:
        def key_of(recipient: Any) -> ECKey:
            return self._keys[str(recipient.headers()["kid"])]

        try:
            claims = jwt.decode(token, key_of, algorithms=["ES256"]).claims
            if claims["iss"] != self._issuer or not isinstance(claims["exp"], int):
                raise ValueError
            caller = Caller(
                str(claims["sub"]),
                str(claims["account"]["bss"]),
                frozenset(str(role) for role in claims["roles"]),
                str(claims["client_id"]),
            )
            return caller, float(claims["exp"])
        except (JoseError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise Unauthorized("the bearer token is not one of ours") from None


def _bearer(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").strip().partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("the request needs the header 'Authorization: Bearer <token>'")
    if len(token) > _LONGEST or not token.isascii():
        raise Unauthorized("the bearer token is not one of ours")
    return token
