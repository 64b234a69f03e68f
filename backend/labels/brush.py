"""BrushLabels: objects with masks to painted regions of Label Studio and back.

Label Studio stores the whole image's layer of paint, four bytes (red, green, blue, alpha) a pixel, as numbers of
its run-length coding. Its editor draws by alpha alone, and writes alpha into all four.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.labels import outline, region
from backend.labels.geometry import Detection, ImageSize, Mask
from backend.labels.region import Drawn, NewId, Region
from backend.labels.schema import Control

# A layer may be as large as its image, or as this: 67 million. A few bytes can claim to be gigabytes.
MOST_PIXELS = 1 << 26


def to_regions(found: Detection, label: str, control: Control, size: ImageSize, new_id: NewId) -> list[Region]:
    """One region with the object's whole mask; none for an object without a mask on the image."""
    # It brings along a reader of languages, which looks for a folder of the user's as soon as it is imported.
    from label_studio_sdk.converter.brush import mask2rle

    mask = outline.visible(found, size)
    if mask is None:
        return []
    value = {"format": "rle", "rle": mask2rle(mask.full(size).astype(np.uint8) * 255)}
    return region.draw(control, [label], value, found.score, size, new_id())


def from_regions(
    result: Sequence[Mapping[str, Any]],
    control: Control,
    classes: Sequence[str],
    size: ImageSize,
    page: int | None = None,
) -> list[Detection]:
    """What a person painted, as masks and the boxes around them, in pixels; see `region.drawn`.

    Layers of another size than the image are stretched to it.
    """
    found: list[Detection] = []
    for drawn in region.drawn(result, control, page):
        numbers = region.classes_of(drawn.labels, classes)
        alpha = _layer(drawn, size) if numbers else None
        mask = painted(alpha, size) if alpha is not None else None
        if mask is not None:
            found += [Detection(number, 1.0, mask.box, mask=mask) for number in numbers]
    return found


def painted(alpha: NDArray[np.uint8], size: ImageSize) -> Mask | None:
    """The pixels that a layer covers, stretched to the image; None when it covers none.

    Strokes are smoothed: alpha is the share of the pixel under the brush. A pixel counts from half of the layer's
    strongest on, which for usual layers means that at least half of it is painted; a brush thinner than a pixel
    and paint that was made translucent elsewhere reach no 255 anywhere.

    Args:
        alpha: (height, width), neither of them 0.
    """
    bits = (alpha >= max((int(alpha.max()) + 1) // 2, 1)).astype(bool)
    height, width = bits.shape
    if (width, height) != (size.width, size.height):
        rows = (2 * np.arange(size.height) + 1) * height // (2 * size.height)
        columns = (2 * np.arange(size.width) + 1) * width // (2 * size.width)
        bits = bits[rows][:, columns]
    return Mask.of(bits)


def decode(rle: bytes, length: int) -> NDArray[np.uint8] | None:
    """The bytes that a run-length code of Label Studio stands for; None when they are not `length` bytes.

    The SDK's `decode_rle` gives the same, but takes seconds for a layer of many smooth strokes on a photograph of
    12 megapixels, where this takes a tenth. It also trusts the code's own length and reads on past its end.

    The code is a stream of bits: 32 with the number of values, 5 with the bits of a value less 1, then four times
    4 with the bits of a count less 1. Then come groups: 1 bit that tells a run from single values, 2 bits that
    choose one of the four sizes, the count less 1, and the run's value or all the values.
    """
    head = int.from_bytes(rle[:8], "big")
    if int.from_bytes(rle[:4], "big") != length or head >> (64 - 37) & 31 != 7:
        return None
    sizes = [(head >> shift & 15) + 1 for shift in (23, 19, 15, 11)]
    # A group starts with at most 27 bits, and 5 bytes hold 33 of any position: the padding keeps the last readable.
    code = rle + bytes(5)
    codes = np.frombuffer(code, np.uint8)
    values = np.zeros(length, np.uint8)
    bit, done, end = 53, 0, len(rle) * 8
    while done < length:
        group = int.from_bytes(code[bit >> 3 : (bit >> 3) + 5], "big") << (bit & 7) & 0xFF_FFFF_FFFF
        size = sizes[group >> 37 & 3]
        count = (group >> (37 - size) & ((1 << size) - 1)) + 1
        run = group >> 39
        bit += 3 + size
        if bit + (8 if run else 8 * count) > end or done + count > length:
            return None
        if run:
            values[done : done + count] = group >> (29 - size) & 255
            bit += 8
        else:
            pairs = codes[bit >> 3 : (bit >> 3) + count + 1].astype(np.uint16)
            values[done : done + count] = (pairs[:-1] << 8 | pairs[1:]) >> (8 - (bit & 7)) & 255
            bit += 8 * count
        done += count
    return values


def _layer(drawn: Drawn, size: ImageSize) -> NDArray[np.uint8] | None:
    """Alpha of a region's layer, (height, width); None when it is not one."""
    width, height = drawn.width or size.width, drawn.height or size.height
    if not 0 < width * height <= max(MOST_PIXELS, size.width * size.height):
        return None
    rle = drawn.value.get("rle")
    if not isinstance(rle, list):
        return None
    try:
        values = decode(bytes(rle), width * height * 4)
    except (TypeError, ValueError, OverflowError):
        return None
    return values.reshape(height, width, 4)[:, :, 3] if values is not None else None
