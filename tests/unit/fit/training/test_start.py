"""What a head keeps of what it knew, on the real layers of small networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.tiny import SIZE, tiny_yolo

from backend.fit.dataset.yolo_format import class_names
from backend.fit.training.head import FIRST, fired_on, lay_rows, rows_of, undecided
from backend.fit.training.spec import NetworkSpec, Spec
from backend.fit.training.start import initial, take_over
from backend.labels.networks import Network


@pytest.mark.parametrize(
    ("labels", "known", "fired", "rows"),
    [
        (["Car", "Bus"], {2: "Car", 5: "Bus"}, {}, [2, 5]),
        (["Bus", "Car"], {2: "Car", 5: "Bus"}, {}, [5, 2]),
        (["New", "Car"], {2: "Car"}, {}, [-1, 2]),
        (["New", "Car"], {2: "Car"}, {0: {5: 0.3, 7: 0.4}}, [7, 2]),
        (["Van", "Car"], {2: "Car"}, {0: {2: 0.8}}, [2, 2]),  # it was called a car so far
        (["Vehicle"], {2: "Vehicle", 5: "Vehicle"}, {0: {5: 0.6, 2: 0.5, 9: 5.0}}, [5]),
        (["Bus"], {2: "Bus", 5: "Bus"}, {}, [5]),  # none fires: the one of the same name
        (["Vehicle"], {2: "Vehicle", 7: "Vehicle"}, {}, [2]),
        ([], {2: "Car"}, {}, []),
    ],
)
def test_which_row_a_label_starts_from(
    labels: Sequence[str], known: Mapping[int, str], fired: Mapping[int, Mapping[int, float]], rows: Sequence[int]
) -> None:
    assert rows_of(labels, known, {2: "Car", 5: "Bus", 7: "Truck", 9: "Dog"}, fired) == rows


def test_what_fires_is_asked_for_new_labels_and_those_of_several_classes() -> None:
    assert undecided(["Car", "New", "Vehicle"], {2: "Car", 5: "Vehicle", 7: "Vehicle"}) == [1, 2]


def network_of(path: Path, names: Sequence[str], *, scrambled: bool = True) -> Path:
    """A network whose rows all differ."""
    import torch
    from ultralytics import YOLO

    tiny_yolo(path, names, {0: (0, 0.5)})
    model = YOLO(str(path))
    for branch in model.model.model[-1].cv3:
        torch.nn.init.normal_(branch[-1].weight, generator=torch.Generator().manual_seed(1))
        torch.nn.init.normal_(branch[-1].bias, generator=torch.Generator().manual_seed(2))
    model.save(str(path))
    return path


def heads(model: Any) -> list[tuple[Any, Any]]:
    return [(branch[-1].weight.detach().clone(), branch[-1].bias.detach().clone()) for branch in model.model[-1].cv3]


def as_trained(model: Any, classes: Sequence[str]) -> Any:
    """The network that ultralytics' trainer makes of a model."""
    from ultralytics.cfg import DEFAULT_CFG_DICT
    from ultralytics.models.yolo.detect import DetectionTrainer

    trainer = DetectionTrainer.__new__(DetectionTrainer)
    trainer.args = type("Args", (), DEFAULT_CFG_DICT)()
    names = dict(enumerate(class_names(classes)))
    trainer.data = {"names": names, "nc": len(names), "channels": 3}
    return trainer.get_model(cfg=model.model.yaml, weights=model.model, verbose=False)


def started(
    folder: Path,
    weights: Path,
    labels: Sequence[str],
    *,
    own: Sequence[str] = (),
    config: str = "",
    images: Sequence[Path] = (),
) -> Any:
    """The network that a training on these labels begins with."""
    network = Network("detect", "detect", tuple(labels), ("label",))
    known = Network("detect", "detect", tuple(own), ("label",), own=bool(own))
    entries = config or "".join(f'<Label value="{label}"/>' for label in labels)
    view = f'<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">{entries}'
    (folder / "train.txt").write_text("\n".join(map(str, images)))
    todo = NetworkSpec(asdict(network), str(folder), "", str(weights), 1, SIZE, str(weights), asdict(known), SIZE)
    spec = Spec(str(folder), f"{view}</RectangleLabels></View>", [todo], "", 1.0, 1, "cpu", 50)
    model, warm = initial(todo, network)
    assert warm
    take_over(model, todo, spec)
    return as_trained(model, labels)


