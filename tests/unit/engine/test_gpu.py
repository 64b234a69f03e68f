"""What a GPU asks for, as far as a CPU can tell: the same code there, in single and half precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import SIZE, tiny_yolo
from ultralytics import YOLO
from ultralytics.data.augment import LetterBox
from ultralytics.engine.predictor import BasePredictor
from ultralytics.nn.backends.pytorch import PyTorchBackend

from backend.engine.detector import Image
from backend.engine.gpu import (
    batching,
    decode_in_full,
    gains_by_half,
    half_precision,
    is_out_of_memory,
    network_shape,
)
from backend.engine.pool import EnginePool
from backend.engine.postprocess import predictor
from backend.engine.torch import TorchDetector
from backend.errors import Busy

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."


def picture(height: int, width: int) -> Image:
    return np.random.default_rng(height * 10_000 + width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "capability", "gains"),
    [
        ("Tesla V100-SXM2-16GB", (7, 0), True),
        ("Tesla T4", (7, 5), True),
        ("NVIDIA GeForce RTX 4090", (8, 9), True),
        ("NVIDIA H100 80GB HBM3", (9, 0), True),
        ("NVIDIA GeForce GTX 1080 Ti", (6, 1), False),
        ("NVIDIA GeForce GTX 1660 Ti", (7, 5), False),
        ("NVIDIA T1000 8GB", (7, 5), False),
    ],
)
def test_half_precision_is_for_chips_with_tensor_cores(name: str, capability: tuple[int, int], gains: bool) -> None:
    assert gains_by_half(name, capability) is gains


def test_a_cpu_computes_in_single_precision() -> None:
    assert not half_precision("cpu") and not half_precision("mps")


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.cuda.OutOfMemoryError(FULL), True),
        (RuntimeError(FULL), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_that_the_memory_is_full(error: Exception, full: bool) -> None:
    assert is_out_of_memory(error) is full


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(32, 1300), st.sampled_from([32, 64]))
def test_the_shape_of_the_input_is_the_one_of_ultralytics(height: int, width: int, size: int, stride: int) -> None:
    whole = stride * math.ceil(size / stride)
    params = LetterBox(whole, auto=True, stride=stride).get_params({"img": np.empty((height, width, 0), np.uint8)})
    (across, down), pads = params["new_unpad"], [params[side] for side in ("top", "bottom", "left", "right")]
    assert network_shape(height, width, size, stride) == (down + sum(pads[:2]), across + sum(pads[2:]))


TASKS = {
    "detect": ("yolo11n.yaml", False),
    "obb": ("yolo11n-obb.yaml", False),
    "segment": ("yolo11n-seg.yaml", False),
    "pose": ("yolo11n-pose.yaml", False),
    "classify": ("yolo11n-cls.yaml", False),
    "one against the rest": ("yolo11n-cls.yaml", True),
}


class TestBatching:
    @pytest.fixture(scope="class", params=list(TASKS))
    @classmethod
    def pair(cls, request: pytest.FixtureRequest) -> tuple[BasePredictor, BasePredictor]:
        """The predictor of a task as it is, and the one for batches, ready for images of 160 pixels."""
        yaml, multiple = TASKS[request.param]
        model = YOLO(yaml)
        own = predictor(model.task, multiple=multiple) or model._smart_load("predictor")
        made = []
        for each in (own, batching(own)):
            model.predict([picture(160, 160)], predictor=each, imgsz=160, device="cpu", verbose=False)
            assert type(model.predictor) is each
            made.append(model.predictor)
        return made[0], made[1]

    @pytest.mark.parametrize("shape", [(160, 160), (90, 320), (333, 77), (1, 500), (161, 479)])
    @pytest.mark.parametrize("count", [1, 3])
    def test_images_alike_are_what_ultralytics_makes_of_them(
        self, pair: tuple[Any, Any], shape: tuple[int, int], count: int
    ) -> None:
        own, other = pair
        images = [picture(*shape) + np.uint8(number) for number in range(count)]
        expected, made = own.preprocess(images), other.preprocess(images)
        assert made.dtype == expected.dtype and made.is_contiguous() == expected.is_contiguous()
        assert torch.equal(made, expected)

    def test_those_of_many_sizes_are_each_as_if_alone(self, pair: tuple[Any, Any]) -> None:
        own, other = pair
        images = [picture(90, 160), picture(900, 1600), picture(72, 128), picture(85, 160)]
        made = other.preprocess(images)
        for image, one in zip(images, made, strict=True):
            assert torch.equal(one, own.preprocess([image])[0])

    def test_a_tensor_is_left_to_ultralytics(self, pair: tuple[Any, Any]) -> None:
        own, other = pair
        given = torch.rand(2, 3, 64, 64)
        assert torch.equal(other.preprocess(given), own.preprocess(given))

    def test_it_is_one_class(self) -> None:
        own = YOLO("yolo11n.yaml")._smart_load("predictor")
        assert batching(own) is batching(own)  # ultralytics sets up anew for another class


@pytest.mark.parametrize("family", ["yolo11n", "yolo26n"])
@pytest.mark.parametrize("task", ["", "-obb", "-seg", "-pose"])
def test_places_are_finer_than_half_precision(family: str, task: str) -> None:
    """In half precision a coordinate beyond 512 pixels is a multiple of 0.5."""
    torch.manual_seed(0)
    network = YOLO(f"{family}{task}.yaml").model.eval()
    head = network.model[-1]
    points = getattr(head, "cv4_kpts", getattr(head, "cv4", ())) if task == "-pose" else ()
    for branch in (*head.cv2, *points):
        last = branch[-1] if isinstance(branch, torch.nn.Sequential) else branch
        last.bias.data.normal_(0, 1)
    image = torch.rand(1, 3, 64, 640)

    def across(image: torch.Tensor) -> torch.Tensor:
        """Every x of the network's input that it tells of."""
        with torch.inference_mode():
            found = network(image)[0]
        found = found[0] if isinstance(found, tuple) else found
        rows = range(4 + head.nc, found.shape[1], 3) if task == "-pose" else ()
        return found[0, [0, *rows]].float()

    single = across(image)
    network.half()
    half = across(image.half())
    decode_in_full(head)
    full = across(image.half())
    beyond = (single > 513) & (single < 1000)
    assert beyond.sum() > 50
    assert (half[beyond] * 2 % 1 == 0).all()
    assert (full[beyond] * 2 % 1 != 0).float().mean() > 0.9
    assert (full - single)[beyond].abs().mean() < (half - single)[beyond].abs().mean() / 3


