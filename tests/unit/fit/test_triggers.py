from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.fit.triggers import Rules, annotations_needed, retry_at, should_train
from backend.settings import Settings
from backend.store.progress import Progress, by_itself

COUNT = st.integers(0, 100_000)
SECOND = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("seen", "minimum", "needed"),
    [(0, 10, 10), (10, 10, 10), (50, 10, 10), (51, 10, 11), (100, 10, 20), (1000, 10, 200), (3, 1, 1), (6, 1, 2)],
)
def test_a_fifth_more_and_at_least_the_minimum(seen: int, minimum: int, needed: int) -> None:
    assert annotations_needed(seen, minimum) == needed


@pytest.mark.parametrize(
    ("progress", "train", "reason"),
    [
        (Progress(0, 0, 0), False, "no submitted annotation yet"),
        (Progress(0, 0, 0, left_out=12), False, "none of 12 submitted annotations is understood"),
        (Progress(9, 9, 0), False, "9 of 10 new annotations"),
        (Progress(10, 10, 0), True, "10 new annotations"),
        (Progress(100, 19, 100), False, "19 of 20 new annotations"),
        (Progress(100, 20, 100), True, "20 new annotations"),
        (Progress(0, 10, 10), False, "no submitted annotation yet"),  # all withdrawn: nothing to learn from
        (Progress(20, 20, 0, 1, 990.0), False, "the last training failed; next try in 50 s"),
        (Progress(20, 20, 0, 1, 940.0), True, "20 new annotations"),
    ],
)
def test_when_to_train(progress: Progress, train: bool, reason: str) -> None:
    trigger = should_train(progress, Rules(10), now=1000.0)
    assert (trigger.train, trigger.reason) == (train, reason)


class TestPretrainedWeights:
    RULES = Rules.of(Settings(), pretrained=True)

    @pytest.mark.parametrize(
        ("labelled", "objects", "train", "reason"),
        [
            (4, {"Tree": 19}, False, "4 of 5 new annotations"),
            (5, {"Tree": 1}, True, "5 new annotations"),
            (3, {"Tree": 19}, False, "3 of 5 new annotations"),
            (3, {"Tree": 12, "Bush": 8}, True, "3 new annotations"),
            (2, {"Tree": 500}, False, "2 of 3 new annotations"),
        ],
    )
    def test_start_with_few(self, labelled: int, objects: dict[str, int], train: bool, reason: str) -> None:
        trigger = should_train(Progress(labelled, labelled, 0, objects=objects), self.RULES, 0.0)
        assert (trigger.train, trigger.reason) == (train, reason)

    def trainings(self, first: int, until: int) -> list[int]:
        """Numbers of annotations at which it trains."""
        found, seen = [], 0
        for labelled in range(first, until):
            if should_train(Progress(labelled, labelled - seen, seen), self.RULES, 0.0).train:
                found.append(seen := labelled)
        return found

    def test_go_on_by_half_as_many_again_and_later_as_ever(self) -> None:
        assert self.trainings(1, 60) == [5, 8, 12, 18, 27, 37, 47, 57]
        assert [annotations_needed(seen, 10, early=True) for seen in (30, 50, 51, 1000)] == [10, 10, 11, 200]

    def test_versions_that_were_not_better_ask_for_more_news(self) -> None:
        assert annotations_needed(8, 10, 1, early=True) == 6

    @pytest.mark.parametrize("number", [3, 10, 40])
    def test_what_somebody_has_set_holds(self, number: int) -> None:
        rules = Rules.of(Settings(min_new_annotations=number, min_per_class=2), pretrained=True)
        assert rules == Rules(number, 2, 30.0, 12)
        assert should_train(Progress(number, number, 0, objects={"Tree": 9}), rules, 0.0).train
        assert not should_train(Progress(number - 1, number - 1, 0, objects={"Tree": 90}), rules, 0.0).train

    def test_it_may_be_set_by_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("YOLOOP_MIN_NEW_ANNOTATIONS", "10")
        assert not Rules.of(Settings(), pretrained=True).early

    def test_random_weights_start_as_ever(self) -> None:
        assert Rules.of(Settings()) == Rules(10, 3, 30.0, 12)


def test_failures_wait_longer_each_time_up_to_an_hour() -> None:
    waits = [retry_at(Progress(1, 1, 0, failures, 0.0)) for failures in range(12)]
    assert waits[:8] == [0, 60, 120, 240, 480, 960, 1920, 3600]
    assert set(waits[7:]) == {3600}
    assert retry_at(Progress(1, 1, 0, 10**6, 0.0)) == 3600


@pytest.mark.parametrize(("rejected", "needed"), [(0, 20), (1, 30), (2, 45), (3, 68), (4, 80), (5, 80), (10**6, 80)])
def test_versions_that_were_not_better_ask_for_more_news(rejected: int, needed: int) -> None:
    assert annotations_needed(100, 10, rejected) == needed
    trigger = should_train(Progress(200, needed - 1, 100, rejected=rejected), Rules(10), 0.0)
    assert not trigger.train
    assert trigger.reason.startswith(f"{needed - 1} of {needed} new annotations")
    assert should_train(Progress(200, needed, 100, rejected=rejected), Rules(10), 0.0).train


