from __future__ import annotations

import json
import math
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from backend.labels.geometry import Box, Detection, ImageSize
from backend.labels.schema import parse_label_config
from backend.labels.taxonomy import from_regions, to_regions

CONFIG = """<View><Image name="image" value="$image"/><Taxonomy name="kind" toName="image">
<Choice value="Animal"><Choice value="Bird" alias="bird"><Choice value="Owl"/></Choice><Choice value="Other"/></Choice>
<Choice value="Plant"><Choice value="Other"/></Choice></Taxonomy></View>"""
CONTROL = parse_label_config(CONFIG).controls[0]
INTERFACE = LabelInterface(CONFIG)
CLASSES = CONTROL.labels
PATHS = [
    ["Animal"],
    ["Animal", "bird"],
    ["Animal", "bird", "Owl"],
    ["Animal", "Other"],
    ["Plant"],
    ["Plant", "Other"],
]
LABELS = {**dict(enumerate(CLASSES)), 9: CLASSES[2]}
SIZE = ImageSize(640, 480)
IMAGE = Box(0, 0, 640, 480)

sides = st.integers(1, 20_000)


def answer(given_scores: dict[int, float], threshold: float = 0.25, size: ImageSize = SIZE) -> list[dict[str, Any]]:
    found = [Detection(cls, score, IMAGE) for cls, score in given_scores.items()]
    return to_regions(found, CONTROL, LABELS, size, threshold, lambda: "r")


def region(*paths: Any, **changes: Any) -> dict[str, Any]:
    """What Label Studio stores for an answer."""
    return {
        "id": "r",
        "from_name": "kind",
        "to_name": "image",
        "type": "taxonomy",
        "value": {"taxonomy": list(paths)},
        "origin": "manual",
        **changes,
    }


def test_region_of_an_answer() -> None:
    assert answer({2: 0.75, 4: 0.25}) == [
        {
            "id": "r",
            "from_name": "kind",
            "to_name": "image",
            "type": "taxonomy",
            "original_width": 640,
            "original_height": 480,
            "image_rotation": 0,
            "score": 0.75,
            "value": {"taxonomy": [["Animal", "bird", "Owl"]]},
        }
    ]


def test_classes_of_one_node_are_added_up() -> None:
    (made,) = answer({4: 0.4, 2: 0.25, 9: 0.25})
    assert (made["value"], made["score"]) == ({"taxonomy": [["Animal", "bird", "Owl"]]}, 0.5)
    assert answer({2: 0.9, 9: 0.9}, threshold=1)[0]["score"] == 1


def test_a_node_is_not_added_to_the_one_above() -> None:
    assert answer({1: 0.2, 2: 0.2}) == []


def test_no_node_is_sure_enough() -> None:
    assert answer({0: 0.4, 1: 0.3}, threshold=0.41) == []
    assert answer({0: math.nan, 1: math.inf}, threshold=0) == []
    assert answer({77: 1.0}) == []


def test_an_image_without_pixels_has_no_answer() -> None:
    assert answer({0: 1.0}, size=ImageSize(0, 5)) == []
    assert from_regions([region(["Animal"])], CONTROL, CLASSES, ImageSize(5, 0)) == []


def test_a_region_of_numpy_numbers_is_json() -> None:
    found = [Detection(cast(int, np.int64(5)), cast(float, np.float32(0.75)), IMAGE)]
    (made,) = to_regions(found, CONTROL, LABELS, SIZE, 0.5, lambda: "r")
    assert json.loads(json.dumps(made))["value"] == {"taxonomy": [["Plant", "Other"]]}


@given(st.dictionaries(st.sampled_from(sorted(LABELS)), st.floats(0, 1.5)), st.floats(0, 1), sides, sides)
def test_round_trip(found: dict[int, float], threshold: float, width: int, height: int) -> None:
    size = ImageSize(width, height)
    made = answer(found, threshold, size)
    prediction = {"model_version": "v1", "score": 0.5, "result": made}
    assert INTERFACE.validate_prediction(prediction, return_errors=True) == []
    back = from_regions(json.loads(json.dumps(made)), CONTROL, CLASSES, size)
    if made:
        (each,) = back
        assert [PATHS[each.cls]] == made[0]["value"]["taxonomy"]
        assert (each.score, each.box) == (1.0, Box(0, 0, width, height))
        assert max(found[cls] for cls in found if LABELS[cls] == CLASSES[each.cls]) >= threshold / 2 - 1e-9
        assert threshold <= made[0]["score"] <= 1
    else:
        assert not back
        assert all(score < threshold for score in found.values())


@pytest.mark.parametrize("cls", range(len(PATHS)))
def test_every_node_goes_both_ways(cls: int) -> None:
    made = answer({cls: 1.0})
    assert made[0]["value"] == {"taxonomy": [PATHS[cls]]}
    assert INTERFACE.validate_prediction({"result": made}, return_errors=True) == []
    assert from_regions(made, CONTROL, CLASSES, SIZE) == [Detection(cls, 1.0, IMAGE)]


def test_all_nodes_count_once_in_their_order() -> None:
    regions = [region(["Plant", "Other"], ["Animal"], ["Mineral"], ["Animal"]), region(["Animal"], ["Plant"])]
    assert [each.cls for each in from_regions(regions, CONTROL, CLASSES, SIZE)] == [5, 0, 4]


def test_pages_are_told_apart() -> None:
    regions = [region(["Animal"]), region(["Plant"], item_index=1)]
    assert [each.cls for each in from_regions(regions, CONTROL, CLASSES, SIZE)] == [0, 4]
    assert [each.cls for each in from_regions(regions, CONTROL, CLASSES, SIZE, 1)] == [4]


@pytest.mark.parametrize(
    "bad",
    [
        region(["Plant"], from_name="other"),
        region(["Plant"], to_name="other"),
        region(["Plant"], type="choices"),
        region(["Other"]),
        region(["bird"]),
        region(["Animal", "Bird"]),
        region("Plant", [], None, 1, ["Plant", 1], [["Plant"]], {"Plant": 1}),
        region(value=None),
        region(value={"taxonomy": "Plant"}),
        region(value={"choices": ["Plant"]}),
        {},
        None,
        "text",
    ],
)
def test_what_teaches_nothing_is_left_out(bad: Any) -> None:
    assert from_regions([bad, region(["Animal"])], CONTROL, CLASSES, SIZE) == [Detection(0, 1.0, IMAGE)]


words = st.text("ab1", max_size=3) | st.sampled_from(["Animal", "10"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(region(["Animal"]))), json_values), json_values)
def test_no_region_raises(top: dict[str, Any], paths: Any) -> None:
    broken = [{**region(["Animal"]), "value": {"taxonomy": paths}, **top}]
    assert {each.cls for each in from_regions(broken, CONTROL, CLASSES, SIZE)} <= {0}
