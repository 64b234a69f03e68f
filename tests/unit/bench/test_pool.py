from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
from annotator import Box, boxes_of
from pool import NAMES, coco, coco_result, generated, named, tails
from tails import COLOURS, LABELS

from backend.labels.schema import parse_label_config

IMAGE = {"id": 7, "width": 200, "height": 100, "file_name": "a.jpg"}


def box(*bbox: float, category: int = 1, image: int = 7, **more: int) -> dict[str, object]:
    return {"image_id": image, "category_id": category, "bbox": list(bbox), **more}


def test_boxes_become_percent_and_are_cut_off_at_the_edges() -> None:
    found = coco_result(
        IMAGE, [box(20, 10, 40, 50), box(190, -10, 40, 20), box(5, 5, 0, 9), box(300, 5, 9, 9)], {1: "x"}
    )
    assert boxes_of(found) == [Box("x", 10, 10, 30, 60), Box("x", 95, 0, 100, 10)]
    assert len({region["id"] for region in found}) == 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "grey.png"):
        pixels = np.zeros((100, 200), np.uint8) if name == "grey.png" else np.zeros((100, 200, 3), np.uint8)
        cv2.imwrite(str(tmp_path / name), pixels)
    content = {
        "categories": [{"id": 1, "name": 'a "quoted" & <odd> name'}, {"id": 4, "name": "unused"}],
        "images": [
            IMAGE,
            {**IMAGE, "id": 8, "file_name": "b.jpg"},
            {**IMAGE, "id": 9, "file_name": "grey.png"},
            {**IMAGE, "id": 10, "file_name": "missing.jpg"},
        ],
        "annotations": [box(20, 10, 40, 50), box(0, 0, 200, 100, iscrowd=1), box(1, 1, 9, 9, image=9)],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    return tmp_path


def test_a_folder_with_empty_and_grey_images_and_an_unused_category(folder: Path) -> None:
    pool = coco(folder, folder / "boxes.json", 100, seed=0)
    truth = {pool.files[str(task.data["image"])].name: boxes_of(task.result) for task in pool.tasks}
    assert {name: len(boxes) for name, boxes in truth.items()} == {"a.jpg": 1, "b.jpg": 0, "grey.png": 1}
    (control,) = parse_label_config(pool.label_config).require().controls
    assert control.labels == ('a "quoted" & <odd> name', "unused")
    assert truth["a.jpg"][0].label in control.labels


def test_fewer_images_are_a_choice_that_the_seed_decides(folder: Path) -> None:
    def names(seed: int) -> list[str]:
        pool = coco(folder, folder / "boxes.json", 1, seed=seed)
        return [path.name for path in pool.files.values()]

    assert names(0) == names(0)
    assert len({tuple(names(seed)) for seed in range(20)}) == 3


def test_images_that_are_not_there_are_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"boxes\.json"):
        coco(tmp_path / "elsewhere", folder / "boxes.json", 10, seed=0)


def test_recoloured_shapes_stay_where_they_are(tmp_path: Path) -> None:
    plain = generated(tmp_path / "plain", 3, seed=5, size=96)
    other = generated(tmp_path / "other", 3, seed=5, size=96, recoloured=True)
    assert [boxes_of(task.result) for task in plain.tasks] == [boxes_of(task.result) for task in other.tasks]
    for left, right in zip(plain.files.values(), other.files.values(), strict=True):
        assert np.abs(cv2.imread(str(left)).astype(int) - cv2.imread(str(right))).mean() > 5


def test_labels_of_a_long_tail_are_as_frequent_as_they_should_be(tmp_path: Path) -> None:
    pool = tails(tmp_path, 300, seed=0, size=96)
    shown = Counter(each.label for task in pool.tasks for each in boxes_of(task.result))
    assert set(shown) == set(pool.labels) and len(shown) == 10
    assert shown[pool.labels[-1]] == 6  # 2 % of 300
    assert [shown[label] for label in pool.labels] == sorted(shown.values(), reverse=True)
    assert sum(not task.result for task in pool.tasks) >= 30


def test_a_long_tail_is_drawn_where_its_boxes_are(tmp_path: Path) -> None:
    pool = tails(tmp_path, 40, seed=3, size=96)
    for task in pool.tasks:
        pixels = cv2.imread(str(pool.files[task.data["image"]])).astype(int)
        for each in boxes_of(task.result):
            left, top, right, bottom = (round(side * 0.96) for side in (each.x1, each.y1, each.x2, each.y2))
            colour = np.array(COLOURS[LABELS.index(each.label) % len(COLOURS)])
            near = np.abs(pixels[top:bottom, left:right] - colour).max(axis=2) < 50
            assert near.mean() > 0.15
            # It reaches each of its box' sides, as far as a JPEG shows tips.
            assert all(side.any() for side in (near[:5], near[-5:], near[:, :5], near[:, -5:]))


def test_the_same_seed_draws_the_same_long_tail(tmp_path: Path) -> None:
    one, two = (tails(tmp_path / name, 10, seed=1, size=96) for name in ("one", "two"))
    assert [boxes_of(task.result) for task in one.tasks] == [boxes_of(task.result) for task in two.tasks]
    assert [each.read_bytes() for each in one.files.values()] == [each.read_bytes() for each in two.files.values()]


@pytest.mark.parametrize("name", ["easy", "tails"])
def test_generated_pools_have_names(name: str, tmp_path: Path) -> None:
    assert name in NAMES
    assert len(named(name, tmp_path, 4, seed=0, size=96).tasks) == 4
