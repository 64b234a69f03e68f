"""The contract of `Detector`, run on every implementation of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.lively import lively
from support.tiny import CELLS, SIZE, tiny_yolo

from backend.engine.detector import Detector, Image
from backend.engine.export import export
from backend.engine.gpu import batching
from backend.engine.openvino import OpenVinoDetector
from backend.engine.parity import Parity, compare
from backend.engine.pool import EnginePool
from backend.engine.postprocess import predictor
from backend.engine.torch import TorchDetector, choose_device
from backend.labels.geometry import Detection

pytestmark = pytest.mark.group("detectors", minutes=1)

NAMES = ("Disc", "Squäre", "Triangle")


def picture(height: int, width: int) -> Image:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


class DetectorContract:
    """`detector` finds discs at 0.9 in the finest grid, squares at 0.6 and triangles at 0.1 in the coarser ones."""

    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls, tmp_path_factory: pytest.TempPathFactory) -> Detector:
        raise NotImplementedError

    def test_names(self, detector: Detector) -> None:
        assert dict(detector.names) == dict(enumerate(NAMES))

    def test_no_image(self, detector: Detector) -> None:
        assert detector.detect([], 0.5) == []

    def test_the_threshold_is_the_least_score(self, detector: Detector) -> None:
        for conf, expected in ((0.05, {0, 1, 2}), (0.25, {0, 1}), (0.7, {0}), (0.95, set())):
            (found,) = detector.detect([picture(SIZE, SIZE)], conf)
            assert {each.cls for each in found} == expected
            assert all(conf <= each.score <= 1 for each in found)

    def test_best_first(self, detector: Detector) -> None:
        (found,) = detector.detect([picture(SIZE, SIZE)], 0.05)
        assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
        assert [each.cls for each in found] == [0] * CELLS[0] + [1] * CELLS[1] + [2] * CELLS[2]

    def test_boxes_are_in_the_images_own_pixels(self, detector: Detector) -> None:
        for height, width in ((SIZE, SIZE), (2 * SIZE, 4 * SIZE), (100, 30)):
            (found,) = detector.detect([picture(height, width)], 0.25)
            assert all(0 <= each.box.x1 <= each.box.x2 <= width for each in found)
            assert all(0 <= each.box.y1 <= each.box.y2 <= height for each in found)
            # The grid covers the whole image, so its boxes reach (nearly) every side.
            assert max(each.box.x2 for each in found) > 0.9 * width
            assert max(each.box.y2 for each in found) > 0.9 * height
            assert min(each.box.x1 for each in found) < 0.1 * width

    def test_images_of_many_shapes_keep_their_order(self, detector: Detector) -> None:
        shapes = [(64, 64), (32, 96), (64, 64), (200, 100), (32, 96), (1, 1), (64, 65)] * 3
        together = detector.detect([picture(*shape) for shape in shapes], 0.25)
        assert len(together) == len(shapes)
        for shape, found in zip(shapes, together, strict=True):
            (alone,) = detector.detect([picture(*shape)], 0.25)
            assert [each.cls for each in found] == [each.cls for each in alone]
            for one, other in zip(found, alone, strict=True):
                assert one.score == pytest.approx(other.score, abs=1e-3)
                assert one.box.x2 == pytest.approx(other.box.x2, abs=0.5)

    def test_the_images_stay_as_they_were(self, detector: Detector) -> None:
        given = picture(50, 70)
        detector.detect([given], 0.25)
        assert (given == picture(50, 70)).all()

    def test_warming_changes_nothing(self, detector: Detector) -> None:
        before = detector.detect([picture(SIZE, SIZE)], 0.25)
        detector.warm()
        assert detector.detect([picture(SIZE, SIZE)], 0.25) == before

    def test_under_the_pool_with_many_thresholds(self, detector: Detector) -> None:
        pool = EnginePool()
        answers = [(conf, pool.submit(detector, picture(SIZE, SIZE), conf)) for conf in (0.05, 0.25, 0.7, 0.95) * 10]
        for conf, answer in answers:
            assert len({each.cls for each in answer.result(30)}) == {0.05: 3, 0.25: 2, 0.7: 1, 0.95: 0}[conf]
        pool.close()


def weights(folder: Path) -> Path:
    return tiny_yolo(folder / "tiny.pt", NAMES, {0: (0, 0.9), 1: (1, 0.6), 2: (2, 0.1)})


class TestTorch(DetectorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Detector]:
        yield TorchDetector(weights(tmp_path_factory.mktemp("torch")), device="cpu", image_size=SIZE, batch_size=4)

    def test_no_more_regions_than_asked_for(self, tmp_path: Path) -> None:
        detector = TorchDetector(weights(tmp_path), device="cpu", image_size=SIZE, max_regions=5)
        assert len(detector.detect([picture(SIZE, SIZE)], 0.05)[0]) == 5

    def test_what_is_no_checkpoint(self, tmp_path: Path) -> None:
        (tmp_path / "tiny.pt").write_bytes(b"junk")
        with pytest.raises(Exception, match=r".+"):
            TorchDetector(tmp_path / "tiny.pt", device="cpu")

    def test_devices(self) -> None:
        assert choose_device("cuda:3") == "cuda:3"
        assert choose_device("auto") in ("cpu", "cuda:0")


class TestTorchInBatches(DetectorContract):
    """As on a GPU, but on the CPU."""

    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Detector]:
        made = TorchDetector(weights(tmp_path_factory.mktemp("torch")), device="cpu", image_size=SIZE)
        made.batch, made._predictor = 4, batching(made._model._smart_load("predictor"))
        yield made

    @pytest.mark.parametrize(
        "yaml", ["yolo11n-obb.yaml", "yolo11n-seg.yaml", "yolo11n-pose.yaml", "yolo11n-cls.yaml", "yolo26n.yaml"]
    )
    def test_all_tasks_find_what_they_find_in_single_images(self, yaml: str) -> None:
        images = [picture(48, 64), picture(480, 640), picture(50, 50), picture(47, 63), picture(100, 100)]
        detector = TorchDetector(Path(yaml), device="cpu", image_size=SIZE, max_regions=3)
        expected = detector.detect(images, 0.0)
        own = predictor(detector.task, multiple=False) or detector._model._smart_load("predictor")
        detector.batch, detector._predictor = 4, batching(own)
        for one, other in zip(expected, detector.detect(images, 0.0), strict=True):
            assert [each.score for each in one] == pytest.approx([each.score for each in other], abs=1e-4)
            assert len(one) > 2


@pytest.mark.training
class TestOpenVino(DetectorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Detector]:
        folder = tmp_path_factory.mktemp("openvino")
        export(weights(folder), folder / "tiny.xml")
        yield OpenVinoDetector(folder / "tiny.xml", precision="f32", image_size=SIZE)

    def test_no_more_regions_than_asked_for(self, tmp_path: Path) -> None:
        export(weights(tmp_path), tmp_path / "tiny.xml")
        detector = OpenVinoDetector(tmp_path / "tiny.xml", names=("a", "b", "c"), image_size=SIZE, max_regions=5)
        assert len(detector.detect([picture(SIZE, SIZE)], 0.05)[0]) == 5
        assert detector.names == {0: "a", 1: "b", 2: "c"}


@pytest.mark.training
def test_both_engines_find_the_same(tmp_path: Path) -> None:
    checkpoint = weights(tmp_path)
    export(checkpoint, tmp_path / "tiny.xml")
    torch = TorchDetector(checkpoint, device="cpu", image_size=SIZE)
    openvino = OpenVinoDetector(tmp_path / "tiny.xml", precision="f32", image_size=SIZE)
    for shape in ((SIZE, SIZE), (90, 320), (333, 77), (161, 479), (20, 30)):
        (one,), (other,) = torch.detect([picture(*shape)], 0.05), openvino.detect([picture(*shape)], 0.05)
        assert [(each.cls, round(each.score, 4)) for each in one] == [
            (each.cls, round(each.score, 4)) for each in other
        ]
        assert sorted(map(corners, one)) == pytest.approx(np.array(sorted(map(corners, other))), abs=1e-2)


SHAPES = ((160, 160), (90, 320), (333, 77), (161, 479), (20, 30))
TASKS = ("", "-obb", "-seg", "-pose")

Made = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Makes the checkpoint and the export of an architecture, once."""

    @cache
    def make(architecture: str) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp(architecture)
        checkpoint = lively(folder / "network.pt", f"{architecture}.yaml")
        export(checkpoint, folder / "network.xml")
        return checkpoint, folder / "network.xml"

    return make


