from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
import gate
from gate import Cell, Scale, World

from backend.feedback.corrections import actions, corrections

CELL = Cell(labels=3, per_image=4, look_alikes=5, alike=0.6, objects=40)


def test_a_simulated_detector_needs_the_corrections_that_are_counted_for_a_real_one() -> None:
    world = World(CELL, 3)
    own = world.noise()
    found = world.detector(1.0, own)
    place = np.sqrt(0.6) * world.common[0] + np.sqrt(0.4) * own[0]
    overlaps = np.clip(0.5 + 0.2 * (1.0 + place), 0, 1)
    evidence = found.evidence
    work = np.zeros(CELL.images)
    shown = evidence.scores >= gate.SHOWN  # type: ignore[attr-defined]
    for image in range(CELL.images):
        there = np.flatnonzero(world.where == image)
        seen = [row for row in np.flatnonzero(evidence.image == image) if shown[row]]  # type: ignore[attr-defined]
        overlap = np.zeros((len(seen), len(there)))
        for row, index in enumerate(seen):
            if index < CELL.objects:
                overlap[row, there.tolist().index(index)] = overlaps[index]
        classes = [int(evidence.classes[index]) for index in seen]  # type: ignore[attr-defined]
        work[image] = actions(corrections(overlap, classes, world.truths[there].tolist()))
    assert found.work.tolist() == work.tolist()
    assert found.work.sum() > 5


def test_a_quality_is_that_of_its_score() -> None:
    scale = Scale(CELL, worlds=40)
    assert scale.quality(0.7) > scale.quality(0.6) > scale.quality(0.5)
    scores = []
    for seed in range(40):
        evidence = World(CELL, seed).detector(scale.quality(0.6)).evidence
        scores.append(evidence.measure(np.ones((CELL.images, 1), np.float32))[0][0])
    assert np.mean(scores) == pytest.approx(0.6, abs=0.05)


def test_detectors_that_err_alike_differ_less() -> None:
    def spread(alike: float) -> float:
        found = []
        for seed in range(30):
            world = World(Cell(1, 3, 1, alike, 60), seed)
            one, other = (world.detector(1.5).work.sum() for _ in range(2))
            found.append(one - other)
        return float(np.std(found))

    assert spread(0.9) < 0.6 * spread(0.0)


def test_it_runs_goes_on_and_writes_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [Cell(1, 3, 1, 0.8, 30), Cell(2, 3, 5, 0.8, 30)]
    first = gate.run(tmp_path, 6, 1, 1, cells[:1])
    assert [each["cell"]["labels"] for each in first] == [1]
    both = gate.run(tmp_path, 6, 1, 1, cells)
    assert both[0] == first[0], "taken over, not done again"
    assert json.loads((tmp_path / "gate.json").read_text()) == both
    gate.run(tmp_path, 5, 1, 1, cells[:1])
    assert [each["seeds"] for each in json.loads((tmp_path / "gate.json").read_text())] == [6, 6, 5], "nothing is lost"
    gate.run(tmp_path, 6, 1, 1, cells)
    table = (tmp_path / "gate.md").read_text()
    assert len(table.splitlines()) == 4
    assert 0 <= both[1]["equal_refused"] <= 1 and both[1]["slide_median"] >= 0


def test_the_table_says_what_holds_where_a_goal_is_missed() -> None:
    found = {
        "cell": {"objects": 300},
        "paired_sd": 0.03,
        "equal_refused": 0.12,
        "row_refused_most": 0.16,
        "worse_promoted": 0.3,
        "slide_median": 0.08,
        "slide_95": 0.08,
    }
    told = gate.instead(found)
    assert told[0] == "12 % of the equal ones are refused"
    assert "no rule can have both at this sd, at best from 710 objects on" in told
    assert told[-1] == "it ends 0.08 below, and 0.08 in 95 %"
    good = {"equal_refused": 0.1, "row_refused_most": 0.15, "worse_promoted": 0.1, "slide_median": 0.04}
    assert gate.instead({**found, **good}) == []
