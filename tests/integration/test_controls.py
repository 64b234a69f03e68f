"""Several controls in one labelling config: which model suggests for which, and that each image is run once."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from label_studio_sdk.label_interface import LabelInterface
from support.bodies import UID, config, picture, predict, setup, task
from support.shapes import LABELS
from support.tiny import SIZE
from support.waiting import wait_for

from backend.app import create_app
from backend.labels.networks import Network
from backend.labels.schema import parse_label_config
from backend.predict.sampling import FLOOR
from backend.served_models.parts import TAG, Part, dump, parts_of
from backend.served_models.served import own_suggestions
from backend.served_models.thresholds import ThresholdPolicy
from backend.served_models.version_string import fingerprint
from backend.server.process import Serving
from model_registry import RegistryError, Version

Start = Callable[..., Serving]
Weights = Callable[[Sequence[str], Mapping[int, tuple[int, float]]], Path]

DISC, SQUARE, TRIANGLE = ('<Label value="Disc"/>', '<Label value="Square"/>', '<Label value="Triangle"/>')
IMAGE = '<Image name="image" value="$image"/>'


def view(*controls: str, image: str = IMAGE) -> str:
    return f"<View>{image}{''.join(controls)}</View>"


def tag(kind: str, name: str, *labels: str, extra: str = "") -> str:
    return f'<{kind} name="{name}" toName="image" {extra}>{"".join(labels)}</{kind}>'


def answer(client: FlaskClient, label_config: str, image: Any = None) -> dict[str, Any]:
    response = client.post("/predict", json=predict([task(1, image)], label_config))
    assert response.status_code == 200, response.text
    (entry,) = response.get_json()["results"]
    assert "result" in entry, entry
    assert LabelInterface(label_config).validate_prediction(entry, return_errors=True) == []
    found: dict[str, Any] = entry
    return found


def said(entry: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Control → label → best score."""
    found: dict[str, dict[str, float]] = {}
    for region in entry["result"]:
        labels = region["value"].get(region["type"])
        for label in labels if isinstance(labels, list) else []:
            scores = found.setdefault(region["from_name"], {})
            scores[label] = max(scores.get(label, 0.0), round(region["score"], 2))
    return found


def report(client: FlaskClient) -> dict[str, dict[str, Any]]:
    (project,) = client.get(f"/report?project={UID}").get_json()["projects"]
    return {each["control"]: each for each in project["controls"]}


