from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backend.labels.geometry import Box, Detection, ImageSize, Mask, RotatedBox
from backend.predict.interactive import holds, ids_of, place_of, pointed_at, silenced
from backend.predict.marks import Mark

SIZE = ImageSize(200, 100)
LABELS = {0: "Disc", 1: "Square"}


def found(score: float, x1: float, y1: float, x2: float, y2: float, cls: int = 0) -> Detection:
    return Detection(cls, score, Box(x1, y1, x2, y2))


BIG, SMALL, WEAK = found(0.6, 0, 0, 100, 100), found(0.9, 20, 20, 40, 40), found(0.1, 150, 50, 170, 70)
ALL = [SMALL, BIG, WEAK]


def click(x: float, y: float, *labels: str, positive: bool = True) -> Mark:
    return Mark("keypoint", {"x": x, "y": y}, labels=labels, positive=positive)


def rectangle(x1: float, y1: float, x2: float, y2: float, *labels: str, **more: float) -> Mark:
    return Mark("rectangle", {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, **more}, labels=labels)


def polygon(*points: Sequence[float]) -> Mark:
    return Mark("polygon", {"points": [list(point) for point in points]})


def answers(
    mark: Mark, *excluded: Mark, objects: Sequence[Detection] = ALL, names: Sequence[str] = ("Disc", "Square", "Van")
) -> list[tuple[Detection, str]]:
    return pointed_at(objects, mark, excluded, LABELS, names, SIZE, 0.25)


def objects(mark: Mark, *excluded: Mark, **more: Any) -> list[Detection]:
    return [each for each, _ in answers(mark, *excluded, **more)]


def test_a_click_gives_the_best_object_under_it() -> None:
    assert objects(click(15, 30)) == [SMALL]
    assert objects(click(40, 90)) == [BIG]
    assert objects(click(99, 1)) == []


def test_a_click_finds_what_was_not_sure_enough_to_be_suggested() -> None:
    assert objects(click(80, 60)) == [WEAK]


def test_a_rectangle_gives_the_objects_inside() -> None:
    assert objects(rectangle(0, 0, 60, 100)) == [SMALL, BIG]
    assert objects(rectangle(60, 100, 0, 0)) == [SMALL, BIG], "drawn from the right bottom"
    assert objects(rectangle(5, 5, 25, 60)) == [SMALL]
    assert objects(rectangle(70, 40, 90, 80)) == [WEAK]
    assert objects(rectangle(60, 0, 70, 10)) == []


def test_other_shapes_give_the_objects_inside_of_themselves() -> None:
    assert objects(Mark("ellipse", {"x": 15, "y": 30, "radiusX": 12, "radiusY": 25})) == [SMALL]
    # Around the small object with a long arm to the weak one, whose bounds hold both.
    assert objects(polygon((5, 10), (25, 10), (25, 50), (5, 50))) == [SMALL]
    assert objects(polygon((5, 10), (25, 10), (25, 50), (99, 99), (5, 50)), objects=[SMALL, WEAK]) == [SMALL]
    # Turned by 90 degrees about its left top corner it lies left of it.
    assert objects(rectangle(25, 10, 45, 50, rotation=90), objects=[SMALL]) == [SMALL]
    assert objects(rectangle(25, 10, 45, 50, rotation=-45), objects=[SMALL]) == []


def test_a_negative_click_takes_away_before_the_best_is_chosen() -> None:
    assert objects(rectangle(0, 0, 100, 100), click(40, 90, positive=False)) == [SMALL]
    assert objects(click(15, 30), click(12, 22, positive=False), objects=[SMALL, BIG]) == []
    assert objects(click(40, 90), click(15, 30, positive=False)) == []
    other = found(0.5, 10, 0, 110, 100)
    assert objects(click(40, 90), click(2, 90, positive=False), objects=[BIG, other]) == [other]


def test_the_label_of_a_click_goes_before_the_class() -> None:
    square = found(0.5, 0, 0, 90, 90, cls=1)
    assert answers(click(15, 30, "Square"), objects=[SMALL, square]) == [(square, "Square")]
    assert answers(click(15, 30, "square"), objects=[SMALL, square]) == [(square, "Square")]
    assert answers(click(15, 30, "Square")) == [(SMALL, "Square")], "nothing there is a square to the model"
    assert answers(click(15, 30, "Van")) == [(SMALL, "Van")], "no class of the model means it"
    assert answers(click(15, 30, "Any")) == [(SMALL, "Disc")], "the control has no such label"


def test_the_label_of_a_shape_counts_where_it_means_one_object() -> None:
    square = found(0.5, 44, 44, 60, 60, cls=1)
    assert answers(rectangle(0, 0, 100, 100, "Van"), objects=[SMALL, square]) == [(SMALL, "Disc"), (square, "Square")]
    assert answers(rectangle(8, 15, 24, 45, "Van"), objects=[SMALL, square]) == [(SMALL, "Van")]


def test_masks_and_turned_boxes_are_hit_where_they_are() -> None:
    ring = np.ones((20, 20), bool)
    ring[5:15, 5:15] = False
    masked = Detection(0, 0.9, Box(10, 10, 30, 30), mask=Mask(10, 10, ring))
    assert holds(masked, 12, 12)
    assert not holds(masked, 20, 20)
    assert not holds(masked, 9, 9)
    turned = RotatedBox(50, 50, 60, 10, 45)
    plank = Detection(0, 0.9, Box(25, 25, 75, 75), rotated=turned)
    assert holds(plank, 65, 65)
    assert not holds(plank, 65, 35)
    for x, y in turned.corners() * 0.99 + np.array([50, 50]) * 0.01:
        assert holds(plank, x, y)


def test_an_object_has_the_same_ids_in_every_process() -> None:
    first, again = ids_of("7.1", 3, place_of(SMALL, SIZE)), ids_of("7.1", 3, place_of(SMALL, SIZE))
    assert [first(), first()] == [again(), again()] == ["b8a23961e5", "9d06b90c18"]
    noise = found(0.9, 20.0004, 20, 40, 39.9997)
    assert place_of(noise, SIZE) == place_of(SMALL, SIZE) != place_of(BIG, SIZE)


def test_a_failed_answer_says_that_nothing_is_there() -> None:
    good = {"model_version": "v1", "score": 0.5, "result": [{}]}
    assert silenced([good, {"model_version": "v1", "error": "no"}]) == [
        good,
        {"model_version": "v1", "error": "no", "score": 0.0, "result": []},
    ]
