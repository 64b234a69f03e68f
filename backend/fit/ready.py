"""Images made ready for training, each once: later trainings neither decode nor write them anew.

What was made of an image lies beside it in the cache, under the same bound; when it has gone, it is made again.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2

from backend.fit.duplicates import thumbnail
from backend.labels.geometry import ImageSize
from backend.predict.decode import Decoded
from backend.predict.images import Images, Source

VERSION = 1
"""Of what is kept: raised when another would be made of the same image."""


@dataclass(frozen=True, slots=True)
class Ready:
    """An image as ultralytics is to read it.

    Attributes:
        size: of the image as a browser shows it.
        thumbnail: see `backend.fit.duplicates`.
        suffix: of the file, without the dot.
        data: the file; None: the original, of `length` bytes, is read as a browser does and serves itself.
    """

    size: ImageSize
    thumbnail: bytes
    suffix: str
    length: int
    data: bytes | None = None

    def write(self, path: Path, original: Path) -> Path:
        """Write the file beside `path`, with its suffix."""
        path = path.with_name(f"{path.name}.{self.suffix}")
        if self.data is None:
            link(original, path)
        else:
            path.write_bytes(self.data)
        return path


def made_of(original: Path, image: Decoded) -> Ready:
    """What to train on: the original when ultralytics reads it as a browser does; else the upright pixels.

    What was decoded at fewer pixels is kept with these: the network must learn from what it will be shown.
    """
    with original.open("rb") as file:
        head = file.read(65536)
        length = os.fstat(file.fileno()).st_size
    data, suffix = None, "jpg"
    if image.shrunk:
        data = cv2.imencode(".jpg", image.pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    elif not head.startswith(b"\xff\xd8") or b"Exif" in head:
        data, suffix = cv2.imencode(".png", image.pixels)[1].tobytes(), "png"
    return Ready(image.size, thumbnail(image.pixels), suffix, length, data)


def recall(images: Images, source: Source, cover: int) -> Ready | None:
    """What was made of an image before; None when there is nothing, or the original is not what it was made of."""
    kept = images.kept(source, _name(cover))
    original = images.cached(source)
    if kept is None or original is None:
        return None
    about, _, data = kept.partition(b"\n")
    try:
        told = json.loads(about)
        size = ImageSize(width=told["width"], height=told["height"])
        found = Ready(size, base64.b64decode(told["thumbnail"]), told["suffix"], told["length"], data or None)
        return found if original.stat().st_size == found.length else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(images: Images, source: Source, cover: int, ready: Ready) -> None:
    """Keep it for the next training."""
    about = {
        "width": ready.size.width,
        "height": ready.size.height,
        "thumbnail": base64.b64encode(ready.thumbnail).decode(),
        "suffix": ready.suffix,
        "length": ready.length,
    }
    images.keep(source, _name(cover), json.dumps(about).encode() + b"\n" + (ready.data or b""))


def link(original: Path, path: Path) -> None:
    """Another name for the same file, or a copy where the file system has no such thing."""
    try:
        os.link(original, path)
    except OSError:
        shutil.copyfile(original, path)


def _name(cover: int) -> str:
    return f"training {VERSION} {cover}"
