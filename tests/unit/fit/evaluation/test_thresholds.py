from __future__ import annotations

import numpy as np
import pytest

from backend.fit.evaluation.bootstrap import Objects
from backend.fit.evaluation.thresholds import ENOUGH_OBJECTS, Threshold, left_out_thresholds, thresholds
from backend.settings import ActionSeconds

COSTS = ActionSeconds()


def objects(images: int, found: list[tuple[int, int, float, float]], truths: list[tuple[int, int]]) -> Objects:
    """What was found, as image, class, score, overlap with its object (0: wrong); what is there, as image, class."""
    columns = np.linspace(0.5, 0.95, 10)
    return Objects(
        images,
        np.array([each[0] for each in found], np.int64),
        np.array([[each[3] >= column for column in columns] for each in found], bool).reshape(len(found), 10),
        np.array([each[2] for each in found], np.float64),
        np.array([each[1] for each in found], np.int64),
        np.array([each[0] for each in truths], np.int64),
        np.array([each[1] for each in truths], np.int64),
    )


def choose(given: Objects, classes: tuple[str, ...] = ("Tree",), **options: object) -> dict[str, Threshold]:
    groups = [str(number) for number in range(given.images)]
    return thresholds(given, classes, "detect", COSTS, groups, **options)  # type: ignore[arg-type]


def mixed(images: int = 30, right: float = 0.6, wrong: float = 0.4) -> Objects:
    """Each image has two right objects with scores from `right` up, and three wrong ones up to `wrong`."""
    found, truths = [], []
    for image in range(images):
        for number in range(2):
            found.append((image, 0, right + 0.1 * number + 0.001 * image, 0.9))
            truths.append((image, 0))
        found += [(image, 0, wrong - 0.1 * number - 0.001 * image, 0.0) for number in range(3)]
    return objects(images, found, truths)


def test_wrong_ones_are_left_out_and_right_ones_kept() -> None:
    found = choose(mixed())["Tree"]
    assert found.least is not None and 0.4 < found.least <= 0.6
    assert (found.right, found.shown) == (60, 60)
    assert found.seconds == pytest.approx(2 * (7 - 1.8), abs=0.01)


def test_where_every_score_is_low_so_is_the_threshold() -> None:
    found = choose(mixed(right=0.12, wrong=0.09))["Tree"]
    assert found.least is not None and 0.09 < found.least <= 0.12


def test_nothing_that_saves_is_nothing_suggested() -> None:
    wrong = objects(20, [(image, 0, 0.9, 0.0) for image in range(20)], [(image, 0) for image in range(20)])
    assert choose(wrong)["Tree"] == Threshold(None)


def test_seconds_saved_by_more_actions_are_none() -> None:
    """Drawing is so slow that one right of four would pay; yet people would do more."""
    found = objects(
        25,
        [(image, 0, 0.5, 0.9 if number == 0 else 0.0) for image in range(25) for number in range(4)],
        [(image, 0) for image in range(25)],
    )
    groups = [str(image) for image in range(25)]
    slow = ActionSeconds(draw=100)
    assert thresholds(found, ["Tree"], "detect", slow, groups)["Tree"] == Threshold(None)


def test_what_must_be_moved_saves_little() -> None:
    moved = objects(20, [(image, 0, 0.8, 0.6) for image in range(20)], [(image, 0) for image in range(20)])
    found = choose(moved)["Tree"]
    assert found.seconds == pytest.approx(7 - 1.8 - 5, abs=0.01) and (found.right, found.shown) == (20, 20)


def test_one_lucky_image_of_many_frames_proves_nothing() -> None:
    """The images of one group stand or fall together."""
    found = [(image, 0, 0.7, 0.9 if image < 16 else 0.0) for image in range(24) for _ in range(2)]
    truths = [(image, 0) for image in range(24) for _ in range(2)]
    given = objects(24, found, truths)
    apart = thresholds(given, ["Tree"], "detect", COSTS, [str(image) for image in range(24)])["Tree"]
    together = thresholds(given, ["Tree"], "detect", COSTS, ["one" if i < 16 else "other" for i in range(24)])["Tree"]
    assert apart.least is not None and together.least is None


def test_a_rare_label_takes_the_threshold_of_all() -> None:
    common = mixed(images=40)
    rare = objects(40, [(0, 1, 0.9, 0.9), (1, 1, 0.2, 0.0)], [(0, 1), (1, 1)])
    both = Objects(
        40,
        np.concatenate([common.image, rare.image]),
        np.concatenate([common.hits, rare.hits]),
        np.concatenate([common.scores, rare.scores]),
        np.concatenate([common.classes, rare.classes]),
        np.concatenate([common.truth_image, rare.truth_image]),
        np.concatenate([common.truths, rare.truths]),
    )
    assert ENOUGH_OBJECTS > 2
    found = choose(both, ("Tree", "Bird"))
    assert found["Bird"].least == found["Tree"].least
    assert (found["Bird"].right, found["Bird"].shown) == (1, 1)


def test_a_rare_label_that_is_mostly_wrong_is_not_suggested() -> None:
    common = mixed(images=40)
    both = Objects(
        40,
        np.concatenate([common.image, np.arange(5)]),
        np.concatenate([common.hits, np.zeros((5, 10), bool)]),
        np.concatenate([common.scores, np.full(5, 0.95)]),
        np.concatenate([common.classes, np.ones(5, np.int64)]),
        common.truth_image,
        common.truths,
    )
    found = choose(both, ("Tree", "Bird"))
    assert found["Bird"] == Threshold(None) and found["Tree"].least is not None


def test_nothing_found_at_all() -> None:
    assert choose(objects(3, [], [(0, 0)])) == {"Tree": Threshold(None)}


def test_the_same_seed_gives_the_same() -> None:
    assert choose(mixed(), seed=3) == choose(mixed(), seed=3)


class TestLeftOut:
    """The thresholds at which a version is judged: an image has no say in its own."""

    def least(self, given: Objects, groups: list[str], usual: float = 0.25) -> list[float]:
        found = left_out_thresholds(given, 1, "detect", COSTS, groups, [usual])
        assert found.shape == (given.images, 1)
        return [float(each) for each in found[:, 0]]

    def test_each_image_gets_what_the_others_say(self) -> None:
        low = self.least(mixed(images=40, right=0.12, wrong=0.05), [str(number) for number in range(40)])
        assert all(0.05 < each <= 0.16 for each in low)

    def test_a_group_says_nothing_of_itself(self) -> None:
        """Three quarters of the images, all of one group, are right; the others only show wrong ones."""
        found = [(image, 0, 0.3, 0.9 if image < 30 else 0.0) for image in range(40)]
        given = objects(40, found, [(image, 0) for image in range(40)])
        alone = self.least(given, [str(image) for image in range(40)])
        together = self.least(given, ["one" if image < 30 else str(image) for image in range(40)])
        assert max(alone[:30]) < np.inf and set(together[:30]) == {np.inf}

    def test_one_group_alone_is_judged_at_the_usual_score(self) -> None:
        assert self.least(mixed(images=6), ["one"] * 6, usual=0.4) == [0.4] * 6

    def test_what_the_others_do_not_show_has_the_usual_score(self) -> None:
        given = objects(2, [(0, 0, 0.9, 0.9)], [(0, 0)])
        assert self.least(given, ["a", "b"])[0] == 0.25
