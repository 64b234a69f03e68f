"""Images that are nearly the same: they judge together or teach together, never one of each.

A picture that was learned by heart would otherwise be asked for in the exam, as its neighbour in a film or its
smaller copy.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from backend.store.database import MOST_NAMED, Store
from backend.store.dialect import insert_new, rowid
from backend.store.tables import thumbnails as table

SIDE = 16
"""Cells of a thumbnail's side."""

COARSE = 4
"""Cells of the side of the still smaller one, which tells most images apart in a sixteenth of the time."""

BLOCK = SIDE // COARSE

LARGEST = 16.0
"""Grey levels by which no cell differs between near-duplicates, apart from the mean brightness."""

MEAN = 4.0
"""Grey levels by which cells differ on average between near-duplicates, at most."""

LARGEST_EQUAL = 6.0
MEAN_EQUAL = 1.5
"""The same of one image that was stored in two ways."""

MOST = 20
"""Images of a group: a fixed camera's thousand pictures do not all land on one side."""


class Known(NamedTuple):
    """An image that has its group already."""

    pixels: bytes
    group: str


def thumbnail(image: NDArray[np.uint8]) -> bytes:
    """16 × 16 grey cells, row by row, one byte each, of an image (height, width, BGR)."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return bytes(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).tobytes())


def are_near(one: bytes, other: bytes) -> bool:
    """Whether two thumbnails are of nearly the same image.

    Once the difference of mean brightness is taken out, each cell differs by less than 16 grey levels and all of
    them by less than 4 on average. Of generated pictures of 160 pixels, JPEG at quality 20 changes the worst cell by
    4 levels (on average 1.1), half the size by 1.2 (0.3), 8 levels of brightness by 3 (0.2), and one pixel to the
    side by 12 (2.5); two different pictures are at least 47 (15) apart, larger ones of 320 pixels 31 (9).
    """
    cells = np.frombuffer(one + other, np.uint8).reshape(2, SIDE * SIDE)
    return bool(len(_nearest(_levels(cells[:1]), _levels(cells[1:])[0])))


def equal(thumbnails: Sequence[bytes]) -> NDArray[np.bool_]:
    """(n, n): which thumbnails are of one image, maybe stored in another way: a file of another size or quality.

    Closer than `are_near`: in a film, or before a camera that stands still, small things come and go.
    """
    levels = _levels(np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, SIDE * SIDE))
    apart = np.abs(levels[:, None] - levels[None])
    found: NDArray[np.bool_] = (apart.max(axis=2) < LARGEST_EQUAL) & (apart.mean(axis=2) < MEAN_EQUAL)
    return found


class Groups:
    """The groups of a project's images."""

    def __init__(self) -> None:
        self._cells: NDArray[np.uint8] = np.empty((0, SIDE * SIDE), np.uint8)
        self._coarse: NDArray[np.float32] = np.empty((0, COARSE * COARSE), np.float32)
        self._groups: list[str] = []
        self._members: Counter[str] = Counter()

    def know(self, images: Sequence[Known]) -> None:
        """Take in images that have their group, which stays."""
        self._cells, self._coarse = self._with([each.pixels for each in images])
        self._groups += (each.group for each in images)
        self._members.update(each.group for each in images)

    def place(self, images: Mapping[str, bytes]) -> dict[str, str]:
        """What the groups of images without one are to be: that of the nearest near-duplicate whose group has room,
        else one of their own.

        Args:
            images: key → thumbnail; earlier ones are known to later ones.

        Returns:
            Key → group, which is the key of the group's first image.
        """
        cells, coarse = self._with(list(images.values()))
        groups, members = list(self._groups), self._members.copy()
        for count, key in enumerate(images, start=len(groups)):
            alike = np.flatnonzero(_near(coarse[:count], coarse[count]))
            near = alike[_nearest(_levels(cells[alike]), _levels(cells[count : count + 1])[0])]
            group = next((groups[index] for index in near if members[groups[index]] < MOST), key)
            groups.append(group)
            members[group] += 1
        return dict(zip(images, groups[len(self._groups) :], strict=True))

    def _with(self, thumbnails: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        cells = np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, SIDE * SIDE)
        return np.concatenate([self._cells, cells]), np.concatenate([self._coarse, _coarse(cells)])


