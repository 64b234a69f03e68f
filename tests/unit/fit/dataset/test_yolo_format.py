from __future__ import annotations

import json
import math
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backend.fit.dataset.yolo_format import as_yaml, class_names, label_line
from backend.labels.geometry import Box, Detection, ImageSize, Mask, Point, RotatedBox
from backend.labels.networks import Task
from backend.labels.outline import fill

SIZE = ImageSize(640, 480)
WHOLE = Box(0, 0, 1, 1)
TASKS: tuple[Task, ...] = ("detect", "obb", "segment", "pose")

sides = st.integers(1, 20_000)
shares = st.floats(-2, 3)
lengths = st.floats(0.001, 2)


def numbers(line: str | None) -> list[float]:
    assert line is not None
    return [float(each) for each in line.split()[1:]]


def polygon(line: str | None, size: ImageSize) -> NDArray[np.float64]:
    """What a line of obb and segment draws, in pixels."""
    return np.array(numbers(line)).reshape(-1, 2) * (size.width, size.height)


def area(points: NDArray[np.float64]) -> float:
    x, y = (points - points[0]).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def turned(cx: float, cy: float, width: float, height: float, angle: float) -> Detection:
    return Detection(0, 1.0, WHOLE, rotated=RotatedBox(cx, cy, width, height, angle))


def masked(mask: Mask | None) -> Detection:
    return Detection(3, 1.0, WHOLE, mask=mask)


def ring(*, side: int = 60, hole: int = 12, x: int = 5, y: int = 7) -> Mask:
    row, column = np.mgrid[:side, :side] - (side - 1) / 2
    distance = np.hypot(row, column)
    return Mask(x, y, (distance < side / 2) & (distance > hole))


def blob(seed: int, side: int, grain: float) -> NDArray[np.bool_]:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((side, side)).astype(np.float32), (0, 0), grain)
    return cast("NDArray[np.bool_]", noise > np.median(noise))


@given(sides, sides, shares, shares, shares, shares, st.lists(st.tuples(shares, shares, st.floats(0, 1)), max_size=4))
def test_boxes_and_points_over_the_edge_stay_in_range(
    width: int, height: int, x1: float, y1: float, x2: float, y2: float, places: list[tuple[float, float, float]]
) -> None:
    size = ImageSize(width, height)
    box = Box(x1 * width, y1 * height, x2 * width, y2 * height)
    points = tuple(Point(x * width, y * height, score) for x, y, score in places)
    found = Detection(2, 1.0, box, points=points)
    for task in ("detect", "pose"):
        line = label_line(cast("Task", task), found, size, keypoints=3)
        if line is None:
            # Thinner than a float can tell apart near 1, if it is there at all.
            assert min(min(x2, 1) - max(x1, 0), min(y2, 1) - max(y1, 0)) < 1e-9
            continue
        assert line.startswith("2 ")
        cx, cy, across, down, *triples = numbers(line)
        assert all(0 <= each <= 1 for each in (cx, cy, across, down))
        assert cx - across / 2 == pytest.approx(max(x1, 0), abs=1e-6)
        assert cx + across / 2 == pytest.approx(min(x2, 1), abs=1e-6)
        assert cy - down / 2 == pytest.approx(max(y1, 0), abs=1e-6)
        assert cy + down / 2 == pytest.approx(min(y2, 1), abs=1e-6)
        assert len(triples) == (9 if task == "pose" else 0)
        assert all(0 <= each <= 1 for index, each in enumerate(triples) if index % 3 < 2)
        assert set(triples[2::3]) <= {0.0, 2.0}


@given(sides, sides, shares, shares, lengths, lengths, st.floats(-720, 720))
def test_turned_boxes_over_the_edge_stay_in_range(
    width: int, height: int, cx: float, cy: float, across: float, down: float, angle: float
) -> None:
    size = ImageSize(width, height)
    found = turned(cx * width, cy * height, across * width, down * height, angle)
    line = label_line("obb", found, size)
    if line is None:
        # Another way to see it: the centre of a box is on itself.
        assert not (0.01 < cx < 0.99 and 0.01 < cy < 0.99 and across * width > 0.5 and down * height > 0.5)
        return
    values = numbers(line)
    assert len(values) >= 6
    assert len(values) % 2 == 0
    assert all(0 <= each <= 1 for each in values)
    # What is written is a part of the box: seen along its own sides, no point is farther out than its corners.
    rotated = cast("RotatedBox", found.rotated)
    turn = math.radians(angle)
    offsets = polygon(line, size) - (rotated.cx, rotated.cy)
    own = offsets @ np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    assert (np.abs(own) <= np.array([rotated.width, rotated.height]) / 2 + 0.05 + 1e-6 * max(width, height)).all()


