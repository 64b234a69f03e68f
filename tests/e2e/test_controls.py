"""Every image control on a real Label Studio: one project teaches them all at once, and its suggestions are measured.

What Label Studio stored is read and measured by this file's own code, not by the backend's.
The tests build on each other, in their order.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import requests
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface
from numpy.typing import NDArray
from support.half_width import half_width
from support.labelstudio import LabelStudioServer
from support.shapes import SCENE_CONFIG, SCENE_LABELS, SKELETON, Scene, Thing, draw_scenes
from support.waiting import wait_for
from support.yoloop import Yoloop
from ultralytics.utils.metrics import ap_per_class

pytestmark = [pytest.mark.group("controls", minutes=6), pytest.mark.random_order(disabled=True)]

ANNOTATED, OPENED = 72, 20
TRAINING = 1500
"""Seconds that the training of all models may take on a slow machine."""

MORE_LABELS = SCENE_CONFIG.replace('<Label value="Square"/>', '<Label value="Square"/><Label value="Triangle"/>')
BOXES_ONLY = re.sub(r'name="(?!image|box)\w+"', r'\g<0> model_skip="true"', MORE_LABELS)


@dataclass
class Project:
    """The project under test: `tasks` maps task id → its picture, the first ANNOTATED of them to be annotated."""

    label_studio: LabelStudioServer
    yoloop: Yoloop
    id: int
    uid: str
    tasks: dict[int, Scene]

    def submit(self, tasks: Sequence[int]) -> None:
        """Annotate tasks as a careful person would."""
        for task in tasks:
            body = {"result": self.tasks[task].result(), "lead_time": 2.0}
            self.label_studio.api("POST", f"/api/tasks/{task}/annotations/?project={self.id}", json=body)

    def train(self) -> None:
        """Press "Start Training" on Label Studio's Model page."""
        (backend,) = self.label_studio.api("GET", f"/api/ml?project={self.id}")
        self.label_studio.api("POST", f"/api/ml/{backend['id']}/train", json={})

    def wait_for_version(self, name: str) -> dict[str, Any]:
        """The version of that name, once its training has ended with a decision."""

        def decided() -> dict[str, Any] | None:
            found = {each["version"]: each for each in self.yoloop.versions() if each["decision"] != "undecided"}
            return found.get(name)

        version: dict[str, Any] = wait_for(decided, TRAINING, name, pause=2)
        return version

    def setup(self) -> str:
        config = self.label_studio.api("GET", f"/api/projects/{self.id}/")["label_config"]
        body = {"project": self.uid, "schema": config, "hostname": self.label_studio.url}
        return str(self.yoloop.post("/setup", body)["model_version"])

    def report(self) -> dict[str, dict[str, Any]]:
        """Control → how the model's classes and its labels meet."""
        answer = requests.get(f"{self.yoloop.url}/report", params={"project": self.uid}, timeout=30).json()
        (project,) = answer["projects"]
        return {each["control"]: each for each in project["controls"]}

    def configure(self, config: str) -> None:
        """Change the labelling config, and wait until yoloop has heard of it."""
        made = self.label_studio.api("PATCH", f"/api/projects/{self.id}/", json={"label_config": config})
        known = made["label_config"]
        wait_for(lambda: known in [each.label_config for each in self.yoloop.store.projects()], 60, "the new config")

    def predict(self, task: int) -> dict[str, Any]:
        """What yoloop answers for a task."""
        found = self.label_studio.api("GET", f"/api/tasks/{task}/?project={self.id}")
        config = self.label_studio.api("GET", f"/api/projects/{self.id}/")["label_config"]
        tasks = [{"id": task, "data": found["data"]}]
        (answer,) = self.yoloop.post("/predict", {"project": self.uid, "label_config": config, "tasks": tasks})[
            "results"
        ]
        return dict(answer)

    def opened(self, task: int) -> dict[str, Any]:
        """What Label Studio stored for a task that somebody opened."""
        self.label_studio.api("GET", f"/api/tasks/{task}/?project={self.id}")
        version = self.setup()
        found = self.label_studio.api("GET", f"/api/predictions/?task={task}")
        prediction = [each for each in found if each["model_version"] == version][-1]
        return dict(prediction)


