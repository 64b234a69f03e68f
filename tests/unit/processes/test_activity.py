from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from backend.processes.activity import LARGEST, Activity


@pytest.fixture
def activity(tmp_path: Path) -> Activity:
    return Activity(tmp_path / "serving.active")


def test_who_asked_for_what_since_when(activity: Activity) -> None:
    activity.mark("1.5", [1, 2], 100.0)
    activity.mark("1.5", [3], 200.0)
    activity.mark("2.5", [4], 200.0)
    activity.mark("", [], 200.0)
    assert activity.asked("1.5", 0.0) == {1, 2, 3}
    assert activity.asked("1.5", 150.0) == {3}
    assert activity.asked("2.5", 200.0) == {4}
    assert activity.asked("3.5", 0.0) == frozenset()


def test_nobody_asked_yet(activity: Activity) -> None:
    assert activity.idle(100.0) == math.inf
    assert activity.asked("1.5", 0.0) == frozenset()


def test_seconds_since_somebody_asked(activity: Activity, tmp_path: Path) -> None:
    activity.mark("1.5", [1], 100.0)
    os.utime(tmp_path / "serving.active", (0, 1000))
    assert activity.idle(1003.0) == 3.0
    assert activity.idle(999.5) == -0.5, "told by another clock's tick"
    assert activity.idle(500.0) == math.inf, "the clock was set back since"


def test_it_does_not_grow_for_good(activity: Activity, tmp_path: Path) -> None:
    path = tmp_path / "serving.active"
    path.write_text("x" * (LARGEST + 1))
    activity.mark("1.5", [1], 100.0)
    assert path.stat().st_size < 100
    assert activity.asked("1.5", 0.0) == {1}


def test_half_a_line_is_left_out(activity: Activity, tmp_path: Path) -> None:
    activity.mark("1.5", [1], 100.0)
    with (tmp_path / "serving.active").open("a") as file:
        file.write("100.0 1.5 12,")
    assert activity.asked("1.5", 0.0) >= {1}
    with (tmp_path / "serving.active").open("a") as file:
        file.write("x\n\n300")
    assert activity.asked("1.5", 0.0) == {1}


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    Activity(tmp_path / "nowhere" / "file").mark("1.5", [1], 100.0)
