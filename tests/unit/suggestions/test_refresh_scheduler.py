from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backend.processes import child
from backend.settings import Settings
from backend.store.database import Store
from backend.store.ledger import Ledger
from backend.store.refreshes import Refreshes
from backend.suggestions.refresh_due import key_of
from backend.suggestions.refresh_scheduler import FIRST_RETRY, Keeper

UID = "1.100"


class Started:
    """Stands for the refresh's own process: `program` is what it does instead."""

    def __init__(self) -> None:
        self.program = "import time; time.sleep(60)"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.projects: list[str] = []

    def __call__(self, module: str, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        self.projects.append(arguments[0])
        self.processes.append(subprocess.Popen([sys.executable, "-c", self.program], process_group=0))
        return self.processes[-1]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    made = Started()
    monkeypatch.setattr(child, "start", made)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


class Answering(dict[str, int]):
    """What the registry says: project → number of the version in service."""

    away = False

    def numbers(self) -> dict[str, int] | None:
        return None if self.away else self


@pytest.fixture
def services(tmp_path: Path) -> Any:
    settings = Settings(home=tmp_path / "home")
    store = Store(f"sqlite:///{settings.root / 'yoloop.db'}")
    store.save_project(UID, label_config="<View/>")
    return SimpleNamespace(settings=settings, store=store, ledger=Ledger(store), champions=Answering())


def finish(services: Any, champion: int) -> None:
    project = services.store.project(UID)
    key = key_of(project, champion, services.settings)
    Refreshes(services.store).save(UID, key, version=f"v{champion}", finished_at=1000.0)


def test_nothing_is_done_before_the_first_version(services: Any, started: Started) -> None:
    Keeper(services).tick(1000.0)
    assert started.projects == []


def test_a_promotion_starts_one_refresh(services: Any, started: Started) -> None:
    keeper = Keeper(services)
    services.champions[UID] = 1
    for now in (1000.0, 1001.5, 1003.0):
        keeper.tick(now)
    assert started.projects == [UID]
    keeper.stop()
    assert started.processes[0].poll() is not None


def test_another_promotion_ends_it_and_starts_the_next(services: Any, started: Started) -> None:
    keeper = Keeper(services)
    services.champions[UID] = 1
    keeper.tick(1000.0)
    services.champions[UID] = 2
    keeper.tick(1002.0)
    assert started.processes[0].poll() is not None
    keeper.tick(1004.0)
    assert started.projects == [UID, UID]


def test_it_goes_on_although_the_clock_was_set_back(services: Any, started: Started) -> None:
    keeper = Keeper(services)
    started.program = "raise SystemExit(1)"
    services.champions[UID] = 1
    keeper.tick(90_000.0)
    started.processes[0].wait()
    keeper.tick(90_002.0)
    keeper.tick(90_004.0)
    assert started.projects == [UID], "it waits after a failure"
    keeper.tick(1000.0)
    assert started.projects == [UID, UID]


def test_one_project_after_the_other(services: Any, started: Started) -> None:
    keeper = Keeper(services)
    services.store.save_project("2.100", label_config="<View/>")
    services.champions.update({UID: 1, "2.100": 1})
    keeper.tick(1000.0)
    keeper.tick(1002.0)
    assert started.projects == [UID]


def test_what_is_finished_is_left_alone(services: Any, started: Started) -> None:
    services.champions[UID] = 1
    finish(services, 1)
    Keeper(services).tick(1001.0)
    assert started.projects == []


def test_a_failure_waits_before_the_next_try(services: Any, started: Started) -> None:
    keeper = Keeper(services)
    services.champions[UID] = 1
    started.program = "raise SystemExit(1)"
    keeper.tick(1000.0)
    started.processes[0].wait()
    keeper.tick(1002.0)
    assert len(started.projects) == 1
    keeper.tick(1002.0 + FIRST_RETRY + 1)
    assert len(started.projects) == 2
    started.processes[1].wait()
    keeper.tick(2000.0)
    keeper.tick(2000.0 + FIRST_RETRY + 1)
    assert len(started.projects) == 2, "each failure in a row waits longer"


def test_nothing_begins_and_nothing_ends_while_the_registry_does_not_answer(services: Any, started: Started) -> None:
    keeper = Keeper(services)
    services.champions[UID] = 1
    services.champions.away = True
    keeper.tick(1000.0)
    assert started.projects == []
    services.champions.away = False
    keeper.tick(1002.0)
    services.champions.away = True
    keeper.tick(1004.0)
    assert started.projects == [UID]
    assert started.processes[0].poll() is None
    services.store.disconnect(UID, 1005.0)
    keeper.tick(1006.0)
    assert started.processes[0].poll() is not None
