"""The training's process with real processes; what it trains is tried in tests/e2e."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.children import trainers
from support.waiting import wait_for

from backend.errors import TrainingError
from backend.fit.training.process import EXPECTED, Ahead, run_training, said, start_training
from backend.processes.child import end_group

pytestmark = pytest.mark.training


@pytest.fixture
def ahead(tmp_path: Path) -> Iterator[Ahead]:
    made = Ahead(tmp_path)
    yield made
    made.close()


def test_the_one_that_was_expected_is_taken(ahead: Ahead) -> None:
    ahead.expect(0.0)
    ahead.expect(1.0)
    (waiting,) = trainers()
    taken = ahead.take()
    assert taken.pid == waiting.pid
    assert trainers() == [waiting]
    end_group(taken)
    assert not trainers()


def test_without_one_it_is_started_when_it_is_needed(ahead: Ahead) -> None:
    taken = ahead.take()
    assert [each.pid for each in trainers()] == [taken.pid]
    end_group(taken)


def test_one_that_has_died_is_not_handed_out(ahead: Ahead) -> None:
    ahead.expect(0.0)
    (waiting,) = trainers()
    waiting.kill()
    wait_for(lambda: not trainers())
    taken = ahead.take()
    assert taken.poll() is None and taken.pid != waiting.pid
    end_group(taken)


def test_what_waits_in_vain_is_ended(ahead: Ahead) -> None:
    ahead.expect(100.0)
    ahead.look(100.0 + EXPECTED)
    assert len(trainers()) == 1
    ahead.expect(110.0)
    ahead.look(101.0 + EXPECTED)
    assert len(trainers()) == 1
    ahead.look(111.0 + EXPECTED)
    assert not trainers()


def test_what_cannot_be_started_ahead_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    Ahead(tmp_path).expect(0.0)
    assert not trainers()


def test_it_ends_with_the_one_that_could_tell_it_its_folder(tmp_path: Path) -> None:
    process = start_training(tmp_path)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(600) == 3


def run(folder: Path, started: subprocess.Popen[bytes]) -> None:
    run_training(folder, on_progress=lambda _: None, cancelled=lambda: False, started=started)


@pytest.mark.parametrize("name", ["job", "with space", os.fsdecode(b"not \xff UTF-8")])
def test_it_works_in_the_folder_that_it_is_told(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps({"home": str(tmp_path), "networks": [], "unheard of": 1}))
    with pytest.raises(TrainingError, match="unheard of"):
        run(folder, start_training(tmp_path))
    assert "Traceback" in (folder / "train.log").read_text()


def test_what_it_said_before_it_knew_its_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spec.json").write_text(json.dumps({"home": str(tmp_path)}))
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "torch.py").write_text("raise ImportError('no torch here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"), prepend=os.pathsep)
    with pytest.raises(TrainingError, match="no torch here"):
        run(tmp_path, start_training(tmp_path))


def test_people_are_told_on_what_it_was_measured() -> None:
    progress = {"epoch": 7, "epochs": 14, "metric": "mAP50", "value": 0.41, "networks": 1, "number": 1, "network": "x"}
    assert said(progress) == "epoch 7 of 14, mAP50 0.410 on training images"
    progress |= {"metric": "accuracy", "networks": 2, "number": 2, "network": "classify"}
    assert said(progress) == "classify (2 of 2): epoch 7 of 14, accuracy 0.410 on training images"
