"""Bytes to upright pixels, as a browser shows them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from typing import BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from backend.errors import ImageUnreadable
from backend.images import deep
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


_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_STRIP = 2**20
"""Pixels that are converted at a time."""

_SHRINKING = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}
"""How OpenCV is told to decode a JPEG by a part of its size."""


def decode(data: bytes, max_pixels: int, name: str, *, cover: int = 0) -> Decoded:
    """The first frame of an image: EXIF orientation applied, transparency over white, and what has more than 8 bits
    stretched to them (see `backend.images.deep`).

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
            across, down = _largest(BytesIO(data), image)
            if across * down > max_pixels:
                raise _too_many_pixels(name, f"{across} x {down} pixels")
            width, height = image.size
            by = _factor(image, cover)
            pixels = (
                _decode_deep(data, image, by, name) if deep.is_deep_colour(image) else _decode_fast(data, image, by)
            )
            if pixels is None:
                pixels = _decode_any(image, by)
            if image.format == "ICO":  # it tells its size only now
                width, height = image.size
            turned = _orientation(image)
            across, down = (height, width) if turned in _SIDEWAYS else (width, height)
            return Decoded(_upright(pixels, turned), ImageSize(width=across, height=down))
    except ImageUnreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(name, "more pixels than Pillow opens") from None
    # ultralytics puts its own `Image.open` in place of Pillow's, which wants a package for what Pillow does not know.
    except (UnidentifiedImageError, ModuleNotFoundError) as error:
        if not data.startswith(_TIFF):
            raise _unknown(name, error) from None
        raise _not_read(name) from None
    # Pillow's decoders raise nearly anything on broken files.
    except Exception as error:
        raise _unknown(name, error) from None


def memory_needed(file: BinaryIO, max_pixels: int, cover: int = 0) -> int:
    """Bytes that `decode` takes at most for a file, told from its header; for what it refuses, those of the file.

    Measured on images of 81 megapixels of each kind;
    """
    size = file.seek(0, SEEK_END)
    file.seek(0)
    try:
        with Image.open(file, formats=_known_formats()) as image:
            width, height = _largest(file, image)
            if width * height > max_pixels:
                return size
            by = _factor(image, cover)
            result = 3 * (2 if _orientation(image) > 1 else 1) / by**2
            return size + int(width * height * (_bytes_of_a_pixel(image, by) + result))
    except Exception:
        return size


def _bytes_of_a_pixel(image: Image.Image, by: int) -> float:
    """What decoders keep of a pixel until the image is there."""
    animated = getattr(image, "is_animated", False)
    if deep.is_deep_colour(image):
        return 14.2
    match image.format:
        case "JPEG" | "MPO":
            # Of one that comes in several passes, all coefficients are kept, and nothing tells the passes but reading.
            kept = 2.1 * len(image.getbands()) if image.info.get("progressive") else 0.0
            return kept + 4 / by**2
        case "PNG":
            return 6.2 if image.mode in ("RGB", "L") else 4.6
        case "WEBP":
            return 16.5 if animated else 8.2
        case "AVIF":
            return 13.0
        case "TIFF" | "ICO":
            return 8.2
        case _:
            return 4.6


