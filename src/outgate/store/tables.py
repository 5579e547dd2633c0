"""Every table, described once: `control` (tenancy, access, gateways, egress) and `queue` (messages and their state).

Standards: SQL as SQLite and PostgreSQL both speak it; times are epoch seconds (REAL), documents are JSON.
Promises: the migrations under `migrations/` make exactly these tables (a test compares).
Dangers: `sealed` columns hold AES-256-GCM boxes bound to table, column and row (`store.secrets`).
Not here: statements (`control`, `sqlite`), message bodies (`spool`).

The module is long because it is a list: every table once, in one place.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    and_,
)

control = MetaData()
queue = MetaData()

meta = Table(
    "meta",
    control,
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
)

accounts = Table(
    "accounts",
    control,
    Column("id", String, primary_key=True),
    Column("created_at", Float, nullable=False),
)

instances = Table(
    "instances",
    control,
    Column("id", String, primary_key=True),
    Column("account_id", String, ForeignKey("accounts.id"), nullable=False),
    Column("region", String, nullable=False),
    Column("name", String, nullable=False),
    Column("attachments", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
)

smtp_configurations = Table(
    "smtp_configurations",
    control,
    Column("id", String, primary_key=True),
    Column("instance_id", String, ForeignKey("instances.id"), nullable=False, index=True),
    Column("name", String, nullable=False),
    Column("description", String, nullable=False),
    Column("domain", String, nullable=False, index=True),
    Column("spf", String, nullable=False),
    Column("dkim", String, nullable=False),
    Column("authorization", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("deleted_at", Float),
    # Whether mail may be sent as the domain, since when, and the check that stands in the way ("" if none).
    Column("standing", String, nullable=False, server_default="unverified"),
    Column("standing_since", Float, nullable=False, server_default="0"),
    Column("failing", String, nullable=False, server_default=""),
    # When the domain is looked at again; NULL until it was verified once, and after deletion.
    Column("recheck_at", Float),
    # Messages in any hour and any day, NULL for as many as come, and what becomes of one too many.
    Column("per_hour", Integer),
    Column("per_day", Integer),
    Column("over_quota", String, nullable=False, server_default="refuse"),
    Column("html", String, nullable=False, server_default="off"),
    # Marketing or transactional: the form's word ("" while unanswered), and an operator's against it (NULL: none).
    Column("nature", String, nullable=False, server_default=""),
    Column("marketing", Boolean),
    # The Ed25519 key that signs beside the RSA key; NULL if none does.
    Column("second_key_id", String),
)
# A domain is configured once per instance; a deleted configuration does not stand in the way.
Index(
    "smtp_configurations_domain",
    smtp_configurations.c.instance_id,
    smtp_configurations.c.domain,
    unique=True,
    sqlite_where=smtp_configurations.c.deleted_at.is_(None),
)
# A page of an instance's configurations, and how many there are, is read from this alone.
Index(
    "smtp_configurations_listed",
    smtp_configurations.c.instance_id,
    smtp_configurations.c.created_at,
    smtp_configurations.c.id,
    # Always NULL here, but without it SQLite looks each row up to see that.
    smtp_configurations.c.deleted_at,
    sqlite_where=smtp_configurations.c.deleted_at.is_(None),
)
Index(
    "smtp_configurations_recheck",
    smtp_configurations.c.recheck_at,
    sqlite_where=smtp_configurations.c.recheck_at.is_not(None),
)

authorization_forms = Table(
    "authorization_forms",
    control,
    Column("smtp_config_id", String, ForeignKey("smtp_configurations.id"), primary_key=True),
    Column("answers", JSON, nullable=False),
    Column("submitted_at", Float, nullable=False),
    Column("submitted_by", String, nullable=False),
    # What a person with the right to decide said; NULL while nobody has.
    Column("decision", String),
    Column("decided_at", Float),
    Column("decided_by", String),
    Column("reason", String),
)

dkim_keys = Table(
    "dkim_keys",
    control,
    Column("id", String, primary_key=True),
    Column("smtp_config_id", String, nullable=False, index=True),
    Column("selector", String, nullable=False),
    Column("algorithm", String, nullable=False),
    Column("public", String, nullable=False),
    # Empty once the private half has been destroyed.
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    # "next", "active" or "retired", since when, and what was last found of its DNS record.
    Column("state", String, nullable=False, server_default="active"),
    Column("changed_at", Float, nullable=False, server_default="0"),
    Column("published", String, nullable=False, server_default="PENDING"),
)
# Those whose private half may have to be destroyed are few.
Index("dkim_keys_retired", dkim_keys.c.changed_at, sqlite_where=dkim_keys.c.state == "retired")

routes = Table(
    "routes",
    control,
    Column("id", String, primary_key=True),
    Column("smtp_config_id", String, ForeignKey("smtp_configurations.id"), nullable=False),
    # The order in which a configuration prefers them, from 0.
    Column("place", Integer, nullable=False),
    Column("name", String, nullable=False),
    Column("type", String, nullable=False),
    # Everything else that is no secret, as the model has it.
    Column("document", JSON, nullable=False),
    # The password in AUTH; NULL: none.
    Column("sealed", LargeBinary),
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String, nullable=False),
    UniqueConstraint("smtp_config_id", "place"),
    UniqueConstraint("smtp_config_id", "name"),
)

evidence = Table(
    "evidence",
    control,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("smtp_config_id", String, nullable=False, index=True),
    Column("type", String, nullable=False),
    Column("result", String, nullable=False),
    Column("explanation", String, nullable=False),
    Column("asked", JSON, nullable=False),
    Column("at", Float, nullable=False),
    # The name of the DNS record that is concerned.
    Column("record", String, nullable=False, server_default=""),
)

credentials = Table(
    "credentials",
    control,
    Column("id", String, primary_key=True),
    Column("instance_id", String, ForeignKey("instances.id"), nullable=False),
    Column("username", String, nullable=False, unique=True),
    Column("verifier", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    # The verifier before the last rotation, and until when it is still good.
    Column("former_verifier", String),
    Column("former_until", Float),
)

smtp_users = Table(
    "smtp_users",
    control,
    Column("id", String, primary_key=True),
    Column("smtp_config_id", String, ForeignKey("smtp_configurations.id"), nullable=False, index=True),
    Column("credential_id", String, ForeignKey("credentials.id"), nullable=False, index=True),
    Column("description", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)

zones = Table(
    "zones",
    control,
    Column("id", String, primary_key=True),
    Column("account_id", String, ForeignKey("accounts.id"), nullable=False),
    Column("name", String, nullable=False),
    Column("description", String, nullable=False),
    Column("addresses", JSON, nullable=False),
    Column("excluded", JSON, nullable=False),
    Column("version", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    Column("updated_by", String, nullable=False),
    UniqueConstraint("account_id", "name"),
)

rules = Table(
    "rules",
    control,
    Column("id", String, primary_key=True),
    Column("account_id", String, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("description", String, nullable=False),
    Column("document", JSON, nullable=False),
    Column("enforcement", String, nullable=False),
    Column("version", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    Column("updated_by", String, nullable=False),
)

# The legacy list of networks that SMTP lets in to an instance, beside its rules and until a day.
allow_lists = Table(
    "allow_lists",
    control,
    Column("instance_id", String, ForeignKey("instances.id"), primary_key=True),
    Column("networks", JSON, nullable=False),
    Column("ends_at", Float, nullable=False),
    Column("note", String, nullable=False),
    Column("version", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    Column("updated_by", String, nullable=False),
)

# Addresses that an instance's mail is not sent to. An id is never given twice: what is new is what has a higher one.
suppressions = Table(
    "suppressions",
    control,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("instance_id", String, ForeignKey("instances.id"), nullable=False),
    # What it is found by (`model.suppression.key`), and its eight octets in `suppression_filter`.
    Column("key", String, nullable=False),
    Column("digest", BigInteger, nullable=False),
    Column("address", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("source", String, nullable=False),
    Column("detail", String, nullable=False),
    Column("created_at", Float, nullable=False),
    # NULL: for good.
    Column("expires_at", Float),
    sqlite_autoincrement=True,
)
Index("suppressions_by_key", suppressions.c.instance_id, suppressions.c.key, unique=True)
# Each order of a list, with all that says whether an entry counts: pages far down read the index only.
Index("suppressions_in_order", suppressions.c.instance_id, suppressions.c.id, suppressions.c.expires_at)
Index(
    "suppressions_by_reason",
    suppressions.c.instance_id,
    suppressions.c.reason,
    suppressions.c.id,
    suppressions.c.expires_at,
)
Index(
    "suppressions_by_source",
    suppressions.c.instance_id,
    suppressions.c.source,
    suppressions.c.id,
    suppressions.c.expires_at,
)
Index(
    "suppressions_ending",
    suppressions.c.expires_at,
    suppressions.c.instance_id,
    sqlite_where=suppressions.c.expires_at.is_not(None),
)

# How many entries an instance has, those included that have ended and are not purged yet.
suppression_totals = Table(
    "suppression_totals",
    control,
    Column("instance_id", String, ForeignKey("instances.id"), primary_key=True),
    Column("entries", Integer, nullable=False),
)

vpcs = Table(
    "vpcs",
    control,
    Column("id", String, primary_key=True),
    Column("account_id", String, ForeignKey("accounts.id"), nullable=False),
    Column("crn", String, nullable=False, unique=True),
    Column("region", String, nullable=False),
    Column("name", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    UniqueConstraint("account_id", "name"),
)

subnets = Table(
    "subnets",
    control,
    Column("id", String, primary_key=True),
    Column("vpc_id", String, ForeignKey("vpcs.id"), nullable=False),
    Column("zone", String, nullable=False),
    Column("network", String, nullable=False),
    Column("name", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    UniqueConstraint("vpc_id", "name"),
)

endpoint_gateways = Table(
    "endpoint_gateways",
    control,
    Column("id", String, primary_key=True),
    Column("vpc_id", String, ForeignKey("vpcs.id"), nullable=False),
    Column("name", String, nullable=False),
    Column("target", String, nullable=False),
    Column("region", String, nullable=False),
    # The private name: one gateway of a VPC leads to it.
    Column("service_endpoint", String, nullable=False),
    Column("dns_mode", String, nullable=False),
    Column("state", String, nullable=False),
    # Why it failed; "" otherwise.
    Column("reason", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    UniqueConstraint("vpc_id", "name"),
    UniqueConstraint("vpc_id", "service_endpoint"),
)

reserved_ips = Table(
    "reserved_ips",
    control,
    Column("id", String, primary_key=True),
    Column("subnet_id", String, ForeignKey("subnets.id"), nullable=False),
    Column("address", String, nullable=False),
    Column("name", String, nullable=False),
    Column("auto_delete", Boolean, nullable=False),
    # The gateway that it is bound to, NULL if none; a gateway has one address at most.
    Column("gateway_id", String, ForeignKey("endpoint_gateways.id"), unique=True),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    UniqueConstraint("subnet_id", "address"),
    UniqueConstraint("subnet_id", "name"),
)

api_keys = Table(
    "api_keys",
    control,
    Column("id", String, primary_key=True),
    Column("account_id", String, ForeignKey("accounts.id"), nullable=False),
    Column("name", String, nullable=False),
    Column("digest", String, nullable=False, unique=True),
    Column("roles", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("description", String, nullable=False, server_default=""),
    Column("created_by", String, nullable=False, server_default=""),
    Column("updated_at", Float, nullable=False, server_default="0"),
    Column("version", String, nullable=False, server_default=""),
    # The instances whose SMTP users it is a password of (role smtp); NULL: all of the account's.
    Column("instances", JSON(none_as_null=True)),
)

token_keys = Table(
    "token_keys",
    control,
    Column("id", String, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
)

programs = Table(
    "programs",
    control,
    Column("id", String, primary_key=True),
    Column("org_id", String, nullable=False, index=True),
    Column("tenant_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("status", String, nullable=False, server_default="ready"),
    Column("sandbox", Boolean, nullable=False, server_default="0"),
)

environments = Table(
    "environments",
    control,
    Column("id", String, primary_key=True),
    Column("program_id", String, ForeignKey("programs.id"), nullable=False, index=True),
    Column("name", String, nullable=False),
    Column("type", String, nullable=False),
    Column("region", String, nullable=False),
    Column("status", String, nullable=False),
    Column("tunnel_address", String, nullable=False),
    Column("client_networks", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("description", String, nullable=False, server_default=""),
    Column("secondary_regions", JSON, nullable=False, server_default="[]"),
)

network_infrastructures = Table(
    "network_infrastructures",
    control,
    Column("id", String, primary_key=True),
    Column("program_id", String, ForeignKey("programs.id"), nullable=False, index=True),
    Column("kind", String, nullable=False),
    Column("region", String, nullable=False),
    Column("status", String, nullable=False),
    Column("addresses", JSON, nullable=False),
    Column("document", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("is_primary", Boolean, nullable=False, server_default="1"),
    Column("generation", Integer, nullable=False, server_default="1"),
    # Why it is failed; "" otherwise.
    Column("reason", String, nullable=False, server_default=""),
    # The VPN's shared keys, one JSON object by connection name.
    Column("sealed", LargeBinary),
)

# What the guard lets through for one environment, or for all ("").
guard_exceptions = Table(
    "guard_exceptions",
    control,
    Column("id", String, primary_key=True),
    Column("entry", String, nullable=False),
    Column("environment_id", String, nullable=False),
    Column("note", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    UniqueConstraint("entry", "environment_id"),
)

advanced_networking = Table(
    "advanced_networking",
    control,
    Column("environment_id", String, ForeignKey("environments.id"), primary_key=True),
    Column("infrastructure_id", String, ForeignKey("network_infrastructures.id"), nullable=False),
    Column("port_forwards", JSON, nullable=False),
    Column("non_proxy_hosts", JSON, nullable=False),
    Column("generation", Integer, nullable=False),
    # Why the last change is not in force; "" when it is, or is still on its way.
    Column("reason", String, nullable=False),
    Column("updated_at", Float, nullable=False),
)

variables = Table(
    "variables",
    control,
    Column("id", String, primary_key=True),
    Column("environment_id", String, ForeignKey("environments.id"), nullable=False),
    Column("name", String, nullable=False),
    Column("service", String, nullable=False),
    Column("secret", Boolean, nullable=False),
    Column("value", String, nullable=False),
    Column("sealed", LargeBinary),
    Column("status", String, nullable=False),
    Column("updated_at", Float, nullable=False),
    UniqueConstraint("environment_id", "name", "service"),
)

audit = Table(
    "audit",
    control,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("target", String, nullable=False),
    Column("detail", JSON, nullable=False),
)

sts_policies = Table(
    "sts_policies",
    control,
    Column("domain", String, primary_key=True),
    Column("policy_id", String, nullable=False),
    Column("mode", String, nullable=False),
    Column("hosts", JSON, nullable=False),
    Column("max_age", Integer, nullable=False),
    Column("fetched_at", Float, nullable=False),
    Column("used_at", Float, nullable=False),
)

messages = Table(
    "messages",
    queue,
    Column("queue_id", String, primary_key=True),
    Column("instance_id", String, nullable=False),
    Column("smtp_config_id", String, nullable=False),
    Column("username", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("key_domain", String, nullable=False),
    Column("key_selector", String, nullable=False),
    # The key that signs beside it, "" if none does.
    Column("key2_id", String, nullable=False, server_default=""),
    Column("key2_selector", String, nullable=False, server_default=""),
    Column("session_id", String, nullable=False),
    Column("client_address", String, nullable=False),
    Column("client_port", Integer, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("listener", String, nullable=False),
    Column("via", String, nullable=False),
    Column("helo", String, nullable=False),
    Column("tls", String, nullable=False),
    Column("reverse_path", String, nullable=False),
    Column("header_from", String, nullable=False),
    Column("message_id", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("size", Integer, nullable=False),
    Column("body_8bit", Boolean, nullable=False),
    Column("smtputf8", Boolean, nullable=False),
    # What the client asks of delivery: DSN's RET and ENVID ("" if not given; xtext as it came), and REQUIRETLS.
    Column("ret", String, nullable=False, server_default=""),
    Column("envid", String, nullable=False, server_default=""),
    Column("requiretls", Boolean, nullable=False, server_default="0"),
    # The header field `TLS-Required: No`.
    Column("tls_optional", Boolean, nullable=False, server_default="0"),
    Column("received_at", Float, nullable=False),
    Column("accepted_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    # Where the body lies; NULL once nobody needs it any more.
    Column("segment", Integer),
    Column("generation", Integer),
    Column("offset", Integer),
    Column("length", Integer),
    # When the message counts for its configuration's quota, later than accepted if held for it; NULL: no quota.
    Column("counted_at", Float),
    # What was found and let pass: a warning for the trail.
    Column("warning", String, nullable=False, server_default=""),
    # "" for a submission, "dsn" for a report of ours, and the queue id of the message that it is about.
    Column("origin", String, nullable=False, server_default=""),
    Column("parent", String, nullable=False, server_default=""),
)
Index(
    "messages_counted",
    messages.c.smtp_config_id,
    messages.c.counted_at,
    sqlite_where=messages.c.counted_at.is_not(None),
)
Index("messages_by_instance", messages.c.instance_id, messages.c.accepted_at)
Index("messages_by_message_id", messages.c.message_id)
Index("messages_by_parent", messages.c.parent, sqlite_where=messages.c.parent != "")
Index("messages_with_body", messages.c.segment, sqlite_where=messages.c.segment.is_not(None))

recipients = Table(
    "recipients",
    queue,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("queue_id", String, nullable=False, index=True),
    Column("mailbox", String, nullable=False, index=True),
    Column("domain", String, nullable=False),
    # Its message's: so that looking for what is due can pass by those who have enough in delivery, in the index alone.
    Column("smtp_config_id", String, nullable=False, server_default=""),
    # Its message's, for the index that lists are read from.
    Column("instance_id", String, nullable=False, server_default=""),
    # An attempt sent all and got no answer, so the next delivery may be the second.
    Column("may_have_arrived", Boolean, nullable=False, server_default="0"),
    # DSN's NOTIFY and ORCPT as they came, "" if not given.
    Column("notify", String, nullable=False, server_default=""),
    Column("orcpt", String, nullable=False, server_default=""),
    # Whether the sender has been told that it is late.
    Column("warned", Boolean, nullable=False, server_default="0"),
    # The one route that an operator has it take, "" for the usual order; and the site it was last tried at.
    Column("route", String, nullable=False, server_default=""),
    Column("site", String, nullable=False, server_default=""),
    Column("status", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    # When to try next; NULL when final or held. A lease is a next attempt that somebody has taken.
    Column("due_at", Float),
    Column("lease", String),
    Column("reply", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("updated_at", Float, nullable=False),
)
# Leased rows stay out: a hot message costs no entry, and looking for work never wades through what is under way.
Index(
    "recipients_due",
    recipients.c.due_at,
    recipients.c.id,
    recipients.c.domain,
    recipients.c.smtp_config_id,
    recipients.c.queue_id,
    sqlite_where=and_(recipients.c.due_at.is_not(None), recipients.c.lease.is_(None)),
)
# Who stands how, by queue id, which is the order of acceptance: lists and their numbers come from this alone.
Index("recipients_by_status", recipients.c.instance_id, recipients.c.status, recipients.c.queue_id)
Index("recipients_held", recipients.c.updated_at, sqlite_where=recipients.c.status == "held")

# What waits, for operators: counted and chosen by domain and site without a look at a row. A leased row stays out.
Index(
    "recipients_waiting",
    recipients.c.domain,
    recipients.c.site,
    recipients.c.status,
    recipients.c.reason,
    recipients.c.due_at,
    recipients.c.lease,  # none has one, but without the column SQLite would look at each row for it
    sqlite_where=and_(recipients.c.lease.is_(None), recipients.c.status.in_(("queued", "deferred", "held"))),
)

# What an operator wants of a recipient that is under way: "hold" or "cancel" once it comes back.
operator_wishes = Table(
    "operator_wishes",
    queue,
    Column("recipient_id", Integer, primary_key=True, autoincrement=False),
    Column("verb", String, nullable=False),
    Column("actor", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("why", String, nullable=False),
)

# Mail that is held until somebody releases it, also what comes; "" is any.
standing_holds = Table(
    "standing_holds",
    queue,
    Column("instance_id", String, primary_key=True),
    Column("smtp_config_id", String, primary_key=True),
    Column("site", String, primary_key=True),
    Column("domain", String, primary_key=True),
    Column("actor", String, nullable=False),
    Column("since", Float, nullable=False),
    Column("why", String, nullable=False),
)

attempts = Table(
    "attempts",
    queue,
    Column("id", Integer, primary_key=True, autoincrement=True),
    # Found by the events that name them, so no index.
    Column("queue_id", String, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("finished_at", Float, nullable=False),
    Column("site", String, nullable=False),
    Column("host", String, nullable=False),
    Column("address", String, nullable=False),
    Column("source", String, nullable=False),
    Column("tls", String, nullable=False),
    Column("route_reason", String, nullable=False),
    # JSON: [[at, did, reply], …]; what it meant for each recipient are its events.
    Column("conversation", String, nullable=False),
)

# The record: recipients' status, attempts, reply, reason and next time follow from it. See `model.flow.Event`.
events = Table(
    "events",
    queue,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("queue_id", String, nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("recipient_id", Integer),
    Column("attempt_id", Integer),
    Column("code", Integer, nullable=False),
    Column("enhanced", String, nullable=False),
    Column("text", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("actor", String, nullable=False),
    Column("due_at", Float),
)

# How many events of each kind ("submitted", "success", "deferred", "bounced") a configuration had in a minute since the
# epoch: what metrics are drawn from when they ask for no single recipient, sender or subject.
counts = Table(
    "counts",
    queue,
    Column("instance_id", String, primary_key=True),
    Column("minute", Integer, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("smtp_config_id", String, primary_key=True),
    Column("n", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# The first id of a table that was never given, written when rows go: ids are not given twice.
numbers = Table(
    "numbers",
    queue,
    Column("name", String, primary_key=True),
    Column("next", Integer, nullable=False),
)

segments = Table(
    "segments",
    queue,
    Column("number", Integer, primary_key=True),
    Column("generation", Integer, nullable=False),
)
