from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface

from backend.labels.convert import from_regions, to_regions
from backend.labels.geometry import Box, Detection, ImageSize, Point, RotatedBox
from backend.labels.geometry import Mask as Pixels
from backend.labels.schema import Control, Kind, parse_label_config

SIZE = ImageSize(320, 200)
DRAWN: tuple[Kind, ...] = ("rectangle", "ellipse", "polygon", "brush", "bitmask", "keypoint")
KINDS: tuple[Kind, ...] = (*DRAWN, "choices", "taxonomy")

LABELS = '<Label value="Car"/><Label value="Plane"/>'
ALL = f"""
<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="rectangle" toName="image">{LABELS}</RectangleLabels>
  <EllipseLabels name="ellipse" toName="image">{LABELS}</EllipseLabels>
  <PolygonLabels name="polygon" toName="image">{LABELS}</PolygonLabels>
  <BrushLabels name="brush" toName="image">{LABELS}</BrushLabels>
  <BitmaskLabels name="bitmask" toName="image">{LABELS}</BitmaskLabels>
  <KeyPointLabels name="keypoint" toName="image"><Label value="nose"/><Label value="tail"/></KeyPointLabels>
  <RectangleLabels name="keypoint_bbox" toName="image">{LABELS}</RectangleLabels>
  <Choices name="choices" toName="image" choice="multiple"><Choice value="Car"/><Choice value="Plane"/></Choices>
  <Taxonomy name="taxonomy" toName="image">
    <Choice value="Land"><Choice value="Car"/></Choice><Choice value="Plane"/>
  </Taxonomy>
  <Labels name="shared" toName="image">{LABELS}</Labels>
  <Rectangle name="shared-rectangle" toName="image"/>
  <Ellipse name="shared-ellipse" toName="image"/>
  <Polygon name="shared-polygon" toName="image"/>
  <Brush name="shared-brush" toName="image"/>
  <Bitmask name="shared-bitmask" toName="image"/>
  <TextArea name="note" toName="image"/>
</View>
"""
CONTROLS = parse_label_config(ALL).controls
PLAIN = {control.kind: control for control in CONTROLS if not control.shape_name}
SPLIT = {control.kind: control for control in CONTROLS if control.shape_name}
EVERY = [pytest.param(control, id=control.name) for control in CONTROLS]
EVERY_DRAWN = [pytest.param(control, id=control.name) for control in CONTROLS if control.kind in DRAWN]


def test_the_config_holds_every_kind() -> None:
    assert set(PLAIN) == set(KINDS)
    assert set(SPLIT) == set(DRAWN) - {"keypoint"}


def plane(score: float = 0.5, *, cls: int = 1, x: float = 32, y: float = 40) -> Detection:
    """96 × 50 pixels of something, seen in all ways that a model can see it."""
    box = Box(x, y, x + 96, y + 50)
    mask = Pixels(int(x), int(y), np.ones((50, 96), bool))
    return Detection(cls, score, box, mask=mask, points=(Point(x + 10, y + 20, 0.9), Point(x + 90, y + 30, 0.8)))


def suggest(
    found: Sequence[Detection], control: Control, labels: Mapping[int, str] | None = None, threshold: float = 0.25
) -> tuple[list[dict[str, Any]], int]:
    numbers = itertools.count()
    known = dict(enumerate(control.labels)) if labels is None else labels
    return to_regions(found, control, known, SIZE, threshold, lambda: f"{control.name}-{next(numbers)}")


def objects_of(regions: Sequence[Mapping[str, Any]]) -> int:
    """Of a control that draws: a skeleton is one rectangle, and two entries with one id are one region."""
    return len({region["id"] for region in regions if region["type"] != "keypointlabels"})


@pytest.mark.parametrize("control", EVERY)
def test_there_and_back(control: Control) -> None:
    regions, skipped = suggest([plane()], control)
    assert skipped == 0
    assert json.loads(json.dumps(regions)) == regions
    (back,) = from_regions(regions, control, control.labels, SIZE)
    assert (back.cls, back.score) == (1, 1.0)
    whole = control.kind in ("choices", "taxonomy")
    expected = Box(0, 0, 320, 200) if whole else plane().box
    assert np.allclose(edges(back.box), edges(expected), atol=1e-6)
    if control.kind in ("polygon", "brush", "bitmask"):
        assert back.mask is not None
        assert edges(back.mask.box) == edges(expected)
        assert back.mask.bits.all()
    if control.kind == "keypoint":
        assert np.allclose([(point.x, point.y) for point in back.points], [(42, 60), (122, 70)])
    # Nobody else takes them for theirs.
    for other in CONTROLS:
        if other is not control:
            assert from_regions(regions, other, other.labels, SIZE) == []


def edges(box: Box) -> tuple[float, float, float, float]:
    return box.x1, box.y1, box.x2, box.y2


