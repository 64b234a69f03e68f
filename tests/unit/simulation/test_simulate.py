from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
import sqlalchemy as sa

from backend.errors import YoloopError
from backend.services import Services
from backend.settings import Settings
from backend.simulation.simulate import (
    Curve,
    Point,
    Simulation,
    conclusion,
    draw,
    in_order,
    most_minutes,
    simulate,
    table,
)
from backend.store.database import Project, Store
from backend.store.ledger import Example, Ledger
from backend.store.near_duplicates import Duplicates, copy_groups
from backend.store.tables import ledger


def curve(order: str, every: int, *scores: float) -> Curve:
    return Curve(
        order, every, tuple(Point(every * place, score, f"v{place}") for place, score in enumerate(scores)), 1.0
    )


CURVES = (
    curve("random", 10, 0.0, 0.3, 0.42, 0.61, 0.83),
    curve("least-confidence", 10, 0.0, 0.62, 0.81, 0.9, 0.9),
    curve("as submitted", 50, 0.0, 0.85),
)
SIMULATION = Simulation("1.7", 50, 12, "mAP50-95", 0.5, 0, CURVES)


def test_the_conclusion_compares_at_the_highest_level_that_all_reached() -> None:
    assert conclusion(CURVES) == (
        "0.80 was reached after 20 annotations with least-confidence, every 10; after 40 in random order, every 10; "
        "after 50 as submitted, every 50."
    )


def test_a_level_is_reached_at_it_and_by_the_first_version_too() -> None:
    assert conclusion((curve("random", 10, 0.75, 0.9), curve("random", 50, 0.2, 0.75))) == (
        "0.75 was reached after 0 annotations in random order, every 10; after 50 in random order, every 50."
    )
    assert CURVES[0].reached(0.3) == 10
    assert CURVES[0].reached(0.84) is None


def test_the_conclusion_says_when_nothing_was_learned() -> None:
    said = conclusion((curve("random", 10, 0.0, 0.04), CURVES[1]))
    assert said == (
        "Not every run learned something. "
        "The best scores: 0.04 in random order, every 10; 0.90 with least-confidence, every 10."
    )
    assert conclusion(()) == "Nothing was replayed."


def test_the_table_has_a_line_for_each_number_of_annotations() -> None:
    lines = table(SIMULATION).splitlines()
    assert [line.split()[0] for line in lines] == ["annotations", "0", "10", "20", "30", "40", "50"]
    assert lines[2].split() == ["10", "0.300", "0.620"]
    assert lines[-1].split() == ["50", "0.850"]
    assert lines[-1].index("0.850") + 5 == len(lines[0]), "it stands in the third run's column"


def test_the_result_is_json_and_a_picture(tmp_path: Path) -> None:
    read = json.loads(json.dumps(SIMULATION.as_json()))
    assert read["curves"][1]["points"][2] == {"annotations": 20, "score": 0.81, "version": "v2"}
    draw(SIMULATION, tmp_path / "curves.png")
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture.shape == (600, 960, 3)
    colours = {tuple(each) for each in picture.reshape(-1, 3)[::7]}
    assert len(colours) > 20, "three lines in colours of their own"


def test_the_time_it_may_take_is_told_beforehand() -> None:
    assert most_minutes(101, (10, 50), ("random", "mean"), 0.5) == (11 + 3) * 2 * 0.5


def example(task_id: int) -> Example:
    return Example(task_id, {}, task_id, [], str(task_id))


def test_annotations_come_as_they_were_submitted() -> None:
    found = in_order([example(each) for each in (1, 2, 3, 4, 5)], {1: 30.0, 2: 10.0, 4: 10.0, 5: 20.0})
    assert [each.task_id for each in found] == [3, 2, 4, 5, 1]


def test_submission_is_read_for_one_project(store: Store) -> None:
    row = {"task_created_at": 0.0, "data": {}}
    with store.write() as db:
        db.execute(
            sa.insert(ledger),
            [
                {"uid": "1.1", "task_id": 1, "submitted_at": 5.0, **row},
                {"uid": "1.1", "task_id": 2, "submitted_at": None, **row},
                {"uid": "2.1", "task_id": 3, "submitted_at": 7.0, **row},
            ],
        )
    assert Ledger(store).submitted_at("1.1") == {1: 5.0}


def test_groups_are_taken_over_in_their_order(store: Store, tmp_path: Path) -> None:
    Duplicates(store).find("1.1", {"a": bytes(256), "b": bytes(256)})
    Duplicates(store).find("2.1", {"c": bytes(256)})
    other = Store(f"sqlite:///{tmp_path / 'other.db'}")
    for _ in range(2):
        copy_groups(store, other, "1.1")
    found = Duplicates(other).find("1.1", {"z": bytes(256)}, "abc")
    assert {key: each.group for key, each in found.items()} == {"a": "a", "b": "a", "z": "a"}
    other.close()


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"orders": ["best"]}, "best"), ({"orders": []}, "order"), ({"every": [0]}, "at least one"), ({}, "submitted")],
)
def test_what_cannot_be_replayed_is_said(tmp_path: Path, changed: dict[str, list[object]], told: str) -> None:
    services = Services(Settings(home=tmp_path))
    config = (Path(__file__).parents[3] / "label_config.xml").read_text()
    services.store.save_project("1.7", label_config=config)
    project = services.store.project("1.7")
    assert isinstance(project, Project)
    with pytest.raises(YoloopError, match=told):
        simulate(services, project, **changed)
    services.close()
