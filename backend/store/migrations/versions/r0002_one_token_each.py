"""One token for each Label Studio, when a project was disconnected, and what a hint tells of submits.

Of the tokens that the projects of one Label Studio have, the one is taken that worked last.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "one_token_each"
down_revision = "0001"

_COLUMNS = {
    "projects": [sa.Column("disconnected_at", sa.Float)],
    "hints": [
        sa.Column("asked", sa.Integer, nullable=False, server_default="0"),
        sa.Column("submits", sa.Integer, nullable=False, server_default="0"),
    ],
}


def upgrade() -> None:
    """Add what is missing; what is there stays."""
    known = None if context.is_offline_mode() else sa.inspect(op.get_bind())
    for table, columns in _COLUMNS.items():
        there = {column["name"] for column in known.get_columns(table)} if known is not None else set()
        for column in columns:
            if column.name not in there:
                op.add_column(table, column)
    if known is not None and known.has_table("label_studios"):
        return
    op.create_table(
        "label_studios",
        sa.Column("url", sa.String, primary_key=True),
        sa.Column("api_key", sa.String, nullable=False),
    )
    op.execute(
        "INSERT INTO label_studios (url, api_key) SELECT url, api_key FROM ("
        "SELECT url, api_key, ROW_NUMBER() OVER ("
        "PARTITION BY url ORDER BY CASE WHEN sync_error = '' THEN 0 ELSE 1 END, COALESCE(synced_at, 0) DESC"
        ") AS place FROM projects WHERE url <> '' AND api_key <> '') AS known WHERE place = 1"
    )