def differ(torch: Detector, openvino: Detector) -> Parity:
    """What two engines find on images of many shapes, compared; they find about as much."""
    images = [picture(*shape) for shape in SHAPES]
    expected, found = torch.detect(images, 0.25), openvino.detect(images, 0.2)
    for here, there in zip(expected, found, strict=True):
        assert [each.score for each in there] == sorted((each.score for each in there), reverse=True)
        assert sum(each.score >= 0.25 for each in there) == pytest.approx(
            sum(each.score >= 0.25 for each in here), abs=2
        )
    assert torch.embed(images) == pytest.approx(openvino.embed(images), abs=1e-4)
    assert openvino.names == torch.names and openvino.task == torch.task
    return compare(torch.task, expected, found, [160 / max(shape) for shape in SHAPES])


@pytest.mark.training
@pytest.mark.parametrize("task", TASKS)
def test_every_task_finds_the_same_on_both_engines(made: Made, task: str) -> None:
    checkpoint, network = made(f"yolo11n{task}")
    torch = TorchDetector(checkpoint, device="cpu", image_size=160)
    parity = differ(torch, OpenVinoDetector(network, precision="f32", image_size=160))
    assert parity.objects > 20
    assert parity.pixels < 0.05 and parity.overlap > 0.98


@pytest.mark.training
@pytest.mark.parametrize("task", TASKS)
def test_a_network_without_suppression(tmp_path: Path, task: str) -> None:
    from ultralytics import YOLO

    model = YOLO(str(lively(tmp_path / "both.pt", f"yolo26n{task}.yaml")))
    model.model.end2end = True
    model.model.fuse(verbose=False)  # which then leaves the head that needs none
    model.save(str(tmp_path / "network.pt"))
    export(tmp_path / "network.pt", tmp_path / "network.xml")
    torch = TorchDetector(tmp_path / "network.pt", device="cpu", image_size=160)
    openvino = OpenVinoDetector(tmp_path / "network.xml", precision="f32", image_size=160)
    assert openvino._end_to_end
    parity = differ(torch, openvino)
    assert parity.objects > 5
    assert parity.pixels < 0.05 and parity.overlap > 0.98


