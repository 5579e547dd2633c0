"""Who calls the API: API keys (as digests) and the keys that sign access tokens (sealed).

Standards: FIPS 180-4 (SHA-256), RFC 7517 (key ids).
Promises: a clear API key exists only in the answer that makes it; an expired key is not found.
Dangers: `token_keys` returns private keys in clear, in PEM. A key's digest is plain SHA-256: that is safe
    because keys are 256 random bits, never words a person chose.
Not here: tokens themselves (`api.identity`).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import Row, delete, insert, or_, select

from outgate.base import ids
from outgate.base.clock import Clock
from outgate.store.database import Database
from outgate.store.secrets import SecretBox
from outgate.store.tables import api_keys, token_keys


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of an API key; `expires_at` None means never."""

    id: str
    account_id: str
    name: str
    roles: frozenset[str]
    created_at: float
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key that signs tokens: `pem` is an EC P-256 private key in clear (PKCS#8)."""

    id: str
    pem: bytes = field(repr=False)


class IdentityQueries:
    """Read and change API keys and token keys. Synchronous and thread-safe."""

    def __init__(self, database: Database, box: SecretBox, clock: Clock) -> None:
        self._database = database
        self._box = box
        self._clock = clock

    def create_api_key(
        self,
        account_id: str,
        name: str,
        roles: Iterable[str],
        *,
        expires_at: float | None = None,
        clear: str | None = None,
    ) -> tuple[ApiKey, str]:
        """Make an API key and return it with its clear text, which is shown only now (or was given)."""
        clear = clear or secrets.token_urlsafe(32)
        key = ApiKey(f"ApiKey-{ids.new_uuid()}", account_id, name, frozenset(roles), self._clock.now(), expires_at)
        with self._database.writing() as connection:
            connection.execute(
                insert(api_keys).values(
                    id=key.id,
                    account_id=account_id,
                    name=name,
                    digest=_digest(clear),
                    roles=sorted(key.roles),
                    created_at=key.created_at,
                    expires_at=expires_at,
                )
            )
        return key, clear

    def find_api_key(self, clear: str) -> ApiKey | None:
        """Return the key with that clear text, or None if unknown or expired."""
        query = select(api_keys).where(
            api_keys.c.digest == _digest(clear),
            or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > self._clock.now()),
        )
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
            return None if row is None else _key_of(row)

    def api_keys(self, account_id: str) -> tuple[ApiKey, ...]:
        """Return an account's keys, oldest first, expired ones too."""
        query = select(api_keys).where(api_keys.c.account_id == account_id).order_by(api_keys.c.created_at)
        with self._database.reading() as connection:
            return tuple(_key_of(row) for row in connection.execute(query))

    def delete_api_key(self, key_id: str) -> bool:
        """Delete a key and say whether it was there; tokens made with it live out their hour."""
        with self._database.writing() as connection:
            return connection.execute(delete(api_keys).where(api_keys.c.id == key_id)).rowcount > 0

    def token_keys(self) -> tuple[TokenKey, ...]:
        """Return the keys that tokens may be signed with, newest first; make the first if there is none."""
        query = select(token_keys).order_by(token_keys.c.created_at.desc(), token_keys.c.id)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        if not rows:
            # The write lock decides between two processes that start together.
            with self._database.writing() as connection:
                if not connection.execute(query).all():
                    key = _new_token_key()
                    sealed = self._box.seal(key.pem, table="token_keys", column="sealed", row=key.id)
                    connection.execute(
                        insert(token_keys).values(id=key.id, sealed=sealed, created_at=self._clock.now())
                    )
                rows = connection.execute(query).all()
        return tuple(
            TokenKey(row.id, self._box.open(row.sealed, table="token_keys", column="sealed", row=row.id))
            for row in rows
        )

    def add_token_key(self) -> TokenKey:
        """Make a new key that signs tokens from now on; older keys still verify."""
        key = _new_token_key()
        sealed = self._box.seal(key.pem, table="token_keys", column="sealed", row=key.id)
        with self._database.writing() as connection:
            connection.execute(insert(token_keys).values(id=key.id, sealed=sealed, created_at=self._clock.now()))
        return key

    def delete_token_key(self, key_id: str) -> bool:
        """Delete a token key, which voids every token it signed; say whether it was there."""
        with self._database.writing() as connection:
            return connection.execute(delete(token_keys).where(token_keys.c.id == key_id)).rowcount > 0


def _digest(clear: str) -> str:
    return hashlib.sha256(clear.encode("utf-8", "surrogatepass")).hexdigest()


def _key_of(row: Row[Any]) -> ApiKey:
    return ApiKey(row.id, row.account_id, row.name, frozenset(row.roles), row.created_at, row.expires_at)


def _new_token_key() -> TokenKey:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return TokenKey(ids.new_uuid(), pem)
