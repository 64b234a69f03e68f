from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from backend.observability.full_disk import OVER, REMIND, OneLine, message_of
from backend.observability.logs import configure


def full() -> Exception:
    """As a library wraps it."""
    try:
        try:
            with Path("/dev/full").open("wb", buffering=0) as file:
                file.write(b"x")
        except OSError as error:
            raise ValueError("a checkpoint could not be made") from error
    except ValueError as error:
        return error
    raise AssertionError("nobody minded")


def record(text: str, error: Exception | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("backend", logging.ERROR, "", 0, text, None, info)


def test_one_line_is_written_for_hundreds(own_logging: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", "worker")
    log = logging.getLogger("backend.worker")
    for _ in range(100):
        log.error("It failed", exc_info=full())
        log.warning("Exception in queue thread: (sqlite3.OperationalError) database or disk is full\n[SQL: UPDATE …]")
    log.info("Something else")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("WARNING ")[2] for line in lines[:-1]] == [message_of("the disk is full")]
    assert lines[-1].endswith("Something else")


def test_the_next_time_is_told_again() -> None:
    now = [0.0]
    made = OneLine(lambda: now[0])

    def passes(at: float) -> bool:
        now[0] = at
        return made.filter(record("It failed", full()))

    assert [passes(at) for at in (0.0, 1.0, 50.0, 100.0)] == [True, False, False, False]
    assert passes(100 + OVER + 1)
    lasting = [passes(at) for at in range(200, 200 + int(REMIND) + 100, 30)]
    assert sum(lasting) == 1


@pytest.mark.parametrize("error", [ValueError("no"), sqlite3.OperationalError("no such table: t")])
def test_all_else_is_written_as_it_is(error: Exception) -> None:
    kept = record("It failed", error)
    assert OneLine().filter(kept) and kept.exc_info is not None and kept.getMessage() == "It failed"
