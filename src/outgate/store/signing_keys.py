"""The signing keys of configurations and their lives: next, active, retired, destroyed.

Standards: RFC 6376 section 3.6.1 and RFC 8463 (a selector for each key), RFC 5863 section 3.4 (rotation).
Promises: new mail is signed with a key only once its record was seen, but for the first RSA key, without which nothing
    is sent; what signed before goes on existing until nothing can need it; every change is one transaction.
Dangers: a key that is destroyed cannot sign what is still queued: whoever destroys asks the queue first.
Not here: sealing (`secrets`), asking for records (`relay.onboarding`), which key signs a message (`model.flow`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, or_, select, update

from outgate.base import ids
from outgate.base.clock import Clock
from outgate.model.tenancy import Checked, DkimKey, KeptKey, KeyState, SmtpConfiguration, Verification
from outgate.store.database import Database
from outgate.store.keys import NewKey
from outgate.store.secrets import SecretBox
from outgate.store.tables import dkim_keys, smtp_configurations
from outgate.store.tenancy_rows import Conflict, NotThere

_ORDER = (KeyState.ACTIVE, KeyState.NEXT, KeyState.RETIRED)
_SIGNS_NOW = "; it signs from now on"


class SigningKeyQueries:
    """Read and change signing keys. Synchronous and thread-safe."""

    def __init__(self, database: Database, box: SecretBox, clock: Clock) -> None:
        self._database = database
        self._box = box
        self._clock = clock

    def keys(self, smtp_config_id: str) -> tuple[KeptKey, ...]:
        """Return the keys of a configuration, as `keys_of` does."""
        with self._database.reading() as connection:
            return keys_of(connection, smtp_config_id)

    def begin_rotation(self, smtp_config_id: str, made: Sequence[NewKey]) -> tuple[KeptKey, ...]:
        """Keep `made` as the next keys, one for each algorithm that a configuration signs with; return all keys.

        Raises `NotThere`; `Conflict` (field "rotation") while another rotation waits for its record."""
        now = self._clock.now()
        with self._database.writing() as connection:
            _must_exist(connection, smtp_config_id)
            present = keys_of(connection, smtp_config_id)
            if any(is_replacing(each, present) for each in present):
                raise Conflict("rotation", "a rotation is under way: publish its record and verify, or cancel it")
            for key in made:
                if _with(present, key.algorithm, KeyState.ACTIVE) is not None:
                    insert_key(connection, self._box, smtp_config_id, key, KeyState.NEXT, now)
            return keys_of(connection, smtp_config_id)

    def cancel_rotation(self, smtp_config_id: str) -> tuple[KeptKey, ...]:
        """Destroy the next keys of a rotation, which have signed nothing; return the keys that are left.

        Raises `NotThere`; `Conflict` (field "rotation") if there is none: it may have ended a moment ago."""
        with self._database.writing() as connection:
            _must_exist(connection, smtp_config_id)
            present = keys_of(connection, smtp_config_id)
            waiting = [each.key.id for each in present if is_replacing(each, present)]
            if not waiting:
                raise Conflict("rotation", "no rotation is under way")
            connection.execute(delete(dkim_keys).where(dkim_keys.c.id.in_(waiting)))
            return keys_of(connection, smtp_config_id)

    def add_second(self, smtp_config_id: str, key: NewKey) -> tuple[KeptKey, ...]:
        """Keep an Ed25519 key that will sign beside the RSA key once its record was seen, if there is none yet.
        Raises `NotThere`."""
        now = self._clock.now()
        with self._database.writing() as connection:
            _must_exist(connection, smtp_config_id)
            present = keys_of(connection, smtp_config_id)
            if not any(_is_second(each) for each in present):
                insert_key(connection, self._box, smtp_config_id, key, KeyState.NEXT, now)
            return keys_of(connection, smtp_config_id)

    def drop_second(self, smtp_config_id: str) -> tuple[KeptKey, ...]:
        """Sign new mail with the RSA key alone. Raises `NotThere`."""
        now = self._clock.now()
        mine = (dkim_keys.c.smtp_config_id == smtp_config_id, dkim_keys.c.algorithm == "ed25519")
        with self._database.writing() as connection:
            _must_exist(connection, smtp_config_id)
            connection.execute(delete(dkim_keys).where(*mine, dkim_keys.c.state == KeyState.NEXT))
            _change(connection, KeyState.RETIRED, now, *mine, dkim_keys.c.state == KeyState.ACTIVE)
            _sign_with(connection, smtp_config_id, second_key_id=None)
            return keys_of(connection, smtp_config_id)

    # -- the end --------------------------------------------------------------------------------------

    def unneeded(self, before: float, limit: int = 500) -> list[str]:
        """Return keys with their private halves that were retired, or their configuration deleted, by `before`."""
        there = dkim_keys.c.sealed != b""
        retired = and_(dkim_keys.c.state == KeyState.RETIRED, dkim_keys.c.changed_at <= before)
        gone = dkim_keys.c.smtp_config_id.in_(
            select(smtp_configurations.c.id).where(smtp_configurations.c.deleted_at <= before)
        )
        with self._database.reading() as connection:
            return list(connection.scalars(select(dkim_keys.c.id).where(there, or_(retired, gone)).limit(limit)))

    def destroy(self, key_ids: Collection[str]) -> None:
        """Destroy the private halves of keys; what was public stays, to tell of. For good."""
        with self._database.writing(noted=False) as connection:
            connection.execute(update(dkim_keys).where(dkim_keys.c.id.in_(key_ids)).values(sealed=b""))

    def forget(self, before: float) -> None:
        """Tell no more of keys that were destroyed and had been retired by `before`."""
        with self._database.writing(noted=False) as connection:
            connection.execute(
                delete(dkim_keys).where(
                    dkim_keys.c.state == KeyState.RETIRED, dkim_keys.c.changed_at <= before, dkim_keys.c.sealed == b""
                )
            )


def is_replacing(one: KeptKey, present: Collection[KeptKey]) -> bool:
    """Say whether a key is the next one of a rotation: the first Ed25519 key is next, and replaces none."""
    return one.state is KeyState.NEXT and _with(present, one.key.algorithm, KeyState.ACTIVE) is not None


def insert_key(
    connection: Connection,
    box: SecretBox,
    smtp_config_id: str,
    key: NewKey,
    state: KeyState,
    now: float,
    *,
    selector: str | None = None,
) -> DkimKey:
    """Store a key, its private half sealed, under a new id and return it; a UUID selector if none is given."""
    stored = DkimKey(ids.new_uuid(), smtp_config_id, selector or ids.new_uuid(), key.algorithm, key.public)
    connection.execute(
        insert(dkim_keys).values(
            id=stored.id,
            smtp_config_id=smtp_config_id,
            selector=stored.selector,
            algorithm=stored.algorithm,
            public=stored.public,
            sealed=box.seal(key.pem, table="dkim_keys", column="sealed", row=stored.id),
            created_at=now,
            state=state,
            changed_at=now,
            published=Verification.PENDING,
        )
    )
    return stored


def retire_rsa(connection: Connection, smtp_config_id: str, now: float) -> None:
    """Sign no new mail with the RSA key of a configuration, nor with the one that was to follow it."""
    mine = (dkim_keys.c.smtp_config_id == smtp_config_id, dkim_keys.c.algorithm == "rsa")
    connection.execute(delete(dkim_keys).where(*mine, dkim_keys.c.state == KeyState.NEXT))
    _change(connection, KeyState.RETIRED, now, *mine, dkim_keys.c.state == KeyState.ACTIVE)


def follow_records(
    connection: Connection, before: SmtpConfiguration, checked: Sequence[Checked], now: float
) -> tuple[SmtpConfiguration, list[Checked]]:
    """Do what findings about keys mean: a next key whose record was seen becomes the active one, the one before is
    retired, and what was found of its record counts no more; an Ed25519 key signs as long as its record is there.

    Return the configuration with the keys of then, and the findings that are left. A finding about a key that is not
    there, or has changed its place since, is dropped."""
    if all(one.key_id in ("", before.key.id) for one in checked):
        return before, list(checked)  # nearly all, and then without a statement
    present = {each.key.id: each for each in keys_of(connection, before.id) if each.state is not KeyState.RETIRED}
    kept: list[Checked] = []
    after = before
    for one in checked:
        about = present.get(one.key_id)
        if not one.key_id:
            kept.append(one)
        elif about is not None and one.check == check_name(about):
            if one.state is not None:
                _note_published(connection, about, one.state)
            if about.state is KeyState.NEXT and one.state is Verification.SUCCESSFUL:
                after = _turn(connection, after, about, now)
                name = check_name(replace(about, state=KeyState.ACTIVE))
                kept = [other for other in kept if other.check != name]
                kept.append(replace(one, check=name, explanation=one.explanation + _SIGNS_NOW))
            elif not any(other.check == one.check for other in kept):  # it has not just been replaced
                after = _second_seen(connection, after, about, one.state)
                kept.append(one)
    return after, kept


def check_name(kept: KeptKey) -> str:
    """Return what the check of a key's record is called: "dkim" is the one that decides about sending."""
    name = "dkim" if kept.key.algorithm == "rsa" else "dkim_ed25519"
    return name if kept.state is KeyState.ACTIVE else f"{name}_next"


