from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from support.lively import lively

from backend.engine import compiled_shapes
from backend.engine.compiled_shapes import FIXED, OFTEN, RECENT, Shapes
from backend.engine.export import export

pytestmark = pytest.mark.training

A, B, C = ((1, side, 96, 3) for side in (64, 96, 128))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    export(lively(folder / "n.pt", "yolo11n.yaml"), folder / "n.xml")
    return folder / "n.xml"


@pytest.fixture
def made(network: Path) -> Shapes:
    return Shapes(ov.Core(), network, {"INFERENCE_PRECISION_HINT": "f32"})


def ask(made: Shapes, shape: tuple[int, ...], times: int) -> Any:
    return [made.request(shape) for _ in range(times)][-1]


def is_fixed(request: Any) -> bool:
    return not request.model_inputs[0].partial_shape.is_dynamic


def test_a_shape_that_comes_often_is_compiled_for(made: Shapes) -> None:
    before = ask(made, A, OFTEN - 1)
    assert not is_fixed(before)
    fixed = made.request(A)
    assert is_fixed(fixed)
    assert made.request(A) is fixed
    assert made.request(B) is before


def test_often_is_told_by_the_last_images(made: Shapes) -> None:
    ask(made, A, OFTEN - 1)
    for number in range(RECENT):
        made.request((1, 32, 32 * (1 + number % 5), 3))
    assert not is_fixed(made.request(A))


def test_a_shape_that_comes_no_more_makes_room(made: Shapes) -> None:
    assert FIXED == 2
    kept = ask(made, A, OFTEN), ask(made, B, OFTEN)
    assert not is_fixed(ask(made, C, OFTEN))
    assert made.request(A) is kept[0]
    assert is_fixed(ask(made, C, RECENT))
    assert made.request(A) is kept[0]
    assert not is_fixed(made.request(B))


def test_both_ways_find_the_same(made: Shapes) -> None:
    image = np.random.default_rng(0).integers(0, 256, A, np.uint8)
    found = []
    for request in (made.request(A), ask(made, A, OFTEN)):
        request.infer([image])
        found.append([request.get_output_tensor(output).data.copy() for output in range(2)])
    for any_shape, fixed in zip(*found, strict=True):
        assert any_shape.shape == fixed.shape
        assert np.abs(any_shape).max() > 0
        np.testing.assert_allclose(fixed, any_shape, rtol=1e-3, atol=1e-3)


def test_a_large_network_takes_its_memory_once(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_shapes, "LARGEST", 1000)
    assert not is_fixed(ask(Shapes(ov.Core(), network, {}), A, RECENT))


def test_a_network_that_cannot_be_had_again_serves_on(made: Shapes, network: Path, tmp_path: Path) -> None:
    for ending in (".xml", ".bin"):
        (tmp_path / f"n{ending}").write_bytes(network.with_suffix(ending).read_bytes())
    alone = Shapes(ov.Core(), tmp_path / "n.xml", {})
    (tmp_path / "n.xml").unlink()
    assert not is_fixed(ask(alone, A, RECENT))
