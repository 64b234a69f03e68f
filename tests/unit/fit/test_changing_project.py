"""A project changes: the version before, the annotations of now, and what then serves each control.

Everything is real but the trained weights: ledger, dataset, the version's models, registry, and who is assigned.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.bodies import picture

from backend.fit.evaluation.metrics import nothing
from backend.fit.training.spec import Spec
from backend.fit.workflow import Training
from backend.labels.schema import parse_label_config
from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.served_models.parts import network_from, parts_of
from backend.served_models.served import trained, unloaded
from backend.services import Services
from backend.settings import Settings

UID = "1.100"
Region = dict[str, Any]


@pytest.fixture
def services(tmp_path: Path, empty_registry: Path) -> Iterator[Services]:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copyfile(empty_registry, home / "mlflow.db")
    made = Services(Settings(home=home))
    yield made
    made.close()


def view(*controls: str) -> str:
    return f'<View><Image name="image" value="$image"/>{"".join(controls)}</View>'


def tag(kind: str, name: str, *labels: str, extra: str = "") -> str:
    """`labels` may say what they were called: "New=Old"."""
    entry = "Choice" if kind == "Choices" else "Label"
    entries = ""
    for label in labels:
        value, _, old = label.partition("=")
        entries += f'<{entry} value="{value}"' + (f' predicted_values="{old}"' if old else "") + "/>"
    return f'<{kind} name="{name}" toName="image" {extra}>{entries}</{kind}>'


numbers = itertools.count()


def region(name: str, kind: str, label: str, **value: Any) -> Region:
    return {
        "id": f"r{next(numbers)}",
        "from_name": name,
        "to_name": "image",
        "type": kind,
        "original_width": 200,
        "original_height": 100,
        "value": {**value, kind: [label]},
    }


def box(name: str, label: str, rotation: float = 0) -> Region:
    return region(name, "rectanglelabels", label, x=20, y=20, width=30, height=40, rotation=rotation)


def outline(name: str, label: str) -> Region:
    return region(name, "polygonlabels", label, points=[[20, 20], [50, 20], [50, 60], [20, 60]])


def point(name: str, label: str) -> Region:
    return region(name, "keypointlabels", label, x=30, y=30, width=1)


def choice(name: str, label: str) -> Region:
    return region(name, "choices", label)


@dataclass(frozen=True)
class Step:
    """One training: the config and the annotations at its time, and what must serve then.

    `serves`: control → the version that learned what serves it, and its class → the label that is suggested.
    """

    config: str
    annotations: Sequence[Sequence[Region]]
    serves: Mapping[str, tuple[str, Mapping[str, str]]]


def waiting_process() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "input()"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)


def train(services: Services, config: str, annotations: Sequence[Sequence[Region]]) -> None:
    """A training but for its epochs, and its promotion."""
    services.store.save_project(UID, label_config=config)
    now = datetime.now(UTC)
    tasks = []
    for number, result in enumerate(annotations, start=1):
        annotation = AnnotationRecord(number, list(result), False, False, now, now, None, None, None)
        tasks.append(TaskRecord(number, now, now, {"image": picture(200, 100 + number)}, (annotation,)))
    services.ledger.update(UID, tasks, time.time())
    services.ledger.keep_only(UID, [task.id for task in tasks])
    job, _ = services.jobs.request(UID, "asked for by a test", time.time())
    training = Training(
        services,
        lambda _, function: function(),
        lambda *given, **named: None,
        waiting_process,
    )
    learned = training._prepare(job)
    spec = Spec.load(training.folder(job.id))
    measured = []
    for each in spec.networks:
        run = Path(each.folder) / "run"
        (run / "weights").mkdir(parents=True)
        for name in ("weights/best.pt", "results.csv", "args.yaml"):
            (run / name).write_text(f"{job.id} {each.network['key']}")
        scores = nothing(network_from(each.network).task)
        measured.append({"candidate": scores, "champion": None, "seconds": 1, "epochs": 1, "holdout": 0})
    number = training._register(job, {"networks": measured})
    services.registry.promote(UID, number, "better")
    training._finish(job, learned, number, "promoted")


def serving(services: Services, config: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Control → the version that learned what serves it, and its class → the label that is suggested."""
    champion = services.registry.champion(UID)
    assert champion is not None
    parts = parts_of(champion)
    since = {id(part.network): part.since or champion.name for part in parts}
    return {
        each.control.name: (
            since[id(each.loaded.network)],
            {each.loaded.names[index]: label for index, label in each.labels.items()},
        )
        for each in trained(parse_label_config(config), [unloaded(part) for part in parts])
    }


