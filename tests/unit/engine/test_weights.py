from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from support.shapes import LABELS
from support.tiny import tiny_yolo

from backend.engine.weights import hash_file, open_model, read_checkpoint, sha256
from backend.errors import YoloopError


class Harmful:
    """Unpickled the usual way, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.marker,)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return tiny_yolo(tmp_path / "tiny.pt", LABELS, {0: (0, 0.9)})


@pytest.mark.parametrize("inside", ["alone", "beside a model"])
@pytest.mark.parametrize("old", [False, True])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, weights: Path, inside: str, old: bool) -> None:
    marker = tmp_path / "ran"
    stored: Any = Harmful(marker)
    if inside == "beside a model":
        stored = {**torch.load(weights, weights_only=False), "train_args": stored}
    path = tmp_path / "harmful.pt"
    torch.save(stored, path, _use_new_zipfile_serialization=not old)
    for read in (open_model, read_checkpoint):
        with pytest.raises(Exception, match=r"(?i)weights|checkpoint|global"):
            read(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()  # so it would have


@pytest.mark.parametrize("content", [b"", b"junk", b"PK", pickle.dumps({"a": 1}), b"\x80\x02" + b"(" * 10_000])
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "junk.pt").write_bytes(content)
    with pytest.raises(Exception, match=r".+") as error:
        open_model(tmp_path / "junk.pt")
    assert not isinstance(error.value, SystemExit)


def test_a_program_of_torch_is_none(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.script(torch.nn.Linear(1, 1)).save(path)
    assert zipfile.is_zipfile(path)
    with pytest.raises(Exception, match="TorchScript"):
        open_model(path)


def test_a_model_is_opened(weights: Path) -> None:
    assert open_model(weights).task == "detect"
    assert "model" in read_checkpoint(weights)


@pytest.mark.parametrize("form", ["{}", "{}  tiny.pt\n", "{} *tiny.pt\n"])
def test_weights_that_are_those_that_were_told(weights: Path, form: str) -> None:
    hash_file(weights).write_text(form.format(sha256(weights)))
    assert open_model(weights).task == "detect"


@pytest.mark.parametrize("said", ["", "0" * 64, "none", "\x00"])
def test_weights_that_are_others(weights: Path, said: str) -> None:
    hash_file(weights).write_text(said)
    for read in (open_model, read_checkpoint):
        with pytest.raises(YoloopError, match=r"tiny\.pt\.sha256") as error:
            read(weights)
        assert str(weights.parent) not in str(error.value)


def test_without_safe_loading_nothing_is_opened(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ultralytics.utils.SAFE_LOAD", False)
    with pytest.raises(YoloopError, match="safely"):
        open_model(weights)
