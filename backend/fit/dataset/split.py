"""Which annotated images train and which validate: pure functions.

A side is given once, to all images together that something keeps together: near-duplicates, the pages of a task, what
the team names in `YOLOOP_GROUP_BY`. New ones get theirs in the order of their hashes until the share is filled.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from backend.images.addresses import identity
from backend.store.contents import name_of
from backend.store.sides import BOTH, NEITHER, TRAINING, VALIDATION, Given, Gives

FEWEST = 10
"""Images from which on at least one group validates."""

TORN = "its image is like images that train and like images that validate, or `YOLOOP_SPLIT_BY` tells its group apart"
"""Why an image is on neither side."""

_ENOUGH = 1e-9
_SIDES = (TRAINING, VALIDATION)


def split_key(reference: str) -> str:
    """What tells an image from others: its address in the task, without what changes or lets somebody in."""
    return identity(reference)


def image_name(reference: str) -> str:
    """What an image is called in the split."""
    return name_of(split_key(reference))


def other_image_name(name: str, thumbnail: bytes) -> str:
    """What an image is called at whose address another one was seen first, under `name`."""
    return name_of("other", name, hashlib.sha256(thumbnail).hexdigest())


def alike_name(group: str) -> str:
    """That of a group of near-duplicates (see `backend.store.near_duplicates`)."""
    return name_of("alike", group)


def task_name(task_id: int) -> str:
    return name_of("task", str(task_id))


def field_name(path: str, value: str) -> str:
    """That of all tasks whose data says the same in a field."""
    return name_of("field", path, value)


@dataclass(frozen=True, slots=True)
class Member:
    """An image of a task, as far as its side is concerned.

    Attributes:
        name: its own (`image_name`).
        alike: names of the groups of near-duplicates that it is like, its own first; empty: its image was not read.
        family: name of the first group that its own one is like; empty: there is none before.
        together: names of what else keeps it on one side with others: fields, then its task.
        labels: that its task's annotation gives.
        wanted: the side that the team names; empty: none.
        before: the side that a release until 0.7 gave; empty: none.
    """

    name: str
    alike: tuple[str, ...] = ()
    family: str = ""
    together: tuple[str, ...] = ()
    labels: frozenset[str] = frozenset()
    wanted: str = ""
    before: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.alike, *self.together)


@dataclass(frozen=True, slots=True)
class Present:
    """Images of one group that are annotated, and not among those to be decided on."""

    group: str
    side: str
    labels: frozenset[str]
    images: int


@dataclass(slots=True)
class _New:
    """Images that get their side together."""

    members: list[Member]
    names: set[str]
    group: str = ""
    side: str = ""
    labels: frozenset[str] = frozenset()
    place: tuple[int, str] = (0, "")
    size: int = 0


@dataclass(slots=True)
class _Known:
    """Sides as they were and as they become."""

    before: Mapping[str, Given]
    new: dict[str, Given] = field(default_factory=dict)
    both: set[str] = field(default_factory=set)

    def get(self, name: str) -> Given | None:
        return self.new.get(name) or self.before.get(name)

    def side(self, name: str) -> str:
        """TRAINING or VALIDATION; empty where that is not known."""
        given = self.get(name)
        return given.side if given is not None and given.side in _SIDES and name not in self.both else ""

    def is_both(self, name: str) -> bool:
        given = self.get(name)
        return name in self.both or (given is not None and given.side == BOTH)

    def give(self, name: str, given: Given) -> None:
        if self.get(name) is None:
            self.new[name] = given


def decide(
    members: Sequence[Member], known: Mapping[str, Given], present: Iterable[Present], share: float
) -> tuple[Gives, list[Given]]:
    """The side of each image.

    An image keeps the side that it has. New ones go to that of what keeps them together. Where that is both sides, the
    images with a tie to the other one are left out, and get none. The rest are groups without any; see `_fill`.

    Args:
        members: those to decide on, in any order, an image may be there several times.
        known: name → side, of all their names that have one.
        present: the other annotated images.
        share: of the images that are to validate.

    Returns:
        What is to be kept, and the side of each: TRAINING, VALIDATION or NEITHER.
    """
    sides = _Known(known)
    settled = [each for each in members if sides.get(each.name) or each.before]
    for member in sorted((each for each in settled if not sides.get(each.name)), key=_by_name):
        earlier = sides.get(member.alike[0]) if member.alike else None
        group = earlier.group if earlier else (member.alike or (member.name,))[0]
        sides.give(member.name, Given(group, member.before))
    for member in sorted(settled, key=_by_name):
        _join(sides, member)
    fresh = [each for each in members if each.alike and not sides.get(each.name)]
    new = _together(fresh, sides)
    for each in new:
        _follow(each, sides)
    followers = [Present(each.group, each.side, each.labels, each.size) for each in new if each.side]
    _fill([each for each in new if not each.side], [*present, *_present(settled, sides), *followers], share)
    for each in new:
        torn = {member.name for member in each.members if not _theirs(member, sides) <= {each.side}}
        for name in sorted(each.names - torn):
            sides.give(name, Given(each.group, each.side))
    return Gives(sides.new, sides.both), [_outcome(each, sides) for each in members]


def _by_name(member: Member) -> str:
    return member.name


def _join(sides: _Known, member: Member) -> None:
    """What keeps a settled image together with others is on its side from now on, or on both."""
    own = sides.get(member.name)
    if own is None or own.side not in _SIDES:
        return
    if member.alike:
        sides.give(member.alike[0], own)
    for name in member.together:
        sides.give(name, own)
        if sides.side(name) not in ("", own.side):
            sides.both.add(name)


def _together(fresh: Sequence[Member], sides: _Known) -> list[_New]:
    """The new images in groups that nothing keeps together with one another."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for member in fresh:
        first = root(member.name)
        for name in member.names:
            if not sides.is_both(name):
                parent[root(name)] = first = root(first)
    found: dict[str, _New] = {}
    for member in sorted(fresh, key=_by_name):
        group = found.setdefault(root(member.name), _New([], set()))
        group.members.append(member)
        group.names.update(name for name in member.names if not sides.is_both(name))
    for group in found.values():
        group.labels = frozenset[str]().union(*(each.labels for each in group.members))
        group.group = min(each.name for each in group.members)
        group.size = len({each.name for each in group.members})
        families = {sides.side(each.family) for each in group.members if each.family}
        rank = 0 if VALIDATION in families else 2 if TRAINING in families else 1
        group.place = (rank, hashlib.sha256(group.group.encode()).hexdigest())
    return sorted(found.values(), key=lambda each: each.place)


