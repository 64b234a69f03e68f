from __future__ import annotations

import itertools
import json
import math
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from backend.labels.geometry import Box, Detection, ImageSize, Point
from backend.labels.keypoint import from_regions, to_regions
from backend.labels.schema import Control, parse_label_config

IMAGE = '<Image name="image" value="$image"/>'
BOXES = '<Label value="Person" predicted_values="human"/><Label value="Dog"/>'
POINTS = (
    '<Label value="nose" predicted_values="human" model_index="0"/>'
    '<Label value="hand" predicted_values="human" model_index="2"/>'
    '<Label value="tail" predicted_values="dog" model_index="1"/>'
    '<Label value="centre" model_index="3"/>'
)
OWN = f"""<View>{IMAGE}<RectangleLabels name="points_bbox" toName="image" model_skip="true">{BOXES}</RectangleLabels>
<KeyPointLabels name="points" toName="image" model_point_size="4">{POINTS}</KeyPointLabels></View>"""
SPLIT = f"""<View>{IMAGE}<RectangleLabels name="points_bbox" toName="image">{BOXES}</RectangleLabels>
<Labels name="points" toName="image">{POINTS}</Labels><KeyPoint name="point" toName="image"/></View>"""
SIZE = ImageSize(640, 480)
CLASSES = ("Person", "Dog")
NONE = Point(0, 0, 0)


def only(xml: str) -> Control:
    (control,) = (each for each in parse_label_config(xml).controls if each.kind == "keypoint")
    return control


CONTROL = only(OWN)
BOXED_SPLIT = only(SPLIT)
BARE = f'<View>{IMAGE}<KeyPointLabels name="points" toName="image">{POINTS}</KeyPointLabels></View>'
UNNAMED = f"""<View>{IMAGE}<Labels name="points" toName="image"><Label value="tip"/><Label value="end"/></Labels>
<KeyPoint name="point" toName="image"/></View>"""


def draw(found: Detection, label: str, control: Control, size: ImageSize = SIZE) -> list[dict[str, Any]]:
    numbers = itertools.count()
    return to_regions(found, label, control, size, lambda: f"r{next(numbers)}")


def pose(*points: Point, score: float = 0.5, box: Box | None = None) -> Detection:
    return Detection(0, score, box or Box(64, 48, 320, 240), points=points)


def rectangle(region_id: str, x: float, y: float, width: float, height: float, **value: Any) -> dict[str, Any]:
    """What Label Studio stores for a drawn rectangle, in percent."""
    return {
        "id": region_id,
        "from_name": "points_bbox",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": 640,
        "original_height": 480,
        "image_rotation": 0,
        "value": {
            **{"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": ["Person"]},
            **value,
        },
    }


def point(label: str, x: float, y: float, *, note: Any = None, **changes: Any) -> dict[str, Any]:
    """What Label Studio stores for a placed point, in percent."""
    return {
        "id": f"{label}-{x}-{y}",
        "from_name": "points",
        "to_name": "image",
        "type": "keypointlabels",
        "original_width": 640,
        "original_height": 480,
        "image_rotation": 0,
        "value": {"x": x, "y": y, "width": 0.5, "keypointlabels": [label]},
        **({} if note is None else {"meta": {"text": note}}),
        **changes,
    }


def read(*regions: Any, control: Control = CONTROL, classes: tuple[str, ...] = CLASSES) -> list[Detection]:
    return from_regions(regions, control, classes, SIZE)


def places(found: Detection) -> dict[int, tuple[float, float]]:
    """Keypoint index → position in percent, of the points that are there."""
    return {
        index: (round(each.x / SIZE.width * 100, 9), round(each.y / SIZE.height * 100, 9))
        for index, each in enumerate(found.points)
        if each.score
    }


def edges(found: Detection) -> tuple[float, float, float, float]:
    return found.box.x1, found.box.y1, found.box.x2, found.box.y2


