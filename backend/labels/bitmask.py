"""BitmaskLabels: objects with masks to regions of Label Studio that hold a picture, and back.

`imageDataURL` is a PNG as a data URL, as large as the image and transparent outside of the object. Label Studio's
editor draws by alpha alone, stretches other sizes to the image, and stores nothing beside it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from backend.labels import outline, region
from backend.labels.brush import MOST_PIXELS, painted
from backend.labels.geometry import Detection, ImageSize
from backend.labels.region import NewId, Region
from backend.labels.schema import Control

_PREFIX = "data:image/png;base64,"


def to_regions(found: Detection, label: str, control: Control, size: ImageSize, new_id: NewId) -> list[Region]:
    """One region with the object's whole mask; none for an object without a mask on the image."""
    mask = outline.visible(found, size)
    if mask is None:
        return []
    value = {"imageDataURL": _PREFIX + base64.b64encode(_png(mask.full(size))).decode("ascii")}
    return region.draw(control, [label], value, found.score, size, new_id())


def from_regions(
    result: Sequence[Mapping[str, Any]],
    control: Control,
    classes: Sequence[str],
    size: ImageSize,
    page: int | None = None,
) -> list[Detection]:
    """What a person painted, as masks and the boxes around them, in pixels; see `region.drawn`.

    Pictures of another size than the image are stretched to it.
    """
    found: list[Detection] = []
    for drawn in region.drawn(result, control, page):
        numbers = region.classes_of(drawn.labels, classes)
        url = drawn.value.get("imageDataURL")
        alpha = _alpha(url, max(MOST_PIXELS, size.width * size.height)) if numbers else None
        mask = painted(alpha, size) if alpha is not None else None
        if mask is not None:
            found += [Detection(number, 1.0, mask.box, mask=mask) for number in numbers]
    return found


def _png(bits: NDArray[np.bool_]) -> bytes:
    """Black on transparent, as the editor writes it, but in one bit a pixel."""
    height, width = bits.shape
    image = Image.frombytes("P", (width, height), bits.astype(np.uint8).tobytes())
    image.putpalette(bytes(6))
    file = BytesIO()
    image.save(file, "PNG", bits=1, transparency=b"\x00\xff")
    return file.getvalue()


def _alpha(url: object, most: int) -> NDArray[np.uint8] | None:
    """(height, width), 255 throughout where the picture has no transparency; None for what is no PNG.

    Args:
        most: most pixels; a few bytes can claim to be gigabytes.
    """
    if not isinstance(url, str) or not url.startswith(_PREFIX):
        return None
    try:
        data = base64.b64decode(url[len(_PREFIX) :], validate=True)
        # Not Image.open, which warns of large pictures by its own measure.
        with PngImageFile(BytesIO(data)) as image:
            if image.width * image.height > most:
                return None
            return np.asarray(image.convert("RGBA").getchannel("A"))
    except Exception:  # A broken file raises whatever its parts do: struct's, zlib's, the interpreter's own errors.
        return None
