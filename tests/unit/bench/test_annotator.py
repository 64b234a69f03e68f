from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
from annotator import Box, Effort, boxes_of, correct, iou

CAT = Box("cat", 0, 0, 10, 10)
FAR = Box("cat", 50, 50, 60, 60)


def wide(width: float, label: str = "cat") -> Box:
    """A box over the left of CAT: their intersection over union is a tenth of the width."""
    return Box(label, 0, 0, width, 10)


@pytest.mark.parametrize(
    ("suggested", "truth", "effort"),
    [
        ([], [], Effort()),
        ([], [CAT, FAR], Effort(drawn=2)),
        ([CAT, FAR], [], Effort(deleted=2)),
        ([CAT], [CAT], Effort(accepted=1)),
        ([FAR], [CAT], Effort(drawn=1, deleted=1)),
        ([wide(7)], [CAT], Effort(accepted=1)),
        ([wide(6.9)], [CAT], Effort(moved=1)),
        ([wide(5)], [CAT], Effort(moved=1)),
        ([wide(4.9)], [CAT], Effort(drawn=1, deleted=1)),
        ([wide(10, "dog")], [CAT], Effort(relabelled=1)),
        ([wide(6, "dog")], [CAT], Effort(moved=1, relabelled=1)),
    ],
)
def test_every_difference_costs_its_action(suggested: list[Box], truth: list[Box], effort: Effort) -> None:
    assert correct(suggested, truth) == effort


def test_one_object_takes_one_suggestion() -> None:
    assert correct([wide(9), CAT, wide(8)], [CAT]) == Effort(accepted=1, deleted=2)
    assert correct([CAT], [CAT, wide(9)]) == Effort(accepted=1, drawn=1)


def test_the_largest_overlap_chooses_first() -> None:
    # The first suggestion fits both objects, the second only one of them.
    low, high = Box("cat", 0, 0, 10, 10), Box("cat", 0, 2, 10, 12)
    assert correct([high, Box("cat", 0, -3, 10, 7)], [low, high]) == Effort(accepted=1, moved=1)


def test_of_two_suggestions_for_one_place_the_right_label_stays() -> None:
    for order in ([replace(CAT, label="dog"), CAT], [CAT, replace(CAT, label="dog")]):
        assert correct(order, [CAT]) == Effort(accepted=1, deleted=1)


def test_a_crowd_is_matched_one_to_one() -> None:
    crowd = [Box("cat", x, y, x + 5, y + 5) for x in range(0, 100, 10) for y in range(0, 100, 10)]
    assert correct(list(reversed(crowd)), crowd) == Effort(accepted=100)


def test_actions_leave_out_what_was_accepted_and_add_up() -> None:
    effort = Effort(drawn=1, deleted=2, moved=3, relabelled=4, accepted=5)
    assert effort.actions == 10
    assert (effort + effort) == Effort(2, 4, 6, 8, 10)


def test_iou() -> None:
    assert iou(CAT, CAT) == 1
    assert iou(CAT, FAR) == 0
    assert iou(CAT, Box("cat", 5, 5, 15, 15)) == pytest.approx(25 / 175)
    assert iou(CAT, Box("cat", 5, 5, 5, 8)) == 0


def test_boxes_are_read_from_regions_and_others_left_out() -> None:
    value = {"x": 10.0, "y": 20.0, "width": 30.0, "height": 40.0, "rotation": 0, "rectanglelabels": ["cat"]}
    regions = [{"type": "rectanglelabels", "value": value}, {"type": "choices", "value": {"choices": ["day"]}}]
    assert boxes_of(regions) == [Box("cat", 10, 20, 40, 60)]