def test_regions_of_a_skeleton() -> None:
    found = pose(Point(160, 120, 0.75), Point(1, 1), Point(320, 240, 0.25))
    common = {"to_name": "image", "original_width": 640, "original_height": 480, "image_rotation": 0}
    own = {**common, "from_name": "points", "type": "keypointlabels", "parentID": "r0", "meta": {"text": ["Person r0"]}}
    assert draw(found, "Person", CONTROL) == [
        {
            **common,
            "id": "r0",
            "from_name": "points_bbox",
            "type": "rectanglelabels",
            "score": 0.5,
            "value": {
                "x": 10.0,
                "y": 10.0,
                "width": 40.0,
                "height": 40.0,
                "rotation": 0,
                "rectanglelabels": ["Person"],
            },
        },
        {
            **own,
            "id": "r1",
            "score": 0.75,
            "value": {"x": 25.0, "y": 25.0, "width": 0.625, "keypointlabels": ["nose"]},
        },
        {
            **own,
            "id": "r2",
            "score": 0.25,
            "value": {"x": 50.0, "y": 50.0, "width": 0.625, "keypointlabels": ["hand"]},
        },
    ]


@pytest.mark.parametrize("dog", ["dog", "Dog", "DOG"])
def test_points_go_to_the_classes_that_have_them(dog: str) -> None:
    control = only(OWN.replace('"dog"', f'"{dog}"'))
    whole = pose(*[Point(100 + 10 * index, 100) for index in range(4)])
    names = {
        label: [region["value"]["keypointlabels"] for region in draw(whole, label, control)[1:]] for label in CLASSES
    }
    assert names == {"Person": [["nose"], ["hand"], ["centre"]], "Dog": [["tail"], ["centre"]]}


def test_one_kind_of_skeleton_has_every_point() -> None:
    boxes = '<RectangleLabels name="b" toName="image"><Label value="Body"/></RectangleLabels>'
    control = only(BARE.replace(IMAGE, IMAGE + boxes))
    found = draw(pose(Point(1, 1), Point(2, 2), Point(3, 3), Point(4, 4)), "Body", control)
    assert len(found) == 4  # the boxes are another control's, which draws them itself
    (back,) = from_regions(found, control, ("Body",), SIZE)
    assert [each.score for each in back.points] == [1, 1, 1, 1]


def test_without_a_box_a_note_says_what_belongs_together() -> None:
    control = only(BARE)
    found = draw(pose(Point(1, 1), NONE, Point(5, 5)), "human", control)
    assert [region["meta"] for region in found] == [{"text": ["human r0"]}] * 2
    assert not any("parentID" in region for region in found)
    assert draw(pose(NONE, Point(1, 1)), "human", control) == []


def test_boxes_are_not_drawn_where_they_are_not_wanted() -> None:
    control = only(OWN.replace("model_point_size", 'model_add_bboxes="false" model_point_size'))
    assert [region["type"] for region in draw(pose(Point(1, 1)), "Person", control)] == ["keypointlabels"]


@pytest.mark.parametrize(
    ("given_point", "drawn_at"),
    [
        (Point(-0.9, 480.9), (0, 100)),
        (Point(640.9, -0.9), (100, 0)),
        (Point(-1.1, 10), None),
        (Point(10, 481.1), None),
        (Point(math.nan, 10), None),
        (Point(10, math.inf), None),
        (Point(10, 10, math.nan), None),
        (Point(10, 10, math.inf), None),
        (Point(10, 10, 0), None),
        (Point(10, 10, -1), None),
    ],
)
def test_points_that_are_missing_or_off_the_image(given_point: Point, drawn_at: tuple[float, float] | None) -> None:
    found = [(region["value"]["x"], region["value"]["y"]) for region in draw(pose(given_point), "Person", CONTROL)[1:]]
    assert found == ([] if drawn_at is None else [drawn_at])


def test_a_point_needs_its_own_score() -> None:
    control = only(OWN.replace("model_point_size", 'model_point_threshold="0.5" model_point_size'))
    found = draw(pose(Point(1, 1, 0.49), NONE, Point(2, 2, 0.5)), "Person", control)
    assert [region["score"] for region in found] == [0.5, 0.5]
    assert found[1]["value"]["keypointlabels"] == ["hand"]


