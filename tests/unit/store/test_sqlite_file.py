from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from backend.store.sqlite_file import Locked, NoDatabase, NotWritable, check_writable, damage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "a.db"
    with sqlite3.connect(made) as db:
        db.execute("CREATE TABLE numbers (number INTEGER)")
        db.executemany("INSERT INTO numbers VALUES (?)", [(number,) for number in range(5000)])
    db.close()
    return made


def test_a_whole_one(path: Path) -> None:
    check_writable(path, 0.1, "numbers")
    assert damage(path, 0.1) == ""


def test_one_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotWritable):
        check_writable(tmp_path / "none.db", 0.1)
    with pytest.raises(NotWritable):
        damage(tmp_path / "none.db", 0.1)
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_is_not_there(path: Path) -> None:
    with pytest.raises(NotWritable, match="no such table"):
        check_writable(path, 0.1, "letters")


def test_a_locked_one(path: Path) -> None:
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Locked):
        check_writable(path, 0.1)
    holder.close()
    check_writable(path, 0.1)


def test_no_database(path: Path) -> None:
    path.write_bytes(b"This is no database. " * 1000)
    with pytest.raises(NoDatabase):
        check_writable(path, 0.1)
    assert "not a database" in damage(path, 0.1)


def test_a_damaged_one(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[4096:8192] = b"\xff" * 4096
    path.write_bytes(whole)
    assert damage(path, 0.1)
