"""The held-out images that judge, and what is on them, read one after another: together they may not fit in memory."""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2

from backend.fit.dataset.lesson import lesson_of, reader_of
from backend.labels.geometry import Detection, ImageSize
from backend.labels.networks import Network
from backend.labels.schema import LabelSchema

if TYPE_CHECKING:
    from backend.engine.detector import Image

log = logging.getLogger(__name__)

MOST = 2000
"""Images that judge, at most: more of them would hardly tell more."""


def rank(image: str) -> bytes:
    """What a held-out image's place among the others follows: its file's name, as if by chance.

    Those that judge today judge tomorrow as well, unless images come whose rank is lower.
    """
    return hashlib.sha256(Path(image).stem.encode()).digest()


class HeldOut:
    """The entries of a network's `holdout.json` that judge, in the order of `rank`: see `Index.judged`.

    Each is a line of that file, of which only the place is kept. A file of an earlier release has one line for all;
    then they are kept.

    Args:
        path: the file.
        most: how many judge, at most.
    """

    def __init__(self, path: Path, most: int = MOST) -> None:
        self._path = path
        self._whole: list[dict[str, Any]] = []
        with path.open("rb") as file:
            first = file.readline()
        if not first.endswith(b"\n"):
            self._whole = json.loads(first)
        chosen = heapq.nsmallest(most, ((rank(entry["image"]), place) for place, entry in self._all()))
        self._places = [place for _, place in chosen]

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._whole:
            yield from (self._whole[place] for place in self._places)
            return
        with self._path.open("rb") as file:
            for place in self._places:
                file.seek(place)
                yield _entry(file.readline())

    def _all(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each entry with its place: the number of bytes before it, or of entries where all stand in one line."""
        if self._whole:
            yield from enumerate(self._whole)
            return
        place = 0
        with self._path.open("rb") as file:
            for line in file:
                if line.strip(b"[], \n"):
                    yield place, _entry(line)
                place += len(line)


def _entry(line: bytes) -> dict[str, Any]:
    """One of an array that has one entry a line."""
    found: dict[str, Any] = json.loads(line.strip().removeprefix(b"[").removesuffix(b",").removesuffix(b"]"))
    return found


class Seen(NamedTuple):
    """A held-out image: its entry, its pixels, and the objects on it."""

    entry: Mapping[str, Any]
    image: Image
    truth: Sequence[Detection]


def seen(entries: Iterable[dict[str, Any]], schema: LabelSchema, network: Network) -> Iterator[Seen]:
    """Each entry's image, and what its annotation shows on it to a network; an image that is gone is left out."""
    controls = [each for each in schema.controls if each.name in network.controls]
    for each in entries:
        image: Any = cv2.imread(each["image"])
        if image is None:
            log.warning("%s cannot be read, so it does not judge", Path(each["image"]).name)
            continue
        size = ImageSize(width=image.shape[1], height=image.shape[0])
        reading = reader_of(schema).read(each["result"])
        lesson = lesson_of(reading, schema, network, controls, each["data_key"], size, each["page"])
        yield Seen(each, image, list(lesson.objects) if lesson is not None else [])


def within(images: Iterable[Seen], until: float, clock: Callable[[], float], fewest: int) -> Iterator[Seen]:
    """The images until that time of the clock has come; `fewest` at least, if there are so many."""
    for number, each in enumerate(images):
        if number >= fewest and clock() >= until:
            return
        yield each