def same_rows(before: list[tuple[Any, Any]], after: list[tuple[Any, Any]], pairs: Mapping[int, int]) -> bool:
    return all(
        bool((old[0][row] == new[0][index]).all() and old[1][row] == new[1][index])
        for old, new in zip(before, after, strict=True)
        for row, index in pairs.items()
    )


BASE = ("person", "car", "dog", "bird")


@pytest.mark.parametrize(
    ("labels", "pairs"),
    [
        (("person", "car", "dog", "bird"), {0: 0, 1: 1, 2: 2, 3: 3}),
        (("bird", "dog", "car", "person"), {3: 0, 2: 1, 1: 2, 0: 3}),
        (("car", "dog", "bird"), {1: 0, 2: 1, 3: 2}),  # one fewer
        (("New", "person", "car", "dog", "bird"), {0: 1, 1: 2, 2: 3, 3: 4}),  # one more
        (("Car", "DOG"), {1: 0, 2: 1}),  # in another case
        (("dog",), {2: 0}),
        (("New", "car", "Other", "bird"), {1: 1, 3: 3}),  # as many as before, but others
    ],
)
def test_classes_that_labels_name_keep_their_weights(
    tmp_path: Path, labels: Sequence[str], pairs: Mapping[int, int]
) -> None:
    weights = network_of(tmp_path / "base.pt", BASE)
    model, _ = initial(NetworkSpec({}, "", "", str(weights), 1, SIZE), Network("detect", "detect", ()))
    before = heads(model.model)
    made = started(tmp_path, weights, labels)
    assert same_rows(before, heads(made), pairs)
    # Labels that the base does not know start from nobody's weights, not from those of the class at their place.
    for index in set(range(len(labels))) - set(pairs.values()):
        for row in range(len(BASE)):
            assert not same_rows(before, heads(made), {row: index})
    # All other layers are those of the base.
    theirs, ours = model.model.state_dict(), made.state_dict()
    equal = [name for name, value in theirs.items() if value.shape == ours[name].shape and (value == ours[name]).all()]
    last = [name for name in theirs if ".cv3." in name and name.split(".")[-2] == "2"]
    assert {*equal, *last} == set(theirs) == set(ours)


def test_a_training_begun_again_begins_with_the_same_weights(tmp_path: Path) -> None:
    weights = network_of(tmp_path / "base.pt", BASE)
    one, two = (heads(started(tmp_path, weights, ("New", "Other"))) for _ in range(2))
    assert same_rows(one, two, {0: 0, 1: 1})
    assert not same_rows(one, two, {0: 1})


@pytest.mark.parametrize("labels", [("New", "Disc", "Square"), ("Disc", "Square", "New"), ("Disc", "New", "Square")])
def test_a_label_that_is_added_leaves_the_others_as_they_are(tmp_path: Path, labels: Sequence[str]) -> None:
    weights = network_of(tmp_path / "own.pt", ("Disc", "Square"))
    model, _ = initial(NetworkSpec({}, "", "", str(weights), 1, SIZE), Network("detect", "detect", ()))
    made = started(tmp_path, weights, labels, own=("Disc", "Square"))
    assert same_rows(heads(model.model), heads(made), {0: labels.index("Disc"), 1: labels.index("Square")})


def test_labels_in_two_cases_and_labels_that_are_numbers(tmp_path: Path) -> None:
    for labels in (("a", "A", "b"), ("0", "1", "2")):
        weights = network_of(tmp_path / "own.pt", labels)
        model, _ = initial(NetworkSpec({}, "", "", str(weights), 1, SIZE), Network("detect", "detect", ()))
        made = started(tmp_path, weights, labels[::-1], own=labels)
        assert same_rows(heads(model.model), heads(made), {0: 2, 1: 1, 2: 0})


def picture(folder: Path, number: int, lines: str) -> Path:
    """A prepared image with its label file."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(exist_ok=True)
    path = folder / "images" / f"{number}.png"
    cv2.imwrite(str(path), np.full((SIZE, SIZE, 3), 128, np.uint8))
    (folder / "labels" / f"{number}.txt").write_text(lines)
    return path


MIDDLE = "{} 0.25 0.25 0.5 0.5"
"""A box around the first cell of `tiny_yolo`'s middle grid."""


