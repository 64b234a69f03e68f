from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple

from backend.engine.detector import Detector
from backend.labels.geometry import Detection
from backend.labels.networks import Network, Task
from backend.labels.schema import Keypoint, LabelSchema, parse_label_config
from backend.served_models.parts import Part
from backend.served_models.served import TRAINED, Loaded, Served, own_suggestions, suggests, trained, unloaded
from backend.served_models.thresholds import ThresholdPolicy
from backend.served_models.version_string import Suggested, fingerprint

IMAGE = '<Image name="image" value="$image"/>'
DETECT = Network("detect", "detect", ("Car", "Plane", "Egg"), ("boxes", "eggs"))
SEGMENT = Network("segment", "segment", ("Leaf", "Car"), ("outline",))
WEATHER = Network("classify:weather", "classify", ("Sun", "Rain"), ("weather",))


def schema(*controls: str) -> LabelSchema:
    return parse_label_config(f"<View>{IMAGE}{''.join(controls)}</View>")


def tag(kind: str, name: str, *labels: str, extra: str = "") -> str:
    """`labels` may say what they mean: "New=Old"."""
    entry = "Choice" if kind in ("Choices", "Taxonomy") else "Label"
    entries = ""
    for label in labels:
        value, _, means = label.partition("=")
        entries += f'<{entry} value="{value}"' + (f' predicted_values="{means}"' if means else "") + "/>"
    return f'<{kind} name="{name}" toName="image" {extra}>{entries}</{kind}>'


MANY = schema(
    tag("RectangleLabels", "boxes", "Car", "Plane"),
    tag("EllipseLabels", "eggs", "Egg"),
    tag("PolygonLabels", "outline", "Leaf"),
    tag("BrushLabels", "paint", "Car"),
    tag("Choices", "weather", "Sun", "Rain"),
    tag("Choices", "mood", "Sun", "Moon"),
    tag("KeyPointLabels", "points", "nose"),
)


def made(of: LabelSchema, *networks: Network) -> dict[str, tuple[str, dict[int, str]]]:
    """Control → key of its network, and which class is which label."""
    found = trained(of, [unloaded(Part(each)) for each in networks])
    return {each.control.name: (each.loaded.network.key, dict(each.labels)) for each in found}


class Stub:
    """In memory, as far as anybody asks here."""

    def __init__(self) -> None:
        self.names: Mapping[int, str] = {0: "Car"}
        self.task: Task = "detect"

    def detect(self, images: object, conf: float, most: int | None = None) -> list[list[Detection]]:
        return []

    def warm(self) -> None:
        pass


def loaded(names: dict[int, str], detector: Detector | None = None, *, own: bool = False) -> Loaded:
    return Loaded(Network("yolo11n.pt", "detect", (), own=own), names, "yolo11n.pt", detector)


def test_each_control_gets_its_model() -> None:
    assert made(MANY, DETECT, SEGMENT, WEATHER) == {
        "boxes": ("detect", {0: "Car", 1: "Plane"}),
        "eggs": ("detect", {2: "Egg"}),
        "outline": ("segment", {0: "Leaf"}),
        "paint": ("segment", {1: "Car"}),  # it taught nothing, but its label is known
        "weather": ("classify:weather", {0: "Sun", 1: "Rain"}),
    }


def test_without_models_nothing_is_suggested() -> None:
    assert trained(MANY, []) == ()
    assert made(MANY, WEATHER) == {"weather": ("classify:weather", {0: "Sun", 1: "Rain"})}


def test_a_renamed_label_keeps_its_class() -> None:
    renamed = schema(tag("RectangleLabels", "boxes", "Auto=Car", "Plane"))
    assert made(renamed, DETECT) == {"boxes": ("detect", {0: "Auto", 1: "Plane"})}


def test_the_only_label_is_renamed() -> None:
    renamed = schema(tag("RectangleLabels", "boxes", "Auto=Car"))
    assert made(renamed, Network("detect", "detect", ("Car",), ("boxes",))) == {"boxes": ("detect", {0: "Auto"})}


def test_a_label_that_means_another_label_does_not_take_its_class() -> None:
    both = schema(tag("RectangleLabels", "boxes", "Car", "Vehicle=Car"))
    assert made(both, DETECT) == {"boxes": ("detect", {0: "Car"})}
    # Of a pretrained model the first that claims it has it: that is what predicted_values are for.
    (control,) = both.controls
    assert suggests(control, loaded({0: "Car", 1: "Bus"})).labels == {0: "Vehicle"}


def test_keypoints_stand_as_the_model_learned_them() -> None:
    of = schema(tag("KeyPointLabels", "points", "tail", "nose", "new"))
    network = Network("pose:points", "pose", ("points",), ("points",), (Keypoint("nose", 0), Keypoint("tail", 1)))
    (each,) = trained(of, [unloaded(Part(network))])
    assert [(point.label, point.index) for point in each.control.points] == [("nose", 0), ("tail", 1)]


def test_ready_is_one_model_in_memory() -> None:
    (control, *_) = MANY.controls
    waiting, ready = suggests(control, loaded({})), suggests(control, loaded({0: "Car"}, Stub()))
    assert not Served("v0").ready
    assert not Served("v0", (waiting,)).ready
    assert Served("v0", (waiting, ready)).ready


def test_what_a_fingerprint_is_made_of() -> None:
    (control, other, *_) = MANY.controls
    served = Served("v0", (suggests(control, loaded({0: "Car"})), suggests(other, loaded({}))))
    # A model that is not known yet has no classes to speak of.
    assert list(served.fingerprinted()) == [Suggested(control, {0: "Car"}, "yolo11n.pt", False)]


def test_a_version_is_the_same_before_and_after_it_is_loaded() -> None:
    part = Part(DETECT, "weights-1.pt", 320, "v1")
    of = schema(tag("RectangleLabels", "boxes", "Car", "Plane"))
    expected = fingerprint(own_suggestions(of, [part]), ThresholdPolicy(0.25))
    in_memory = Loaded(DETECT, dict(enumerate(DETECT.classes)), TRAINED, Stub())
    assert fingerprint(Served("v1", trained(of, [in_memory])).fingerprinted(), ThresholdPolicy(0.25)) == expected
    assert astuple(own_suggestions(of, [part])[0])[1:] == ({0: "Car", 1: "Plane", 2: "Egg"}, TRAINED, True, {})
    less = schema(tag("RectangleLabels", "boxes", "Car"))
    assert fingerprint(own_suggestions(less, [part]), ThresholdPolicy(0.25)) != expected


def test_a_version_that_does_not_say_what_taught_it_is_found_by_old_names_too() -> None:
    # Versions of 0.1 name no controls, and a label can have been renamed since.
    renamed = schema(tag("RectangleLabels", "boxes", "Auto=Car"))
    assert made(renamed, Network("detect", "detect", ("Car",))) == {"boxes": ("detect", {0: "Auto"})}