CARS = tag("RectangleLabels", "label", "Car", "Van")
OUTLINES = tag("PolygonLabels", "outline", "Roof")
SKY = tag("Choices", "sky", "clear", "grey")
HAND = tag("KeyPointLabels", "hand", "tip", "wrist", extra='model_add_bboxes="false"')
CAR, VAN = {"Car": "Car"}, {"Van": "Van"}
SKIES = {"clear": "clear", "grey": "grey"}

TABLE: dict[str, list[Step]] = {
    "a box is turned, and others follow": [
        Step(view(CARS), [[box("label", "Car")], [box("label", "Van")]], {"label": ("v1", CAR | VAN)}),
        Step(view(CARS), [[box("label", "Car", 30)], [box("label", "Van")]], {"label": ("v2", CAR | VAN)}),
        Step(view(CARS), [[box("label", "Car", 30)], [box("label", "Van", 9)]], {"label": ("v3", CAR | VAN)}),
    ],
    "the turned box is straightened again": [
        Step(view(CARS), [[box("label", "Car", 30)]], {"label": ("v1", CAR | VAN)}),
        Step(view(CARS), [[box("label", "Car")]], {"label": ("v2", CAR | VAN)}),
        Step(view(CARS), [[box("label", "Car", 30)]], {"label": ("v3", CAR | VAN)}),
    ],
    "the config forbids turned boxes": [
        Step(view(CARS), [[box("label", "Car", 30)]], {"label": ("v1", CAR | VAN)}),
        Step(
            view(tag("RectangleLabels", "label", "Car", "Van", extra='model_obb="false"')),
            [[box("label", "Car", 30)]],
            {"label": ("v2", CAR | VAN)},
        ),
    ],
    "turned boxes rest while another control is taught": [
        Step(view(CARS, OUTLINES), [[box("label", "Car", 30)]], {"label": ("v1", CAR | VAN)}),
        Step(
            view(CARS, OUTLINES),
            [[outline("outline", "Roof")]],
            {"label": ("v1", CAR | VAN), "outline": ("v2", {"Roof": "Roof"})},
        ),
        Step(
            view(CARS, OUTLINES),
            [[outline("outline", "Roof")], [box("label", "Car")]],
            {"label": ("v3", CAR | VAN), "outline": ("v3", {"Roof": "Roof"})},
        ),
    ],
    "of two controls with boxes one is turned": [
        Step(
            view(CARS, tag("RectangleLabels", "more", "Bus")),
            [[box("label", "Car"), box("more", "Bus")]],
            {"label": ("v1", CAR | VAN), "more": ("v1", {"Bus": "Bus"})},
        ),
        Step(
            view(CARS, tag("RectangleLabels", "more", "Bus")),
            [[box("label", "Car", 30), box("more", "Bus")]],
            {"label": ("v2", CAR | VAN), "more": ("v2", {"Bus": "Bus"})},
        ),
        Step(
            view(CARS, tag("RectangleLabels", "more", "Bus")),
            [[box("label", "Car", 30)]],
            {"label": ("v3", CAR | VAN), "more": ("v2", {"Bus": "Bus"})},
        ),
    ],
    "boxes, outlines and a question, one after the other": [
        Step(view(CARS, OUTLINES, SKY), [[box("label", "Car")]], {"label": ("v1", CAR | VAN)}),
        Step(
            view(CARS, OUTLINES, SKY),
            [[outline("outline", "Roof"), choice("sky", "grey")]],
            {"label": ("v1", CAR | VAN), "outline": ("v2", {"Roof": "Roof"}), "sky": ("v2", SKIES)},
        ),
        Step(
            view(CARS, OUTLINES, HAND, SKY),
            [[choice("sky", "clear")]],
            {"label": ("v1", CAR | VAN), "outline": ("v2", {"Roof": "Roof"}), "sky": ("v3", SKIES)},
        ),
    ],
    "points rest while outlines are taught": [
        Step(view(HAND, OUTLINES), [[point("hand", "tip")]], {"hand": ("v1", {"hand": "hand"})}),
        Step(
            view(HAND, OUTLINES),
            [[outline("outline", "Roof")]],
            {"hand": ("v1", {"hand": "hand"}), "outline": ("v2", {"Roof": "Roof"})},
        ),
    ],
    "a control is removed, and comes back before anything teaches it": [
        Step(
            view(CARS, OUTLINES),
            [[box("label", "Car"), outline("outline", "Roof")]],
            {"label": ("v1", CAR | VAN), "outline": ("v1", {"Roof": "Roof"})},
        ),
        Step(view(CARS), [[box("label", "Car")]], {"label": ("v2", CAR | VAN)}),
        Step(
            view(CARS, OUTLINES),
            [[box("label", "Van")]],
            {"label": ("v3", CAR | VAN), "outline": ("v1", {"Roof": "Roof"})},
        ),
    ],
    "a question is asked by another name": [
        Step(view(SKY), [[choice("sky", "clear")]], {"sky": ("v1", SKIES)}),
        Step(
            view(tag("Choices", "weather", "clear", "grey"), CARS),
            [[box("label", "Car")]],
            {"weather": ("v1", SKIES), "label": ("v2", CAR | VAN)},
        ),
    ],
    "boxes become outlines under the same name": [
        Step(view(CARS), [[box("label", "Car")]], {"label": ("v1", CAR | VAN)}),
        Step(
            view(tag("PolygonLabels", "label", "Car", "Van")), [[outline("label", "Car")]], {"label": ("v2", CAR | VAN)}
        ),
    ],
    "a label comes first in the list, goes, and comes back": [
        Step(view(CARS), [[box("label", "Car")]], {"label": ("v1", CAR | VAN)}),
        Step(
            view(tag("RectangleLabels", "label", "Bus", "Car", "Van")),
            [[box("label", "Car")], [box("label", "Bus")]],
            {"label": ("v2", {"Bus": "Bus", **CAR, **VAN})},
        ),
        Step(
            view(tag("RectangleLabels", "label", "Car", "Van")), [[box("label", "Car")]], {"label": ("v3", CAR | VAN)}
        ),
        Step(
            view(tag("RectangleLabels", "label", "Bus", "Car", "Van")),
            [[box("label", "Car")], [box("label", "Bus")]],
            {"label": ("v4", {"Bus": "Bus", **CAR, **VAN})},
        ),
    ],
}


