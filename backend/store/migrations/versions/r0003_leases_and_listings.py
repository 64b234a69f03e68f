"""What a sync needs so that nothing is missed, which suggestions were ours, unreadable images, deleted annotations."""

from __future__ import annotations

import re
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import context, op

revision = "leases_and_listings"
down_revision = "one_token_each"

metadata = sa.MetaData()

sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("holder", sa.String, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("until", sa.Float, nullable=False),
)

sa.Table(
    "listings",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("wanted", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("after", sa.Integer),
    sa.Column("finished_at", sa.Float),
    sa.Column("counted", sa.String, nullable=False, server_default=""),
)

sa.Table(
    "unreadable",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    sa.Column("data", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("tried_at", sa.Float, nullable=False),
)

sa.Table(
    "removed_annotations",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("annotation_id", sa.Integer, primary_key=True),
    sa.Column("removed_at", sa.Float, primary_key=True),
    sa.Column("task_id", sa.Integer, nullable=False),
    sa.Column("run", sa.String, nullable=False),
    sa.Column("annotation", sa.JSON, nullable=False),
)

_PLAIN = re.compile(r"(v[0-9]+)(-[0-9a-f]{6})?")
_REGION = re.compile(r"[0-9a-f]{10}(/.*)?", re.DOTALL)


def upgrade() -> None:
    """Add the tables and columns, and find out whose suggestions those of the plain names `v3` were."""
    known = None if context.is_offline_mode() else sa.inspect(op.get_bind())
    for table in metadata.sorted_tables:
        if known is None or not known.has_table(table.name):
            table.create(op.get_bind())
    for name, column in (
        ("ledger", sa.Column("updated_at", sa.Float)),
        ("shown", sa.Column("ours", sa.Boolean, nullable=False, server_default=sa.true())),
    ):
        if known is None or column.name not in {each["name"] for each in known.get_columns(name)}:
            op.add_column(name, column)
    if known is not None:
        for uid, annotation_id in _foreign(op.get_bind()):
            op.get_bind().execute(
                sa.text("UPDATE shown SET ours = :no WHERE uid = :uid AND annotation_id = :id"),
                {"no": False, "uid": uid, "id": annotation_id},
            )


def _foreign(db: sa.Connection) -> Iterator[tuple[str, int]]:
    """Annotations that were made from a suggestion of a name such as `v3`, but not from one of a version trained here:
    either there was none of that number, or a suggested region's id is none of yoloop's."""
    trained = {tuple(row) for row in db.execute(sa.text("SELECT uid, version FROM jobs WHERE version <> ''"))}
    suggested = sa.text("SELECT uid, annotation_id, region_id FROM outcomes WHERE outcome <> 'missed'")
    strange = {(uid, number) for uid, number, region in db.execute(suggested) if not _REGION.fullmatch(region)}
    rows = db.execute(sa.text("SELECT uid, annotation_id, version FROM shown WHERE version <> ''")).all()
    for uid, annotation_id, version in rows:
        name = _PLAIN.fullmatch(version)
        if name is None or (uid, name[1]) not in trained or (uid, annotation_id) in strange:
            yield uid, annotation_id
