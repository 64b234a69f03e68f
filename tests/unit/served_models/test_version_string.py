from __future__ import annotations

import re

import pytest

from backend.labels.schema import Control, parse_label_config
from backend.served_models.thresholds import ThresholdPolicy
from backend.served_models.version_string import Suggested, fingerprint, is_ours, made_here, strategy_of, version_string

COCO = {0: "person", 2: "car", 5: "bus", 7: "truck", 9: "Plane"}


@pytest.mark.parametrize("version", ["yoloop-v0", "yoloop-v12", "yoloop-v3-1a2b3c"])
def test_ours(version: str) -> None:
    assert is_ours(version)


@pytest.mark.parametrize(
    "version", ["", "v", "v3", "v3-1a2b3c", "yoloop-v", "yoloop-v3-XYZ", "gpt-v3", "yoloop-v3 ", "yolo"]
)
def test_others(version: str) -> None:
    assert not is_ours(version)


@pytest.mark.parametrize(
    ("version", "ids", "ours"),
    [
        ("yoloop-v9", ["theirs"], True),
        ("v3", ["0123456789", "abcdef0123"], True),
        ("v3-1a2b3c", ["0123456789"], True),
        ("v3", ["0123456789", "theirs"], False),
        ("v3", ["0123456789", "ABCDEF0123"], False),
        ("v3", [], False),  # who found nothing shows nothing
        ("v4", ["0123456789"], False),
        ("v0", ["0123456789"], False),
        ("mine", ["0123456789"], False),
    ],
)
def test_what_0_7_made_here_is_ours(version: str, ids: list[str], ours: bool) -> None:
    assert made_here(version, [{"id": each} for each in ids], lambda: {1, 3}) is ours


def test_a_name_stands_for_its_baseline() -> None:
    assert version_string("v3", "1a2b3c", "1a2b3c") == "yoloop-v3"
    assert version_string("v3", "1a2b3c", "") == "yoloop-v3"
    assert version_string("v3", "1a2b3c", "d4e5f6") == "yoloop-v3-1a2b3c"


def test_the_first_control_that_names_a_strategy_decides() -> None:
    schema = parse_label_config(
        '<View><Image name="i" value="$image"/>'
        '<RectangleLabels name="a" toName="i"><Label value="x"/></RectangleLabels>'
        '<PolygonLabels name="b" toName="i" model_sampling="margin"><Label value="y"/></PolygonLabels></View>'
    )
    assert strategy_of(schema, "entropy") == "margin"
    assert strategy_of(parse_label_config("<View/>"), "entropy") == "entropy"


def config(labels: str, control: str = "", extra: str = "", name: str = "label", key: str = "image") -> str:
    return (
        f'<View><Image name="image" value="${key}"/>'
        f'<RectangleLabels name="{name}" toName="image" {control}>{labels}</RectangleLabels>{extra}</View>'
    )


CAR, BUS = '<Label value="car"/>', '<Label value="bus"/>'


def controls_of(xml: str) -> tuple[Control, ...]:
    return tuple(each for each in parse_label_config(xml).controls if each.kind == "rectangle")


def mark(xml: str, threshold: float = 0.25, model: str = "yolo11n.pt", names: dict[int, str] = COCO) -> str:
    suggested = [Suggested(control, names, model, False) for control in controls_of(xml)]
    return fingerprint(suggested, ThresholdPolicy(threshold))


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
