"""The tables as 0.7 left them; those of 0.3 to 0.6 lack some tables and columns, which this adds.

The definitions stay as they are, whatever `tables.py` becomes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0001"
down_revision = None

metadata = sa.MetaData()

sa.Table(
    "projects",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("label_config", sa.Text, nullable=False, server_default=""),
    sa.Column("title", sa.String, nullable=False, server_default=""),
    sa.Column("url", sa.String, nullable=False, server_default=""),
    sa.Column("api_key", sa.String, nullable=False, server_default=""),
    sa.Column("hostname", sa.String, nullable=False, server_default=""),
    sa.Column("access_token", sa.String, nullable=False, server_default=""),
    sa.Column("baseline", sa.String, nullable=False, server_default=""),
    sa.Column("cursor", sa.Float),
    sa.Column("synced_at", sa.Float),
    sa.Column("sync_error", sa.Text, nullable=False, server_default=""),
    sa.Column("waiting_for", sa.Text, nullable=False, server_default=""),
    sa.Column("active_learning", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("backend_url", sa.String, nullable=False, server_default=""),
)

sa.Table(
    "hints",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("first_at", sa.Float, nullable=False),
    sa.Column("last_at", sa.Float, nullable=False),
    sa.Column("events", sa.Integer, nullable=False),
    sa.Column("deletions", sa.Boolean, nullable=False),
)

sa.Table(
    "ledger",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    sa.Column("task_created_at", sa.Float, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("annotation_id", sa.Integer),
    sa.Column("submitted_at", sa.Float),
    sa.Column("result", sa.JSON(none_as_null=True)),
    sa.Column("content", sa.String),
    sa.Column("seen", sa.String),
)

sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("uid", sa.String, nullable=False, index=True),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("epoch", sa.Integer),
    sa.Column("epochs", sa.Integer),
    sa.Column("message", sa.Text, nullable=False, server_default=""),
    sa.Column("version", sa.String, nullable=False, server_default=""),
    sa.Column("cancel", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index(
        "one_unfinished_job",
        "uid",
        unique=True,
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    ),
)

sa.Table(
    "shown",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("annotation_id", sa.Integer, primary_key=True),
    sa.Column("task_id", sa.Integer, nullable=False),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("submitted_at", sa.Float, nullable=False),
    sa.Column("lead_time", sa.Float),
)

sa.Table(
    "outcomes",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("annotation_id", sa.Integer, primary_key=True),
    sa.Column("region_id", sa.String, primary_key=True),
    sa.Column("control", sa.String, nullable=False),
    sa.Column("label", sa.String, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("score", sa.Float),
    sa.Column("iou", sa.Float),
)

sa.Table(
    "acceptances",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("annotation_id", sa.Integer, primary_key=True),
    sa.Column("run", sa.String, nullable=False, index=True),
    sa.Column("task_id", sa.Integer, nullable=False),
    sa.Column("content", sa.String, nullable=False),
    sa.Column("regions", sa.Integer, nullable=False),
    sa.Column("accepted_at", sa.Float, nullable=False),
)

sa.Table(
    "refreshes",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("key", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False, server_default=""),
    sa.Column("tasks", sa.Integer, nullable=False, server_default="0"),
    sa.Column("total", sa.Integer, nullable=False, server_default="0"),
    sa.Column("done", sa.Integer, nullable=False, server_default="0"),
    sa.Column("failed", sa.Integer, nullable=False, server_default="0"),
    sa.Column("outdated", sa.Integer, nullable=False, server_default="0"),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("message", sa.Text, nullable=False, server_default=""),
)

sa.Table(
    "heartbeats",
    metadata,
    sa.Column("process", sa.String, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("turned_at", sa.Float, nullable=False),
)

sa.Table(
    "failures",
    metadata,
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("times", sa.Integer, nullable=False),
)

sa.Table(
    "embeddings",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("vector", sa.LargeBinary, nullable=False),
)

sa.Table(
    "thumbnails",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("pixels", sa.LargeBinary, nullable=False),
    sa.Column("group", sa.String, nullable=False, index=True),
)


def upgrade() -> None:
    """Add what is missing; what is there stays."""
    known = None if context.is_offline_mode() else sa.inspect(op.get_bind())
    there = set(known.get_table_names()) if known is not None else set()
    for table in metadata.sorted_tables:
        if known is None or table.name not in there:
            table.create(op.get_bind())
            continue
        columns = {column["name"] for column in known.get_columns(table.name)}
        for column in table.columns:
            if column.name not in columns:
                op.add_column(
                    table.name,
                    sa.Column(column.name, column.type, nullable=column.nullable, server_default=column.server_default),
                )
        indexes = {index["name"] for index in known.get_indexes(table.name)}
        for index in table.indexes:
            if index.name not in indexes:
                index.create(op.get_bind())
