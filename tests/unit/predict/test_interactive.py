from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.labels.geometry import Box, Detection, ImageSize, Mask, RotatedBox
from backend.predict.interactive import Prompt, holds, prompted, prompts_of, silenced

RECORDED = Path(__file__).parents[2] / "label_studio_1.23.2"
SIZE = ImageSize(200, 100)


def found(score: float, x1: float, y1: float, x2: float, y2: float) -> Detection:
    return Detection(0, score, Box(x1, y1, x2, y2))


BIG, SMALL, WEAK = found(0.6, 0, 0, 100, 100), found(0.9, 20, 20, 40, 40), found(0.1, 150, 50, 170, 70)
ALL = [SMALL, BIG, WEAK]


def click(x: float, y: float, positive: bool = True) -> Prompt:
    return Prompt(x, y, x, y, "image", positive=positive)


def recorded(name: str) -> dict[str, Any]:
    (call,) = json.loads((RECORDED / name).read_text())
    context: dict[str, Any] = call["body"]["params"]["context"]
    return context


def test_a_recorded_rectangle() -> None:
    (prompt,) = prompts_of(recorded("interactive_backend_rect.json")) or []
    assert (round(prompt.x1, 2), round(prompt.y1, 2)) == (26.93, 62.19)
    assert (round(prompt.x2, 2), round(prompt.y2, 2)) == (40.74, 78.56)
    assert (prompt.to_name, prompt.positive, prompt.is_point) == ("image", True, False)


def test_a_recorded_click() -> None:
    context = recorded("interactive_backend_kp.json")
    (prompt,) = prompts_of(context) or []
    assert prompt.is_point
    assert prompt.positive
    context["result"][0]["is_positive"] = False
    (prompt,) = prompts_of(context) or []
    assert not prompt.positive


@pytest.mark.parametrize("context", [None, {}, {"result": None}, {"result": 5}, {"other": []}])
def test_other_requests_are_not_interactive(context: Any) -> None:
    assert prompts_of(context) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each, max_size=3),
    max_leaves=8,
)
KINDS = ["rectanglelabels", "keypointlabels", "ellipselabels", "polygonlabels", "brush"]
MARK = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["rectanglelabels", "keypointlabels", "ellipselabels", "polygonlabels", "brush"])
        | JSON,
        "value": st.dictionaries(st.sampled_from(["x", "y", "width", "points", "radiusX"]), JSON) | JSON,
        "to_name": JSON,
        "item_index": JSON,
        "is_positive": JSON,
    },
)


@given(st.lists(MARK | JSON, max_size=3))
def test_nothing_that_is_sent_is_an_error(result: list[Any]) -> None:
    prompts = prompts_of({"result": result})
    assert prompts is not None
    prompted(ALL, prompts, SIZE, 0.25)


def test_a_click_gives_the_best_object_under_it() -> None:
    assert prompted(ALL, [click(15, 30)], SIZE, 0.25) == [SMALL]
    assert prompted(ALL, [click(40, 90)], SIZE, 0.25) == [BIG]
    assert prompted(ALL, [click(99, 1)], SIZE, 0.25) == []


def test_a_click_finds_what_was_not_sure_enough_to_be_suggested() -> None:
    assert prompted(ALL, [click(80, 60)], SIZE, 0.25) == [WEAK]


def test_two_clicks_on_one_object_give_it_once() -> None:
    assert prompted(ALL, [click(15, 30), click(16, 31)], SIZE, 0.25) == [SMALL]


def test_a_rectangle_gives_the_objects_inside() -> None:
    assert prompted(ALL, [Prompt(0, 0, 60, 100, "image")], SIZE, 0.25) == [SMALL, BIG]
    assert prompted(ALL, [Prompt(5, 5, 25, 60, "image")], SIZE, 0.25) == [SMALL]
    assert prompted(ALL, [Prompt(70, 40, 90, 80, "image")], SIZE, 0.25) == [WEAK]
    assert prompted(ALL, [Prompt(60, 0, 70, 10, "image")], SIZE, 0.25) == []


def test_a_negative_click_takes_away() -> None:
    rectangle = Prompt(0, 0, 100, 100, "image")
    assert prompted(ALL, [rectangle, click(40, 90, positive=False)], SIZE, 0.25) == [SMALL]
    assert prompted(ALL, [click(15, 30, positive=False)], SIZE, 0.25) == []
    assert prompted(ALL, [click(40, 90, positive=False)], SIZE, 0.25) == [SMALL]


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


def test_a_failed_answer_says_that_nothing_is_there() -> None:
    good = {"model_version": "v1", "score": 0.5, "result": [{}]}
    assert silenced([good, {"model_version": "v1", "error": "no"}]) == [
        good,
        {"model_version": "v1", "error": "no", "score": 0.0, "result": []},
    ]
