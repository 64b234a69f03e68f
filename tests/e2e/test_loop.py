"""The whole loop on a real Label Studio: annotate, learn, suggest, and again, whatever is killed in between.

The tests build on each other, in their order: one project's life.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from support.half_width import half_width
from support.labelstudio import LabelStudioServer
from support.shapes import LABELS, Picture, draw_pictures
from support.users import UNKNOWN
from support.waiting import wait_for
from support.yoloop import Yoloop

from backend.fit.evaluation.metrics import evaluate
from backend.labels.geometry import Box, Detection
from backend.labels.networks import Network, Task
from backend.store.jobs import Jobs

pytestmark = [pytest.mark.group("loop", minutes=6), pytest.mark.random_order(disabled=True)]

CONFIG = (Path(__file__).parents[2] / "label_config.xml").read_text()
TRAINING = 900
"""Seconds that one training may take on a slow machine."""


@dataclass
class Loop:
    """The project under test: `tasks` maps task id → its picture; `open` are the ids nobody labelled yet.

    `unheard` are annotations that no event told of.
    """

    label_studio: LabelStudioServer
    yoloop: Yoloop
    project: int
    uid: str
    tasks: dict[int, Picture]
    open: list[int] = field(default_factory=list)
    unheard: set[int] = field(default_factory=set)

    def press_train(self) -> None:
        """The button "Start Training" on Label Studio's Model page."""
        (backend,) = self.label_studio.api("GET", f"/api/ml?project={self.project}")
        self.label_studio.api("POST", f"/api/ml/{backend['id']}/train", json={})

    def submit(self, task: int, prediction: int | None = None) -> int:
        """Annotate a task as a careful person would; returns the annotation's id."""
        body = {"result": self.tasks[task].result(), "lead_time": 2.0, "parent_prediction": prediction}
        made = self.label_studio.api("POST", f"/api/tasks/{task}/annotations/?project={self.project}", json=body)
        if task in self.open:
            self.open.remove(task)
        return int(made["id"])

    def setup(self) -> str:
        body = {"project": self.uid, "schema": CONFIG, "hostname": self.label_studio.url}
        return str(self.yoloop.post("/setup", body)["model_version"])

    def champion(self) -> str:
        return next((each["version"] for each in self.yoloop.versions() if each["champion"]), "v0")

    def wait_for_version(self, name: str) -> dict[str, Any]:
        """The version of that name, once its training has ended with a decision."""

        def decided() -> dict[str, Any] | None:
            for each in self.yoloop.versions():
                if each["version"] == name and each["decision"] != "undecided":
                    return each
            return None

        found: dict[str, Any] = wait_for(decided, TRAINING, name, pause=2)
        wait_for(lambda: not Jobs(self.yoloop.store).unfinished(), 60, "the job to end")
        return found


