"""Brings the database of an earlier release up to date, with alembic; every step is a file in `versions/`."""

from __future__ import annotations

import sqlalchemy as sa

from backend.errors import YoloopError
from backend.store.tables import metadata

HEAD = "which_version_serves"
"""The last step, which `tables.py` describes the outcome of."""

VERSION_TABLE = sa.Table(
    "alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True, nullable=False)
)


def revision_of(db: sa.Connection) -> str | None:
    """The last step that was taken; None for an empty database, and for one of a release before these steps."""
    if not sa.inspect(db).has_table(VERSION_TABLE.name):
        return None
    return db.scalar(sa.select(VERSION_TABLE.c.version_num))


def upgrade(db: sa.Connection) -> None:
    """Make the tables of an empty database, or take all steps that one of an earlier release lacks.

    In the transaction of the connection: whatever fails, the database stays as it was.

    Raises:
        YoloopError: the database was written by a later release.
    """
    revision = revision_of(db)
    if revision == HEAD:
        return
    if revision is None and not set(sa.inspect(db).get_table_names()) & set(metadata.tables):
        metadata.create_all(db)
        VERSION_TABLE.create(db, checkfirst=True)
        db.execute(VERSION_TABLE.insert().values(version_num=HEAD))
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "backend.store:migrations")
    config.attributes["connection"] = db
    steps = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in steps:
        raise YoloopError(
            f"The database is of a later release of yoloop (its schema is {revision}, this release knows {HEAD}).",
            "Install that release again, or name another home with YOLOOP_HOME. Nothing was changed.",
        )
    command.upgrade(config, "head")
