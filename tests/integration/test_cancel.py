"""`yoloop train` and `yoloop cancel` where no worker runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backend.cli.main import app
from backend.services import Services
from backend.settings import Settings

UID = "1.100"


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    monkeypatch.setenv("YOLOOP_HOME", str(tmp_path))
    monkeypatch.setenv("YOLOOP_MIN_FREE_GB", "0")
    made = Services(Settings())
    made.store.save_project(UID, title="a")
    yield made
    made.close()


def run(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    return str(done.stdout)


def test_a_training_whose_worker_was_killed_is_cancelled_at_once(services: Services) -> None:
    job, _ = services.jobs.request(UID, "asked for", 1.0)
    services.jobs.update(job.id, status="running", started_at=2.0, message="training")
    assert "Joined" in (said := run("train")) and "none runs" in said
    assert run("cancel").strip() == f"Job {job.id} is cancelled."
    found = services.jobs.get(job.id)
    assert found is not None and (found.status, found.message) == ("cancelled", "Cancelled.")
    assert "Asked for" in run("train")


def test_people_are_told_of_the_room_it_waits_for(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOOP_MIN_FREE_GB", "1e9")
    assert "It waits for room, as only " in run("train")
