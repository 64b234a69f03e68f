"""Annotations that nobody drew: all that reads them takes them as they are, and the good ones beside them count."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.hostile import CONTROLS, REGION, RESULTS, leaves, region

from backend.feedback.record import record
from backend.fit.dataset.examples import plan_of
from backend.fit.dataset.lesson import lesson_of, reader_of
from backend.fit.dataset.yolo_format import label_line
from backend.labels.geometry import ImageSize
from backend.labels.schema import parse_label_config
from backend.labelstudio.records import read_task
from backend.store.database import Store
from backend.store.ledger import Ledger

UID = "7.1"
WHEN = "2026-11-23T17:01:13.589946Z"
SIZE = ImageSize(400, 300)
SCHEMA = parse_label_config(CONTROLS)
GOOD = [region(x=1, y=2, width=30, height=40)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path / 'yoloop.db'}")
    made.save_project(UID)
    yield made
    made.close()


def row(number: int, result: Any, suggested: Any = None) -> dict[str, Any]:
    """A task as Label Studio's API gives it, with one annotation made from one prediction."""
    annotation = {
        **{"id": number, "result": result, "was_cancelled": False, "ground_truth": False, "lead_time": 3.5},
        **{"created_at": WHEN, "updated_at": WHEN, "completed_by": 1, "parent_prediction": number},
    }
    prediction = {"id": number, "model_version": "yoloop-v1", "score": 0.5, "result": suggested, "created_at": WHEN}
    return {
        **{"id": number, "created_at": WHEN, "updated_at": WHEN, "data": {"image": "a.png"}},
        **{"annotations": [annotation], "predictions": [prediction]},
    }


def learn(store: Store, result: Any, suggested: Any) -> dict[str, int]:
    """Read a good task and this one as the worker does, and count the lines that a training would get of each kind."""
    tasks = [read_task(row(1, result, suggested)), read_task(row(2, GOOD, GOOD))]
    record(store, UID, tasks)
    ledger = Ledger(store)
    ledger.update(UID, tasks, 1.0)
    assert ledger.progress(UID).labelled == 2
    examples = ledger.examples(UID)
    lines: dict[str, int] = {}
    readings = [reader_of(SCHEMA).read(example.result) for example in examples]
    for network, controls in plan_of(SCHEMA, readings):
        for reading in readings:
            lesson = lesson_of(reading, SCHEMA, network, controls, "image", SIZE, 0)
            assert lesson is None or not (lesson.left_out and lesson.objects)
            for found in lesson.objects if lesson else ():
                line = "chosen" if network.task == "classify" else label_line(network.task, found, SIZE, 1)
                lines[network.task] = lines.get(network.task, 0) + (line is not None)
                assert line is None or not {"nan", "inf", "-inf"} & set(line.split())
    return lines


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_written_by_hand(store: Store, result: Any) -> None:
    began = time.process_time()
    assert learn(store, result, GOOD)
    assert learn(store, result, result)
    assert learn(store, GOOD, result)
    assert time.process_time() - began < 30


def test_the_good_one_still_teaches(store: Store) -> None:
    assert learn(store, [], None) == learn(store, RESULTS["what are no regions"], RESULTS["no list"])


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
NONSENSE = st.recursive(
    LEAVES | st.sampled_from(["a", "l", "image"]),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=5), each, max_size=4),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_broken_ones(store: Store, data: st.DataObject) -> None:
    """Any of the regions above with one part of it replaced."""
    names = [name for name, each in RESULTS.items() if isinstance(each, list) and len(json.dumps(each)) < 5000]
    result = json.loads(json.dumps(RESULTS[data.draw(st.sampled_from(sorted(names)))] + [REGION]))
    places = [path for path in leaves(result) if isinstance(_at(result, path[:-1]), dict | list)]
    path = data.draw(st.sampled_from(places))
    _at(result, path[:-1])[path[-1]] = data.draw(NONSENSE)
    learn(store, result, data.draw(st.sampled_from([None, GOOD, result])))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@pytest.mark.parametrize("data", [None, [], "a.png", 5, {"image": {"a": 1}}, {"image": [None]}, {"\ud800": "\ud800"}])
def test_tasks_whose_data_is_none(store: Store, data: Any) -> None:
    task = read_task({**row(1, GOOD), "data": data})
    Ledger(store).update(UID, [task], 1.0)
    (example,) = Ledger(store).examples(UID)
    assert isinstance(example.data, Mapping)
