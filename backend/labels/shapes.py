"""One drawn region as an object, whatever its labels, and how much two of a kind overlap in their own shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.labels.convert import from_regions
from backend.labels.ellipse import outline
from backend.labels.geometry import Detection, ImageSize
from backend.labels.overlap import Polygon, area, intersection, iou, iou_of, mask_iou
from backend.labels.rectangle import is_askew
from backend.labels.schema import Control, Kind

KINDS: tuple[Kind, ...] = ("rectangle", "ellipse", "polygon", "brush", "bitmask")
"""What covers a part of the image."""


def shape_of(
    kind: Kind, value: Mapping[str, Any], size: ImageSize, layer: tuple[object, object] = (None, None)
) -> Detection | None:
    """Where a region of one of `KINDS` lies on the image, in pixels; None when it covers nothing or cannot be read.

    Args:
        value: the region's own, in Label Studio's units; its labels do not matter.
        layer: width and height that the region says its image has; paint is stored at that size.
    """
    control = Control("drawn", "image", kind, "image", ("object",))
    region = {
        "id": "drawn",
        "from_name": control.from_name,
        "to_name": control.to_name,
        "type": control.region_type,
        "original_width": layer[0],
        "original_height": layer[1],
        "value": {**value, control.region_type: ["object"]},
    }
    return next(iter(from_regions([region], control, control.labels, size)), None)


def is_covered(one: Detection, others: Sequence[Detection], kind: Kind, most: float) -> bool:
    """Whether one of the others overlaps with it by more than `most`, as intersection over union in their own shape.

    Boxes and ellipses, turned or not, and masks pixel by pixel; skeletons by the boxes around them.
    """
    if not others:
        return False
    near = [other for other, shared in zip(others, iou([one], others)[0], strict=True) if shared > 0]
    return any(_overlap(one, other, kind) > most for other in near)


def _overlap(one: Detection, other: Detection, kind: Kind) -> float:
    if one.mask is not None and other.mask is not None:
        return float(mask_iou([one], [other])[0, 0])
    left, right = one.rotated, other.rotated
    if left is None or right is None or kind == "keypoint":
        return iou_of(one.box, other.box)
    if kind == "ellipse":
        return _of_convex(outline(left), outline(right))
    if is_askew(left) or is_askew(right):
        return _of_convex(left.corners(), right.corners())
    return iou_of(one.box, other.box)


def _of_convex(one: Polygon, other: Polygon) -> float:
    shared = area(intersection(one, other))
    union = area(one) + area(other) - shared
    return shared / union if union > 0 else 0.0
