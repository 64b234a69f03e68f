"""Puts annotated images on the sides of the split, and keeps what was given."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from backend.fit.dataset.examples import Picture
from backend.fit.dataset.split import (
    Member,
    Present,
    alike_name,
    decide,
    field_name,
    image_name,
    other_image_name,
    task_name,
)
from backend.fit.dataset.until_0_7 import old_image_name, was_held_out
from backend.labels.reading import Reading
from backend.labels.references import field_of
from backend.settings import Settings
from backend.store.near_duplicates import Duplicates, Like, are_near
from backend.store.sides import NEITHER, TRAINING, VALIDATION, Given, Sides

log = logging.getLogger(__name__)

WANTED = {"train": TRAINING, **dict.fromkeys(("val", "test", "validation", "holdout"), VALIDATION)}
"""What a field may say that fixes the side."""


def sides_of(
    settings: Settings,
    duplicates: Duplicates,
    sides: Sides,
    uid: str,
    pictures: Sequence[Picture],
    thumbnails: Mapping[int, bytes],
    readings: Mapping[int, Reading],
    present: Iterable[Present] = (),
) -> list[Given]:
    """The side of each picture, TRAINING, VALIDATION or NEITHER, with its group; new ones get theirs now, for good.

    Args:
        pictures: some or all that are annotated.
        thumbnails: index of a picture → its image's (see `backend.store.near_duplicates`). Without one, and without a
            side from before, it trains, and gets no side yet: what it shows is not known.
        readings: task → what its annotation says.
        present: the other annotated pictures.
    """
    names = [image_name(each.reference) for each in pictures]
    olds = [old_image_name(each.reference) for each in pictures]
    names, likes = _look(duplicates, uid, names, olds, thumbnails)
    several = Counter(old for old, _ in {*zip(olds, names, strict=True)})
    wanted = _wanted(settings, pictures)
    members = []
    for number, (picture, name, old) in enumerate(zip(pictures, names, olds, strict=True)):
        like = likes.get(name) if number in thumbnails else None
        members.append(
            Member(
                name,
                tuple(alike_name(group) for group in (like.group, *like.also)) if like else (),
                alike_name(like.family) if like and like.family != like.group else "",
                (*_fields(settings, picture), task_name(picture.example.task_id)),
                frozenset(readings[picture.example.task_id].labels),
                wanted.get(picture.example.task_id, ""),
                _before(likes.get(old), thumbnails.get(number), several[old], settings.holdout),
            )
        )
    asked = {name for each in members for name in (*each.names, *([each.family] if each.family else []))}
    given = sides.give(uid, asked, lambda known: decide(members, known, present, settings.holdout))
    _tell(members, given)
    return given


def _look(
    duplicates: Duplicates, uid: str, names: list[str], olds: Sequence[str], thumbnails: Mapping[int, bytes]
) -> tuple[list[str], dict[str, Like]]:
    """The pictures' names, and what is known of each name and of each name of releases until 0.7.

    A picture whose image is another one than that which was first seen at its address has a name of its own.
    """
    first: dict[str, bytes] = {}
    # Images arrive in any order; what is known of them must not depend on that.
    for number in sorted(thumbnails, key=lambda number: (names[number], thumbnails[number])):
        first.setdefault(names[number], thumbnails[number])
    likes = duplicates.find(uid, first, {*names, *olds})
    own = list(names)
    other: dict[str, bytes] = {}
    for number, thumbnail in thumbnails.items():
        if not are_near(likes[names[number]].pixels, thumbnail):
            own[number] = other_image_name(names[number], thumbnail)
            other[own[number]] = thumbnail
    if other:
        likes |= duplicates.find(uid, {name: other[name] for name in sorted(other)})
    return own, likes


def _before(old: Like | None, thumbnail: bytes | None, images: int, share: float) -> str:
    """The side that a release until 0.7 gave; none where that one took several images for one, but for the one that it
    saw.

    Args:
        old: what is known by the name that the image had there.
        images: that have this name.
    """
    if old is None or not old.old or (images > 1 and (thumbnail is None or not are_near(old.pixels, thumbnail))):
        return ""
    if thumbnail is not None and not are_near(old.pixels, thumbnail):
        return ""  # another image is there now
    return VALIDATION if was_held_out(old.group, share) else TRAINING


def _fields(settings: Settings, picture: Picture) -> Iterator[str]:
    for path in filter(None, map(str.strip, settings.group_by.split(","))):
        value = field_of(picture.example.data, path)
        text = value.strip() if isinstance(value, str) else json.dumps(value, sort_keys=True)
        if text not in ("", "null", "[]", "{}"):
            yield field_name(path, text)


def _wanted(settings: Settings, pictures: Iterable[Picture]) -> dict[int, str]:
    """Task → the side that the team's field fixes."""
    path = settings.split_by.strip()
    if not path:
        return {}
    found: dict[int, str] = {}
    unknown: Counter[str] = Counter()
    for task_id, data in {each.example.task_id: each.example.data for each in pictures}.items():
        value = field_of(data, path)
        if side := WANTED.get(value.strip().lower() if isinstance(value, str) else ""):
            found[task_id] = side
        elif value not in (None, ""):
            unknown[str(value)[:50]] += 1
    if unknown:
        told = ", ".join(f"{value!r} ({count})" for value, count in unknown.most_common(5))
        log.warning(
            "YOLOOP_SPLIT_BY: %s says in %d tasks what names no side, which is as if it were empty: %s. It may say %s.",
            path,
            unknown.total(),
            told,
            ", ".join(WANTED),
        )
    return found


def _tell(members: Sequence[Member], given: Sequence[Given]) -> None:
    torn = sum(each.side == NEITHER for each in given)
    if torn:
        log.warning("%d images are on neither side: each is like images of both, or its task says another side", torn)
    kept = sum(
        each.wanted not in ("", own.side) for each, own in zip(members, given, strict=True) if own.side != NEITHER
    )
    if kept:
        log.warning("%d images are not on the side that YOLOOP_SPLIT_BY names: a side once given stays", kept)
