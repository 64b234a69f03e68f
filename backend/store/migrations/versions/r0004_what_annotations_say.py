"""What annotations say under the labelling config; they are read at the next sync."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "what_annotations_say"
down_revision = "leases_and_listings"

metadata = sa.MetaData()

sa.Table(
    "readings",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    sa.Column("config", sa.String, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("used", sa.Boolean, nullable=False),
    sa.Column("regions", sa.Integer, nullable=False),
    sa.Column("annotations", sa.Integer, nullable=False, server_default="1"),
    sa.Column("side", sa.String, nullable=False, server_default=""),
)


def upgrade() -> None:
    """Add the table."""
    known = None if context.is_offline_mode() else sa.inspect(op.get_bind())
    for table in metadata.sorted_tables:
        if known is None or not known.has_table(table.name):
            table.create(op.get_bind())
