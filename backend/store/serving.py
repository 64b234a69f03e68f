"""Which version of each project serves: one row a project, the same for all processes and machines.

What an act makes of it is in `model_registry/serving.py`. Here it is only compared and set: of two who have seen the
same row, one writes, and the other looks again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from backend.errors import Busy
from backend.store.database import Store
from backend.store.dialect import insert_new
from backend.store.jobs import Jobs, is_cancelled
from backend.store.leases import leased
from backend.store.tables import serving as table
from model_registry.serving import Act, Brief, CancelledMeanwhile, Serving

_ALL = sa.select(table.c.uid, table.c.number, table.c.sequence, table.c.mirrored)
"""Made once: it is asked for twice a second."""


class ServingRows:
    """The table, as `model_registry.serving.Rows`; a model is a project's uid."""

    shared = True

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, model: str) -> Serving | None:
        with self._store.engine.connect() as db:
            row = db.execute(table.select().where(table.c.uid == model)).one_or_none()
        if row is None:
            return None
        return Serving(
            number=row.number,
            what=row.what,
            by=row.decided_by,
            at=row.decided_at,
            reason=row.reason,
            stack=tuple(row.stack),
            acts={int(number): Act(**act) for number, act in row.acts.items()},
            highest=row.highest or 0,
            sequence=row.sequence,
            mirrored=row.mirrored,
        )

    def all(self) -> dict[str, Brief]:
        with self._store.engine.connect() as db:
            return {uid: Brief(number, sequence, mirrored) for uid, number, sequence, mirrored in db.execute(_ALL)}

    def replace(self, model: str, seen: int, wanted: Serving, *, job: str = "", mirrored: bool = False) -> bool:
        made = _columns(wanted, seen + 1)
        if mirrored:
            made["mirrored"] = seen + 1
        try:
            with self._store.write() as db:
                if job and is_cancelled(db, job):
                    raise CancelledMeanwhile
                if not seen:
                    db.execute(table.insert().values(uid=model, **made))
                    return True
                mine = (table.c.uid == model, table.c.sequence == seen)
                # What was given out, or told, since the row was seen stays so.
                made["highest"] = sa.case((table.c.highest > wanted.highest, table.c.highest), else_=wanted.highest)
                if not mirrored:
                    del made["mirrored"]
                return bool(db.execute(table.update().where(*mine).values(made)).rowcount)
        except sa.exc.IntegrityError:  # somebody else was the first
            return False

    def highest(self, model: str) -> int:
        with self._store.engine.connect() as db:
            kept = db.scalar(sa.select(table.c.highest).where(table.c.uid == model))
        return max(kept or 0, *Jobs(self._store).versions(model), 0)

    def given(self, model: str, number: int) -> None:
        with self._store.write() as db:
            # A project without a row has no version in service.
            insert_new(db, table, [{"uid": model, **_columns(Serving(mirrored=1), 1)}])
            db.execute(
                table.update()
                .where(table.c.uid == model, sa.func.coalesce(table.c.highest, 0) < number)
                .values(highest=number)
            )

    def mirror(self, model: str, write: Callable[[Serving], None]) -> None:
        known = self.get(model)
        if known is None or known.mirrored == known.sequence:
            return
        try:
            with leased(self._store, f"mirror {model}"):
                while (known := self.get(model)) is not None and known.mirrored < known.sequence:
                    write(known)
                    mine = (table.c.uid == model, table.c.mirrored < known.sequence)
                    with self._store.write() as db:
                        db.execute(table.update().where(*mine).values(mirrored=known.sequence))
        except Busy:
            pass  # whoever has it looks again before it ends


def _columns(state: Serving, sequence: int) -> dict[str, Any]:
    return {
        "number": state.number,
        "what": state.what,
        "decided_by": state.by,
        "decided_at": state.at,
        "reason": state.reason,
        "stack": list(state.stack),
        "acts": {str(number): asdict(act) for number, act in state.acts.items()},
        "highest": state.highest,
        "sequence": sequence,
        "mirrored": state.mirrored,
    }