@pytest.mark.training
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("multiple", [True, False])
@pytest.mark.parametrize("size", [160, 100])
def test_choices_score_the_same_on_both_engines(made: Made, whole: bool, multiple: bool, size: int) -> None:
    checkpoint, network = made("yolo11n-cls")
    options: dict[str, Any] = {"whole": whole, "multiple": multiple, "image_size": size}
    torch = TorchDetector(checkpoint, device="cpu", **options)
    openvino = OpenVinoDetector(network, precision="f32", **options)
    parity = differ(torch, openvino)
    assert parity.objects == 1000 * len(SHAPES) and parity.score < 1e-4
    (found,) = openvino.detect([picture(40, 90)], 0.5)
    assert sum(each.score for each in found) == pytest.approx(1) or multiple
    assert {(each.box.x2, each.box.y2) for each in found} == {(90, 40)}


@pytest.mark.training
@pytest.mark.parametrize("task", TASKS)
def test_a_size_that_the_stride_does_not_divide(made: Made, task: str) -> None:
    checkpoint, network = made(f"yolo11n{task}")
    torch = TorchDetector(checkpoint, device="cpu", image_size=150)
    parity = differ(torch, OpenVinoDetector(network, precision="f32", image_size=150))
    assert parity.objects > 20 and parity.pixels < 0.05


