"""What a machine without TensorRT and without a GPU can tell of it: what is kept, and that torch stands in."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import SIZE, tiny_yolo

from backend.engine import tensorrt
from backend.engine.tensorrt import installed, key_of, plan_for, prune
from backend.errors import YoloopError
from backend.labels.networks import Network
from backend.served_models.loading import on_torch, serving_engine
from backend.served_models.parts import Part
from backend.settings import Settings

OPTIONS: dict[str, Any] = {"image_size": SIZE, "max_regions": 300, "batch_size": 8, "multiple": False}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return tiny_yolo(tmp_path / "registry" / "weights.pt", ("Disc", "Square"), {1: (0, 0.9)})


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed `tensorrt-cu12` that breaks when it is imported."""
    folder = tmp_path / "site"
    (folder / "tensorrt").mkdir(parents=True)
    (folder / "tensorrt" / "__init__.py").write_text("raise ImportError('libnvinfer.so.10')")
    info = folder / "tensorrt_cu12-10.9.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorrt-cu12\nVersion: 10.9.0\n")
    (info / "top_level.txt").write_text("tensorrt\n")
    monkeypatch.syspath_prepend(folder)


class TestTorchStandsIn:
    def settings(self, tmp_path: Path) -> Settings:
        return Settings(home=tmp_path / "home", engine="tensorrt", device="cpu", image_size=SIZE)

    @pytest.mark.parametrize("part", [None, Part(Network("detect", "detect", ("a", "b"), ("label",)), image_size=SIZE)])
    def test_without_a_gpu(
        self, weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, part: Part | None
    ) -> None:
        with caplog.at_level(logging.WARNING):
            detector = on_torch(self.settings(tmp_path), weights, part)
        (found,) = detector.detect([torch.zeros(SIZE, SIZE, 3, dtype=torch.uint8).numpy()], 0.5)
        assert len(found) == 16
        assert "torch serves it instead of TensorRT: TensorRT needs an NVIDIA GPU" in caplog.text
        assert "Traceback" not in caplog.text

    def test_when_the_plan_cannot_be_run(
        self, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        plan = tmp_path / "any.engine"
        plan.write_bytes(b"junk")
        monkeypatch.setattr(tensorrt, "plan_for", lambda *_, **__: plan)
        detector = on_torch(self.settings(tmp_path), weights, None)
        assert len(detector.detect([torch.zeros(SIZE, SIZE, 3, dtype=torch.uint8).numpy()], 0.5)[0]) == 16
        assert "TensorRT failed; torch serves it" in caplog.text

    def test_it_is_no_export_of_a_training(self) -> None:
        assert serving_engine("tensorrt", "cpu") == serving_engine("tensorrt", "auto") == "tensorrt"


@pytest.mark.skipif(bool(installed()), reason="TensorRT is installed")
def test_without_the_package(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(YoloopError, match="The package tensorrt is not installed"):
        plan_for(weights, tmp_path, device="cuda:0", **OPTIONS)
    assert not (tmp_path / "tensorrt").exists()


def test_choices_that_go_together_stay_on_torch(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(YoloopError, match="lost the scores of each class"):
        plan_for(weights, tmp_path, device="cuda:0", **OPTIONS | {"multiple": True})


@pytest.mark.usefixtures("package")
class TestPlans:
    """On a GPU that is only a name, with a build that only writes the file: what is kept where."""

    @pytest.fixture
    def builds(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []

        def build(weights: Path, **options: Any) -> None:
            made.append(options)
            weights.with_suffix(".onnx").write_bytes(b"half way")
            weights.with_suffix(".engine").write_bytes(b"plan")

        monkeypatch.setattr(tensorrt, "_build", build)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA L4")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
        return made

    def test_the_package_is_found_under_any_name_and_not_imported(self) -> None:
        assert installed() == "10.9.0"
        assert "tensorrt" not in sys.modules

    def test_one_is_built_once(self, weights: Path, tmp_path: Path, builds: list[dict[str, Any]]) -> None:
        plans = {plan_for(weights, tmp_path, device="cuda:0", **OPTIONS) for _ in range(2)}
        (plan,) = plans
        assert plan.read_bytes() == b"plan" and plan.name.startswith("NVIDIA-L4-")
        assert builds == [{"device": "cuda:0", "image_size": SIZE, "max_regions": 300, "batch": 8, "half": True}]
        assert list((tmp_path / "tensorrt").iterdir()) == [plan]
        assert list(weights.parent.iterdir()) == [weights]

    def test_another_size_is_another_plan(self, weights: Path, tmp_path: Path, builds: list[dict[str, Any]]) -> None:
        one = plan_for(weights, tmp_path, device="cuda:0", **OPTIONS)
        assert plan_for(weights, tmp_path, device="cuda:0", **OPTIONS | {"image_size": 2 * SIZE}) != one
        assert len(builds) == 2

    @pytest.mark.usefixtures("builds")
    def test_one_that_fails_leaves_nothing(
        self, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def build(weights: Path, **_: Any) -> None:
            weights.with_suffix(".engine").write_bytes(b"half a plan")
            raise RuntimeError("TensorRT engine build failed, check logs for errors")

        monkeypatch.setattr(tensorrt, "_build", build)
        with pytest.raises(RuntimeError, match="build failed"):
            plan_for(weights, tmp_path, device="cuda:0", **OPTIONS)
        assert list((tmp_path / "tensorrt").iterdir()) == []


def test_a_plan_is_for_one_checkpoint_gpu_and_release(weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    other.write_bytes(b"other")
    keys = [
        key_of(weights, "NVIDIA L4", "10.9.0"),
        key_of(other, "NVIDIA L4", "10.9.0"),
        key_of(weights, "NVIDIA L40", "10.9.0"),
        key_of(weights, "NVIDIA L4", "10.10.0"),
        key_of(weights, "NVIDIA L4", "10.9.0", "640"),
    ]
    assert len(set(keys)) == len(keys)
    assert key_of(weights, "NVIDIA L4", "10.9.0") == keys[0]


def test_the_last_used_plans_stay(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / f"{number}.engine"
        path.touch()
        os.utime(path, (number, number))
    prune(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"3.engine", "4.engine"}


def test_ultralytics_takes_the_arguments_of_the_build(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as it comes without a GPU."""
    from ultralytics.engine import exporter

    monkeypatch.setattr(exporter, "select_device", lambda _: torch.device("cpu"))
    with pytest.raises(AssertionError, match="export running on CPU but must be on GPU"):
        tensorrt._build(weights, device="cuda:0", image_size=SIZE, max_regions=300, batch=8, half=True)
