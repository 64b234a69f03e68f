"""Exports of weights that were not trained here, in the process of their own."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from support.lively import lively
from support.tiny import SIZE, tiny_yolo

from backend.engine.export import export
from backend.engine.openvino import OpenVinoDetector
from backend.errors import YoloopError
from backend.served_models import pretrained_export
from backend.served_models.loading import load_weights
from backend.served_models.pretrained_export import check, exported, kept
from backend.settings import Settings

pytestmark = [pytest.mark.training, pytest.mark.group("exports", minutes=1)]

GO_ON = threading.Event()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", image_size=SIZE, device="cpu")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export has the lowest priority: beside other work it takes its time."""
    monkeypatch.setattr(pretrained_export, "LONGEST", 900.0)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return tiny_yolo(tmp_path / "tiny.pt", ("a", "b"), {1: (0, 0.8)})


def folder(settings: Settings, weights: Path) -> Path:
    return settings.root / "exports" / hashlib.sha256(weights.read_bytes()).hexdigest()


def outcome(settings: Settings, weights: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder(settings, weights) / "outcome.json").read_text())
    return found


def test_made_once_and_kept(settings: Settings, weights: Path, tmp_path: Path) -> None:
    assert kept(settings, weights) is None
    made = exported(settings, weights, GO_ON)
    assert made is not None and made.precision in ("auto", "f32")
    assert made.path == folder(settings, weights) / "network.xml"
    (found,) = OpenVinoDetector(made.path, image_size=SIZE).detect([np.zeros((SIZE, SIZE, 3), np.uint8)], 0.5)
    assert len(found) == 16
    before = made.path.stat().st_mtime_ns
    renamed = weights.rename(tmp_path / "other.pt")
    assert kept(settings, renamed) == exported(settings, renamed, GO_ON) == made
    assert made.path.stat().st_mtime_ns == before
    assert isinstance(load_weights(settings, renamed), OpenVinoDetector)
    renamed.with_name("other.pt.sha256").write_text(f"{'0' * 64}  other.pt\n")
    with pytest.raises(YoloopError, match="are not those that"):
        load_weights(settings, renamed)


def test_a_failure_is_remembered(settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    junk = tmp_path / "junk.pt"
    junk.write_bytes(b"junk")
    caplog.set_level(logging.INFO)
    for _ in range(2):
        found = exported(settings, junk, GO_ON)
        assert found is not None and found.precision == ""
    assert kept(settings, junk) == found
    assert "could not be exported" in outcome(settings, junk)["note"]
    assert caplog.text.count("is being made ready") == 1
    assert "junk.pt: torch serves it, for it could not be exported" in caplog.text
    assert "Traceback" in (folder(settings, junk) / "export.log").read_text()


def test_an_export_that_takes_too_long_is_given_up_for_good(
    settings: Settings, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained_export, "LONGEST", 0.1)
    found = exported(settings, weights, GO_ON)
    assert found is not None and found.precision == ""
    assert "took more than" in outcome(settings, weights)["note"]
    assert exported(settings, weights, GO_ON) == found


def test_what_others_made_is_made_again(settings: Settings, weights: Path) -> None:
    path = folder(settings, weights) / "outcome.json"
    path.parent.mkdir(parents=True)
    for outcome in ({}, {"precision": "", "note": "", "made_by": {"format": 0}}):
        path.write_text(json.dumps(outcome))
        assert kept(settings, weights) is None
    found = exported(settings, weights, GO_ON)
    assert found is not None and found.precision


def child() -> psutil.Process:
    """The process that exports, once it runs."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for each in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):  # one that has ended has no command line
                if pretrained_export.__name__ in each.cmdline():
                    return each
        time.sleep(0.01)
    raise AssertionError("nothing is exported")


def test_one_that_was_ended_is_tried_again(settings: Settings, weights: Path) -> None:
    for by in ("stop", "signal", "disk"):
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(exported, settings, weights, stop)
            process = child()
            if by == "stop":
                stop.set()
            elif by == "signal":
                os.kill(process.pid, signal.SIGTERM)
            else:
                process.rlimit(psutil.RLIMIT_FSIZE, (1000, 1000))
            assert answer.result(60) is None, by
        assert not process.is_running()
        assert kept(settings, weights) is None and not folder(settings, weights).exists(), by
    found = exported(settings, weights, GO_ON)
    assert found is not None and found.precision


def test_who_asks_at_the_same_time_waits(settings: Settings, weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: exported(settings, weights, GO_ON), range(3)))
    assert answers[0] is not None and answers[0].precision
    assert answers == [answers[0]] * 3
    assert caplog.text.count("is being made ready") == 1


def test_it_stands_back(settings: Settings, weights: Path) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(exported, settings, weights, stop)
        process, until = child(), time.monotonic() + 60
        while process.nice() < 19:
            assert time.monotonic() < until
            time.sleep(0.01)
        stop.set()
        answer.result(10)


@pytest.mark.parametrize("task", ["", "-obb", "-seg", "-pose", "-cls"])
def test_photographs_tell_of_each_task(tmp_path: Path, task: str) -> None:
    precision, note = check(
        lively(tmp_path / "n.pt", f"yolo11n{task}.yaml"), tmp_path / "n.xml", image_size=96, max_regions=50
    )
    assert precision in ("auto", "f32"), note
    assert int(note.split(": ")[1].split()[0]) > 0  # objects


def test_best_guesses_tell_where_nothing_would_be_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shy, other = (tiny_yolo(tmp_path / f"{grid}.pt", ("a", "b"), {grid: (0, 0.1)}) for grid in (1, 2))
    precision, note = check(shy, tmp_path / "n.xml", image_size=SIZE, max_regions=300)
    assert precision and " 0 objects" not in note
    monkeypatch.setattr("backend.engine.export.export", lambda _, path: export(other, path))
    precision, note = check(shy, tmp_path / "n.xml", image_size=SIZE, max_regions=300)
    assert precision == "" and "finds something else" in note
