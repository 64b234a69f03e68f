from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.services import Services
from backend.settings import Settings
from backend.worker import Worker

UID = "1.100"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(Settings(home=tmp_path / "home", sync_interval=60))
    made.store.save_project(UID, url="http://127.0.0.1:9", api_key="t" * 40)
    yield made
    made.close()


def looks(services: Services) -> list[float]:
    """Times at which the worker looked at a Label Studio that cannot be reached."""
    worker, found = Worker(services), []

    def look(uid: str, hint: object, now: float) -> None:
        found.append(now)
        worker._next_sync[uid] = now + 60

    worker._look = look  # type: ignore[method-assign]
    for now in (90_000.0, 90_030.0, 90_061.0, 1000.0, 1001.0, 1061.0):
        worker.tick(now)
    return found


def test_it_looks_again_at_once_when_the_clock_was_set_back(services: Services) -> None:
    assert looks(services) == [90_000.0, 90_061.0, 1000.0, 1061.0]
