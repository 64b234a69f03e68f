from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.feedback.corrections import Corrections, actions, corrections

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
from annotator import Box, correct, iou


@pytest.mark.parametrize(
    ("overlap", "suggested", "truth", "made"),
    [
        (np.zeros((0, 0)), [], [], Corrections()),
        (np.zeros((0, 2)), [], [0, 0], Corrections(drawn=2)),
        (np.zeros((2, 0)), [0, 0], [], Corrections(deleted=2)),
        (np.array([[0.7]]), [0], [0], Corrections()),
        (np.array([[0.69]]), [0], [0], Corrections(moved=1)),
        (np.array([[0.5]]), [0], [0], Corrections(moved=1)),
        (np.array([[0.49]]), [0], [0], Corrections(drawn=1, deleted=1)),
        (np.array([[0.9]]), [1], [0], Corrections(relabelled=1)),
        (np.array([[0.6]]), [1], [0], Corrections(moved=1, relabelled=1)),
        (np.array([[0.9], [1.0], [0.8]]), [0, 0, 0], [0], Corrections(deleted=2)),
        (np.array([[0.9, 0.8]]), [0], [0, 0], Corrections(drawn=1)),
        # The second suggestion has the right label, at the same place.
        (np.array([[0.9], [0.9]]), [1, 0], [0], Corrections(deleted=1)),
        # Answers about the whole image: a wrong one becomes the missing one, one too many is taken away.
        (np.ones((1, 1)), [0], [1], Corrections(relabelled=1)),
        (np.ones((2, 1)), [0, 1], [1], Corrections(deleted=1)),
        (np.ones((2, 2)), [0, 1], [1, 2], Corrections(relabelled=1)),
    ],
)
def test_every_difference_costs_its_action(
    overlap: np.ndarray, suggested: list[int], truth: list[int], made: Corrections
) -> None:
    assert corrections(overlap, suggested, truth) == made


def test_each_action_counts_one() -> None:
    assert actions(Corrections(1, 2, 3, 4)) == 10
    assert Corrections(1, 2, 3, 4) + Corrections(1, 1, 1, 1) == Corrections(2, 3, 4, 5)


BOXES = st.lists(st.builds(Box, st.sampled_from("ab"), *[st.integers(0, 4)] * 2, *[st.integers(5, 9)] * 2), max_size=5)


@given(BOXES, BOXES)
def test_it_is_what_the_simulated_annotator_does(suggested: list[Box], truth: list[Box]) -> None:
    overlap = np.array([[iou(one, other) for other in truth] for one in suggested]).reshape(len(suggested), len(truth))
    made = corrections(overlap, [ord(each.label) for each in suggested], [ord(each.label) for each in truth])
    effort = correct(suggested, truth)
    assert (made.drawn, made.deleted, made.moved, made.relabelled) == (
        effort.drawn,
        effort.deleted,
        effort.moved,
        effort.relabelled,
    )
