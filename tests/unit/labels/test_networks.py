from __future__ import annotations

import pytest

from backend.labels.networks import SERVES, Network, Task, assign, at_serving, first_drawn, plan, task_of
from backend.labels.schema import Control, Keypoint, LabelSchema, parse_label_config

IMAGE = '<Image name="image" value="$image"/>'


def schema(*controls: str) -> LabelSchema:
    return parse_label_config(f"<View>{IMAGE}{''.join(controls)}</View>")


def tag(kind: str, name: str, *labels: str, extra: str = "", to: str = "image") -> str:
    entry = "Choice" if kind in ("Choices", "Taxonomy") else "Label"
    entries = "".join(f'<{entry} value="{label}"/>' for label in labels)
    return f'<{kind} name="{name}" toName="{to}" {extra}>{entries}</{kind}>'


def straight(control: Control) -> bool:
    return False


def turned(control: Control) -> bool:
    return True


def summary(of: LabelSchema, rotated: bool = False) -> list[tuple[str, Task, tuple[str, ...], list[str]]]:
    planned = plan(of, turned if rotated else straight)
    return [(each.key, each.task, each.classes, [c.name for c in controls]) for each, controls in planned]


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("RectangleLabels", "detect"),
        ("EllipseLabels", "detect"),
        ("PolygonLabels", "segment"),
        ("BrushLabels", "segment"),
        ("BitmaskLabels", "segment"),
        ("KeyPointLabels", "pose"),
        ("Choices", "classify"),
        ("Taxonomy", "classify"),
    ],
)
def test_what_a_control_learns_by(kind: str, task: Task) -> None:
    (control,) = schema(tag(kind, "c", "a")).controls
    assert task_of(control) == task
    assert task in SERVES[control.kind]


@pytest.mark.parametrize("kind", ["RectangleLabels", "EllipseLabels"])
@pytest.mark.parametrize(
    ("extra", "rotated", "task"),
    [
        ("", False, "detect"),
        ("", True, "obb"),
        ('model_obb="true"', False, "obb"),
        ('model_obb="true"', True, "obb"),
        ('model_obb="false"', True, "detect"),
    ],
)
def test_config_and_annotations_decide_about_rotated_boxes(kind: str, extra: str, rotated: bool, task: Task) -> None:
    (control,) = schema(tag(kind, "c", "a", extra=extra)).controls
    assert task_of(control, rotated=rotated) == task


def test_only_boxes_are_rotated() -> None:
    (control,) = schema(tag("PolygonLabels", "c", "a")).controls
    assert task_of(control, rotated=True) == "segment"


def test_controls_of_one_task_share_a_model_but_points_and_questions_do_not() -> None:
    whole = schema(
        tag("PolygonLabels", "outline", "roof", "wall"),
        tag("RectangleLabels", "box", "car"),
        tag("EllipseLabels", "round", "wheel", "car"),
        tag("BrushLabels", "brush", "sky", "roof"),
        tag("Choices", "weather", "sun", "rain", extra='choice="multiple"'),
        tag("Choices", "time", "day"),
        tag("Taxonomy", "species", "dog"),
        tag("KeyPointLabels", "hand", "tip", extra='model_add_bboxes="false"'),
        tag("KeyPointLabels", "foot", "toe", extra='model_add_bboxes="false"'),
    )
    assert summary(whole) == [
        ("segment", "segment", ("roof", "wall", "sky"), ["outline", "brush"]),
        ("detect", "detect", ("car", "wheel"), ["box", "round"]),
        ("classify:weather", "classify", ("sun", "rain"), ["weather"]),
        ("classify:time", "classify", ("day",), ["time"]),
        ("classify:species", "classify", ("dog",), ["species"]),
        ("pose:hand", "pose", ("car",), ["hand"]),
        ("pose:foot", "pose", ("car",), ["foot"]),
    ]
    networks = {network.key: network for network, _ in plan(whole, straight)}
    assert networks["segment"].controls == ("outline", "brush")
    assert [each.key for each in networks.values() if each.multiple] == ["classify:weather"]
    assert networks["pose:hand"].points == (Keypoint("tip", 0),)
    assert networks["detect"].points == ()
    assert all(network.own for network in networks.values())