def _turn(connection: Connection, before: SmtpConfiguration, about: KeptKey, now: float) -> SmtpConfiguration:
    """Let a next key become the active one of its algorithm."""
    key = about.key
    same = (dkim_keys.c.smtp_config_id == before.id, dkim_keys.c.algorithm == key.algorithm)
    _change(connection, KeyState.RETIRED, now, *same, dkim_keys.c.state == KeyState.ACTIVE)
    _change(connection, KeyState.ACTIVE, now, dkim_keys.c.id == key.id)
    if key.algorithm == "rsa":
        _sign_with(connection, before.id, key_id=key.id, updated_at=now)
        return replace(before, key=key, updated_at=now)
    _sign_with(connection, before.id, second_key_id=key.id, updated_at=now)
    return replace(before, second=key, updated_at=now)


def _second_seen(
    connection: Connection, before: SmtpConfiguration, about: KeptKey, state: Verification | None
) -> SmtpConfiguration:
    """Have an active Ed25519 key sign, or not, as its record is there or not."""
    if check_name(about) != "dkim_ed25519" or state is None:
        return before
    second = about.key if state is Verification.SUCCESSFUL else None
    if second != before.second:
        _sign_with(connection, before.id, second_key_id=None if second is None else second.id)
    return replace(before, second=second)


