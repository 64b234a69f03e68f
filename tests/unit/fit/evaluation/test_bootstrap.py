from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.fit.evaluation import bootstrap
from backend.fit.evaluation.bootstrap import FEWEST_ROUNDS, Answers, Evidence, Objects, difference

SEED = st.integers(0, 2**32 - 1)


def objects(
    images: int, found: float, *, seed: int = 0, each: int = 5, wrong: int = 10, thresholds: int = 10, classes: int = 3
) -> Objects:
    """A detector that finds this share of the objects, about as well each time, among `wrong` false alarms an image."""
    random = np.random.default_rng(seed)
    where = np.repeat(np.arange(images), each)
    truths = random.integers(0, classes, len(where))
    seen = random.random(len(where)) < found
    alarms = images * wrong
    hits = random.random((len(where), 1)) > np.linspace(0, 0.8, thresholds)
    return Objects(
        images=images,
        image=np.concatenate([where[seen], np.repeat(np.arange(images), wrong)]),
        hits=np.concatenate([hits[seen], np.zeros((alarms, thresholds), bool)]),
        scores=np.concatenate([random.uniform(0.2, 1, int(seen.sum())), random.uniform(0, 0.5, alarms)]),
        classes=np.concatenate([truths[seen], random.integers(0, classes, alarms)]),
        truth_image=where,
        truths=truths,
    )


def answers(images: int, right: float, seed: int = 0) -> Answers:
    said = np.random.default_rng(seed).random(images) < right
    return Answers(said.astype(np.int64), np.ones(images, np.int64))


def drawn_out(given: Objects, weights: np.ndarray) -> dict[int, Objects]:
    """Round → the images themselves, as often as they were drawn: what the weights stand for."""
    rounds = {}
    for number, counts in enumerate(weights.T.astype(int)):
        order = np.repeat(np.arange(given.images), counts)
        found = [np.flatnonzero(given.image == image) for image in order]
        true = [np.flatnonzero(given.truth_image == image) for image in order]
        rows, truths = np.concatenate(found), np.concatenate(true)
        copies = np.repeat(np.arange(len(order)), [len(each) for each in found])
        # A copy's objects come after the original's, by less than any two scores differ.
        scores = given.scores[rows] - 1e-9 * copies
        there = np.repeat(np.arange(len(order)), [len(each) for each in true])
        rounds[number] = Objects(
            len(order), copies, given.hits[rows], scores, given.classes[rows], there, given.truths[truths]
        )
    return rounds


def by_ultralytics(given: Objects) -> float:
    from ultralytics.utils.metrics import ap_per_class

    return float(ap_per_class(given.hits, given.scores, given.classes, given.truths)[5].mean())


@pytest.mark.parametrize("found", [0.05, 0.5, 0.95])
def test_the_metric_is_that_of_ultralytics(found: float) -> None:
    given = objects(40, found)
    (measured,) = given.metric(np.ones((40, 1), np.float32))
    assert measured == pytest.approx(by_ultralytics(given), abs=0.01)


@pytest.mark.parametrize("found", [0.3, 0.9])
def test_weights_are_copies_of_images(found: float) -> None:
    given = objects(30, found, seed=3)
    weights = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30), 8).T.astype(np.float32)
    measured = given.metric(weights)
    for number, copied in drawn_out(given, weights).items():
        assert measured[number] == pytest.approx(by_ultralytics(copied), abs=0.015)
    assert measured.std() > 0.005


def test_by_hand() -> None:
    # Best first: right on image 0, wrong on 1, right on 1. Two objects, one on each image.
    hits = np.array([[True], [False], [True]])
    given = Objects(
        2, np.array([0, 1, 1]), hits, np.array([0.9, 0.8, 0.7]), np.zeros(3, int), np.array([0, 1]), np.zeros(2, int)
    )
    rounds = np.array([[1, 1], [2, 0], [0, 2]], np.float32).T
    # Both: half the recall at precision 1, half at 2/3. Image 1 alone: 1/2 all along, as a wrong one comes first.
    assert given.metric(rounds).tolist() == pytest.approx([0.5 + 0.5 * 2 / 3, 1.0, 0.5])


def test_choices_by_hand() -> None:
    given = Answers(np.array([1, 0, 3]), np.array([1, 1, 4]))
    assert given.metric(np.array([[1, 1, 1], [0, 2, 0], [0, 0, 0]], np.float32).T).tolist() == pytest.approx(
        [4 / 6, 0.0, 0.0]
    )


@settings(deadline=None, max_examples=30)
@given(images=st.integers(1, 40), share=st.floats(0, 1), seed=SEED)
def test_one_compared_with_itself_does_not_differ(images: int, share: float, seed: int) -> None:
    both: list[Evidence] = [objects(images, share, seed=seed), answers(images, share, seed)]
    for evidence in both:
        found = difference(evidence, evidence, seed=seed, rounds=50)
        assert (found.mean, found.low, found.high) == (0, 0, 0)


@settings(deadline=None, max_examples=20)
@given(seed=SEED)
def test_clearly_worse_is_worse_beyond_chance(seed: int) -> None:
    good, bad = objects(40, 0.95, seed=seed), objects(40, 0.3, seed=seed)
    assert difference(bad, good, seed=seed, rounds=200).high < 0
    assert difference(good, bad, seed=seed, rounds=200).low > 0
    assert difference(answers(40, 0.2, seed), answers(40, 0.95, seed), seed=seed, rounds=200).high < 0


def test_equals_are_hardly_ever_told_apart() -> None:
    """Of a hundred pairs of equal detectors about five may look different: that is what 95 % means."""
    apart = 0
    for seed in range(100):
        found = difference(answers(60, 0.7, seed), answers(60, 0.7, seed + 1000), seed=seed, rounds=300)
        apart += found.low > 0 or found.high < 0
    assert apart <= 12


def test_the_same_images_are_drawn_for_both() -> None:
    """Two detectors that are right about the same images differ by nothing, however those are drawn."""
    right = np.arange(50) % 2
    less = right.copy()
    less[1] = 0
    found = difference(Answers(less, np.ones(50, int)), Answers(right, np.ones(50, int)), seed=0)
    assert -0.1 < found.low <= found.high <= 0
    assert found.mean == pytest.approx(-1 / 50, abs=0.003)


def test_a_seed_gives_one_interval_and_another_one_another() -> None:
    one, other = objects(20, 0.8), objects(20, 0.7, seed=1)
    assert difference(one, other, seed=4) == difference(one, other, seed=4)
    assert difference(one, other, seed=4) != difference(one, other, seed=5)
    assert difference(one, other, seed=4).rounds == 1000


def test_the_order_of_the_sides_is_the_sign() -> None:
    one, other = objects(20, 0.8), objects(20, 0.7, seed=1)
    there, back = difference(one, other, seed=4), difference(other, one, seed=4)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))


def test_very_many_objects_get_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = answers(100, 0.8), answers(100, 0.7)
    monkeypatch.setattr(bootstrap, "WORK", 500 * 200)
    assert difference(one, other, seed=0).rounds == 500
    monkeypatch.setattr(bootstrap, "WORK", 1)
    assert difference(one, other, seed=0).rounds == FEWEST_ROUNDS


def test_other_images_cannot_be_compared() -> None:
    for one, other in ((answers(3, 1), answers(4, 1)), (answers(0, 1), answers(0, 1))):
        with pytest.raises(ValueError, match="same images"):
            difference(one, other, seed=0)
