from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.fit.recipe import STEPS_FROM_SCRATCH, STEPS_WARM, image_size, recipe

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
    chosen = recipe(images, warm=warm, gpu=gpu)
    arguments = chosen.arguments
    batches = math.ceil(images * chosen.repeats / arguments["batch"])
    assert arguments["batch"] == arguments["nbs"] >= 2
    assert arguments["epochs"] >= 3
    assert chosen.repeats >= 1
    assert arguments["epochs"] * batches >= (STEPS_WARM if warm else STEPS_FROM_SCRATCH)
    assert arguments["epochs"] * chosen.repeats * images >= 10 * images  # each is seen ten times or more
    assert arguments["patience"] >= 8


def test_a_warm_start_is_shorter() -> None:
    assert recipe(50, warm=True, gpu=False).arguments["epochs"] < recipe(50, warm=False, gpu=False).arguments["epochs"]


@given(st.integers(1, 999))
def test_small_sets_get_no_mosaic(images: int) -> None:
    assert recipe(images, warm=False, gpu=False).arguments["mosaic"] == 0
