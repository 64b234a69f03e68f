"""Whatever Label Studio does between two requests, and whoever else reads it, the ledger holds what it exports."""

from __future__ import annotations

import base64
import itertools
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.label_studio_tasks import INFO, TaskClient, TaskServer, box
from support.web import encoded

from backend.errors import Busy, ImageUnavailable, LabelStudioError
from backend.fit import sync as module
from backend.fit.sync import EVERY, Synced, sync
from backend.images.addresses import embedded
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


def test_annotations_are_read_again_with_another_config(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    server = TaskServer()
    server.import_tasks(3, annotated=True)
    client = reading(services, server)
    sync(services, UID, NOW)
    progress = services.ledger.progress(UID)
    assert (progress.labelled, progress.new, progress.left_out) == (3, 3, 0)
    other = replace(INFO, label_config=INFO.label_config.replace("Car", "Bus"))
    monkeypatch.setattr(client, "project", lambda _: replace(other, tasks=3))
    sync(services, UID, NOW + 60)
    progress = services.ledger.progress(UID)
    assert (progress.labelled, progress.new, progress.left_out) == (0, 0, 3)
    monkeypatch.setattr(client, "project", lambda _: replace(INFO, tasks=3))
    sync(services, UID, NOW + 120)
    assert services.ledger.progress(UID).new == 3


def test_another_setting_takes_effect_at_the_next_sync(tmp_path: Path) -> None:
    server = TaskServer()
    (task,) = server.import_tasks(1, annotated=True)
    server.rows[task]["annotations"].append(server.annotation(server.time(), box("other", x=60.0)))
    found = []
    for setting in ("newest", "union", "newest"):
        with closing(Services(Settings(home=tmp_path, annotations=setting))) as services:
            services.store.save_project(UID)
            reading(services, server)
            sync(services, UID, NOW)
            (example,) = services.ledger.examples(UID)
            found.append((len(example.result), services.ledger.counts(UID), services.readings.objects(UID)))
            services.ledger.mark_seen(UID, {task: example.content})
    assert found == [(1, (1, 1), {"Car": 1}), (2, (1, 1), {"Car": 2}), (1, (1, 1), {"Car": 1})]


def test_an_embedded_image_is_found_again(tmp_path: Path) -> None:
    """In the cache, else in Label Studio; also by another process, and when the cache was emptied."""
    server = TaskServer()
    pages = [encoded(Image.new("RGB", (8, 6), colour)) for colour in ((255, 0, 0), (0, 255, 0))]
    images = [f"data:image/png;base64,{base64.b64encode(page).decode()}" for page in pages]
    (task,) = server.import_tasks(1, annotated=True)
    server.rows[task]["data"] = {"image": images[0], "more": {"pages": images}}

    def look(services: Services) -> tuple[list[int], list[str]]:
        client = reading(services, server)
        (example,) = services.ledger.examples(UID)
        source = services.source_of(services.store.project(UID))
        references = [example.data["image"], *example.data["more"]["pages"]]
        loaded = [services.images.load(source(each, task)) for each in references]
        return [int(each.pixels[0, 0, 1]) for each in loaded], client.asked

    with closing(Services(Settings(home=tmp_path))) as services:
        services.store.save_project(UID)
        reading(services, server)
        sync(services, UID, NOW)
        assert look(services) == ([0, 0, 255], [])
    with closing(Services(Settings(home=tmp_path))) as services:
        assert look(services) == ([0, 0, 255], [])
        shutil.rmtree(tmp_path / "cache")
        assert look(services) == ([0, 0, 255], ["named", "named"])
        assert look(services) == ([0, 0, 255], [])
        shutil.rmtree(tmp_path / "cache")
        server.rows[task]["data"] = {"image": "/data/other.png"}
        with pytest.raises(ImageUnavailable, match="no longer in its task"):
            look(services)
        server.delete(task)
        with pytest.raises(ImageUnavailable, match="no longer in its task"):
            look(services)
    with closing(Services(Settings(home=tmp_path))) as services:
        source = services.source_of(services.store.project(UID))
        with pytest.raises(ImageUnavailable, match="No address and token"):
            services.images.load(source(embedded(images[0]), task))


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
)
CLOCK = st.sampled_from(["seconds", "minutes", "ahead", "behind", "right"])
Steps = list[tuple[str, int]]
STEPS = st.lists(st.tuples(ACTS | CLOCK, st.integers(0, 9)), max_size=4)
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


