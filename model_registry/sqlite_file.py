"""One question to MLflow's SQLite file without MLflow, whose import takes longer than a whole command."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

SQLITE = "sqlite:///"


def path_of(url: str) -> Path:
    """The file of such an address, read as SQLAlchemy does."""
    return Path(unquote(url.removeprefix(SQLITE).partition("?")[0]))


def alias_in_file(path: Path, model: str, alias: str) -> int | None:
    """Number of the version that an alias of a registered model names; None: there is no such alias, model or file.

    Args:
        path: the file, which is not made.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=15)) as db:
            query = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?"
            row = db.execute(query, (model, alias)).fetchone()
    except sqlite3.OperationalError:
        if not path.exists():
            return None
        raise
    return None if row is None else int(row[0])
