"""One thread owns the device: every image of every request goes through it, in batches.

A YOLO object gives wrong answers when two threads use it, and two models at once only slow each other.
Requests hand in single images and get futures; the owner takes what is waiting for one model, as many as fit
a batch, in one pass.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backend.engine.detector import Detector, Image
from backend.labels.geometry import Detection

log = logging.getLogger(__name__)

PATIENCE = 0.003
"""Seconds the owner waits for more images before it runs a batch that is not full."""

HOLD = 0.05
"""Most seconds that others are held back for an urgent image: decoding takes less, a download may take long."""

TURN = 8
"""Batches of urgent images after which others that wait get one, so that people without a pause starve nobody."""


@dataclass(slots=True)
class _Item:
    detector: Detector
    image: Image
    conf: float
    most: int | None = None
    answer: Future[list[Detection]] = field(default_factory=Future)
    vector: Future[NDArray[np.float32]] | None = None
    # The log line of one that fails belongs to its request.
    context: Context = field(default_factory=copy_context)


class EnginePool:
    """The device's owner.

    What a person waits for runs first: `urgent` images pass all others, which get one turn in `TURN` while people make
    no pause. Of others only what is in the device at that moment is waited for. Who announces urgent ones with
    `expecting` has that wait over while they are still decoded.

    Args:
        batch_size: most images in one pass.
        waiting: most decoded images that wait, of urgent ones and of others; `submit` blocks beyond, which bounds the
            memory.

    Attributes:
        failures: images that no model could be run on.
    """

    def __init__(self, batch_size: int = 8, waiting: int = 64) -> None:
        self._batch_size = batch_size
        self._waiting = waiting
        self._urgent: deque[_Item] = deque()
        self._others: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._held = 0.0
        self._passed = 0
        self.failures = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        detector: Detector,
        image: Image,
        conf: float,
        *,
        urgent: bool = False,
        most: int | None = None,
        deadline: float = float("inf"),
    ) -> Future[list[Detection]]:
        """Hand in one image; the future gets its objects with a score of at least `conf`, best first.

        Args:
            most: most objects; None: the detector's own bound.
            deadline: on the clock of `time.monotonic`; without room by then, the future is cancelled.
        """
        item = _Item(detector, image, conf, most)
        self._put(item, urgent, deadline)
        return item.answer

    def embed(
        self, detector: Detector, image: Image, *, urgent: bool = False, deadline: float = float("inf")
    ) -> Future[NDArray[np.float32]]:
        """Hand in one image; the future gets what the model makes of it as a whole: see `Detector.embed`."""
        vector: Future[NDArray[np.float32]] = Future()
        self._put(_Item(detector, image, 0.0, vector=vector), urgent, deadline)
        return vector

    @contextlib.contextmanager
    def expecting(self) -> Iterator[None]:
        """Start no others, for a moment, until an urgent image is handed in or this ends."""
        with self._changed:
            self._held = time.monotonic() + HOLD
        try:
            yield
        finally:
            with self._changed:
                self._release()

    def waiting(self) -> dict[str, int]:
        """Decoded images that wait for the device, by lane."""
        return {"urgent": len(self._urgent), "others": len(self._others)}

    def close(self) -> None:
        """Ends once all that waits is answered; what comes later is cancelled."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=10)

    def _put(self, item: _Item, urgent: bool, deadline: float) -> None:
        lane = self._urgent if urgent else self._others
        with self._changed:
            rest = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
            room = self._changed.wait_for(lambda: len(lane) < self._waiting or self._closed, rest)
            if room and not self._closed:
                lane.append(item)
                if urgent:
                    self._release()
                self._changed.notify_all()
                return
        (item.vector or item.answer).cancel()

    def _release(self) -> None:
        self._held = 0.0
        self._changed.notify_all()

    def _run(self) -> None:
        while batch := self._gather():
            by_detector: dict[tuple[int, int | None], list[_Item]] = {}
            for each in batch:
                if each.vector is not None:
                    self._embed(each, each.vector)
                # A request that gave up (its time budget ran out) has cancelled what still waits.
                elif each.answer.set_running_or_notify_cancel():
                    by_detector.setdefault((id(each.detector), each.most), []).append(each)
            for items in by_detector.values():
                self._detect(items)

    def _gather(self) -> list[_Item]:
        """What runs next: urgent images, else others; more of the same are waited for only if their model gains by it.

        Empty when the pool was closed and nothing waits.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._urgent or self._others or self._closed)
            while not self._urgent and not self._closed and (rest := self._held - time.monotonic()) > 0:
                self._changed.wait(rest)
            others_turn = self._passed >= TURN and self._others
            lane = self._others if others_turn else self._urgent or self._others
            if not lane:
                return []
            self._passed = self._passed + 1 if lane is self._urgent and self._others else 0
            batch = [lane.popleft()]
            most = min(self._batch_size, batch[0].detector.batch)
            until = time.monotonic() + PATIENCE
            while len(batch) < most:
                if not lane and not self._changed.wait_for(lambda: bool(lane), until - time.monotonic()):
                    break
                batch.append(lane.popleft())
            self._changed.notify_all()
            return batch

    def _embed(self, item: _Item, vector: Future[NDArray[np.float32]]) -> None:
        if not vector.set_running_or_notify_cancel():
            return
        try:
            vector.set_result(item.detector.embed([item.image])[0])
        except Exception as error:
            self.failures += 1
            item.context.run(log.exception, "An image could not be run through the model")
            vector.set_exception(error)

    def _detect(self, items: Sequence[_Item]) -> None:
        # One pass at the lowest threshold; greedy suppression keeps the same boxes above a higher one.
        conf = min(item.conf for item in items)
        try:
            detector, most = items[0].detector, items[0].most
            images = [item.image for item in items]
            found = detector.detect(images, conf) if most is None else detector.detect(images, conf, most)
            if len(found) != len(items):
                raise RuntimeError(f"{len(found)} answers for {len(items)} images")
        except Exception as error:
            if len(items) > 1:  # one image must not cost the others theirs
                for item in items:
                    self._detect([item])
                return
            self.failures += 1
            items[0].context.run(log.exception, "An image could not be run through the model")
            items[0].answer.set_exception(error)
            return
        for item, detections in zip(items, found, strict=True):
            item.answer.set_result([each for each in detections if each.score >= item.conf])
