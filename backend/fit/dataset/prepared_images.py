"""Images made ready for training, each once: later trainings neither decode nor write them anew.

What was made of an image lies beside it in the cache, keyed by the image's bytes and under the same bound; when it has
gone, it is made again.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2

from backend.images.decode import Decoded
from backend.images.loader import Images
from backend.labels.geometry import ImageSize
from backend.store.near_duplicates import thumbnail

VERSION = 3
"""Of what is kept: raised when another would be made of the same image."""

_JPEG = b"\xff\xd8"


@dataclass(frozen=True, slots=True)
class Ready:
    """An image as ultralytics is to read it.

    Attributes:
        size: of the image as a browser shows it.
        thumbnail: see `backend.store.near_duplicates`.
        suffix: of the file, without the dot.
        data: the file; None: the original is read as a browser does and serves itself.
    """

    size: ImageSize
    thumbnail: bytes
    suffix: str
    data: bytes | None = None

    def write(self, path: Path, original: Path) -> Path:
        """Write the file beside `path`, with its suffix."""
        path = path.with_name(f"{path.name}.{self.suffix}")
        if self.data is None:
            link(original, path)
        else:
            path.unlink(missing_ok=True)
            path.write_bytes(self.data)
        return path


def made_of(original: Path, image: Decoded) -> Ready:
    """What to train on: the original when ultralytics reads it as a browser does; else the upright pixels.

    What was decoded at fewer pixels is kept with these: the network must learn from what it will be shown.
    """
    encoded = original.read_bytes()
    data, suffix = None, "jpg"
    if image.shrunk and encoded.startswith(_JPEG):
        data = cv2.imencode(".jpg", image.pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    elif image.shrunk or not _plain(encoded):
        data, suffix = cv2.imencode(".png", image.pixels)[1].tobytes(), "png"
    return Ready(image.size, thumbnail(image.pixels), suffix, data)


def _plain(encoded: bytes) -> bool:
    """Whether ultralytics reads the file as it is: an upright JPEG, and whole, for it would mend a cut one in place."""
    return encoded.startswith(_JPEG) and b"Exif" not in encoded[:65536] and encoded.endswith(b"\xff\xd9")


def recall(images: Images, original: Path, cover: int) -> Ready | None:
    """What was made of an image before, or of another of the same bytes; None when there is nothing."""
    kept = images.kept(original, _name(cover))
    if kept is None:
        return None
    about, _, data = kept.partition(b"\n")
    try:
        told = json.loads(about)
        size = ImageSize(width=told["width"], height=told["height"])
        return Ready(size, base64.b64decode(told["thumbnail"]), told["suffix"], data or None)
    except (ValueError, KeyError, TypeError):
        return None


def remember(images: Images, original: Path, cover: int, ready: Ready) -> None:
    """Keep it for the next training."""
    about = {
        "width": ready.size.width,
        "height": ready.size.height,
        "thumbnail": base64.b64encode(ready.thumbnail).decode(),
        "suffix": ready.suffix,
    }
    images.keep(original, _name(cover), json.dumps(about).encode() + b"\n" + (ready.data or b""))


def link(original: Path, path: Path) -> None:
    """Another name for the same file, or a copy where the file system has no such thing."""
    path.unlink(missing_ok=True)  # copying onto it would change every file that shares its bytes
    try:
        os.link(original, path)
    except OSError:
        shutil.copyfile(original, path)


def _name(cover: int) -> str:
    return f"training {VERSION} {cover}"
