from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.converter.brush import mask2rle
from numpy import uint8, zeros

from backend.labels.geometry import Box, Detection, ImageSize, Mask
from backend.predict.interactive import pointed_at
from backend.predict.marks import Marks, marks_of
from backend.predict.shown import shown

RECORDED = Path(__file__).parents[2] / "label_studio_1.23.2"
SIZE = ImageSize(200, 100)


def recorded(name: str) -> dict[str, Any]:
    (call,) = json.loads((RECORDED / name).read_text())
    context: dict[str, Any] = call["body"]["params"]["context"]
    return context


def region(name: str, kind: str = "rectanglelabels", **fields: Any) -> dict[str, Any]:
    value = {"x": 10, "y": 10, "width": 20, "height": 20, kind: ["Disc"]}
    return {"id": name, "type": kind, "from_name": "label", "to_name": "image", "value": value} | fields


def marks(*regions: Any) -> Marks:
    found = marks_of({"result": list(regions)})
    assert found is not None
    return found


def test_a_recorded_rectangle() -> None:
    found = marks_of(recorded("interactive_backend_rect.json"))
    assert found is not None and found.asks is not None
    place = found.asks.place(ImageSize(1000, 1000))
    assert place is not None
    assert [round(each) for each in (place.box.x1, place.box.y1, place.box.x2, place.box.y2)] == [269, 622, 407, 786]
    assert (found.asks.to_name, found.asks.positive, found.asks.labels) == ("image", True, ("Car",))


def test_a_recorded_click() -> None:
    context = recorded("interactive_backend_kp.json")
    found = marks_of(context)
    assert found is not None and found.asks is not None and found.asks.kind == "keypoint"
    context["result"][0]["is_positive"] = False
    found = marks_of(context)
    assert found is not None and found.asks is None and len(found.excluded) == 1


@pytest.mark.parametrize("context", [None, {}, {"result": None}, {"result": 5}, {"other": []}])
def test_other_requests_are_not_interactive(context: Any) -> None:
    assert marks_of(context) is None


def test_only_what_was_drawn_last_asks() -> None:
    old = [region("p", origin="prediction"), region("c", origin="prediction-changed"), region("a", score=0.8)]
    found = marks(*old, region("hand", origin="manual"), region("new", origin="manual", to_name="other"))
    assert found.asks is not None and found.asks.to_name == "other"
    assert [each["id"] for each in found.others] == ["p", "c", "a", "hand"]
    assert marks(*old).asks is None and marks(*old).why == ""
    assert marks(region("new", origin="manual"), *old).asks is not None, "wherever the editor puts it"


def test_relations_are_no_marks() -> None:
    assert marks(region("new"), {"type": "relation", "from_id": "p", "to_id": "c"}).asks is not None


def test_clicks_that_take_away_belong_to_the_mark_before_them() -> None:
    clicks = [region(name, "keypointlabels", is_positive=name != "n") for name in ("first", "second", "n")]
    found = marks(*clicks)
    assert found.asks is not None and len(found.excluded) == 1
    assert found.ids == {"first", "second", "n"}


def test_a_drawing_tag_and_its_labels_are_one_mark() -> None:
    shape, labels = region("m", "rectangle"), region("m", "labels", from_name="names")
    found = marks(shape, labels)
    assert found.asks is not None and (found.asks.kind, found.asks.labels) == ("rectangle", ("Disc",))


def test_text_is_no_place() -> None:
    text = {"id": "t", "type": "labels", "to_name": "text", "value": {"start": 0, "end": 4, "labels": ["Disc"]}}
    assert marks(text).asks is None and "percent of the image" in marks(text).why


