"""A tool that was not used says nothing: the table of what then is taught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.shapes import SCENE_CONFIG, draw_scenes

from backend.fit.dataset.examples import plan_of
from backend.fit.dataset.lesson import Lesson, lesson_of, reader_of
from backend.labels.geometry import ImageSize
from backend.labels.schema import parse_label_config

NUTS = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image"><Label value="Nut"/>'
    '</RectangleLabels><PolygonLabels name="poly" toName="image"><Label value="Nut"/><Label value="Leaf"/>'
    '</PolygonLabels><Ellipse name="free" toName="image"/></View>'
)
WHY = (
    '<View><Image name="image" value="$image"/><Choices name="ok" toName="image"><Choice value="good"/>'
    '<Choice value="bad"/></Choices><View visibleWhen="choice-selected" whenTagName="ok" whenChoiceValue="bad">'
    '<Choices name="why" toName="image" choice="multiple"><Choice value="blur"/><Choice value="dark"/></Choices>'
    "</View></View>"
)


def region(name: str, kind: str, label: str, **value: Any) -> dict[str, Any]:
    return {"id": f"{value}", "from_name": name, "to_name": "image", "type": kind, "value": {**value, kind: [label]}}


def box(x: float = 20) -> dict[str, Any]:
    return region("box", "rectanglelabels", "Nut", x=x, y=20, width=30, height=40, rotation=0)


def outline(x: float = 20, label: str = "Nut") -> dict[str, Any]:
    return region("poly", "polygonlabels", label, points=[[x, 20], [x + 30, 20], [x + 30, 60], [x, 60]])


def lessons(config: str, result: list[dict[str, Any]]) -> dict[str, Lesson | None]:
    schema = parse_label_config(config)
    reading = reader_of(schema).read(result)
    return {
        network.key: lesson_of(reading, schema, network, controls, "image", ImageSize(200, 100), 0)
        for network, controls in plan_of(schema, [reading])
    }


@pytest.mark.parametrize(
    ("result", "detect", "segment"),
    [
        ([box()], 1, "left out"),
        ([outline()], 1, 1),
        ([box(), outline()], 1, 1),
        ([box(0), outline(60)], 2, "left out"),
        ([box(0), box(60), outline(0)], 2, "left out"),
        ([outline(0, "Leaf")], 0, 1),
        ([], 0, 0),
        ([region("free", "ellipse", "", x=50, y=50, radiusX=5, radiusY=5)], 0, 0),
        ([box(), {**box(60), "value": {"x": 1}}], "left out", "left out"),
    ],
)
def test_the_silence_of_a_tool(result: list[dict[str, Any]], detect: int | str, segment: int | str) -> None:
    found = {
        key: "left out" if lesson and lesson.left_out else len(lesson.objects) if lesson else None
        for key, lesson in lessons(NUTS, result).items()
    }
    assert found == {"detect": detect, "segment": segment}


def test_a_question_that_was_not_asked_is_not_answered_with_nothing() -> None:
    good, bad = (region("ok", "choices", each) for each in ("good", "bad"))
    why = lessons(WHY, [good])["classify:why"]
    assert why is not None and why.left_out == "`why` was not asked"
    nothing = lessons(WHY, [bad])["classify:why"]
    assert nothing is not None and (list(nothing.objects), nothing.left_out) == ([], "")
    some = lessons(WHY, [bad, region("why", "choices", "dark")])["classify:why"]
    assert some is not None and [each.cls for each in some.objects] == [1]
    assert lessons(WHY, [])["classify:ok"] is None


def test_tools_with_labels_of_their_own_do_not_keep_images_from_each_other(tmp_path: Path) -> None:
    """Nine controls on one image, skeletons among them, as a careful person uses them."""
    schema = parse_label_config(SCENE_CONFIG)
    for scene in draw_scenes(tmp_path, 5, seed=11):
        reading = reader_of(schema).read(scene.result())
        for network, controls in plan_of(schema, [reading]):
            lesson = lesson_of(reading, schema, network, controls, "image", ImageSize(scene.width, scene.height), 0)
            assert lesson is not None and not lesson.left_out
            drawn = sum(thing.control in network.controls for thing in scene.things)
            assert network.task in ("classify", "pose") or len(lesson.objects) == drawn


TOOLS = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image"><Label value="Nut"/>'
    '<Label value="Leaf"/></RectangleLabels><PolygonLabels name="poly" toName="image"><Label value="Stem"/>'
    "</PolygonLabels></View>"
)
SHAPES = {
    "rectanglelabels": {"x": 20, "y": 20, "width": 30, "height": 40, "rotation": 0},
    "ellipselabels": {"x": 40, "y": 40, "radiusX": 10, "radiusY": 10, "rotation": 0},
    "polygonlabels": {"points": [[20, 20], [50, 20], [50, 60], [20, 60]]},
    "keypointlabels": {"x": 20, "y": 20, "width": 1},
    "vectorlabels": {"vertices": [{"x": 20, "y": 20}]},
    "brushlabels": {"format": "rle", "rle": []},
}
ODD: list[Any] = [None, "", "2", -5, 0, 1e9, float("nan"), float("inf"), [], {}, [[1, 2]], [["a", "b"]], True]

regions = st.one_of(
    st.builds(
        lambda kind, name, to, labels, key, odd: {
            "id": "r",
            "from_name": name,
            "to_name": to,
            "type": kind,
            "value": {**SHAPES[kind], kind: labels, **({key: odd} if key in SHAPES[kind] else {})},
        },
        st.sampled_from(sorted(SHAPES)),
        st.sampled_from(["box", "poly", "gone", "", None]),
        st.sampled_from(["image", "gone", None]),
        st.one_of(
            st.lists(st.sampled_from(["Nut", "Leaf", "Stem", "nut ", "car", ""]), max_size=2), st.sampled_from(ODD)
        ),
        st.sampled_from(["", "", "x", "width", "points", "radiusX", "vertices"]),
        st.sampled_from(ODD),
    ),
    st.sampled_from([*ODD, {"type": "rectanglelabels"}, {"from_name": "box", "to_name": "image", "value": {}}]),
)


KNOWN = {"nut": "Nut", "leaf": "Leaf", "stem": "Stem"}
LEARNED = ("rectanglelabels", "ellipselabels", "polygonlabels", "brushlabels")
TAUGHT = {"detect": ("box", {"Nut", "Leaf"}), "segment": ("poly", {"Stem"})}


def words(region: Any) -> list[str]:
    """The labels that a region carries, in whatever case."""
    value = region.get("value") if isinstance(region, dict) else None
    named = value.get(region.get("type")) if isinstance(value, dict) else None
    named = named if isinstance(named, list) else []
    return [KNOWN.get(each.strip().lower(), each) for each in named if isinstance(each, str)]


@settings(max_examples=500, deadline=None)
@given(st.lists(regions, max_size=4))
@example([box(), {**box(60), "value": {"x": 1}}])
@example([region("gone", "keypointlabels", "Nut", x=20, y=20)])
@example([{**region("gone", "vectorlabels", "Nut", vertices=[]), "to_name": "gone"}])
def test_each_region_is_taught_as_what_it_says_or_its_image_is_left_out(result: list[Any]) -> None:
    """Of boxes and outlines without a common label: no region becomes background, and nothing comes from nowhere."""
    schema = parse_label_config(TOOLS)
    classes = {network.key: network.classes for network, _ in plan_of(schema, [reader_of(schema).read(result)])}
    found = {key.replace("obb", "detect"): (lesson, classes[key]) for key, lesson in lessons(TOOLS, result).items()}
    assert found.keys() == TAUGHT.keys()
    drawn = [each for each in result if isinstance(each, dict) and each.get("type") in SHAPES]
    for key, (name, mine) in TAUGHT.items():
        lesson, names = found[key]
        assert lesson is not None
        if lesson.left_out:
            continue
        assert {names[each.cls] for each in lesson.objects} == mine & {word for each in drawn for word in words(each)}
        for each in drawn:
            if each.get("from_name") == name:
                assert words(each) and mine.issuperset(words(each))
    unclear = [each for each in result if not isinstance(each, dict)]
    unclear += [each for each in drawn if each["type"] in LEARNED and not set(words(each)) & set(KNOWN.values())]
    assert not unclear or any(lesson is not None and lesson.left_out for lesson, _ in found.values())
    silent = {
        TAUGHT[key][0] for key, (lesson, _) in found.items() if lesson and not (lesson.objects or lesson.left_out)
    }
    assert not (unclear and silent), "what is not understood may be what a tool that was not used would have drawn"


CARS = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image"><Label value="Car"/>'
    '<Label value="Truck"/></RectangleLabels><PolygonLabels name="poly" toName="image"><Label value="Car"/>'
    '<Label value="Tree"/></PolygonLabels></View>'
)


@pytest.mark.parametrize(
    ("config", "result", "box", "poly"),
    [
        (CARS, [("poly", "Bush")], "left out", "left out"),
        (CARS, [("poly", "Bush"), ("box", "Truck")], "left out", "left out"),
        (CARS, [("poly", "")], "left out", "left out"),
        (CARS, [("poly", "Truck"), ("box", "Truck")], "left out", "left out"),
        (TOOLS, [("poly", "Bush")], "left out", "left out"),
        (TOOLS, [("poly", "Bush"), ("box", "Nut")], 1, "left out"),
        (TOOLS, [("poly", "Bush"), ("poly", "Stem")], "left out", "left out"),
        (TOOLS, [("box", "Bush"), ("poly", "Stem")], "left out", 1),
        (TOOLS, [("gone", "Bush"), ("box", "Nut"), ("box", "Stem")], "left out", "left out"),
        (TOOLS, [("box", "Stem")], "left out", "left out"),
    ],
)
def test_a_region_of_unknown_meaning_is_background_only_for_a_tool_that_was_used_and_shares_no_label(
    config: str, result: list[tuple[str, str]], box: int | str, poly: int | str
) -> None:
    kinds = {"box": "rectanglelabels", "poly": "polygonlabels", "gone": "polygonlabels"}
    drawn = [region(name, kinds[name], label, **SHAPES[kinds[name]]) for name, label in result]
    for each in drawn:
        each["value"][each["type"]] = [label for label in each["value"][each["type"]] if label]
    found = lessons(config, drawn)
    told = {
        key: "left out" if each and each.left_out else len(each.objects) if each else 0 for key, each in found.items()
    }
    assert told == {"detect": box, "segment": poly}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.builds(
            lambda name, labels: {
                "id": "r",
                "from_name": name,
                "to_name": "image",
                "type": (kind := {"box": "rectanglelabels", "poly": "polygonlabels"}[name]),
                "value": {**SHAPES[kind], kind: labels},
            },
            st.sampled_from(["box", "poly"]),
            st.lists(st.sampled_from(["Car", "Truck", "Tree", "Bush", " ", "car"]), max_size=2),
        ),
        max_size=4,
    )
)
def test_between_tools_that_share_a_label_nothing_unknown_is_background(result: list[dict[str, Any]]) -> None:
    known = {"car", "truck", "tree"}
    unknown = [each for each in result if not {word.lower() for word in each["value"][each["type"]]} & known]
    for lesson in lessons(CARS, result).values():
        assert lesson is not None
        assert lesson.left_out or not unknown


TWO_IMAGES = (
    '<View><Image name="a" value="$a"/><Image name="b" value="$b"/><RectangleLabels name="box" toName="a,b">'
    '<Label value="Nut"/></RectangleLabels><PolygonLabels name="poly" toName="a,b"><Label value="Nut"/>'
    "</PolygonLabels></View>"
)


@pytest.mark.parametrize(("image", "label", "left_out"), [("a", "Bush", "a"), ("b", "", "b"), ("gone", "Nut", "ab")])
def test_what_is_not_understood_concerns_its_own_image(image: str, label: str, left_out: str) -> None:
    schema = parse_label_config(TWO_IMAGES)
    reading = reader_of(schema).read(
        [
            {
                **box(),
                "to_name": image,
                "value": {**SHAPES["rectanglelabels"], "rectanglelabels": [label] if label else []},
            }
        ]
    )
    for network, controls in plan_of(schema, [reading]):
        for key in "ab":
            lesson = lesson_of(reading, schema, network, controls, key, ImageSize(200, 100), 0)
            assert lesson is not None
            assert bool(lesson.left_out) == (key in left_out), (network.key, key)


SURE = (
    '<View><Image name="image" {}/><Choices name="sky" toName="image" {}><Choice value="grey"/>'
    '<Choice value="clear" alias="c"/></Choices>{}</View>'
)
MORE = '<Choices name="soil" toName="image"><Choice value="wet"/><Choice value="dry"/></Choices>'


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([["grey"]], [0]),
        ([["grey"], ["grey"]], [0]),
        ([["c"], ["clear"]], [1]),
        ([["grey", "clear"]], "left out"),
        ([["grey"], ["c"]], "left out"),
        ([["Grey "], ["C"], ["grey"]], "left out"),
    ],
)
def test_of_two_answers_to_a_single_choice_none_is_taken(answers: list[list[str]], expected: list[int] | str) -> None:
    drawn = [{**region("sky", "choices", ""), "value": {"choices": each}} for each in answers]
    drawn.append(region("soil", "choices", "dry"))
    found = lessons(SURE.format('value="$image"', "", MORE), drawn)
    sky, soil = found["classify:sky"], found["classify:soil"]
    assert sky is not None and soil is not None
    assert ("left out" if sky.left_out else [each.cls for each in sky.objects]) == expected
    assert [each.cls for each in soil.objects] == [1] and not soil.left_out
    several = lessons(SURE.format('value="$image"', 'choice="multiple"', ""), drawn[:-1])["classify:sky"]
    assert several is not None and not several.left_out


def test_a_box_of_less_than_half_a_pixel_is_a_click_that_slipped() -> None:
    slip = region("box", "rectanglelabels", "Nut", x=20, y=20, width=0.2, height=0.3, rotation=0)
    found = lessons(NUTS, [box(60), slip])["detect"]
    assert found is not None
    assert found.left_out


def test_a_point_of_unknown_meaning_is_no_background() -> None:
    nose = region("face", "keypointlabels", "nose", x=20, y=20, width=1)
    assert all(each is not None and each.left_out for each in lessons(TOOLS, [nose]).values())


def test_what_an_import_wrote_twice_is_there_once() -> None:
    found = lessons(NUTS, [box(), box(), {**box(60), "id": box()["id"]}])["detect"]
    assert found is not None
    assert len(found.objects) == 2


def test_each_page_may_have_an_answer_of_its_own() -> None:
    schema = parse_label_config(SURE.format('valueList="$image"', 'perItem="true"', ""))
    drawn = [{**region("sky", "choices", label), "item_index": page} for page, label in enumerate(["grey", "clear"])]
    reading = reader_of(schema).read(drawn)
    assert not reading.problems and len(reading.regions) == 2


def test_a_question_that_hangs_on_an_unclear_answer_is_not_answered_with_nothing() -> None:
    answers = [region("ok", "choices", each) for each in ("good", "bad")]
    for drawn in (answers, [region("ok", "choices", "worst")], [region("ok", "choices", "bad"), answers[0]]):
        why = lessons(WHY, drawn)["classify:why"]
        assert why is not None and why.left_out
    asked = lessons(WHY, [region("ok", "choices", " BAD")])["classify:why"]
    assert asked is not None and not asked.left_out
    unless = WHY.replace("choice-selected", "choice-unselected").replace(
        'whenChoiceValue="bad"', 'whenChoiceValue="good"'
    )
    hidden = lessons(unless, [region("ok", "choices", "Good")])["classify:why"]
    assert hidden is not None and hidden.left_out == "`why` was not asked"


PAGES = NUTS.replace('value="$image"', 'valueList="$image"')


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (1, [0, 1]),
        ("1", [0, 1]),
        (1.0, [0, 1]),
        (None, [1, 0]),
        ("last", ["left out", "left out"]),
        (-1, ["left out", "left out"]),
        (0.5, ["left out", "left out"]),
        (2, ["left out", "left out"]),
        ("17", ["left out", "left out"]),
    ],
)
@pytest.mark.parametrize("drawn", [box(), outline(), region("gone", "vectorlabels", "Nut", vertices=[])])
def test_a_page_is_read_as_a_place_is(drawn: dict[str, Any], index: object, expected: list[object]) -> None:
    schema = parse_label_config(PAGES)
    reading = reader_of(schema).read([{**drawn, "item_index": index}], {"image": ["one", "two"]})
    expected = ["left out" if each and drawn["from_name"] not in ("box", "poly") else each for each in expected]
    (network, controls), *_ = plan_of(schema, [reading])
    for page, wanted in enumerate(expected):
        lesson = lesson_of(reading, schema, network, controls, "image", ImageSize(200, 100), page)
        assert lesson is not None
        assert ("left out" if lesson.left_out else len(lesson.objects)) == wanted


@pytest.mark.parametrize("label", ["Nut", "nut", " Nut", "Walnut", "n"])
@pytest.mark.parametrize("image", ["image", "gone"])
def test_what_another_tool_drew_is_no_background_however_its_label_is_written(label: str, image: str) -> None:
    config = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
        '<Label value="n" alias="Nut" predicted_values="Walnut"/></RectangleLabels>'
        '<VectorLabels name="line" toName="image"><Label value="Nut"/></VectorLabels></View>'
    )
    drawn = {**region("line", "vectorlabels", label, vertices=[]), "to_name": image}
    lesson = lessons(config, [drawn])["detect"]
    assert lesson is not None
    assert lesson.left_out


MIXED = (
    '<View><Image name="image" value="$image"/><Text name="text" value="$text"/><RectangleLabels name="box" '
    'toName="image"><Label value="Nut"/></RectangleLabels><VectorLabels name="line" toName="image"><Label value="Nut"/>'
    '<Label value="Leaf"/></VectorLabels><Labels name="words" toName="text"><Label value="Nut"/></Labels></View>'
)


@pytest.mark.parametrize(
    ("name", "kind", "label", "left_out"),
    [
        ("line", "vectorlabels", "", True),
        ("line", "vectorlabels", "Bush", True),
        ("line", "vectorlabels", "Leaf", False),
        ("words", "labels", "Nut", False),
    ],
)
def test_another_tool_concerns_what_it_may_have_drawn(name: str, kind: str, label: str, left_out: bool) -> None:
    drawn = region(name, kind, label, start=0, end=3)
    drawn["value"][kind] = [label] if label else []
    drawn["to_name"] = "text" if name == "words" else "image"
    lesson = lessons(MIXED, [drawn])["detect"]
    assert lesson is not None
    assert bool(lesson.left_out) is left_out


def test_a_region_of_no_known_type_concerns_the_siblings_too() -> None:
    found = lessons(NUTS, [{key: value for key, value in box().items() if key != "type"}])
    assert all(each is not None and each.left_out for each in found.values())
