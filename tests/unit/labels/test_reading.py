from __future__ import annotations

from typing import Any

import pytest

from backend.labels.reading import Reader, Reading, counted
from backend.labels.schema import parse_label_config

IMAGE = '<Image name="image" value="$image"/>'
CARS = '<RectangleLabels name="label" toName="image"><Label value="Car"/><Label value="Van"/></RectangleLabels>'
VALUE = {"x": 20, "y": 20, "width": 30, "height": 40, "rotation": 0}


def read(result: list[Any], *controls: str) -> Reading:
    return Reader(parse_label_config(f"<View>{IMAGE}{''.join(controls or [CARS])}</View>")).read(result)


def box(label: Any = "Car", name: str = "label", to: str = "image", **value: Any) -> dict[str, Any]:
    labels = {"rectanglelabels": [label] if isinstance(label, str) else label}
    fields = {"from_name": name, "to_name": to, "type": "rectanglelabels", "value": {**VALUE, **labels, **value}}
    return {"id": "r", "original_width": 200, "original_height": 100, **fields}


def why(reading: Reading) -> list[str]:
    return [each.reason for each in reading.problems]


@pytest.mark.parametrize(
    "region",
    [
        box(),
        box("Car "),
        box("car"),
        box(" CAR"),
        box(name="bbox"),
        box(to="img"),
        box(x="20", y=" 20", width="30", height="40.0"),
        box(x=50, width=-30),
        box(y=60, height=-40, rotation=0),
        box(rotation="0"),
        {**box(), "type": "RectangleLabels"},
    ],
)
def test_what_is_certain_is_read(region: dict[str, Any]) -> None:
    reading = read([region])
    assert not reading.problems
    (found,) = reading.regions
    assert found.labels == ("Car",)
    assert found.entry["value"] == {**VALUE, "rectanglelabels": ["Car"]}
    assert (found.entry["from_name"], found.entry["to_name"]) == ("label", "image")


def test_a_turned_box_with_a_side_below_zero_is_the_same_box() -> None:
    # Begun at its right top corner: 60 pixels along 30 degrees, on an image of 200 × 100.
    there = box(x=20 + 30 * 0.8660254, y=20 + 30 * 0.5 * 2, width=-30, rotation=30)
    (found,) = read([there]).regions
    assert found.entry["value"]["x"] == pytest.approx(20, abs=1e-4)
    assert found.entry["value"]["y"] == pytest.approx(20, abs=1e-4)
    assert found.entry["value"]["width"] == 30


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        (box("Bus"), "label unknown"),
        (box(["Car", "Bus"]), "label unknown"),
        (box([]), "no label"),
        (box(None), "no label"),
        ({**box(), "type": "rectangle", "value": VALUE}, "no label"),
        (box("Bus", name="bbox"), "control unknown"),
        (box(x=2000, y=2000, width=3000, height=2000), "numbers that cannot be"),
        (box(x=1654, y=880, width=335, height=363), "numbers that cannot be"),
        (box(x="far"), "numbers that cannot be"),
        (box(x=float("nan")), "numbers that cannot be"),
        (box(x=True), "numbers that cannot be"),
        (box(x="2_0"), "numbers that cannot be"),
        (box(x="20,5"), "numbers that cannot be"),
        (box(x=0.2, y=0.2, width=0.3, height=0.4), "numbers that cannot be"),
        ({**box(), "item_index": 1}, "page unknown"),
        (box(rotation="x"), "numbers that cannot be"),
        (box(width=0), "no shape"),
        (box(width=None), "no shape"),
        ("text", "malformed"),
        ({}, "malformed"),
        ({"type": "rectanglelabels", "value": {}}, "no label"),
        ({"value": None}, "malformed"),
        ({"id": "r", "value": {**VALUE, "rectanglelabels": ["Car"]}}, "malformed"),
    ],
)
def test_what_is_not_says_why(region: Any, reason: str) -> None:
    reading = read([box(), region])
    assert why(reading) == [reason]
    assert reading.problems[0].controls == {"label"}
    assert len(reading.regions) == 1
    assert "``" not in str(reading.problems[0])


def test_the_first_step_that_finds_a_label_decides() -> None:
    both = '<RectangleLabels name="label" toName="image"><Label value="a"/><Label value="A"/></RectangleLabels>'
    labels = [read([box(name)], both).regions[0].labels for name in ("a", "A", "a ", " A")]
    assert labels == [("a",), ("A",), ("a",), ("A",)]
    other = both.replace('"a"', '"Ä"').replace('"A"', '"ä"')
    assert read([box("ä ")], other).regions[0].labels == ("ä",)
    assert why(read([box("BUS")], both.replace('"a"', '"bus"').replace('"A"', '"Bus"'))) == ["label unknown"]


def test_a_label_that_looks_the_same_is_the_same() -> None:
    composed, apart = "K\u00e4fer", "Ka\u0308fer"
    control = CARS.replace("Car", composed).replace("Van", "big  van")
    for name in (composed, apart, f" {apart.upper()}"):
        assert read([box(name)], control).regions[0].labels == (composed,)
    for name in ("big van", "big\u00a0van", "Big  van"):
        assert read([box(name)], control).regions[0].labels == ("big  van",)
    both = CARS.replace("Car", composed).replace("Van", apart)
    assert [read([box(name)], both).regions[0].labels[0] for name in (composed, apart)] == [composed, apart]
    assert why(read([box(composed.upper())], both)) == ["label unknown"]
    assert read([box([7])], CARS.replace("Car", "7")).regions[0].labels == ("7",)
    assert why(read([box([True])], CARS.replace("Car", "True"))) == ["no label"]