def _theirs(member: Member, sides: _Known) -> set[str]:
    """The sides that an image's own ties and the team ask for."""
    return ({sides.side(name) for name in member.names} | {member.wanted}) - {""}


def _follow(group: _New, sides: _Known) -> None:
    """Give a group the side that its ties have. Where they have both, that by which the most images agree."""
    asked = [_theirs(each, sides) for each in group.members]
    found = set().union(*asked)
    if len(found) == 2:
        agree = {side: sum(each <= {side} for each in asked) for side in _SIDES}
        group.side = max(_SIDES, key=lambda side: agree[side])
    elif found:
        (group.side,) = found
    elif any(sides.is_both(name) for each in group.members for name in each.together):
        group.side = TRAINING  # it would validate what was learned from its like
    ties = [given for name in group.names if (given := sides.get(name)) and given.side == group.side]
    if ties:
        group.group = min(each.group for each in ties)


def _present(settled: Sequence[Member], sides: _Known) -> list[Present]:
    return [
        Present(own.group, own.side, each.labels, 1)
        for each in {each.name: each for each in settled}.values()
        if (own := sides.get(each.name)) and own.side in _SIDES
    ]


def _fill(new: Sequence[_New], present: Sequence[Present], share: float) -> None:
    """Give groups without one their side, so that `share` of all images validate.

    In the order of their hashes those validate that the share still has room for. From ten images on at least one
    does, and one of each label where the share, and one image more, has room. No label validates with all of its
    groups, and something is always left to train. A share that was missed is not made up for at once: of new images
    no more than half validate then.
    """
    images = sum(each.images for each in present) + sum(each.size for each in new)
    target = share * images + _ENOUGH
    held = sum(each.images for each in present if each.side == VALIDATION)
    room = held + max(math.ceil(max(share, 0.5) * sum(each.size for each in new) - _ENOUGH), 1)
    training = {(each.group, label) for each in present if each.side == TRAINING for label in ("", *each.labels)}
    teachers = Counter(label for _, label in training)
    teachers.update(label for each in new for label in ("", *each.labels))
    judged = {label for each in present if each.side == VALIDATION for label in each.labels}

    def lost(group: _New) -> int:
        return sum(teachers[label] < 2 for label in group.labels)

    def hold(group: _New) -> None:
        nonlocal held
        group.side = VALIDATION
        held += group.size
        teachers.subtract(["", *group.labels])
        judged.update(group.labels)

    def may(group: _New, most: float) -> bool:
        fits = held + group.size <= min(most, room)
        return not group.side and fits and teachers[""] > 1 and not lost(group)

    if images >= FEWEST:
        having = Counter(label for each in new for label in each.labels)
        for label in sorted(having, key=lambda label: (having[label], label)):
            if label not in judged:
                allowed = (each for each in new if label in each.labels and may(each, math.floor(target) + 1))
                if (first := next(allowed, None)) is not None:
                    hold(first)
    for group in new:
        if may(group, target):
            hold(group)
    left = [each for each in new if not each.side]
    if held == 0 and images >= FEWEST and left and teachers[""] > 1:
        hold(min(left, key=lambda each: (lost(each), each.size)))
    for group in new:
        group.side = group.side or TRAINING


def _outcome(member: Member, sides: _Known) -> Given:
    """Where an image is now. Another image than before may be at its address, like one of the other side."""
    own = sides.get(member.name)
    if own is None:  # its ties are on both sides; or its image was not read, and never before
        return Given(member.name, NEITHER if member.alike else TRAINING)
    if own.side in _SIDES and member.alike and sides.side(member.alike[0]) not in ("", own.side):
        return Given(own.group, NEITHER)
    tie = next((given for name in member.together if (given := sides.get(name))), None)
    return Given(tie.group if tie else own.group, own.side)
