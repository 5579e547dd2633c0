"""What Alembic runs to migrate: it uses the connection and the transaction that the caller hands it.

Standards: Alembic's environment script.
Promises: no logging is configured, nothing is printed, no connection is opened here.
Dangers: executed by Alembic, not imported; `config.attributes["connection"]` must be inside a transaction.
Not here: which version line (the caller's `version_locations`).
"""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
