from __future__ import annotations

import json
from collections import Counter
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.converter.brush import encode_rle
from support.hostile import CONTROLS, RESULTS

from backend.labels.reading import DISAGREED, Reader
from backend.labels.schema import parse_label_config
from backend.labels.several import Submitted, Together, together

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="box" toName="image"><Label value="Car"/><Label value="Van"/></RectangleLabels>
<BrushLabels name="paint" toName="image"><Label value="Road"/></BrushLabels>
<PolygonLabels name="outline" toName="image"><Label value="Tree"/></PolygonLabels>
<KeyPointLabels name="point" toName="image"><Label value="left"/><Label value="right"/></KeyPointLabels>
<Choices name="light" toName="image"><Choice value="day"/><Choice value="night"/></Choices>
<Choices name="weather" toName="image" choice="multiple"><Choice value="rain"/><Choice value="fog"/></Choices>
</View>"""
READER = Reader(parse_label_config(CONFIG))
ANN, BOB, CAROL = 1, 2, 3


def box(x: float, label: str = "Car", y: float = 10, **fields: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": [label], **fields}
    sizes = {"original_width": 200, "original_height": 100}
    return {"id": "same", "type": "rectanglelabels", "from_name": "box", "to_name": "image", "value": value, **sizes}


def painted(*columns: int) -> dict[str, Any]:
    layer = np.zeros((10, 20, 4), np.uint8)
    layer[2:8, list(columns), 3] = 255
    value = {"format": "rle", "rle": encode_rle(layer.flatten().tolist()), "brushlabels": ["Road"]}
    sizes = {"original_width": 20, "original_height": 10}
    return {"id": "p", "type": "brushlabels", "from_name": "paint", "to_name": "image", "value": value, **sizes}


def outline(*points: tuple[float, float]) -> dict[str, Any]:
    value = {"points": [list(each) for each in points], "polygonlabels": ["Tree"]}
    return {"id": "o", "type": "polygonlabels", "from_name": "outline", "to_name": "image", "value": value}


def answer(name: str, *choices: str) -> dict[str, Any]:
    return {"id": "c", "type": "choices", "from_name": name, "to_name": "image", "value": {"choices": list(choices)}}


def by(author: int | None, number: int, *result: dict[str, Any], truth: bool = False) -> Submitted:
    """Later ones have higher numbers."""
    return Submitted(number, author, truth, float(number), result)


def boxes(said: Together) -> list[tuple[float, str]]:
    """Left edge and label of each box that is understood."""
    found = [each for each in READER.read(said.result).regions if each.control.name == "box"]
    return sorted((each.entry["value"]["x"], each.labels[0]) for each in found)


def answers(said: Together, name: str) -> set[str]:
    found = [each for each in READER.read(said.result).regions if each.control.name == name]
    return {label for each in found for label in each.labels}


def disagreed(said: Together) -> set[str]:
    """Names of the controls of which nothing is learned, as the annotators disagree."""
    problems = READER.read(said.result).problems
    return {name for each in problems if each.reason == "annotators disagree" for name in each.controls}


class TestNewest:
    def test_it_is_taken_as_it_is(self) -> None:
        first, second = by(ANN, 1, box(10)), by(ANN, 2, box(60))
        assert together("newest", [second, first], READER) == Together(second.result)
        assert together("newest", [by(ANN, 1, box(10), truth=True), second], READER).result == first.result


class TestUnion:
    def test_a_second_annotation_adds_what_the_first_lacks(self) -> None:
        said = together("union", [by(ANN, 1, box(10), box(40)), by(ANN, 2, box(70, "Van"))], READER)
        assert boxes(said) == [(10, "Car"), (40, "Car"), (70, "Van")]
        assert len({each["id"] for each in said.result}) == 3

    def test_what_was_drawn_again_is_there_once_as_it_was_drawn_last(self) -> None:
        said = together("union", [by(ANN, 1, box(10), box(40)), by(ANN, 2, box(11, "Van"), box(41))], READER)
        assert boxes(said) == [(11, "Van"), (41, "Car")]

    def test_two_objects_of_one_annotation_may_overlap(self) -> None:
        both = by(ANN, 2, box(10), box(12, "Van"))
        assert together("union", [by(ANN, 1, box(11)), both], READER) == Together(both.result)

    def test_others_add_nothing(self) -> None:
        newest = by(BOB, 2, box(70))
        assert together("union", [by(ANN, 1, box(10)), newest], READER) == Together(newest.result)
        nobody = by(None, 2, box(70))
        assert together("union", [by(None, 1, box(10)), nobody], READER) == Together(nobody.result)

    def test_ground_truth_stands_alone(self) -> None:
        truth = by(ANN, 1, box(10), truth=True)
        assert together("union", [truth, by(ANN, 2, box(70))], READER) == Together(truth.result)

    def test_an_empty_one_takes_nothing_away(self) -> None:
        assert boxes(together("union", [by(ANN, 1, box(10)), by(ANN, 2)], READER)) == [(10, "Car")]

    def test_an_answer_is_added_where_there_is_none(self) -> None:
        older = by(ANN, 1, answer("light", "day"), answer("weather", "fog"))
        said = together("union", [older, by(ANN, 2, answer("light", "night"))], READER)
        assert (answers(said, "light"), answers(said, "weather")) == ({"night"}, {"fog"})

    def test_shapes_are_compared_and_not_the_boxes_around_them(self) -> None:
        left, right = outline((10, 10), (90, 10), (10, 90)), outline((90, 12), (90, 90), (12, 90))
        said = together("union", [by(ANN, 1, left), by(ANN, 2, right)], READER)
        assert [each.labels for each in READER.read(said.result).regions] == [("Tree",), ("Tree",)]
        again = together("union", [by(ANN, 1, left), by(ANN, 2, outline((11, 10), (90, 11), (10, 90)))], READER)
        assert len(again.result) == 1
        said = together("union", [by(ANN, 1, painted(0, 1, 18, 19)), by(ANN, 2, painted(*range(4, 20)))], READER)
        assert len(said.result) == 2
        assert len(together("union", [by(ANN, 1, painted(0, 1, 2)), by(ANN, 2, painted(0, 1))], READER).result) == 1

    def test_a_turned_box_is_no_upright_one(self) -> None:
        upright = box(40, y=40, width=30, height=5)
        turned = box(54, y=28, width=30, height=5, rotation=90)
        assert len(together("union", [by(ANN, 1, upright), by(ANN, 2, turned)], READER).result) == 2

    def test_what_is_not_understood_stays(self) -> None:
        said = together("union", [by(ANN, 1, box(10, "Bus")), by(ANN, 2, box(70))], READER)
        assert [str(each) for each in READER.read(said.result).problems] == ["label `Bus` is not in the config"]
        twice = together("union", [by(ANN, 1, box(10, "Bus")), by(ANN, 2, box(10, "Bus"))], READER)
        assert len(twice.result) == 1

    def test_points_stay_with_their_skeleton(self) -> None:
        config = parse_label_config(
            '<View><Image name="image" value="$image"/>'
            '<RectangleLabels name="dog" toName="image"><Label value="Dog"/></RectangleLabels>'
            '<KeyPointLabels name="point" toName="image">'
            '<Label value="nose" model_index="0"/><Label value="tail" model_index="1"/></KeyPointLabels></View>'
        )
        reader = Reader(config)

        def dog(x: float) -> list[dict[str, Any]]:
            common = {"to_name": "image", "original_width": 200, "original_height": 100}
            value = {"x": x, "y": 10, "width": 20, "height": 20, "rectanglelabels": ["Dog"]}
            found = [{"id": "d", "type": "rectanglelabels", "from_name": "dog", "value": value, **common}]
            for name, at in (("nose", x + 2), ("tail", x + 18)):
                spot = {"x": at, "y": 20, "width": 1, "keypointlabels": [name]}
                point = {"id": name, "parentID": "d", "type": "keypointlabels", "from_name": "point", "value": spot}
                found.append({**point, **common})
            return found

        said = together("union", [by(ANN, 1, *dog(10)), by(ANN, 2, *dog(60))], reader)
        assert len(said.result) == 6
        ids = {each["id"] for each in said.result}
        assert len(ids) == 6 and {each["parentID"] for each in said.result if "parentID" in each} <= ids
        assert len(together("union", [by(ANN, 1, *dog(10)), by(ANN, 2, *dog(11))], reader).result) == 3
        said = together("consensus", [by(n, n, *dog(x)) for n, x in ((ANN, 10), (BOB, 11), (CAROL, 70))], reader)
        assert len(said.result) == 3 and not reader.read(said.result).problems


class TestConsensus:
    def test_what_most_have_drawn_is_there(self) -> None:
        said = together(
            "consensus",
            [by(ANN, 1, box(10), box(40)), by(BOB, 2, box(11), box(41)), by(CAROL, 3, box(12), box(70))],
            READER,
        )
        assert boxes(said) == [(11, "Car"), (41, "Car")]
        assert not disagreed(said)
        # Two pairs agree on one of two, one pair on both of two.
        assert said.agreement == pytest.approx((1.0 + 0.5 + 0.5) / 3)

    def test_the_label_that_most_gave_is_taken(self) -> None:
        said = together("consensus", [by(ANN, 1, box(10)), by(BOB, 2, box(10, "Van")), by(CAROL, 3, box(10))], READER)
        assert (boxes(said), disagreed(said)) == ([(10, "Car")], set())
        assert said.agreement == pytest.approx(1 / 3)

    def test_a_tie_is_not_understood(self) -> None:
        said = together("consensus", [by(ANN, 1, box(10), box(60)), by(BOB, 2, box(10, "Van"), box(60))], READER)
        assert (boxes(said), disagreed(said), said.agreement) == ([(60, "Car")], {"box", "point"}, 0.5)
        said = together("consensus", [by(ANN, 1, box(10)), by(BOB, 2)], READER)
        assert (boxes(said), disagreed(said), said.agreement) == ([], {"box", "point"}, 0.0)
        (problem,) = READER.read(said.result).problems
        assert str(problem) == "the annotators disagree on `box`"

    def test_of_one_annotator_the_newest_counts(self) -> None:
        said = together("consensus", [by(ANN, 1, box(10)), by(ANN, 2, box(60)), by(BOB, 3, box(60))], READER)
        assert (boxes(said), said.agreement) == ([(60, "Car")], 1.0)
        alone = by(ANN, 2, box(60))
        assert together("consensus", [by(ANN, 1, box(10)), alone], READER) == Together(alone.result)

    def test_ground_truth_stands_alone(self) -> None:
        truth = by(CAROL, 1, box(10), truth=True)
        others = [by(ANN, 2, box(60)), by(BOB, 3, box(60))]
        assert together("consensus", [*others, truth], READER) == Together(truth.result)

    def test_that_nothing_is_there_is_agreed_on(self) -> None:
        assert together("consensus", [by(ANN, 1), by(BOB, 2)], READER) == Together([], 1.0)

    def test_neighbours_are_told_apart(self) -> None:
        """Two boxes that overlap with each other more than half, drawn by all three."""
        annotators = [by(n, n, box(10 + n / 10), box(14 + n / 10)) for n in (ANN, BOB, CAROL)]
        said = together("consensus", annotators, READER)
        assert len(boxes(said)) == 2 and said.agreement == 1.0

    @pytest.mark.parametrize(
        ("given_answers", "expected", "tie"),
        [
            (["day", "day", "night"], {"day"}, False),
            (["day", "night"], set(), True),
            (["day", "", ""], set(), False),
            (["day", ""], set(), True),
            (["day", "day", ""], {"day"}, False),
        ],
    )
    def test_an_answer_is_what_most_gave(self, given_answers: list[str], expected: set[str], tie: bool) -> None:
        annotators = [
            by(number, number, *([answer("light", name)] if name else []))
            for number, name in enumerate(given_answers, start=1)
        ]
        said = together("consensus", annotators, READER)
        assert (answers(said, "light"), disagreed(said)) == (expected, {"light"} if tie else set())

    def test_choices_that_go_together_are_counted_one_by_one(self) -> None:
        said = together(
            "consensus",
            [
                by(ANN, 1, answer("weather", "rain", "fog")),
                by(BOB, 2, answer("weather", "fog")),
                by(CAROL, 3, answer("weather", "rain", "fog")),
            ],
            READER,
        )
        assert answers(said, "weather") == {"rain", "fog"}
        said = together(
            "consensus", [by(ANN, 1, answer("weather", "rain", "fog")), by(BOB, 2, answer("weather", "fog"))], READER
        )
        assert (answers(said, "weather"), disagreed(said)) == (set(), {"weather"})
        mixed = [
            by(ANN, 1, answer("weather", "rain")),
            by(BOB, 2, answer("weather", "fog")),
            by(CAROL, 3, answer("weather", "rain", "fog")),
        ]
        assert answers(together("consensus", mixed, READER), "weather") == {"rain", "fog"}

    def test_what_is_not_understood_is_never_outvoted(self) -> None:
        said = together("consensus", [by(ANN, 1, box(10, "Bus")), by(BOB, 2), by(CAROL, 3)], READER)
        assert [str(each) for each in READER.read(said.result).problems] == ["label `Bus` is not in the config"]


drawn = st.lists(
    st.builds(
        box,
        st.integers(0, 78).map(float),
        st.sampled_from(["Car", "Van", "Bus"]),
        st.integers(0, 78).map(float),
    ),
    max_size=4,
)


@given(st.lists(st.tuples(st.sampled_from([ANN, BOB, CAROL, None]), drawn), min_size=1, max_size=4))
def test_whatever_was_drawn_nothing_is_made_up(given_annotations: list[tuple[int | None, list[Any]]]) -> None:
    annotations = [by(author, n, *result) for n, (author, result) in enumerate(given_annotations, start=1)]
    said_by_all = Counter(json.dumps(each["value"], sort_keys=True) for one in annotations for each in one.result)
    for policy in ("newest", "union", "consensus"):
        said = together(policy, annotations, READER)
        for each in said.result:
            assert each["type"] == DISAGREED or json.dumps(each["value"], sort_keys=True) in said_by_all
        assert said.agreement is None or 0 <= said.agreement <= 1
        for order in list(permutations(annotations))[:6]:
            assert together(policy, order, READER) == said


def test_equal_annotations_agree_whatever_they_say() -> None:
    result = [box(10), box(60, "Van"), painted(1, 2, 3), outline((10, 10), (60, 10), (10, 60)), answer("light", "day")]
    said = together("consensus", [by(ANN, 1, *result), by(BOB, 2, *result)], READER)
    assert said.agreement == 1.0 and len(said.result) == len(result) and not disagreed(said)


@pytest.mark.parametrize("name", [each for each in RESULTS if each != "points without end"])  # which takes seconds
def test_annotations_that_nobody_drew_break_nothing(name: str) -> None:
    result = RESULTS[name] if isinstance(RESULTS[name], list) else []
    regions = [each for each in result if isinstance(each, dict)][:50]
    reader = Reader(parse_label_config(CONTROLS))
    for policy in ("union", "consensus"):
        said = together(policy, [by(ANN, 1, *regions), by(ANN, 2, *regions), by(BOB, 3, *regions)], reader)
        assert said.agreement in (None, 1.0)
        if reader.read(regions).problems:
            assert reader.read(said.result).problems, "what is not understood stays"
