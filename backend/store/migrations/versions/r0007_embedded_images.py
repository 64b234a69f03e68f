"""References in place of images that tasks hold themselves, as `data:` addresses: they are not kept twice."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import context, op

revision = "embedded_images"
down_revision = "several_annotations"

_DATA = re.compile(r"\s*data:[^,\s]{0,200},", re.IGNORECASE)

AT_ONCE = 100
"""Rows that are in memory together."""

_ledger = sa.table(
    "ledger",
    *(sa.column(name) for name in ("uid", "task_id", "content", "seen")),
    sa.column("data", sa.JSON),
    sa.column("result", sa.JSON),
)
_thumbnails = sa.table("thumbnails", *(sa.column(name) for name in ("uid", "key", "group", "family")))


def upgrade() -> None:
    """Replace the images, and their addresses where they name an image."""
    if context.is_offline_mode():
        return
    db = op.get_bind()
    after: tuple[Any, Any] = ("", 0)
    text = sa.cast(_ledger.c.data, sa.Text)
    place = sa.tuple_(_ledger.c.uid, _ledger.c.task_id)
    while rows := db.execute(
        sa.select(_ledger)
        .where(text.ilike('%"%data:%'), place > sa.tuple_(*map(sa.literal, after)))
        .order_by(_ledger.c.uid, _ledger.c.task_id)
        .limit(AT_ONCE)
    ).all():
        for row in rows:
            data = _short(row.data)
            if data == row.data:
                continue
            changed: dict[str, Any] = {"data": data}
            if row.content is not None:
                changed["content"] = _content(data, row.result or [])
            if row.content is not None and row.seen == row.content:
                changed["seen"] = changed["content"]
            of = (_ledger.c.uid == row.uid, _ledger.c.task_id == row.task_id)
            db.execute(_ledger.update().where(*of).values(**changed))
        after = (rows[-1].uid, rows[-1].task_id)
    # Of the others the names of today are made when they are first asked for.
    key, group = _thumbnails.c.key, _thumbnails.c.group
    named = sa.or_(key.ilike("data:%"), group.ilike("data:%")), _thumbnails.c.family == ""
    for row in db.execute(sa.select(_thumbnails).where(*named)).all():
        of = (_thumbnails.c.uid == row.uid, key == row.key)
        values = {"key": _hash(row.key), "group": _hash(row.group), "family": _hash(row.group)}
        db.execute(_thumbnails.update().where(*of).values(values))


def _short(data: Any) -> Any:
    if isinstance(data, str):
        if not _DATA.match(data):
            return data
        return f"yoloop-embedded:{_hash(data)}"
    if isinstance(data, Mapping):
        return {name: _short(value) for name, value in data.items()}
    return [_short(each) for each in data] if isinstance(data, list) else data


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _content(data: Any, result: Any) -> str:
    regions = [{key: value for key, value in region.items() if key != "id"} for region in result]
    return hashlib.sha256(json.dumps([data, regions], sort_keys=True, default=str).encode()).hexdigest()
