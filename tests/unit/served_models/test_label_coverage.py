from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from backend.labels.networks import Network
from backend.labels.schema import LabelSchema, parse_label_config
from backend.served_models.label_coverage import Mapping, mappings
from backend.served_models.parts import Part
from backend.served_models.served import Loaded, Served, suggests, trained, unloaded

COCO = {0: "person", 1: "car", 2: "bus", **{number: f"thing {number}" for number in range(3, 15)}}
CONFIG = """
<View>
  <Image name="image" value="$image"/><Image name="other" value="$other"/>
  <RectangleLabels name="boxes" toName="image,other">
    <Label value="Vehicle" predicted_values="car,bus"/><Label value="Person"/><Label value="Kite"/>
  </RectangleLabels>
  <Choices name="weather" toName="image"><Choice value="Sun"/><Choice value="Rain"/></Choices>
</View>
"""
SCHEMA = parse_label_config(CONFIG)


def pretrained(names: dict[int, str]) -> Loaded:
    return Loaded(Network("yolo11n.pt", "detect", (), own=False), names, "yolo11n.pt")


def own(schema: LabelSchema, *networks: Network) -> list[Mapping]:
    return mappings(schema, Served("v4", trained(schema, [unloaded(Part(each)) for each in networks])))


def test_a_pretrained_model() -> None:
    boxes, second, weather = SCHEMA.controls
    made = (suggests(boxes, pretrained(COCO)), suggests(second, pretrained({})))
    first, loading, question = mappings(SCHEMA, Served("v0", made))
    assert (first.control, first.kind, first.model, first.task) == ("boxes", "rectangle", "yolo11n.pt", "detect")
    assert first.classes == {"person": "Person", "car": "Vehicle", "bus": "Vehicle"}
    assert first.unmapped_classes == [f"thing {number}" for number in range(3, 15)]
    assert first.unmapped_labels == ["Kite"]
    assert str(first) == (
        "boxes (rectangle) from yolo11n.pt, detect: person → Person, car → Vehicle, bus → Vehicle; "
        "classes without a label: thing 3, thing 4, thing 5, thing 6, thing 7, thing 8, thing 9, thing 10, thing 11, "
        "thing 12 and 2 more; labels that no class goes to: Kite."
    )
    # Of one control on two images each stands for itself; a model without classes is not there yet.
    assert loading == Mapping("boxes", "rectangle", "", "", {}, [], ["Vehicle", "Person", "Kite"])
    assert question == Mapping("weather", "choices", "", "", {}, [], ["Sun", "Rain"])
    assert str(question) == "weather (choices): no model suggests for it."
    assert weather.name == question.control


def test_a_trained_version_is_named_by_its_number() -> None:
    network = Network("detect", "detect", ("Vehicle", "Person", "Old"), ("boxes",))
    first, second, question = own(SCHEMA, network)
    assert first == Mapping(
        "boxes", "rectangle", "v4", "detect", {"Vehicle": "Vehicle", "Person": "Person"}, ["Old"], ["Kite"]
    )
    assert first == second
    assert question.model == ""
    assert str(first) == (
        "boxes (rectangle) from v4, detect: Vehicle, Person; classes without a label: Old; "
        "labels that no class goes to: Kite."
    )


def test_a_renamed_label_is_a_remedy_that_works() -> None:
    network = Network("detect", "detect", ("Vehicle", "Person", "Old"), ("boxes",))
    before = own(SCHEMA, network)[0]
    assert 'predicted_values="<old name>"' in before.remedy
    assert "Label and submit" in before.remedy
    renamed = parse_label_config(CONFIG.replace('value="Kite"', 'value="Kite" predicted_values="Old"'))
    after = own(renamed, network)[0]
    assert after.classes["Old"] == "Kite"
    assert (after.unmapped_classes, after.unmapped_labels, after.remedy) == ([], [], "")
    assert "Old → Kite" in str(after)


def test_no_class_fits() -> None:
    (first, *_) = own(SCHEMA, Network("detect", "detect", ("a", "b"), ("boxes",)))
    assert str(first) == (
        "boxes (rectangle) from v4, detect: no class fits; classes without a label: a, b; "
        "labels that no class goes to: Vehicle, Person, Kite."
    )


@pytest.mark.parametrize(("count", "ending"), [(10, "9"), (11, "9 and 1 more")])
def test_a_long_list_is_cut(count: int, ending: str) -> None:
    said = str(Mapping("a", "rectangle", "v1", "detect", {"x": "x"}, [str(each) for each in range(count)], []))
    assert said.endswith(f"8, {ending}.")


def test_a_pinned_version_keeps_its_name() -> None:
    pinned = parse_label_config(CONFIG.replace('name="boxes"', 'name="boxes" model_path="v2"'))
    part = Loaded(Network("detect", "detect", ("Person",), ("boxes",)), {0: "Person"}, "v2")
    found = mappings(pinned, Served("v4", (suggests(pinned.controls[0], part),)))
    assert [each.model for each in found] == ["v2", "", ""]


def test_drawing_tags_are_told_apart() -> None:
    split = parse_label_config(
        '<View><Image name="image" value="$image"/><Labels name="label" toName="image"><Label value="Car"/></Labels>'
        '<Rectangle name="box" toName="image"/><Ellipse name="round" toName="image"/></View>'
    )
    found = own(split, Network("detect", "detect", ("Car",), ("box",)))
    assert [(each.control, each.model) for each in found] == [("box", "v4"), ("round", "")]


def test_it_is_plain_json() -> None:
    found = own(SCHEMA, Network("detect", "detect", ("Vehicle",), ("boxes",)))
    assert json.loads(json.dumps([asdict(each) for each in found])) == [asdict(each) for each in found]
