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
    Start,
    image_size,
    most_regions,
    recipe,
)
from backend.labels.networks import Task

CPU = Machine(gpu=False, half=False, threads=2)
STARTS: tuple[Start, ...] = ("random", "base", "own")
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


@given(images=st.integers(1, 200_000), start=st.sampled_from(STARTS), gpu=st.booleans())
def test_every_set_is_learned(images: int, start: Start, gpu: bool) -> None:
    chosen = recipe(images, start=start, machine=Machine(gpu=gpu, half=gpu, threads=8))
    arguments = chosen.arguments
    batches = math.ceil(images * chosen.repeats / arguments["batch"])
    assert arguments["batch"] == arguments["nbs"] >= 2
    assert arguments["epochs"] >= 3
    assert chosen.repeats >= 1
    assert arguments["epochs"] * batches >= (STEPS_FROM_SCRATCH if start == "random" else STEPS_WARM)
    assert arguments["epochs"] * chosen.repeats * images >= 10 * images  # each is seen ten times or more
    assert arguments["patience"] >= 8


def test_a_warm_start_is_shorter() -> None:
    warm, cold = (recipe(50, start=each, machine=CPU).arguments for each in ("base", "random"))
    assert warm["epochs"] < cold["epochs"]


@given(st.integers(1, 999))
def test_small_sets_get_no_mosaic(images: int) -> None:
    assert recipe(images, start="random", machine=CPU).arguments["mosaic"] == 0


@pytest.mark.parametrize("half", [True, False])
def test_half_precision_is_the_machines(half: bool) -> None:
    assert recipe(50, start="base", machine=Machine(gpu=True, half=half, threads=4)).arguments["amp"] is half
    assert recipe(50, start="base", machine=CPU).arguments["amp"] is False


@given(st.integers(1, 256))
def test_a_gpu_gets_its_images_from_all_threads_but_one(threads: int) -> None:
    workers = recipe(50, start="base", machine=Machine(gpu=True, half=True, threads=threads)).arguments["workers"]
    assert 1 <= workers <= MOST_WORKERS
    assert workers < max(2, threads)
    assert recipe(50, start="base", machine=Machine(gpu=False, half=False, threads=threads)).arguments["workers"] == 0


@pytest.mark.parametrize(("images", "size", "cache"), [(50, 160, "ram"), (800, 640, "ram"), (900, 640, False)])
def test_images_are_kept_in_memory_while_they_fit(images: int, size: int, cache: object) -> None:
    assert recipe(images, start="base", machine=CPU, image_size=size).arguments["cache"] == cache


@pytest.mark.parametrize("start", ["base", "own"])
@pytest.mark.parametrize("task", ["detect", "obb", "segment", "pose"])
def test_trained_weights_are_changed_in_small_steps(start: Start, task: Task) -> None:
    """ultralytics' own choice would be four times as much for one class, and its warm-up throws biases about."""
    arguments = recipe(20, start=start, machine=CPU, task=task).arguments
    assert (arguments["optimizer"], arguments["lr0"], arguments["momentum"]) == ("AdamW", 0.0005, 0.9)
    assert arguments["warmup_bias_lr"] == 0


@pytest.mark.parametrize(("start", "task"), [("random", "detect"), ("random", "pose"), ("base", "classify")])
def test_what_was_not_measured_is_left_to_ultralytics(start: Start, task: Task) -> None:
    arguments = recipe(20, start=start, machine=CPU, task=task).arguments
    assert arguments["optimizer"] == "auto" and "lr0" not in arguments


@given(images=st.integers(1, 10), start=st.sampled_from(("base", "own")))
def test_the_first_training_is_over_within_a_minute(images: int, start: Start) -> None:
    """Two cores need 58 ms for an image at 320 pixels, there and back."""
    chosen = recipe(images, start=start, machine=CPU, image_size=320)
    seen = chosen.arguments["epochs"] * images * chosen.repeats
    assert 400 <= seen <= 700  # 41 s at most


def test_nothing_is_frozen() -> None:
    assert "freeze" not in recipe(5, start="base", machine=CPU).arguments


@pytest.mark.parametrize(("limit", "most", "expected"), [(300, 12, 300), (300, 800, 1200), (300, 201, 302), (5, 0, 5)])
def test_a_model_may_find_half_as_many_again_as_are_annotated(limit: int, most: int, expected: int) -> None:
    assert most_regions(limit, most) == expected