@pytest.fixture(scope="module")
def project(label_studio_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("controls")
    scenes = draw_scenes(folder / "images", ANNOTATED + OPENED, seed=11)
    with LabelStudioServer(folder / "ls", template=label_studio_template) as server:
        made = server.api("POST", "/api/projects/", json={"title": "controls", "label_config": SCENE_CONFIG})
        files = {scene.path.name: (scene.path.name, scene.path.read_bytes(), "image/png") for scene in scenes}
        server.api("POST", f"/api/projects/{made['id']}/import", files=files)
        settings = {
            "YOLOOP_MIN_NEW_ANNOTATIONS": "1000",  # training starts when the test says so
            "YOLOOP_TRAIN_MINUTES": "60",  # so that other work beside it shortens nothing
            "YOLOOP_IMAGE_SIZE": "128",
        }
        with Yoloop(folder / "home", server, cwd=half_width(folder / "work"), **settings) as yoloop:
            yoloop.run("connect", "--project", str(made["id"]), "--url", yoloop.url)
            (uid,) = re.findall(r'"uid": "([\d.]+)"', yoloop.run("status", "--json"))
            yield Project(server, yoloop, made["id"], uid, _tasks(server, made["id"], scenes))


@pytest.fixture(scope="module")
def predictions(project: Project) -> list[tuple[Scene, dict[str, Any]]]:
    """The pictures that nobody labelled, each with what Label Studio stored when it was opened."""
    return [(project.tasks[task], project.opened(task)) for task in list(project.tasks)[ANNOTATED:]]


def test_annotations_of_all_controls_make_one_version(project: Project) -> None:
    project.submit(list(project.tasks)[:ANNOTATED])
    project.train()

    version = project.wait_for_version("v1")

    print({name: round(value, 3) for name, value in version["metrics"].items()})
    assert version["champion"], version
    wait_for(lambda: project.setup() == "yoloop-v1", 60, "the new version to serve")
    report = project.report()
    assert {name: each["task"] for name, each in report.items()} == {
        "box": "detect",
        "turned": "obb",
        "egg": "obb",
        "outline": "segment",
        "paint": "segment",
        "bits": "segment",
        "kp": "pose",
        "weather": "classify",
        "place": "classify",
    }
    assert {each["model"] for each in report.values()} == {"v1"}
    assert all(each["unmapped_labels"] == [] for each in report.values())


def test_every_stored_prediction_is_valid(project: Project, predictions: list[tuple[Scene, dict[str, Any]]]) -> None:
    interface = LabelInterface(SCENE_CONFIG)
    told = requests.get(f"{project.yoloop.url}/advice", params={"project": project.uid}, timeout=30).json()
    lowest = min(0.25, *(each["least"] for each in told["thresholds"].values() if each["least"] is not None))
    for _, stored in predictions:
        assert interface.validate_prediction(stored, return_errors=True) == []
        assert stored["model_version"] == "yoloop-v1" == project.setup()
        assert 0 <= stored["score"] <= 1
        numbers = [each["id"] for each in stored["result"]]
        assert len(numbers) == len(set(numbers))
        assert all(lowest <= each["score"] <= 1 for each in stored["result"] if each["type"] != "keypointlabels")
    drawn = {each["from_name"] for _, stored in predictions for each in stored["result"]}
    assert drawn == {*SCENE_LABELS, "kp", "weather", "place"}


def test_boxes_are_right(predictions: list[tuple[Scene, dict[str, Any]]]) -> None:
    found = mean_average_precision(predictions, ("box",), _box_overlap)
    print(f"detect: mAP50 {found:.3f}")
    assert found >= 0.85


def test_turned_boxes_and_ellipses_are_right(predictions: list[tuple[Scene, dict[str, Any]]]) -> None:
    found = mean_average_precision(predictions, ("turned", "egg"), _box_overlap)
    print(f"obb: mAP50 {found:.3f}")
    assert found >= 0.85
    turns = [each["value"]["rotation"] for _, stored in predictions for each in _of(stored, "turned", "egg")]
    assert np.std(np.array(turns) % 90) > 10, "otherwise these boxes are not turned"


def test_masks_are_right(predictions: list[tuple[Scene, dict[str, Any]]]) -> None:
    for control in ("outline", "paint", "bits"):
        print(f"segment, {control}: mAP50 {mean_average_precision(predictions, (control,), _mask_overlap):.3f}")
    found = mean_average_precision(predictions, ("outline", "paint", "bits"), _mask_overlap)
    print(f"segment: mAP50 {found:.3f}")
    assert found >= 0.8


def test_skeletons_are_right(predictions: list[tuple[Scene, dict[str, Any]]]) -> None:
    near = [hit for scene, stored in predictions for hit in _points_found(scene, stored)]
    print(f"pose: PCK@0.1 {np.mean(near):.3f} of {len(near)} points")
    assert len(near) > 20
    assert np.mean(near) >= 0.8


@pytest.mark.parametrize("control", ["weather", "place"])
def test_answers_about_the_image_are_right(predictions: list[tuple[Scene, dict[str, Any]]], control: str) -> None:
    right = []
    for scene, stored in predictions:
        answers = [each["value"][each["type"]] for each in _of(stored, control)]
        right.append(answers == [[scene.weather if control == "weather" else list(scene.place)]])
    print(f"classify, {control}: accuracy {np.mean(right):.3f}")
    assert np.mean(right) >= 0.9


def test_a_new_label_is_reported_and_the_others_are_still_suggested(project: Project) -> None:
    project.configure(MORE_LABELS)

    answer = project.predict(list(project.tasks)[ANNOTATED])

    assert {each["from_name"] for each in answer["result"]} >= {"box", "weather", "place"}
    assert answer["model_version"] == project.setup()
    box = project.report()["box"]
    assert box["classes"] == {"Disc": "Disc", "Square": "Square"}
    assert (box["unmapped_classes"], box["unmapped_labels"]) == ([], ["Triangle"])


def test_the_next_version_knows_the_new_label(project: Project) -> None:
    # The other controls are left alone from now on, which spares their training.
    project.configure(BOXES_ONLY)
    task = list(project.tasks)[ANNOTATED]
    assert {each["from_name"] for each in project.predict(task)["result"]} == {"box"}
    project.submit(list(project.tasks)[ANNOTATED:])
    project.train()

    version = project.wait_for_version("v2")

    assert (version["parent"], version["champion"]) == ("v1", True), version
    wait_for(lambda: project.setup() == "yoloop-v2", 60, "the new version to serve")
    box = project.report()["box"]
    assert box["classes"] == {"Disc": "Disc", "Square": "Square", "Triangle": "Triangle"}
    assert (box["model"], box["unmapped_labels"]) == ("v2", [])
    assert _classes(project, "v1")["detect"] == ["Disc", "Square"]
    assert _classes(project, "v2") == {"detect": ["Disc", "Square", "Triangle"]}
    answer = project.predict(task)
    true = sorted(each.label for each in project.tasks[task].things if each.control == "box")
    assert sorted(each["value"]["rectanglelabels"][0] for each in answer["result"]) == true


def mean_average_precision(
    predictions: Sequence[tuple[Scene, Mapping[str, Any]]],
    controls: Sequence[str],
    overlap: Callable[[Mapping[str, Any], Thing, Scene], float],
) -> float:
    """mAP at an overlap of 0.5 of what was stored for these controls; best scores choose their object first."""
    labels = [label for control in controls for label in SCENE_LABELS[control]]
    hits, scores, classes, true = [], [], [], []
    for scene, stored in predictions:
        things = [each for each in scene.things if each.control in controls]
        true += [labels.index(each.label) for each in things]
        for region in sorted(_of(stored, *controls), key=lambda each: -float(each["score"])):
            (label,) = region["value"][region["type"]]
            same = [each for each in things if each.label == label]
            best = max(same, key=lambda each: overlap(region, each, scene), default=None)
            hit = best is not None and overlap(region, best, scene) >= 0.5
            if hit:
                things = [each for each in things if each is not best]
            hits.append([hit])
            scores.append(region["score"])
            classes.append(labels.index(label))
    measured = ap_per_class(np.array(hits), np.array(scores), np.array(classes), np.array(true))
    return float(measured[5][:, 0].mean())


def _of(stored: Mapping[str, Any], *controls: str) -> list[dict[str, Any]]:
    return [each for each in stored["result"] if each["from_name"] in controls]


RotatedRect = tuple[tuple[float, float], tuple[float, float], float]
"""OpenCV's: centre, size, degrees clockwise."""


def _rectangle(region: Mapping[str, Any], scene: Scene) -> RotatedRect:
    """A rectangle's or an ellipse's region in pixels."""
    value, angle = region["value"], region["value"].get("rotation", 0)
    x, y = value["x"] * scene.width / 100, value["y"] * scene.height / 100
    if region["type"] == "ellipselabels":
        return (x, y), (value["radiusX"] * scene.width / 50, value["radiusY"] * scene.height / 50), angle
    width, height = value["width"] * scene.width / 100, value["height"] * scene.height / 100
    # Label Studio turns it about its left top corner.
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    centre = (x + width / 2 * cos - height / 2 * sin, y + width / 2 * sin + height / 2 * cos)
    return centre, (width, height), angle


def _box_overlap(region: Mapping[str, Any], thing: Thing, scene: Scene) -> float:
    cx, cy, width, height, angle = thing.frame
    return _shared(_rectangle(region, scene), ((cx, cy), (width, height), angle))


def _shared(left: RotatedRect, right: RotatedRect) -> float:
    """Intersection over union."""
    _, corners = cv2.rotatedRectangleIntersection(left, right)
    both = 0.0 if corners is None else float(cv2.contourArea(cv2.convexHull(corners)))
    return both / (math.prod(left[1]) + math.prod(right[1]) - both)


def _mask_overlap(region: Mapping[str, Any], thing: Thing, scene: Scene) -> float:
    found, true = _mask(region, scene), thing.mask(scene.width, scene.height)
    return float((found & true).sum() / (found | true).sum())


def _mask(region: Mapping[str, Any], scene: Scene) -> NDArray[np.bool_]:
    """What a polygon's, a brush's or a bitmask's region covers: (height, width)."""
    value = region["value"]
    if region["type"] == "brushlabels":
        layer = decode_rle(value["rle"]).reshape(scene.height, scene.width, 4)
        return np.asarray(layer[:, :, 3] > 127)
    if region["type"] == "bitmasklabels":
        data = base64.b64decode(value["imageDataURL"].partition("base64,")[2])
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture is not None and picture.shape == (scene.height, scene.width, 4)
        return np.asarray(picture[:, :, 3] > 127)
    canvas = np.zeros((scene.height, scene.width), np.uint8)
    corners = np.array(value["points"]) / 100 * (scene.width, scene.height) - 0.5
    cv2.fillPoly(canvas, [np.round(corners).astype(np.int32)], 1)
    return canvas.astype(bool)


def _points_found(scene: Scene, stored: Mapping[str, Any]) -> list[bool]:
    """For each point that is to be seen: whether it is suggested within a tenth of its object's longer side."""
    boxes = [(_rectangle(each, scene), each["id"]) for each in _of(stored, "kp_bbox")]
    hits = []
    for thing in (each for each in scene.things if each.points):
        cx, cy, width, height, _ = thing.frame
        truth: RotatedRect = ((cx, cy), (width, height), 0.0)
        overlap, parent = max(((_shared(box, truth), number) for box, number in boxes), default=(0.0, ""))
        mine = {
            each["value"]["keypointlabels"][0]: each["value"]
            for each in _of(stored, "kp")
            if each["parentID"] == parent and overlap >= 0.5
        }
        assert set(mine) <= set(SKELETON)
        for label, (x, y) in thing.points.items():
            place = mine.get(label, {"x": math.inf, "y": math.inf})
            off = math.hypot(place["x"] * scene.width / 100 - x, place["y"] * scene.height / 100 - y)
            hits.append(off <= 0.1 * max(width, height))
    return hits


def _tasks(server: LabelStudioServer, project: int, scenes: Sequence[Scene]) -> dict[int, Scene]:
    found = server.api("GET", f"/api/tasks?project={project}&page_size=1000")["tasks"]
    by_name = {scene.path.stem: scene for scene in scenes}
    names = {task["id"]: re.search(r"scene-11-\d{4}", task["data"]["image"]) for task in found}
    return {task: by_name[name[0]] for task, name in sorted(names.items()) if name is not None}


def _classes(project: Project, version: str) -> dict[str, list[str]]:
    """Model → its classes, from the registry."""
    from backend.served_models.parts import parts_of
    from model_registry import Registry

    registry = Registry(f"sqlite:///{project.yoloop.home / 'mlflow.db'}", project.yoloop.home / "registry")
    parts = parts_of(registry.version(project.uid, int(version[1:])), 128)
    return {part.network.key: list(part.network.classes) for part in parts}
