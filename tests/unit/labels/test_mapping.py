from __future__ import annotations

from backend.labels.mapping import map_classes, unmapped
from backend.labels.schema import Control

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
