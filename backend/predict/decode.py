"""Bytes to upright pixels, as a browser shows them."""

from __future__ import annotations

from io import BytesIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.errors import ImageUnreadable

Pixels = npt.NDArray[np.uint8]
"""Height x width x 3, BGR, of the upright image."""

_ORIENTATION = 0x0112
# What browsers show, and TIFF. Everything else Pillow knows stays out: EPS, for one, runs a program.
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "AVIF", "BMP", "DIB", "ICO", "TIFF")


def decode(data: bytes, max_pixels: int, name: str) -> Pixels:
    """The first frame of an image: EXIF orientation applied, transparency over white.

    Args:
        max_pixels: largest width x height.
        name: what messages call it.

    Raises:
        ImageUnreadable: not an image, broken, or of too many pixels.
    """
    try:
        # Only the header is read here: a bomb is refused before it is decoded.
        with Image.open(BytesIO(data), formats=_known_formats()) as image:
            if image.width * image.height > max_pixels:
                raise _too_many_pixels(name, f"{image.width} x {image.height} pixels")
            pixels = _decode_fast(data, image)
            if pixels is None:
                pixels = _decode_any(image)
            return _upright(pixels, _orientation(image))
    except ImageUnreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(name, "more pixels than Pillow opens") from None
    # Pillow's decoders raise nearly anything on broken files.
    except Exception as error:
        raise ImageUnreadable(
            f"{name} is not an image that can be read ({type(error).__name__}).",
            "Open it in a browser: it may be broken or of an unknown format.",
        ) from None


def _too_many_pixels(name: str, size: str) -> ImageUnreadable:
    return ImageUnreadable(f"{name} has {size}.", "Raise YOLOOP_MAX_IMAGE_MEGAPIXELS if that should be.")


def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _decode_fast(data: bytes, image: Image.Image) -> Pixels | None:
    """OpenCV for whole, plain JPEG and PNG files, about twice as fast; None for all others."""
    if image.mode not in ("RGB", "L") or "transparency" in image.info or getattr(image, "is_animated", False):
        return None
    # OpenCV fills what is missing with grey and says nothing, Pillow refuses: leave cut files to it.
    if image.format == "JPEG":
        whole = data.endswith(b"\xff\xd9")
    else:
        whole = image.format == "PNG" and data[-8:-4] == b"IEND" and b"eXIf" not in data
    if not whole:
        return None
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    return None if decoded is None else np.asarray(decoded, np.uint8)


def _decode_any(image: Image.Image) -> Pixels:
    image.load()
    if image.mode.startswith("I;16"):
        # Pillow would clip at 255; a browser shows the upper eight bits.
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        rgb = Image.alpha_composite(page, layer).convert("RGB")
    else:
        rgb = image.convert("RGB")
    return np.asarray(rgb, np.uint8)[:, :, ::-1]


def _orientation(image: Image.Image) -> int:
    """EXIF's value 1..8. Pillow's getexif would also believe XMP, which browsers do not."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return int(exif.get(_ORIENTATION, 1))
    except Exception:
        return 1  # a broken tag harms no pixel


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
