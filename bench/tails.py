"""Generated pictures of ten shapes whose labels are unevenly frequent, as those of real projects are.

Two labels share each colour, so that only the form tells them apart. Strokes and corners that are nobody's object lie
about, in the same colours, and on some pictures there is nothing else.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from support.shapes import Picture, Shape

LABELS = ("Disc", "Square", "Triangle", "Cross", "Ring", "Star", "Diamond", "Bar", "Arrow", "Moon")
"""The most frequent first."""

COLOURS = ((40, 40, 210), (40, 180, 40), (210, 90, 30), (30, 200, 220), (190, 60, 180))
"""Blue, green, red: `LABELS[n]` has colour n modulo five."""

MOST, LEAST = 0.5, 0.02
"""Share of the pictures that show the most frequent label and the rarest; the others lie between in even ratios."""

EMPTY = 0.1
"""Share of the pictures that get no object whatever the labels; some others happen to get none."""


def share_of(number: int) -> float:
    """Share of the pictures that show a label."""
    return MOST * (LEAST / MOST) ** (number / (len(LABELS) - 1))


def draw_tails(folder: Path, count: int, *, seed: int = 0, size: int = 96) -> list[Picture]:
    """Write `count` JPEGs of `size` × `size` pixels; the same for one seed. Each label is on one picture at least."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    shown: list[list[str]] = [[] for _ in range(count)]
    filled = random.permutation(count)[: max(1, round(count * (1 - EMPTY)))]
    for number, label in enumerate(LABELS):
        wanted = min(len(filled), max(1, round(count * share_of(number))))
        for index in random.permutation(filled)[:wanted]:
            shown[index].append(label)
    return [_draw(folder / f"tails-{seed}-{index:04}.jpg", labels, random, size) for index, labels in enumerate(shown)]


def _draw(path: Path, labels: list[str], random: np.random.Generator, size: int) -> Picture:
    coarse = random.integers(60, 190, (size // 8, size // 8, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    image = np.clip(image + random.integers(-25, 26, image.shape), 0, 255).astype(np.uint8)
    taken: list[tuple[int, int, int]] = []
    shapes = []
    for label in labels:
        if (place := _place(random, size, taken)) is not None:
            colour = COLOURS[LABELS.index(label) % len(COLOURS)]
            x1, y1, x2, y2 = _paint(image, label, place, _shade(colour, random))
            shapes.append(Shape(label, (float(x1), float(y1), float(x2), float(y2))))
    for _ in range(int(random.integers(0, 3))):
        if (place := _place(random, size, taken)) is not None:
            _scribble(image, place, _shade(COLOURS[int(random.integers(len(COLOURS)))], random), random)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return Picture(path, size, size, tuple(shapes))


def _place(random: np.random.Generator, size: int, taken: list[tuple[int, int, int]]) -> tuple[int, int, int] | None:
    """Left, top and side of a free square; None where there is hardly any."""
    for attempt in range(200):
        side = int(random.integers(size // 8, size // 3 if attempt < 50 else size // 6))
        left, top = (int(value) for value in random.integers(2, size - side - 2, 2))
        if all(left > x + s or left + side < x or top > y + s or top + side < y for x, y, s in taken):
            taken.append((left, top, side))
            return left, top, side
    return None


def _shade(colour: tuple[int, int, int], random: np.random.Generator) -> list[int]:
    return [int(np.clip(value + random.integers(-30, 31), 0, 255)) for value in colour]


def _paint(
    image: NDArray[np.uint8], label: str, place: tuple[int, int, int], shade: list[int]
) -> tuple[int, int, int, int]:
    """Paint a shape; its box is that of the pixels painted."""
    left, top, side = place
    mask = np.zeros(image.shape[:2], np.uint8)
    half = side / 2
    middle = (left + side // 2, top + side // 2)
    if label in ("Disc", "Ring", "Moon"):
        cv2.circle(mask, middle, side // 2, 255, -1)
        if label == "Ring":
            cv2.circle(mask, middle, side // 4, 0, -1)
        if label == "Moon":
            cv2.circle(mask, (left + round(side * 0.75), middle[1]), side // 2, 0, -1)
    else:
        corners = np.array(_CORNERS[label]) * half + (left + half, top + half)
        cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 255)
    image[mask > 0] = shade
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _scribble(
    image: NDArray[np.uint8], place: tuple[int, int, int], shade: list[int], random: np.random.Generator
) -> None:
    """Something that is no object: a stroke, or two that make a corner."""
    left, top, side = place
    ends = [(left, top), (left + side, top + side), (left, top + side)][: int(random.integers(2, 4))]
    cv2.polylines(image, [np.array(ends, np.int32)], False, shade, max(1, side // 12), cv2.LINE_AA)


def _star() -> list[tuple[float, float]]:
    reach = [1.0, 0.4] * 5
    return [(r * math.sin(k * math.pi / 5), -r * math.cos(k * math.pi / 5)) for k, r in enumerate(reach)]


_T = 0.33
_CORNERS = {
    "Square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "Triangle": [(0, -1), (1, 1), (-1, 1)],
    "Cross": [
        *((-_T, -1), (_T, -1), (_T, -_T), (1, -_T), (1, _T), (_T, _T)),
        *((_T, 1), (-_T, 1), (-_T, _T), (-1, _T), (-1, -_T), (-_T, -_T)),
    ],
    "Star": _star(),
    "Diamond": [(0, -1), (1, 0), (0, 1), (-1, 0)],
    "Bar": [(-1, -_T), (1, -_T), (1, _T), (-1, _T)],
    "Arrow": [(-1, -_T), (0, -_T), (0, -1), (1, 0), (0, 1), (0, _T), (-1, _T)],
}
"""Outlines in the square from (-1, -1) to (1, 1), y downwards."""
