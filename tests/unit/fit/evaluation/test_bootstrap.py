from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.fit.evaluation import bootstrap
from backend.fit.evaluation.bootstrap import FEWEST_ROUNDS, Answers, Draws, Evidence, Objects, measure, standard_error

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
    return Answers(said.astype(np.int64)[:, None], np.ones((images, 1), np.int64))


def error(one: Evidence, two: Evidence, draws: Draws) -> tuple[float, float]:
    """The difference of two, and its standard error."""
    weights = draws.weights()
    rounds = measure(one, weights)[0] - measure(two, weights)[0]
    return float(rounds[0]), standard_error(rounds[1:], draws.count)


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
    (measured,) = given.measure(np.ones((40, 1), np.float32))[0]
    assert measured == pytest.approx(by_ultralytics(given), abs=0.01)


@pytest.mark.parametrize("found", [0.3, 0.9])
def test_weights_are_copies_of_images(found: float) -> None:
    given = objects(30, found, seed=3)
    weights = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30), 8).T.astype(np.float32)
    measured = given.measure(weights)[0]
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
    assert given.measure(rounds)[0].tolist() == pytest.approx([0.5 + 0.5 * 2 / 3, 1.0, 0.5])


def test_each_label_has_its_own_curve() -> None:
    """As by ultralytics, with many labels in one row: what one finds says nothing of another."""
    from ultralytics.utils.metrics import ap_per_class

    given = objects(40, 0.6, seed=5, classes=12)
    mean, labels = given.measure(np.ones((40, 1), np.float32))
    found = ap_per_class(given.hits, given.scores, given.classes, given.truths)[5].mean(axis=1)
    assert labels[:, 0] == pytest.approx(found, abs=0.01)
    assert mean[0] == pytest.approx(labels.mean())
    assert given.counts == dict(enumerate(np.bincount(given.truths).tolist()))


def test_a_label_that_is_not_drawn_does_not_count() -> None:
    # Label 0 is on image 0 and found, label 1 on image 1 and not.
    none = np.zeros(0, int)
    given = Objects(2, np.array([0]), np.ones((1, 1), bool), np.array([0.9]), np.array([0]), np.arange(2), np.arange(2))
    mean, labels = given.measure(np.array([[1, 1], [2, 0], [0, 2]], np.float32).T)
    assert mean.tolist() == [0.5, 1.0, 0.0]
    assert labels.tolist() == [
        [1.0, 1.0, pytest.approx(np.nan, nan_ok=True)],
        [0.0, pytest.approx(np.nan, nan_ok=True), 0.0],
    ]
    empty = Objects(2, none, np.zeros((0, 1), bool), np.zeros(0), none, none, none)
    assert empty.measure(np.ones((2, 3), np.float32))[0].tolist() == [0.0, 0.0, 0.0]


def test_of_some_labels_only_these_are_left() -> None:
    given = objects(30, 0.6)
    _, all_labels = given.measure(np.ones((30, 1), np.float32))
    mean, labels = given.among([2]).measure(np.ones((30, 1), np.float32))
    assert labels.tolist() == all_labels[2:].tolist()
    assert mean[0] == labels[0, 0]
    said = Answers(np.array([[1, 0], [0, 1]]), np.array([[1, 1], [1, 1]]))
    assert said.among([0]).measure(np.ones((2, 1), np.float32))[0].tolist() == [0.5]
    assert said.among([0]).counts == {0: 2}


def test_choices_by_hand() -> None:
    given = Answers(np.array([[1, 0], [0, 0], [1, 2]]), np.array([[1, 0], [0, 1], [1, 3]]))
    mean, labels = given.measure(np.array([[1, 1, 1], [0, 2, 0], [0, 0, 0]], np.float32).T)
    assert mean.tolist() == pytest.approx([4 / 6, 0.0, 0.0])
    assert labels[0].tolist() == pytest.approx([1.0, np.nan, np.nan], nan_ok=True)
    assert labels[1].tolist() == pytest.approx([0.5, 0.0, np.nan], nan_ok=True)