def test_an_answer_about_a_region_is_none_about_the_image() -> None:
    colour = '<Choices name="colour" toName="image"><Choice value="red"/><Choice value="blue"/></Choices>'
    answer = {"id": "r", "from_name": "colour", "to_name": "image", "type": "choices"}
    for placed in (VALUE, {"points": [[1, 1], [2, 2], [9, 9]]}):
        reading = read([box(), {**answer, "value": {**placed, "choices": ["red"]}}], CARS, colour)
        assert [(each.reason, each.controls) for each in reading.problems] == [("about a region", {"colour"})]
        assert [each.labels for each in reading.regions] == [("Car",)]
    assert not read([box(), {**answer, "value": {"choices": ["red"]}}], CARS, colour).problems


def test_of_several_paths_none_is_taken() -> None:
    control = (
        '<Taxonomy name="t" toName="image"><Choice value="A"><Choice value="a"/></Choice><Choice value="B"/></Taxonomy>'
    )
    answer = {"from_name": "t", "to_name": "image", "type": "taxonomy", "value": {"taxonomy": [["A", "a"], ["B"]]}}
    assert why(read([answer], control)) == ["several answers"]


def test_old_names_and_the_value_behind_an_alias() -> None:
    control = (
        '<RectangleLabels name="label" toName="image"><Label value="Vehicle" predicted_values="Car,Auto"/>'
        '<Label value="A van" alias="van"/></RectangleLabels>'
    )
    names = ("Vehicle", "Car", "auto", "van", "A van", "a VAN")
    labels = [read([box(name)], control).regions[0].labels[0] for name in names]
    assert labels == ["Vehicle", "Vehicle", "Vehicle", "van", "van", "van"]
    # An old name that is a label again is that label.
    assert read([box("Car")], control.replace("A van", "Car").replace(' alias="van"', "")).regions[0].labels == ("Car",)


def test_a_renamed_control_is_found_only_where_one_of_its_kind_is_on_the_image() -> None:
    two = CARS + CARS.replace('"label"', '"more"')
    assert why(read([box(name="bbox")], two)) == ["control unknown"]
    assert read([box(name="bbox")], two).problems[0].controls == {"label", "more"}
    skipped = CARS + CARS.replace('"label"', '"more" model_skip="true"')
    assert why(read([box(name="bbox")], skipped)) == ["control unknown"]


def test_an_outline_under_the_name_of_boxes_is_read_and_a_box_under_that_of_outlines_is_not() -> None:
    points = {"points": [[20, 20], [50, 20], [50, 60]], "polygonlabels": ["Car"]}
    outline = {"id": "p", "from_name": "label", "to_name": "image", "type": "polygonlabels", "value": points}
    (found,) = read([outline]).regions
    assert (found.control.kind, found.drawn.kind, found.labels) == ("rectangle", "polygon", ("Car",))
    assert why(read([box()], CARS.replace("Rectangle", "Polygon"))) == ["tool not learned"]
    short = {**outline, "value": {**points, "points": points["points"][:2]}}
    assert why(read([short], CARS.replace("Rectangle", "Polygon"))) == ["no shape"]


def test_shape_and_labels_that_come_apart_are_one_region() -> None:
    control = '<Rectangle name="r" toName="image"/><Labels name="l" toName="image"><Label value="Car"/></Labels>'
    shape = {**box(name="r"), "type": "rectangle", "value": VALUE}
    labels = {**box(name="l"), "type": "labels", "value": {**VALUE, "labels": ["Car"]}}
    (found,) = read([shape, labels], control).regions
    assert (found.control.name, found.labels) == ("r", ("Car",))
    assert why(read([shape], control)) == ["no label"]
    assert why(read([labels], control)) == ["no shape"]


def test_attributes_relations_and_text_change_nothing() -> None:
    form = (
        '<Choices name="colour" toName="image" perRegion="true"><Choice value="red"/></Choices>'
        '<TextArea name="t" toName="image" perRegion="true"/><Rating name="stars" toName="image"/>'
    )
    colour = {**box(name="colour"), "type": "choices", "value": {**VALUE, "choices": ["red"]}}
    rest = [
        colour,
        {**colour, "from_name": "gone"},
        {**colour, "from_name": "t", "type": "textarea", "value": {"text": ["scratched"]}},
        {**colour, "from_name": "lost", "type": "textarea", "value": {"text": ["scratched"]}},
        {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"},
        {"type": "rating", "from_name": "stars", "to_name": "image", "value": {"rating": 3}},
    ]
    reading = read([box(), *rest], CARS, form)
    assert (len(reading.regions), reading.problems, reading.foreign) == (1, (), ())
    assert reading.labels == {"Car": 1}


def test_reasons_are_counted_the_most_frequent_first() -> None:
    reading = read([box("Bus"), box("Bus"), box([])])
    said = counted(map(str, reading.problems))
    assert said == "label `Bus` is not in the config (2), no label was given to a region of `label` (1)"
