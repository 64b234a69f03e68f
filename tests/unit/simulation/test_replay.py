from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.shapes import LABELS, draw_pictures
from support.tiny import SIZE, tiny_yolo

from backend.labels.schema import parse_label_config
from backend.served_models.version_string import strategy_of
from backend.simulation.replay import Replay, ReplaySettings, ReplayTask, Suggestion, next_task, without_sampling

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image" model_sampling="mean">'
    '<Label value="Disc"/><Label value="Square"/><Label value="Triangle"/></RectangleLabels></View>'
)
TASKS = [ReplayTask(number, {}, []) for number in range(1, 5)]


def test_the_lowest_score_is_opened_first_and_what_has_none_last() -> None:
    chance = random.Random(0)
    scores = {2: Suggestion(0.5, []), 3: Suggestion(0.1, []), 4: Suggestion(0.9, [])}
    order, left = [], list(TASKS)
    while left:
        order.append(next_task(left, scores, chance))
        left.remove(order[-1])
    assert [task.id for task in order] == [3, 2, 4, 1]


def test_without_scores_chance_decides_and_the_seed_repeats_it() -> None:
    first = [next_task(TASKS, {}, random.Random(seed)).id for seed in range(40)]
    assert first == [next_task(TASKS, {}, random.Random(seed)).id for seed in range(40)]
    assert set(first) == {1, 2, 3, 4}


def test_the_setting_decides_once_the_tags_name_no_strategy() -> None:
    assert strategy_of(parse_label_config(CONFIG), "diverse") == "mean"
    plain = parse_label_config(without_sampling(CONFIG))
    assert strategy_of(plain, "diverse") == "diverse"
    assert plain.controls[0].labels == LABELS


def test_a_replay_keeps_to_a_registry_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.invalid")
    assert ReplaySettings(home=tmp_path).tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def replayed(tmp_path: Path, empty_registry: Path) -> Iterator[Callable[..., Replay]]:
    made: list[Replay] = []

    def make(**changed: object) -> Replay:
        home = tmp_path / "home"
        home.mkdir()
        shutil.copyfile(empty_registry, home / "mlflow.db")
        tiny_yolo(home / "models" / "tiny.pt", LABELS, {0: (0, 0.9)})
        options = {"home": home, "base_model": "tiny.pt", "offline": True, "image_size": SIZE, "device": "cpu"}
        made.append(Replay(ReplaySettings(**(options | changed)), CONFIG))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_it_serves_what_is_in_its_cache_and_counts_what_is_submitted(
    tmp_path: Path, replayed: Callable[..., Replay]
) -> None:
    replay = replayed(min_new_annotations=3, min_per_class=0)
    pictures = draw_pictures(tmp_path / "pictures", 4, size=SIZE)
    tasks = [
        ReplayTask(number, {"image": f"http://images.invalid/{each.path.name}"}, each.result())
        for number, each in enumerate(pictures, 1)
    ]
    for task, picture in zip(tasks[:3], pictures, strict=False):
        replay.keep_image(task.data["image"], picture.path.read_bytes())
    suggested = replay.suggestions(tasks[:3])
    assert set(suggested) == {1, 2, 3}
    assert all(each.score == pytest.approx(0.9, abs=0.01) and len(each.result) == 64 for each in suggested.values())
    assert replay.served.name == "v0"
    assert replay.weights() == ()
    waiting = []
    for task in tasks[:3]:
        replay.submit(task, time.time())
        replay.submit(task, time.time())  # the same again is no news
        waiting.append((replay.waiting, replay.due()))
    assert waiting == [(1, False), (2, False), (3, True)]
    taught = replay.services.ledger.examples("1.0")
    assert [(each.task_id, each.result) for each in taught] == [(task.id, list(task.result)) for task in tasks[:3]]


def test_a_training_that_failed_is_not_repeated_at_once(replayed: Callable[..., Replay]) -> None:
    replay = replayed(min_new_annotations=2, min_per_class=0)
    for task in TASKS[:2]:
        replay.submit(task, time.time())
    assert replay.due()
    trained = replay.train()
    assert (trained.status, trained.served, trained.new) == ("failed", "v0", False)
    assert "image" in trained.message
    assert not replay.due()
    replay.submit(TASKS[2], time.time())
    assert replay.waiting == 1
