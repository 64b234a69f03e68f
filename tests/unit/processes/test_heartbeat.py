from __future__ import annotations

import logging
import time

import pytest
from support.waiting import wait_for

from backend.processes.heartbeat import Pulse
from backend.store.database import Store
from backend.store.heartbeats import FAILURES, LATE, STUCK, Beat, Heartbeat


@pytest.mark.parametrize(
    ("beat", "turn", "alive"),
    [
        (0.0, 0.0, True),
        (LATE - 1, 0.0, True),
        (LATE, 0.0, False),
        (0.0, STUCK - 1, True),
        (0.0, STUCK, False),
        (-3600, -3600, False),
    ],
)
def test_a_worker_lives_while_it_beats_and_its_loop_turns(beat: float, turn: float, alive: bool) -> None:
    assert Beat(1000.0 - beat, 1000.0 - turn).alive(1000.0) is alive


def test_the_last_beat_is_kept_until_the_worker_ends_in_order(store: Store) -> None:
    heartbeat = Heartbeat(store)
    assert heartbeat.last() is None
    heartbeat.beat(5.0, 4.0)
    heartbeat.beat(10.0, 9.0)
    assert Heartbeat(store).last() == Beat(10.0, 9.0)
    heartbeat.stop()
    assert heartbeat.last() is None


def test_failures_are_counted_by_kind(store: Store) -> None:
    heartbeat = Heartbeat(store)
    assert heartbeat.failures() == dict.fromkeys(FAILURES, 0)
    heartbeat.failed("sync")
    heartbeat.failed("sync")
    heartbeat.failed("loop")
    assert Heartbeat(store).failures() == {"sync": 2, "refresh": 0, "loop": 1}


def test_a_failure_that_cannot_be_counted_is_no_second_one(store: Store) -> None:
    with store.write() as db:
        db.exec_driver_sql("DROP TABLE failures")
    Heartbeat(store).failed("loop")


def test_a_pulse_beats_until_it_is_stopped(store: Store) -> None:
    heartbeat = Heartbeat(store)
    pulse = Pulse(heartbeat, every=0.02)
    pulse.start()
    pulse.turned(7.0)
    wait_for(lambda: (last := heartbeat.last()) and last.turned_at == 7.0, pause=0.01)
    last = heartbeat.last()
    assert last is not None
    assert time.time() - last.at < 30
    pulse.stop()
    assert heartbeat.last() is None
    time.sleep(0.1)
    assert heartbeat.last() is None


def test_a_pulse_outlives_a_database_that_cannot_be_written(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    heartbeat = Heartbeat(store)
    with store.write() as db:
        db.exec_driver_sql("ALTER TABLE heartbeats RENAME TO elsewhere")
    pulse = Pulse(heartbeat, every=0.02)
    with caplog.at_level(logging.WARNING, "backend.processes.heartbeat"):
        pulse.start()
        time.sleep(0.2)
        assert [record.getMessage() for record in caplog.records] == [
            "No sign of life can be written: OperationalError"
        ], "once, not at every beat"
        with store.write() as db:
            db.exec_driver_sql("ALTER TABLE elsewhere RENAME TO heartbeats")
        wait_for(lambda: heartbeat.last() is not None, pause=0.01)
    pulse.stop()
