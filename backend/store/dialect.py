"""What differs between databases: inserting or changing a row, the lock of a writer, how a connection is set up, and
an index of some rows only.

PostgreSQL's part of SQLAlchemy is imported where it is used: it takes a tenth of a second, which each command would.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex

rowid: sa.ColumnElement[int] = sa.literal_column("rowid", sa.Integer)
"""SQLite's own number of a row: later rows have higher ones."""

Row = Mapping[str, Any]
"""Column → value."""


def upsert(
    db: sa.Connection,
    table: sa.Table,
    rows: Row | Sequence[Row],
    changed: Row | None = None,
    where: sa.ColumnElement[bool] | None = None,
) -> None:
    """Insert rows; of a primary key that is there already, change the row.

    Args:
        rows: all with the same columns.
        changed: column → value or SQL expression that a row which is there gets; None: what `rows` say. Empty: it
            stays as it is.
        where: which of the rows that are there are changed; None: all.
    """
    many = [rows] if isinstance(rows, Mapping) else list(rows)
    if not many:
        return
    made = _insert(db, table)
    keys = [column.name for column in table.primary_key]
    if changed is None:
        changed = {name: made.excluded[name] for name in many[0] if name not in keys}
    if changed:
        db.execute(made.on_conflict_do_update(index_elements=keys, set_=changed, where=where), many)
    else:
        db.execute(made.on_conflict_do_nothing(), many)


def _insert(db: sa.Connection, table: sa.Table) -> Any:
    if db.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def insert_new(db: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
    """Insert the rows whose primary key is not there yet."""
    upsert(db, table, rows, changed={})


def fetch_plain(db: sa.Connection, query: sa.Select[Any]) -> list[Any]:
    """The rows as the driver gives them: SQLAlchemy's own take longer to make than all else, where there are many.

    Only for columns of numbers and text, which no type of SQLAlchemy's converts.
    """
    made = query.compile(db)
    values = made.params if made.positiontup is None else tuple(made.params[name] for name in made.positiontup)
    cursor = db.connection.cursor()
    cursor.execute(made.string, values)
    return list(cursor.fetchall())


def begin_write(db: sa.Connection, patience: float) -> None:
    """Take the write lock, so that reading first cannot deadlock. Other databases lock the rows they write.

    Args:
        patience: seconds to wait for others; then it is an error that `is_locked` knows.
    """
    if db.dialect.name == "sqlite":
        db.exec_driver_sql(f"PRAGMA busy_timeout = {round(1000 * patience)}")
        db.exec_driver_sql("BEGIN IMMEDIATE")


def is_locked(error: sa.exc.DBAPIError) -> bool:
    """Whether somebody else writes just now."""
    return isinstance(error.orig, sqlite3.Error) and error.orig.sqlite_errorcode & 0xFF in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )


def prepare(engine: sa.Engine) -> None:
    """Set up each connection. SQLite is written through a log with a full sync: what is committed is on the disk."""
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _configure)


def _configure(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def unique_where(name: str, column: str, where: str) -> sa.Index:
    """A unique index of the rows for which a condition, in SQL, holds."""
    return sa.Index(name, column, unique=True, sqlite_where=sa.text(where), info={"where": where})


@compiles(CreateIndex, "postgresql")
def _with_where(element: CreateIndex, compiler: Any, **options: Any) -> str:
    """What the index' own `postgresql_where` would say, which imports PostgreSQL's part as soon as it is given."""
    made = str(compiler.visit_create_index(element, **options))
    where = element.element.info.get("where")
    return f"{made} WHERE {where}" if where else made
