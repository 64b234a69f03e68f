from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from backend.settings import Settings
from backend.store.database import Store
from backend.store.refreshes import Refresh, Refreshes
from backend.suggestions.refresh_due import is_due, key_of

UID = "1.100"
SETTINGS = Settings(keep_minutes=60)
DONE = Refresh(UID, "1:abc", "v1", 100, 50, 50, 0, 0, 900.0, 1000.0, "")


def due(refresh: Refresh | None = DONE, key: str = "1:abc", champion: int | None = 1, **changed: float) -> bool:
    now, tasks = changed.get("now", 1001.0), int(changed.get("tasks", 100))
    return is_due(refresh, key, champion, tasks, now, SETTINGS)


def test_a_project_gets_its_first_refresh_with_its_first_version() -> None:
    assert due(None)
    assert not due(None, champion=None)


def test_what_is_done_is_not_done_again() -> None:
    assert not due()
    assert not due(now=1e9)


def test_another_version_is_due_at_once() -> None:
    assert due(key="2:abc", champion=2)
    assert due(key="None:abc", champion=None), "after a rollback to the time before any training, too"


def test_what_was_interrupted_goes_on() -> None:
    assert due(replace(DONE, finished_at=None))


def test_new_tasks_are_due_a_minute_later() -> None:
    assert not due(tasks=101, now=1030)
    assert due(tasks=101, now=1061)
    assert not due(tasks=99, now=1061)


def test_failures_are_tried_again_ten_minutes_later() -> None:
    failed = replace(DONE, failed=1)
    assert not due(failed, now=1500)
    assert due(failed, now=1601)


def test_after_the_clock_was_set_back_nothing_waits_for_the_time_it_showed() -> None:
    assert due(tasks=101, now=500)
    assert due(replace(DONE, failed=1), now=500)
    assert not due(now=500)


def test_outdated_suggestions_go_once_they_may() -> None:
    left = replace(DONE, outdated=5)
    assert not due(left, now=1000 + 3599)
    assert due(left, now=1000 + 3601)


def test_the_key_tells_what_suggestions_depend_on(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'yoloop.db'}")
    store.save_project(UID, label_config="<View/>")
    project = store.project(UID)
    assert project is not None
    keys = {
        key_of(project, 1, SETTINGS),
        key_of(project, 2, SETTINGS),
        key_of(project, None, SETTINGS),
        key_of(replace(project, label_config="<View></View>"), 1, SETTINGS),
        key_of(project, 1, Settings(sampling="margin")),
        key_of(project, 1, Settings(score_threshold=0.5)),
    }
    assert len(keys) == 6
    assert key_of(replace(project, title="new"), 1, SETTINGS) in keys


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    refreshes = Refreshes(Store(f"sqlite:///{tmp_path / 'yoloop.db'}"))
    assert refreshes.get(UID) is None
    refreshes.save(UID, "1:abc", version="v1", tasks=100, total=50, started_at=900.0)
    refreshes.save(UID, "1:abc", done=50, finished_at=1000.0)
    assert refreshes.get(UID) == DONE
    refreshes.save(UID, "2:abc", finished_at=None)
    found = refreshes.get(UID)
    assert found is not None
    assert (found.key, found.finished_at, found.version) == ("2:abc", None, "v1")
    refreshes.note(UID, "Label Studio cannot be reached.")
    assert str(refreshes.get(UID)) == "50 of 50 unlabelled tasks carry v1; Label Studio cannot be reached."
    assert str(replace(DONE, failed=2, message="old news")) == "50 of 50 unlabelled tasks carry v1, 2 failed"
