from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.waiting import wait_for

from backend.errors import BadRequest, NotFound
from backend.store.database import GIVES_WAY, MOST_STRANGERS, DatabaseLocked, ProjectColumns, Store
from backend.store.hints import Hint
from backend.store.jobs import Jobs

UID = "1.100"


@pytest.fixture
def holder(store: Store, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that takes the lock of the store's file when it reads a line, and gives it back at the next."""
    code = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for command in ('BEGIN IMMEDIATE', 'ROLLBACK'):\n"
        "    sys.stdin.readline(); db.execute(command); print('done', flush=True)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "yoloop.db")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def _goes_on(holder: subprocess.Popen[str]) -> None:
    assert holder.stdin is not None and holder.stdout is not None
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "done\n"


@pytest.fixture
def locked(holder: subprocess.Popen[str]) -> Callable[[], None]:
    """Locks the store's file."""
    return partial(_goes_on, holder)


@pytest.fixture
def unlocked(holder: subprocess.Popen[str]) -> Callable[[], None]:
    """Ends that."""
    return partial(_goes_on, holder)


class TestProjects:
    def test_columns_not_named_stay(self, store: Store) -> None:
        assert store.project(UID) is None
        store.save_project(UID, title="Shapes", api_key="secret")
        store.save_project(UID, label_config="<View/>")
        store.save_project(UID)
        project = store.project(UID)
        assert project is not None
        assert (project.id, project.title, project.api_key, project.label_config) == (1, "Shapes", "secret", "<View/>")
        assert (project.cursor, project.synced_at, project.baseline) == (None, None, "")

    def test_all_of_them(self, store: Store) -> None:
        for uid in ("2.5", "1.7", "1.5"):
            store.save_project(uid)
        assert [project.uid for project in store.projects()] == ["1.5", "1.7", "2.5"]

    def test_tokens_are_not_shown(self, store: Store) -> None:
        store.save_project(UID, title="Shapes", api_key="hush", access_token="hush", url="http://me:hush@host")
        assert "hush" not in repr(store.projects())


class TestNames:
    """Which project somebody means."""

    def test_two_label_studios_give_out_one_number(self, store: Store) -> None:
        store.save_project("1.1700000000", title="Cars")
        assert store.find("1").uid == store.find(1).uid == store.find(None).uid == store.find("").uid == "1.1700000000"
        store.save_project("1.1800000000", title="Ships", synced_at=5.0)
        for uid in ("1.1700000000", "1.1800000000"):
            assert store.find(uid).uid == uid
        for number in (1, "1"):
            with pytest.raises(BadRequest, match="several projects with the number 1") as error:
                store.find(number)
            assert "1.1700000000 Cars" in str(error.value) and "1.1800000000 Ships" in str(error.value)
        for nothing in (None, ""):
            with pytest.raises(BadRequest, match="several projects"):
                store.find(nothing)

    @pytest.mark.parametrize(
        "named", ["1.1700000001", "1.17", "1.", "01.1700000000", "01", "2", 2, "17", "1.1700000000 "]
    )
    def test_another_name_is_nobodys(self, store: Store, named: str | int) -> None:
        store.save_project("1.1700000000")
        with pytest.raises(NotFound, match="No such project is known"):
            store.find(named)

    def test_none_is_known(self, store: Store) -> None:
        with pytest.raises(NotFound, match=r"No project is known yet\. Connect one: yoloop connect N"):
            store.find(None)


class TestExpecting:
    """The address at which Label Studio is about to be told to find yoloop."""

    def test_it_is_known_at_once_and_stays(self, store: Store) -> None:
        with store.expecting("http://yoloop.internal:9090") as expect:
            expect(UID)
            assert store.backend_urls() == ["http://yoloop.internal:9090"]
        assert store.backend_urls() == ["http://yoloop.internal:9090"]

    @pytest.mark.parametrize("before", ["", "http://old:9090"])
    def test_what_fails_leaves_the_one_of_before(self, store: Store, before: str) -> None:
        store.save_project(UID, backend_url=before)
        with pytest.raises(KeyError), store.expecting("http://new:9090") as expect:
            expect(UID)
            raise KeyError
        assert store.backend_urls() == ([before] if before else [])


class TestStrangers:
    """Projects that somebody named, and that Label Studio was never asked about."""

    def test_they_are_only_so_many_and_push_out_nobody(self, store: Store) -> None:
        """On an open server anybody may name projects, before the worker reads the one that was added by hand."""
        store.save_project("1.1", label_config="<View/>", hostname="http://studio", access_token="0" * 40)
        for number in range(2, MOST_STRANGERS + 51):
            store.save_project(f"{number}.1", label_config="<View/>", hostname="http://studio")
        assert {project.id for project in store.projects()} == set(range(1, MOST_STRANGERS + 1))
        store.save_project("1.1", title="Shapes")
        assert store.find(1).title == "Shapes"

    def test_those_that_are_not_there_give_way(self, store: Store) -> None:
        for number in range(1, MOST_STRANGERS + 1):
            store.save_project(f"{number}.1")
            store.hint(f"{number}.1", 1.0)
        for number, error in ((5, f"Not there. {GIVES_WAY}"), (6, "Label Studio does not answer."), (7, GIVES_WAY)):
            store.save_project(f"{number}.1", sync_error=error)
        for number in range(1001, 1005):
            store.save_project(f"{number}.1")
        left = {project.id for project in store.projects()}
        assert left == {*range(1, MOST_STRANGERS + 1), 1001, 1002} - {5, 7}
        assert {hint.uid for hint in store.hints()} == {f"{each}.1" for each in left - {1001, 1002}}

    @pytest.mark.parametrize(
        "columns",
        [
            {"api_key": "secret"},
            {"url": "http://studio", "api_key": "secret"},
            {"backend_url": "http://yoloop:9090"},
            {"synced_at": 1.0},
            {"cursor": 1.0},
        ],
    )
    def test_those_that_are_no_strangers_stay_and_come(self, store: Store, columns: ProjectColumns) -> None:
        store.save_project("1.1", sync_error=GIVES_WAY, **columns)
        for number in range(10, MOST_STRANGERS + 20):
            store.save_project(f"{number}.1", sync_error=GIVES_WAY)
        store.save_project("2.1", **columns)
        assert {1, 2} <= {project.id for project in store.projects()}
        assert [store.find(number).by_name_only for number in (1, 2, 100)] == [False, False, True]

    def test_their_trainings_go_with_them_unless_begun(self, store: Store) -> None:
        jobs = Jobs(store)
        for number in (1, 2):
            store.save_project(f"{number}.1", sync_error=GIVES_WAY)
            jobs.request(f"{number}.1", "", 1.0)
        jobs.update(jobs.of_project("2.1")[0].id, started_at=2.0)
        for number in range(10, MOST_STRANGERS + 20):
            store.save_project(f"{number}.1")
        assert [job.uid for job in jobs.unfinished()] == ["2.1"]


class TestHints:
    def test_one_row_however_many_events(self, store: Store) -> None:
        store.hint(UID, 1.0)
        store.hint(UID, 3.0, deletion=True)
        store.hint(UID, 2.0)
        assert store.hints() == [Hint(UID, 1.0, 2.0, 3, True)]

    def test_an_answered_hint_is_gone(self, store: Store) -> None:
        store.hint(UID, 1.0)
        store.hint("2.5", 1.0)
        store.answered(next(hint for hint in store.hints() if hint.uid == UID))
        assert [hint.uid for hint in store.hints()] == ["2.5"]

    def test_an_event_that_came_meanwhile_is_kept(self, store: Store) -> None:
        store.hint(UID, 1.0)
        (seen,) = store.hints()
        store.hint(UID, 1.0, deletion=True)
        store.answered(seen)
        (kept,) = store.hints()
        assert (kept.events, kept.deletions) == (2, True)

    def test_threads_of_two_processes_lose_none(self, tmp_path: Path) -> None:
        stores = [Store(f"sqlite:///{tmp_path / 'shared.db'}") for _ in range(2)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: stores[number % 2].hint(UID, 1.0), range(60)))
        assert stores[0].hints()[0].events == 60
        for store in stores:
            store.close()

    @pytest.mark.parametrize(
        ("first", "last", "due"),
        [(100.0, 100.0, False), (97.0, 97.0, True), (70.0, 99.9, True), (71.0, 99.9, False), (60.0, 100.0, True)],
    )
    def test_when_the_worker_looks(self, first: float, last: float, due: bool) -> None:
        assert Hint(UID, first, last, 5, False).due(100.0, debounce=3.0, debounce_max=30.0) is due

    def test_a_hint_from_before_the_clock_was_set_back_does_not_wait_for_its_time(self) -> None:
        assert Hint(UID, 90_000.0, 90_000.0, 1, False).due(100.0, debounce=3.0, debounce_max=30.0)
        assert Hint(UID, 50.0, 90_000.0, 2, False).due(100.0, debounce=3.0, debounce_max=30.0)
        assert not Hint(UID, 100.2, 100.2, 1, False).due(100.0, debounce=3.0, debounce_max=30.0)

    @given(st.lists(st.floats(0, 2.9), min_size=1, max_size=100))
    def test_events_without_end_do_not_hold_it_off_for_ever(self, gaps: list[float]) -> None:
        first = now = 0.0
        for gap in gaps:
            now += gap
            assert Hint(UID, first, now, 1, False).due(now, 3.0, 30.0) == (now - first >= 30.0)


