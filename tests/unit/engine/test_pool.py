from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.engine.detector import Image
from backend.engine.pool import EnginePool
from backend.labels.geometry import Box, Detection
from backend.labels.networks import Task


def image(number: int) -> Image:
    """One that holds its number, and breaks the model when that is 255."""
    return np.full((2, 3, 3), number, np.uint8)


BROKEN = 255


class Counting:
    """Finds in image n objects with scores 1.0, 0.9 … 0.1 and boxes of n pixels; fails under two threads at once."""

    names: Mapping[int, str] = {0: "thing"}
    task: Task = "detect"
    batch = 8

    def __init__(self, cls: int = 0) -> None:
        self._cls = cls
        self._busy = threading.Lock()
        self.batches: list[tuple[int, float]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def detect(self, images: Sequence[Image], conf: float, most: int | None = None) -> list[list[Detection]]:
        assert self._busy.acquire(blocking=False), "two threads at once"
        try:
            self.entered.set()
            assert self.gate.wait(10)
            self.batches.append((len(images), conf))
            self.threads.add(threading.get_ident())
            numbers = [int(each[0, 0, 0]) for each in images]
            if BROKEN in numbers:
                raise ValueError("a broken image")
            return [
                [
                    Detection(self._cls, score / 10, Box(0, 0, number, number))
                    for score in range(10, 0, -1)
                    if score / 10 >= conf
                ]
                for number in numbers
            ]
        finally:
            self._busy.release()

    def embed(self, images: Sequence[Image]) -> NDArray[np.float32]:
        return np.ones((len(images), 1), np.float32)

    def warm(self) -> None:
        pass


@pytest.fixture
def pool() -> Iterator[EnginePool]:
    made = EnginePool(batch_size=4)
    yield made
    made.close()


@pytest.fixture
def hold() -> Iterator[Callable[[EnginePool], Counting]]:
    """Occupies a pool's owner with a detector whose gate is shut, until the test opens it."""
    made: list[Counting] = []

    def occupy(pool: EnginePool) -> Counting:
        detector = Counting()
        made.append(detector)
        detector.gate.clear()
        pool.submit(detector, image(0), 0.5)
        assert detector.entered.wait(10)
        return detector

    yield occupy
    for detector in made:
        detector.gate.set()


def read(answer: Future[list[Detection]]) -> tuple[int, list[float]]:
    """The image's number, and the scores."""
    found = answer.result(10)
    return int(found[0].box.x2), [each.score for each in found]


def scores(conf: float) -> list[float]:
    return [score / 10 for score in range(10, 0, -1) if score / 10 >= conf]


def test_every_request_gets_its_own_answer(pool: EnginePool) -> None:
    detector = Counting()

    def ask(number: int) -> bool:
        conf = (number % 10 + 1) / 10
        return read(pool.submit(detector, image(number), conf)) == (number, scores(conf))

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(ask, range(1, 250)))
    assert len(detector.threads) == 1


def test_waiting_images_share_a_pass(pool: EnginePool, hold: Callable[[EnginePool], Counting]) -> None:
    detector = hold(pool)
    answers = [pool.submit(detector, image(number), 0.1 * number) for number in range(1, 8)]
    detector.gate.set()
    assert [read(answer)[0] for answer in answers] == list(range(1, 8))
    assert [read(answer)[1] for answer in answers] == [scores(0.1 * number) for number in range(1, 8)]
    sizes = [size for size, _ in detector.batches]
    assert max(sizes) == 4
    assert sum(sizes) == 8
    assert len(sizes) <= 4


def test_two_models_do_not_mix(pool: EnginePool, hold: Callable[[EnginePool], Counting]) -> None:
    held, first, second = hold(pool), Counting(1), Counting(2)
    answers = [pool.submit((first, second)[number % 2], image(number + 1), 0.9) for number in range(20)]
    held.gate.set()
    for number, answer in enumerate(answers):
        assert {each.cls for each in answer.result(10)} == {1 + number % 2}
        assert read(answer)[0] == number + 1


def test_a_broken_image_costs_no_other(pool: EnginePool, hold: Callable[[EnginePool], Counting]) -> None:
    detector = hold(pool)
    answers = [pool.submit(detector, image(number), 0.5) for number in (1, BROKEN, 3, BROKEN, 5)]
    detector.gate.set()
    for number, answer in zip((1, BROKEN, 3, BROKEN, 5), answers, strict=True):
        if number == BROKEN:
            with pytest.raises(ValueError, match="a broken image"):
                answer.result(10)
        else:
            assert read(answer) == (number, scores(0.5))


def test_a_detector_that_breaks_its_word_does_not_stop_the_owner(pool: EnginePool) -> None:
    class Forgetful(Counting):
        def detect(self, images: Sequence[Image], conf: float, most: int | None = None) -> list[list[Detection]]:
            return []

    with pytest.raises(RuntimeError, match="0 answers for 1 images"):
        pool.submit(Forgetful(), image(1), 0.5).result(10)
    assert read(pool.submit(Counting(), image(2), 0.5))[0] == 2


