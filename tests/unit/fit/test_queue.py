"""What becomes of a training that the database calls unfinished, while nobody works on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from filelock import FileLock

from backend.fit import queue
from backend.fit.queue import GRACE, MOST, Queue
from backend.processes.liveness import training, training_lives
from backend.services import Services
from backend.settings import Settings
from backend.store.jobs import Job

UID = "1.100"


@dataclass
class Known:
    """A DBOS that remembers what it was told, and loses the thread of whatever it begins."""

    told: dict[str, str] = field(default_factory=dict)
    resumed: list[str] = field(default_factory=list)

    def status(self, job_id: str) -> str:
        return self.told.get(job_id, "")

    def enqueue(self, job_id: str) -> None:
        self.told[job_id] = "PENDING"

    def resume(self, job_id: str) -> None:
        self.resumed.append(job_id)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(Settings(home=tmp_path, min_free_gb=0))
    yield made
    made.close()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds go by."""
    now = [time.monotonic()]
    monkeypatch.setattr(queue.time, "monotonic", lambda: now[0])

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    return pass_by


def begun(services: Services) -> Job:
    """A training that was killed: the database calls it running."""
    job, _ = services.jobs.request(UID, "asked for by hand", 1.0)
    services.jobs.update(job.id, status="running", started_at=2.0, message="training")
    (services.settings.root / "jobs" / job.id).mkdir(parents=True)
    return job


def look(made: Queue, later: Callable[[float], None], seconds: float) -> None:
    for _ in range(int(seconds)):
        later(1.0)
        made.look()


def test_one_that_nobody_works_on_is_taken_up_within_a_minute(
    services: Services, later: Callable[[float], None]
) -> None:
    job, known = begun(services), Known()
    known.told[job.id] = "PENDING"
    made = Queue(services, known)
    look(made, later, GRACE - 1)
    assert known.resumed == []
    look(made, later, 10)
    assert known.resumed == [job.id]


def test_one_that_lives_is_left_alone(services: Services, later: Callable[[float], None]) -> None:
    job, known = begun(services), Known()
    known.told[job.id] = "PENDING"
    with training(services.settings.root, job.id):
        services.jobs.cancel(UID)
        look(Queue(services, known), later, 60)
        found = services.jobs.get(job.id)
    assert found is not None and (found.status, found.message, known.resumed) == ("running", "training", [])


def test_one_that_waits_behind_another_is_no_lost_one(services: Services, later: Callable[[float], None]) -> None:
    job, known = begun(services), Known()
    known.told[job.id] = "ENQUEUED"
    look(Queue(services, known), later, 60)
    assert known.resumed == []


def test_it_is_not_taken_up_for_ever(services: Services, later: Callable[[float], None]) -> None:
    job, known = begun(services), Known()
    known.told[job.id] = "PENDING"
    look(Queue(services, known), later, 20 * (MOST + 2))
    found = services.jobs.get(job.id)
    assert found is not None and found.status == "failed" and "too often" in found.message
    assert known.resumed == [job.id] * MOST


@pytest.mark.parametrize("room", [True, False])
def test_cancelling_one_that_nobody_works_on_ends_it_at_once(services: Services, room: bool) -> None:
    job, known = begun(services), Known()
    known.told[job.id] = "PENDING"
    services.jobs.cancel(UID)
    Queue(services, known).look(room=room)
    found = services.jobs.get(job.id)
    assert found is not None and (found.status, found.message) == ("cancelled", "Cancelled.")
    assert not list((services.settings.root / "jobs").iterdir())
    assert services.jobs.request(UID, "again", 9.0)[1], "the next one joins nothing"


def test_one_that_dbos_has_ended_ends(services: Services) -> None:
    job, known = begun(services), Known()
    known.told[job.id] = "ERROR"
    Queue(services, known).look()
    found = services.jobs.get(job.id)
    assert found is not None and found.status == "failed"


def test_none_begins_below_the_room_that_it_needs(
    services: Services, later: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    job, _ = services.jobs.request(UID, "asked for by hand", 1.0)
    known = Known()
    made = Queue(services, known)
    services.settings = services.settings.model_copy(update={"min_free_gb": 2.0**30})
    look(made, later, 30)
    found = services.jobs.get(job.id)
    assert found is not None and (found.status, known.told) == ("queued", {})
    assert found.message.startswith("waits for room, as only ") and found.message.endswith(
        "a training needs 1.07374e+09"
    )
    assert len([line for line in caplog.messages if "waits for room" in line]) == 1
    services.settings = services.settings.model_copy(update={"min_free_gb": 0.0})
    look(made, later, 5)
    found = services.jobs.get(job.id)
    assert found is not None and (found.message, known.told) == ("waiting", {job.id: "PENDING"})


def test_everybody_is_told_what_lives(services: Services) -> None:
    """Another process that got the id of the dead one, or a lock's file that is left, makes nothing alive."""
    job, home = begun(services), services.settings.root
    (home / "jobs" / f"{job.id}.lock").touch()
    dead = services.jobs.get(job.id)
    assert dead is not None and (dead.status, dead.message) == ("queued", "interrupted; it goes on by itself")
    assert [each.status for each in (*services.jobs.unfinished(), *services.jobs.of_project(UID))] == ["queued"] * 2
    assert services.jobs.request(UID, "joined", 5.0)[0].status == "queued"
    with FileLock(home / "jobs" / f"{job.id}.lock"):
        alive = services.jobs.get(job.id)
    assert alive is not None and alive.status == "running"
    services.jobs.finish(job.id, "done", "v1", 3.0)
    ended = services.jobs.get(job.id)
    assert ended is not None and ended.status == "done" and not training_lives(home, job.id)