@pytest.fixture(scope="module")
def loop(label_studio_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    folder = tmp_path_factory.mktemp("loop")
    pictures = draw_pictures(folder / "images", 90, seed=7, size=128)
    with LabelStudioServer(folder / "ls", template=label_studio_template) as server:
        project = server.api("POST", "/api/projects/", json={"title": "shapes", "label_config": CONFIG})
        tasks = _upload(server, project["id"], pictures)
        settings = {
            "YOLOOP_SYNC_INTERVAL": "5",
            "YOLOOP_DEBOUNCE": "4",
            "YOLOOP_TRAIN_MINUTES": "30",  # so that other work beside it shortens nothing
            "YOLOOP_MIN_NEW_ANNOTATIONS": "16",
        }
        # As containers run: a user whom the system does not know, without a home.
        work = half_width(folder / "work")
        with Yoloop(folder / "home", server, cwd=work, unknown_user=True, **settings) as yoloop:
            yoloop.run("connect", "--project", str(project["id"]), "--url", yoloop.url)
            (uid,) = re.findall(r'"uid": "([\d.]+)"', yoloop.run("status", "--json"))
            yield Loop(server, yoloop, project["id"], uid, tasks, sorted(tasks))
        assert not [each for each in psutil.process_iter(["cmdline"]) if str(folder / "home") in _words(each)]


def test_it_runs_as_a_user_whom_the_system_does_not_know(loop: Loop) -> None:
    """All that follows does, trainings included. Only root can become another user."""
    (server, *_) = loop.yoloop.processes("backend.cli.main", "serve")
    if os.geteuid() == 0:
        assert (server.uids().effective, server.gids().effective) == (UNKNOWN, 0)
        assert server.environ()["HOME"] == str(loop.yoloop.home)
    else:
        assert "HOME" not in server.environ()


def test_before_any_training_nothing_is_suggested_and_it_says_why(loop: Loop) -> None:
    answer = loop.yoloop.post(
        "/predict", {"project": loop.uid, "label_config": CONFIG, "tasks": [{"id": 1, "data": {"image": "/x.jpg"}}]}
    )
    (entry,) = answer["results"]
    assert "result" not in entry
    assert "pretrained weights" in entry["error"]
    assert loop.setup() == "yoloop-v0"


def test_forty_annotations_make_a_version_that_serves(loop: Loop) -> None:
    for task in loop.open[:40]:
        loop.submit(task)
    first = loop.wait_for_version("v1")
    assert first["champion"], first
    wait_for(lambda: loop.setup() == "yoloop-v1", 20, "the new version to serve")
    assert first["parent"] == ""
    assert first["metrics"]["mAP50"] > 0.8


def test_the_label_stream_shows_ranked_boxes_that_are_right(loop: Loop) -> None:
    version = loop.setup()
    stored: list[tuple[Picture, list[dict[str, Any]]]] = []
    for _ in range(20):
        task = loop.label_studio.api("GET", f"/api/projects/{loop.project}/next")["id"]
        # Read back from the database, not from the answer to the stream's call.
        found = loop.label_studio.api("GET", f"/api/predictions/?task={task}")
        prediction = [each for each in found if each["model_version"] == version][-1]
        scores = [region["score"] for region in prediction["result"]]
        assert scores == sorted(scores, reverse=True)
        assert 0 <= prediction["score"] <= 1
        stored.append((loop.tasks[task], prediction["result"]))
        loop.submit(task, prediction["id"])
    measured = _measure(stored)
    print(f"mAP50 {measured['mAP50']:.3f}, mAP50-95 {measured['mAP50-95']:.3f} on 20 tasks")
    assert measured["mAP50"] >= 0.85


def test_more_annotations_make_a_second_version_from_the_first(loop: Loop) -> None:
    second = loop.wait_for_version("v2")
    assert second["parent"] == "v1"
    assert second["metrics"]["champion/mAP50"] > 0
    assert second["decision"] in ("promoted", "rejected")
    assert second["champion"] == (second["decision"] == "promoted")


def test_promote_and_rollback_take_effect_at_once(loop: Loop) -> None:
    loop.yoloop.run("promote", "v2")
    wait_for(lambda: loop.setup() == "yoloop-v2", 20, "v2 to serve")
    loop.yoloop.run("rollback")
    wait_for(lambda: loop.setup() == "yoloop-v1", 20, "v1 to serve again")
    task = loop.open[0]
    predictions = loop.label_studio.api("GET", f"/api/tasks/{task}/?project={loop.project}")["predictions"]
    assert "yoloop-v1" in {each["model_version"] for each in predictions}


def test_a_killed_server_comes_back_with_the_same_version(loop: Loop) -> None:
    before = loop.yoloop.processes("backend.cli.main", "serve")
    for process in before:
        process.kill()
    wait_for(lambda: not loop.yoloop.healthy(), 60, "the server to be gone")
    wait_for(loop.yoloop.healthy, 60, "a new server")
    assert loop.setup() == "yoloop-v1"
    task = loop.open[0]
    body = {"project": loop.uid, "label_config": CONFIG, "tasks": [{"id": task, "data": _data_of(loop, task)}]}
    (entry,) = loop.yoloop.post("/predict", body)["results"]
    assert entry["model_version"] == "yoloop-v1"
    assert entry["result"]


def test_annotations_made_without_webhook_around_a_restart_are_learned(loop: Loop) -> None:
    (hook,) = loop.label_studio.api("GET", f"/api/webhooks/?project={loop.project}")
    loop.label_studio.api(
        "PATCH", f"/api/webhooks/{hook['id']}/", json={"is_active": False, "actions": hook["actions"]}
    )
    loop.unheard = {loop.submit(task) for task in loop.open[:15]}  # fewer than a training takes
    loop.label_studio.stop()
    wait_for(lambda: loop.yoloop.trouble(), 60, "the trouble to be noticed")
    loop.label_studio.start()
    loop.unheard |= {loop.submit(task) for task in loop.open[:15]}
    (job,) = wait_for(lambda: Jobs(loop.yoloop.store).unfinished(), 60, "the job")
    assert "new annotations" in job.reason
    assert loop.yoloop.trouble() == ""


def test_a_killed_worker_and_a_killed_training_still_bring_the_version(loop: Loop) -> None:
    (job,) = [each.id for each in Jobs(loop.yoloop.store).unfinished()]
    again = loop.yoloop.post("/webhook", {"action": "START_TRAINING", "project": _project_of(loop)})
    assert again == {"job": job, "status": "joined"}
    wait_for(lambda: (_job(loop, job)["epoch"] or 0) >= 1, TRAINING, "the first epoch")
    (worker,) = loop.yoloop.processes("backend.cli.main", "worker")
    (trainer,) = loop.yoloop.processes("backend.fit.training.train")
    server = loop.yoloop.processes("backend.cli.main", "serve")[0]
    assert os.getsid(trainer.pid) == os.getsid(server.pid), "niceness counts only inside one session"
    assert trainer.nice() == 19
    assert os.getpgid(trainer.pid) == trainer.pid
    worker.kill()
    wait_for(lambda: not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE, 60, "the orphan to end")
    # The new worker goes on by itself; then the training's own process is killed, too.
    (trainer,) = wait_for(lambda: loop.yoloop.processes("backend.fit.training.train"), 60, "the training to go on")
    wait_for(lambda: "going on from" in _train_log(loop, job), 60, "the training to resume")
    trainer.kill()
    third = loop.wait_for_version("v3")
    assert "was killed by signal 9" in loop.yoloop.log.read_text()
    assert _job(loop, job)["job_status"] == "done"
    assert _job(loop, job)["version"] == "v3"
    assert third["parent"] == "v1"
    assert len(loop.yoloop.versions()) == 3, "the interrupted training must not be registered twice"
    if not loop.unheard <= _annotations_of(loop, "v3"):  # it began between two of the last ones: the next has them
        loop.press_train()
        loop.wait_for_version("v4")
        assert loop.unheard <= _annotations_of(loop, "v4")


def test_cancel_ends_the_whole_process_tree(loop: Loop) -> None:
    loop.press_train()
    (job,) = wait_for(lambda: [each.id for each in Jobs(loop.yoloop.store).unfinished()], 60, "the job")
    (trainer,) = wait_for(lambda: loop.yoloop.processes("backend.fit.training.train"), 120, "the training's process")
    tree = [trainer, *trainer.children(recursive=True)]
    loop.yoloop.run("cancel")
    wait_for(lambda: _job(loop, job)["job_status"] == "cancelled", 60, "the job to be cancelled")
    assert not [each for each in tree if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def _upload(server: LabelStudioServer, project: int, pictures: Sequence[Picture]) -> dict[int, Picture]:
    """Import pictures as a person does in the browser; task id → picture."""
    files = [("file", (each.path.name, each.path.read_bytes(), "image/jpeg")) for each in pictures]
    for start in range(0, len(files), 30):
        batch = {name: part for name, (_, part) in enumerate(files[start : start + 30])}
        server.api("POST", f"/api/projects/{project}/import", files={part[0]: part for part in batch.values()})
    found = server.api("GET", f"/api/tasks?project={project}&page_size=1000")["tasks"]
    by_name = {each.path.stem: each for each in pictures}
    return {task["id"]: by_name[re.search(r"shapes-7-\d{4}", task["data"]["image"])[0]] for task in found}  # type: ignore[index]


class _Stored:
    """Answers with what Label Studio stored, so that it is measured like a detector."""

    names: Mapping[int, str] = dict(enumerate(LABELS))
    task: Task = "detect"

    def __init__(self, results: Sequence[tuple[Picture, list[dict[str, Any]]]]) -> None:
        self._results = iter(results)

    def detect(self, images: Sequence[Any], conf: float, most: int | None = None) -> list[list[Detection]]:
        picture, regions = next(self._results)
        return [[_detection(region, picture) for region in regions]]

    def warm(self) -> None: ...


def _measure(stored: Sequence[tuple[Picture, list[dict[str, Any]]]]) -> dict[str, float]:
    truths = [
        [Detection(LABELS.index(each.label), 1.0, Box(*each.box)) for each in picture.shapes] for picture, _ in stored
    ]
    blank = [np.zeros((1, 1, 3), np.uint8)] * len(truths)
    labels = {index: index for index in range(len(LABELS))}
    return evaluate(_Stored(stored), labels, blank, truths, Network("detect", "detect", LABELS))


def _detection(region: Mapping[str, Any], picture: Picture) -> Detection:
    value = region["value"]
    x, y = value["x"] * picture.width / 100, value["y"] * picture.height / 100
    box = Box(x, y, x + value["width"] * picture.width / 100, y + value["height"] * picture.height / 100)
    return Detection(LABELS.index(value["rectanglelabels"][0]), region["score"], box)


def _data_of(loop: Loop, task: int) -> dict[str, Any]:
    found: dict[str, Any] = loop.label_studio.api("GET", f"/api/tasks/{task}/?project={loop.project}")["data"]
    return found


def _project_of(loop: Loop) -> dict[str, Any]:
    found: dict[str, Any] = loop.label_studio.api("GET", f"/api/projects/{loop.project}/")
    return found


def _train_log(loop: Loop, job: str) -> str:
    path = loop.yoloop.home / "jobs" / job / "train.log"
    return path.read_text() if path.exists() else ""


def _job(loop: Loop, job: str) -> dict[str, Any]:
    found: dict[str, Any] = loop.yoloop.post("/job_status", {"job": job})
    return found


def _annotations_of(loop: Loop, version: str) -> set[int]:
    """Ids of the annotations that a version was trained and judged on, from its manifest in the registry."""
    from model_registry import Registry

    registry = Registry(f"sqlite:///{loop.yoloop.home / 'mlflow.db'}", loop.yoloop.home / "registry")
    path = registry.fetch(registry.version(loop.uid, int(version[1:])), "manifest.json")
    return {each["annotation"] for each in json.loads(path.read_text())["images"]}


def _words(process: psutil.Process) -> str:
    return " ".join(process.info["cmdline"] or [])
