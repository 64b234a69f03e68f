"""Images as networks take them, made as ultralytics makes them; neither torch nor ultralytics is needed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image as Pillow

from backend.engine.detector import Image

GREY = 114
"""What ultralytics pads with."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an image of `width` × `height` pixels stands in the input: its corner, and pixels of the input for each
    of its own, across and down. `input` is that one's height and width."""

    width: int
    height: int
    input: tuple[int, int]
    left: int = 0
    top: int = 0
    across: float = 1.0
    down: float = 1.0


def letterbox(image: Image, size: int, stride: int) -> tuple[Image, Placed]:
    """The image scaled to `size` on its longer side and padded on both sides to a multiple of `stride`.

    As ultralytics' `LetterBox` with `auto=True`.
    """
    height, width = image.shape[:2]
    gain = min(size / height, size / width)
    wide, high = max(1, round(width * gain)), max(1, round(height * gain))
    if (wide, high) != (width, height):
        image = np.asarray(cv2.resize(image, (wide, high), interpolation=cv2.INTER_LINEAR), np.uint8)
    across, down = ((size - wide) % stride) / 2, ((size - high) % stride) / 2
    left, top = round(across - 0.1), round(down - 0.1)
    right, bottom = round(across + 0.1), round(down + 0.1)
    placed = Placed(width, height, (top + high + bottom, left + wide + right), left, top, wide / width, high / height)
    if any((left, right, top, bottom)):
        grey = (GREY, GREY, GREY)
        image = np.asarray(cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=grey))
    return np.ascontiguousarray(image), placed


def squeezed(image: Image, size: int) -> Image:
    """The whole image in a square, as our own classify models learn it."""
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def middle(image: Image, size: int) -> Image:
    """The middle square of the image: what ultralytics' `classify_transforms` leave of it."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    wide, high = int(size * width / shorter), int(size * height / shorter)
    if (wide, high) != (width, height):
        image = np.array(Pillow.fromarray(image).resize((wide, high), Pillow.Resampling.BILINEAR))
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return np.ascontiguousarray(image[top : top + size, left : left + size])
