"""A real worker, its trainings and its databases on a disk that is filled to the last byte and freed again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.results import evidence
from support.small_disk import alone

from backend.observability.full_disk import message_of

MOMENTS = ("reading", "training", "registering")
LIFE = [*(f"full:{each}" for each in MOMENTS), "no_room", "cancelled_while_full", "killed", "lost_thread"]

WITHIN = 60.0
"""Seconds in which everybody knows what lives, and all goes on."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("full") / "worker.log"


@pytest.fixture(scope="module")
def seen(log: Path) -> dict[str, Any]:
    """See `support.full_disk_life`."""
    command = [*alone(), sys.executable, "-m", "support.full_disk_life", str(log.parent), *LIFE]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with evidence("worker", lambda _: [log]), log.open("wb") as said:
        done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, stderr=said, timeout=900)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.training
@pytest.mark.group("full-disk", minutes=4)
class TestFullDisk:
    @pytest.mark.parametrize("moment", MOMENTS)
    def test_a_training_waits_and_goes_on_by_itself(self, seen: dict[str, Any], moment: str) -> None:
        found = seen[f"full:{moment}"]
        assert found["waited"] < WITHIN and found["again"] < WITHIN
        assert (found["status"], found["joined"], found["trainers"]) == ("queued", "queued", 0)
        assert found["end"] == "done" and found["said"].startswith("v")

    @pytest.mark.parametrize("moment", MOMENTS)
    def test_doctor_says_so(self, seen: dict[str, Any], moment: str) -> None:
        found = seen[f"full:{moment}"]["doctor"]
        assert found.startswith("✗ training: One waits for room") and "goes on by itself" in found

    def test_none_begins_below_the_room_that_doctor_demands(self, seen: dict[str, Any]) -> None:
        found = seen["no_room"]
        assert found["message"].startswith("waits for room") and found["doctor"].startswith("✗")
        assert (found["trainers"], found["end"]) == (0, "cancelled") and found["cancelled"] < WITHIN

    def test_one_that_was_interrupted_can_be_cancelled(self, seen: dict[str, Any]) -> None:
        found = seen["cancelled_while_full"]
        assert (found["end"], found["left"]) == ("cancelled", []) and found["took"] < WITHIN

    def test_a_killed_process_and_a_lost_thread_cost_no_training(self, seen: dict[str, Any]) -> None:
        assert seen["killed"] == {"end": "done", "left": []}
        assert seen["lost_thread"]["end"] == "done" and seen["lost_thread"]["again"] < WITHIN

    def test_the_log_has_a_line_for_it_and_no_traceback(self, seen: dict[str, Any], log: Path) -> None:
        text = log.read_text()
        assert "Traceback" not in text
        lines = text.count(message_of("the disk is full"))
        assert 1 <= lines <= len(MOMENTS) + 2, "one for each time, or less where they followed upon one another"
