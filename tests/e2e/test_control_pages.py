"""What a person sees of each control: objects in pixels, converted and stored as a prediction, on Label Studio's
own page in a real Chromium.

Where a region stands is asked of Konva, with which the editor draws: its corners on the screen, in pixels of the
image below them. `YOLOOP_TEST_SCREENSHOTS` names a folder that gets a picture of each page.
"""

from __future__ import annotations

import base64
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface
from numpy.typing import NDArray
from playwright.sync_api import Page
from screenshot import listed, show_task
from support.browser import signed_in
from support.labelstudio import LabelStudioServer
from support.shapes import SKELETON, Scene, Thing, bird, blob, draw_scene, leaf, turned_box, turned_ellipse

from backend.labels.convert import to_regions
from backend.labels.geometry import Box, Detection, ImageSize, Mask, Point, RotatedBox
from backend.labels.region import Region
from backend.labels.schema import parse_label_config

pytestmark = pytest.mark.group("label-studio", minutes=5)

WIDTH, HEIGHT = 480, 330
SIZE = ImageSize(WIDTH, HEIGHT)

# For each region: its outline, or the alpha of its layer, in pixels of the image. A region is known by its id,
# which the editor may have lengthened.
_DRAWN = """ids => {
  const stage = window.Konva?.stages?.[0];
  const photo = stage?.find('Image')[0];
  if (!photo?.image()?.naturalWidth) return null;
  const [width, height] = [photo.image().naturalWidth, photo.image().naturalHeight];
  const back = photo.getAbsoluteTransform().copy().invert();
  const inPixels = (node, points) => points.map(point => {
    const {x, y} = back.point(node.getAbsoluteTransform().point(point));
    return [x / photo.width() * width, y / photo.height() * height];
  });
  const around = (rx, ry) => [...Array(72).keys()].map(
    step => ({x: rx * Math.cos(step * Math.PI / 36), y: ry * Math.sin(step * Math.PI / 36)}));
  const corners = (w, h) => [{x: 0, y: 0}, {x: w, y: 0}, {x: w, y: h}, {x: 0, y: h}];
  const outline = {
    Rect: node => corners(node.width(), node.height()),
    Ellipse: node => around(node.radiusX(), node.radiusY()),
    Circle: node => around(node.radius(), node.radius()),
    Line: node => [...Array(node.points().length / 2).keys()].map(
      place => ({x: node.points()[2 * place], y: node.points()[2 * place + 1]})),
  };
  return ids.map(id => {
    const node = stage.findOne(each => each.id() === id || each.name().split('#')[0] === id);
    if (!node?.isVisible()) return null;
    const shape = node.hasName('_transformable') ? node : node.findOne('._transformable');
    if (shape) return {kind: shape.getClassName(), outline: inPixels(shape, outline[shape.getClassName()](shape))};
    const layer = node.findOne('Image');
    if (!layer?.image()?.width) return null;
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext('2d');
    context.drawImage(layer.image(), 0, 0, width, height);
    const pixels = context.getImageData(0, 0, width, height).data;
    const alpha = Array.from({length: width * height}, (_, place) => String.fromCharCode(pixels[4 * place + 3]));
    if (alpha.every(each => each === '\\0')) return null;
    const frame = inPixels(layer, corners(layer.width(), layer.height()));
    return {kind: 'Image', outline: frame, alpha: btoa(alpha.join(''))};
  });
}"""


@dataclass(frozen=True)
class OnPage:
    """How a region is drawn: Konva's class, its outline (n, 2) in pixels, and of paint its alpha (height, width)."""

    kind: str
    outline: NDArray[np.float64]
    alpha: NDArray[np.uint8] | None

    @property
    def box(self) -> tuple[float, ...]:
        return (*self.outline.min(axis=0), *self.outline.max(axis=0))

    def mask(self) -> NDArray[np.bool_]:
        """The image's pixels that it covers, (HEIGHT, WIDTH)."""
        if self.alpha is not None:
            return self.alpha >= 128
        return Thing("", "", self.outline, (0, 0, 0, 0, 0)).mask(WIDTH, HEIGHT)


