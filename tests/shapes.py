"""Generated images whose objects are known: discs, squares and triangles on textured noise.

A small YOLO learns them from random weights within a minute on two cores, so tests, the demo and the
benchmarks need no downloaded data.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
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