@pytest.mark.parametrize(
    ("found", "size"),
    [
        (pose(Point(1, 1), box=Box(10, 10, 10, 20)), SIZE),
        (pose(Point(1, 1), box=Box(-50, 10, -1, 20)), SIZE),
        (pose(Point(1, 1), box=Box(math.nan, 10, 30, 20)), SIZE),
        (pose(Point(1, 1), score=math.nan), SIZE),
        (pose(Point(0, 0)), ImageSize(0, 5)),
        (pose(Point(0, 0)), ImageSize(5, 0)),
    ],
)
def test_what_cannot_be_drawn_is_no_region(found: Detection, size: ImageSize) -> None:
    assert draw(found, "Person", CONTROL, size) == []


def test_regions_of_numpy_maybe_numbersare_json() -> None:
    x, y, score = np.array([10, 20, 0.25], np.float32)
    found = Detection(0, cast(float, np.float32(0.5)), Box(*np.array([1, 2, 30, 40], np.float32)))
    for control in (CONTROL, BOXED_SPLIT):
        made = draw(Detection(0, found.score, found.box, points=(Point(x, y, score),)), "Person", control)
        assert json.loads(json.dumps(made))[1]["score"] == 0.25


def test_points_are_no_wider_than_the_image() -> None:
    assert draw(pose(Point(0, 0), box=Box(0, 0, 1, 1)), "Person", CONTROL, ImageSize(1, 1))[1]["value"]["width"] == 100


sides = st.integers(1, 20_000)
shares = st.floats(0, 1)


@st.composite
def skeletons(draw_: st.DrawFn, size: ImageSize, indexes: tuple[int, ...]) -> tuple[Box, tuple[Point, ...]]:
    """A box with area on the image and points in it; those at other indexes are missing, some of these too."""
    low, high = draw_(st.tuples(shares, shares).filter(lambda pair: abs(pair[0] - pair[1]) > 0.001).map(sorted))
    top, bottom = draw_(st.tuples(shares, shares).filter(lambda pair: abs(pair[0] - pair[1]) > 0.001).map(sorted))
    box = Box(low * size.width, top * size.height, high * size.width, bottom * size.height)
    points = []
    for index in range(4):
        if index not in indexes or draw_(st.booleans()):
            points.append(NONE)
            continue
        x, y = draw_(st.tuples(shares, shares))
        points.append(Point(box.x1 + x * (box.x2 - box.x1), box.y1 + y * (box.y2 - box.y1), draw_(st.floats(0.01, 1))))
    return box, tuple(points)


OF_CLASS = {"Person": (0, 2, 3), "Dog": (1, 3)}


def same(found: Detection, cls: int, box: Box, points: tuple[Point, ...]) -> None:
    assert found.cls == cls
    assert found.score == 1
    assert edges(found) == pytest.approx((box.x1, box.y1, box.x2, box.y2), abs=0.01)
    assert [each.score for each in found.points] == [1 if each.score else 0 for each in points]
    for mine, theirs in zip(found.points, points, strict=True):
        if theirs.score:
            assert (mine.x, mine.y) == pytest.approx((theirs.x, theirs.y), abs=0.01)


@pytest.mark.parametrize("control", [CONTROL, BOXED_SPLIT], ids=["own", "split"])
@given(st.data())
def test_round_trip_of_several_skeletons_in_any_order(control: Control, data: st.DataObject) -> None:
    size = ImageSize(data.draw(sides), data.draw(sides))
    numbers = itertools.count()
    regions: list[dict[str, Any]] = []
    wanted = []
    for label in data.draw(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=4)):
        box, points = data.draw(skeletons(size, OF_CLASS[label]))
        found = Detection(9, 0.5, box, points=points)
        made = to_regions(found, label, control, size, lambda: f"r{next(numbers)}")
        wanted.append((made[0]["id"], CLASSES.index(label), box, points))
        regions += made
    assert len({(region["id"], region["from_name"]) for region in regions}) == len(regions)
    for region in regions:
        value = region["value"]
        assert all(0 <= value[name] <= 100 for name in ("x", "y", "width"))
    prediction = {"model_version": "v1", "score": 0.5, "result": regions}
    assert INTERFACES[control].validate_prediction(prediction, return_errors=True) == []

    mixed = json.loads(json.dumps(data.draw(st.permutations(regions))))
    order = [region["id"] for region in mixed if region["from_name"] == "points_bbox"]
    wanted.sort(key=lambda each: order.index(each[0]))
    back = from_regions(mixed, control, CLASSES, size)
    assert len(back) == len(wanted)
    for each, (_, cls, box, points) in zip(back, wanted, strict=True):
        same(each, cls, box, points)


