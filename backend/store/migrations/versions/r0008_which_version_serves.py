"""Which version of each project serves; MLflow said so before, and is asked once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "which_version_serves"
down_revision = "embedded_images"

metadata = sa.MetaData()

sa.Table(
    "serving",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("number", sa.Integer),
    sa.Column("what", sa.String, nullable=False),
    sa.Column("decided_by", sa.String, nullable=False),
    sa.Column("decided_at", sa.Float, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("stack", sa.JSON, nullable=False),
    sa.Column("acts", sa.JSON, nullable=False),
    sa.Column("highest", sa.Integer),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("mirrored", sa.Integer, nullable=False),
)


def upgrade() -> None:
    """Add the table."""
    known = None if context.is_offline_mode() else sa.inspect(op.get_bind())
    for table in metadata.sorted_tables:
        if known is None or not known.has_table(table.name):
            table.create(op.get_bind())
