from __future__ import annotations

import json
import math
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from backend.labels.choices import from_regions, to_regions
from backend.labels.geometry import Box, Detection, ImageSize
from backend.labels.schema import Control, parse_label_config


def config(choice: str) -> str:
    return f"""<View><Image name="image" value="$image"/><Choices name="weather" toName="image" choice="{choice}">
    <Choice value="Sun"/><Choice value="Rain" alias="wet"/><Choice value="Snow"/></Choices></View>"""


SINGLE, MULTIPLE = (parse_label_config(config(choice)).controls[0] for choice in ("single", "multiple"))
INTERFACES = {
    control: LabelInterface(config(choice)) for control, choice in ((SINGLE, "single"), (MULTIPLE, "multiple"))
}
CLASSES = ("Sun", "wet", "Snow")
SIZE = ImageSize(640, 480)
IMAGE = Box(0, 0, 640, 480)
LABELS = {0: "Sun", 1: "wet", 2: "Snow", 7: "wet"}

scores = st.floats(-0.5, 1.5) | st.just(math.nan) | st.just(math.inf)
sides = st.integers(1, 20_000)
sizes = st.builds(ImageSize, sides, sides)
controls = st.sampled_from((SINGLE, MULTIPLE))


def answer(
    given_scores: dict[int, float], control: Control = SINGLE, threshold: float = 0.25, size: ImageSize = SIZE
) -> list[dict[str, Any]]:
    found = [Detection(cls, score, IMAGE) for cls, score in given_scores.items()]
    return to_regions(found, control, LABELS, size, threshold, lambda: "r")


def chosen(regions: list[dict[str, Any]]) -> tuple[list[str], float]:
    (region,) = regions
    return region["value"]["choices"], region["score"]


def region(*choices: Any, **changes: Any) -> dict[str, Any]:
    """What Label Studio stores for an answer."""
    return {
        "id": "r",
        "from_name": "weather",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": list(choices)},
        "origin": "manual",
        **changes,
    }


def test_region_of_an_answer() -> None:
    assert answer({0: 0.25, 1: 0.75}) == [
        {
            "id": "r",
            "from_name": "weather",
            "to_name": "image",
            "type": "choices",
            "original_width": 640,
            "original_height": 480,
            "image_rotation": 0,
            "score": 0.75,
            "value": {"choices": ["wet"]},
        }
    ]


def test_classes_of_one_label_are_added_up() -> None:
    assert chosen(answer({0: 0.4, 1: 0.25, 2: 0.1, 7: 0.25})) == (["wet"], 0.5)
    assert chosen(answer({1: 0.75, 7: 0.5}, threshold=1)) == (["wet"], 1.0)


def test_the_first_of_equal_labels_is_the_answer() -> None:
    assert chosen(answer({2: 0.5, 0: 0.5})) == (["Sun"], 0.5)


def test_no_label_is_sure_enough() -> None:
    assert answer({0: 0.4, 1: 0.3, 2: 0.3}, threshold=0.41) == []
    assert chosen(answer({0: 0.4, 1: 0.3, 2: 0.3}, threshold=0.4)) == (["Sun"], 0.4)
    assert answer({0: 0.4}, MULTIPLE, threshold=0.41) == []
    assert answer({}, threshold=0) == []
    assert answer({}, MULTIPLE, threshold=0) == []


def test_several_choices_are_those_that_are_sure_enough() -> None:
    assert chosen(answer({2: 0.5, 1: 0.2, 0: 1.0}, MULTIPLE)) == (["Sun", "Snow"], 0.75)
    assert chosen(answer({2: 0.25, 0: 0.2}, MULTIPLE)) == (["Snow"], 0.25)


def test_of_several_choices_a_label_is_as_sure_as_its_best_class() -> None:
    assert chosen(answer({1: 0.3, 7: 0.5}, MULTIPLE)) == (["wet"], 0.5)
    assert answer({1: 0.2, 7: 0.2}, MULTIPLE) == []


@pytest.mark.parametrize("control", [SINGLE, MULTIPLE])
def test_scores_that_are_none_are_ignored(control: Control) -> None:
    assert chosen(answer({0: math.nan, 1: 0.5, 2: math.inf, 7: math.nan}, control)) == (["wet"], 0.5)
    assert answer({0: math.nan}, control, threshold=0) == []


