"""Generated images whose objects are known: `Picture`, discs, squares and triangles on textured noise, for boxes;
`Scene`, with an object for every way to label, and questions about the whole image.

A small YOLO learns them from random weights within a minute on two cores, so tests, the demo and the
benchmarks need no downloaded data. The truth is written in Label Studio's units by hand here, without the
conversions of the backend, which it is there to judge.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from label_studio_sdk.converter.brush import mask2rle
from numpy.typing import NDArray

LABELS = ("Disc", "Square", "Triangle")
COLOURS = {"Disc": (40, 40, 210), "Square": (40, 180, 40), "Triangle": (210, 90, 30)}  # blue, green, red


@dataclass(frozen=True, slots=True)
class Shape:
    """One object: its label and its box in pixels, left, top, right, bottom."""

    label: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Picture:
    path: Path
    width: int
    height: int
    shapes: tuple[Shape, ...]

    def result(self, *, from_name: str = "label", to_name: str = "image") -> list[dict[str, Any]]:
        """The picture's objects as a Label Studio annotation's `result`, as a careful person would draw it."""
        return [
            {
                "id": f"{self.path.stem}-{index}",
                "from_name": from_name,
                "to_name": to_name,
                "type": "rectanglelabels",
                "original_width": self.width,
                "original_height": self.height,
                "image_rotation": 0,
                "value": {
                    "x": 100 * shape.box[0] / self.width,
                    "y": 100 * shape.box[1] / self.height,
                    "width": 100 * (shape.box[2] - shape.box[0]) / self.width,
                    "height": 100 * (shape.box[3] - shape.box[1]) / self.height,
                    "rotation": 0,
                    "rectanglelabels": [shape.label],
                },
            }
            for index, shape in enumerate(self.shapes)
        ]


def draw_pictures(folder: Path, count: int, *, seed: int = 0, size: int = 160) -> list[Picture]:
    """Write `count` JPEGs of `size` × `size` pixels with one to four shapes each; the same for one seed."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    return [_draw(folder / f"shapes-{seed}-{index:04}.jpg", random, size) for index in range(count)]