INTERFACES = {CONTROL: LabelInterface(OWN), BOXED_SPLIT: LabelInterface(SPLIT)}


@pytest.mark.parametrize("xml", [BARE, UNNAMED], ids=["own", "split"])
@given(st.data())
def test_round_trip_without_boxes(xml: str, data: st.DataObject) -> None:
    control = only(xml)
    classes = control.labels
    size = ImageSize(data.draw(sides), data.draw(sides))
    indexes = {"human": (0, 2), "dog": (1,), "points": (0, 1)}
    numbers = itertools.count()
    regions: list[dict[str, Any]] = []
    wanted = []
    for label in data.draw(st.lists(st.sampled_from(classes), min_size=1, max_size=4)):
        box, points = data.draw(skeletons(size, indexes[label]))
        made = to_regions(Detection(0, 0.5, box, points=points), label, control, size, lambda: f"r{next(numbers)}")
        regions += made
        if made:
            wanted.append((classes.index(label), points[: 1 + max(each.index for each in control.points)]))
    prediction = {"model_version": "v1", "score": 0.5, "result": regions}
    assert LabelInterface(xml).validate_prediction(prediction, return_errors=True) == []
    back = from_regions(json.loads(json.dumps(regions)), control, classes, size)
    assert len(back) == len(wanted)
    for each, (cls, points) in zip(back, wanted, strict=True):
        same(each, cls, each.box, points)
        for one in points:
            if one.score:
                assert each.box.x1 <= one.x + 0.01 and one.x - 0.01 <= each.box.x2
                assert each.box.y1 <= one.y + 0.01 and one.y - 0.01 <= each.box.y2
        assert 0 <= each.box.x1 < each.box.x2 <= size.width
        assert 0 <= each.box.y1 < each.box.y2 <= size.height


def test_a_parent_wins_over_where_the_point_lies() -> None:
    (first, second) = read(
        point("nose", 75, 75, parentID="a"), rectangle("a", 10, 10, 20, 20), rectangle("b", 70, 70, 20, 20)
    )
    assert places(first) == {0: (75, 75)}
    assert places(second) == {}


def test_a_point_goes_into_the_smallest_rectangle_around_it() -> None:
    (large, small) = read(
        rectangle("a", 0, 0, 90, 90), rectangle("b", 10, 10, 20, 20), point("nose", 15, 15), point("hand", 50, 50)
    )
    assert places(large) == {2: (50, 50)}
    assert places(small) == {0: (15, 15)}
    assert edges(small) == pytest.approx((64, 48, 192, 144))


def test_turned_rectangles_count_by_their_bounds() -> None:
    # 64 x 192 px at (320, 96), turned clockwise about that corner: 192 px to the left, 64 px down.
    (found,) = read(rectangle("a", 50, 20, 10, 40, rotation=90), point("nose", 25, 30))
    assert edges(found) == pytest.approx((128, 96, 320, 160))
    assert places(found) == {0: (25, 30)}


@given(st.floats(-720, 720), st.floats(1, 20), st.floats(1, 20), st.sampled_from([SIZE, ImageSize(480, 640)]))
def test_a_turned_rectangle_is_bounded_by_its_corners(
    angle: float, width: float, height: float, size: ImageSize
) -> None:
    turn = complex(math.cos(math.radians(angle)), math.sin(math.radians(angle)))
    w, h = width / 100 * 640, height / 100 * 480
    corners = [complex(320, 240) + offset * turn for offset in (0, w, 1j * h, w + 1j * h)]
    (found,) = from_regions([rectangle("a", 50, 50, width, height, rotation=angle)], CONTROL, CLASSES, size)
    across, down = size.width / 640, size.height / 480
    assert found.box.x1 == pytest.approx(min(each.real for each in corners) * across, abs=0.01)
    assert found.box.x2 == pytest.approx(max(each.real for each in corners) * across, abs=0.01)
    assert found.box.y1 == pytest.approx(min(each.imag for each in corners) * down, abs=0.01)
    assert found.box.y2 == pytest.approx(max(each.imag for each in corners) * down, abs=0.01)