def test_it_says_why_it_asks_for_more() -> None:
    one = should_train(Progress(50, 12, 10, rejected=1), Rules(10), 0.0)
    assert one.reason == "12 of 15 new annotations (more than usual, as the last version was not better)"
    several = should_train(Progress(50, 30, 10, rejected=2), Rules(10), 0.0)
    assert several.train
    assert several.reason == "30 new annotations (more than usual, as the last 2 versions were not better)"


class TestRareLabels:
    RULES = Rules(10, min_per_class=3)

    @pytest.mark.parametrize(
        ("objects", "reason"),
        [
            ({"Car": 1}, "label 'Car' has 1 of 3 objects"),
            ({"Bus": 9, "Car": 2, "Dog": 1}, "label 'Dog' has 1 of 3 objects"),
            ({"Car": 1, "Bus": 1}, "label 'Bus' has 1 of 3 objects"),
        ],
    )
    def test_the_first_training_waits_for_them(self, objects: dict[str, int], reason: str) -> None:
        trigger = should_train(Progress(12, 12, 0, objects=objects), self.RULES, 0.0)
        assert (trigger.train, trigger.reason) == (False, reason)

    def test_but_not_for_ever(self) -> None:
        assert not should_train(Progress(29, 29, 0, objects={"Car": 1}), self.RULES, 0.0).train
        assert should_train(Progress(30, 30, 0, objects={"Car": 1}), self.RULES, 0.0).train

    def test_enough_is_enough(self) -> None:
        assert should_train(Progress(10, 10, 0, objects={"Car": 3, "Bus": 4}), self.RULES, 0.0).train
        assert should_train(Progress(10, 10, 0, objects={"Car": 1}), Rules(10, min_per_class=0), 0.0).train

    def test_too_few_annotations_are_told_first(self) -> None:
        assert should_train(Progress(4, 4, 0, objects={"Car": 1}), self.RULES, 0.0).reason == "4 of 10 new annotations"


def test_a_training_has_some_time_to_itself() -> None:
    rules, progress = Rules(10, cooldown=30.0), Progress(50, 20, 10, ended_at=990.0)
    waits = should_train(progress, rules, 1000.0)
    assert (waits.train, waits.reason) == (False, "the last training has just ended; next one in 20 s")
    assert should_train(progress, rules, 1020.0).train


def test_so_many_trainings_an_hour() -> None:
    rules = Rules(10, max_trainings_per_hour=3)
    progress = Progress(50, 20, 10, began=(4000.0, 2000.0, 1000.0, 500.0))
    waits = should_train(progress, rules, 4100.0)
    assert (waits.train, waits.reason) == (False, "3 trainings began within an hour; next one in 500 s")
    assert not should_train(progress, rules, 4599.0).train
    assert should_train(progress, rules, 4600.0).train
    assert should_train(Progress(50, 20, 10, began=(4000.0, 2000.0)), rules, 4001.0).train


@pytest.mark.parametrize(
    "progress",
    [
        Progress(50, 20, 10, failures=1, failed_at=90_000.0),
        Progress(50, 20, 10, ended_at=90_000.0),
        Progress(50, 20, 10, began=(90_000.0, 80_000.0)),
    ],
)
def test_nothing_waits_for_a_time_that_the_clock_was_set_back_from(progress: Progress) -> None:
    assert should_train(progress, Rules(10, cooldown=30.0, max_trainings_per_hour=2), 1000.0).train


@pytest.mark.parametrize(
    ("reason", "alone"),
    [
        ("asked for in Label Studio", False),
        ("asked for at the command line", False),
        ("10 new annotations", True),
        ("15 new annotations (more than usual, as the last version was not better)", True),
    ],
)
def test_who_started_it(reason: str, alone: bool) -> None:
    assert by_itself(reason) is alone


def test_rules_are_the_settings() -> None:
    settings = Settings(min_new_annotations=7, min_per_class=2, cooldown=5, max_trainings_per_hour=4)
    assert Rules.of(settings) == Rules(7, 2, 5.0, 4)


@given(
    labelled=COUNT,
    new=COUNT,
    seen=COUNT,
    rejected=st.integers(0, 30),
    minimum=st.integers(1, 1000),
    per_class=st.integers(0, 5),
    objects=st.dictionaries(st.sampled_from("ABC"), st.integers(1, 6)),
)
def test_more_news_never_stops_a_training(
    labelled: int, new: int, seen: int, rejected: int, minimum: int, per_class: int, objects: dict[str, int]
) -> None:
    rules = Rules(minimum, min_per_class=per_class)
    before = should_train(Progress(labelled, new, seen, rejected=rejected, objects=objects), rules, 0.0)
    after = should_train(Progress(labelled + 1, new + 1, seen, rejected=rejected, objects=objects), rules, 0.0)
    assert after.train or not before.train
    enough = labelled >= 3 * minimum or all(count >= per_class for count in objects.values())
    assert before.train == (labelled > 0 and new >= annotations_needed(seen, minimum, rejected) and enough)


@given(began=st.lists(SECOND, max_size=20), most=st.integers(1, 5), now=SECOND)
def test_the_time_it_names_is_when_it_goes_on(began: list[int], most: int, now: int) -> None:
    began = sorted((each for each in began if each <= now), reverse=True)
    rules, progress = Rules(1, max_trainings_per_hour=most), Progress(1, 1, 0, began=tuple(began))
    inside = [each for each in began if each > now - 3600]
    trigger = should_train(progress, rules, now)
    assert trigger.train == (len(inside) < most)
    if not trigger.train:
        assert should_train(progress, rules, inside[most - 1] + 3600).train
