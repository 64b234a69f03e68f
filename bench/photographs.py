"""Tiles of three aerial photographs, with the crowns of their trees as boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from wheels import CACHE, PHOTOGRAPHS, fetch, read

LABEL = "Tree"
PICTURES = ("2019_YELL_2_541000_4977000_image_crop", "OSBS_029", "SOAP_061")
"""Of the package's pictures; the other large one is kept for a last look, so nothing here may learn from it."""

TILE = 192
"""Pixels of a tile's side, and from one tile to the next."""

LEAST_SIDE = 96
"""Pixels that the rest at a picture's edge must have to be a tile."""

LEAST_INSIDE = 0.4
"""Share of a crown's area that must lie in a tile for it to be one of its objects."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels."""


def draw_tiles(folder: Path, cache: Path = CACHE) -> list[tuple[Path, int, int, list[Box]]]:
    """Write the tiles as PNGs: path, width, height and the boxes of each. Raises `wheels.WheelMissing`."""
    wheel = fetch(PHOTOGRAPHS, cache)
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name in PICTURES:
        pixels = cv2.imdecode(np.frombuffer(read(wheel, f"deepforest/data/{name}.png"), np.uint8), cv2.IMREAD_COLOR)
        crowns = crowns_of(read(wheel, f"deepforest/data/{name}.xml"))
        for left, top, right, bottom in tiles_of(pixels.shape[1], pixels.shape[0]):
            path = folder / f"{name}-{left}-{top}.png"
            cv2.imwrite(str(path), pixels[top:bottom, left:right])
            boxes = [part for crown in crowns if (part := inside(crown, (left, top, right, bottom)))]
            found.append((path, right - left, bottom - top, boxes))
    return found


def crowns_of(xml: bytes) -> list[Box]:
    """The boxes of a picture's annotation in Pascal VOC's XML."""
    boxes = []
    for each in ElementTree.fromstring(xml).iter("bndbox"):  # noqa: S314  of a file whose hash is known
        left, top, right, bottom = (float(each.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax"))
        boxes.append((left, top, right, bottom))
    return boxes


def tiles_of(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Left, top, right, bottom of the tiles, row by row."""
    for top in _starts(height):
        for left in _starts(width):
            yield left, top, min(width, left + TILE), min(height, top + TILE)


def inside(crown: Box, tile: Sequence[float]) -> Box | None:
    """The part of a crown that lies in a tile, in the tile's pixels; None where it is too little of it."""
    left, top = max(crown[0], tile[0]), max(crown[1], tile[1])
    right, bottom = min(crown[2], tile[2]), min(crown[3], tile[3])
    least = LEAST_INSIDE * (crown[2] - crown[0]) * (crown[3] - crown[1])
    if right <= left or bottom <= top or (right - left) * (bottom - top) < least:
        return None
    return left - tile[0], top - tile[1], right - tile[0], bottom - tile[1]


def _starts(length: int) -> list[int]:
    return [start for start in range(0, length, TILE) if min(TILE, length - start) >= LEAST_SIDE]
