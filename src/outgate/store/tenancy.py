"""Tenants in the control database: accounts, instances, SMTP configurations, keys, users.

Standards: none; rules of the vendor's contract that need a transaction (five users, one domain) are kept here.
Promises: every method is one transaction; a private key is sealed before it reaches the database; a deleted
    configuration keeps its row and its key, because queued mail still has to be signed.
Dangers: `signing_key_pem` returns a private key in clear.
Not here: JSON (`api.event_notifications`), who may send (`relay.policy`), what is known of a
    domain (`verification`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from outgate.base import ids
from outgate.base.clock import Clock, rfc3339
from outgate.model.tenancy import (
    Credential,
    DkimKey,
    Instance,
    KeyState,
    MailRules,
    Quota,
    Sender,
    SmtpConfiguration,
    SmtpUser,
    Standing,
    Verification,
)
from outgate.store.database import Database
from outgate.store.keys import NewKey, read_dkim_key
from outgate.store.secrets import SecretBox
from outgate.store.signing_keys import insert_key, retire_rsa
from outgate.store.tables import (
    accounts,
    credentials,
    dkim_keys,
    instances,
    meta,
    smtp_configurations,
    smtp_users,
)
from outgate.store.tenancy_rows import (
    MOST_USERS,
    Conflict,
    NotThere,
    TooMany,
    configuration_of,
    configuration_query,
    credential_of,
    drop_unused_credentials,
    find_instance,
    holds_text,
    insert_user,
    instance_of,
    room_for_user,
    rules_values,
    user_of,
    user_query,
)

T = TypeVar("T")
_COUNTED = 10_000
_ASKED_AT_ONCE = 500

__all__ = ["MOST_USERS", "Conflict", "Found", "NotThere", "TenancyQueries", "TooMany"]


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """One page of a search and how many match in all."""

    total: int
    items: tuple[T, ...]


class TenancyQueries:
    """Read and change tenants. Synchronous and thread-safe."""

    def __init__(self, database: Database, box: SecretBox, clock: Clock) -> None:
        self._database = database
        self._box = box
        self._clock = clock
        self._totals: dict[str, tuple[str, int]] = {}

    # -- accounts and instances -------------------------------------------------------------------

    def create_account(self, account_id: str | None = None) -> str:
        """Make an account if there is none of that id, and return the id (32 hexadecimal digits if new)."""
        account_id = account_id or ids.hex_id()
        with self._database.writing() as connection:
            if connection.scalar(select(accounts.c.id).where(accounts.c.id == account_id)) is None:
                connection.execute(insert(accounts).values(id=account_id, created_at=self._clock.now()))
        return account_id

    def create_instance(
        self,
        account_id: str,
        region: str,
        name: str,
        *,
        attachments: bool = False,
        instance_id: str | None = None,
    ) -> Instance:
        """Make a service instance of an account. Raises `NotThere` for an unknown account."""
        instance = Instance(instance_id or ids.new_uuid(), account_id, region, name, attachments, self._clock.now())
        with self._database.writing(access=True) as connection:
            if connection.scalar(select(accounts.c.id).where(accounts.c.id == account_id)) is None:
                raise NotThere(f"account {account_id}")
            connection.execute(
                insert(instances).values(
                    id=instance.id,
                    account_id=account_id,
                    region=region,
                    name=name,
                    attachments=attachments,
                    created_at=instance.created_at,
                )
            )
        return instance

    def instance(self, instance_id: str) -> Instance | None:
        """Return an instance, or None."""
        with self._database.reading() as connection:
            return find_instance(connection, instance_id)

    def instances(self, account_id: str | None = None) -> tuple[Instance, ...]:
        """Return the instances of an account, or all, oldest first."""
        query = select(instances).order_by(instances.c.created_at, instances.c.id)
        if account_id is not None:
            query = query.where(instances.c.account_id == account_id)
        with self._database.reading() as connection:
            return tuple(instance_of(row) for row in connection.execute(query))

    def update_instance(
        self, instance_id: str, *, name: str | None = None, attachments: bool | None = None
    ) -> Instance:
        """Change an instance's name or whether its mail may carry attachments. Raises `NotThere`."""
        given = {"name": name, "attachments": attachments}
        values = {key: value for key, value in given.items() if value is not None}
        with self._database.writing() as connection:
            if values:
                connection.execute(update(instances).where(instances.c.id == instance_id).values(**values))
            instance = find_instance(connection, instance_id)
        if instance is None:
            raise NotThere(f"instance {instance_id}")
        return instance

    # -- configurations ---------------------------------------------------------------------------

    def create_configuration(
        self,
        instance_id: str,
        *,
        name: str,
        domain: str,
        description: str,
        key: NewKey,
        second: NewKey | None = None,
        selector: str | None = None,
        authorization: Verification = Verification.PENDING,
    ) -> SmtpConfiguration:
        """Make a configuration for a domain (lower-case A-labels) with its signing key (RSA; a UUID selector if none),
        and perhaps a second (Ed25519) that signs too once its record was seen.

        Raises `Conflict` (field "domain") if the instance has the domain already, `NotThere` for the instance.
        """
        now, config_id = self._clock.now(), ids.new_uuid()
        try:
            with self._database.writing() as connection:
                if find_instance(connection, instance_id) is None:
                    raise NotThere(f"instance {instance_id}")
                stored = insert_key(connection, self._box, config_id, key, KeyState.ACTIVE, now, selector=selector)
                if second is not None:
                    insert_key(connection, self._box, config_id, second, KeyState.NEXT, now)
                connection.execute(
                    insert(smtp_configurations).values(
                        id=config_id,
                        instance_id=instance_id,
                        name=name,
                        description=description,
                        domain=domain,
                        spf=Verification.PENDING,
                        dkim=Verification.PENDING,
                        authorization=authorization,
                        key_id=stored.id,
                        created_at=now,
                        updated_at=now,
                    )
                )
        except IntegrityError as error:
            raise Conflict("domain", f"this instance has a configuration for {domain} already") from error
        pending = Verification.PENDING
        return SmtpConfiguration(
            config_id, instance_id, name, description, domain, pending, pending, authorization, stored, now, now
        )

    def configuration(self, instance_id: str, smtp_config_id: str) -> SmtpConfiguration | None:
        """Return a configuration of that instance, or None if unknown or deleted."""
        return self._one_configuration(
            smtp_configurations.c.id == smtp_config_id, smtp_configurations.c.instance_id == instance_id
        )

    def instance_of(self, smtp_config_id: str) -> str | None:
        """Return the id of a configuration's instance, or None if it is unknown or deleted."""
        found = self._one_configuration(smtp_configurations.c.id == smtp_config_id)
        return None if found is None else found.instance_id

    def configuration_by_domain(self, instance_id: str, domain: str) -> SmtpConfiguration | None:
        """Return an instance's configuration for a domain, or None."""
        return self._one_configuration(
            smtp_configurations.c.domain == domain, smtp_configurations.c.instance_id == instance_id
        )

    def configurations(
        self, instance_id: str, *, search: str | None = None, limit: int = 10, offset: int = 0
    ) -> Found[SmtpConfiguration]:
        """Return a page of an instance's configurations, oldest first; `search` is part of the name."""
        wanted = [smtp_configurations.c.instance_id == instance_id, smtp_configurations.c.deleted_at.is_(None)]
        if search is not None:
            wanted.append(holds_text(smtp_configurations.c.name, search))
        count = select(func.count()).select_from(smtp_configurations).where(*wanted)
        # The page is found in the index alone; only its own rows are read whole.
        order = (smtp_configurations.c.created_at, smtp_configurations.c.id)
        ids_of_page = select(smtp_configurations.c.id).where(*wanted).order_by(*order).limit(limit).offset(offset)
        page = configuration_query(smtp_configurations.c.id.in_(ids_of_page)).order_by(*order)
        with self._database.reading() as connection:
            total = self._total(connection, instance_id, count) if search is None else connection.scalar(count) or 0
            return Found(total, tuple(configuration_of(row) for row in connection.execute(page)))

    def _total(self, connection: Connection, instance_id: str, count: Select[Any]) -> int:
        """Count once per revision: of 100,000 configurations that takes longer than reading a page of them."""
        revision = connection.scalar(select(meta.c.value).where(meta.c.key == "revision")) or ""
        known = self._totals.get(instance_id)
        if known is None or known[0] != revision:
            if len(self._totals) >= _COUNTED:
                self._totals.clear()
            known = self._totals[instance_id] = (revision, connection.scalar(count) or 0)
        return known[1]

    def update_configuration(
        self, instance_id: str, smtp_config_id: str, *, name: str | None = None, description: str | None = None
    ) -> SmtpConfiguration:
        """Change a configuration's name or description; None leaves it. Raises `NotThere`."""
        given = {"name": name, "description": description}
        values = {key: value for key, value in given.items() if value is not None}
        with self._database.writing() as connection:
            changed = connection.execute(
                update(smtp_configurations)
                .where(
                    smtp_configurations.c.id == smtp_config_id,
                    smtp_configurations.c.instance_id == instance_id,
                    smtp_configurations.c.deleted_at.is_(None),
                )
                .values(updated_at=self._clock.now(), **values)
            )
            if changed.rowcount == 0:
                raise NotThere(f"configuration {smtp_config_id}")
            row = connection.execute(configuration_query(smtp_configurations.c.id == smtp_config_id)).one()
            return configuration_of(row)

    def update_rules(
        self, instance_id: str, smtp_config_id: str, change: Callable[[MailRules], MailRules]
    ) -> SmtpConfiguration:
        """Change what a configuration's mail is held to; `change` takes the rules of now. Raises `NotThere`."""
        mine = (
            smtp_configurations.c.id == smtp_config_id,
            smtp_configurations.c.instance_id == instance_id,
            smtp_configurations.c.deleted_at.is_(None),
        )
        with self._database.writing() as connection:
            row = connection.execute(configuration_query(*mine)).one_or_none()
            if row is None:
                raise NotThere(f"configuration {smtp_config_id}")
            values = rules_values(change(configuration_of(row).rules))
            connection.execute(update(smtp_configurations).where(*mine).values(updated_at=self._clock.now(), **values))
            return configuration_of(connection.execute(configuration_query(*mine)).one())

    def quotas(self, smtp_config_ids: Sequence[str]) -> dict[str, Quota | None]:
        """Return the quotas of configurations (None: none), by id; those that are deleted are left out."""
        found: dict[str, Quota | None] = {}
        with self._database.reading() as connection:
            for at in range(0, len(smtp_config_ids), _ASKED_AT_ONCE):
                wanted = smtp_configurations.c.id.in_(smtp_config_ids[at : at + _ASKED_AT_ONCE])
                for row in connection.execute(configuration_query(wanted, smtp_configurations.c.deleted_at.is_(None))):
                    found[row.id] = configuration_of(row).rules.quota
        return found

    def delete_configuration(self, instance_id: str, smtp_config_id: str) -> None:
        """Delete a configuration and its users; the row and the key stay for queued mail. Raises `NotThere`."""
        with self._database.writing() as connection:
            changed = connection.execute(
                update(smtp_configurations)
                .where(
                    smtp_configurations.c.id == smtp_config_id,
                    smtp_configurations.c.instance_id == instance_id,
                    smtp_configurations.c.deleted_at.is_(None),
                )
                .values(deleted_at=self._clock.now(), recheck_at=None)
            )
            if changed.rowcount == 0:
                raise NotThere(f"configuration {smtp_config_id}")
            connection.execute(delete(smtp_users).where(smtp_users.c.smtp_config_id == smtp_config_id))
            drop_unused_credentials(connection)

    # -- keys -------------------------------------------------------------------------------------

    def import_key(self, smtp_config_id: str, pem: bytes, selector: str) -> DkimKey:
        """Make a configuration sign with this RSA key (PEM) and selector from now on; DKIM is pending again.

        Raises `keys.BadKey`, `NotThere`. The former key is retired, and stays for queued mail.
        """
        key = read_dkim_key(pem)
        now = self._clock.now()
        with self._database.writing() as connection:
            retire_rsa(connection, smtp_config_id, now)
            stored = insert_key(connection, self._box, smtp_config_id, key, KeyState.ACTIVE, now, selector=selector)
            changed = connection.execute(
                update(smtp_configurations)
                .where(smtp_configurations.c.id == smtp_config_id, smtp_configurations.c.deleted_at.is_(None))
                .values(
                    key_id=stored.id,
                    dkim=Verification.PENDING,
                    standing=Standing.UNVERIFIED,
                    standing_since=now,
                    failing="",
                    recheck_at=None,
                    updated_at=now,
                )
            )
            if changed.rowcount == 0:
                raise NotThere(f"configuration {smtp_config_id}")
        return stored

    def signing_key_pem(self, key_id: str) -> bytes:
        """Return a private key in clear (PKCS#8, PEM). Raises `NotThere`, `secrets.SealError`."""
        with self._database.reading() as connection:
            sealed = connection.scalar(select(dkim_keys.c.sealed).where(dkim_keys.c.id == key_id))
        if not sealed:
            raise NotThere(f"key {key_id}")
        return self._box.open(sealed, table="dkim_keys", column="sealed", row=key_id)

    # -- users and credentials --------------------------------------------------------------------

    def create_user(
        self,
        instance_id: str,
        smtp_config_id: str,
        *,
        description: str,
        verifier: str,
        username: str | None = None,
    ) -> SmtpUser:
        """Make a user with a new credential; `verifier` is the password's hash; a random name if none is given.

        Raises `NotThere`, `TooMany` (five users), `Conflict` (field "username").
        """
        now, name = self._clock.now(), username or ids.smtp_username()
        credential_id = ids.new_uuid()
        try:
            with self._database.writing() as connection:
                domain = room_for_user(connection, instance_id, smtp_config_id)
                connection.execute(
                    insert(credentials).values(
                        id=credential_id,
                        instance_id=instance_id,
                        username=name,
                        verifier=verifier,
                        created_at=now,
                        updated_at=now,
                    )
                )
                return insert_user(
                    connection, SmtpUser("", smtp_config_id, credential_id, name, domain, description, now, now)
                )
        except IntegrityError as error:
            raise Conflict("username", f"the user name {name} is taken") from error

    def clone_user(self, instance_id: str, smtp_config_id: str, *, username: str, description: str) -> SmtpUser:
        """Let an existing user name of the same instance send for this configuration too.

        Raises `NotThere` (the configuration), `Conflict` (field "username_to_clone": unknown, or here already),
        `TooMany`.
        """
        now = self._clock.now()
        with self._database.writing() as connection:
            domain = room_for_user(connection, instance_id, smtp_config_id)
            credential_id = connection.scalar(
                select(credentials.c.id).where(
                    credentials.c.username == username, credentials.c.instance_id == instance_id
                )
            )
            if credential_id is None:
                raise Conflict("username_to_clone", "no configuration of this instance has that user")
            here = select(smtp_users.c.id).where(
                smtp_users.c.smtp_config_id == smtp_config_id, smtp_users.c.credential_id == credential_id
            )
            if connection.scalar(here) is not None:
                raise Conflict("username_to_clone", "this configuration has that user already")
            return insert_user(
                connection, SmtpUser("", smtp_config_id, credential_id, username, domain, description, now, now)
            )

    def users(
        self, smtp_config_id: str, *, search: str | None = None, limit: int = 10, offset: int = 0
    ) -> Found[SmtpUser]:
        """Return a page of a configuration's users, oldest first; `search` is part of name or description."""
        wanted: list[ColumnElement[bool]] = [smtp_users.c.smtp_config_id == smtp_config_id]
        if search is not None:
            wanted.append(
                or_(
                    holds_text(credentials.c.username, search),
                    holds_text(smtp_users.c.description, search),
                )
            )
        matching = user_query(*wanted)
        page = matching.order_by(smtp_users.c.created_at, smtp_users.c.id).limit(limit).offset(offset)
        with self._database.reading() as connection:
            total = connection.scalar(select(func.count()).select_from(matching.subquery())) or 0
            return Found(total, tuple(user_of(row) for row in connection.execute(page)))

    def user(self, smtp_config_id: str, user_id: str) -> SmtpUser | None:
        """Return a user of a configuration, or None."""
        query = user_query(smtp_users.c.id == user_id, smtp_users.c.smtp_config_id == smtp_config_id)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
            return None if row is None else user_of(row)

    def update_user(self, smtp_config_id: str, user_id: str, *, description: str | None) -> SmtpUser:
        """Change a user's description; None leaves it. Raises `NotThere`."""
        mine = (smtp_users.c.id == user_id, smtp_users.c.smtp_config_id == smtp_config_id)
        values: dict[str, Any] = {"updated_at": self._clock.now()}
        if description is not None:
            values["description"] = description
        with self._database.writing() as connection:
            connection.execute(update(smtp_users).where(*mine).values(**values))
            row = connection.execute(user_query(*mine)).one_or_none()
        if row is None:
            raise NotThere(f"user {user_id}")
        return user_of(row)

    def delete_user(self, smtp_config_id: str, user_id: str) -> None:
        """Delete a user; the credential goes with its last user. Raises `NotThere`."""
        mine = (smtp_users.c.id == user_id, smtp_users.c.smtp_config_id == smtp_config_id)
        with self._database.writing() as connection:
            if connection.execute(delete(smtp_users).where(*mine)).rowcount == 0:
                raise NotThere(f"user {user_id}")
            drop_unused_credentials(connection)

    def rotate_user(self, smtp_config_id: str, user_id: str, *, verifier: str, overlap_s: float) -> SmtpUser:
        """Give a user's credential, which clones share, another password's verifier; the one before is good for
        `overlap_s` seconds more.

        Raises `NotThere`; `Conflict` (field "overlap_s") while an earlier rotation overlaps, unless `overlap_s` is 0:
        the password that was promised to stay good would end at once."""
        now = self._clock.now()
        mine = (smtp_users.c.id == user_id, smtp_users.c.smtp_config_id == smtp_config_id)
        with self._database.writing() as connection:
            row = connection.execute(user_query(*mine)).one_or_none()
            if row is None:
                raise NotThere(f"user {user_id}")
            until = connection.scalar(select(credentials.c.former_until).where(credentials.c.id == row.credential_id))
            if overlap_s > 0 and until is not None and now < until:
                raise Conflict("overlap_s", f"the last rotation overlaps until {rfc3339(until)}")
            changed: dict[str, Any] = {"verifier": verifier, "updated_at": now}
            changed["former_verifier"] = credentials.c.verifier if overlap_s > 0 else None
            changed["former_until"] = now + overlap_s if overlap_s > 0 else None
            connection.execute(update(credentials).where(credentials.c.id == row.credential_id).values(**changed))
            shared = smtp_users.c.credential_id == row.credential_id
            connection.execute(update(smtp_users).where(shared).values(updated_at=now))
            return user_of(connection.execute(user_query(*mine)).one())

    def credential(self, username: str) -> tuple[Credential, str] | None:
        """Return a user name's credential and whose account its instance is, or None: one statement either way."""
        query = (
            select(credentials, instances.c.account_id)
            .select_from(credentials.join(instances))
            .where(credentials.c.username == username)
        )
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
            return None if row is None else (credential_of(row), str(row.account_id))

    def sender(self, username: str) -> Sender | None:
        """Return what policy needs to know about a user name, or None if nobody has it."""
        return self.senders((username,)).get(username)

    def senders(self, usernames: Collection[str]) -> dict[str, Sender]:
        """Return what policy needs to know about user names, by name; those that nobody has are left out."""
        found: dict[str, Sender] = {}
        names = tuple(usernames)
        with self._database.reading() as connection:
            for at in range(0, len(names), _ASKED_AT_ONCE):
                found |= _senders(connection, names[at : at + _ASKED_AT_ONCE])
        return found

    def _one_configuration(self, *wanted: ColumnElement[bool]) -> SmtpConfiguration | None:
        query = configuration_query(smtp_configurations.c.deleted_at.is_(None), *wanted)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
            return None if row is None else configuration_of(row)


def _senders(connection: Connection, usernames: Sequence[str]) -> dict[str, Sender]:
    """Read senders: three statements, however many they are."""
    named = [
        credential_of(row)
        for row in connection.execute(select(credentials).where(credentials.c.username.in_(usernames)))
    ]
    own = {
        row.id: instance_of(row)
        for row in connection.execute(
            select(instances).where(instances.c.id.in_({credential.instance_id for credential in named}))
        )
    }
    configurations: dict[str, dict[str, SmtpConfiguration]] = {credential.id: {} for credential in named}
    query = (
        configuration_query(
            smtp_configurations.c.deleted_at.is_(None), smtp_users.c.credential_id.in_(list(configurations))
        )
        .add_columns(smtp_users.c.credential_id)
        .join(smtp_users, smtp_users.c.smtp_config_id == smtp_configurations.c.id)
    )
    for row in connection.execute(query):
        configuration = configuration_of(row)
        configurations[row.credential_id][configuration.domain] = configuration
    return {
        credential.username: Sender(credential, own[credential.instance_id], configurations[credential.id])
        for credential in named
        if credential.instance_id in own
    }