@pytest.fixture
def passes(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """What was handed to the device: model and least score, once for each image."""
    seen: list[tuple[int, float]] = []
    submit = serving.engine.pool.submit

    def counted(detector: Any, image: Any, conf: float, **how: Any) -> Any:
        seen.append((id(detector), conf))
        return submit(detector, image, conf, **how)

    monkeypatch.setattr(serving.engine.pool, "submit", counted)
    return seen


def provide(serving: Serving, weights: Path, name: str) -> None:
    """Put a file into YOLOOP_MODELS."""
    shutil.copyfile(weights, serving.settings.models_dir / name)


keys = itertools.count()


def register(serving: Serving, label_config: str, *parts: tuple[Part, Path]) -> Version:
    """The next version of the project, as a training registers it."""
    schema = parse_label_config(label_config)
    networks = [part for part, _ in parts]

    def pinned(number: int) -> tuple[Part, ...]:
        try:
            return parts_of(serving.services.registry.version(UID, number))
        except RegistryError:
            return ()

    return serving.services.registry.register(
        UID,
        f"training {next(keys)}",
        {part.file: path for part, path in parts},
        metrics={},
        params={},
        tags={
            TAG: dump(networks),
            "classes": json.dumps([name for part in networks for name in part.network.classes]),
            "fingerprint": fingerprint(own_suggestions(schema, networks, pinned), ThresholdPolicy.of(serving.settings)),
        },
    )


def promote(serving: Serving, client: FlaskClient, made: Version, label_config: str) -> str:
    """Put it in service and wait until it answers. Returns the model version that is told then."""
    serving.services.registry.promote(UID, made.number, "better")

    def told() -> str:
        version = str(client.post("/setup", json=setup(label_config)).get_json()["model_version"])
        return version if version.removeprefix("yoloop-").split("-")[0] == made.name else ""

    return wait_for(told, what=f"/setup to say {made.name}", pause=0.02)


def detect(
    classes: Sequence[str], *controls: str, key: str = "detect", file: str = "weights.pt", size: int = SIZE
) -> Part:
    return Part(Network(key, "detect", tuple(classes), controls), file, size)


def test_each_page_has_its_own_regions(client: FlaskClient, passes: list[tuple[int, float]]) -> None:
    pages = view(
        tag("RectangleLabels", "label", DISC, SQUARE), image='<Image name="image" valueList="$image" value="$image"/>'
    )
    entry = answer(client, pages, [picture(200, 100), picture(80, 120)])
    sizes = {(region["item_index"], region["original_width"]) for region in entry["result"]}
    assert sizes == {(0, 200), (1, 80)}
    assert said(entry) == {"label": {"Disc": 0.9, "Square": 0.6}}
    assert len({region["id"] for region in entry["result"]}) == len(entry["result"])
    assert len(passes) == 2


def test_a_page_that_cannot_be_read_fails_the_task(client: FlaskClient) -> None:
    pages = view(tag("RectangleLabels", "label", DISC), image='<Image name="image" valueList="$image"/>')
    tasks = [task(1, [picture(), "data:image/png;base64,AAAA"]), task(2, []), task(3, [picture(), None])]
    entries = client.post("/predict", json=predict([*tasks, task(4, [picture()])], pages)).get_json()["results"]
    assert ["result" in entry for entry in entries] == [False, False, False, True]


def test_controls_on_one_image_share_its_pass(client: FlaskClient, passes: list[tuple[int, float]]) -> None:
    both = view(
        tag("RectangleLabels", "boxes", DISC, TRIANGLE, extra='model_score_threshold="0.05"'),
        tag("EllipseLabels", "round", DISC, SQUARE, extra='model_score_threshold="0.7"'),
    )
    entry = answer(client, both)
    assert said(entry) == {"boxes": {"Disc": 0.9, "Triangle": 0.1}, "round": {"Disc": 0.9}}
    assert {region["type"] for region in entry["result"]} == {"rectanglelabels", "ellipselabels"}
    # Once, and deep enough to know what was nearly suggested.
    assert [conf for _, conf in passes] == [FLOOR["detect"]]


def test_a_control_can_be_left_alone(client: FlaskClient) -> None:
    skipping = view(
        tag("RectangleLabels", "boxes", DISC, extra='model_skip="true"'), tag("EllipseLabels", "round", DISC, SQUARE)
    )
    assert said(answer(client, skipping)) == {"round": {"Disc": 0.9, "Square": 0.6}}
    client.post("/setup", json=setup(skipping))
    assert set(report(client)) == {"round"}


def test_skipping_everything_is_no_error(client: FlaskClient) -> None:
    nothing = view(tag("RectangleLabels", "boxes", DISC, extra='model_skip="true"'))
    assert client.post("/setup", json=setup(nothing)).status_code == 200
    (entry,) = client.post("/predict", json=predict([task(1)], nothing)).get_json()["results"]
    assert set(entry) == {"model_version", "error"}


def test_a_control_with_a_model_of_its_own(
    client: FlaskClient, serving: Serving, weights: Weights, passes: list[tuple[int, float]]
) -> None:
    provide(serving, weights(["round thing", "Square"], {0: (0, 0.8)}), "other.pt")
    two = view(
        tag("RectangleLabels", "boxes", DISC, SQUARE),
        tag(
            "EllipseLabels",
            "round",
            '<Label value="Disc" predicted_values="round thing"/>',
            SQUARE,
            extra='model_path="other.pt"',
        ),
    )
    entry = answer(client, two)
    assert said(entry) == {"boxes": {"Disc": 0.9, "Square": 0.6}, "round": {"Disc": 0.8}}
    assert len({model for model, _ in passes}) == len(passes) == 2
    client.post("/setup", json=setup(two))
    assert {name: each["model"] for name, each in report(client).items()} == {"boxes": "tiny.pt", "round": "other.pt"}


@pytest.mark.parametrize(
    "model_path", ["unknown.pt", "../outside.pt", "/etc/passwd.pt", "tiny.yaml", "v3", "v0", "broken.pt"]
)
def test_a_model_that_cannot_be_had_costs_only_its_control(
    client: FlaskClient, serving: Serving, weights: Weights, model_path: str
) -> None:
    shutil.copyfile(weights(LABELS, {0: (0, 0.8)}), serving.settings.models_dir.parent / "outside.pt")
    (serving.settings.models_dir / "broken.pt").write_bytes(b"junk")
    two = view(
        tag("RectangleLabels", "boxes", DISC, SQUARE),
        tag("EllipseLabels", "round", DISC, extra=f'model_path="{model_path}"'),
    )
    assert said(answer(client, two)) == {"boxes": {"Disc": 0.9, "Square": 0.6}}
    client.post("/setup", json=setup(two))
    found = report(client)
    assert (found["boxes"]["model"], found["round"]["model"]) == ("tiny.pt", "")


def test_a_model_of_another_task_suggests_nothing(client: FlaskClient) -> None:
    # The tests' base model stands for all tasks, but finds boxes only.
    mixed = view(tag("RectangleLabels", "boxes", DISC), tag("PolygonLabels", "outline", DISC))
    assert said(answer(client, mixed)) == {"boxes": {"Disc": 0.9}}


def test_a_version_of_two_models(
    client: FlaskClient, serving: Serving, weights: Weights, passes: list[tuple[int, float]]
) -> None:
    two = view(
        tag("RectangleLabels", "boxes", DISC, SQUARE),
        tag("EllipseLabels", "round", SQUARE, DISC, extra='model_path="other.pt"'),
    )
    first = detect(["Disc", "Square"], "boxes")
    second = detect(["Square", "Disc"], "round", key="detect@other.pt", file="weights-1.pt", size=2 * SIZE)
    made = register(
        serving,
        two,
        (first, weights(["Disc", "Square"], {0: (0, 0.8)})),
        (second, weights(["Square", "Disc"], {1: (0, 0.7)})),
    )
    assert promote(serving, client, made, two) == "yoloop-v1"
    entry = answer(client, two)
    assert entry["model_version"] == "yoloop-v1"
    assert said(entry) == {"boxes": {"Disc": 0.8}, "round": {"Square": 0.7}}
    assert len({model for model, _ in passes}) == len(passes) == 2
    assert {name: each["model"] for name, each in report(client).items()} == {"boxes": "v1", "round": "v1"}


def test_a_version_is_served_whole_or_not_at_all(
    client: FlaskClient, serving: Serving, weights: Weights, tmp_path: Path
) -> None:
    two = view(tag("RectangleLabels", "boxes", DISC), tag("EllipseLabels", "round", SQUARE))
    client.post("/setup", json=setup(two))
    (tmp_path / "junk.pt").write_bytes(b"junk")
    first = detect(["Disc"], "boxes")
    second = detect(["Square"], "round", key="detect@other.pt", file="weights-1.pt")
    register(serving, two, (first, weights(["Disc"], {0: (0, 0.8)})), (second, tmp_path / "junk.pt"))
    serving.services.registry.promote(UID, 1, "by mistake")
    tried = serving.settings.root / "registry" / "local" / UID / "1" / "weights-1.pt"
    wait_for(lambda: tried.exists(), pause=0.02)
    entry = answer(client, two)
    assert entry["model_version"] == "yoloop-v0"
    assert said(entry) == {"boxes": {"Disc": 0.9}, "round": {"Square": 0.6}}


def test_a_control_that_stays_with_a_version(client: FlaskClient, serving: Serving, weights: Weights) -> None:
    pinned = view(
        tag("RectangleLabels", "boxes", DISC, SQUARE), tag("EllipseLabels", "round", DISC, extra='model_path="v1"')
    )
    before = pinned.replace('model_path="v1"', "")
    old = register(
        serving, before, (detect(["Disc", "Square"], "boxes", "round"), weights(["Disc", "Square"], {0: (0, 0.8)}))
    )
    # Already before version 1 is promoted.
    assert said(answer(client, pinned)) == {"boxes": {"Disc": 0.9, "Square": 0.6}, "round": {"Disc": 0.8}}
    promote(serving, client, old, pinned)
    assert said(answer(client, pinned)) == {"boxes": {"Disc": 0.8}, "round": {"Disc": 0.8}}
    new = register(
        serving, pinned, (detect(["Disc", "Square"], "boxes"), weights(["Disc", "Square"], {0: (0, 0.7), 1: (1, 0.5)}))
    )
    promote(serving, client, new, pinned)
    entry = answer(client, pinned)
    assert entry["model_version"].split("-")[:2] == ["yoloop", "v2"]
    assert said(entry) == {"boxes": {"Disc": 0.7, "Square": 0.5}, "round": {"Disc": 0.8}}
    assert {name: each["model"] for name, each in report(client).items()} == {"boxes": "v2", "round": "v1"}


def test_a_version_registered_with_a_pinned_control_needs_no_mention_of_it(
    client: FlaskClient, serving: Serving, weights: Weights
) -> None:
    pinned = view(tag("RectangleLabels", "boxes", DISC), tag("EllipseLabels", "round", DISC, extra='model_path="v1"'))
    register(serving, pinned, (detect(["Disc"], "boxes"), weights(["Disc"], {0: (0, 0.8)})))
    new = register(serving, pinned, (detect(["Disc"], "boxes"), weights(["Disc"], {0: (0, 0.7)})))
    assert promote(serving, client, new, pinned) == "yoloop-v2"
    assert answer(client, pinned)["model_version"] == "yoloop-v2"


def test_renamed_and_new_labels(client: FlaskClient, serving: Serving, weights: Weights) -> None:
    before = view(tag("RectangleLabels", "label", '<Label value="Old"/>', SQUARE))
    after = view(
        tag(
            "RectangleLabels",
            "label",
            '<Label value="New name" predicted_values="Old"/>',
            '<Label value="Never seen"/>',
        )
    )
    finds = weights(["Old", "Square"], {0: (0, 0.8), 1: (1, 0.7)})
    made = register(serving, before, (detect(["Old", "Square"], "label"), finds))
    assert promote(serving, client, made, before) == "yoloop-v1"
    assert said(answer(client, before)) == {"label": {"Old": 0.8, "Square": 0.7}}
    renamed = client.post("/setup", json=setup(after)).get_json()["model_version"]
    assert renamed.startswith("yoloop-v1-")
    entry = answer(client, after)
    assert entry["model_version"] == renamed
    assert said(entry) == {"label": {"New name": 0.8}}
    found = report(client)["label"]
    assert found["classes"] == {"Old": "New name"}
    assert (found["unmapped_classes"], found["unmapped_labels"]) == (["Square"], ["Never seen"])


def test_labels_apart_from_what_draws(client: FlaskClient, serving: Serving, weights: Weights) -> None:
    split = view(
        tag("Labels", "label", DISC, SQUARE),
        '<Rectangle name="box" toName="image"/><Ellipse name="round" toName="image"/>',
    )

    def drawn_with(entry: Mapping[str, Any]) -> set[str]:
        by_id: dict[str, list[dict[str, Any]]] = {}
        for region in entry["result"]:
            by_id.setdefault(region["id"], []).append(region)
        for pair in by_id.values():
            assert sorted(region["type"] == "labels" for region in pair) == [False, True]
        return {region["from_name"] for region in entry["result"] if region["type"] != "labels"}

    entry = answer(client, split)
    assert said(entry) == {"label": {"Disc": 0.9, "Square": 0.6}}
    assert drawn_with(entry) == {"box"}  # not every object twice
    finds = weights(["Disc", "Square"], {0: (1, 0.8)})
    made = register(serving, split, (detect(["Disc", "Square"], "round"), finds))
    assert promote(serving, client, made, split) == "yoloop-v1"
    entry = answer(client, split)
    assert said(entry) == {"label": {"Square": 0.8}}
    assert drawn_with(entry) == {"round"}


def test_a_version_without_parts_serves_boxes_and_ellipses(
    client: FlaskClient, serving: Serving, weights: Weights
) -> None:
    two = view(
        tag("RectangleLabels", "boxes", DISC), tag("EllipseLabels", "round", SQUARE), tag("BrushLabels", "paint", DISC)
    )
    made = serving.services.registry.register(
        UID,
        "by version 0.1",
        {"weights.pt": weights(["Disc", "Square"], {0: (0, 0.8), 1: (1, 0.7)})},
        metrics={},
        params={},
        tags={"classes": '["Disc", "Square"]', "image_size": str(SIZE)},
    )
    promote(serving, client, made, two)
    assert said(answer(client, two)) == {"boxes": {"Disc": 0.8}, "round": {"Square": 0.7}}
    assert said(answer(client, config())) == {"label": {"Disc": 0.8, "Square": 0.7}}


def test_a_version_that_cannot_be_loaded_is_not_answered_in_part(
    client: FlaskClient, serving: Serving, weights: Weights, tmp_path: Path
) -> None:
    pinned = view(
        tag("RectangleLabels", "boxes", DISC, SQUARE), tag("EllipseLabels", "round", DISC, extra='model_path="v1"')
    )
    (tmp_path / "junk.pt").write_bytes(b"junk")
    register(serving, pinned, (detect(["Disc"], "round"), weights(["Disc"], {0: (0, 0.8)})))
    register(serving, pinned, (detect(["Disc", "Square"], "boxes"), tmp_path / "junk.pt"))
    serving.services.registry.promote(UID, 2, "by mistake")
    (entry,) = client.post("/predict", json=predict([task(1)], pinned)).get_json()["results"]
    # Else Label Studio would keep it as all that v2 has to say.
    assert set(entry) == {"model_version", "error"}
    assert "v2" in entry["error"]


def test_a_file_that_a_config_names_is_still_downloaded_for_others(
    start: Start, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(name: str, folder: Path) -> None:
        asked.append(name)
        shutil.copyfile(weights(LABELS, {0: (0, 0.9)}), folder / name)

    monkeypatch.setattr("backend.served_models.base_model._download", download)
    client = create_app(serving=start(base_model="yolo11n.pt", offline=False)).test_client()
    boxes = tag("RectangleLabels", "boxes", DISC)
    assert said(answer(client, view(boxes, tag("PolygonLabels", "outline", DISC, extra='model_path="yolo11n-seg.pt"'))))
    assert asked == ["yolo11n.pt"]
    assert said(answer(client, view(boxes, tag("PolygonLabels", "outline", DISC))))
    assert asked == ["yolo11n.pt", "yolo11n-seg.pt"]