def _factor(image: Image.Image, cover: int) -> int:
    """By how much an image is made smaller."""
    return next(by for by in _SHRINKING if by == 1 or (cover and max(image.size) // by >= cover))


def _largest(file: BinaryIO, image: Image.Image) -> tuple[int, int]:
    """Size of the image; of an icon, which says one thing in its directory and may hold another, of its largest."""
    most = image.size
    for entry in image.ico.entry if image.format == "ICO" else ():  # type: ignore[attr-defined]
        file.seek(entry.offset)
        inside = file.read(24)
        if inside.startswith(b"\x89PNG"):
            width, height = struct.unpack(">II", inside[16:24].rjust(8, b"\0"))
        else:
            width, height = (abs(each) for each in struct.unpack("<ii", inside[4:12].rjust(8, b"\0")))
        most = max(most, (width, height), key=lambda size: size[0] * size[1])
    return most


def _not_read(name: str) -> ImageUnreadable:
    return ImageUnreadable(
        f"{name} is a TIFF or PNG file of a kind that is not read, or broken.",
        "Save it with 8 or 16 bits a channel, or with one channel of 32-bit floating point numbers.",
    )


def _unknown(name: str, error: Exception) -> ImageUnreadable:
    return ImageUnreadable(
        f"{name} is not an image that can be read ({type(error).__name__}).",
        "Open it in a browser: it may be broken or of an unknown format.",
    )


def _too_many_pixels(name: str, size: str) -> ImageUnreadable:
    return ImageUnreadable(f"{name} has {size}.", "Raise YOLOOP_MAX_IMAGE_MEGAPIXELS if that should be.")


def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _decode_fast(data: bytes, image: Image.Image, by: int) -> Pixels | None:
    """OpenCV for whole, plain JPEG and PNG files, about twice as fast, and for WebP, which takes it half the memory.

    None for all others.
    """
    if getattr(image, "is_animated", False):
        return None
    if image.format == "WEBP":
        return _decode_webp(data, by)
    if image.mode not in ("RGB", "L") or "transparency" in image.info:
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
    if decoded is None:
        return None
    pixels = np.asarray(decoded, np.uint8)
    return pixels if image.format == "JPEG" else _shrunk(pixels, by)


def _decode_deep(data: bytes, image: Image.Image, by: int, name: str) -> Pixels:
    """Several channels of 16 bits."""
    image.load()  # what is cut or broken is refused here, where OpenCV might say nothing
    decoded = deep.colours(data)
    if decoded is None or decoded.shape[:2] != (image.height, image.width):
        raise _not_read(name)
    height, width = decoded.shape[:2]
    stretch = deep.stretch_of(row[:, :3] for row in decoded)

    def read(top: int, end: int) -> Pixels:
        strip = decoded[top:end]
        cover = (strip[:, :, 3:] >> 8).astype(np.uint8)
        return _on_white(np.concatenate([stretch(strip[:, :, :3]), cover], axis=2))

    return _by_strips(width, height, by, read)


def _decode_webp(data: bytes, by: int) -> Pixels | None:
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if decoded is None or decoded.ndim != 3:
        return None
    height, width = decoded.shape[:2]
    return _by_strips(width, height, by, lambda top, end: _on_white(np.asarray(decoded[top:end], np.uint8)))


def _on_white(pixels: Pixels) -> Pixels:
    """Pixels of three channels as they are; those of a fourth, which says how much covers the page."""
    if pixels.shape[2] == 3:
        return pixels
    cover = pixels[:, :, 3:].astype(np.uint16)
    return ((pixels[:, :, :3] * cover + 255 * (255 - cover) + 127) // 255).astype(np.uint8)


def _by_strips(width: int, height: int, by: int, read: Callable[[int, int], Pixels]) -> Pixels:
    """What `read` gives for rows from one to before another, made smaller and put together.

    To convert a large image at once would take several times its memory.
    """
    found = np.empty((-(-height // by), -(-width // by), 3), np.uint8)
    rows = by * max(1, _STRIP // (width * by))
    for top in range(0, height, rows):
        strip = _shrunk(read(top, min(height, top + rows)), by)
        found[top // by : top // by + len(strip)] = strip
    return found


def _shrunk(pixels: Pixels, by: int) -> Pixels:
    if by == 1:
        return pixels
    height, width = pixels.shape[:2]
    # Rounded up, as JPEG decoders do.
    return np.asarray(cv2.resize(pixels, (-(-width // by), -(-height // by)), interpolation=cv2.INTER_AREA), np.uint8)


def _decode_any(image: Image.Image, by: int) -> Pixels:
    width, height = image.size
    if image.format in ("JPEG", "MPO") and by > 1:
        image.draft(None, (max(1, width // by), max(1, height // by)))
        by //= next(
            each for each in _SHRINKING if -(-width // each) == image.width and -(-height // each) == image.height
        )
    image.load()
    width, height = image.size
    if deep.is_deep(image):
        stretch = deep.stretch_of(np.asarray(image.crop((0, top, width, top + 1))) for top in range(height))
        return _by_strips(
            width, height, by, lambda top, end: _grey(stretch(np.asarray(image.crop((0, top, width, end)))))
        )
    return _by_strips(width, height, by, lambda top, end: _converted(image.crop((0, top, width, end))))


def _grey(levels: npt.NDArray[np.uint8]) -> Pixels:
    return np.repeat(levels[:, :, None], 3, axis=2)


def _converted(image: Image.Image) -> Pixels:
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