def test_paint_is_where_it_was_painted() -> None:
    layer = zeros((100, 200), uint8)
    layer[20:30, 40:80] = 255
    brush = region("b", "brushlabels", original_width=200, original_height=100)
    brush["value"] = {"format": "rle", "rle": mask2rle(layer)}
    found = marks(brush)
    assert found.asks is not None and (place := found.asks.place(SIZE)) is not None
    assert place.box == Box(40, 20, 80, 30)
    wide, far = Detection(0, 0.9, Box(20, 0, 120, 90)), Detection(0, 0.9, Box(90, 0, 120, 90))
    small = Detection(0, 0.5, Box(40, 20, 50, 30))
    assert pointed_at([wide, far], found.asks, [], {0: "Disc"}, ["Disc"], SIZE, 0.25) == [(wide, "Disc")]
    assert pointed_at([wide, small], found.asks, [], {0: "Disc"}, ["Disc"], SIZE, 0.25) == [(small, "Disc")]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each, max_size=3),
    max_leaves=8,
)
KINDS = ["rectangle", "keypoint", "ellipse", "polygon", "brush", "bitmask"]
KEYS = ["x", "y", "width", "height", "rotation", "points", "radiusX", "radiusY", "rle", "imageDataURL", "labels"]
NUMBER = st.sampled_from([0, 50, -1, 100, 1e308, -1e308, 10**400, float("nan"), float("inf"), "50", None, True])
MARK = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["a", "b"]) | JSON,
        "type": st.sampled_from([*KINDS, *(f"{kind}labels" for kind in KINDS), "labels"]) | JSON,
        "value": st.dictionaries(st.sampled_from(KEYS), NUMBER | JSON) | JSON,
        "to_name": JSON,
        "from_name": JSON,
        "item_index": JSON | NUMBER,
        "is_positive": JSON,
        "origin": JSON,
        "original_width": NUMBER | JSON,
        "original_height": NUMBER | JSON,
    },
)
RING = Detection(0, 0.5, Box(0, 0, 20, 20), mask=Mask(0, 0, zeros((20, 20), bool) | True))


@given(st.lists(MARK | JSON, max_size=4), JSON | st.fixed_dictionaries({"drafts": st.lists(JSON, max_size=2)}))
def test_nothing_that_is_sent_is_an_error(result: list[Any], task: Any) -> None:
    found = marks(*result)
    shown(task, found, "v1")
    if found.asks is not None:
        boxes = [Detection(0, 0.9, Box(0, 0, 200, 100)), RING]
        pointed_at(boxes, found.asks, found.excluded, {0: "Disc"}, ["Disc"], SIZE, 0.25)


@pytest.mark.parametrize("x", [1e308, -1e308, 10**300])
def test_a_click_far_away_is_at_the_edge(x: float) -> None:
    found = marks(region("m", "keypointlabels", value={"x": x, "y": x}))
    assert found.asks is not None
    for one in (RING, Detection(0, 0.5, Box(0, 0, 200, 100))):
        pointed_at([one], found.asks, [], {0: "Disc"}, ["Disc"], SIZE, 0.25)


def ids(task: Any, *context: Any) -> list[str]:
    return [str(entry["id"]) for entry in shown(task, marks(*context), "v2")]


def told(*names: str, **fields: Any) -> dict[str, Any]:
    return {"result": [region(name) for name in names], **fields}


def test_a_draft_tells_what_is_there() -> None:
    new = region("new")
    task = {"annotations": [told("a")], "predictions": [told("p")], "drafts": [told("d", "new")]}
    assert ids(task, new) == ["d"], "what was deleted since is not there any more, and a mark is not there either"
    assert ids({**task, "drafts": []}, new) == ["a"]
    assert ids({**task, "drafts": [5, {"result": None}], "annotations": [told("s", was_cancelled=True)]}, new) == ["p"]
    assert ids({**task, "drafts": [told()]}, region("o", origin="prediction"), new) == ["o"]


def test_of_several_the_one_on_the_page_counts() -> None:
    drafts = [told("x", updated_at="2026-02-01"), told("y", updated_at="2026-01-01")]
    assert ids({"drafts": drafts}) == ["x"]
    assert ids({"drafts": drafts}, region("y", origin="prediction")) == ["y"]
    predictions = [told("old", id=1), told("new", id=2), told("ours", id=0, model_version="v2")]
    assert ids({"predictions": predictions[:2]}) == ["new"]
    assert ids({"predictions": predictions}) == ["ours"]