@pytest.mark.parametrize("name", TABLE)
def test_the_newest_model_that_knows_a_control_serves_it(services: Services, name: str) -> None:
    for number, step in enumerate(TABLE[name], start=1):
        train(services, step.config, step.annotations)
        assert serving(services, step.config) == step.serves, f"after training {number}"


BEFORE = view(tag("RectangleLabels", "label", "Car", "Van"))

BETWEEN: dict[str, tuple[str, dict[str, str]]] = {
    "nothing": (BEFORE, {"Car": "Car", "Van": "Van"}),
    "a label more": (view(tag("RectangleLabels", "label", "Car", "Van", "Bus")), {"Car": "Car", "Van": "Van"}),
    "a label more, as the first": (
        view(tag("RectangleLabels", "label", "Bus", "Car", "Van")),
        {"Car": "Car", "Van": "Van"},
    ),
    "another order": (view(tag("RectangleLabels", "label", "Van", "Car")), {"Car": "Car", "Van": "Van"}),
    "a label less": (view(tag("RectangleLabels", "label", "Van")), {"Van": "Van"}),
    "a label renamed": (view(tag("RectangleLabels", "label", "Auto=Car", "Van")), {"Car": "Auto", "Van": "Van"}),
    "a label renamed without a word": (view(tag("RectangleLabels", "label", "Auto", "Van")), {"Van": "Van"}),
    "its old name used anew": (
        view(tag("RectangleLabels", "label", "Auto=Car", "Van", "Car")),
        {"Car": "Car", "Van": "Van"},
    ),
    "two labels swapped": (
        view(tag("RectangleLabels", "label", "Car=Van", "Van=Car")),
        {"Car": "Car", "Van": "Van"},
    ),
    "another case": (view(tag("RectangleLabels", "label", "CAR", "Van")), {"Car": "CAR", "Van": "Van"}),
    "two labels of which each could be meant": (
        view(tag("RectangleLabels", "label", "CAR", "car", "Van")),
        {"Van": "Van"},
    ),
    "the tag renamed": (view(tag("RectangleLabels", "box", "Car", "Van")), {"Car": "Car", "Van": "Van"}),
    "ellipses instead": (view(tag("EllipseLabels", "label", "Car", "Van")), {"Car": "Car", "Van": "Van"}),
    "outlines instead": (view(tag("PolygonLabels", "label", "Car", "Van")), {}),
    "a question instead": (view(tag("Choices", "label", "Car", "Van")), {}),
}


