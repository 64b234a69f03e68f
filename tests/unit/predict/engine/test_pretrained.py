from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from lively import lively

from backend.predict.engine import pretrained
from backend.predict.engine.choice import load_weights
from backend.predict.engine.openvino import OpenVinoDetector
from backend.predict.engine.pretrained import exported
from backend.predict.engine.torch import TorchDetector
from backend.settings import Settings

IMAGE = np.random.default_rng(5).integers(0, 256, (90, 320, 3), np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lively(tmp_path_factory.mktemp("weights") / "seen.pt", "yolo11n.yaml")


@pytest.fixture(scope="module")
def made(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with the export of these weights."""
    home = tmp_path_factory.mktemp("made") / "home"
    assert exported(Settings(home=home, device="cpu", image_size=160), weights) is not None
    return home


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", device="cpu", image_size=160)


def test_weights_that_were_not_trained_here_are_exported_once(
    weights: Path, made: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made, settings.root, dirs_exist_ok=True)
    monkeypatch.setattr(pretrained, "start", None)  # whoever called it would fail
    detector = load_weights(settings, weights)
    assert isinstance(detector, OpenVinoDetector)
    (found,) = detector.detect([IMAGE], 0.25)
    (expected,) = TorchDetector(weights, device="cpu", image_size=160).detect([IMAGE], 0.25)
    assert len(found) == len(expected) > 5
    (kept,) = (path for path in (settings.root / "exports").iterdir() if path.is_dir())
    assert "finds what torch finds" in json.loads((kept / "outcome.json").read_text())["note"]


def test_one_that_takes_too_long_is_not_tried_again(
    weights: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pretrained, "LONGEST", 0.0)
    with caplog.at_level(logging.WARNING):
        assert isinstance(load_weights(settings, weights), TorchDetector)
    assert "seen.pt: torch serves it, for its export took more than 0 s" in caplog.text
    monkeypatch.setattr(pretrained, "start", None)
    assert isinstance(load_weights(settings, weights), TorchDetector)


def test_what_cannot_be_exported_is_told(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    junk = tmp_path / "junk.pt"
    junk.write_bytes(b"no checkpoint")
    with caplog.at_level(logging.WARNING):
        assert exported(settings, junk) is None
    assert "junk.pt: torch serves it, for it could not be exported (" in caplog.text
    monkeypatch.setattr(pretrained, "start", None)
    assert exported(settings, junk) is None
    # Another release may be able to do it.
    monkeypatch.setattr(pretrained, "FORMAT", pretrained.FORMAT + 1)
    with pytest.raises(TypeError):
        exported(settings, junk)


def test_what_a_killed_process_left_is_made_anew(weights: Path, made: Path, settings: Settings) -> None:
    shutil.copytree(made, settings.root, dirs_exist_ok=True)
    export = exported(settings, weights)
    assert export is not None
    folder = export.path.parent
    folder.rename(folder.with_suffix(".part"))
    (folder.with_suffix(".part") / "outcome.json").unlink()
    again = exported(settings, weights)
    assert again is not None and again.path.exists()
    assert not folder.with_suffix(".part").exists()


def test_an_export_that_has_become_unreadable_costs_only_speed(
    weights: Path, made: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(made, settings.root, dirs_exist_ok=True)
    export = exported(settings, weights)
    assert export is not None
    export.path.write_text("<net")
    assert isinstance(load_weights(settings, weights), TorchDetector)
    assert "its export could not be loaded; torch serves it" in caplog.text


def test_where_torch_was_asked_for_nothing_is_exported(weights: Path, settings: Settings) -> None:
    asked = settings.model_copy(update={"engine": "torch"})
    assert isinstance(load_weights(asked, weights), TorchDetector)
    assert not (settings.root / "exports").exists()
