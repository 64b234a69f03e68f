from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.store.database import Store
from backend.store.jobs import Jobs

UID, OTHER = "1.100", "2.200"


@pytest.fixture
def jobs(store: Store) -> Jobs:
    return Jobs(store)


def test_what_was_asked_for(jobs: Jobs) -> None:
    job, new = jobs.request(UID, "why", 5.0)
    assert new
    assert jobs.get(job.id) == job
    assert (job.uid, job.status, job.reason, job.created_at, job.started_at) == (UID, "queued", "why", 5.0, None)
    assert jobs.get("none") is None
    assert not jobs.cancelled("none")


def test_an_unfinished_one_is_joined_and_a_finished_one_is_not(jobs: Jobs) -> None:
    first, _ = jobs.request(UID, "a", 1.0)
    joined, new = jobs.request(UID, "b", 2.0)
    assert (joined, new) == (first, False)
    other, new = jobs.request(OTHER, "c", 3.0)
    assert new
    jobs.finish(first.id, "done", "", 4.0)
    second, new = jobs.request(UID, "d", 5.0)
    assert new
    assert second.id != first.id
    assert {job.id for job in jobs.unfinished()} == {other.id, second.id}


def test_threads_and_processes_make_one(tmp_path: Path) -> None:
    stores = [Store(f"sqlite:///{tmp_path / 'shared.db'}") for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: Jobs(stores[number % 4]).request(UID, "why", 1.0), range(32)))
    assert len({job.id for job, _ in found}) == 1
    assert sum(new for _, new in found) == 1
    for store in stores:
        store.close()


def test_a_job_ends_once(jobs: Jobs) -> None:
    job, _ = jobs.request(UID, "why", 1.0)
    jobs.update(job.id, status="running", epoch=1)
    jobs.finish(job.id, "done", "v1 promoted", 2.0, "v1")
    jobs.finish(job.id, "failed", "too late", 3.0)
    jobs.update(job.id, epoch=9)
    ended = jobs.get(job.id)
    assert ended is not None
    assert (ended.status, ended.message, ended.finished_at, ended.version, ended.epoch) == (
        "done",
        "v1 promoted",
        2.0,
        "v1",
        1,
    )


def test_cancelling(jobs: Jobs) -> None:
    mine, _ = jobs.request(UID, "a", 1.0)
    other, _ = jobs.request(OTHER, "b", 2.0)
    assert [job.id for job in jobs.cancel(UID)] == [mine.id]
    assert jobs.cancelled(mine.id)
    assert not jobs.cancelled(other.id)
    assert {job.id for job in jobs.cancel()} == {mine.id, other.id}
    jobs.finish(mine.id, "cancelled", "", 3.0)
    jobs.finish(other.id, "done", "", 3.0)
    assert jobs.cancel() == []


def test_a_projects_jobs_newest_first(jobs: Jobs) -> None:
    ids = []
    for now in range(5):
        job, _ = jobs.request(UID, "why", float(now))
        jobs.finish(job.id, "done", "", now + 0.5)
        ids.append(job.id)
    assert [job.id for job in jobs.of_project(UID)] == ids[::-1]
    assert [job.id for job in jobs.of_project(UID, limit=2)] == ids[:2:-1]
    assert jobs.of_project(OTHER) == []


def test_how_trainings_ended_is_counted_and_the_last_one_known(jobs: Jobs) -> None:
    assert (jobs.ended(), jobs.last_ended()) == ({}, [])
    for number, status in enumerate(("done", "failed", "done", "cancelled")):
        job, _ = jobs.request(UID, "why", number)
        jobs.finish(job.id, status, "", 10.0 + number)
    first, _ = jobs.request(OTHER, "why", 1.0)
    jobs.finish(first.id, "done", "", 5.0)
    jobs.request(UID, "unfinished", 20.0)
    assert jobs.ended() == {(UID, "done"): 2, (UID, "failed"): 1, (UID, "cancelled"): 1, (OTHER, "done"): 1}
    assert sorted((job.uid, job.status) for job in jobs.last_ended()) == [(UID, "cancelled"), (OTHER, "done")]
