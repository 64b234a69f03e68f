from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.engine import nms as module
from backend.engine.nms import IOU, best, suppress

SIDE = 160


def candidates(seed: int, *, turned: bool = False, more: int = 0, classes: int = 3) -> NDArray[np.float32]:
    """(4 + classes + more, 400), many of which overlap; the last row is an angle if they are turned."""
    rng = np.random.default_rng(seed)
    rows = [*rng.uniform(0, SIDE, (2, 400)), *rng.uniform(10, 80, (2, 400)), *rng.uniform(0, 1, (classes + more, 400))]
    if turned:
        rows.append(rng.uniform(-math.pi / 4, 3 * math.pi / 4, 400))
    return np.array(rows, np.float32)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("more", [0, 5])
def test_it_is_the_one_of_ultralytics(seed: int, more: int) -> None:
    import torch
    from ultralytics.utils.nms import non_max_suppression

    raw = candidates(seed, more=more)
    (expected,) = non_max_suppression(torch.from_numpy(raw[None].copy()), 0.4, IOU, max_det=1000, nc=3)
    assert 20 < len(expected) < 400
    assert suppress(raw, 0.4, 3) == pytest.approx(expected.numpy(), abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("at_once", [module.AT_ONCE, 500])
def test_turned_boxes_go_as_with_ultralytics(seed: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from ultralytics.utils.nms import non_max_suppression

    monkeypatch.setattr(module, "AT_ONCE", at_once)
    raw = candidates(seed, turned=True, classes=1)
    raw[:2] /= 4  # so that many are near each other
    (expected,) = non_max_suppression(torch.from_numpy(raw[None].copy()), 0.1, IOU, max_det=1000, nc=1, rotated=True)
    assert 20 < len(expected) < 340
    assert suppress(raw, 0.1, 1, turned=True) == pytest.approx(expected.numpy(), abs=1e-3)


def test_what_covers_nothing_stays() -> None:
    import torch
    from ultralytics.utils.nms import non_max_suppression

    raw = candidates(1)
    raw[2:4] -= 20  # a third is turned inside out
    raw[:, :3] = raw[:, :1]
    raw[2, :3] = 0
    (expected,) = non_max_suppression(torch.from_numpy(raw[None].copy()), 0.4, IOU, max_det=1000)
    made = suppress(raw, 0.4, 3)
    assert sorted(made.tolist()) == pytest.approx(np.array(sorted(expected.tolist())), abs=1e-3)


def test_what_is_not_a_number_is_not_found() -> None:
    raw = np.array([[10, 50, np.nan], [10, 50, 90], [8, 8, 8], [8, 8, 8], [0.9, np.nan, 0.9]], np.float32)
    assert suppress(raw, 0.3, 1).tolist() == [[6, 6, 14, 14, np.float32(0.9), 0]]
    rows = np.array([[0, 0, 5, 5, 0.4, 1], [0, 0, np.inf, 5, 0.9, 0], [1, 1, 5, 5, 0.8, 0]], np.float32)
    assert best(rows, 0.3)[:, 4].tolist() == [np.float32(0.8), np.float32(0.4)]
    assert len(best(rows, 0.5)) == 1


def test_nothing_is_found() -> None:
    assert suppress(candidates(0), 1.1, 3).shape == (0, 6)
    assert suppress(candidates(0, turned=True), 1.1, 3, turned=True).shape == (0, 7)
