"""What delivery keeps: status events, reports of our own, where a recipient goes and was last tried.

Standards: Alembic revision.
Promises: what was recorded before is kept.
Dangers: going down forgets what operators asked for.
Not here: the schema as it is now (`store.tables`).
"""

# ruff: noqa: S608 - statements are put together from our own words only
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "q0004"
down_revision = "q0003"
branch_labels = None
depends_on = None

_DUE = sa.text("due_at IS NOT NULL AND lease IS NULL")
_TEXTS = (("recipients", "route"), ("recipients", "site"), ("messages", "origin"), ("messages", "parent"))


# What a hold or its end did to recipients was an attempt that spoke to nobody, with its words as the route's reason.
_SILENT = (
    "a.site = '' AND json_array_length(a.conversation, '$.steps') = 0 AND NOT EXISTS (SELECT 1 FROM"
    " json_each(a.conversation, '$.outcomes') AS s WHERE s.value ->> 3 != 0 OR s.value ->> 5 != ''"
    " OR s.value ->> 2 NOT IN ('held', 'queued', 'expired'))"
)
_FILL = (
    # The order in which it happened; with equal times, the order in which it must have.
    "INSERT INTO events (queue_id, at, kind, recipient_id, attempt_id, code, enhanced, text, reason, actor)"
    " SELECT queue_id, at, kind, recipient_id, attempt_id, code, enhanced, text, reason, '' FROM ("
    "SELECT queue_id, accepted_at AS at, 0 AS rank, 0 AS number, 'accepted' AS kind, NULL AS recipient_id,"
    " NULL AS attempt_id, 0 AS code, '' AS enhanced, '' AS text, '' AS reason FROM messages"
    " UNION ALL SELECT queue_id, accepted_at, 1, 0, 'warning', NULL, NULL, 0, '', warning, '' FROM messages"
    " WHERE warning != ''"
    " UNION ALL SELECT a.queue_id, a.finished_at, 2, a.id, o.value ->> 2, o.value ->> 0, a.id, o.value ->> 3,"
    " o.value ->> 4, o.value ->> 5, o.value ->> 6 FROM attempts AS a"
    f" CROSS JOIN json_each(a.conversation, '$.outcomes') AS o WHERE NOT ({_SILENT})"
    " UNION ALL SELECT a.queue_id, a.finished_at, 2, a.id, CASE o.value ->> 2 WHEN 'queued' THEN 'released'"
    " ELSE o.value ->> 2 END, o.value ->> 0, NULL, 0, '', a.route_reason,"
    " CASE o.value ->> 6 WHEN 'released' THEN '' ELSE o.value ->> 6 END FROM attempts AS a"
    f" CROSS JOIN json_each(a.conversation, '$.outcomes') AS o WHERE {_SILENT}"
    ") ORDER BY at, rank, number"
)
# What befell a recipient and no attempt tells: only its own row knows.
_FILL_REST = (
    "INSERT INTO events (queue_id, at, kind, recipient_id, attempt_id, code, enhanced, text, reason, actor)"
    " SELECT r.queue_id, r.updated_at, r.status, r.id, NULL, 0, '', r.reply, r.reason, '' FROM recipients AS r"
    " WHERE r.status NOT IN ('queued', 'attempting', 'deferred') AND NOT EXISTS (SELECT 1 FROM events AS e"
    " WHERE e.queue_id = r.queue_id AND e.recipient_id = r.id AND e.kind = r.status AND e.at = r.updated_at)"
    " ORDER BY r.updated_at, r.id"
)
_FILL_DUE = (
    "UPDATE events SET due_at = (SELECT r.due_at FROM recipients AS r WHERE r.id = events.recipient_id)"
    " WHERE id IN (SELECT max(id) FROM events WHERE recipient_id IS NOT NULL GROUP BY recipient_id)"
)
_COUNT = (
    "INSERT INTO counts (instance_id, minute, kind, smtp_config_id, n)"
    " SELECT m.instance_id, CAST(f.at / 60 AS INTEGER) AS minute, f.kind, m.smtp_config_id, count(*) FROM ("
    "SELECT queue_id, at, CASE kind WHEN 'delivered' THEN 'success' WHEN 'deferred' THEN 'deferred' ELSE 'bounced' END"
    " AS kind FROM events WHERE kind IN ('delivered', 'deferred', 'bounced', 'expired')"
    " UNION ALL SELECT r.queue_id, m.accepted_at, 'submitted' FROM recipients AS r JOIN messages AS m"
    " ON m.queue_id = r.queue_id) AS f JOIN messages AS m ON m.queue_id = f.queue_id GROUP BY 1, 2, 3, 4"
)
_OUTCOMES = (
    "SELECT json_group_array(json_array(e.recipient_id, r.mailbox, e.kind, e.code, e.enhanced, e.text, e.reason))"
    " FROM events AS e JOIN recipients AS r ON r.id = e.recipient_id"
    " WHERE e.queue_id = attempts.queue_id AND e.attempt_id = attempts.id"
)
_SILENT_AGAIN = (
    "INSERT INTO attempts (queue_id, started_at, finished_at, site, host, address, source, tls, route_reason,"
    " conversation) SELECT e.queue_id, e.at, e.at, '', '', '', '', '', e.text, json_object('steps', json('[]'),"
    " 'outcomes', json_array(json_array(e.recipient_id, r.mailbox, CASE e.kind WHEN 'released' THEN 'queued' ELSE"
    " e.kind END, 0, '', '', CASE e.kind WHEN 'released' THEN 'released' ELSE e.reason END)))"
    " FROM events AS e JOIN recipients AS r ON r.id = e.recipient_id"
    " WHERE e.attempt_id IS NULL AND e.kind IN ('held', 'released', 'expired') ORDER BY e.id"
)


