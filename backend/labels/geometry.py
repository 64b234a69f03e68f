"""The two words that every control speaks: the size of an upright image, and one detected object."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Pixels of the image as a browser shows it, EXIF orientation applied."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box in pixels of the upright image: left, top, right, bottom; not clamped."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class Detection:
    """One object that a model found.

    `cls` is the model's own class index, `score` lies in [0, 1], `box` is in pixels of the upright image.
    """

    cls: int
    score: float
    box: Box