class TestLocked:
    """Beside somebody who holds SQLite's lock, in a process of its own."""

    def test_readers_wait_for_nobody(self, store: Store, locked: Callable[[], None]) -> None:
        store.save_project(UID, title="Shapes")
        locked()
        with ThreadPoolExecutor(40) as pool:
            waiting = [pool.submit(store.save_project, UID, 3.0, title="Other") for _ in range(16)]
            time.sleep(0.3)  # all of them wait by now
            began = time.monotonic()
            found = list(pool.map(lambda _: store.project(UID), range(40)))
            assert time.monotonic() - began < 1.5
            assert {project.title for project in found if project} == {"Shapes"}
            assert not any(each.done() for each in waiting)
        for each in waiting:
            with pytest.raises(DatabaseLocked):
                each.result()

    @pytest.mark.parametrize("patience", [0.0, 0.3])
    def test_a_writer_waits_no_longer_than_it_is_ready_to(
        self, store: Store, locked: Callable[[], None], patience: float
    ) -> None:
        locked()
        began = time.monotonic()
        with pytest.raises(DatabaseLocked), store.write(patience):
            raise AssertionError("the lock is somebody else's")
        assert patience <= time.monotonic() - began < patience + 1

    def test_events_are_kept_until_it_ends(
        self, store: Store, locked: Callable[[], None], unlocked: Callable[[], None]
    ) -> None:
        assert store.hint(UID, 1.0)
        locked()
        began = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            told = list(pool.map(lambda number: store.hint(UID, 2.0 + number, submit=True), range(16)))
        assert time.monotonic() - began < 2
        began = time.monotonic()
        assert not store.hint(UID, 20.0, deletion=True) and not store.hint("2.5", 20.0, asked=True)
        assert time.monotonic() - began < 0.3, "once one waits, the others need not"
        assert not any(told) and [hint.events for hint in store.hints()] == [1]
        unlocked()
        wait_for(lambda: len(store.hints()) == 2 and store.hint("3.5", 21.0), 5, "what was kept to be written")
        assert sorted(store.hints(), key=lambda hint: hint.uid)[:2] == [
            Hint(UID, 1.0, 20.0, 18, True, 0, 16),
            Hint("2.5", 20.0, 20.0, 1, False, 1),
        ]

    def test_what_is_kept_is_written_at_the_end(
        self, tmp_path: Path, store: Store, locked: Callable[[], None], unlocked: Callable[[], None]
    ) -> None:
        ending = Store(f"sqlite:///{tmp_path / 'yoloop.db'}")
        locked()
        assert not ending.hint(UID, 1.0)
        unlocked()
        ending.close()
        assert store.hints() == [Hint(UID, 1.0, 1.0, 1, False)]