def test_until_the_next_training_no_class_is_called_by_another_labels_name(services: Services) -> None:
    train(services, BEFORE, [[box("label", "Car")], [box("label", "Van")]])
    for change, (config, labels) in BETWEEN.items():
        found = [mapped for _, mapped in serving(services, config).values()]
        assert found == ([labels] if labels else []), change


def test_labels_that_differ_in_case_only_are_not_taken_for_one_another(services: Services) -> None:
    train(services, view(tag("RectangleLabels", "label", "a", "A", "b")), [[box("label", "a")], [box("label", "A")]])
    for labels in (("a", "b"), ("A", "b"), ("b", "A", "a")):
        ((_, found),) = serving(services, view(tag("RectangleLabels", "label", *labels))).values()
        assert found == {label: label for label in labels}


def test_what_was_not_understood_is_news_once_it_is(services: Services) -> None:
    def boxes(*labels: str) -> str:
        tags = "".join(f'<Label value="{label}"/>' for label in labels)
        image = '<Image name="image" value="$image"/>'
        return f'<View>{image}<RectangleLabels name="box" toName="image">{tags}</RectangleLabels></View>'

    def drawn(label: str, width: float = 30) -> list[Region]:
        value = {"x": 10, "y": 10, "width": width, "height": 30, "rotation": 0, "rectanglelabels": [label]}
        return [{"from_name": "box", "to_name": "image", "type": "rectanglelabels", "value": value}]

    train(services, boxes("Car"), [*[drawn("Car")] * 4, drawn("Tree"), drawn("Car", width=0)])
    known = services.readings.annotations(UID)
    assert (known.used, known.training + known.validation, known.new, known.left_out) == (4, 4, 0, 2)
    assert [each.task_id for each in services.readings.problems(UID)] == [5, 6]
    assert services.ledger.progress(UID).new == 0
    services.store.save_project(UID, label_config=boxes("Car", "Tree"))
    services.readings.renew(UID)
    known = services.readings.annotations(UID)
    assert (known.new, known.left_out) == (1, 1)
    assert services.ledger.progress(UID).new == 1
