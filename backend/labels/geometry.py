"""The words that every control speaks: the size of an upright image, and one object on it.

All coordinates are pixels of the upright image, `x` to the right and `y` down from its left top corner; the
pixel (column 0, row 0) covers [0, 1] × [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Pixels of the image as a browser shows it, EXIF orientation applied."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box: left, top, right, bottom; not clamped."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class RotatedBox:
    """A box turned about its centre: `width` runs along the direction `angle`, in degrees, clockwise."""

    cx: float
    cy: float
    width: float
    height: float
    angle: float

    def corners(self) -> NDArray[np.float64]:
        """(4, 2): what are left top, right top, right bottom, left bottom before the turn."""
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        half = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]) / 2 * (self.width, self.height)
        turned: NDArray[np.float64] = half @ np.array([[cos, sin], [-sin, cos]]) + (self.cx, self.cy)
        return turned


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A cut-out of a mask: `bits` (height, width) is true on the object, its left top pixel is (x, y).

    It lies inside the image and is false outside of `bits`.
    """

    x: int
    y: int
    bits: NDArray[np.bool_]

    def full(self, size: ImageSize) -> NDArray[np.bool_]:
        """The whole image's mask, (height, width)."""
        whole = np.zeros((size.height, size.width), bool)
        height, width = self.bits.shape
        whole[self.y : self.y + height, self.x : self.x + width] = self.bits
        return whole

    @classmethod
    def of(cls, whole: NDArray[np.bool_]) -> Mask | None:
        """The smallest cut-out of a whole image's mask; None when it is empty."""
        rows, columns = np.flatnonzero(whole.any(axis=1)), np.flatnonzero(whole.any(axis=0))
        if not len(rows):
            return None
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        return cls(left, top, np.ascontiguousarray(whole[top:bottom, left:right]))

    @property
    def box(self) -> Box:
        height, width = self.bits.shape
        return Box(self.x, self.y, self.x + width, self.y + height)


@dataclass(frozen=True, slots=True)
class Point:
    """One keypoint of a skeleton. A `score` of 0 says that it is missing; then x and y mean nothing."""

    x: float
    y: float
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class Detection:
    """One object: found by a model, or drawn by a person (then its score is 1).

    `cls` is the class index and `score` lies in [0, 1]. `box` bounds the object; for a class of the whole
    image it is the image. Only what the YOLO task knows is filled: `rotated` for obb, `mask` for segment,
    `points` for pose, where each stands at its keypoint's index.
    """

    cls: int
    score: float
    box: Box
    rotated: RotatedBox | None = None
    mask: Mask | None = field(default=None, compare=False)
    points: tuple[Point, ...] = ()

    def scaled(self, across: float, down: float) -> Detection:
        """A box, or a skeleton, as it is on the same image with so many times the pixels across and down."""
        box = Box(self.box.x1 * across, self.box.y1 * down, self.box.x2 * across, self.box.y2 * down)
        points = tuple(replace(each, x=each.x * across, y=each.y * down) for each in self.points)
        return replace(self, box=box, points=points)
