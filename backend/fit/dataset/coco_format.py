"""Objects as COCO has them: pixels of the upright image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from backend.labels.geometry import Detection, ImageSize, Mask
from backend.labels.networks import Network


class Coco:
    """One file of images, categories and annotations; a category is a label of a control."""

    def __init__(self) -> None:
        self._images: dict[str, dict[str, Any]] = {}
        self._categories: dict[tuple[str, str], dict[str, Any]] = {}
        self._annotations: list[dict[str, Any]] = []

    def image(self, name: str, size: ImageSize, task: int) -> int:
        """The id of an image, which is added if it is new."""
        fields = {"id": len(self._images) + 1, "file_name": name, "width": size.width, "height": size.height}
        return int(self._images.setdefault(name, {**fields, "task": task})["id"])

    def know(self, network: Network, control: str) -> None:
        """Add the categories of a control."""
        for label in network.classes:
            key = control, label
            if key in self._categories:
                continue
            made = {"id": len(self._categories) + 1, "name": label, "supercategory": control}
            if network.task == "pose":
                points = {point.index: point.label for point in network.points}
                made |= {"keypoints": [points.get(n, str(n)) for n in range(max(points) + 1)], "skeleton": []}
            self._categories[key] = made

    def add(
        self, image: int, network: Network, control: str, found: Detection, size: ImageSize, keypoints: int
    ) -> None:
        """Add one object, unless nothing of it lies on the image."""
        self.know(network, control)
        left, right = (min(max(x, 0.0), float(size.width)) for x in (found.box.x1, found.box.x2))
        top, bottom = (min(max(y, 0.0), float(size.height)) for y in (found.box.y1, found.box.y2))
        if not (right > left and bottom > top):
            return
        outline: Any = [[left, top, right, top, right, bottom, left, bottom]]
        area = (right - left) * (bottom - top)
        if network.task == "segment" and found.mask is not None:
            outline, area = _run_lengths(found.mask, size), float(found.mask.bits.sum())
        elif network.task == "obb" and found.rotated is not None:
            corners = found.rotated.corners()
            outline, area = [corners.ravel().tolist()], float(cv2.contourArea(corners.astype(np.float32)))
        made = {
            "id": len(self._annotations) + 1,
            "image_id": image,
            "category_id": self._categories[control, network.classes[found.cls]]["id"],
            "bbox": [left, top, right - left, bottom - top],
            "segmentation": outline,
            "area": area,
            "iscrowd": 0,
        }
        if network.task == "pose":
            points = [0.0] * (3 * keypoints)
            for number, point in enumerate(found.points[:keypoints]):
                if point.score > 0:
                    x, y = min(max(point.x, 0.0), size.width), min(max(point.y, 0.0), size.height)
                    points[3 * number : 3 * number + 3] = [x, y, 2]
            made |= {"keypoints": points, "num_keypoints": sum(seen > 0 for seen in points[2::3])}
        self._annotations.append(made)

    def as_json(self) -> dict[str, Any]:
        return {
            "images": list(self._images.values()),
            "categories": list(self._categories.values()),
            "annotations": self._annotations,
        }


def _run_lengths(mask: Mask, size: ImageSize) -> dict[str, Any]:
    """COCO's uncompressed RLE: lengths of runs of 0 and 1 in turn, column by column, beginning with 0."""
    bits = mask.full(size).ravel(order="F")
    ends = np.flatnonzero(np.diff(bits)) + 1
    counts = np.diff(np.concatenate([[0], ends, [len(bits)]])).tolist()
    return {"size": [size.height, size.width], "counts": [0, *counts] if bits[0] else counts}
