"""All annotations of a task that has several, and which image each annotation is of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "several_annotations"
down_revision = "sides_that_stay"


def upgrade() -> None:
    """Add the columns, and have the tasks read again of which only one annotation was kept."""
    known = None if context.is_offline_mode() else sa.inspect(op.get_bind())
    for name, column in (
        ("ledger", sa.Column("annotations", sa.JSON(none_as_null=True))),
        ("ledger", sa.Column("selection", sa.String)),
        ("ledger", sa.Column("agreement", sa.Float)),
        ("readings", sa.Column("image", sa.String, nullable=False, server_default="")),
    ):
        if known is None or column.name not in {each["name"] for each in known.get_columns(name)}:
            op.add_column(name, column)
    # A task without a time is read again when all times are compared.
    op.execute(
        "UPDATE ledger SET updated_at = NULL WHERE EXISTS (SELECT 1 FROM readings WHERE readings.uid = ledger.uid"
        " AND readings.task_id = ledger.task_id AND readings.annotations > 1)"
    )
    op.execute("UPDATE listings SET wanted = true WHERE uid IN (SELECT uid FROM readings WHERE annotations > 1)")