@pytest.mark.parametrize("control", EVERY_DRAWN)
def test_the_threshold_is_kept(control: Control) -> None:
    found = [plane(0.9), plane(0.3, x=200), plane(0.29, y=140)]
    regions, skipped = suggest(found, control, threshold=0.3)
    assert (objects_of(regions), skipped) == (2, 0)
    assert {region["score"] for region in regions if region["type"] != "keypointlabels"} == {0.9, 0.3}


@pytest.mark.parametrize("kind", ["choices", "taxonomy"])
def test_the_threshold_of_an_answer(kind: Kind) -> None:
    sure, _ = suggest([plane(0.7), plane(0.1, cls=0)], PLAIN[kind], threshold=0.7)
    assert [region["score"] for region in sure] == [0.7]
    assert suggest([plane(0.69), plane(0.1, cls=0)], PLAIN[kind], threshold=0.7) == ([], 0)


@pytest.mark.parametrize("control", EVERY)
def test_classes_without_a_label_are_not_suggested(control: Control) -> None:
    known = {1: control.labels[1], 5: control.labels[0]}
    assert suggest([plane(cls=0), plane(cls=7)], control, known) == ([], 0)
    regions, _ = suggest([plane(cls=0, score=0.9), plane(cls=1)], control, known)
    assert [each.cls for each in from_regions(regions, control, control.labels, SIZE)] == [1]
    renamed, _ = suggest([plane(cls=5)], control, known)
    assert [each.cls for each in from_regions(renamed, control, control.labels, SIZE)] == [0]


@pytest.mark.parametrize("control", EVERY_DRAWN)
def test_what_cannot_be_drawn_is_counted(control: Control) -> None:
    nowhere = plane(x=5000)
    nothing = Detection(1, 0.5, Box(10, 10, 10, 10), mask=Pixels(0, 0, np.zeros((3, 3), bool)))
    broken = Detection(1, 0.5, Box(math.nan, 10, 50, 50), rotated=RotatedBox(math.inf, 3, 4, 5, 6))
    regions, skipped = suggest([nowhere, plane(), nothing, broken, plane(0.1), plane(cls=9)], control)
    assert (objects_of(regions), skipped) == (1, 3)


@pytest.mark.parametrize("control", EVERY)
def test_an_image_without_pixels(control: Control) -> None:
    known = dict(enumerate(control.labels))
    regions, skipped = to_regions([plane()], control, known, ImageSize(0, 0), 0.25, lambda: "r")
    assert regions == []
    assert skipped == (1 if control.kind in DRAWN else 0)


@pytest.mark.parametrize("control", EVERY)
def test_pages_are_kept_apart(control: Control) -> None:
    first, _ = suggest([plane(0.5, cls=0)], control)
    second, _ = suggest([plane(0.5, x=150)], control)
    numbered = [{**region, "id": f"second {region['id']}", "item_index": 1} for region in second]
    for region in numbered:
        if "parentID" in region:
            region["parentID"] = f"second {region['parentID']}"
    # Label Studio leaves the index of the first page out.
    result = [*first, *numbered]
    pages = [from_regions(result, control, control.labels, SIZE, page) for page in (0, 1, 2)]
    assert [[each.cls for each in found] for found in pages] == [[0], [1], []]
    assert [each.cls for each in from_regions(result, control, control.labels, SIZE)] == [0, 1]


@pytest.mark.parametrize("control", EVERY)
def test_labels_that_are_no_class_teach_nothing(control: Control) -> None:
    regions, _ = suggest([plane()], control)
    assert from_regions(regions, control, ("something", "else"), SIZE) == []
    swapped = (control.labels[1], control.labels[0])
    assert [each.cls for each in from_regions(regions, control, swapped, SIZE)] == [0]


@pytest.mark.parametrize("angle", [0.0, 30.0, 211.0])
def test_one_config_with_everything_is_one_valid_prediction(angle: float) -> None:
    found = [
        replace(plane(), rotated=RotatedBox(80, 65, 96, 50, angle)),
        replace(plane(0.9, cls=0, x=-40), rotated=RotatedBox(0, 65, 96, 50, angle)),
        plane(0.4, x=250, y=-20),
    ]
    result: list[dict[str, Any]] = []
    for control in CONTROLS:
        regions, skipped = suggest(found, control)
        assert regions, control.name
        assert skipped == 0
        result += regions
    prediction = {"model_version": "v1", "score": 0.5, "result": result}
    assert LabelInterface(ALL).validate_prediction(prediction, return_errors=True) == []
    assert {region["from_name"] for region in result} == {
        *(control.from_name for control in CONTROLS),
        *(control.shape_name for control in CONTROLS if control.shape_name),
        "keypoint_bbox",
    }
    # And each control still finds its own in it.
    for control in CONTROLS:
        back = from_regions(result, control, control.labels, SIZE)
        assert {each.cls for each in back} <= {0, 1}
        assert len(back) == {"choices": 2, "taxonomy": 1}.get(control.kind, 3), control.name
