"""Who calls the API: API keys (as digests) and the keys that sign access tokens (sealed).

Standards: FIPS 180-4 (SHA-256), RFC 7517 (key ids).
Promises: a clear API key exists only in the answer that makes it; an expired key is not found by its clear text;
    a change names the version it was made from, so none is lost.
Dangers: `token_keys` returns private keys in clear, in PEM. A key's digest is plain SHA-256: that is safe
    because keys are 256 random bits, never words a person chose; also where one serves as an SMTP password.
Not here: tokens themselves and what a deleted key does to them (`api.identity`), who may do what (roles there).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from outgate.base import ids
from outgate.base.clock import Clock
from outgate.store.database import Database
from outgate.store.secrets import SecretBox
from outgate.store.tables import api_keys, token_keys
from outgate.store.tenancy_rows import TooMany

MOST_KEYS = 100
"""How many API keys an account may have, expired ones too."""
_SHORTEST = 43
"""Signs that 256 bits take, in base64."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of an API key; `expires_at` None means never, `created_by` "" that nobody wrote it down.

    `instances` are those whose users it is a password of, if it has the role smtp; None: all of the account's."""

    id: str
    account_id: str
    name: str
    roles: frozenset[str]
    created_at: float
    expires_at: float | None
    description: str = ""
    created_by: str = ""
    updated_at: float = 0.0
    version: str = ""
    instances: frozenset[str] | None = None

    @property
    def subject(self) -> str:
        """Return whom its tokens name."""
        return f"iam-{self.id}"

    def ended(self, now: float) -> bool:
        """Say whether its end date is past."""
        return self.expires_at is not None and self.expires_at <= now

    def opens(self, account_id: str, instance_id: str, now: float) -> bool:
        """Say whether it is the password of the SMTP users of that account's instance."""
        return (
            "smtp" in self.roles
            and self.account_id == account_id
            and (self.instances is None or instance_id in self.instances)
            and not self.ended(now)
        )


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
        description: str = "",
        by: str = "",
        expires_at: float | None = None,
        instances: Iterable[str] | None = None,
        clear: str | None = None,
    ) -> tuple[ApiKey, str]:
        """Make an API key and return it with its clear text, which is shown only now (or was given).

        A given text must be random, 256 bits of it, and an expired key that has it makes way. Raises `TooMany` (100
        keys) unless it is given, `ValueError` if it is too short for that."""
        now = self._clock.now()
        key = ApiKey(
            f"ApiKey-{ids.new_uuid()}",
            account_id,
            name,
            frozenset(roles),
            now,
            expires_at,
            description,
            by,
            now,
            ids.hex_id(),
            None if instances is None else frozenset(instances),
        )
        if clear is not None and len(clear) < _SHORTEST:
            raise ValueError(f"the text of an API key has at least {_SHORTEST} signs, all random")
        text = clear or secrets.token_urlsafe(32)
        digest = _digest(text)
        with self._database.writing() as connection:
            if clear is None and _count(connection, account_id) >= MOST_KEYS:
                raise TooMany(f"an account has at most {MOST_KEYS} API keys: delete one first")
            connection.execute(delete(api_keys).where(api_keys.c.digest == digest, api_keys.c.expires_at <= now))
            connection.execute(insert(api_keys).values(digest=digest, **_values(key)))
        return key, text

    def find_api_key(self, clear: str) -> ApiKey | None:
        """Return the key with that clear text, or None if unknown or expired."""
        query = select(api_keys).where(
            api_keys.c.digest == _digest(clear),
            or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > self._clock.now()),
        )
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
            return None if row is None else _key_of(row)

    def api_key(self, key_id: str) -> ApiKey | None:
        """Return the key with that id, expired or not, of whatever account."""
        with self._database.reading() as connection:
            row = connection.execute(select(api_keys).where(api_keys.c.id == key_id)).one_or_none()
            return None if row is None else _key_of(row)

    def api_keys(self, account_id: str) -> tuple[ApiKey, ...]:
        """Return an account's keys, oldest first, expired ones too."""
        query = select(api_keys).where(api_keys.c.account_id == account_id)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(api_keys.c.created_at, api_keys.c.id))
            return tuple(_key_of(row) for row in rows)

    def replace_api_key(self, key: ApiKey) -> ApiKey | None:
        """Store a key's name, description, roles, instances and end date, and return it as it is now.

        None if it is gone or no longer at `key.version`."""
        changed = replace(key, updated_at=self._clock.now(), version=ids.hex_id())
        same = (api_keys.c.id == key.id, api_keys.c.version == key.version)
        with self._database.writing() as connection:
            found = connection.execute(update(api_keys).where(*same).values(**_values(changed))).rowcount
        return changed if found else None

    def delete_api_key(self, key_id: str) -> bool:
        """Delete a key, which voids its tokens and its logins at once, and say whether it was there."""
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


def _count(connection: Connection, account_id: str) -> int:
    query = select(func.count()).select_from(api_keys).where(api_keys.c.account_id == account_id)
    return int(connection.execute(query).scalar_one())


def _values(key: ApiKey) -> dict[str, object]:
    instances = None if key.instances is None else sorted(key.instances)
    return {**asdict(key), "roles": sorted(key.roles), "instances": instances}


def _key_of(row: Row[Any]) -> ApiKey:
    return ApiKey(
        row.id,
        row.account_id,
        row.name,
        frozenset(row.roles),
        row.created_at,
        row.expires_at,
        row.description,
        row.created_by,
        # Keys that are older than the column have been changed last when they were made.
        row.updated_at or row.created_at,
        row.version,
        None if row.instances is None else frozenset(row.instances),
    )


def _new_token_key() -> TokenKey:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return TokenKey(ids.new_uuid(), pem)
