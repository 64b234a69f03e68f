"""Whatever Label Studio does between two requests, and whoever else reads it, the ledger holds what it exports."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.label_studio_tasks import INFO, TaskClient, TaskServer

from backend.errors import Busy, LabelStudioError
from backend.fit import sync as module
from backend.fit.sync import EVERY, Synced, sync
from backend.services import Services
from backend.settings import Settings
from backend.store.tables import embeddings, leases, ledger, outcomes, shown

UID = INFO.uid
NOW = 1e9


class Killed(Exception):
    """The process is no more."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    made = Services(Settings(home=tmp_path_factory.mktemp("home")))
    made.store.engine.dispose()
    # Nothing here asks what a power cut leaves.
    sa.event.listen(made.store.engine, "connect", lambda db, _: db.execute("PRAGMA synchronous=OFF"))
    yield made
    made.close()


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(Settings(home=tmp_path))
    made.store.save_project(UID)
    yield made
    made.close()


def reading(services: Services, server: TaskServer, **options: Any) -> TaskClient:
    client = TaskClient(server, **options)
    services.client = lambda project: client  # type: ignore[method-assign]
    return client


def to_the_end(services: Services, now: float, **how: Any) -> None:
    while not sync(services, UID, now, **how).complete:
        how.pop("compare", None)


def kept(services: Services) -> dict[int, Any]:
    with services.store.engine.connect() as db:
        rows = db.execute(ledger.select().where(ledger.c.uid == UID)).all()
    return {row.task_id: (row.data, row.annotation_id, row.result) for row in rows}


def exported(server: TaskServer) -> dict[int, Any]:
    found = {}
    for task, row in server.rows.items():
        last = max(row["annotations"], key=lambda each: (each["updated_at"], each["id"]), default=None)
        found[task] = (row["data"], last and last["id"], last and last["result"])
    return found


def lease_of(services: Services, **columns: Any) -> None:
    """Make the lease one of somebody else."""
    with services.store.write() as db:
        db.execute(leases.update().where(leases.c.name == f"sync {UID}").values(**columns))



ACTS = st.sampled_from(
    ["import", "annotated", "annotate", "change", "clear", "delete", "slow annotate", "slow import", "commit"]
    + ["seconds", "minutes", "ahead", "behind", "right"]
)
Steps = list[tuple[str, int]]
STEPS = st.lists(st.tuples(ACTS, st.integers(0, 9)), max_size=4)
MEANWHILE = st.dictionaries(st.integers(0, 8), st.tuples(STEPS, st.sampled_from(["", "", "other", "die", "fail"])))


def act(server: TaskServer, name: str, which: int) -> None:
    tasks = sorted(server.rows)
    task = tasks[which % len(tasks)] if tasks else None
    on_one: dict[str, Callable[[int], None]] = {
        "annotate": server.annotate,
        "change": server.change,
        "clear": server.clear,
        "delete": server.delete,
    }
    match name:
        case "import" | "annotated":
            server.import_tasks(1 + which // 2, annotated=name == "annotated")
        case "slow import":
            server.slowly(lambda: server.import_tasks(1 + which, annotated=True) and None)
        case "slow annotate" if task is not None:
            server.slowly(lambda: server.annotate(task))
        case "commit":
            server.commit()
        case "seconds":
            server.now += timedelta(seconds=which)
        case "minutes":
            server.now += timedelta(minutes=which)
        case "ahead" | "behind" | "right":
            server.ahead = timedelta(days={"ahead": 1, "behind": -1, "right": 0}[name])
        case _ if task is not None and name in on_one:
            on_one[name](task)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    script=st.lists(st.tuples(STEPS, st.booleans(), st.booleans(), MEANWHILE), min_size=1, max_size=6),
    restarted=st.booleans(),
)
def test_the_ledger_equals_the_export(shared: Services, script: list[Any], restarted: bool) -> None:
    services = shared
    with services.store.write() as db:
        for table in (ledger, shown, outcomes, leases):
            db.execute(table.delete())
        db.exec_driver_sql("DELETE FROM listings")
        db.exec_driver_sql("DELETE FROM projects")
    services.store.save_project(UID)
    server = TaskServer()
    hour = itertools.count(int(NOW), 60)
    for steps, whole, deletions, meanwhile in script:
        for name, which in steps:
            act(server, name, which)
        client = reading(services, server)
        numbers = itertools.count()

        def between(what: str, numbers: Any = numbers, meanwhile: Any = meanwhile) -> None:
            steps, event = meanwhile.get(next(numbers), ([], ""))
            for name, which in steps:
                act(server, name, which)
            if event == "fail":
                raise LabelStudioError("It is down.")
            if event == "die":
                raise Killed
            if event == "other":  # it was thought dead, and somebody else reads all that is new meanwhile
                lease_of(services, until=0.0)
                mine, other = services.client, TaskClient(server)
                services.client = lambda project: other  # type: ignore[method-assign]
                sync(services, UID, next(hour), wait=0.0)
                services.client = mine  # type: ignore[method-assign]

        client.before = between
        try:
            sync(services, UID, next(hour), whole=whole, deletions=deletions, wait=0.0)
        except Killed:
            lease_of(services, holder=f"{socket.gethostname()}/{os.getpid()}/earlier", until=2**40)
        except (Busy, LabelStudioError):
            pass
    server.commit()
    client = reading(services, server)
    if restarted:
        to_the_end(services, next(hour), compare=True, wait=0.0)
    else:
        to_the_end(services, next(hour) + EVERY, wait=0.0)
    assert kept(services) == exported(server)
    there = {each["id"] for row in server.rows.values() for each in row["annotations"]}
    with services.store.engine.connect() as db:
        assert {row.annotation_id for row in db.execute(shown.select())} <= there
    # What is in step costs two requests, however it came to be so.
    to_the_end(services, next(hour) + EVERY, wait=0.0)
    client.asked.clear()
    to_the_end(services, next(hour) + EVERY, wait=0.0)
    assert client.asked[0] == "project" and set(client.asked[1:]) == {"tasks"}