class Editor:
    """Label Studio, and a browser's page that shows its tasks."""

    def __init__(self, server: LabelStudioServer, page: Page, folder: Path) -> None:
        self.server = server
        self.page = page
        self.folder = folder

    def open(
        self, name: str, config: str, things: Sequence[Thing], regions: Sequence[Region], ready: str = "() => true"
    ) -> list[OnPage]:
        """Show an image of the things in a project of its own, with the regions as its only prediction.

        Args:
            name: of the project, and of the picture of the page.
            ready: JavaScript, a function that tells whether what is not drawn is there.
        """
        prediction = {"result": list(regions), "score": 0.5, "model_version": "v7"}
        assert LabelInterface(config).validate_prediction(prediction, return_errors=True) == []
        scene = Scene(self.folder / f"{name}.png", WIDTH, HEIGHT, tuple(things), "Fog", ("Sea",))
        draw_scene(scene, np.random.default_rng(1))
        project = self.server.api("POST", "/api/projects/", json={"title": name, "label_config": config})["id"]
        with scene.path.open("rb") as image:
            self.server.api("POST", f"/api/projects/{project}/import", files={"file": (scene.path.name, image)})
        (task,) = self.server.api("GET", f"/api/tasks?project={project}")["tasks"]
        self.server.api("POST", "/api/predictions/", json={**prediction, "task": task["id"]})
        # Label Studio prefills the editor from predictions of the project's model_version only.
        self.server.api("PATCH", f"/api/projects/{project}/", json={"model_version": "v7"})
        drawn = dict.fromkeys(each["id"] for each in regions if each["type"] not in ("choices", "taxonomy"))
        every = f"(({_DRAWN})({list(drawn)}) ?? [null]).every(each => each)"
        show_task(self.page, self.server.url, project, task["id"], f"() => {every} && ({ready})()")
        self._picture(name)
        return [self._on_page(each) for each in self.page.evaluate(_DRAWN, list(drawn))]

    def chosen(self, selector: str) -> list[str]:
        return [each.inner_text().split("[")[0].strip() for each in self.page.locator(selector).all()]

    def _picture(self, name: str) -> None:
        picture = self.page.screenshot(path=self.folder / f"page-{name}.png")
        wanted = os.environ.get("YOLOOP_TEST_SCREENSHOTS")
        if wanted:
            Path(wanted).mkdir(parents=True, exist_ok=True)
            (Path(wanted) / f"{name}.png").write_bytes(picture)

    @staticmethod
    def _on_page(found: dict[str, Any]) -> OnPage:
        alpha = None
        if "alpha" in found:
            alpha = np.frombuffer(base64.b64decode(found["alpha"]), np.uint8).reshape(HEIGHT, WIDTH)
        return OnPage(found["kind"], np.array(found["outline"]), alpha)


