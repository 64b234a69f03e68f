"""Suggestions are counted, advised on, accepted in bulk and taken back, on a real Label Studio.

The suggestions are made up, so that it is known which are right: nearly all with a score of 0.8 or more, half below.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.labelstudio import LabelStudioServer
from typer.testing import CliRunner

from backend.cli.main import app
from backend.errors import BadRequest, Busy, NotFound
from backend.feedback.advice import advice
from backend.feedback.report import report
from backend.feedback.statistics import suggestion_statistics
from backend.fit.sync import sync
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.services import Services
from backend.settings import Settings
from backend.store.database import Project
from backend.store.tables import acceptances
from backend.suggestions.accept import accept, undo

pytestmark = pytest.mark.group("label-studio", minutes=5)

VERSION = "yoloop-v0"
NOW = 1e9
Region = dict[str, Any]


@dataclass
class Labelled:
    """A project, and which of its suggested regions are right."""

    server: LabelStudioServer
    services: Services
    client: LabelStudioClient
    number: int
    uid: str
    random: random.Random = field(default_factory=lambda: random.Random(1))
    right: dict[str, bool] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    made: int = 0

    @property
    def project(self) -> Project:
        return self.services.store.find(self.number)

    def region(self, score: float, right: bool) -> Region:
        """A suggested box in a place of its own."""
        self.made += 1
        region_id = f"r{self.made}"
        self.right[region_id], self.scores[region_id] = right, score
        place = {"x": self.made % 6 * 15.0, "y": 20.0, "width": 12.0, "height": 30.0, "rotation": 0}
        return {
            "id": region_id,
            "from_name": "label",
            "to_name": "image",
            "type": "rectanglelabels",
            "original_width": 640,
            "original_height": 480,
            "image_rotation": 0,
            "score": score,
            "value": {**place, "rectanglelabels": ["Car"]},
        }

    def regions(self, number: int) -> list[Region]:
        scores = [round(self.random.uniform(0.3, 1.0), 3) for _ in range(number)]
        chances = [0.995 if score >= 0.9 else 0.95 if score >= 0.8 else 0.5 for score in scores]
        return [self.region(score, self.random.random() < each) for score, each in zip(scores, chances, strict=True)]

    def suggest(self, suggestions: list[list[Region]], version: str = VERSION) -> list[int]:
        """New tasks that carry these suggestions."""
        before = set(self.client.task_ids(self.number))
        tasks = [{"data": {"image": f"http://images/{len(before) + index}.jpg"}} for index in range(len(suggestions))]
        self.server.api("POST", f"/api/projects/{self.number}/import", json=tasks)
        new = sorted(set(self.client.task_ids(self.number)) - before)
        rows = [
            {"task": task, "result": result, "score": 0.5, "model_version": version}
            for task, result in zip(new, suggestions, strict=True)
        ]
        assert self.client.import_predictions(self.number, rows) == len(new)
        return new

    def read(self) -> dict[int, TaskRecord]:
        return {task.id: task for page in self.client.changed_tasks(self.number, None) for task in page}

    def annotations(self) -> dict[int, list[AnnotationRecord]]:
        return {task.id: list(task.annotations) for task in self.read().values() if task.annotations}

    def submit(self, task: TaskRecord, **fields: Any) -> None:
        """What a careful person makes of the suggestions: right ones stay, wrong ones are mended or go."""
        (prediction,) = task.predictions
        result = []
        for number, region in enumerate(prediction.result):
            value = region["value"]
            if self.right[region["id"]]:
                result.append(region | {"origin": "prediction"})
            elif number % 3 == 0:
                result.append(region | {"origin": "prediction-changed", "value": value | {"x": value["x"] + 8}})
            elif number % 3 == 1:
                plane = {"rectanglelabels": ["Plane"]}
                result.append(region | {"origin": "prediction-changed", "value": value | plane})
        body = {"result": result, "lead_time": 4.0, "parent_prediction": prediction.id} | fields
        self.server.api("POST", f"/api/tasks/{task.id}/annotations/?project={self.number}", json=body)


@pytest.fixture
def labelled(label_studio: LabelStudioServer, new_project: Callable[..., int], tmp_path: Path) -> Iterator[Labelled]:
    number = new_project()
    settings = Settings(
        home=tmp_path / "home", label_studio_url=label_studio.url, label_studio_api_key=label_studio.token
    )
    with closing(Services(settings)) as services, closing(LabelStudioClient(label_studio.url, label_studio.token)) as c:
        uid = c.project(number).uid
        services.store.save_project(uid)
        yield Labelled(label_studio, services, c, number, uid)


def test_what_was_announced_holds(labelled: Labelled) -> None:
    labelled.suggest([labelled.regions(6) for _ in range(120)])
    for task in labelled.read().values():
        labelled.submit(task)
    sync(labelled.services, labelled.uid, NOW)

    known = suggestion_statistics(labelled.services.store, labelled.uid)
    fates = {fate: sum(getattr(each, fate) for each in known.bins) for fate in ("accepted", "moved", "missed")}
    assert fates["accepted"] == sum(labelled.right.values()) and fates["moved"] > 10 and fates["missed"] == 0
    assert [each.annotations for each in known.curve] == [20] * 6
    assert (known.lead_time.with_suggestions, known.lead_time.annotations_with) == (4.0, 120)

    (said,) = advice(labelled.services.store, labelled.uid)
    assert (said.label, said.version) == ("Car", VERSION) and said.threshold is not None
    trusted = [labelled.right[each] for each, score in labelled.scores.items() if score >= said.threshold]
    assert 0.8 <= said.threshold < 0.95 and (said.precision.right, said.precision.shown) == (sum(trusted), len(trusted))
    assert f"trust scores from {said.threshold:.2f} on" in str(report(labelled.services, labelled.project))

    seen = set(labelled.right)
    labelled.suggest([labelled.regions(6) for _ in range(40)])
    planned = accept(labelled.services, labelled.project, run="look", now=NOW, dry_run=True)
    assert len(labelled.annotations()) == 120
    done = accept(labelled.services, labelled.project, run="first", now=NOW, version=VERSION)
    assert (planned.tasks, planned.regions, planned.expected) == (done.tasks, done.regions, done.expected)

    sure = [each for each, score in labelled.scores.items() if each not in seen and score >= 0.8]
    assert done.regions == len(sure) > 40 and done.version == done.expected_of == VERSION
    truth = sum(labelled.right[each] for each in sure) / len(sure)
    assert done.expected.low <= truth <= done.expected.high
    assert done.expected.shown == sum(labelled.scores[each] >= 0.8 for each in seen)
    made = [one for annotations in labelled.annotations().values() for one in annotations if one.lead_time is None]
    assert len(made) == done.tasks and {each["id"] for one in made for each in one.result} == set(sure)
    for one in made:
        assert one.parent_prediction is not None
        for each in one.result:
            assert each["origin"] == "prediction" and each["score"] == labelled.scores[each["id"]]
            assert each["meta"] == {"text": ["Accepted by yoloop at 0.8 or above, run first"]}

    sync(labelled.services, labelled.uid, NOW)
    assert len(labelled.services.ledger.examples(labelled.uid)) == 120  # it does not learn from itself
    assert suggestion_statistics(labelled.services.store, labelled.uid) == known  # nor judge itself by it


def test_never_over_a_persons_work_and_never_twice(labelled: Labelled) -> None:
    sure = [[labelled.region(0.9, True)] for _ in range(8)]
    tasks = labelled.suggest([*sure, [labelled.region(0.5, True)], []])
    annotated, skipped, begun, *free = tasks
    read = labelled.read()
    labelled.submit(read[annotated])
    labelled.submit(read[skipped], was_cancelled=True)
    labelled.server.api("POST", f"/api/tasks/{begun}/drafts", json={"result": [], "lead_time": 1.0})

    done = accept(labelled.services, labelled.project, run="one", now=NOW)
    assert (done.tasks, done.regions, done.labels) == (5, 5, {"Car": 5})
    assert sorted(done.skipped.values()) == [2, 2]  # touched ones; and those with nothing sure enough
    assert {task: len(there) for task, there in labelled.annotations().items()} == dict.fromkeys(
        [annotated, skipped, *free[:5]], 1
    )
    again = accept(labelled.services, labelled.project, run="two", now=NOW)
    assert (again.tasks, again.regions) == (0, 0)
    assert all(len(there) == 1 for there in labelled.annotations().values())
    with pytest.raises(NotFound, match="two"):
        undo(labelled.services, labelled.project, "two")


def test_somebody_annotates_while_it_runs(labelled: Labelled) -> None:
    tasks = labelled.suggest([[labelled.region(0.9, True)] for _ in range(3)])
    read = labelled.read()

    def told(done: int, total: int) -> None:
        assert total == 3
        if done == 1:
            labelled.submit(read[tasks[1]])
            labelled.client.delete_prediction(read[tasks[2]].predictions[0].id)
            with pytest.raises(Busy):
                undo(labelled.services, labelled.project, "one")

    done = accept(labelled.services, labelled.project, run="one", now=NOW, told=told)
    assert done.tasks == 1 and len(done.skipped) == 2
    there = labelled.annotations()
    assert len(there[tasks[1]]) == 1 and there[tasks[1]][0].lead_time == 4.0 and tasks[2] not in there


def test_undo_keeps_what_a_person_changed(labelled: Labelled) -> None:
    labelled.suggest([[labelled.region(0.9, True), labelled.region(0.85, True)] for _ in range(5)])
    accept(labelled.services, labelled.project, run="one", now=NOW)
    (changed,), (same,), *_ = labelled.annotations().values()
    moved = [changed.result[0] | {"value": changed.result[0]["value"] | {"x": 50.0}}, changed.result[1]]
    body = {"result": moved, "lead_time": 5.0}
    labelled.server.api("PATCH", f"/api/annotations/{changed.id}/", json=body)
    # Pressing Update without a change is no change.
    labelled.server.api("PATCH", f"/api/annotations/{same.id}/", json={"result": same.result})
    sync(labelled.services, labelled.uid, NOW)
    assert [each.annotation_id for each in labelled.services.ledger.examples(labelled.uid)] == [changed.id]
    assert sum(each.moved for each in suggestion_statistics(labelled.services.store, labelled.uid).bins) == 1

    undone = undo(labelled.services, labelled.project, "one")
    assert (undone.removed, undone.kept) == (4, 1)
    assert [each.id for there in labelled.annotations().values() for each in there] == [changed.id]
    undone = undo(labelled.services, labelled.project, "one")
    assert (undone.removed, undone.kept) == (0, 1)
    assert accept(labelled.services, labelled.project, run="two", now=NOW).tasks == 4


def test_a_crash_before_the_row_is_made_good(labelled: Labelled) -> None:
    labelled.suggest([[labelled.region(0.9, True)] for _ in range(3)])
    accept(labelled.services, labelled.project, run="one", now=NOW)
    with labelled.services.store.write() as db:
        lost = db.execute(acceptances.delete().where(acceptances.c.uid == labelled.uid))
    assert lost.rowcount == 3

    assert accept(labelled.services, labelled.project, run="two", now=NOW).tasks == 0
    assert labelled.services.ledger.examples(labelled.uid) == []
    with labelled.services.store.write() as db:
        db.execute(acceptances.delete())
    (first, *_) = labelled.annotations().values()
    value = first[0].result[0]["value"] | {"x": 1.0}
    result = [first[0].result[0] | {"value": value}]
    labelled.server.api("PATCH", f"/api/annotations/{first[0].id}/", json={"result": result})
    labelled.services.store.save_project(labelled.uid, cursor=None)
    undone = undo(labelled.services, labelled.project, "one")
    assert undone.removed == 2 and len(labelled.annotations()) == 1
    assert undo(labelled.services, labelled.project, "one").kept == 1
    with pytest.raises(NotFound):
        undo(labelled.services, labelled.project, "on")


def test_scores_for_labels_doubtful_ones_and_versions(labelled: Labelled) -> None:
    labelled.suggest([[labelled.region(0.9, True)], [labelled.region(0.9, True), labelled.region(0.3, True)]])
    labelled.suggest([[labelled.region(0.99, True)]], "yoloop-v2")
    labelled.suggest([[labelled.region(0.99, True)]], "somebody else's")

    def tasks(**options: Any) -> int:
        return accept(labelled.services, labelled.project, run="r", now=NOW, dry_run=True, **options).tasks

    assert tasks(version=VERSION) == 2 and tasks(version=VERSION, complete_only=True) == 1
    assert tasks(version=VERSION, labels={"Car": 0.91}) == 0 and tasks(version=VERSION, min_score=0.9) == 2
    assert tasks() == 2, "the one in service"
    assert tasks(version="yoloop-v2") == 1 and tasks(version="yoloop-v9") == 0
    for wrong in ({"labels": {"Cat": 0.9}}, {"labels": {"Car": 1.1}}, {"min_score": -0.1}, {"min_score": float("nan")}):
        with pytest.raises(BadRequest):
            tasks(**wrong)
    assert labelled.annotations() == {}


def test_the_command_asks_first_and_leaves_no_task_half_labelled(labelled: Labelled) -> None:
    sure, doubtful = labelled.region(0.9, True), labelled.region(0.3, True)
    whole, half, _ = labelled.suggest([[sure], [sure | {"id": "other"}, doubtful], [doubtful | {"id": "alone"}]])
    settings = labelled.services.settings
    env = {
        "YOLOOP_HOME": str(settings.home),
        "LABEL_STUDIO_URL": settings.label_studio_url,
        "LABEL_STUDIO_API_KEY": settings.label_studio_api_key.get_secret_value(),
    }

    def run(*words: str, answer: str = "", code: int = 0) -> str:
        done = CliRunner().invoke(app, ["accept", str(labelled.number), *words], input=answer, env=env)
        assert done.exit_code == code, done.output + str(done.exception)
        return str(done.stdout if "--json" in words else done.output)

    told = run("--dry-run")
    assert "Would accept 1 regions on 1 tasks" in told and "Left out: 1 doubtful regions" in told
    for answer in ("n\n", ""):  # nobody is there to answer
        assert "Write 1 annotation to Label Studio?" in run(answer=answer, code=1)
    assert labelled.annotations() == {}
    assert "Accepted 1 regions on 1 tasks" in run(answer="y\n")
    assert set(labelled.annotations()) == {whole}
    told = run("--yes")
    assert "Accepted 0 regions on 0 tasks" in told and "doubtful suggestions beside the sure ones" in told
    accepted = json.loads(run("--partial", "--yes", "--json"))
    assert (accepted["tasks"], accepted["partial"], accepted["left_out"]) == (1, 1, {"Car": 1})
    assert set(labelled.annotations()) == {whole, half}
    run("--partial", "--complete-only", "--yes", code=1)


def test_label_studios_own_copies_judge_nothing(labelled: Labelled) -> None:
    (task,) = labelled.suggest([[labelled.region(0.9, True)]])
    chosen = {"selectedItems": {"all": False, "included": [task]}}
    path = f"/api/dm/actions?id=predictions_to_annotations&project={labelled.number}"
    labelled.server.api("POST", path, json=chosen)
    sync(labelled.services, labelled.uid, NOW)
    assert suggestion_statistics(labelled.services.store, labelled.uid).bins == ()
    assert len(labelled.services.ledger.examples(labelled.uid)) == 1
    ((copied,),) = labelled.annotations().values()
    assert copied.created_at > datetime.now(UTC) - timedelta(minutes=5)
    plane = [region | {"value": region["value"] | {"rectanglelabels": ["Plane"]}} for region in copied.result]
    labelled.server.api("PATCH", f"/api/annotations/{copied.id}/", json={"result": plane, "lead_time": 2.0})
    sync(labelled.services, labelled.uid, NOW)
    assert [each.relabelled for each in suggestion_statistics(labelled.services.store, labelled.uid).bins] == [1]
