"""Which images train and which validate: given once, and never changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import sqlalchemy as sa

from backend.store.database import MOST_NAMED, Store
from backend.store.dialect import insert_new
from backend.store.readings import TRAINING, VALIDATION
from backend.store.tables import sides as table

__all__ = ["BOTH", "NEITHER", "TRAINING", "VALIDATION", "Given", "Gives", "Sides", "copy_sides"]

NEITHER = "neither"
"""Of an image that is like images on both sides: it would be wrong on either. It is never kept."""

BOTH = "both"
"""Of a thing that keeps images together, but whose images were on both sides before it was known."""

Outcome = TypeVar("Outcome")


class Given(NamedTuple):
    """A side, and the group of images that got it together."""

    group: str
    side: str


@dataclass(frozen=True, slots=True)
class Gives:
    """What is to be kept: name → side of names without one, and names of things whose images are on both."""

    new: Mapping[str, Given] = field(default_factory=dict)
    both: Collection[str] = ()


class Sides:
    """The sides of all images that were ever annotated, in one store. To be used from any thread and process."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def give(
        self,
        uid: str,
        names: Collection[str],
        decide: Callable[[Mapping[str, Given]], tuple[Gives, Outcome]],
    ) -> Outcome:
        """Keep what `decide` makes of the sides that are known of a project's names; returns its outcome.

        Nobody else gives sides meanwhile. It must not take long.
        """
        with self._store.write() as db:
            gives, outcome = decide(_known(db, uid, names))
            rows = [{"uid": uid, "name": name, **each._asdict()} for name, each in gives.new.items()]
            insert_new(db, table, rows)
            if gives.both:
                of = (table.c.uid == uid, table.c.name == sa.bindparam("one"))
                db.execute(table.update().where(*of).values(side=BOTH), [{"one": name} for name in gives.both])
        return outcome

    def known(self, uid: str, names: Collection[str]) -> dict[str, Given]:
        """Name → side, of those that have one."""
        with self._store.engine.connect() as db:
            return _known(db, uid, names)


def copy_sides(source: Store, target: Store, uid: str) -> None:
    """Let a home know the sides of a project that another one knows."""
    with source.engine.connect() as db:
        rows = db.execute(table.select().where(table.c.uid == uid)).all()
    with target.write() as db:
        insert_new(db, table, [dict(row._mapping) for row in rows])


def _known(db: sa.Connection, uid: str, names: Collection[str]) -> dict[str, Given]:
    query = sa.select(table.c.name, table.c.group, table.c.side).where(table.c.uid == uid)
    if len(names) <= MOST_NAMED:
        query = query.where(table.c.name.in_(names))
    return {name: Given(group, side) for name, group, side in db.execute(query) if name in names}