def in_step(services: Services, server: TaskServer, **options: Any) -> TaskClient:
    """A client that has read all, and what it was asked for forgotten."""
    client = reading(services, server, **options)
    to_the_end(services, NOW)
    client.asked.clear()
    return client


def test_what_is_committed_late_is_read_within_the_hour(services: Services) -> None:
    server = TaskServer()
    client = in_step(services, server)
    server.slowly(lambda: server.import_tasks(2, annotated=True) and None)
    server.now += timedelta(minutes=1)
    server.import_tasks(1, annotated=True)
    sync(services, UID, NOW + 60)
    server.commit()
    client.before = lambda what: None
    sync(services, UID, NOW + 120, whole=False)
    assert len(kept(services)) == 1
    sync(services, UID, NOW + EVERY)
    assert kept(services) == exported(server)


def test_times_are_compared_every_hour_and_not_every_minute(services: Services) -> None:
    server = TaskServer()
    server.import_tasks(2)
    client = in_step(services, server)
    for minute in range(1, 62):
        sync(services, UID, NOW + 60 * minute)
    assert client.asked.count("times") == 1 and "named" not in client.asked


def test_a_number_of_tasks_that_never_fits_is_looked_into_once(services: Services) -> None:
    server = TaskServer()
    server.import_tasks(2)
    client = in_step(services, server)
    true = client.project
    client.project = lambda number: replace(true(number), tasks=7)  # type: ignore[method-assign]
    for minute in range(1, 20):
        sync(services, UID, NOW + 60 * minute)
    assert client.asked.count("times") == 1