def test_the_first_of_equal_points_in_a_rectangle_counts() -> None:
    (found,) = read(rectangle("a", 0, 0, 90, 90), point("nose", 1, 1), point("nose", 2, 2), point("hand", 3, 3))
    assert places(found) == {0: (1, 1), 2: (3, 3)}


def test_points_of_another_class_are_not_the_skeletons() -> None:
    (found,) = read(rectangle("a", 0, 0, 90, 90, rectanglelabels=["Dog"]), point("nose", 1, 1), point("tail", 2, 2))
    assert found.cls == 1
    assert places(found) == {1: (2, 2)}


def test_a_rectangle_with_two_labels_is_two_skeletons() -> None:
    both = rectangle("a", 0, 0, 90, 90, rectanglelabels=["Dog", "Ship", "Person"])
    assert [(found.cls, places(found)) for found in read(both, point("nose", 1, 1), point("tail", 2, 2))] == [
        (1, {1: (2, 2)}),
        (0, {0: (1, 1)}),
    ]


def test_points_in_a_rectangle_of_no_class_teach_nothing() -> None:
    assert read(rectangle("a", 0, 0, 90, 90, rectanglelabels=["Ship"]), point("nose", 1, 1)) == []


def test_a_rectangle_alone_teaches_the_box_if_boxes_are_suggested() -> None:
    alone = rectangle("a", -10, 90, 30, 30)
    (found,) = read(alone)
    assert edges(found) == pytest.approx((0, 432, 128, 480))
    assert found == Detection(0, 1.0, found.box, points=(NONE,) * 4)
    silent = only(OWN.replace("model_point_size", 'model_add_bboxes="false" model_point_size'))
    assert read(alone, control=silent) == []
    (kept,) = read(alone, point("nose", 5, 95), control=silent)
    assert places(kept) == {0: (5, 95)}


def test_loose_points_begin_a_skeleton_when_a_label_comes_again() -> None:
    found = read(
        point("nose", 1, 1), point("hand", 2, 2), point("nose", 50, 50), point("nose", 60, 60), point("hand", 61, 61)
    )
    assert [places(each) for each in found] == [{0: (1, 1), 2: (2, 2)}, {0: (50, 50)}, {0: (60, 60), 2: (61, 61)}]


def test_loose_points_begin_a_skeleton_when_no_class_has_them_all() -> None:
    found = read(point("nose", 1, 1), point("tail", 2, 2), point("centre", 3, 3))
    assert [(each.cls, places(each)) for each in found] == [(0, {0: (1, 1)}), (1, {1: (2, 2), 3: (3, 3)})]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"note": ["bbox-0"]}, {"note": ["bbox-1"]}),
        ({"note": "bbox-0"}, {"note": "bbox-1"}),
        ({"parentID": "gone"}, {"parentID": "away"}),
        ({"parentID": "gone", "note": ["x"]}, {"parentID": "away", "note": ["x"]}),
        ({"note": ["bbox-0"]}, {}),
    ],
)
def test_loose_points_with_one_note_or_parent_belong_together(one: dict[str, Any], two: dict[str, Any]) -> None:
    found = read(
        point("nose", 1, 1, **one),
        point("nose", 50, 50, **two),
        point("hand", 2, 2, **one),
        point("hand", 51, 51, **two),
    )
    assert [places(each) for each in found] == [{0: (1, 1), 2: (2, 2)}, {0: (50, 50), 2: (51, 51)}]


def test_a_note_on_points_of_several_skeletons_does_not_lose_any() -> None:
    found = read(point("nose", 1, 1, note=["hidden"]), point("nose", 50, 50, note=["hidden"]))
    assert [places(each) for each in found] == [{0: (1, 1)}, {0: (50, 50)}]


def test_loose_points_whose_class_cannot_be_told_are_left_out() -> None:
    assert read(point("centre", 1, 1)) == []
    (alone,) = read(point("centre", 1, 1), control=only(BARE), classes=("human",))
    assert (alone.cls, places(alone)) == (0, {3: (1, 1)})


