"""What tenancy's statements share: its errors, its joins, and how a row becomes a noun.

Standards: none.
Promises: the functions that take a connection run inside the caller's transaction.
Dangers: for `store.tenancy` only; callers elsewhere get nouns and these errors from there.
Not here: transactions (`tenancy`).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, select

from outgate.base import ids
from outgate.model.tenancy import (
    Credential,
    DkimKey,
    HtmlCheck,
    Instance,
    MailRules,
    OverQuota,
    Quota,
    SmtpConfiguration,
    SmtpUser,
    Standing,
    Verification,
)
from outgate.store.tables import credentials, dkim_keys, instances, smtp_configurations, smtp_users

MOST_USERS = 5
_SECOND = dkim_keys.alias("second_key")


class NotThere(LookupError):
    """The row that should change does not exist (any more); the message names it."""


class Conflict(Exception):
    """Another row stands in the way; `field` says which value is taken."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Changed(Exception):
    """The row is not of the expected version any more."""


class TooMany(Exception):
    """A limit of the contract is reached; the message says which and what helps."""


def find_instance(connection: Connection, instance_id: str) -> Instance | None:
    """Return an instance, or None."""
    row = connection.execute(select(instances).where(instances.c.id == instance_id)).one_or_none()
    return None if row is None else instance_of(row)


def instance_of(row: Row[Any]) -> Instance:
    """Read an instance."""
    return Instance(row.id, row.account_id, row.region, row.name, row.attachments, row.created_at)


def configuration_query(*wanted: ColumnElement[bool]) -> Select[Any]:
    """Select configurations with the keys that sign for them."""
    key = (dkim_keys.c.selector, dkim_keys.c.algorithm, dkim_keys.c.public)
    second = [_SECOND.c[name].label(f"second_{name}") for name in ("selector", "public")]
    joined = smtp_configurations.join(dkim_keys, dkim_keys.c.id == smtp_configurations.c.key_id)
    joined = joined.outerjoin(_SECOND, _SECOND.c.id == smtp_configurations.c.second_key_id)
    return select(smtp_configurations, *key, *second).select_from(joined).where(*wanted)


def configuration_of(row: Row[Any]) -> SmtpConfiguration:
    """Read a row of `configuration_query`."""
    return SmtpConfiguration(
        row.id,
        row.instance_id,
        row.name,
        row.description,
        row.domain,
        Verification(row.spf),
        Verification(row.dkim),
        Verification(row.authorization),
        DkimKey(row.key_id, row.id, row.selector, row.algorithm, row.public),
        row.created_at,
        row.updated_at,
        Standing(row.standing),
        row.standing_since,
        row.failing,
        row.recheck_at,
        _rules_of(row),
        _second_of(row),
    )


def _second_of(row: Row[Any]) -> DkimKey | None:
    if row.second_selector is None:
        return None
    return DkimKey(row.second_key_id, row.id, row.second_selector, "ed25519", row.second_public)


def credential_of(row: Row[Any]) -> Credential:
    """Read a credential."""
    return Credential(
        row.id,
        row.instance_id,
        row.username,
        row.verifier,
        row.updated_at,
        row.former_verifier,
        row.former_until,
    )


def _rules_of(row: Row[Any]) -> MailRules:
    limited = row.per_hour is not None or row.per_day is not None
    quota = Quota(row.per_hour, row.per_day) if limited else None
    return MailRules(quota, HtmlCheck(row.html), row.nature, row.marketing, OverQuota(row.over_quota))


def rules_values(rules: MailRules) -> dict[str, Any]:
    """Return the columns of a configuration's rules that an operator sets: the form sets the nature."""
    quota = rules.quota or Quota(None, None)
    return {
        "per_hour": quota.per_hour,
        "per_day": quota.per_day,
        "over_quota": rules.over.value,
        "html": rules.html.value,
        "marketing": rules.marketing,
    }


def user_query(*wanted: ColumnElement[bool]) -> Select[Any]:
    """Select users with their names and domains."""
    joined = smtp_users.join(credentials).join(smtp_configurations)
    columns = (smtp_users, credentials.c.username, smtp_configurations.c.domain)
    return select(*columns).select_from(joined).where(*wanted)


def user_of(row: Row[Any]) -> SmtpUser:
    """Read a row of `user_query`."""
    return SmtpUser(
        row.id,
        row.smtp_config_id,
        row.credential_id,
        row.username,
        row.domain,
        row.description,
        row.created_at,
        row.updated_at,
    )


def room_for_user(connection: Connection, instance_id: str, smtp_config_id: str) -> str:
    """Return the configuration's domain if one more user fits."""
    domain = connection.scalar(
        select(smtp_configurations.c.domain).where(
            smtp_configurations.c.id == smtp_config_id,
            smtp_configurations.c.instance_id == instance_id,
            smtp_configurations.c.deleted_at.is_(None),
        )
    )
    if domain is None:
        raise NotThere(f"configuration {smtp_config_id}")
    mine = smtp_users.c.smtp_config_id == smtp_config_id
    if (connection.scalar(select(func.count()).select_from(smtp_users).where(mine)) or 0) >= MOST_USERS:
        raise TooMany(f"a configuration has at most {MOST_USERS} users: delete one first")
    return str(domain)


def insert_user(connection: Connection, user: SmtpUser) -> SmtpUser:
    """Store a user under a new id and return it."""
    user_id = ids.new_uuid()
    connection.execute(
        insert(smtp_users).values(
            id=user_id,
            smtp_config_id=user.smtp_config_id,
            credential_id=user.credential_id,
            description=user.description,
            created_at=user.created_at,
            updated_at=user.updated_at,
        )
    )
    return SmtpUser(
        user_id,
        user.smtp_config_id,
        user.credential_id,
        user.username,
        user.domain,
        user.description,
        user.created_at,
        user.updated_at,
    )


def holds_text(column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    """Return the condition that a column has `text` in it, in whatever case."""
    # The built-in is quicker, and right as long as no sign beyond ASCII is looked for.
    if text.isascii():
        return column.icontains(text, autoescape=True)
    return func.casefold(column).contains(text.casefold(), autoescape=True)


def drop_unused_credentials(connection: Connection) -> None:
    """Delete the credentials that no user points at any more."""
    used = select(smtp_users.c.credential_id)
    connection.execute(delete(credentials).where(credentials.c.id.not_in(used)))
