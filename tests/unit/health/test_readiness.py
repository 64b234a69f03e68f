from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from backend.health.check import well
from backend.health.readiness import Readiness, database, worker, writable
from backend.store.database import Store
from backend.store.heartbeats import Heartbeat


def test_a_check_that_hangs_or_fails_costs_the_others_nothing() -> None:
    going = threading.Event()
    asked: list[int] = []

    def hangs() -> None:
        asked.append(1)
        going.wait(60)

    def fails() -> None:
        raise OSError("/home/me/secret is gone")

    readiness = Readiness({"a": hangs, "b": fails, "c": lambda: well("c", "It is well.")}, wait=0.2)  # type: ignore[dict-item]
    for _ in range(3):
        hanging, failing, good = readiness.look()
    assert len(asked) == 1, "a hanging check is not asked again and again"
    assert (hanging.name, hanging.ok, hanging.told) == ("a", False, "No answer within 0.2 s.")
    assert (failing.name, failing.ok, failing.told) == ("b", False, "It cannot be used (OSError).")
    assert good.ok
    assert [readiness.was_well(name) for name in ("a", "b", "c", "d")] == [False, False, True, False]
    assert hanging.mend and failing.mend
    going.set()


def test_a_check_that_hung_is_asked_anew() -> None:
    answers = iter([5.0, 0.0])

    def check() -> object:
        time.sleep(0.3 if next(answers, 0.0) else 0.0)
        return well("a", "It is well.")

    readiness = Readiness({"a": check}, wait=0.1)  # type: ignore[dict-item]
    assert readiness.look()[0].ok is False
    time.sleep(0.4)
    assert readiness.look()[0].ok


def test_a_database_is_well_only_if_it_can_be_read_and_written(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "yoloop.db"
    assert database(path, 0.1).ok
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        check = database(path, 0.1)
        assert check.ok is False and "locked for 0.1 s" in check.told and "fuser" in check.mend
    assert database(path, 0.1).ok


def test_asking_for_a_database_does_not_make_one(tmp_path: Path) -> None:
    readiness = Readiness({"database": lambda: database(tmp_path / "none.db")})
    assert readiness.look()[0].ok is False
    assert list(tmp_path.iterdir()) == []


def test_a_home_is_well_only_if_it_takes_a_file(tmp_path: Path) -> None:
    assert writable(tmp_path).ok
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for broken in (tmp_path / "file", tmp_path / "gone"):
        check = writable(broken)
        assert check.ok is False
        assert "YOLOOP_HOME" in check.mend
        assert str(tmp_path) not in check.told + check.mend


def test_a_worker_is_well_while_it_gives_signs_of_life(store: Store) -> None:
    heartbeat = Heartbeat(store)
    assert worker(heartbeat, 1000.0).told == "None runs, so nothing is learned."
    heartbeat.beat(995.0, 999.0)
    assert worker(heartbeat, 1000.0).ok
    assert worker(heartbeat, 1060.0).told == "No sign of life for 65 s."
    heartbeat.beat(5000.0, 1000.0)
    assert worker(heartbeat, 5001.0).told == "No sign of life for 4001 s.", "it beats, but its loop hangs"


def test_many_that_ask_at_once_all_get_what_is_found() -> None:
    asked = Readiness({name: lambda: well("it", "Fine.") for name in "abcdef"})
    with ThreadPoolExecutor(16) as people:
        found = list(people.map(lambda _: asked.look(), range(400)))
    assert all(check.ok for checks in found for check in checks)
