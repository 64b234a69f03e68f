from __future__ import annotations

import re

from backend.labels.mapping import fingerprint, map_classes, unmapped
from backend.labels.schema import Control, parse_label_config

COCO = {0: "person", 2: "car", 5: "bus", 7: "truck", 9: "Plane"}


def control(*labels: str, **predicted: tuple[str, ...]) -> Control:
    return Control("label", "image", "rectangle", "image", labels, predicted)


def test_predicted_values_go_before_names() -> None:
    mapping = map_classes(COCO, control("car", "Vehicle", Vehicle=("car", "bus", "truck")))
    assert mapping == {2: "Vehicle", 5: "Vehicle", 7: "Vehicle"}


def test_exact_names_go_before_other_cases() -> None:
    assert map_classes({0: "car", 1: "CAR", 2: "Car"}, control("CAR", "car")) == {
        0: "car",
        1: "CAR",
        2: "CAR",
    }


def test_an_exact_name_goes_before_a_predicted_value_in_another_case() -> None:
    assert map_classes({0: "car"}, control("Vehicle", "car", Vehicle=("CAR",))) == {0: "car"}


def test_case_is_forgiven_last() -> None:
    assert map_classes(COCO, control("Person", "plane", "V", V=("Bus",))) == {0: "Person", 5: "V", 9: "plane"}


def test_a_class_goes_to_the_first_label_that_claims_it() -> None:
    assert map_classes({0: "car"}, control("A", "B", A=("car",), B=("car",))) == {0: "A"}


def test_no_overlap_maps_nothing() -> None:
    assert map_classes(COCO, control("Defect")) == {}


def test_unmapped_names_both_sides() -> None:
    assert unmapped({0: "person", 2: "car"}, control("Person", "Defect")) == (("car",), ("Defect",))


def config(labels: str, control: str = "", extra: str = "", name: str = "label", key: str = "image") -> str:
    return (
        f'<View><Image name="image" value="${key}"/>'
        f'<RectangleLabels name="{name}" toName="image" {control}>{labels}</RectangleLabels>{extra}</View>'
    )


CAR, BUS = '<Label value="car"/>', '<Label value="bus"/>'


def controls_of(xml: str) -> tuple[Control, ...]:
    return tuple(each for each in parse_label_config(xml).controls if each.kind == "rectangle")


def mark(xml: str, threshold: float = 0.25, model: str = "yolo11n.pt", names: dict[int, str] = COCO) -> str:
    return fingerprint([(control, names, model, False) for control in controls_of(xml)], threshold)


def test_fingerprint_is_short_and_lasting() -> None:
    # A stored version string must mean the same after an upgrade: this value may not change by accident.
    assert re.fullmatch(r"[0-9a-f]{6}", mark(config(CAR + BUS)))
    assert mark(config(CAR + BUS)) == "b6abb8"


def test_fingerprint_ignores_what_changes_no_suggestion() -> None:
    same = mark(config(CAR + BUS))
    assert mark(config(BUS + CAR)) == same
    assert mark(config('<Label value="car" background="red" hotkey="1"/>' + BUS, 'strokeWidth="5"')) == same
    assert mark(config(CAR + BUS, extra='<Choices name="c" toName="image"><Choice value="x"/></Choices>')) == same
    assert mark(config(CAR + BUS, 'score_threshold="0.25"')) == same
    assert mark(config(CAR + BUS + '<Label value="Defect"/>')) == same
    assert mark(config(CAR + BUS, 'score_threshold="0.5"'), 0.1) == mark(
        config(CAR + BUS, 'score_threshold="0.5"'), 0.9
    )


def test_fingerprint_tells_apart_what_changes_suggestions() -> None:
    marks = [
        mark(config(CAR + BUS)),
        mark(config(CAR)),
        mark(config('<Label value="Car"/>' + BUS)),
        mark(config('<Label value="car" predicted_values="truck"/>' + BUS)),
        mark(config(CAR + BUS, 'score_threshold="0.5"')),
        mark(config(CAR + BUS), threshold=0.3),
        mark(config(CAR + BUS), model="yolo11s.pt"),
        mark(config(CAR + BUS, name="other")),
        mark(config(CAR + BUS, key="photo")),
        mark(config(CAR + BUS), names={5: "bus"}),
    ]
    assert len(set(marks)) == len(marks)
