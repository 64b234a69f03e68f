"""Halves of checkpoints, as a full disk leaves them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend.fit.training.checkpoints import mend


def write(path: Path, epoch: int) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": epoch, "weights": torch.zeros(1000)}, path)
    return path.read_bytes()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write(tmp_path / "run" / "weights" / "last.pt", 3)
    write(tmp_path / "run" / "weights" / "best.pt", 2)
    return tmp_path / "run"


def epochs(run: Path) -> list[int]:
    return [torch.load(run / "weights" / name)["epoch"] for name in ("last.pt", "best.pt")]


def half(run: Path, name: str, share: float = 0.5) -> None:
    path = run / "weights" / name
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def test_whole_ones_stay(run: Path) -> None:
    assert mend(run) == run / "weights" / "last.pt" and epochs(run) == [3, 2]


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_it_goes_on_from_the_best_one(run: Path, share: float) -> None:
    half(run, "last.pt", share)
    assert mend(run) == run / "weights" / "last.pt" and epochs(run) == [2, 2]


def test_half_a_best_one_was_to_be_the_last(run: Path) -> None:
    half(run, "best.pt")
    assert mend(run) == run / "weights" / "last.pt" and epochs(run) == [3, 3]


def test_without_any_it_begins_anew(run: Path) -> None:
    half(run, "last.pt")
    half(run, "best.pt")
    assert mend(run) is None and not run.exists()
    assert mend(run) is None
