from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout

from backend.processes import liveness
from backend.processes.liveness import training, training_lives, worker_lives

HOLD = """
import sys, time
from pathlib import Path
from backend.processes.liveness import training
with training(Path(sys.argv[1]), "job"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_training_lives_as_long_as_its_process(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"held\n"
            assert training_lives(tmp_path, "job") and not training_lives(tmp_path, "other")
        finally:
            process.kill()
        process.wait()
    assert not training_lives(tmp_path, "job")


def test_it_has_its_steps_taken_once_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "PATIENCE", 0.1)
    with training(tmp_path, "job"), training(tmp_path, "other"):
        with pytest.raises(Timeout), training(tmp_path, "job"):
            pass
        assert training_lives(tmp_path, "job"), "it is still the first one's"
    assert not training_lives(tmp_path, "job")
    assert not list((tmp_path / "jobs").iterdir())


def test_to_look_makes_no_file(tmp_path: Path) -> None:
    assert not training_lives(tmp_path, "job") and not worker_lives(tmp_path)
    assert not list(tmp_path.iterdir())
