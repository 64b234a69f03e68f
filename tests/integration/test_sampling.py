"""The score of a task, under each strategy, and which images it takes for alike."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.bodies import config, predict, setup, task
from support.web import encoded

from backend.app import create_app
from backend.server.process import Serving

Start = Callable[..., Serving]
FINDS = {0: (0, 0.9), 1: (1, 0.6), 2: (2, 0.1)}


def noise(seed: int, jitter: int = 0) -> str:
    """A picture of its own, or nearly the same one again."""
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.NEAREST)).astype(int)
    shaken = np.clip(pixels + np.random.default_rng(1000 + jitter).integers(-2, 3, pixels.shape), 0, 255)
    png = encoded(Image.fromarray(shaken.astype(np.uint8)))
    return "data:image/png;base64," + base64.b64encode(png).decode()


def scores(serving: Serving, tasks: list[dict[str, Any]], label_config: str | None = None) -> list[float]:
    client = create_app(serving=serving).test_client()
    answer = client.post("/predict", json=predict(tasks, label_config)).get_json()
    return [entry["score"] for entry in answer["results"]]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        # Discs with 0.9 and squares with 0.6 are shown, triangles with 0.1 are not.
        ("least-confidence", 0.6),
        ("margin", 0.2),
        ("mean", (64 * 0.9 + 16 * 0.6) / 80),
    ],
)
def test_the_setting_chooses_what_the_score_says(start: Start, strategy: str, expected: float) -> None:
    (score,) = scores(start(sampling=strategy), [task(1)])
    assert score == pytest.approx(expected, abs=0.01)


def test_the_attribute_goes_before_the_setting_and_changes_the_version(start: Start) -> None:
    serving = start(sampling="least-confidence")
    plain, named = config(), config('model_sampling="margin"')
    assert scores(serving, [task(1)], plain)[0] == pytest.approx(0.6, abs=0.01)
    assert scores(serving, [task(1)], named)[0] == pytest.approx(0.2, abs=0.01)
    client = create_app(serving=serving).test_client()
    versions = [client.post("/setup", json=setup(each)).get_json()["model_version"] for each in (plain, named)]
    assert versions[0] == "yoloop-v0"
    assert versions[1].startswith("yoloop-v0-")
    answer = client.post("/setup", json=setup(config('model_sampling="best"')))
    assert answer.status_code == 400
    assert "least-confidence" in answer.get_json()["hint"]


def test_near_duplicates_do_not_come_in_a_row(start: Start) -> None:
    serving = start(sampling="diverse")
    alike = [task(number, noise(1, jitter=number)) for number in range(10)]
    others = [task(10 + number, noise(2 + number)) for number in range(4)]
    first = scores(serving, [*alike, *others])
    order = sorted(range(14), key=lambda index: first[index])
    assert sum(index < 10 for index in order[:5]) == 1, first
    # Across requests: what is like an image that was answered before is worth less than a new one.
    again, new = scores(serving, [task(50, noise(1, jitter=50)), task(51, noise(99))])
    assert again > new
    # A task is not its own near-duplicate.
    assert scores(serving, [task(51, noise(99))])[0] == pytest.approx(new, abs=0.05)


def test_diverse_finds_the_same_objects(start: Start) -> None:
    serving = start(sampling="diverse")
    client = create_app(serving=serving).test_client()
    (entry,) = client.post("/predict", json=predict([task(1, noise(1))])).get_json()["results"]
    assert len(entry["result"]) == 80
    (entry,) = client.post("/predict", json=predict([task(1, noise(1))])).get_json()["results"]
    assert len(entry["result"]) == 80, "looking for likeness must not change what the model finds next"
