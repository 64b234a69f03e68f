"""What only one may do at a time, whichever process or machine it is on: by a row that ends by itself.

Whoever takes a lease gets a number that is higher than all before. What is written under a lease asks for that number
in the same transaction (`held`), so that one who was thought dead writes nothing over what came after.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from backend.errors import Busy
from backend.store.database import Store
from backend.store.dialect import upsert
from backend.store.tables import leases as table

LENGTH = 300.0
"""Seconds without a sign of life after which another one takes it: longer than any single request."""

LOOK = 0.1
"""Seconds between looks at a lease that somebody else has."""

_PROCESS = uuid.uuid4().hex[:8]
"""Tells this process from an earlier one that had its number."""


@dataclass(frozen=True, slots=True)
class Lease:
    name: str
    number: int


def held(db: sa.Connection, lease: Lease | None) -> None:
    """Make sure of the lease for this transaction, and let it live on. Without one nothing is asked.

    Raises Busy when somebody else has taken it meanwhile; then nothing of the transaction must stay.
    """
    if lease is None:
        return
    mine = (table.c.name == lease.name, table.c.number == lease.number)
    if not db.execute(table.update().where(*mine).values(until=time.time() + LENGTH)).rowcount:
        raise Busy("Somebody else does the same meanwhile.", "Try again when that is done.")


@contextmanager
def leased(store: Store, name: str, wait: float = 0.0, refused: str = "") -> Iterator[Lease]:
    """Hold the lease of that name.

    Args:
        wait: seconds to wait for it at most.
        refused: what to say where it cannot be had.

    Raises Busy when somebody else has it.
    """
    until = time.monotonic() + wait
    while (lease := _take(store, name)) is None:
        if time.monotonic() >= until:
            raise Busy(refused or "Somebody else does the same just now.", "Try again when that is done.")
        time.sleep(LOOK)
    try:
        yield lease
    finally:
        with store.write() as db:
            mine = (table.c.name == lease.name, table.c.number == lease.number)
            db.execute(table.update().where(*mine).values(holder="", until=0.0))


def _take(store: Store, name: str) -> Lease | None:
    query = sa.select(table.c.holder, table.c.number, table.c.until).where(table.c.name == name)
    with store.engine.connect() as db:  # who waits shall keep no writer waiting
        row = db.execute(query).one_or_none()
        if row is not None and not _free(row.holder, row.until):
            return None
    with store.write() as db:
        row = db.execute(query).one_or_none()
        if row is not None and not _free(row.holder, row.until):
            return None
        number = 1 if row is None else row.number + 1
        upsert(db, table, {"name": name, "holder": _me(), "number": number, "until": time.time() + LENGTH})
        return Lease(name, number)


def _me() -> str:
    return f"{socket.gethostname()}/{os.getpid()}/{_PROCESS}"


def _free(holder: str, until: float) -> bool:
    """Whether nobody holds it: it was given back, has ended (or was taken before the clock was set back), or its
    holder's process is gone."""
    now = time.time()
    if not holder or not now < until <= now + LENGTH:
        return True
    host, number, process = holder.rsplit("/", 2)
    if host != socket.gethostname() or process == _PROCESS:
        return False
    if int(number) == os.getpid():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