class Duplicates:
    """The groups of all images that were ever annotated, in one store; none ever changes or goes.

    Those of the project that was asked for last stay in memory, a few MB for 10,000 images: its next training asks for
    the same. To be used from any thread.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._uid, self._groups, self._last = "", Groups(), 0

    def groups(self, uid: str, images: Mapping[str, bytes], others: Collection[str] = ()) -> dict[str, str]:
        """The group of each image of a project; those seen for the first time get theirs now, in the given order.

        Args:
            images: key (see `backend.fit.dataset.split`) → thumbnail.
            others: keys of images without a thumbnail.

        Returns:
            Key → group, of all these images except others that are seen for the first time.
        """
        found = self._known(uid, {*images, *others})
        new = {key: pixels for key, pixels in images.items() if key not in found}
        if not new:
            return found
        with self._lock:
            made = self._read(uid).place(new)
            values = [{"uid": uid, "key": key, "pixels": new[key], "group": group} for key, group in made.items()]
            with self._store.write() as db:
                insert_new(db, table, values)
        return found | made

    def _read(self, uid: str) -> Groups:
        """What is stored of a project: what is in memory and the rows that came since."""
        if uid != self._uid:
            self._uid, self._groups, self._last = uid, Groups(), 0
        rows = sa.select(rowid, table.c.pixels, table.c.group)
        newer = rows.where(table.c.uid == uid, rowid > self._last)
        with self._store.engine.connect() as db:
            found = db.execute(newer.order_by(rowid)).all()
        if found:
            self._groups.know([Known(pixels, group) for _, pixels, group in found])
            self._last = found[-1][0]
        return self._groups

    def _known(self, uid: str, keys: Collection[str]) -> dict[str, str]:
        known = sa.select(table.c.key, table.c.group).where(table.c.uid == uid)
        if len(keys) <= MOST_NAMED:
            known = known.where(table.c.key.in_(keys))
        with self._store.engine.connect() as db:
            return {key: group for key, group in db.execute(known).all() if key in keys}


def copy_groups(source: Store, target: Store, uid: str) -> None:
    """Let a home know the groups of a project's near-duplicates that another one knows."""
    with source.engine.connect() as db:
        rows = db.execute(table.select().where(table.c.uid == uid).order_by(rowid)).all()
    with target.write() as db:
        insert_new(db, table, [dict(row._mapping) for row in rows])


def _levels(cells: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 256): thumbnails without their mean brightness."""
    levels: NDArray[np.float32] = cells - cells.mean(axis=1, dtype=np.float32, keepdims=True)
    return levels


def _coarse(cells: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 16): means of 4 × 4 of the levels. These differ no more than the levels do, at most and on average."""
    means: NDArray[np.float32] = cells.astype(np.float32) @ _MEANS
    means -= means.mean(axis=1, keepdims=True)
    return means


_MEANS = np.kron(np.kron(np.eye(COARSE), np.ones((BLOCK, 1))), np.kron(np.eye(COARSE), np.ones((BLOCK, 1))))
_MEANS = (_MEANS / BLOCK**2).astype(np.float32)
"""(256, 16): what takes cells to those means, as one product."""


def _near(levels: NDArray[np.float32], one: NDArray[np.float32]) -> NDArray[np.bool_]:
    apart = np.abs(levels - one)
    near: NDArray[np.bool_] = (apart.max(axis=1, initial=0.0) < LARGEST) & (apart.mean(axis=1) < MEAN)
    return near


def _nearest(levels: NDArray[np.float32], one: NDArray[np.float32]) -> NDArray[np.intp]:
    """Indexes of the near ones, nearest first."""
    near = np.flatnonzero(_near(levels, one))
    return near[np.argsort(np.abs(levels[near] - one).mean(axis=1), kind="stable")]
