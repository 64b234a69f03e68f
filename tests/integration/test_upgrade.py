"""A home of release 0.7.1 whose worker was killed within a training, and this release on it.

`tests/homes/0.7.1.tar.gz` was left by that release's own code beside a real Label Studio: twenty-two annotations, the
first training killed in its second epoch. Its databases are kept as SQL, `@HOME@` stands for its path; the weights of
the first epochs, the images' cache and the token are left out.
"""

from __future__ import annotations

import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from support.processes import working
from support.waiting import wait_for

from backend.settings import Settings
from backend.store.database import Store
from backend.store.jobs import Jobs
from backend.store.ledger import Ledger
from backend.store.migrations import HEAD, revision_of
from model_registry import Registry

ARCHIVE = Path(__file__).parents[1] / "homes" / "0.7.1.tar.gz"
UID = "1.1795864614"
JOB = "86badaa66a61458fb9a243c2a64f2733"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(home, filter="data")
    for path in home.rglob("*"):
        if path.is_file() and path.suffix not in (".jpg", ".db"):
            path.write_bytes(path.read_bytes().replace(b"@HOME@", str(home).encode()))
    for dump in home.glob("**/*.sql"):
        with closing(sqlite3.connect(dump.with_suffix(".db"))) as database:
            database.executescript(dump.read_text())
        dump.unlink()
    return home


@pytest.mark.training
def test_a_training_in_flight_goes_on_and_nothing_is_lost(home: Path) -> None:
    secret = (home / "webhook-secret").read_bytes()
    with (
        working(home, YOLOOP_IMAGE_SIZE="96", YOLOOP_TRAIN_THREADS="1") as (_, log),
        closing(Store(f"sqlite:///{home / 'yoloop.db'}")) as store,
    ):
        wait_for(lambda: not Jobs(store).unfinished(), 600, "the training's end", pause=1)
        job = Jobs(store).get(JOB)
        assert job is not None
        assert (job.status, job.version) == ("done", "v1"), job.message + log.read_text()
        with store.engine.connect() as db:
            assert revision_of(db) == HEAD
        assert Ledger(store).counts(UID) == (22, 0)
    said = log.read_text()
    assert "Traceback" not in said
    assert "reading Label Studio" not in said, "it went on where it was killed"
    version = Registry(Settings(home=home).tracking_uri, home / "registry").champion(UID)
    assert version is not None and version.name == "v1"
    assert (home / "webhook-secret").read_bytes() == secret