def test_a_new_label_starts_from_the_class_that_fires_on_its_objects(tmp_path: Path) -> None:
    weights = tiny_yolo(tmp_path / "base.pt", BASE, {1: (2, 0.7)})
    image = picture(tmp_path, 0, MIDDLE.format(1))
    model, _ = initial(NetworkSpec({}, "", "", str(weights), 1, SIZE), Network("detect", "detect", ()))
    made = started(tmp_path, weights, ("car", "Wolf"), images=[image])
    assert same_rows(heads(model.model), heads(made), {1: 0, 2: 1})


def test_of_several_classes_of_a_label_the_one_that_fires_stays(tmp_path: Path) -> None:
    weights = tiny_yolo(tmp_path / "base.pt", BASE, {1: (3, 0.7)})
    image = picture(tmp_path, 0, MIDDLE.format(0))
    model, _ = initial(NetworkSpec({}, "", "", str(weights), 1, SIZE), Network("detect", "detect", ()))
    config = '<Label value="Animal" predicted_values="dog,bird"/>'
    made = started(tmp_path, weights, ("Animal",), config=config, images=[image])
    assert same_rows(heads(model.model), heads(made), {3: 0})


class TestFiring:
    def found(self, folder: Path, lines: Sequence[str], classes: Sequence[int], score: float = 0.7) -> Any:
        from backend.engine.torch import TorchDetector

        weights = tiny_yolo(folder / "base.pt", BASE, {1: (2, score)})
        images = [picture(folder, number, each) for number, each in enumerate(lines)]
        detector = TorchDetector(weights, device="cpu", image_size=SIZE)
        return fired_on(detector, images, classes)

    def test_scores_on_the_objects_are_added_up(self, tmp_path: Path) -> None:
        assert self.found(tmp_path, [MIDDLE.format(1)] * 2, [1]) == {1: {2: pytest.approx(1.4, abs=0.01)}}

    @pytest.mark.parametrize(
        ("line", "classes"),
        [
            ("1 0.9 0.9 0.02 0.02", [1]),  # the detections are elsewhere
            (MIDDLE.format(0), [1]),  # another label
            ("", [1]),
        ],
    )
    def test_nothing_fires(self, tmp_path: Path, line: str, classes: Sequence[int]) -> None:
        assert self.found(tmp_path, [line], classes) == {}

    def test_weak_scores_say_nothing(self, tmp_path: Path) -> None:
        assert self.found(tmp_path, [MIDDLE.format(1)], [1], score=0.03) == {}

    def test_only_the_first_images_are_looked_at(self, tmp_path: Path) -> None:
        found = self.found(tmp_path, [MIDDLE.format(1)] * (FIRST + 2), [1])
        assert found[1][2] == pytest.approx(0.7 * FIRST, abs=0.1)

    def test_images_that_are_gone_say_nothing(self, tmp_path: Path) -> None:
        from backend.engine.torch import TorchDetector

        detector = TorchDetector(tiny_yolo(tmp_path / "base.pt", BASE, {}), device="cpu", image_size=SIZE)
        assert fired_on(detector, [tmp_path / "images" / "gone.png"], [0]) == {}


@pytest.mark.parametrize("name", ["yolo11n-seg.yaml", "yolo11n-obb.yaml", "yolo11n-pose.yaml", "yolo26n-seg.yaml"])
def test_heads_of_other_tasks_and_families(name: str) -> None:
    from ultralytics import YOLO

    network = YOLO(name).model
    kinds = [kind for kind in ("cv3", "one2one_cv3") if getattr(network.model[-1], kind, None) is not None]
    before = {kind: [branch[-1].weight.clone() for branch in getattr(network.model[-1], kind)] for kind in kinds}
    assert lay_rows(network, [0, -1], ["a", "b"])
    assert (network.model[-1].nc, network.names, network.yaml["nc"]) == (2, {0: "a", 1: "b"}, 2)
    for kind in kinds:
        for old, branch in zip(before[kind], getattr(network.model[-1], kind), strict=True):
            assert branch[-1].out_channels == 2
            assert (branch[-1].weight[0] == old[0]).all()
    masks = getattr(getattr(network.model[-1], "proto", None), "semseg", None)
    assert masks is None or masks[-1].out_channels == 2
