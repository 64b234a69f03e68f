"""Accepting and taking back, ended at every possible point and begun again.

Label Studio is played by a few lists, so that it can fail at each of its calls, before or after it has done them.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backend.errors import LabelStudioError, NotFound
from backend.labelstudio.records import AnnotationRecord, OpenTask, PredictionRecord, ProjectInfo, TaskRecord
from backend.services import Services
from backend.settings import Settings
from backend.suggestions.accept import accept, undo

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Car"/></RectangleLabels></View>'
)
INFO = ProjectInfo(1, "t", NOON, CONFIG, "")
TASKS = 3


class Ended(Exception):
    """The process was killed."""


@dataclass
class Studio:
    """Label Studio in memory. `fails_at`: the number of the call that fails; `late`: only after it was done."""

    fails_at: int = -1
    late: bool = False
    error: Exception = field(default_factory=Ended)
    calls: int = 0
    minutes: Iterator[int] = field(default_factory=itertools.count)
    tasks: dict[int, TaskRecord] = field(default_factory=dict)
    clock: datetime | None = None

    def __post_init__(self) -> None:
        for number in range(1, TASKS + 1):
            value = {"x": 1.0, "y": 1.0, "width": 5.0, "height": 5.0, "rectanglelabels": ["Car"]}
            common = {"from_name": "label", "to_name": "image", "type": "rectanglelabels", "score": 0.9}
            seen = PredictionRecord(number, "yoloop-v0", 0.9, [{"id": f"r{number}", **common, "value": value}], NOON)
            self.tasks[number] = TaskRecord(number, NOON, NOON, {"image": f"{number}.jpg"}, (), (seen,))

    def _call(self, do: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.calls == self.fails_at and not self.late:
            raise self.error
        found = do()
        if self.calls == self.fails_at:
            raise self.error
        return found

    def _now(self) -> datetime:
        return NOON + timedelta(minutes=next(self.minutes))

    def project(self, number: int) -> ProjectInfo:
        return self._call(lambda: INFO)

    def count_tasks(self, number: int) -> int:
        return self._call(lambda: TASKS)

    def changed_tasks(self, number: int, since: datetime | None) -> Iterator[list[TaskRecord]]:
        yield self._call(lambda: [each for each in self.tasks.values() if since is None or each.updated_at > since])

    def task_times(self, number: int, after: int) -> tuple[dict[int, datetime], bool]:
        return self._call(lambda: ({each.id: each.updated_at for each in self.tasks.values()}, False))

    def open_tasks(self, number: int, view: int | None = None, page_size: int = 200) -> Iterator[list[OpenTask]]:
        yield self._call(
            lambda: [OpenTask(t.id, t.data, t.predictions, False) for t in self.tasks.values() if not t.annotations]
        )

    def annotation_count(self, number: int, task: int) -> int:
        return self._call(lambda: len(self.tasks[task].annotations))

    def create_annotation(
        self, number: int, task: int, result: Any, *, parent_prediction: int | None = None, last_action: str = ""
    ) -> AnnotationRecord:
        def create() -> AnnotationRecord:
            now = self._now()
            made = AnnotationRecord(100 + task, list(result), False, False, now, now, 1, None, parent_prediction)
            there = self.tasks[task]
            self.tasks[task] = replace(there, annotations=(*there.annotations, made), updated_at=now)
            return made

        return self._call(create)

    def drafts(self, number: int, task: int) -> frozenset[int]:
        return self._call(frozenset)

    def annotation(self, annotation: int) -> AnnotationRecord | None:
        return self._call(
            lambda: next((one for t in self.tasks.values() for one in t.annotations if one.id == annotation), None)
        )

    def delete_annotation(self, annotation: int) -> None:
        def delete() -> None:
            for number, task in self.tasks.items():
                if any(one.id == annotation for one in task.annotations):
                    left = tuple(one for one in task.annotations if one.id != annotation)
                    self.tasks[number] = replace(task, annotations=left, updated_at=self._now())

        self._call(delete)

    @property
    def annotated(self) -> list[int]:
        return [len(task.annotations) for task in self.tasks.values()]


@pytest.fixture
def services(tmp_path: Path, empty_registry: Path) -> Iterator[Services]:
    made = Services(Settings(home=tmp_path / "home"))
    shutil.copyfile(empty_registry, made.settings.root / "mlflow.db")
    made.store.save_project(INFO.uid)
    yield made
    made.close()


def with_studio(services: Services, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Studio:
    monkeypatch.setattr(services, "client", lambda project: studio)
    return studio


CALLS = 7 + 3 * TASKS
"""Calls of an acceptance: the project twice, changes, count, two looks at open tasks, all times,
and three for each task."""


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("fails_at", range(1, CALLS + 1))
def test_an_acceptance_that_ends_anywhere_is_finished_by_the_next(
    services: Services, monkeypatch: pytest.MonkeyPatch, fails_at: int, late: bool
) -> None:
    studio = with_studio(services, Studio(fails_at, late), monkeypatch)
    project = services.store.find(1)
    with pytest.raises(Ended):
        accept(services, project, run="one", now=1.0)
    accept(services, project, run="two", now=2.0)
    assert studio.annotated == [1] * TASKS
    accept(services, project, run="three", now=3.0)
    assert studio.annotated == [1] * TASKS and services.ledger.examples(INFO.uid) == []
    removed = 0
    for run in ("one", "two"):
        try:
            removed += undo(services, project, run).removed
        except NotFound:
            continue
    assert removed == TASKS and studio.annotated == [0] * TASKS


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("after", range(1, 5 + 4 * TASKS))
def test_an_undo_that_ends_anywhere_is_finished_by_the_next(
    services: Services, monkeypatch: pytest.MonkeyPatch, after: int, late: bool
) -> None:
    studio = with_studio(services, Studio(), monkeypatch)
    project = services.store.find(1)
    accept(services, project, run="one", now=1.0)
    assert studio.calls == CALLS
    studio.fails_at, studio.late = studio.calls + after, late
    with pytest.raises(Ended):
        undo(services, project, "one")
    undo(services, project, "one")
    assert studio.annotated == [0] * TASKS
    with pytest.raises(NotFound):
        undo(services, project, "one")


def test_an_error_names_the_run(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = Studio(CALLS - 1, error=LabelStudioError("It is down.", "Wait.", reason="why", code=502))
    with_studio(services, studio, monkeypatch)
    with pytest.raises(LabelStudioError, match="Run one ended early") as raised:
        accept(services, services.store.find(1), run="one", now=1.0)
    assert (raised.value.reason, raised.value.code) == ("why", 502) and sum(studio.annotated) == TASKS - 1
    assert undo(services, services.store.find(1), "one").removed == TASKS - 1
