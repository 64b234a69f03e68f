"""A look at a file of SQLite's by itself, past every connection that is open."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

NoDatabase = sqlite3.DatabaseError
"""The file is no database, or damaged."""


class NotWritable(Exception):
    """It cannot be read or written, for a reason in the driver's words."""


class Locked(NotWritable):
    """Another process' transaction holds it."""


def check_writable(path: Path, wait: float, table: str = "") -> None:
    """Take the write lock and give it back; the file must be there.

    Args:
        wait: seconds that another process may hold it.
        table: one that must be there, too.

    Raises Locked, NotWritable, or NoDatabase for what is no database.
    """
    try:
        with closing(_open(path, wait)) as db:
            db.execute("BEGIN IMMEDIATE")
            if table:
                db.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchall()  # noqa: S608 - a table of ours
            db.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        raise (Locked if "locked" in str(error) else NotWritable)(str(error)) from error


def damage(path: Path, wait: float) -> str:
    """What is wrong with a file, in SQLite's words; empty when it is whole. Raises NotWritable."""
    try:
        with closing(_open(path, wait)) as db:
            (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        raise (Locked if "locked" in str(error) else NotWritable)(str(error)) from error
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if said == "ok" else str(said)


def _open(path: Path, wait: float) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=wait, isolation_level=None)