def test_turned_boxes_of_one_control_do_not_turn_the_others() -> None:
    whole = schema(tag("RectangleLabels", "a", "x"), tag("RectangleLabels", "b", "y"))
    planned = plan(whole, lambda control: control.name == "b")
    assert [(network.key, network.controls) for network, _ in planned] == [("detect", ("a",)), ("obb", ("b",))]
    assert [key for key, *_ in summary(whole, rotated=True)] == ["obb"]


def test_a_control_on_several_images_is_one_model() -> None:
    whole = schema(tag("Choices", "c", "x", to="image,b"), '<Image name="b" value="$b"/>')
    ((network, controls),) = plan(whole, straight)
    assert network.controls == ("c",)
    assert [control.to_name for control in controls] == ["image", "b"]


def test_a_box_turned_on_one_image_turns_the_control_on_the_other_too() -> None:
    whole = schema(tag("RectangleLabels", "c", "x", to="image,b"), '<Image name="b" value="$b"/>')
    ((network, _),) = plan(whole, lambda control: control.to_name == "b")
    assert (network.task, network.controls) == ("obb", ("c",))


def test_a_base_of_its_own_is_a_model_of_its_own() -> None:
    whole = schema(
        tag("RectangleLabels", "a", "x", extra='model_path="n.pt"'),
        tag("RectangleLabels", "b", "x", extra='model_path="m.pt"'),
        tag("RectangleLabels", "c", "x"),
        tag("EllipseLabels", "d", "y", extra='model_path="n.pt"'),
        tag("Choices", "e", "x", extra='model_path="n-cls.pt"'),
    )
    assert [(key, names) for key, _, _, names in summary(whole)] == [
        ("detect@n.pt", ["a", "d"]),
        ("detect@m.pt", ["b"]),
        ("detect", ["c"]),
        ("classify:e@n-cls.pt", ["e"]),
    ]


def test_controls_that_a_version_is_pinned_to_teach_nothing() -> None:
    pinned = tag("RectangleLabels", "a", "x", extra='model_path="v3"')
    assert summary(schema(pinned, tag("RectangleLabels", "b", "y"))) == [("detect", "detect", ("y",), ["b"])]


def served(of: LabelSchema, *networks: Network) -> list[tuple[str, str]]:
    return [(control.name, network.key) for control, network in assign(of, networks)]


def test_every_control_is_served_by_the_model_it_taught() -> None:
    whole = schema(
        tag("RectangleLabels", "a", "x", extra='model_path="n.pt"'),
        tag("RectangleLabels", "b", "x", extra='model_path="m.pt"'),
        tag("PolygonLabels", "p", "x"),
        tag("Choices", "c", "x"),
        tag("Choices", "d", "x"),
    )
    networks = [network for network, _ in plan(whole, straight)]
    wanted = [("a", "detect@n.pt"), ("b", "detect@m.pt"), ("p", "segment"), ("c", "classify:c"), ("d", "classify:d")]
    assert served(whole, *networks) == wanted
    assert served(whole, *reversed(networks)) == wanted


def test_what_a_control_taught_goes_before_what_knows_its_labels() -> None:
    boxes = schema(tag("RectangleLabels", "a", "x", "y", "z"))
    taught, better = Network("obb", "obb", ("x",), ("a",)), Network("detect", "detect", ("x", "y", "z"), ("gone",))
    assert served(boxes, better, taught) == [("a", "obb")]
    # Of two that it taught the newer one, which a version lists first, whatever their tasks.
    older = Network("detect", "detect", ("x", "y", "z"), ("a",))
    assert served(boxes, taught, older) == [("a", "obb")]
    assert served(boxes, older, taught) == [("a", "detect")]


def test_a_new_control_is_served_by_the_model_that_knows_most_of_its_labels() -> None:
    new = schema(tag("EllipseLabels", "new", "x", "y", "q"))
    one, two = Network("detect", "detect", ("x", "a", "b"), ("o",)), Network("segment", "segment", ("y", "x"), ("p",))
    assert served(new, one, two) == [("new", "segment")]
    assert served(new, one) == [("new", "detect")]