ALONE = """
import sys
import numpy as np
from pathlib import Path
from backend.engine.openvino import OpenVinoDetector

detector = OpenVinoDetector(Path(sys.argv[1]), precision="f32", image_size=160)
(found,) = detector.detect([np.random.default_rng(90).integers(0, 256, (90, 320, 3), np.uint8)], 0.25)
print(detector.task, len(found), [name for name in ("torch", "torchvision", "ultralytics") if name in sys.modules])
"""


@pytest.mark.training
@pytest.mark.parametrize("task", [*TASKS, "-cls"])
def test_an_export_runs_without_torch(made: Made, task: str) -> None:
    _, network = made(f"yolo11n{task}")
    command = [sys.executable, "-c", ALONE, str(network)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    told, count, imported = ended.stdout.split(maxsplit=2)
    assert {"": "detect", "-seg": "segment", "-cls": "classify"}.get(task, task[1:]) == told
    assert int(count) > 5 and imported.strip() == "[]"


@pytest.mark.training
@pytest.mark.parametrize("task", TASKS)
def test_no_task_gives_more_regions_than_asked_for(made: Made, task: str) -> None:
    _, network = made(f"yolo11n{task}")
    detector = OpenVinoDetector(network, precision="f32", image_size=160, max_regions=3)
    (found,) = detector.detect([picture(160, 160)], 0.01)
    assert len(found) == 3


def corners(found: Detection) -> list[float]:
    return [found.box.x1, found.box.y1, found.box.x2, found.box.y2]


@pytest.mark.parametrize(
    ("yaml", "task", "filled"),
    [
        ("yolo11n-obb.yaml", "obb", "rotated"),
        ("yolo11n-pose.yaml", "pose", "points"),
        ("yolo11n-cls.yaml", "classify", ""),
        ("yolo26n-obb.yaml", "obb", "rotated"),
        ("yolo26n-pose.yaml", "pose", "points"),
    ],
)
def test_every_task_fills_what_it_knows(yaml: str, task: str, filled: str) -> None:
    detector = TorchDetector(Path(yaml), device="cpu", image_size=SIZE, max_regions=3)
    assert detector.task == task
    found, again = detector.detect([picture(40, 90), picture(40, 90)], 0.0)
    assert found and len(found) == len(again)
    assert all(bool(getattr(each, name)) == (name == filled) for each in found for name in ("rotated", "points"))
    if task == "classify":
        assert sum(each.score for each in found) == pytest.approx(1, abs=1e-3)
        assert {(each.box.x2, each.box.y2) for each in found} == {(90, 40)}


def test_masks_lie_inside_the_image(tmp_path: Path) -> None:
    from ultralytics import YOLO

    model = YOLO("yolo11n-seg.yaml", task="segment")
    model.model.model[-1].cv4[0][-1].bias.data.fill_(1.0)  # so that random prototypes make masks that are not empty
    model.save(str(tmp_path / "seg.pt"))
    detector = TorchDetector(tmp_path / "seg.pt", device="cpu", image_size=SIZE, max_regions=50)
    (found,) = detector.detect([picture(37, 91)], 0.0)
    masks = [each.mask for each in found if each.mask is not None]
    assert masks
    for mask in masks:
        height, width = mask.bits.shape
        assert mask.x >= 0 and mask.y >= 0 and mask.x + width <= 91 and mask.y + height <= 37
        assert mask.bits.any()


def test_names_can_be_given(tmp_path: Path) -> None:
    made = TorchDetector(weights(tmp_path), names=("a", "b", "c"), device="cpu", image_size=SIZE)
    assert made.names == {0: "a", 1: "b", 2: "c"}