@pytest.fixture(scope="module")
def editor(label_studio: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    with signed_in(label_studio) as page:
        yield Editor(label_studio, page, tmp_path_factory.mktemp("pages"))


BOX = turned_box("box", "Square", (120, 90, 130, 80, 0))
EDGE_BOX = turned_box("box", "Square", (445, 270, 70, 120, 0))
TURNED = [
    turned_box("turned", "Plank", (120, 150, 170, 60, 30)),
    turned_box("turned", "Pipe", (330, 100, 120, 50, -65)),
    turned_box("turned", "Pipe", (390, 230, 120, 60, 160)),
]
ROUND = [turned_ellipse("egg", "Egg", (110, 100, 160, 90, 0)), turned_ellipse("egg", "Egg", (330, 200, 200, 80, -40))]
LEAF = leaf("outline", "Leaf", (150, 160, 220, 220, 25))
BLOB = blob("paint", "Blob", (365, 160, 210, 210, 10))
BIRDS = [bird("kp_bbox", "Bird", (130, 160, 200, 200, -20)), bird("kp_bbox", "Bird", (350, 150, 160, 160, 35), "Left")]


def config(*tags: str) -> str:
    return f'<View><Image name="image" value="$image"/>{"".join(tags)}</View>'


def labels(tag: str, name: str, *values: str) -> str:
    entries = "".join(f'<Label value="{value}"/>' for value in values)
    return f'<{tag} name="{name}" toName="image">{entries}</{tag}>'


def converted(xml: str, things: Sequence[Thing]) -> list[Region]:
    """What yoloop answers for these objects, found with falling scores, with the config's first control."""
    control = parse_label_config(xml).controls[0]
    names = dict(enumerate(dict.fromkeys(each.label for each in things)))
    found = [
        detection(each, list(names.values()).index(each.label), 0.9 - 0.2 * place) for place, each in enumerate(things)
    ]
    numbers = itertools.count(1)
    regions, skipped = to_regions(found, control, names, SIZE, 0.25, lambda: f"region{next(numbers)}")
    assert skipped == 0
    return regions


def detection(thing: Thing, cls: int, score: float) -> Detection:
    """As a model reads it off the image, in pixels."""
    points = [thing.points.get(name) for name in SKELETON] if thing.points else []
    return Detection(
        cls,
        score,
        Box(*thing.box),
        rotated=RotatedBox(*thing.frame) if thing.frame[4] else None,
        mask=Mask.of(thing.mask(WIDTH, HEIGHT)),
        points=tuple(Point(*each, 0.8) if each else Point(0, 0, 0) for each in points),
    )


def overlap(found: OnPage, thing: Thing) -> float:
    """Intersection over union of what is drawn and the object, in pixels of the image."""
    seen, true = found.mask(), thing.mask(WIDTH, HEIGHT)
    return float((seen & true).sum() / (seen | true).sum())


def expected(things: Sequence[Thing]) -> list[tuple[str, float]]:
    """The outliner's lines."""
    return [(each.label, round(0.9 - 0.2 * place, 2)) for place, each in enumerate(things)]


@pytest.mark.parametrize(
    "tags",
    [
        labels("RectangleLabels", "box", "Square"),
        '<Rectangle name="draw" toName="image"/>' + labels("Labels", "box", "Square"),
    ],
    ids=["RectangleLabels", "Rectangle with Labels"],
)
def test_boxes_stand_on_their_objects(editor: Editor, tags: str, request: pytest.FixtureRequest) -> None:
    xml = config(tags)
    name = "rectangle" + "-and-labels" * ("<Rectangle " in tags)

    found = editor.open(name, xml, [BOX, EDGE_BOX], converted(xml, [BOX, EDGE_BOX]))

    assert [each.kind for each in found] == ["Rect", "Rect"]
    assert found[0].box == pytest.approx(BOX.box, abs=0.5)
    assert found[1].box == pytest.approx((410, 210, WIDTH, 330), abs=0.5)
    assert listed(editor.page) == expected([BOX, EDGE_BOX])


def test_turned_boxes_stand_on_their_objects(editor: Editor) -> None:
    xml = config(labels("RectangleLabels", "turned", "Plank", "Pipe"))

    found = editor.open("rectangle-turned", xml, TURNED, converted(xml, TURNED))

    for seen, thing in zip(found, TURNED, strict=True):
        assert seen.kind == "Rect"
        assert seen.box == pytest.approx(thing.box, abs=0.5)
        assert overlap(seen, thing) > 0.98
    assert listed(editor.page) == expected(TURNED)


def test_ellipses_stand_on_their_objects(editor: Editor) -> None:
    xml = config(labels("EllipseLabels", "egg", "Egg"))

    found = editor.open("ellipse", xml, ROUND, converted(xml, ROUND))

    for seen, thing in zip(found, ROUND, strict=True):
        assert seen.kind == "Ellipse"
        assert seen.box == pytest.approx(thing.box, abs=0.5)
        assert overlap(seen, thing) > 0.98
    assert listed(editor.page) == expected(ROUND)


def test_polygons_follow_their_objects(editor: Editor) -> None:
    xml = config(labels("PolygonLabels", "outline", "Leaf", "Blob"))

    found = editor.open("polygon", xml, [LEAF, BLOB], converted(xml, [LEAF, BLOB]))

    for seen, thing in zip(found, [LEAF, BLOB], strict=True):
        assert seen.kind == "Line"
        assert 3 <= len(seen.outline) <= 60
        assert seen.box == pytest.approx(thing.box, abs=2)
        assert overlap(seen, thing) > 0.95
    assert listed(editor.page) == expected([LEAF, BLOB])


@pytest.mark.parametrize("tag", ["BrushLabels", "BitmaskLabels"])
def test_paint_covers_its_objects(editor: Editor, tag: str) -> None:
    xml = config(labels(tag, "paint", "Leaf", "Blob"))

    found = editor.open(tag.removesuffix("Labels").lower(), xml, [LEAF, BLOB], converted(xml, [LEAF, BLOB]))

    for seen, thing in zip(found, [LEAF, BLOB], strict=True):
        assert seen.kind == "Image"
        assert seen.box == pytest.approx((0, 0, WIDTH, HEIGHT), abs=0.5), "the layer lies on the whole image"
        assert overlap(seen, thing) > 0.99
    assert listed(editor.page) == expected([LEAF, BLOB])


def test_skeletons_stand_on_their_objects(editor: Editor) -> None:
    xml = config(labels("KeyPointLabels", "kp", *SKELETON), labels("RectangleLabels", "kp_bbox", "Bird"))

    found = editor.open("keypoint", xml, BIRDS, converted(xml, BIRDS))

    assert [each.kind for each in found] == ["Rect", *["Circle"] * 4, "Rect", *["Circle"] * 3]
    true = [each for thing in BIRDS for each in (None, *thing.points.values())]
    boxes = iter(BIRDS)
    for seen, point in zip(found, true, strict=True):
        if point is None:
            assert seen.box == pytest.approx(next(boxes).box, abs=0.5)
        else:
            assert seen.outline.mean(axis=0) == pytest.approx(point, abs=0.5)
    titles = [title for title, _ in listed(editor.page)]
    assert titles[:5] == ["Bird", *SKELETON], "the points are listed below their box"


@pytest.mark.parametrize(("several", "answers"), [("", ["Night"]), ('choice="multiple"', ["Night", "Fog"])])
def test_choices_are_made(editor: Editor, several: str, answers: list[str]) -> None:
    entries = "".join(f'<Choice value="{value}"/>' for value in ("Day", "Night", "Fog"))
    xml = config(f'<Choices name="weather" toName="image" {several}>{entries}</Choices>')
    made = answered(xml, [0.05, 0.9, 0.7 if several else 0.05])
    marked = ".lsf-choice .ant-checkbox-wrapper-checked, .lsf-choice .ant-radio-wrapper-checked"

    editor.open(
        f"choices-{'several' if several else 'one'}", xml, [], made, f"() => !!document.querySelector('{marked}')"
    )

    assert editor.chosen(marked) == answers


def test_a_taxonomy_shows_its_path(editor: Editor) -> None:
    xml = config(
        '<Taxonomy name="place" toName="image" showFullPath="true"><Choice value="Land"><Choice value="Meadow"/>'
        '<Choice value="Desert"/></Choice><Choice value="Sea"/></Taxonomy>'
    )
    tags = ".htx-taxonomy .ant-select-selection-item"
    paths = parse_label_config(xml).controls[0].paths
    scores = [0.9 if path == ("Land", "Desert") else 0.03 for path in paths.values()]

    editor.open("taxonomy", xml, [], answered(xml, scores), f"() => !!document.querySelector('{tags}')")

    assert editor.chosen(tags) == ["Land / Desert"]


def answered(xml: str, scores: Sequence[float]) -> list[Region]:
    """What yoloop answers for these scores of the first control's labels."""
    control = parse_label_config(xml).controls[0]
    whole = Box(0, 0, WIDTH, HEIGHT)
    found = [Detection(cls, score, whole) for cls, score in enumerate(scores)]
    return to_regions(found, control, dict(enumerate(control.labels)), SIZE, 0.25, lambda: "answer")[0]