@given(st.integers(30, 4000), st.integers(30, 4000), st.floats(0, 1), st.floats(0, 1), st.data())
def test_a_turned_box_inside_is_read_back_by_ultralytics(
    width: int, height: int, x: float, y: float, data: st.DataObject
) -> None:
    size = ImageSize(width, height)
    half = min(width, height) / 2
    reach = data.draw(st.floats(4, half - 1))  # of the corners from the centre
    lean = data.draw(st.floats(0.15, math.pi / 2 - 0.15))
    angle = data.draw(st.floats(-360, 360))
    rotated = RotatedBox(
        reach + x * (width - 2 * reach),
        reach + y * (height - 2 * reach),
        2 * reach * math.cos(lean),
        2 * reach * math.sin(lean),
        angle,
    )
    line = label_line("obb", Detection(0, 1.0, WHOLE, rotated=rotated), size)
    read = cv2.boxPoints(cv2.minAreaRect(polygon(line, size).astype(np.float32)))
    apart = np.hypot(*(rotated.corners()[:, None] - read).transpose(2, 0, 1))
    assert apart.min(axis=1).max() < 0.5
    assert apart.min(axis=0).max() < 0.5


def test_a_turned_box_over_the_edge_is_cut_there() -> None:
    # A square on its corner, about the image's left top corner: a triangle of it is to be seen.
    seen = polygon(label_line("obb", turned(0, 0, 100, 100, 45), SIZE), SIZE)
    assert area(seen) == pytest.approx(100 * 100 / 4, rel=1e-4)
    assert seen.min() == 0
    assert seen.max() == pytest.approx(100 / math.sqrt(2), rel=1e-4)


def test_a_turned_box_around_the_image_is_the_image() -> None:
    assert area(polygon(label_line("obb", turned(320, 240, 5000, 5000, 30), SIZE), SIZE)) == pytest.approx(640 * 480)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 90), st.floats(1.5, 12), st.integers(0, 40), st.integers(0, 40))
def test_masks_are_filled_again(seed: int, side: int, grain: float, x: int, y: int) -> None:
    mask = Mask(x, y, blob(seed, side, grain))
    size = ImageSize(x + side, y + side)  # it reaches to the edges
    line = label_line("segment", masked(mask), size)
    if line is None:
        assert not mask.bits.any()
        return
    assert all(0 <= each <= 1 for each in numbers(line))
    filled = fill(polygon(line, size), size)
    assert filled is not None
    left, right = mask.full(size), filled.full(size)
    assert (left & right).sum() / (left | right).sum() >= 0.95


@pytest.mark.parametrize(
    "mask",
    [
        ring(),
        Mask(0, 0, np.ones((480, 640), bool)),
        Mask(639, 479, np.ones((1, 1), bool)),
        Mask(0, 200, np.ones((1, 640), bool)),
        Mask(10, 20, np.kron(np.eye(5, dtype=bool), np.ones((6, 6), bool))),
    ],
    ids=["a hole", "the image", "a pixel", "a line", "five parts"],
)
def test_simple_masks_are_filled_exactly(mask: Mask) -> None:
    line = label_line("segment", masked(mask), SIZE)
    assert line is not None
    assert line.startswith("3 ")
    filled = fill(polygon(line, SIZE), SIZE)
    assert filled is not None
    assert (filled.full(SIZE) == mask.full(SIZE)).all()


def test_points_are_triples() -> None:
    points = (Point(64, 48), Point(1, 2, 0.0), Point(-5, 999, 0.3))
    found = Detection(1, 1.0, Box(64, 48, 192, 240), points=points)
    line = label_line("pose", found, SIZE, keypoints=5)
    assert line == "1 0.2 0.3 0.2 0.4 0.1 0.1 2 0 0 0 0 1 2 0 0 0 0 0 0"
    assert label_line("pose", found, SIZE, keypoints=1) == "1 0.2 0.3 0.2 0.4 0.1 0.1 2"
    assert label_line("detect", found, SIZE) == "1 0.2 0.3 0.2 0.4"