def upgrade() -> None:
    """Add tables, columns and indexes, a function for each subject."""
    _texts()
    _events()
    _second_keys()
    _reports()
    _turns()
    _verbs()
    _by_status()
    _tls_optional()


def downgrade() -> None:
    """Take them away."""
    _no_reports()
    _no_turns()
    _no_verbs()
    _no_by_status()
    _no_events()
    _no_second_keys()
    _no_texts()
    _no_tls_optional()


def _second_keys() -> None:
    for name in ("key2_id", "key2_selector"):
        op.add_column("messages", sa.Column(name, sa.String(), nullable=False, server_default=""))


def _no_second_keys() -> None:
    for name in ("key2_id", "key2_selector"):
        op.drop_column("messages", name)


def _texts() -> None:
    for table, name in _TEXTS:
        op.add_column(table, sa.Column(name, sa.String(), nullable=False, server_default=""))


def _no_texts() -> None:
    for table, name in _TEXTS:
        op.drop_column(table, name)


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("queue_id", sa.String(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("recipient_id", sa.Integer(), nullable=True),
        sa.Column("attempt_id", sa.Integer(), nullable=True),
        sa.Column("code", sa.Integer(), nullable=False),
        sa.Column("enhanced", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "numbers",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("next", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.execute(_FILL)
    op.create_index("ix_events_queue_id", "events", ["queue_id"])
    op.execute(_FILL_REST)
    op.execute(_FILL_DUE)
    op.create_table(
        "counts",
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("minute", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("smtp_config_id", sa.String(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", "minute", "kind", "smtp_config_id"),
        sqlite_with_rowid=False,
    )
    op.execute(_COUNT)
    op.execute(f"DELETE FROM attempts AS a WHERE {_SILENT}")
    op.execute("UPDATE attempts SET conversation = json_extract(conversation, '$.steps')")
    # Attempts are found by their events: an index less pays for part of the new rows.
    op.drop_index("ix_attempts_queue_id", "attempts")


def _by_status() -> None:
    op.add_column("recipients", sa.Column("instance_id", sa.String(), nullable=False, server_default=""))
    op.execute(
        "UPDATE recipients SET instance_id = coalesce((SELECT m.instance_id FROM messages AS m"
        " WHERE m.queue_id = recipients.queue_id), '')"
    )
    op.create_index("recipients_by_status", "recipients", ["instance_id", "status", "queue_id"])


def _no_by_status() -> None:
    op.drop_index("recipients_by_status", "recipients")
    op.drop_column("recipients", "instance_id")


def _no_events() -> None:
    op.create_index("ix_attempts_queue_id", "attempts", ["queue_id"])
    op.execute(
        f"UPDATE attempts SET conversation = json_object('steps', json(conversation), 'outcomes', json(({_OUTCOMES})))"
    )
    op.execute(_SILENT_AGAIN)
    op.drop_table("counts")
    op.drop_table("numbers")
    op.drop_index("ix_events_queue_id", "events")
    op.drop_table("events")


def _reports() -> None:
    op.add_column("recipients", sa.Column("warned", sa.Boolean(), nullable=False, server_default="0"))
    op.create_index("messages_by_parent", "messages", ["parent"], sqlite_where=sa.text("parent != ''"))


def _no_reports() -> None:
    op.drop_index("messages_by_parent", "messages")
    op.drop_column("recipients", "warned")


def _turns() -> None:
    """Let looking for what is due see whose it is, and remember what may have arrived."""
    op.add_column("recipients", sa.Column("smtp_config_id", sa.String(), nullable=False, server_default=""))
    op.add_column("recipients", sa.Column("may_have_arrived", sa.Boolean(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE recipients SET smtp_config_id = coalesce((SELECT m.smtp_config_id FROM messages AS m"
        " WHERE m.queue_id = recipients.queue_id), '') WHERE due_at IS NOT NULL OR status = 'held'"
    )
    op.drop_index("recipients_due", "recipients")
    op.create_index(
        "recipients_due", "recipients", ["due_at", "id", "domain", "smtp_config_id", "queue_id"], sqlite_where=_DUE
    )


def _no_turns() -> None:
    op.drop_index("recipients_due", "recipients")
    op.create_index("recipients_due", "recipients", ["due_at"], sqlite_where=_DUE)
    op.drop_column("recipients", "may_have_arrived")
    op.drop_column("recipients", "smtp_config_id")


def _verbs() -> None:
    """What operators do to queued mail."""
    op.create_index(
        "recipients_waiting",
        "recipients",
        ["domain", "site", "status", "reason", "due_at", "lease"],
        sqlite_where=sa.text("lease IS NULL AND status IN ('queued', 'deferred', 'held')"),
    )
    op.create_table(
        "operator_wishes",
        sa.Column("recipient_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("verb", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
    )
    op.create_table(
        "standing_holds",
        *(
            sa.Column(name, sa.String(), primary_key=True)
            for name in ("instance_id", "smtp_config_id", "site", "domain")
        ),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
    )


def _no_verbs() -> None:
    op.drop_table("standing_holds")
    op.drop_table("operator_wishes")
    op.drop_index("recipients_waiting", "recipients")


def _tls_optional() -> None:
    op.add_column("messages", sa.Column("tls_optional", sa.Boolean(), nullable=False, server_default="0"))


def _no_tls_optional() -> None:
    op.drop_column("messages", "tls_optional")
