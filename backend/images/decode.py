"""Bytes to upright pixels, as a browser shows them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.errors import ImageUnreadable
from backend.labels.geometry import ImageSize

Pixels = npt.NDArray[np.uint8]
"""Height x width x 3, BGR, of the upright image."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """An upright image: its size as it was sent, and its pixels, which may be fewer (see `decode`)."""

    pixels: Pixels
    size: ImageSize

    @property
    def shrunk(self) -> bool:
        return self.pixels.shape[:2] != (self.size.height, self.size.width)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the image for one of `pixels`, across and down."""
        height, width = self.pixels.shape[:2]
        return self.size.width / width, self.size.height / height

    def dump(self) -> bytes:
        """The same as bytes, without loss: sizes in a line of JSON, then the pixels."""
        about = {"width": self.size.width, "height": self.size.height, "shape": self.pixels.shape}
        return json.dumps(about).encode() + b"\n" + self.pixels.tobytes()

    @classmethod
    def parse(cls, data: bytes) -> Decoded:
        """What `dump` gave.

        Raises:
            ValueError: it is something else.
        """
        end = data.index(b"\n")
        try:
            about = json.loads(data[:end])
            size = ImageSize(width=int(about["width"]), height=int(about["height"]))
            height, width, channels = about["shape"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the sizes of an image: {error}") from None
        # A copy, for pixels can be written to, as decoded ones can.
        return cls(np.frombuffer(data, np.uint8, offset=end + 1).reshape(height, width, channels).copy(), size)


_ORIENTATION = 0x0112
# What browsers show, and TIFF. Everything else Pillow knows stays out: EPS, for one, runs a program.
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "AVIF", "BMP", "DIB", "ICO", "TIFF")


_SHRINKING = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}
"""How OpenCV is told to decode a JPEG by a part of its size."""


def decode(data: bytes, max_pixels: int, name: str, *, cover: int = 0) -> Decoded:
    """The first frame of an image: EXIF orientation applied, transparency over white.

    Args:
        max_pixels: largest width x height.
        name: what messages call it.
        cover: when not 0, pixels of the longer side that are enough: an image several times as large comes at a half, a
            quarter or an eighth of its size. A JPEG is decoded so, which takes a fraction of the time and memory;
            others are made smaller afterwards.

    Raises:
        ImageUnreadable: not an image, broken, or of too many pixels.
    """
    try:
        # Only the header is read here: a bomb is refused before it is decoded.
        with Image.open(BytesIO(data), formats=_known_formats()) as image:
            if image.width * image.height > max_pixels:
                raise _too_many_pixels(name, f"{image.width} x {image.height} pixels")
            by = next(by for by in _SHRINKING if by == 1 or (cover and max(image.size) // by >= cover))
            pixels = _decode_fast(data, image, by)
            if pixels is None:
                pixels = _decode_any(image)
            if pixels.shape[:2] == (image.height, image.width):
                pixels = _shrunk(pixels, by)
            turned = _orientation(image)
            across, down = (image.height, image.width) if turned in _SIDEWAYS else (image.width, image.height)
            return Decoded(_upright(pixels, turned), ImageSize(width=across, height=down))
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


def _decode_fast(data: bytes, image: Image.Image, by: int) -> Pixels | None:
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
    colour = _SHRINKING[by if image.format == "JPEG" else 1]
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), colour | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    return None if decoded is None else np.asarray(decoded, np.uint8)


def _shrunk(pixels: Pixels, by: int) -> Pixels:
    if by == 1:
        return pixels
    height, width = pixels.shape[:2]
    # Rounded up, as JPEG decoders do.
    return np.asarray(cv2.resize(pixels, (-(-width // by), -(-height // by)), interpolation=cv2.INTER_AREA), np.uint8)


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


_SIDEWAYS = (5, 6, 7, 8)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation in _SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