def test_the_box_of_loose_points_is_a_little_larger() -> None:
    (one,) = read(point("nose", 50, 50))
    assert one.box == Box(316, 236, 324, 244)
    (wide,) = read(point("nose", 10, 50), point("hand", 60, 60))
    assert wide.box == Box(64 - 32, 240 - 32, 384 + 32, 288 + 32)
    (corner,) = read(point("nose", 0, 0), point("hand", 100, 100))
    assert corner.box == Box(0, 0, 640, 480)


def test_pages_are_kept_apart() -> None:
    control = only(OWN.replace('value="$image"', 'valueList="$pages"'))
    regions = [
        rectangle("a", 0, 0, 50, 50),
        {**rectangle("b", 0, 0, 50, 50), "item_index": 1},
        point("nose", 10, 10, item_index=1),
    ]
    assert [places(each) for each in from_regions(regions, control, CLASSES, SIZE, 0)] == [{}]
    assert [places(each) for each in from_regions(regions, control, CLASSES, SIZE, 1)] == [{0: (10, 10)}]


def test_an_image_without_pixels_teaches_nothing() -> None:
    assert from_regions([rectangle("a", 0, 0, 50, 50)], CONTROL, CLASSES, ImageSize(0, 0)) == []


GOOD = (rectangle("a", 0, 0, 50, 50), point("nose", 10, 10))


@pytest.mark.parametrize(
    "bad",
    [
        {"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"},
        point("hand", 20, 20, from_name="other"),
        point("hand", 20, 20, to_name="other"),
        point("hand", 20, 20, type="brushlabels"),
        point("hand", 20, 20, value=None),
        point("hand", 20, 20, value={"x": 1, "y": 1}),
        point("hand", 20, 20, value={"x": 1, "y": 1, "keypointlabels": "hand"}),
        point("hand", 20, 20, value={"x": 1, "keypointlabels": ["hand"]}),
        point("hand", 20, 20, value={"x": "1", "y": 1, "keypointlabels": ["hand"]}),
        point("hand", 20, 20, value={"x": True, "y": 1, "keypointlabels": ["hand"]}),
        point("foot", 20, 20),
        point("hand", math.nan, 20),
        point("hand", 20, math.inf),
        point("hand", 10**400, 20),
        point("hand", -5, 20),
        point("hand", 20, 120),
        rectangle("b", 0, 0, 10, 0),
        rectangle("b", 0, 0, -10, 10),
        rectangle("b", 100, 0, 10, 10),
        rectangle("b", 0, 0, 10, 10, rotation="1"),
        {**rectangle("b", 0, 0, 10, 10), "value": {"rectanglelabels": ["Person"]}},
        {},
        None,
        "text",
        7,
    ],
)
def test_what_teaches_nothing_is_left_out(bad: Any) -> None:
    assert read(bad, *GOOD) == read(*GOOD) == read(*GOOD, bad)


PAIR = (
    point("nose", 10, 10, from_name="point", type="keypoint"),
    point("nose", 10, 10, type="labels", value={"x": 10, "y": 10, "labels": ["nose"]}),
)
words = st.text("ab1", max_size=3) | st.sampled_from(["nose", "Person", "a", "10"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
maybe_numbers = st.none() | st.integers(-(10**320), 10**320) | st.floats()
values = st.dictionaries(
    st.sampled_from(["x", "y", "width", "height", "rotation", "rectanglelabels", "keypointlabels", "labels"]),
    maybe_numbers | json_values,
)
tops = st.dictionaries(st.sampled_from(["parentID", "meta", *sorted(GOOD[0])]), json_values)


@pytest.mark.parametrize("control", [CONTROL, BOXED_SPLIT, only(BARE)], ids=["own", "split", "bare"])
@given(st.lists(st.tuples(st.sampled_from([*GOOD, *PAIR]), tops, values), max_size=4))
def test_no_region_raises(control: Control, changes: list[tuple[Any, dict[str, Any], dict[str, Any]]]) -> None:
    regions = [{**whole, "value": {**whole["value"], **value}, **top} for whole, top, value in changes]
    for found in from_regions(regions, control, CLASSES, SIZE):
        assert 0 <= found.box.x1 < found.box.x2 <= 640
        assert 0 <= found.box.y1 < found.box.y2 <= 480
        assert len(found.points) == 4
        assert all(0 <= each.x <= 640 and 0 <= each.y <= 480 for each in found.points)
