"""A training's minutes, on a clock that a test turns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.fit.training.minutes import Minutes


@dataclass
class Machine:
    """Trains as ultralytics' loop does, in seconds of its own.

    Args:
        batches, epochs: of the plan.
        pace: seconds of each batch, one after the other.
        ending: seconds of a validation and the checkpoints.
        setup: seconds before the first batch.
    """

    batches: int
    epochs: int
    pace: Callable[[int], float]
    ending: float = 0.0
    setup: float = 0.0
    now: float = 1000.0
    learned: int = 0
    shares: tuple[float, ...] = ()

    def clock(self) -> float:
        return self.now

    def train(self, seconds: float, spent: float = 0.0) -> float:
        """The seconds that it took."""
        began = self.now - spent
        minutes = Minutes(seconds, spent=spent, ending=3, clock=self.clock)
        self.now += self.setup
        epochs, done = self.epochs, 0
        while done < epochs:
            minutes.begin()
            for _ in range(self.batches):
                self.shares += (minutes.share,)
                self.now += self.pace(self.learned)
                self.learned += 1
                minutes.batch()
                if minutes.over:
                    epochs = done + 1
                    break
                minutes.begin()
            self.now += self.ending
            minutes.epoch()
            done += 1
            epochs = int(min(epochs, done + minutes.epochs(self.batches)))
        assert minutes.spent == pytest.approx(self.now - began)
        return self.now - began


def test_one_with_time_enough_takes_all_its_epochs() -> None:
    machine = Machine(20, 6, lambda _: 1.0, ending=2, setup=5)
    assert machine.train(600) == 5 + 6 * (20 + 2)
    assert machine.learned == 120


def test_a_first_epoch_of_eleven_hours_ends_within_the_minutes() -> None:
    machine = Machine(20_000, 12, lambda _: 2.0, ending=20, setup=30)
    assert 570 <= machine.train(600) <= 600 * 1.05 + 2
    assert machine.learned > 250


@settings(max_examples=60)
@given(
    batches=st.integers(1, 1000),
    epochs=st.integers(1, 20),
    batch=st.floats(1, 20),
    validation=st.floats(0, 3),
    setup=st.floats(0, 30),
    minutes=st.floats(2, 15),
    spent=st.floats(0, 1),
)
def test_never_over_by_more_than_a_twentieth_and_a_batch(
    batches: int, epochs: int, batch: float, validation: float, setup: float, minutes: float, spent: float
) -> None:
    machine = Machine(batches, epochs, lambda _: batch, ending=validation * batch, setup=setup)
    seconds = 60 * minutes
    took = machine.train(seconds, spent=spent * seconds / 2)
    assert took <= 1.05 * seconds + batch
    planned = batches * epochs
    # Where it does not come to the plan's end it uses the time, but for what a last epoch's end and its begin cost.
    assert machine.learned == planned or took >= 0.95 * seconds - batch * 5


@pytest.mark.parametrize("slower", [3.0, 0.3], ids=["slower", "faster"])
def test_the_machine_gets_busy_meanwhile(slower: float) -> None:
    machine = Machine(100, 50, lambda batch: 1.0 if batch < 60 else slower, ending=2)
    took = machine.train(180)
    assert 165 <= took <= 180 * 1.05 + slower


def test_a_machine_that_is_busy_by_turns() -> None:
    machine = Machine(50, 100, lambda batch: 3.0 if batch // 7 % 2 else 0.5, ending=1)
    assert 165 <= machine.train(180) <= 180 * 1.05 + 3


def test_the_share_grows_from_nothing_to_all() -> None:
    machine = Machine(1000, 5, lambda _: 1.0, ending=5, setup=40)
    machine.train(240)
    assert machine.shares[0] == 0
    assert machine.shares[-1] > 0.97
    assert list(machine.shares) == sorted(machine.shares)


def test_what_was_spent_before_counts() -> None:
    machine = Machine(1000, 5, lambda _: 1.0, ending=2, setup=10)
    assert 230 <= machine.train(240, spent=200) <= 252
    assert machine.learned < 35
    assert machine.shares[0] > 0.8, "the learning rate goes on where it was"


def test_nothing_left_is_one_batch() -> None:
    machine = Machine(1000, 5, lambda _: 1.0)
    machine.train(240, spent=240)
    assert machine.learned == 1


def test_before_anything_is_known_all_fits() -> None:
    minutes = Minutes(60, clock=lambda: 0.0)
    assert minutes.batches() == minutes.epochs(10) == math.inf
    assert minutes.share == 0 and not minutes.over


def test_epochs_that_have_room() -> None:
    now = 0.0
    minutes = Minutes(60, clock=lambda: now)
    minutes.begin()
    for _ in range(10):
        now += 1
        minutes.batch()
    now += 2
    minutes.epoch()
    assert minutes.ending == 2 and minutes.batches() == 60 - 12 - 2
    assert minutes.epochs(10) == 4, "the last one is cut short"
    assert minutes.epochs(1000) == 1
    now = 58
    assert minutes.epochs(10) == 0