class TestTheFile:
    def test_only_its_owner_may_read_it(self, store: Store, tmp_path: Path) -> None:
        assert stat.S_IMODE((tmp_path / "yoloop.db").stat().st_mode) == 0o600

    def test_an_error_takes_everything_back(self, store: Store) -> None:
        with pytest.raises(RuntimeError), store.write() as db:
            db.exec_driver_sql("INSERT INTO projects (uid) VALUES ('1.1')")
            raise RuntimeError
        assert store.projects() == []
        store.save_project(UID)  # and the lock is free again

    def test_what_was_written_survives_a_kill(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'killed.db'}"
        code = (
            "import os, signal, sys; from backend.store.database import Store; "
            "Store(sys.argv[1]).hint('1.100', 5.0); os.kill(os.getpid(), signal.SIGKILL)"
        )
        assert subprocess.run([sys.executable, "-c", code, url]).returncode == -9
        store = Store(url)
        assert store.hints() == [Hint(UID, 5.0, 5.0, 1, False)]
        store.close()

    def test_processes_that_start_together(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'new.db'}"
        code = "import sys; from backend.store.database import Store; Store(sys.argv[1]).hint('1.100', 5.0)"
        started = [subprocess.Popen([sys.executable, "-c", code, url]) for _ in range(4)]
        assert [process.wait(60) for process in started] == [0] * 4
        store = Store(url)
        assert store.hints()[0].events == 4
        store.close()