def test_a_classify_network_has_no_places() -> None:
    decode_in_full(YOLO("yolo11n-cls.yaml").model.model[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("yaml", "multiple"),
    [
        *((f"{each}{task}.yaml", False) for each in ("yolo11n", "yolo26n") for task in ("", "-obb", "-seg", "-pose")),
        ("yolo11n-cls.yaml", False),
        ("yolo11n-cls.yaml", True),
    ],
)
def test_half_precision_finds_what_single_precision_finds(
    yaml: str, multiple: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole path of a GPU, from pixels to objects, in half precision, which the CPU is made to compute in."""
    torch.manual_seed(0)
    network = YOLO(yaml)
    for module in network.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():  # so that a random network makes something of its image
        network.model.train()(torch.rand(4, 3, 160, 160))
    network.save(str(tmp_path / "network.pt"))
    detector = TorchDetector(tmp_path / "network.pt", multiple=multiple, device="cpu", image_size=160, max_regions=20)
    images = [picture(90, 160), picture(180, 320), picture(100, 40)]
    expected, vectors = detector.detect(images, 0.0), detector.embed(images)

    inner = PyTorchBackend.__init__

    def halved(self: Any, *args: Any, **kwargs: Any) -> None:
        inner(self, *args, **kwargs | {"fp16": True})

    monkeypatch.setattr(PyTorchBackend, "__init__", halved)
    own = predictor(detector.task, multiple=multiple) or detector._model._smart_load("predictor")
    detector.batch, detector._predictor = 8, batching(own)
    found = detector.detect(images, 0.0)
    assert detector._model.predictor.model.fp16
    for one, other in zip(expected, found, strict=True):
        assert len(one) == len(other) > 5
        # A random network makes much of small differences, and suppression more of them further down.
        assert other[0].score == pytest.approx(one[0].score, abs=0.05)
        for part in ("mask", "points", "rotated"):
            assert bool(getattr(one[0], part)) == bool(getattr(other[0], part))
    assert (detector.embed(images) * vectors).sum(axis=1) == pytest.approx(1, abs=0.01)


class TestFullMemory:
    """A GPU that others use, too. The error is raised where the network would compute; all else is real."""

    @pytest.fixture
    def detector(self, tmp_path: Path) -> TorchDetector:
        checkpoint = tiny_yolo(tmp_path / "tiny.pt", ("Disc", "Square"), {1: (0, 0.9)})
        made = TorchDetector(checkpoint, device="cpu", image_size=SIZE)
        made.batch, made._predictor = 8, batching(made._model._smart_load("predictor"))
        return made

    @pytest.fixture
    def room(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[torch.Tensor], bool]], list[int]]]:
        """Let only those batches through that fit; gives the sizes of all that were tried."""

        def only(fits: Callable[[torch.Tensor], bool]) -> list[int]:
            tried: list[int] = []
            inner = BasePredictor.inference

            def inference(self: Any, im: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
                tried.append(len(im))
                if not fits(im):
                    raise torch.cuda.OutOfMemoryError(FULL)
                return inner(self, im, *args, **kwargs)

            monkeypatch.setattr(BasePredictor, "inference", inference)
            return tried

        yield only

    def test_a_batch_is_run_one_by_one(self, detector: TorchDetector, room: Any) -> None:
        images = [picture(SIZE, SIZE), picture(SIZE, 2 * SIZE), picture(SIZE, SIZE)]
        expected = detector.detect(images, 0.5)
        tried = room(lambda im: len(im) == 1)
        assert detector.detect(images, 0.5) == expected
        assert tried == [2, 1, 1, 1]

    def test_an_image_without_room_costs_no_other(self, detector: TorchDetector, room: Any) -> None:
        black, white = np.zeros((SIZE, SIZE, 3), np.uint8), np.full((SIZE, SIZE, 3), 255, np.uint8)
        room(lambda im: len(im) == 1 and float(im.max()) < 1)
        pool = EnginePool()
        answers = [pool.submit(detector, each, 0.5) for each in (black, white, black, white, black)]
        for number, answer in enumerate(answers):
            if number % 2:
                with pytest.raises(Busy, match="no memory left for this image"):
                    answer.result(30)
            else:
                assert len(answer.result(30)) == 16
        pool.close()

    def test_what_was_full_once_is_not_for_ever(self, detector: TorchDetector, room: Any) -> None:
        full = iter([False])
        room(lambda _: next(full, True))
        with pytest.raises(Busy):
            detector.detect([picture(SIZE, SIZE)], 0.5)
        assert len(detector.detect([picture(SIZE, SIZE)], 0.5)[0]) == 16

    def test_an_embedding_has_no_room_either(self, detector: TorchDetector, room: Any) -> None:
        room(lambda _: False)
        with pytest.raises(Busy):
            detector.embed([picture(SIZE, SIZE)])

    def test_weights_without_room_are_copied_later(
        self, detector: TorchDetector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inner = BasePredictor.setup_model
        full = iter([True])

        def setup_model(self: Any, *args: Any, **kwargs: Any) -> None:
            if next(full, False):
                raise torch.cuda.OutOfMemoryError(FULL)
            inner(self, *args, **kwargs)

        monkeypatch.setattr(BasePredictor, "setup_model", setup_model)
        with pytest.raises(Busy):
            detector.detect([picture(SIZE, SIZE)], 0.5)
        assert len(detector.detect([picture(SIZE, SIZE)], 0.5)[0]) == 16

    def test_another_error_stays_what_it_is(self, detector: TorchDetector, monkeypatch: pytest.MonkeyPatch) -> None:
        def inference(*_: Any, **__: Any) -> Any:
            raise RuntimeError("CUDA error: device-side assert triggered")

        monkeypatch.setattr(BasePredictor, "inference", inference)
        with pytest.raises(RuntimeError, match="device-side assert"):
            detector.detect([picture(SIZE, SIZE)], 0.5)