def test_a_control_is_not_served_by_a_model_without_its_labels_or_of_another_kind() -> None:
    assert served(schema(tag("RectangleLabels", "a", "x")), Network("detect", "detect", ("y",), ("b",))) == []
    detect = Network("detect", "detect", ("x",), ("b",))
    for kind in ("PolygonLabels", "BrushLabels", "Choices", "KeyPointLabels"):
        assert served(schema(tag(kind, "a", "x")), detect) == []
    assert served(schema(tag("RectangleLabels", "a", "x"))) == []


SHARED = ('<Rectangle name="r" toName="image"/><Polygon name="p" toName="image"/>', tag("Labels", "l", "x"))


def test_of_drawing_tags_that_share_labels_only_the_taught_suggest() -> None:
    segment = Network("segment", "segment", ("x",), ("p",))
    # The masks would give boxes too, but of the same objects.
    assert served(schema(*SHARED), segment) == [("p", "segment")]
    both = Network("detect", "detect", ("x",), ("r",))
    assert served(schema(*SHARED), segment, both) == [("r", "detect"), ("p", "segment")]
    # On another image they are other objects.
    elsewhere = '<Rectangle name="q" toName="b"/><Image name="b" value="$b"/>'
    whole = schema(SHARED[0], elsewhere, tag("Labels", "l", "x", to="image,b"))
    assert served(whole, segment) == [("p", "segment"), ("q", "segment")]


def test_of_drawing_tags_that_share_labels_and_taught_nothing_one_suggests() -> None:
    assert served(schema(*SHARED), Network("segment", "segment", ("x",), ("gone",))) == [("r", "segment")]


def test_a_new_question_is_not_answered_by_the_model_of_another() -> None:
    whole = schema(tag("Choices", "sharp", "yes", "no"), tag("Choices", "dark", "yes", "no"))
    assert served(whole, Network("classify:dark", "classify", ("yes", "no"), ("dark",))) == [("dark", "classify:dark")]
    # A question that was renamed is still answered.
    assert served(
        schema(tag("Choices", "gloomy", "yes", "no")), Network("c", "classify", ("yes", "no"), ("dark",))
    ) == [("gloomy", "c")]


def test_the_first_of_drawing_tags_that_share_labels_suggests_what_a_pretrained_model_finds() -> None:
    whole = schema(
        *SHARED,
        tag("RectangleLabels", "a", "x"),
        tag("RectangleLabels", "b", "x"),
        tag("Labels", "m", "x"),
    )
    # Each Labels tag goes with each drawing tag of its image.
    assert [(control.from_name, control.name) for control in first_drawn(whole)] == [
        ("l", "r"),
        ("a", "a"),
        ("b", "b"),
        ("m", "r"),
    ]


def test_points_do_not_keep_boxes_with_the_same_labels_from_suggesting() -> None:
    whole = schema('<KeyPoint name="k" toName="image"/><Rectangle name="r" toName="image"/>', tag("Labels", "l", "x"))
    assert "r" in [control.name for control in first_drawn(whole)]


POINTS = (
    '<KeyPointLabels name="k" toName="image"><Label value="a"/><Label value="b"/><Label value="new"/></KeyPointLabels>'
)


def test_a_model_takes_its_points_in_the_order_that_it_learned() -> None:
    (control,) = schema(POINTS).controls
    learned = (Keypoint("gone", 0), Keypoint("b", 1), Keypoint("a", 2))
    found = at_serving(control, Network("pose:k", "pose", ("k",), ("k",), learned))
    assert found.points == (Keypoint("b", 1), Keypoint("a", 2))
    assert (found.name, found.labels, found.kind) == (control.name, control.labels, control.kind)


def test_a_pretrained_model_takes_the_points_as_the_config_has_them() -> None:
    (control,) = schema(POINTS).controls
    assert at_serving(control, Network("pose", "pose", ("person",), own=False)) is control


def test_other_controls_are_served_as_they_are() -> None:
    (control,) = schema(tag("RectangleLabels", "a", "x")).controls
    assert at_serving(control, Network("pose:k", "pose", ("x",), ("k",), (Keypoint("b", 0),))) is control