@pytest.mark.parametrize("control", [SINGLE, MULTIPLE])
def test_classes_without_a_label_are_not_suggested(control: Control) -> None:
    assert answer({5: 1.0}, control) == []
    found = [Detection(0, 1.0, IMAGE)]
    assert to_regions(found, control, {0: "Gone"}, SIZE, 0.1, lambda: "r") == []


@pytest.mark.parametrize("control", [SINGLE, MULTIPLE])
def test_an_image_without_pixels_has_no_answer(control: Control) -> None:
    assert answer({0: 1.0}, control, size=ImageSize(0, 5)) == []
    assert from_regions([region("Sun")], control, CLASSES, ImageSize(5, 0)) == []


@pytest.mark.parametrize("control", [SINGLE, MULTIPLE])
def test_a_region_of_numpy_numbers_is_json(control: Control) -> None:
    found = [Detection(cast(int, np.int64(0)), cast(float, np.float32(0.75)), IMAGE)]
    made = to_regions(found, control, LABELS, SIZE, 0.5, lambda: "r")
    assert chosen(json.loads(json.dumps(made))) == (["Sun"], 0.75)


@given(st.dictionaries(st.integers(0, 8), scores), st.floats(0, 1), sizes, controls)
def test_round_trip(found: dict[int, float], threshold: float, size: ImageSize, control: Control) -> None:
    made = answer(found, control, threshold, size)
    prediction = {"model_version": "v1", "score": 0.5, "result": made}
    assert INTERFACES[control].validate_prediction(prediction, return_errors=True) == []
    back = from_regions(json.loads(json.dumps(made)), control, CLASSES, size)
    whole = Box(0, 0, size.width, size.height)
    assert all((each.score, each.box) == (1.0, whole) for each in back)
    sure = {
        LABELS[cls]: max(score, 0)
        for cls, score in found.items()
        if cls in LABELS and threshold <= min(max(score, 0), 1) and math.isfinite(score)
    }
    if made:
        labels, score = chosen(made)
        assert threshold - 1e-9 <= score <= 1
        assert [CLASSES[each.cls] for each in back] == labels
    if control.multiple:
        assert {CLASSES[each.cls] for each in back} == set(sure)
    else:
        assert len(back) <= 1
        assert back or not sure


def test_classes_of_an_answer() -> None:
    assert from_regions([region("wet")], SINGLE, CLASSES, SIZE) == [Detection(1, 1.0, IMAGE)]


@pytest.mark.parametrize("control", [SINGLE, MULTIPLE])
def test_all_choices_count_once_in_their_order(control: Control) -> None:
    regions = [region("Snow", "Fog", "Sun", "Snow"), region("Sun")]
    assert [each.cls for each in from_regions(regions, control, CLASSES, SIZE)] == [2, 0]


def test_of_nested_choices_the_last_counts() -> None:
    assert [each.cls for each in from_regions([region(["Bad", "wet"], ["Sun"])], SINGLE, CLASSES, SIZE)] == [1, 0]


def test_pages_are_told_apart() -> None:
    regions = [region("Sun"), region("wet", item_index=1)]
    assert [each.cls for each in from_regions(regions, SINGLE, CLASSES, SIZE)] == [0, 1]
    assert [each.cls for each in from_regions(regions, SINGLE, CLASSES, SIZE, 1)] == [1]


@pytest.mark.parametrize(
    "bad",
    [
        {"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"},
        region("wet", from_name="other"),
        region("wet", to_name="other"),
        region("wet", type="taxonomy"),
        region("Fog"),
        region(),
        region(1, None, [], [1], [["wet"]], {"wet": 1}),
        region(value=None),
        region(value=["wet"]),
        region(value={"choices": "wet"}),
        region(value={"choices": {"wet": 1}}),
        region(value={"taxonomy": [["wet"]]}),
        {},
        None,
        "text",
    ],
)
def test_what_teaches_nothing_is_left_out(bad: Any) -> None:
    assert from_regions([bad, region("Sun")], SINGLE, CLASSES, SIZE) == [Detection(0, 1.0, IMAGE)]


words = st.text("ab1", max_size=3) | st.sampled_from(["Sun", "10"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(region("Sun"))), json_values), json_values)
def test_no_region_raises(top: dict[str, Any], choices: Any) -> None:
    broken = [{**region("Sun"), "value": {"choices": choices}, **top}]
    assert {each.cls for each in from_regions(broken, SINGLE, CLASSES, SIZE)} <= {0}
