"""Images that are nearly the same: they judge together or teach together, never one of each.

A picture that was learned by heart would otherwise be asked for in the exam, as its neighbour in a film or its
smaller copy. A group of look-alikes is full with twenty, copies of one image apart; then the next begins, of the same
family: else nothing would judge where all pictures are a fixed camera's.
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

from backend.store.contents import name_of
from backend.store.database import MOST_NAMED, Store
from backend.store.dialect import Row, insert_new, rowid
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

LARGEST_COPY = 6.0
MEAN_COPY = 1.25
"""The same of copies: saved anew, or at another size."""
LARGEST_EQUAL = 6.0
MEAN_EQUAL = 1.5
"""The same of one image that was stored in two ways."""

MOST = 20
"""Images of a group, copies apart: a fixed camera's thousand pictures do not all land on one side."""


class Known(NamedTuple):
    """An image that has its group already."""

    pixels: bytes
    group: str
    family: str


class Placed(NamedTuple):
    """Where a new image belongs: its group, that one's family, and a group of each other family that it is like.

    Of other families only such as would not fill more than one group together: of more look-alikes, as a fixed camera
    takes them, neighbours are in different groups anyway.
    """

    group: str
    family: str
    also: tuple[str, ...] = ()


class Like(NamedTuple):
    """What is known of an image: as `Placed`, with its thumbnail, and whether a release until 0.7 knew it."""

    group: str
    family: str
    also: tuple[str, ...]
    pixels: bytes
    old: bool


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
        self._families: list[str] = []
        self._members: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()

    def know(self, images: Sequence[Known]) -> None:
        """Take in images that have their group, which stays."""
        self._cells, self._coarse = self._with([each.pixels for each in images])
        self._groups += (each.group for each in images)
        self._families += (each.family for each in images)
        self._members.update(each.group for each in images)
        self._sizes.update(each.family for each in images)

    def place(self, images: Mapping[str, bytes]) -> dict[str, Placed]:
        """What the groups of images without one are to be: that of the nearest near-duplicate whose group has room, or
        of which it is a copy, else one of their own.

        Args:
            images: key → thumbnail; earlier ones are known to later ones.

        Returns:
            Key → group, which is the key of the group's first image.
        """
        cells, coarse = self._with(list(images.values()))
        groups, families = list(self._groups), list(self._families)
        members, sizes = self._members.copy(), self._sizes.copy()
        placed: dict[str, Placed] = {}
        for count, key in enumerate(images, start=len(groups)):
            alike = np.flatnonzero(_near(coarse[:count], coarse[count]))
            levels, one = _levels(cells[alike]), _levels(cells[count : count + 1])[0]
            nearest = _nearest(levels, one)
            near = alike[nearest]
            copies = _near(levels[nearest], one, LARGEST_COPY, MEAN_COPY)
            pairs = zip(near, copies, strict=True)
            chosen = next((index for index, copy in pairs if copy or members[groups[index]] < MOST), None)
            group = key if chosen is None else groups[chosen]
            family = families[near[0] if chosen is None else chosen] if len(near) else key
            others = {families[index]: groups[index] for index in near[::-1] if families[index] != family}
            also = sorted(each for other, each in others.items() if sizes[family] + sizes[other] < MOST)
            placed[key] = Placed(group, family, tuple(also))
            groups.append(group)
            families.append(family)
            members[group] += 1
            sizes[family] += 1
        return placed

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

    def find(self, uid: str, images: Mapping[str, bytes], others: Collection[str] = ()) -> dict[str, Like]:
        """The group of each image of a project; those seen for the first time get theirs now, in the given order.

        Args:
            images: key (see `backend.fit.dataset.split`) → thumbnail.
            others: keys of images without a thumbnail.

        Returns:
            Key → what is known, of all these images except others that are seen for the first time.
        """
        found = self._known(uid, {*images, *others})
        new = {key: pixels for key, pixels in images.items() if key not in found}
        if not new:
            return found
        with self._lock:
            made = self._read(uid).place(new)
            values = [
                {
                    "uid": uid,
                    "key": key,
                    "pixels": new[key],
                    "group": each.group,
                    "family": each.family,
                    "also": " ".join(each.also),
                    "old": False,
                }
                for key, each in made.items()
            ]
            with self._store.write() as db:
                insert_new(db, table, values)
        return found | self._known(uid, new)  # another process may have been the first

    def _read(self, uid: str) -> Groups:
        """What is stored of a project: what is in memory and the rows that came since."""
        if uid != self._uid:
            self._uid, self._groups, self._last = uid, Groups(), 0
        rows = sa.select(rowid, table.c.pixels, table.c.group, table.c.family)
        newer = rows.where(table.c.uid == uid, rowid > self._last)
        with self._store.engine.connect() as db:
            found = db.execute(newer.order_by(rowid)).all()
        if found:
            self._groups.know([Known(pixels, group, family) for _, pixels, group, family in found])
            self._last = found[-1][0]
        return self._groups

    def _known(self, uid: str, keys: Collection[str]) -> dict[str, Like]:
        self._adopt(uid)
        columns = table.c.key, table.c.group, table.c.family, table.c.also, table.c.pixels, table.c.old
        known = sa.select(*columns).where(table.c.uid == uid)
        if len(keys) <= MOST_NAMED:
            known = known.where(table.c.key.in_(keys))
        with self._store.engine.connect() as db:
            return {
                key: Like(group, family, tuple(also.split()), pixels, old)
                for key, group, family, also, pixels, old in db.execute(known).all()
                if key in keys
            }

    def _adopt(self, uid: str) -> None:
        """Give the rows of releases until 0.7, whose keys are addresses, maybe with a password, the keys of today."""
        theirs = (table.c.uid == uid, table.c.family == "")
        with self._store.engine.connect() as db:
            if db.execute(sa.select(table.c.key).where(*theirs).limit(1)).first() is None:
                return
        of = (table.c.uid == uid, table.c.key == sa.bindparam("was"))
        new: Row = {name: sa.bindparam(f"new_{name}") for name in ("key", "group", "family")}
        with self._store.write() as db:
            rows = [
                {"was": key, "new_key": name_of(key), "new_group": name_of(group), "new_family": name_of(group)}
                for key, group in db.execute(sa.select(table.c.key, table.c.group).where(*theirs)).all()
            ]
            if rows:
                db.execute(table.update().where(*of).values(new), rows)


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


def _near(
    levels: NDArray[np.float32], one: NDArray[np.float32], largest: float = LARGEST, mean: float = MEAN
) -> NDArray[np.bool_]:
    apart = np.abs(levels - one)
    near: NDArray[np.bool_] = (apart.max(axis=1, initial=0.0) < largest) & (apart.mean(axis=1) < mean)
    return near


def _nearest(levels: NDArray[np.float32], one: NDArray[np.float32]) -> NDArray[np.intp]:
    """Indexes of the near ones, nearest first."""
    near = np.flatnonzero(_near(levels, one))
    return near[np.argsort(np.abs(levels[near] - one).mean(axis=1), kind="stable")]
