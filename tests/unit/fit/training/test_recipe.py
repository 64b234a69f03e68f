from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.fit.training.recipe import (
    MOST_WORKERS,
    STEPS_FROM_SCRATCH,
    STEPS_WARM,
    Machine,
    image_size,
    most_regions,
    recipe,
)

CPU = Machine(gpu=False, half=False, threads=2)
SIZES = st.lists(st.tuples(st.integers(1, 8000), st.integers(1, 8000)), max_size=50)


@pytest.mark.parametrize(
    ("sizes", "largest", "expected"),
    [
        ([(160, 160)], 640, 160),
        ([(161, 100)], 640, 192),
        ([(100, 161)], 640, 192),
        ([(4000, 3000)], 640, 640),
        ([(10, 10)], 640, 32),
        ([(100, 100), (200, 200), (4000, 3000)], 640, 224),
        ([], 640, 640),
        ([(4000, 3000)], 650, 640),
        ([(4000, 3000)], 33, 32),
    ],
)
def test_the_input_fits_the_images(sizes: list[tuple[int, int]], largest: int, expected: int) -> None:
    assert image_size(sizes, largest) == expected


@given(SIZES, st.integers(32, 4096))
def test_the_input_is_one_that_yolo_takes(sizes: list[tuple[int, int]], largest: int) -> None:
    size = image_size(sizes, largest)
    assert size % 32 == 0
    assert 32 <= size <= largest


@given(images=st.integers(1, 200_000), warm=st.booleans(), gpu=st.booleans())
def test_every_set_is_learned(images: int, warm: bool, gpu: bool) -> None:
    chosen = recipe(images, warm=warm, machine=Machine(gpu=gpu, half=gpu, threads=8))
    arguments = chosen.arguments
    batches = math.ceil(images * chosen.repeats / arguments["batch"])
    assert arguments["batch"] == arguments["nbs"] >= 2
    assert arguments["epochs"] >= 3
    assert chosen.repeats >= 1
    assert arguments["epochs"] * batches >= (STEPS_WARM if warm else STEPS_FROM_SCRATCH)
    assert arguments["epochs"] * chosen.repeats * images >= 10 * images  # each is seen ten times or more
    assert arguments["patience"] >= 8


def test_a_warm_start_is_shorter() -> None:
    warm, cold = (recipe(50, warm=each, machine=CPU).arguments for each in (True, False))
    assert warm["epochs"] < cold["epochs"]


@given(st.integers(1, 999))
def test_small_sets_get_no_mosaic(images: int) -> None:
    assert recipe(images, warm=False, machine=CPU).arguments["mosaic"] == 0


@pytest.mark.parametrize("half", [True, False])
def test_half_precision_is_the_machines(half: bool) -> None:
    assert recipe(50, warm=True, machine=Machine(gpu=True, half=half, threads=4)).arguments["amp"] is half
    assert recipe(50, warm=True, machine=CPU).arguments["amp"] is False


@given(st.integers(1, 256))
def test_a_gpu_gets_its_images_from_all_threads_but_one(threads: int) -> None:
    workers = recipe(50, warm=True, machine=Machine(gpu=True, half=True, threads=threads)).arguments["workers"]
    assert 1 <= workers <= MOST_WORKERS
    assert workers < max(2, threads)
    assert recipe(50, warm=True, machine=Machine(gpu=False, half=False, threads=threads)).arguments["workers"] == 0


@pytest.mark.parametrize(("images", "size", "cache"), [(50, 160, "ram"), (800, 640, "ram"), (900, 640, False)])
def test_images_are_kept_in_memory_while_they_fit(images: int, size: int, cache: object) -> None:
    assert recipe(images, warm=True, machine=CPU, image_size=size).arguments["cache"] == cache


def test_nothing_is_frozen() -> None:
    assert "freeze" not in recipe(5, warm=True, machine=CPU).arguments


@pytest.mark.parametrize(("limit", "most", "expected"), [(300, 12, 300), (300, 800, 1200), (300, 201, 302), (5, 0, 5)])
def test_a_model_may_find_half_as_many_again_as_are_annotated(limit: int, most: int, expected: int) -> None:
    assert most_regions(limit, most) == expected
