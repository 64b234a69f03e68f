"""Sides that are given once, and what kept images together; those of releases until 0.7 are taken over at first use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "sides_that_stay"
down_revision = "what_annotations_say"

metadata = sa.MetaData()

sa.Table(
    "sides",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("group", sa.String, nullable=False),
    sa.Column("side", sa.String, nullable=False),
)


def upgrade() -> None:
    """Add the table and columns."""
    known = None if context.is_offline_mode() else sa.inspect(op.get_bind())
    for table in metadata.sorted_tables:
        if known is None or not known.has_table(table.name):
            table.create(op.get_bind())
    for column in (
        sa.Column("family", sa.String, nullable=False, server_default=""),
        sa.Column("also", sa.Text, nullable=False, server_default=""),
        sa.Column("old", sa.Boolean, nullable=False, server_default=sa.true()),
    ):
        if known is None or column.name not in {each["name"] for each in known.get_columns("thumbnails")}:
            op.add_column("thumbnails", column)
