"""Images of more than 8 bits a channel, stretched to 8 by one rule, in suggestions and in training alike.

- Whole numbers from 0 to 65,535: the largest one tells whether 8, 10, 12, 14 or 16 bits are used, and the upper eight
  of these are kept, of each channel alike. What a camera of 12 bits writes into 16 would else be nearly black.
- Other numbers: where all are from 0 to 1, these are black and white; else the lowest and the highest are. What is no
  number is black.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Levels = npt.NDArray[np.uint8]

_BITS = (8, 10, 12, 14, 16)
_GREY = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N", "I;16S")


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image has one channel of more than 8 bits."""
    return image.mode in _GREY


def is_deep_colour(image: Image.Image) -> bool:
    """Whether an opened image, not loaded yet, has several channels of 16 bits, of which Pillow keeps the upper 8."""
    return image.mode not in _GREY and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def colours(data: bytes) -> npt.NDArray[np.uint16] | None:
    """(height, width, 3 or 4) of a file with several channels of 16 bits, BGR; None: it cannot be read so."""
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3 or decoded.shape[2] not in (3, 4):
        return None
    return np.asarray(decoded, np.uint16)


def stretch_of(parts: Iterable[npt.NDArray[Any]]) -> Callable[[npt.NDArray[Any]], Levels]:
    """What stretches an image to 8 bits.

    Args:
        parts: all of it, a part at a time, of one type.
    """
    low, high, whole = np.inf, -np.inf, True
    for part in parts:
        whole = whole and not np.issubdtype(part.dtype, np.floating)
        finite = part if whole else part[np.isfinite(part)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if whole and low >= 0 and high <= 65535:
        shift = next(bits for bits in _BITS if high < 2**bits) - 8
        return lambda part: (part.astype(np.uint16) >> shift).astype(np.uint8)
    if low > high or (not whole and low >= 0 and high <= 1):  # the former: there is no number at all
        low, high = 0.0, 1.0
    span = high - low

    def stretched(part: npt.NDArray[Any]) -> Levels:
        shares = (part.astype(np.float64) - low) / (span or 1.0)
        return np.rint(np.nan_to_num(np.clip(shares, 0.0, 1.0), nan=0.0) * 255).astype(np.uint8)

    return stretched
