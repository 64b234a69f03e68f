"""Two detectors on the same images: what counts against one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from backend.fit.evaluation.arena import Arena
from backend.fit.evaluation.bootstrap import Draws
from backend.fit.evaluation.metrics import Tally
from backend.fit.evaluation.shown import Shown
from backend.labels.geometry import Box, Detection
from backend.labels.networks import Network
from model_registry import Comparison, decide

NETWORK = Network("detect", "detect", ("Car", "Bus", "Tram"))
PLACES = [Box(20 * column, 0, 20 * column + 10, 10) for column in range(5)]
IMAGES = 12
EVERY = {0: 0, 1: 1, 2: 2}


def seen(cls: int, place: int = 0, score: float = 0.9) -> Detection:
    return Detection(cls, score, PLACES[place])


def tally(
    found: Sequence[Sequence[Detection]],
    truths: Sequence[Sequence[Detection]],
    labels: Mapping[int, int] = EVERY,
    network: Network = NETWORK,
    shown: Shown | None = None,
) -> Tally:
    made = Tally(network, labels, blind=not labels, shown=shown)
    for here, truth in zip(found, truths, strict=True):
        made.add(here, truth)
    return made


def against(candidate: Tally, other: Tally, network: Network = NETWORK) -> Comparison:
    found = Arena(candidate, network, Draws.of(range(candidate.images))).against("v1", other)
    assert found is not None
    return Comparison.load(found)


CARS = [[seen(0)] for _ in range(IMAGES)]


def test_false_alarms_of_labels_without_a_held_out_object_count() -> None:
    noisy = [[seen(0), *(seen(1, place, 0.99) for place in range(1, 5))] for _ in range(IMAGES)]
    candidate, other = tally(noisy, CARS), tally(CARS, CARS)
    found = against(candidate, other)
    assert found.score.difference == 0, "no Bus is held out, so that it is outside the mean"
    assert (found.work.candidate, found.work.other) == (4 * IMAGES, 0)
    scored = Arena(candidate, NETWORK, Draws.of(range(IMAGES))).scored()
    assert decide(scored, found, serves=True).rule == "more corrections"


def test_false_alarms_on_images_without_an_object_count() -> None:
    truths = [*CARS, *([[]] * IMAGES)]
    noisy = [*CARS, *([[seen(0, 2, 0.95)]] * IMAGES)]
    found = against(tally(noisy, truths), tally(truths, truths))
    assert (found.work.candidate, found.work.other) == (IMAGES, 0)
    assert found.score.loss > 0


def test_what_is_not_shown_saves_no_work() -> None:
    """All scores a quarter of what they were: the same mAP, and nothing is suggested."""
    faint = [[replace(each, score=each.score / 4) for each in here] for here in CARS]
    candidate, other = tally(faint, CARS), tally(CARS, CARS)
    found = against(candidate, other)
    assert found.score.difference == 0
    assert (found.work.candidate, found.work.other) == (IMAGES, 0)
    scored = Arena(candidate, NETWORK, Draws.of(range(IMAGES))).scored()
    assert decide(scored, found, serves=True).rule == "more corrections"
    # Under its own threshold it would be as good.
    low = tally(faint, CARS, shown=Shown(NETWORK, (0.2, 0.2, 0.2)))
    assert against(low, other).work.candidate == 0
    every = tally(faint, CARS, shown=Shown(NETWORK, (0.0, 0.0, 0.0)))
    every.show_from(np.full((IMAGES, 3), 0.2))
    assert against(every, other).work.candidate == 0
    every.show_from(np.full((IMAGES, 3), np.inf))
    assert against(every, other).work.candidate == IMAGES


def test_only_labels_that_both_know_are_compared() -> None:
    truths = [[seen(0), seen(1, 1)] for _ in range(IMAGES)]
    candidate, other = tally(truths, truths), tally(CARS, truths, {0: 0})
    found = against(candidate, other)
    assert (found.labels, found.added, found.objects) == (("Car",), ("Bus",), IMAGES)
    assert (found.score.difference, found.work.difference) == (0, 0)


@pytest.mark.parametrize("labels", [{}, {7: 2}])
def test_without_a_shared_label_that_is_held_out_there_is_nothing_to_compare(labels: dict[int, int]) -> None:
    found = against(tally(CARS, CARS), tally([[]] * IMAGES, CARS, labels))
    assert found.objects == 0
    assert found.labels == (("Tram",) if labels else ())


def test_without_an_image_there_is_nothing_at_all() -> None:
    arena = Arena(tally([], []), NETWORK, Draws.of([]))
    assert arena.against("v1", tally([], [])) is None
    scored = arena.scored()
    assert (scored.score, scored.work, scored.images, scored.objects) == (0, 0, 0, 0)


def test_single_labels_are_tested_from_thirty_objects_on() -> None:
    truths = [[seen(0), *(seen(1, place) for place in range(1, 4))] for _ in range(IMAGES)]
    found = against(tally(CARS, truths), tally(truths, truths))
    assert list(found.by_label) == ["Bus"], "36 of them, and 12 cars"
    assert (found.by_label["Bus"].candidate, found.by_label["Bus"].other) == (0, pytest.approx(1))


@pytest.mark.parametrize(
    ("multiple", "found", "truth", "work"),
    [
        (False, [seen(0, 0, 0.6), seen(1, 0, 0.4)], [seen(0)], 0),
        (False, [seen(0, 0, 0.6), seen(1, 0, 0.4)], [seen(1)], 1),  # changed
        (False, [seen(0, 0, 0.2), seen(1, 0, 0.2)], [seen(1)], 1),  # nothing is sure enough, so it is chosen
        (True, [seen(0, 0, 0.6), seen(1, 0, 0.6)], [seen(0)], 1),
        (True, [seen(0, 0, 0.6), seen(1, 0, 0.1)], [seen(0), seen(1)], 1),
        (True, [seen(0, 0, 0.6)], [seen(1)], 1),
        (True, [], [], 0),
    ],
)
def test_choices_cost_corrections_too(
    multiple: bool, found: list[Detection], truth: list[Detection], work: float
) -> None:
    network = Network("classify:c", "classify", ("Day", "Dusk", "Night"), multiple=multiple)
    made = tally([found] * IMAGES, [truth] * IMAGES, network=network)
    assert Arena(made, network, Draws.of(range(IMAGES))).scored().work == work * IMAGES


def test_most_suggestions_are_those_of_the_best_scores() -> None:
    crowd = [[seen(0, place, 0.9 - place / 10) for place in range(5)]]
    limited = tally(crowd, [[seen(0)]], shown=Shown(NETWORK, most=2))
    assert Arena(limited, NETWORK, Draws.of([0])).scored().work == 1
