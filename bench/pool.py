"""The images that a benchmark labels, with their true boxes: generated ones, photographs, or a folder with COCO's."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import cv2
import tails as long_tails
from photographs import LABEL, TILE, draw_tiles
from support.shapes import LABELS, draw_pictures

from backend.simulation.replay import ReplayTask

HOST = "http://images.invalid"
"""Where the images would lie; they are put into the cache beforehand, so nobody asks there."""

NAMES = ("easy", "tails", "tiles")
"""Pools by name; see `named`."""

HUE = 12
"""Of OpenCV's 180: red turns orange, green turns turquoise and blue turns violet."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Tasks with their truth, the image file of each, and the labels in use. `name` tells what it is."""

    name: str
    labels: tuple[str, ...]
    tasks: tuple[ReplayTask, ...]
    files: Mapping[str, Path]
    generated: bool = False

    @property
    def label_config(self) -> str:
        labels = "".join(f"<Label value={quoteattr(label)}/>" for label in self.labels)
        boxes = f'<RectangleLabels name="label" toName="image">{labels}</RectangleLabels>'
        return f'<View><Image name="image" value="$image"/>{boxes}</View>'


def generated(folder: Path, count: int, *, seed: int, size: int, recoloured: bool = False) -> Pool:
    """Discs, squares and triangles of `size` × `size` pixels; recoloured: in other colours, and darker."""
    pictures = draw_pictures(folder, count, seed=seed, size=size)
    if recoloured:
        for each in pictures:
            _recolour(each.path)
    found = [(each.path, each.result()) for each in pictures]
    look = "recoloured shapes" if recoloured else "generated shapes"
    return replace(_pool(f"{count} {look}, seed {seed}, {size} px", LABELS, found), generated=True)


def tails(folder: Path, count: int, *, seed: int, size: int) -> Pool:
    """Ten shapes of uneven frequency, among what is nobody's object; see `tails`."""
    pictures = long_tails.draw_tails(folder, count, seed=seed, size=size)
    found = [(each.path, each.result()) for each in pictures]
    return _pool(f"{count} long-tailed shapes, seed {seed}, {size} px", long_tails.LABELS, found)


def tiles(folder: Path, count: int | None = None, *, seed: int = 0) -> Pool:
    """Tiles of aerial photographs with crowns of trees; of more than `count` a random choice.

    Raises `wheels.WheelMissing`, an OSError.
    """
    drawn = draw_tiles(folder)
    if count is not None and count < len(drawn):
        drawn = random.Random(seed).sample(drawn, count)
    found = []
    for number, (path, width, height, boxes) in enumerate(drawn):
        bboxes = [{"category_id": 0, "bbox": [x1, y1, x2 - x1, y2 - y1]} for x1, y1, x2, y2 in boxes]
        found.append((path, coco_result({"id": number, "width": width, "height": height}, bboxes, {0: LABEL})))
    return _pool(f"{len(found)} tiles of photographs, {TILE} px", (LABEL,), found)


def named(name: str, folder: Path, count: int, *, seed: int, size: int) -> Pool:
    """The pool of a name in `NAMES`; `size` is that of generated pictures."""
    if name == "tiles":
        return tiles(folder, count, seed=seed)
    return {"easy": generated, "tails": tails}[name](folder, count, seed=seed, size=size)


def coco(folder: Path, annotations: Path, count: int, *, seed: int) -> Pool:
    """Images of a folder with the boxes of a COCO file; of more than `count` a random choice.

    Crowds (`iscrowd`) are not single objects, so they are left out, as are boxes without area and images that the
    folder does not hold. Raises ValueError when none is left.
    """
    content = json.loads(annotations.read_text())
    names = {each["id"]: str(each["name"]) for each in content["categories"]}
    boxes: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for each in content["annotations"]:
        if not each.get("iscrowd"):
            boxes[each["image_id"]].append(each)
    there = [each for each in content["images"] if (folder / each["file_name"]).is_file()]
    if not there:
        raise ValueError(f"None of the images of {annotations.name} lies in {folder}.")
    chosen = random.Random(seed).sample(there, min(count, len(there)))
    found = [(folder / each["file_name"], coco_result(each, boxes[each["id"]], names)) for each in chosen]
    labels = tuple(dict.fromkeys(names.values()))
    return _pool(f"{len(chosen)} images of {annotations.name}, seed {seed}", labels, found)


def coco_result(
    image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], names: Mapping[Any, str]
) -> list[dict[str, Any]]:
    """COCO's boxes ([x, y, width, height] in pixels) as Label Studio's regions, in percent, cut off at the edges."""
    width, height = int(image["width"]), int(image["height"])
    regions = []
    for number, each in enumerate(annotations):
        x, y, w, h = (float(part) for part in each["bbox"])
        x1, y1, x2, y2 = max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h)
        if x2 <= x1 or y2 <= y1:
            continue
        value = {
            "x": 100 * x1 / width,
            "y": 100 * y1 / height,
            "width": 100 * (x2 - x1) / width,
            "height": 100 * (y2 - y1) / height,
            "rotation": 0,
            "rectanglelabels": [names[each["category_id"]]],
        }
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        control = {"from_name": "label", "to_name": "image", "type": "rectanglelabels"}
        regions.append({"id": f"{image['id']}-{number}", **control, **size, "value": value})
    return regions


def _pool(name: str, labels: Sequence[str], found: Sequence[tuple[Path, list[dict[str, Any]]]]) -> Pool:
    tasks, files = [], {}
    for number, (path, result) in enumerate(found, 1):
        # The number keeps images apart that have the same name in different folders.
        reference = f"{HOST}/{number}/{path.name}"
        tasks.append(ReplayTask(number, {"image": reference}, result))
        files[reference] = path
    return Pool(name, tuple(labels), tuple(tasks), files)


def _recolour(path: Path) -> None:
    hsv = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + HUE) % 180
    hsv[..., 2] = hsv[..., 2] * 0.85
    cv2.imwrite(str(path), cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
