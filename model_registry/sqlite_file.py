"""One question to MLflow's SQLite file without MLflow, whose import takes longer than a whole command."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
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
    query = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?"
    found = _asked(path, query, model, alias)
    return int(found[0][0]) if found else None


def aliases_in_file(path: Path, alias: str) -> dict[str, int]:
    """Registered model → number of the version that an alias names, of all that have it; see `alias_in_file`."""
    found = _asked(path, "SELECT name, version FROM registered_model_aliases WHERE alias = ?", alias)
    return {name: int(version) for name, version in found}


def _asked(path: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=15)) as db:
            return db.execute(query, values).fetchall()
    except sqlite3.OperationalError:
        if not path.exists():
            return []
        raise