def _draw(path: Path, random: np.random.Generator, size: int) -> Picture:
    coarse = random.integers(60, 190, (size // 8, size // 8, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    image = np.clip(image + random.integers(-25, 26, image.shape), 0, 255).astype(np.uint8)
    shapes: list[Shape] = []
    for _ in range(int(random.integers(1, 5))):
        box = _free_place(random, size, [shape.box for shape in shapes])
        if box is not None:
            label = LABELS[int(random.integers(len(LABELS)))]
            _paint(image, label, box, random)
            shapes.append(Shape(label, box))
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return Picture(path, size, size, tuple(shapes))


def _free_place(
    random: np.random.Generator, size: int, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, float, float] | None:
    for _ in range(50):
        side = int(random.integers(size // 8, size // 3))
        left, top = (int(value) for value in random.integers(2, size - side - 2, 2))
        if all(left > x2 or left + side < x1 or top > y2 or top + side < y1 for x1, y1, x2, y2 in taken):
            return float(left), float(top), float(left + side), float(top + side)
    return None


def _paint(
    image: NDArray[np.uint8], label: str, box: tuple[float, float, float, float], random: np.random.Generator
) -> None:
    x1, y1, x2, y2 = (int(value) for value in box)
    shade = [int(np.clip(value + random.integers(-30, 31), 0, 255)) for value in COLOURS[label]]
    if label == "Disc":
        cv2.circle(image, ((x1 + x2) // 2, (y1 + y2) // 2), (x2 - x1) // 2, shade, -1, cv2.LINE_AA)
    elif label == "Square":
        cv2.rectangle(image, (x1, y1), (x2, y2), shade, -1)
    else:
        corners = np.array([[(x1 + x2) // 2, y1], [x2, y2], [x1, y2]])
        cv2.fillPoly(image, [corners], shade, cv2.LINE_AA)


SKELETON = ("Head", "Left", "Tail", "Right")
WEATHERS = ("Day", "Night", "Fog")
PLACES = (("Land", "Meadow"), ("Land", "Desert"), ("Sea",))
SCENE_LABELS = {
    "box": ("Disc", "Square"),
    "turned": ("Plank", "Pipe"),
    "egg": ("Egg",),
    "outline": ("Leaf",),
    "paint": ("Blob",),
    "bits": ("Stain",),
    "kp_bbox": ("Bird",),
}
"""Control of SCENE_CONFIG → its labels; `kp` has SKELETON's."""

SCENE_CONFIG = """<View>
  <Image name="image" value="$image"/>
  <Choices name="weather" toName="image"><Choice value="Day"/><Choice value="Night"/><Choice value="Fog"/></Choices>
  <Taxonomy name="place" toName="image">
    <Choice value="Land"><Choice value="Meadow"/><Choice value="Desert"/></Choice><Choice value="Sea"/>
  </Taxonomy>
  <RectangleLabels name="box" toName="image"><Label value="Disc"/><Label value="Square"/></RectangleLabels>
  <RectangleLabels name="turned" toName="image"><Label value="Plank"/><Label value="Pipe"/></RectangleLabels>
  <EllipseLabels name="egg" toName="image"><Label value="Egg"/></EllipseLabels>
  <PolygonLabels name="outline" toName="image"><Label value="Leaf"/></PolygonLabels>
  <BrushLabels name="paint" toName="image"><Label value="Blob"/></BrushLabels>
  <BitmaskLabels name="bits" toName="image"><Label value="Stain"/></BitmaskLabels>
  <KeyPointLabels name="kp" toName="image">
    <Label value="Head"/><Label value="Left"/><Label value="Tail"/><Label value="Right"/>
  </KeyPointLabels>
  <RectangleLabels name="kp_bbox" toName="image"><Label value="Bird"/></RectangleLabels>
</View>"""

_SHADES = COLOURS | {
    "Plank": (20, 130, 240),
    "Pipe": (220, 210, 30),
    "Egg": (150, 30, 110),
    "Leaf": (180, 70, 250),
    "Blob": (40, 225, 240),
    "Stain": (15, 15, 15),
    "Bird": (245, 245, 245),
}
_DOTS = ((40, 40, 230), (40, 170, 40), (230, 60, 40), (20, 200, 230))
"""Colours of the skeleton's points, in their order."""


Frame = tuple[float, float, float, float, float]
"""Centre x and y, width, height in pixels, and the degrees by which it is turned clockwise."""


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """One object of a scene, in pixels; the pixel (column 0, row 0) covers [0, 1] × [0, 1].

    Attributes:
        control: that labels it, a key of SCENE_LABELS.
        outline: (n, 2), the corners of its shape; of a box its four, beginning with what is left top before the
            turn, clockwise.
        frame: what holds it; a skeleton's is upright.
        points: of a skeleton: label → place. What is missing is not to be seen.
    """

    control: str
    label: str
    outline: NDArray[np.float64]
    frame: Frame
    points: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        (x1, y1), (x2, y2) = self.outline.min(axis=0), self.outline.max(axis=0)
        return float(x1), float(y1), float(x2), float(y2)

    def mask(self, width: int, height: int) -> NDArray[np.bool_]:
        return _coverage(self.outline, width, height) >= 0.5


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture with objects for SCENE_CONFIG's controls, and the answers to its questions."""

    path: Path
    width: int
    height: int
    things: tuple[Thing, ...]
    weather: str
    place: tuple[str, ...]

    def result(self) -> list[dict[str, Any]]:
        """The scene as a Label Studio annotation's `result`, as a careful person would label it."""
        regions = []
        for index, thing in enumerate(self.things):
            number = f"{self.path.stem}-{index}"
            kind, value = self._value(thing)
            regions.append(self._region(number, thing.control, kind, value, [thing.label]))
            for label, (x, y) in thing.points.items():
                place = {"x": 100 * x / self.width, "y": 100 * y / self.height, "width": 1.0}
                point = self._region(f"{number}-{label}", "kp", "keypointlabels", place, [label])
                regions.append(point | {"parentID": number})
        regions.append(self._region("weather", "weather", "choices", {}, [self.weather]))
        regions.append(self._region("place", "place", "taxonomy", {}, [list(self.place)]))
        return regions

    def _value(self, thing: Thing) -> tuple[str, dict[str, Any]]:
        """The region's type, and its geometry in percent of the sides."""
        share = 100 / np.array([self.width, self.height])
        if thing.control == "outline":
            return "polygonlabels", {"points": (thing.outline * share).tolist(), "closed": True}
        if thing.control in ("paint", "bits"):
            painted = thing.mask(self.width, self.height).astype(np.uint8) * 255
            if thing.control == "paint":
                return "brushlabels", {"format": "rle", "rle": mask2rle(painted)}
            # As the editor paints it: black, on nothing.
            pixels = np.dstack([np.zeros((self.height, self.width, 3), np.uint8), painted])
            data = base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()
            return "bitmasklabels", {"imageDataURL": f"data:image/png;base64,{data}"}
        width, height = (float(side) for side in np.array(thing.frame[2:4]) * share)
        if thing.control == "egg":
            x, y = (float(part) for part in np.array(thing.frame[:2]) * share)
            radii = {"radiusX": width / 2, "radiusY": height / 2}
            return "ellipselabels", {"x": x, "y": y, **radii, "rotation": thing.frame[4]}
        # The editor turns a box about its left top corner, which is the one that stays where it is.
        corner = thing.outline[0] if thing.frame[4] else np.array(thing.box[:2])
        x, y = (float(part) for part in corner * share)
        return "rectanglelabels", {"x": x, "y": y, "width": width, "height": height, "rotation": thing.frame[4]}

    def _region(
        self, number: str, control: str, kind: str, value: Mapping[str, Any], labels: Sequence[Any]
    ) -> dict[str, Any]:
        size = {"original_width": self.width, "original_height": self.height, "image_rotation": 0}
        given = {"value": {**value, kind: list(labels)}}
        return {"id": number, "from_name": control, "to_name": "image", "type": kind, **size, **given}


def draw_scenes(folder: Path, count: int, *, seed: int = 0, width: int = 128, height: int = 112) -> list[Scene]:
    """Write `count` PNGs with about six objects each, none over another; the same for one seed."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    scenes = []
    for index in range(count):
        weather, place = WEATHERS[int(random.integers(3))], PLACES[int(random.integers(3))]
        scene = Scene(
            folder / f"scene-{seed}-{index:04}.png", width, height, _things(random, width, height), weather, place
        )
        draw_scene(scene, random)
        scenes.append(scene)
    return scenes


def draw_scene(scene: Scene, random: np.random.Generator) -> None:
    """Write the PNG that shows the scene."""
    image = _landscape(scene, random)
    for thing in scene.things:
        _paint_thing(image, thing, random)
    noisy = np.clip(image + random.integers(-6, 7, image.shape), 0, 255)
    cv2.imwrite(str(scene.path), noisy.astype(np.uint8))


def turned_box(control: str, label: str, frame: Frame) -> Thing:
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    return Thing(control, label, _turned(frame, corners), frame)


def turned_ellipse(control: str, label: str, frame: Frame) -> Thing:
    return Thing(control, label, _turned(frame, _circle(72) / 2), frame)


def blob(control: str, label: str, frame: Frame, waves: int = 3) -> Thing:
    """A round shape with so many bulges, which a polygon of few corners does not meet."""
    around = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    return Thing(control, label, _turned(frame, (0.4 + 0.1 * np.sin(waves * around))[:, None] * _circle(48)), frame)


def leaf(control: str, label: str, frame: Frame) -> Thing:
    """Pointed, with a notch: not convex."""
    corners = np.array([[0.5, 0.0], [0.08, 0.16], [-0.4, 0.3], [-0.2, 0.0], [-0.4, -0.3], [0.08, -0.16]])
    return Thing(control, label, _turned(frame, corners), frame)


def bird(control: str, label: str, frame: Frame, missing: str = "") -> Thing:
    """A kite that flies up, with a dot for each of SKELETON's points but the one that is missing."""
    corners = np.array([[0.0, -0.5], [0.42, -0.12], [0.0, 0.5], [-0.42, -0.12]])
    body = _turned(frame, corners)
    (x1, y1), (x2, y2) = body.min(axis=0), body.max(axis=0)
    upright = (float(x1 + x2) / 2, float(y1 + y2) / 2, float(x2 - x1), float(y2 - y1), 0.0)
    places = zip(SKELETON, _turned(frame, corners * 0.6).tolist(), strict=True)
    return Thing(control, label, body, upright, {name: (x, y) for name, (x, y) in places if name != missing})


def _things(random: np.random.Generator, width: int, height: int) -> tuple[Thing, ...]:
    """Objects of most controls, one to a field of a grid, so that none is over another."""
    side = min(width // 3, height // 3)
    fields = [(column * width / 3, row * height / 3) for column in range(3) for row in range(3)]
    # Few skeletons teach little: their points are small.
    wanted = ["box", "kp_bbox", *(control for control in SCENE_LABELS if random.random() < 0.75)]
    found = []
    for number, control in zip(random.permutation(len(fields)), wanted, strict=False):
        reach = float(random.uniform(0.68, 0.98)) * side
        left, top = fields[number]
        cx = left + reach / 2 + float(random.uniform(0, width / 3 - reach))
        cy = top + reach / 2 + float(random.uniform(0, height / 3 - reach))
        label = SCENE_LABELS[control][int(random.integers(len(SCENE_LABELS[control])))]
        found.append(_thing(control, label, cx, cy, reach, random))
    return tuple(found)


def _thing(control: str, label: str, cx: float, cy: float, reach: float, random: np.random.Generator) -> Thing:
    """An object inside the square of that centre and side."""
    angle = float(random.uniform(-90, 90))
    if label == "Disc":
        return turned_ellipse(control, label, (cx, cy, reach, reach, 0.0))
    if label == "Square":
        return turned_box(control, label, (cx, cy, reach, reach * float(random.uniform(0.8, 1)), 0.0))
    if control == "turned":
        return turned_box(control, label, (cx, cy, reach * 0.9, reach * 0.4, angle))
    if control == "egg":
        return turned_ellipse(control, label, (cx, cy, reach, reach * 0.55, angle))
    if control == "outline":
        return leaf(control, label, (cx, cy, reach, reach, angle))
    if control in ("paint", "bits"):
        return blob(control, label, (cx, cy, reach, reach, angle), waves=3 if control == "paint" else 5)
    missing = ("Left", "Right", *[""] * 10)[int(random.integers(12))]
    return bird(control, label, (cx, cy, reach, reach, angle / 2), missing)


def _landscape(scene: Scene, random: np.random.Generator) -> NDArray[np.float64]:
    """The background: the place is its tint, the weather its brightness and what is strewn over it."""
    width, height, weather = scene.width, scene.height, scene.weather
    tint = {"Meadow": (0.75, 1.0, 0.75), "Desert": (0.65, 0.9, 1.05), "Sea": (1.1, 0.85, 0.7)}[scene.place[-1]]
    low, high = {"Day": (130, 170), "Night": (40, 70), "Fog": (185, 205)}[weather]
    coarse = random.uniform(low, high, (height // 8, width // 8))
    grey = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    if weather == "Night":
        for x, y in random.integers(0, (width, height), (40, 2)):
            grey[y, x] = 200
    if weather == "Fog":
        across, down = np.meshgrid(np.arange(width), np.arange(height))
        grey += 30 * np.sin((across + down) / 2.5)
    found: NDArray[np.float64] = grey[:, :, None] * tint
    return found


def _paint_thing(image: NDArray[np.float64], thing: Thing, random: np.random.Generator) -> None:
    height, width = image.shape[:2]
    shade = np.clip(np.array(_SHADES[thing.label]) + random.integers(-15, 16, 3), 0, 255)
    layers = [(thing.outline, shade)]
    size = (thing.box[2] - thing.box[0]) * 0.36
    for label, (x, y) in thing.points.items():
        dot = turned_ellipse("", "", (x, y, size, size, 0.0))
        layers.append((dot.outline, np.array(_DOTS[SKELETON.index(label)])))
    for outline, colour in layers:
        part = _coverage(outline, width, height)[:, :, None]
        image[:] = image * (1 - part) + colour * part


def _circle(corners: int) -> NDArray[np.float64]:
    around = np.linspace(0, 2 * math.pi, corners, endpoint=False)
    return np.stack([np.cos(around), np.sin(around)], axis=1)


def _turned(frame: Frame, shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of the unit square about (0, 0), scaled, turned clockwise and put in their place: (n, 2) pixels."""
    cx, cy, width, height, angle = frame
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x, y = (shape * (width, height)).T
    return np.stack([cx + x * cos - y * sin, cy + x * sin + y * cos], axis=1)


def _coverage(outline: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """How much of each pixel lies inside: (height, width), 0 to 1."""
    fine = 8
    canvas = np.zeros((height * fine, width * fine), np.uint8)
    cv2.fillPoly(canvas, [np.round(outline * fine - 0.5).astype(np.int32)], 1)
    found: NDArray[np.float64] = canvas.reshape(height, fine, width, fine).mean(axis=(1, 3))
    return found


def main() -> None:
    """Write pictures and a truth.json that holds each picture's annotation."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=160)
    given = parser.parse_args()
    pictures = draw_pictures(given.folder, given.count, seed=given.seed, size=given.size)
    truth = {picture.path.name: picture.result() for picture in pictures}
    (given.folder / "truth.json").write_text(json.dumps(truth, indent=1))


if __name__ == "__main__":
    main()
