"""What an earlier training made of an image serves the next one, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support.web import Server, answer, encoded

from backend.fit.dataset.prepared_images import Ready, made_of, recall, remember
from backend.images.cache import ImageCache
from backend.images.loader import Images, Source

COVER = 100


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    made = Images(ImageCache(tmp_path / "cache", 1 << 24), timeout=5, max_bytes=1 << 20, max_pixels=10**6, workers=2)
    yield made
    made.close()


def picture(size: tuple[int, int], format: str = "JPEG", orientation: int = 1, seed: int = 0) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    image = Image.fromarray(coarse).resize(size)
    if orientation == 1:
        return encoded(image, format)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, format, exif=exif)


def prepared(images: Images, source: Source) -> Ready:
    original = images.fetch(source)
    ready = made_of(original, images.load(source, COVER))
    remember(images, original, COVER, ready)
    return ready


@pytest.mark.parametrize(
    ("data", "size", "file"),
    [
        (picture((90, 60)), (90, 60), ("jpg", (60, 90))),
        (picture((90, 60), orientation=6), (60, 90), ("png", (90, 60))),
        (picture((800, 600)), (800, 600), ("jpg", (75, 100))),
        (picture((800, 600), orientation=6), (600, 800), ("jpg", (100, 75))),
        (picture((90, 60), "PNG"), (90, 60), ("png", (60, 90))),
        (picture((300, 200), "PNG"), (300, 200), ("png", (100, 150))),
    ],
)
def test_it_is_what_the_first_training_read(
    images: Images, server: Server, tmp_path: Path, data: bytes, size: tuple[int, int], file: tuple[str, object]
) -> None:
    server.routes["/a"] = answer(data)
    source = Source(f"{server.url}/a", 1, server.url, dict)
    assert recall(images, images.fetch(source), COVER) is None
    ready = prepared(images, source)
    assert (ready.size.width, ready.size.height) == size
    again = recall(images, images.fetch(source), COVER)
    assert again == ready
    path = again.write(tmp_path / "1-image.0", images.fetch(source))
    assert path.name == f"1-image.0.{file[0]}"
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert stored is not None
    assert stored.shape[:2] == file[1]
    shown = images.load(source, COVER).pixels
    assert np.abs(stored.astype(int) - shown).mean() < 1
    assert recall(images, images.fetch(source), 2 * COVER) is None


def test_another_file_at_the_address_is_made_ready_anew(images: Images, server: Server) -> None:
    server.routes["/a"] = server.routes["/b"] = answer(picture((90, 60)))
    source = Source(f"{server.url}/a", 1, server.url, dict)
    ready = prepared(images, source)
    # The same bytes at another address are ready, too.
    assert recall(images, images.fetch(Source(f"{server.url}/b", 2, server.url, dict)), COVER) == ready
    server.routes["/a"] = answer(picture((90, 60), seed=1))
    images.fetch(source).unlink()
    assert recall(images, images.fetch(source), COVER) is None


def test_a_file_that_ultralytics_would_mend_is_written_anew(images: Images, server: Server, tmp_path: Path) -> None:
    server.routes["/a"] = answer(picture((90, 60)) + b"and some more")
    source = Source(f"{server.url}/a", 1, server.url, dict)
    ready = prepared(images, source)
    assert (ready.suffix, ready.data is None) == ("png", False)
    before = images.fetch(source).read_bytes()
    ready.write(tmp_path / "a", images.fetch(source)).write_bytes(b"mended")
    assert images.fetch(source).read_bytes() == before


@pytest.mark.parametrize("kept", [b"", b"junk", b"{}\n", b"[1]\nabc", b'{"width": 3}', b"\xff\xfe\n"])
def test_what_cannot_be_read_is_made_again(images: Images, server: Server, tmp_path: Path, kept: bytes) -> None:
    server.routes["/a"] = answer(picture((90, 60)))
    source = Source(f"{server.url}/a", 1, server.url, dict)
    ready = prepared(images, source)
    original = images.fetch(source)
    files = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    (note,) = (path for path in files if b"thumbnail" in path.read_bytes())
    note.write_bytes(kept)
    assert recall(images, original, COVER) is None
    note.unlink(missing_ok=True)
    remember(images, original, COVER, ready)
    assert recall(images, original, COVER) == ready