@pytest.mark.parametrize(
    ("task", "found"),
    [
        ("detect", Detection(0, 1.0, Box(640, 10, 700, 20))),
        ("detect", Detection(0, 1.0, Box(10, -20, 20, 0))),
        ("detect", Detection(0, 1.0, Box(10, 10, 10, 20))),
        ("detect", Detection(0, 1.0, Box(20, 10, 10, 20))),
        ("pose", Detection(0, 1.0, Box(10, 500, 20, 600), points=(Point(10, 10),))),
        ("obb", turned(-100, 100, 50, 50, 45)),
        ("obb", turned(100, 100, 50, 0, 45)),
        ("obb", Detection(0, 1.0, Box(10, 10, 20, 20))),
        ("segment", masked(None)),
        ("segment", masked(Mask(3, 3, np.zeros((4, 4), bool)))),
        ("segment", masked(Mask(0, 0, np.zeros((0, 0), bool)))),
    ],
)
def test_what_is_not_on_the_image_has_no_line(task: Task, found: Detection) -> None:
    assert label_line(task, found, SIZE, keypoints=1) is None


def test_choices_have_no_label_files() -> None:
    with pytest.raises(ValueError, match="classify"):
        label_line("classify", Detection(0, 1.0, WHOLE), SIZE)


def _objects(task: Task, random: np.random.Generator, size: ImageSize) -> list[Detection]:
    """Objects here and there, some over the edges, some smaller than a pixel."""
    found = []
    for cls in range(8):
        cx, cy = random.uniform(-0.2, 1.2, 2) * (size.width, size.height)
        across, down = random.uniform(0.2, 60, 2)
        if cls == 0:
            across = down = 0.3
            cx, cy = size.width / 2, size.height / 2
        box = Box(cx - across / 2, cy - down / 2, cx + across / 2, cy + down / 2)
        rotated = RotatedBox(cx, cy, across, down, random.uniform(0, 360))
        whole = np.zeros((size.height, size.width), np.uint8)
        cv2.fillPoly(whole, [rotated.corners().round().astype(np.int32)], 1)
        places = random.uniform(-5, 5, (cls % 4, 2)) + np.array([cx, cy])
        spots = tuple(Point(x, y, float(cls % 2)) for x, y in places)
        found.append(Detection(cls % 3, 1.0, box, rotated=rotated, mask=Mask.of(whole.astype(bool)), points=spots))
    return found


@pytest.mark.parametrize("task", TASKS)
def test_ultralytics_takes_whole_folders(task: Task, tmp_path: Path) -> None:
    from ultralytics.data.dataset import YOLODataset

    random = np.random.default_rng(7)
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    written = 0
    for number in range(12):
        size = ImageSize(int(random.integers(40, 200)), int(random.integers(40, 200)))
        cv2.imwrite(str(images / f"{number}.png"), np.zeros((size.height, size.width, 3), np.uint8))
        lines = [label_line(task, each, size, keypoints=3) for each in _objects(task, random, size)]
        # One image shows nothing: its file is empty.
        kept = [] if number == 5 else [line for line in lines if line]
        (labels / f"{number}.txt").write_text("\n".join(kept))
        written += len(kept)
    data = {"names": {0: "a", 1: "b", 2: "c"}, "kpt_shape": [3, 3], "channels": 3}
    dataset = YOLODataset(img_path=str(images), imgsz=64, data=data, task=task, augment=False)
    _found, missing, empty, corrupt, total = dataset.cache_labels(tmp_path / "again.cache")["results"]
    assert (missing, empty, corrupt, total) == (0, 1, 0, 12)
    assert written > 50
    assert sum(len(each["cls"]) for each in dataset.labels) == written
    if task == "pose":
        assert {each["keypoints"].shape[1:] for each in dataset.labels} == {(3, 3)}
    for index in range(len(dataset)):
        dataset[index]  # through ultralytics' own formatting for training


@given(st.lists(st.text(min_size=1).filter(lambda name: name.isprintable()), min_size=1, unique=True))
def test_ultralytics_tells_all_labels_apart(labels: list[str]) -> None:
    names = class_names(labels)
    assert len({name.strip().lower() for name in names}) == len(labels)
    config = {"names": dict(enumerate(names))}
    assert yaml.safe_load(as_yaml(config)) == {"names": {str(key): name for key, name in config["names"].items()}}


@pytest.mark.parametrize("label", ["\U0001f697", "a\x7fb", "\x85", "\u2028", "\ufeff", 'quote"', "tab\t", "é"])
def test_any_character_of_a_label_reaches_ultralytics(label: str) -> None:
    assert yaml.safe_load(as_yaml({"names": [label]})) == {"names": [label]}
    assert json.loads(as_yaml({"names": [label]})) == {"names": [label]}


def test_labels_that_are_numbers_in_order_are_names_too() -> None:
    assert class_names(["0", "1"]) == ["0 (class 0)", "1 (class 1)"]
    assert class_names(["1", "0", "a", "A"]) == ["1", "0", "a", "A (class 3)"]
