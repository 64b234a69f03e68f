"""Run by alembic: the steps on the connection that `upgrade` hands over, or, without one, as SQL for PostgreSQL."""

from __future__ import annotations

from alembic import context

from backend.store.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
else:
    context.configure(connection=connection, target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