def _sign_with(connection: Connection, smtp_config_id: str, **values: object) -> None:
    connection.execute(update(smtp_configurations).where(smtp_configurations.c.id == smtp_config_id).values(**values))


def _note_published(connection: Connection, about: KeptKey, state: Verification) -> None:
    if about.published is not state:
        connection.execute(update(dkim_keys).where(dkim_keys.c.id == about.key.id).values(published=state))


def _change(connection: Connection, state: KeyState, now: float, *wanted: Any) -> None:
    connection.execute(update(dkim_keys).where(*wanted).values(state=state, changed_at=now))


def _must_exist(connection: Connection, smtp_config_id: str) -> None:
    there = (smtp_configurations.c.id == smtp_config_id, smtp_configurations.c.deleted_at.is_(None))
    if connection.scalar(select(smtp_configurations.c.id).where(*there)) is None:
        raise NotThere(f"configuration {smtp_config_id}")


def _with(present: Collection[KeptKey], algorithm: str, state: KeyState) -> KeptKey | None:
    return next((each for each in present if each.key.algorithm == algorithm and each.state is state), None)


def _is_second(one: KeptKey) -> bool:
    return one.key.algorithm == "ed25519" and one.state is not KeyState.RETIRED


def keys_of(connection: Connection, smtp_config_id: str) -> tuple[KeptKey, ...]:
    """Return the keys of a configuration: active, next, retired; RSA before Ed25519; the newest first."""
    query = (
        select(dkim_keys, smtp_configurations.c.key_id, smtp_configurations.c.dkim)
        .join(smtp_configurations, smtp_configurations.c.id == dkim_keys.c.smtp_config_id)
        .where(dkim_keys.c.smtp_config_id == smtp_config_id)
    )
    found = [_key_of(row) for row in connection.execute(query)]
    found.sort(key=lambda each: (_ORDER.index(each.state), each.key.algorithm != "rsa", -each.changed_at, each.key.id))
    return tuple(found)


def _key_of(row: Row[Any]) -> KeptKey:
    # What was found of the key that decides about sending is the configuration's own state.
    published = row.dkim if row.id == row.key_id else row.published
    key = DkimKey(row.id, row.smtp_config_id, row.selector, row.algorithm, row.public)
    return KeptKey(key, KeyState(row.state), Verification(published), row.changed_at, not row.sealed)