def test_a_database_of_an_earlier_release_gets_the_new_columns(tmp_path: Path) -> None:
    path = tmp_path / "yoloop.db"
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE projects (uid VARCHAR PRIMARY KEY, title VARCHAR NOT NULL DEFAULT '', cursor FLOAT)")
        old.execute("INSERT INTO projects (uid, title) VALUES ('1.100', 'Shapes')")
    old.close()
    for _ in range(2):
        store = Store(f"sqlite:///{path}")
        project = store.project(UID)
        assert project is not None
        assert (project.title, project.label_config, project.active_learning) == ("Shapes", "", False)
        store.save_project(UID, active_learning=True)
        store.save_project(UID, active_learning=False)
        store.close()


class TestTokens:
    """One for each Label Studio."""

    def test_a_new_one_is_that_of_all_projects_there(self, tmp_path: Path) -> None:
        store = Store(f"sqlite:///{tmp_path / 'yoloop.db'}")
        for uid in ("1.1", "2.1"):
            store.save_project(uid, url="http://studio", api_key="old")
        store.save_project("3.1", url="http://other", api_key="theirs")
        store.save_project("1.1", url="http://studio", api_key="new")
        assert [each.api_key for each in store.projects()] == ["new", "new", "theirs"]
        assert store.label_studios() == {"http://other": "theirs", "http://studio": "new"}
        store.save_project("2.1", api_key="newer")
        assert [each.api_key for each in store.projects()] == ["newer", "newer", "theirs"]
        assert store.find(1).api_key == "newer"
        store.close()

    def test_it_moves_with_its_label_studio(self, tmp_path: Path) -> None:
        store = Store(f"sqlite:///{tmp_path / 'yoloop.db'}")
        store.save_project("1.1", url="http://studio", api_key="key")
        store.save_project("2.1", url="http://other", api_key="theirs")
        store.save_project("1.1", url="https://studio.lan")
        assert store.label_studios() == {"http://other": "theirs", "https://studio.lan": "key"}
        store.save_project("1.1", url="http://other")
        assert store.find(1).api_key == "theirs"
        store.close()

    def test_it_goes_with_the_last_project_there(self, tmp_path: Path) -> None:
        store = Store(f"sqlite:///{tmp_path / 'yoloop.db'}")
        for uid in ("1.1", "2.1"):
            store.save_project(uid, url="http://studio", api_key="key")
        store.forget("1.1")
        assert store.label_studios() == {"http://studio": "key"}
        store.forget("2.1")
        assert (store.label_studios(), store.projects()) == ({}, [])
        store.close()

    def test_a_connected_project_is_no_stranger(self, tmp_path: Path) -> None:
        store = Store(f"sqlite:///{tmp_path / 'yoloop.db'}")
        store.save_project("1.1", url="http://studio", api_key="key")
        for number in range(2, MOST_STRANGERS + 5):
            store.save_project(f"{number}.1", title="named")
        assert store.project("1.1") is not None
        store.close()


def test_a_hint_waits_for_what_says_who_asked() -> None:
    asked = Hint("1.1", 100.0, 100.0, 1, False, asked=1)
    assert not asked.due(104.0, 2.0, 30.0) and asked.due(105.0, 2.0, 30.0)
    assert not asked.due(104.0, 0.0, 0.0)
    assert replace(asked, submits=1).due(102.0, 2.0, 30.0)