@settings(deadline=None, max_examples=30)
@given(images=st.integers(2, 40), share=st.floats(0, 1), seed=SEED)
def test_one_compared_with_itself_does_not_differ(images: int, share: float, seed: int) -> None:
    both: list[Evidence] = [objects(images, share, seed=seed), answers(images, share, seed)]
    for evidence in both:
        assert error(evidence, evidence, Draws.of(range(images), seed, rounds=50)) == (0, 0)


@pytest.mark.parametrize("alike", [1, 20])
def test_the_standard_error_is_how_much_measured_differences_differ(alike: int) -> None:
    """Of images that look alike a detector is right about all or none: only their groups count."""
    groups = 40
    differences, errors = [], []
    for seed in range(150):
        random = np.random.default_rng(seed)
        said = [np.repeat(random.random(groups) < 0.7, alike).astype(np.int64)[:, None] for _ in range(2)]
        one, two = (Answers(each, np.ones_like(each)) for each in said)
        draws = Draws.of(np.arange(groups * alike) // alike, seed, rounds=200)
        assert draws.count == groups
        differences.append(error(one, two, draws)[0])
        errors.append(error(one, two, draws)[1])
    assert np.mean(errors) == pytest.approx(np.std(differences), rel=0.15)
    assert np.mean(errors) == pytest.approx(np.sqrt(2 * 0.7 * 0.3 / groups), rel=0.1)


def test_what_few_groups_show_too_little_of_is_made_up_for() -> None:
    """Of n groups drawn from n the bootstrap shows (n - 1) / n of the variance: here the half."""
    said = [Answers(np.array([[right], [0]]), np.ones((2, 1), np.int64)) for right in (1, 0)]
    _, found = error(*said, Draws.of(range(2), rounds=4000))
    assert found == pytest.approx(np.std([1, 0], ddof=1) / np.sqrt(2), rel=0.05)


def test_the_same_images_are_drawn_for_both() -> None:
    """Two detectors that are right about the same images differ by nothing, however those are drawn."""
    right = (np.arange(50) % 2)[:, None]
    less = right.copy()
    less[1] = 0
    ones = np.ones((50, 1), int)
    difference, found = error(Answers(less, ones), Answers(right, ones), Draws.of(range(50)))
    assert difference == pytest.approx(-1 / 50)
    assert found == pytest.approx(1 / 50, rel=0.15)


def test_of_one_group_nothing_is_known() -> None:
    assert standard_error(np.zeros(100), 1) == np.inf
    assert standard_error(np.full(100, np.nan), 9) == np.inf
    assert standard_error(np.array([0.0, np.nan, 1.0]), 2) == pytest.approx(1.0)


def test_a_seed_gives_one_draw_and_another_one_another() -> None:
    draws = Draws.of(["a", "b", "a", "c"], seed=4)
    weights = draws.weights()
    assert weights.shape == (4, 301)
    assert weights[:, 0].tolist() == [1, 1, 1, 1], "first all images as they are"
    assert (weights[0] == weights[2]).all(), "a group is drawn as a whole"
    assert (weights[[0, 1, 3]].sum(axis=0) == 3).all(), "as many groups as there are"
    assert (weights == Draws.of(["a", "b", "a", "c"], seed=4).weights()).all()
    assert (weights != Draws.of(["a", "b", "a", "c"], seed=5).weights()).any()


def test_very_many_objects_get_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    one, draws = answers(100, 0.8), Draws.of(range(100))
    assert draws.within(one).rounds == 300
    monkeypatch.setattr(bootstrap, "WORK", 200 * 100)
    assert draws.within(one, answers(50, 0.5)).rounds == 200
    monkeypatch.setattr(bootstrap, "WORK", 1)
    assert draws.within(one).rounds == FEWEST_ROUNDS


def test_the_rounds_are_the_same_however_many_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    given, weights = objects(20, 0.7), Draws.of(range(20), rounds=25).weights()
    mean, labels = measure(given, weights)
    monkeypatch.setattr(bootstrap, "AT_ONCE", 7 * given.size)
    again = measure(given, weights)
    assert mean.tolist() == again[0].tolist()
    np.testing.assert_array_equal(labels, again[1])
