from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.labels.attributes import STRATEGIES as WORDS
from backend.labels.geometry import Box, Detection
from backend.labels.schema import Control
from backend.predict.sampling import STRATEGIES, Place, distances, places_of

BOXES = Control("label", "image", "rectangle", "image", ("Car", "Plane"))
LABELS = {0: "Car", 1: "Plane"}
SHARE = st.floats(0, 1)


def found(cls: int, score: float, left: float = 0.0) -> Detection:
    return Detection(cls, score, Box(left, 0, left + 10, 10))


def score(name: str, *objects: Detection, control: Control = BOXES, threshold: float = 0.25) -> float:
    return STRATEGIES[name].score(places_of(objects, control, LABELS, threshold))  # type: ignore[index]


@st.composite
def images(draw: st.DrawFn) -> list[Detection]:
    rows = draw(st.lists(st.tuples(st.integers(0, 2), SHARE, st.integers(0, 3)), max_size=6))
    return [found(cls, share, 8.0 * left) for cls, share, left in rows]


@pytest.mark.parametrize("name", WORDS)
@given(images(), SHARE, SHARE)
def test_a_score_lies_between_0_and_1(name: str, objects: list[Detection], threshold: float, distance: float) -> None:
    places = places_of(objects, BOXES, LABELS, threshold)
    for place in places:
        assert sum(place.readings) == pytest.approx(1)
        assert min(place.readings) >= -1e-9
    assert -1e-9 <= STRATEGIES[name].score(places, distance) <= 1 + 1e-9  # type: ignore[index]


@pytest.mark.parametrize("name", WORDS)
def test_what_is_in_doubt_comes_before_what_is_sure(name: str) -> None:
    assert score(name, found(0, 0.5)) < score(name, found(0, 0.95))


def test_least_confidence_is_that_of_the_least_sure_object() -> None:
    assert score("least-confidence", found(0, 0.9), found(1, 0.4, 50)) == pytest.approx(0.4)


def test_margin_is_the_distance_to_the_next_reading() -> None:
    assert score("margin", found(0, 0.6)) == pytest.approx(0.2)
    # Another label at the same place is a nearer rival than nothing at all; at another place it is none.
    assert score("margin", found(0, 0.55), found(1, 0.4)) == pytest.approx(0.15)
    assert score("margin", found(0, 0.9), found(1, 0.8, 50)) == pytest.approx(0.6)


def test_entropy_is_the_mean_over_the_places() -> None:
    assert score("entropy", found(0, 0.5)) == pytest.approx(0)
    assert score("entropy", found(0, 0.5), found(1, 1.0, 50)) == pytest.approx(0.5)


def test_mean_is_that_of_what_is_shown() -> None:
    assert score("mean", found(0, 0.9), found(1, 0.5, 50), found(1, 0.2, 90)) == pytest.approx(0.7)


@pytest.mark.parametrize("name", WORDS)
def test_an_image_without_detections_is_placed_by_its_strongest_candidate(name: str) -> None:
    nearly, hardly = score(name, found(0, 0.24), found(1, 0.02, 50)), score(name, found(0, 0.02), found(1, 0.01, 50))
    assert 0 < nearly < hardly < 1
    assert score(name) == 1
    assert score(name, found(5, 0.9)) == 1, "a class without a label says nothing"


@pytest.mark.parametrize("name", ["least-confidence", "margin", "entropy"])
def test_an_object_that_was_nearly_suggested_makes_a_sure_image_less_sure(name: str) -> None:
    assert score(name, found(0, 0.99), found(1, 0.24, 50)) < score(name, found(0, 0.99), found(1, 0.01, 50))


def test_one_choice_is_as_sure_as_it_stands_before_the_next() -> None:
    choices = Control("c", "image", "choices", "image", ("Car", "Plane"))
    objects = [found(0, 0.7), found(1, 0.3)]
    assert score("least-confidence", *objects, control=choices) == pytest.approx(0.7)
    assert score("margin", *objects, control=choices) == pytest.approx(0.4)
    # It is the image's only answer: being under the threshold does not make it a sure nothing.
    assert score("least-confidence", *objects, control=choices, threshold=0.9) == pytest.approx(0.7)


def test_several_choices_are_each_in_doubt() -> None:
    several = Control("c", "image", "choices", "image", ("Car", "Plane"), multiple=True)
    assert score("least-confidence", found(0, 0.9), found(1, 0.45), control=several) == pytest.approx(0.55)


def test_of_ten_near_duplicates_one_is_picked() -> None:
    random = np.random.default_rng(3)
    kinds = random.normal(size=(4, 16))
    vectors = np.concatenate([np.repeat(kinds[:1], 10, axis=0) + random.normal(size=(10, 16)) * 1e-3, kinds[1:]])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    far = distances(vectors, np.zeros((0, 16), np.float32))
    doubt = places_of([found(0, 0.3)], BOXES, LABELS, 0.25)
    scores = [STRATEGIES["diverse"].score(doubt, each) for each in far]
    assert scores[0] == pytest.approx(0.3)
    assert min(scores[1:10]) > 0.98
    assert max(scores[10:]) < 0.5


def test_known_images_count_as_picked() -> None:
    rows = np.eye(3, dtype=np.float32)
    assert distances(rows[:1], rows) == [0.0]
    assert distances(rows[:1], np.zeros((0, 3), np.float32)) == [1.0]
    assert distances(np.repeat(rows[:1], 2, axis=0), np.zeros((0, 3), np.float32)) == [1.0, 0.0]


@given(st.lists(st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4), min_size=1, max_size=8))
def test_distances_are_shares(rows: list[list[float]]) -> None:
    far = distances(np.array(rows, np.float32), np.zeros((0, 4), np.float32))
    assert len(far) == len(rows)
    assert all(0 <= each <= 1 for each in far)


def test_readings_of_a_place() -> None:
    place = Place((0.2, 0.5, 0.3))
    assert place.confidence == 0.2
    assert place.margin == pytest.approx(0.2)
    assert 0 < place.entropy < 1
    assert [Place((share, 1 - share)).entropy for share in (0.0, 1.0)] == [0, 0]
    rising = [Place((share, 1 - share)).entropy for share in (0.01, 0.1, 0.3, 0.5)]
    assert all(one < other for one, other in pairwise(rising))
