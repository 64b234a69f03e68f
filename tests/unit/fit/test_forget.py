"""Forgetting on real files, a real database and a real MLflow."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from filelock import FileLock

from backend.errors import Busy
from backend.fit.forget import forget
from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.processes.liveness import training
from backend.services import Services
from backend.settings import Settings
from backend.store.tables import metadata

UID, OTHER = "7.1795453273", "8.1795453299"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def services(tmp_path: Path, empty_registry: Path) -> Iterator[Services]:
    shutil.copyfile(empty_registry, tmp_path / "mlflow.db")
    made = Services(Settings(home=tmp_path))
    for uid in (UID, OTHER):
        fill(made, uid)
    yield made
    made.close()


def fill(services: Services, uid: str) -> None:
    """A row of the project in every table that has projects, a version, and files."""
    store, home = services.store, services.settings.root
    store.save_project(uid, title="Discs", url=f"http://studio-{uid}", api_key=f"key of {uid}")
    annotation = AnnotationRecord(11, [], False, False, NOW, NOW, 1, 2.0, None)
    services.ledger.update(uid, [TaskRecord(1, NOW, NOW, {"image": "a.jpg"}, (annotation,))], 1.0)
    job, _ = services.jobs.request(uid, "by hand", 1.0)
    services.jobs.finish(job.id, "done", "", 2.0)
    with store.write() as db:
        for table in metadata.tables.values():
            if "uid" in table.c and not db.execute(table.select().where(table.c.uid == uid)).first():
                db.execute(
                    table.insert().values({**{c.name: example(c) for c in table.c if not c.nullable}, "uid": uid})
                )
    for folder in (home / "datasets" / uid, home / "jobs" / job.id):
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(b"an image")
    weights = home / f"best-{uid}.pt"
    weights.write_bytes(b"weights")
    tags = {"parent": "v0"}
    made = services.registry.register(uid, "one", {"weights.pt": weights}, metrics={}, params={}, tags=tags)
    services.registry.fetch(made)
    weights.unlink()


def example(column: Any) -> Any:
    if isinstance(column.type, sa.JSON):
        return {}
    kind = column.type.python_type
    return b"x" if kind is bytes else {} if kind is dict else kind(1)


def mentions(home: Path, word: str) -> list[str]:
    """Files whose path, or tables of which a row, names the project."""
    found = [str(path.relative_to(home)) for path in home.rglob("*") if word in path.name]
    with sqlite3.connect(home / "yoloop.db") as db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if any(word in str(row) for row in db.execute(f'SELECT * FROM "{name}"')):  # noqa: S608 - a test
                found.append(name)
    return found


def test_all_of_one_project_goes_and_all_of_another_stays(services: Services) -> None:
    home = services.settings.root
    before, kept = mentions(home, UID), mentions(home, OTHER)
    assert {"ledger", "outcomes", "thumbnails", "embeddings", "label_studios", f"datasets/{UID}"} <= set(before)
    (job,) = services.jobs.of_project(UID)

    told = list(forget(services, UID, 5.0))

    assert told[0] == "Versions, with their weights and metrics: 1."
    assert mentions(home, UID) == []
    assert not (home / "jobs" / job.id).exists()
    assert mentions(home, OTHER) == kept
    assert [each.name for each in services.registry.versions(OTHER)] == ["v1"]
    assert "Versions, with their weights and metrics: 0." in list(forget(services, UID, 6.0))  # safe to repeat


def test_a_training_that_waits_goes_with_it(services: Services) -> None:
    services.jobs.request(UID, "by hand", 3.0)
    list(forget(services, UID, 5.0))
    assert services.jobs.unfinished() == []


def test_a_training_that_does_not_end_keeps_all(services: Services) -> None:
    job, _ = services.jobs.request(UID, "by hand", 3.0)
    services.jobs.update(job.id, status="running")
    # A worker that does not come round.
    with FileLock(services.settings.root / "worker.lock"), training(services.settings.root, job.id):
        with pytest.raises(Busy, match="does not end"):
            list(forget(services, UID, 5.0, patience=0.5))
        assert services.jobs.cancelled(job.id)
    assert "ledger" in mentions(services.settings.root, UID)
    list(forget(services, UID, 6.0))  # without a worker nothing runs
    assert mentions(services.settings.root, UID) == []


@pytest.mark.parametrize("what", ["refresh", "accept"])
def test_suggestions_that_are_being_stored_keep_all(services: Services, what: str) -> None:
    with FileLock(services.settings.root / f"{what}-{UID}.lock"), pytest.raises(Busy, match="being stored"):
        list(forget(services, UID, 5.0, patience=0.1))
    assert f"datasets/{UID}" in mentions(services.settings.root, UID)