def test_a_long_comparison_goes_on_at_the_next_look(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    server = TaskServer()
    client = in_step(services, server, page=2)
    with monkeypatch.context() as patched:
        patched.setattr(module, "LISTING", -1.0)
        server.slowly(lambda: server.import_tasks(7, annotated=True) and None)
        server.now += timedelta(minutes=1)
        server.import_tasks(1, annotated=True)
        sync(services, UID, NOW + 1)
        server.commit()
        looks = [sync(services, UID, NOW + EVERY, wait=0.0) for _ in range(8)]
    assert [each.complete for each in looks].count(False) >= 3 and looks[-1].complete
    assert kept(services) == exported(server)
    assert client.asked.count("named") == 4, "two at a time, and none twice"


def test_the_clock_of_label_studio_may_be_set_back(services: Services) -> None:
    server = TaskServer()
    (task,) = server.import_tasks(1)
    server.ahead = timedelta(days=1)
    server.annotate(task)
    in_step(services, server)
    server.ahead = timedelta()
    server.import_tasks(3, annotated=True)
    server.change(task)
    server.now += timedelta(minutes=5)
    sync(services, UID, NOW + 60)
    assert kept(services) == exported(server)
    server.now += timedelta(minutes=1)
    server.change(task)
    sync(services, UID, NOW + 61, whole=False)
    assert kept(services) == exported(server)


def test_a_task_from_a_day_ahead_hides_none_that_come_after(services: Services) -> None:
    server = TaskServer()
    server.ahead = timedelta(days=1)
    server.import_tasks(1, annotated=True)
    server.ahead = timedelta()
    in_step(services, server)
    for _ in range(5):
        server.now += timedelta(minutes=1)
        server.import_tasks(1, annotated=True)
        sync(services, UID, NOW + 1, whole=False)
    assert kept(services) == exported(server)


def test_after_an_error_all_times_are_compared(services: Services) -> None:
    server = TaskServer()
    server.import_tasks(2)
    client = in_step(services, server)

    def down(what: str) -> None:
        raise LabelStudioError("It is down.")

    client.before = down
    with pytest.raises(LabelStudioError):
        sync(services, UID, NOW + 60)
    client.before = lambda what: None
    sync(services, UID, NOW + 120)
    assert "times" in client.asked


def test_what_0_7_read_is_read_again(services: Services) -> None:
    server = TaskServer()
    server.import_tasks(5, annotated=True)
    server.now += timedelta(minutes=1)
    server.import_tasks(1)
    client = in_step(services, server)
    with services.store.write() as db:
        db.execute(ledger.update().values(updated_at=None, annotation_id=0))
    sync(services, UID, NOW + 60, compare=True)
    assert kept(services) == exported(server)
    assert client.asked.count("named") == 2


def test_who_was_thought_dead_writes_nothing_over_what_came_after(services: Services) -> None:
    server = TaskServer()
    (task,) = server.import_tasks(1, annotated=True)
    first = in_step(services, server)
    server.now += timedelta(minutes=1)
    server.change(task)
    real = first.changed_tasks

    def paused(*given: Any, **named: Any) -> Iterator[Any]:
        for page in list(real(*given, **named)):
            lease_of(services, until=0.0)
            server.now += timedelta(minutes=1)
            server.change(task)
            second = reading(services, server)
            sync(services, UID, NOW + 61, wait=0.0)
            assert second.asked
            yield page

    first.changed_tasks = paused  # type: ignore[method-assign]
    with pytest.raises(Busy):
        sync(services, UID, NOW + 60)
    assert kept(services) == exported(server)


def test_one_reads_while_the_other_waits(services: Services) -> None:
    server = TaskServer()
    server.import_tasks(3, annotated=True)
    client = reading(services, server)
    reads, goes_on = threading.Event(), threading.Event()

    def stop_once(what: str) -> None:
        client.before = lambda what: None
        reads.set()
        goes_on.wait(10)

    client.before = stop_once
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(sync, services, UID, NOW)
        assert reads.wait(10)
        with pytest.raises(Busy, match="is being read"):
            sync(services, UID, NOW, wait=0.0)
        asked = list(client.asked)
        second = threads.submit(sync, services, UID, NOW, whole=False)
        goes_on.set()
        assert first.result(10).changed == 3 and second.result(10).complete
    assert asked == ["project"] and kept(services) == exported(server)


@pytest.mark.parametrize(
    ("holder", "until", "free"),
    [
        (f"{socket.gethostname()}/{os.getpid()}/earlier", 100.0, True),  # had our number, as in a container
        (f"{socket.gethostname()}/{2**22 + 1}/any", 100.0, True),  # no process has that number
        (f"{socket.gethostname()}/{os.getppid()}/any", 100.0, False),
        ("elsewhere/1/any", 100.0, False),
        ("elsewhere/1/any", -1.0, True),
        ("elsewhere/1/any", 1e6, True),  # from before the clock was set back
    ],
    ids=["our number again", "no such process", "lives", "another machine", "run out", "the clock was set back"],
)
def test_whose_lease_is_taken_over(services: Services, holder: str, until: float, free: bool) -> None:
    server = TaskServer()
    in_step(services, server)
    lease_of(services, holder=holder, until=time.time() + until)
    if free:
        assert isinstance(sync(services, UID, NOW, wait=0.0), Synced)
    else:
        with pytest.raises(Busy):
            sync(services, UID, NOW, wait=0.0)


def test_what_became_of_suggestions_goes_with_annotations_and_tasks(services: Services) -> None:
    server = TaskServer()
    one, two, three = server.import_tasks(3)
    for task in (one, two, three):
        server.rows[task]["predictions"] = [
            {
                "id": task, "model_version": "yoloop-v1", "score": 0.5, "created_at": server.time(),
                "result": [box("0123456789", score=0.9)],
            }
        ]  # fmt: skip
        server.annotate(task)
        server.rows[task]["annotations"][0]["parent_prediction"] = task
    in_step(services, server)

    def tasks_of(table: Any) -> set[int]:
        with services.store.engine.connect() as db:
            return {row.task_id for row in db.execute(table.select())}

    services.embeddings.save(UID, "v1", {task: np.ones(4, np.float32) for task in (one, two, three)})
    assert tasks_of(shown) == {one, two, three}
    server.now += timedelta(minutes=1)
    server.clear(one)
    server.delete(two)
    sync(services, UID, NOW + 60)
    assert tasks_of(shown) == {three} and tasks_of(embeddings) == {one, three}
    with services.store.engine.connect() as db:
        there = {each["id"] for each in server.rows[three]["annotations"]}
        assert {row.annotation_id for row in db.execute(outcomes.select())} == there