def test_what_was_given_up_is_not_run(pool: EnginePool, hold: Callable[[EnginePool], Counting]) -> None:
    detector = hold(pool)
    given_up = [pool.submit(detector, image(number), 0.5) for number in (BROKEN, BROKEN, BROKEN)]
    wanted = pool.submit(detector, image(7), 0.5)
    assert all(answer.cancel() for answer in given_up)
    detector.gate.set()
    assert read(wanted)[0] == 7
    assert sum(size for size, _ in detector.batches) == 2
    for answer in given_up:
        with pytest.raises(CancelledError):
            answer.result(10)


def test_no_more_images_wait_than_allowed(hold: Callable[[EnginePool], Counting]) -> None:
    pool = EnginePool(batch_size=1, waiting=2)
    detector = hold(pool)
    accepted: list[Future[list[Detection]]] = []

    def submit() -> None:
        for number in range(1, 6):
            accepted.append(pool.submit(detector, image(number), 0.5))

    eager = threading.Thread(target=submit)
    eager.start()
    eager.join(0.3)
    assert eager.is_alive()
    assert len(accepted) == 2
    detector.gate.set()
    eager.join(10)
    assert [read(answer)[0] for answer in accepted] == [1, 2, 3, 4, 5]
    pool.close()


def test_urgent_images_pass_the_others(hold: Callable[[EnginePool], Counting]) -> None:
    pool = EnginePool(batch_size=1, waiting=3)
    detector = hold(pool)
    order: list[int] = []
    answers = []
    for number, urgent in ((1, False), (2, False), (3, False), (4, True), (5, True)):
        answers.append(pool.submit(detector, image(number), 0.5, urgent=urgent))
        answers[-1].add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]
    detector.gate.set()
    assert [read(answer)[0] for answer in answers] == [1, 2, 3, 4, 5]
    assert order == [4, 5, 1, 2, 3]
    pool.close()


def test_others_do_not_start_while_an_urgent_image_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.engine.pool.HOLD", 60.0)
    pool = EnginePool(batch_size=1)
    detector = Counting()
    order: list[int] = []

    def submit(number: int, *, urgent: bool = False) -> Future[list[Detection]]:
        answer = pool.submit(detector, image(number), 0.5, urgent=urgent)
        answer.add_done_callback(lambda _: order.append(number))
        return answer

    with pool.expecting():
        waiting = submit(1)
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        assert read(submit(2, urgent=True))[0] == 2
        assert read(waiting)[0] == 1
    assert order == [2, 1]
    pool.close()


def test_what_was_expected_and_does_not_come_lets_the_others_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.engine.pool.HOLD", 60.0)
    pool = EnginePool()
    with pool.expecting():
        waiting = pool.submit(Counting(), image(1), 0.5)
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
    assert read(waiting)[0] == 1
    pool.close()


def test_others_are_held_back_for_a_moment_only(pool: EnginePool) -> None:
    with pool.expecting():
        assert read(pool.submit(Counting(), image(1), 0.5))[0] == 1


def test_closing_waits_for_nothing_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.engine.pool.HOLD", 60.0)
    pool = EnginePool()
    with pool.expecting():
        waiting = pool.submit(Counting(), image(1), 0.5)
        pool.close()
        assert waiting.done()


def test_a_model_that_gains_nothing_takes_one_image_at_a_time(hold: Callable[[EnginePool], Counting]) -> None:
    pool = EnginePool(batch_size=4)
    detector = hold(pool)
    detector.batch = 1
    answers = [pool.submit(detector, image(number), 0.5) for number in (1, 2, 3)]
    detector.gate.set()
    assert [read(answer)[0] for answer in answers] == [1, 2, 3]
    assert [size for size, _ in detector.batches] == [1, 1, 1, 1]
    pool.close()


def test_what_comes_after_closing_is_cancelled() -> None:
    pool = EnginePool()
    pool.close()
    assert pool.submit(Counting(), image(1), 0.5).cancelled()


def test_closing_answers_what_waits(hold: Callable[[EnginePool], Counting]) -> None:
    pool = EnginePool(batch_size=4)
    detector = hold(pool)
    answers = [pool.submit(detector, image(number), 0.5) for number in (1, 2)]
    detector.gate.set()
    pool.close()
    assert [read(answer)[0] for answer in answers] == [1, 2]


def test_without_room_the_deadline_ends_the_wait() -> None:
    model, pool = Counting(), EnginePool(waiting=1)
    model.gate.clear()
    pool.submit(model, image(1), 0.1)
    assert model.entered.wait(10)
    pool.submit(model, image(2), 0.1)
    late = pool.submit(model, image(3), 0.1, deadline=time.monotonic() + 0.05)
    assert late.cancelled()
    model.gate.set()
    pool.close()


def test_people_without_a_pause_starve_nobody() -> None:
    model, pool = Counting(), EnginePool(batch_size=1)
    model.gate.clear()
    pool.submit(model, image(1), 0.1)
    assert model.entered.wait(10)
    other = pool.submit(model, image(2), 0.1)
    urgent = [pool.submit(model, image(3), 0.1, urgent=True) for _ in range(40)]
    before: list[bool] = []
    other.add_done_callback(lambda _: before.append(any(not each.done() for each in urgent)))
    model.gate.set()
    other.result(10)
    assert before == [True]
    pool.close()
