"""Which version serves, by compare-and-set: several processes at once, and a registry on a real MLflow."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.store.database import Store
from backend.store.jobs import Jobs
from backend.store.serving import ServingRows
from model_registry import PERSON, TRAINING, CancelledMeanwhile, Champions, Registry, RegistryError, Serving, Version

MODEL = "7.1795453273"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path / 'yoloop.db'}")
    yield made
    made.close()


@pytest.fixture
def rows(store: Store) -> ServingRows:
    return ServingRows(store)


@pytest.fixture
def registry(tmp_path: Path, empty_registry: Path, rows: ServingRows) -> Registry:
    shutil.copyfile(empty_registry, tmp_path / "mlflow.db")
    return opened(tmp_path, rows)


def opened(folder: Path, rows: ServingRows | None = None) -> Registry:
    return Registry(f"sqlite:///{folder / 'mlflow.db'}", folder / "registry", rows)


def register(registry: Registry, folder: Path, key: str) -> Version:
    weights = folder / "best.pt"
    weights.write_bytes(key.encode())
    return registry.register(MODEL, key, {"weights.pt": weights}, metrics={"fitness": 0.5}, params={}, tags={})


@pytest.fixture
def three(registry: Registry, tmp_path: Path) -> Registry:
    """With v1, v2 and v3, none of which serves."""
    for key in ("a", "b", "c"):
        register(registry, tmp_path, key)
    return registry


class Away:
    """MLflow's client while its server does not answer."""

    def __getattr__(self, name: str) -> Any:
        raise ConnectionError("refused")


def mlflow_away(registry: Registry) -> Callable[[], None]:
    """MLflow does not answer until what is returned is called."""
    client = registry._client
    registry.__dict__["_client"] = Away()

    def back() -> None:
        registry.__dict__["_client"] = client

    return back


def alias(registry: Registry) -> int | None:
    """What MLflow says that serves."""
    return registry.aliases().get(MODEL)


def _act(url: str, number: int, times: int, ready: Any, done: Any) -> None:
    """One of several processes: promotes its own version by compare-and-set, and rolls it back, again and again."""
    rows = ServingRows(Store(url))
    ready.wait(60)
    won = 0
    for _ in range(times):
        while True:
            seen = rows.get(MODEL) or Serving()
            wanted = seen.left(PERSON, 1.0, lambda _: True) if seen.number == number else None
            wanted = wanted or seen.promoted(number, TRAINING, "better", 1.0)
            if rows.replace(MODEL, seen.sequence, wanted):
                won += 1
                break
    done.put(won)


def test_of_processes_at_once_each_act_is_one_and_none_is_lost(rows: ServingRows, store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done, url = context.Barrier(3), context.Queue(), store.engine.url.render_as_string(hide_password=False)
    processes = [context.Process(target=_act, args=(url, number, 25, ready, done)) for number in (1, 2, 3)]
    for process in processes:
        process.start()
    won = sum(done.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
    found = rows.get(MODEL)
    assert found is not None
    assert won == found.sequence == 75
    # However they fell: what serves is on the top of the stack, and nothing that was rolled back is on it.
    assert found.stack[-1:] == (() if found.number is None else (found.number,))
    assert not set(found.stack) & found.rolled_back


def test_who_saw_an_older_row_writes_nothing(rows: ServingRows) -> None:
    first = Serving().promoted(1, TRAINING, "", 1.0)
    assert rows.replace(MODEL, 0, first)
    assert not rows.replace(MODEL, 0, Serving().promoted(2, TRAINING, "", 1.0))
    seen = rows.get(MODEL)
    assert seen is not None and (seen.number, seen.sequence) == (1, 1)
    assert rows.replace(MODEL, 1, seen.promoted(2, PERSON, "by hand", 2.0))
    assert not rows.replace(MODEL, 1, seen.promoted(3, TRAINING, "", 3.0))
    found = rows.get(MODEL)
    assert found is not None
    assert (found.number, found.stack, found.by, found.reason, found.sequence) == (2, (1, 2), PERSON, "by hand", 2)
    assert [(uid, each.number) for uid, each in rows.all().items()] == [(MODEL, 2)]


def test_a_training_that_was_cancelled_promotes_nothing(rows: ServingRows, store: Store) -> None:
    jobs = Jobs(store)
    job, _ = jobs.request(MODEL, "why", 1.0)
    jobs.cancel(MODEL)
    with pytest.raises(CancelledMeanwhile):
        rows.replace(MODEL, 0, Serving().promoted(1, TRAINING, "", 1.0), job=job.id)
    assert rows.get(MODEL) is None


class TestActs:
    def test_a_training_does_not_override_a_rollback(self, three: Registry) -> None:
        three.promote(MODEL, 1, "first")
        three.promote(MODEL, 2, "better")
        three.rollback(MODEL)
        instead = three.promote_candidate(MODEL, 3, "better than v2", expected=2)
        assert instead is not None and (instead.number, instead.what, instead.by) == (1, "rolled back", PERSON)
        assert three.champion_number(MODEL) == 1 and alias(three) == 1
        assert three.version(MODEL, 3).reason == "better than v2"
        assert three.promote_candidate(MODEL, 3, "better than v1", expected=1) is None
        assert three.served_before(MODEL) == [1]

    def test_a_rollback_between_look_and_promotion_is_not_lost(
        self, three: Registry, rows: ServingRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both ways round: a person acts after the training has seen the row, and before it writes."""
        three.promote(MODEL, 1, "first")
        three.promote(MODEL, 2, "better")
        person, replace, acted = opened(tmp_path, rows), rows.replace, []

        def after_a_person(*given: Any, **named: Any) -> bool:
            if not acted:
                acted.append(person)
                person.rollback(MODEL)
            return replace(*given, **named)

        monkeypatch.setattr(rows, "replace", after_a_person)
        instead = three.promote_candidate(MODEL, 3, "better than v2", expected=2)
        assert instead is not None and instead.number == 1
        assert (three.champion_number(MODEL), three.serving(MODEL).stack) == (1, (1,))

    def test_a_rollback_within_a_promotion_leaves_no_stack_that_serves_it(
        self, three: Registry, rows: ServingRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A training promotes v3 after a person's rollback has seen v2: v3 is what is rolled back, as one act."""
        three.promote(MODEL, 1, "first")
        three.promote(MODEL, 2, "better")
        training, replace, acted = opened(tmp_path, rows), rows.replace, []

        def after_a_training(*given: Any, **named: Any) -> bool:
            if not acted:
                acted.append(training)
                assert training.promote_candidate(MODEL, 3, "better", expected=2) is None
            return replace(*given, **named)

        monkeypatch.setattr(rows, "replace", after_a_training)
        found = three.rollback(MODEL)
        assert found is not None and found.number == 2
        assert (three.serving(MODEL).stack, three.rolled_back(MODEL)) == ((1, 2), {3})
        found = three.rollback(MODEL)
        assert found is not None and found.number == 1
        assert three.rolled_back(MODEL) == {2, 3} and three.eligible(MODEL) == [1]

    def test_threads_at_once(self, three: Registry, rows: ServingRows, tmp_path: Path) -> None:
        three.promote(MODEL, 1, "first")
        mine = [opened(tmp_path, rows) for _ in range(3)]
        for each in mine:
            each.open()
        acts: list[Callable[[], object]] = [
            lambda: mine[0].promote(MODEL, 2, "by hand", PERSON),
            lambda: mine[1].promote_candidate(MODEL, 3, "better", expected=1),
            lambda: mine[2].rollback(MODEL),
        ]
        threads = [threading.Thread(target=act) for act in acts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        three.look()
        found = three.serving(MODEL)
        assert found.stack[-1:] == (() if found.number is None else (found.number,))
        assert not set(found.stack) & found.rolled_back
        assert alias(three) == found.number

    def test_what_was_taken_out_of_service_is_not_promoted_by_a_repeated_step(self, three: Registry) -> None:
        three.promote(MODEL, 1, "first")
        assert three.promote_candidate(MODEL, 2, "better", expected=1) is None
        assert three.promote_candidate(MODEL, 2, "better", expected=1) is None
        three.rollback(MODEL)
        instead = three.promote_candidate(MODEL, 2, "better", expected=1)
        assert instead is not None and instead.number == 1
        assert three.champion_number(MODEL) == 1

    def test_what_was_measured_stays_beside_what_a_person_did(self, three: Registry, tmp_path: Path) -> None:
        three.promote(MODEL, 1, "first")
        three.note(MODEL, 2, "gate", json.dumps({"promote": False}))
        three.reject(MODEL, 2, "It is worse: 0.4 against 0.5.")
        found = three.promote(MODEL, 2, "promoted by hand", PERSON)
        for each in (found, *three.versions(MODEL), opened(tmp_path).version(MODEL, 2)):
            if each.number == 2:
                assert (each.decision, each.decided_by) == ("promoted", PERSON)
                assert each.reason == "It is worse: 0.4 against 0.5." and each.gate == {"promote": False}
                assert each.message == "promoted by hand; measured: It is worse: 0.4 against 0.5."
        three.rollback(MODEL)
        assert three.version(MODEL, 2).message == "rolled back by hand; measured: It is worse: 0.4 against 0.5."
        assert three.version(MODEL, 1).message == "first" and three.version(MODEL, 1).decided_by == TRAINING

    def test_a_person_s_promotion_survives_the_training_s_rejection(self, three: Registry) -> None:
        three.promote(MODEL, 3, "promoted by hand", PERSON)
        rejected = three.reject(MODEL, 3, "It is worse.")
        assert rejected.champion and rejected.decision == "promoted" and rejected.reason == "It is worse."


class TestMLflow:
    def test_a_promotion_stands_although_mlflow_could_not_be_told(self, three: Registry, tmp_path: Path) -> None:
        three.promote(MODEL, 1, "first")
        three.promote(MODEL, 2, "better")
        three.fetch(three.version(MODEL, 1))
        champions = Champions(three)
        champions.look()
        champions.remember(MODEL)
        back = mlflow_away(three)
        found = three.rollback(MODEL)
        assert found is not None and found.number == 1 and found.champion
        assert three.champion_number(MODEL) == 1 and three.name_in_service(MODEL) == "v1"
        back()
        assert alias(three) == 2
        assert three.look() == {MODEL: 1}
        assert alias(three) == 1
        assert opened(tmp_path).version(MODEL, 2).decision == "rolled back"

    def test_without_the_files_here_a_sentence_says_so_and_nothing_changes(self, three: Registry) -> None:
        three.promote(MODEL, 1, "first")
        three.promote(MODEL, 2, "better")
        back = mlflow_away(three)
        with pytest.raises(RegistryError, match=r"weights of v1 are not on this machine\. Nothing was changed"):
            three.rollback(MODEL)
        with pytest.raises(RegistryError, match="weights of v3 are not on this machine"):
            three.promote(MODEL, 3, "promoted by hand", PERSON)
        back()
        assert three.champion_number(MODEL) == 2 and three.look() == {MODEL: 2}

    def test_the_row_serves_while_mlflow_is_away_from_the_start(
        self, three: Registry, rows: ServingRows, tmp_path: Path
    ) -> None:
        three.promote(MODEL, 2, "better")
        started = opened(tmp_path, rows)
        started.__dict__["_client"] = Away()
        assert Champions(started).number(MODEL, wait=0.1) == 2

    def test_a_version_deleted_there_is_followed_by_the_one_before_it(
        self, three: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in (1, 2, 3):
            three.promote(MODEL, number, "better")
        three._client.delete_model_version(MODEL, "3")
        assert three.look() == {MODEL: 2}
        assert alias(three) == 2
        assert "v3 was deleted in MLflow, and v2 served before it, so v2 serves" in caplog.text
        assert three.trouble_in_mlflow(MODEL) == "v3 was deleted in MLflow, and v2 served before it"
        assert three.eligible(MODEL) == [2, 1]
        register(three, tmp_path, "d")
        three.promote(MODEL, 4, "better")
        assert three.trouble_in_mlflow(MODEL) == ""
        for expected in (2, 1):
            found = three.rollback(MODEL)
            assert found is not None and found.number == expected
        assert three.rollback(MODEL) is None

    def test_a_version_deleted_there_is_left_out_before_anybody_looked(self, three: Registry) -> None:
        for number in (1, 2, 3):
            three.promote(MODEL, number, "better")
        three._client.delete_model_version(MODEL, "2")
        found = three.rollback(MODEL)
        assert found is not None and found.number == 1
        three._client.delete_model_version(MODEL, "1")
        assert three.champion(MODEL) is None

    def test_no_number_is_given_twice(self, three: Registry, tmp_path: Path) -> None:
        three.promote(MODEL, 3, "better")
        three._client.delete_registered_model(MODEL)
        assert three.look() == {}
        assert register(three, tmp_path, "d").name == "v4"
        assert register(three, tmp_path, "d").name == "v4"
        assert [each.name for each in three.versions(MODEL)] == ["v4"]
        three._client.delete_model_version(MODEL, "4")
        assert register(three, tmp_path, "e").name == "v5"

    def test_numbers_of_trainings_before_are_not_given_again(
        self, registry: Registry, store: Store, tmp_path: Path
    ) -> None:
        job, _ = Jobs(store).request(MODEL, "why", 1.0)
        Jobs(store).finish(job.id, "done", "", 2.0, "v2")
        assert register(registry, tmp_path, "a").name == "v3"

    @pytest.mark.parametrize("act", ["set", "removed", "deleted"])
    def test_what_was_done_there_is_heeded_by_a_promotion_before_anybody_looked(
        self, three: Registry, act: str
    ) -> None:
        three.promote(MODEL, 1, "first")
        three.promote(MODEL, 2, "second")
        if act == "set":
            three._client.set_registered_model_alias(MODEL, "champion", "1")
        elif act == "removed":
            three._client.delete_registered_model_alias(MODEL, "champion")
        else:
            three._client.delete_model_version(MODEL, "2")
        instead = three.promote_candidate(MODEL, 3, "third", expected=2)
        expected = None if act == "removed" else 1
        assert instead is not None and instead.by == PERSON
        assert (instead.number, three.champion_number(MODEL), alias(three)) == (expected, expected, expected)

    def test_what_was_done_there_is_heeded_by_a_rollback_before_anybody_looked(self, three: Registry) -> None:
        for number in (1, 2, 3):
            three.promote(MODEL, number, "better")
        three._client.set_registered_model_alias(MODEL, "champion", "1")
        found = three.rollback(MODEL)
        assert found is not None and found.number == 3  # which served before a person set the alias
        assert three.rolled_back(MODEL) == {1}

    def test_what_was_done_there_is_heeded_by_a_rejection_before_anybody_looked(self, three: Registry) -> None:
        three.promote(MODEL, 1, "first")
        three._client.set_registered_model_alias(MODEL, "champion", "2")
        found = three.reject(MODEL, 2, "worse")
        assert (found.champion, found.decision, found.decided_by) == (True, "promoted", PERSON)
        assert "challenger" not in three._client.get_registered_model(MODEL).aliases

    def test_an_alias_that_somebody_sets_or_removes_there_is_an_act_of_a_person(self, three: Registry) -> None:
        three.promote(MODEL, 1, "first")
        three._client.set_registered_model_alias(MODEL, "champion", "3")
        assert three.look() == {MODEL: 3}
        assert three.version(MODEL, 3).decided_by == PERSON
        assert three.version(MODEL, 3).message == "the alias champion was set in MLflow"
        assert three.served_before(MODEL) == [1]
        three._client.delete_registered_model_alias(MODEL, "champion")
        assert three.look() == {}
        assert three.trouble_in_mlflow(MODEL) == "the alias champion was removed in MLflow"


def test_what_an_earlier_release_left_is_taken_over(tmp_path: Path, empty_registry: Path, rows: ServingRows) -> None:
    """As 0.7.1 wrote it: the alias, the stack as a tag, and each decision with its reason."""
    shutil.copyfile(empty_registry, tmp_path / "mlflow.db")
    earlier = opened(tmp_path)
    client = earlier._client
    for number in range(1, 5):
        register(earlier, tmp_path, str(number))
        client.set_model_version_tag(MODEL, str(number), "decision", "promoted")
        client.set_model_version_tag(MODEL, str(number), "reason", "promoted by hand" if number == 2 else "better")
        client.set_model_version_tag(MODEL, str(number), "in_service_since", str(100.0 + number))
    client.set_model_version_tag(MODEL, "4", "decision", "rolled back")
    client.set_registered_model_tag(MODEL, "promoted", json.dumps([1, 2, 3]))
    client.set_registered_model_alias(MODEL, "champion", "3")
    now = opened(tmp_path, rows)
    assert now.look() == {MODEL: 3}
    found = rows.get(MODEL)
    assert found is not None
    assert (found.number, found.stack, found.highest, found.by, found.at) == (3, (1, 2, 3), 4, TRAINING, 103.0)
    assert found.rolled_back == {4} and found.mirrored == found.sequence
    assert [(each.name, each.decision, each.decided_by, each.message) for each in now.versions(MODEL)] == [
        ("v4", "rolled back", PERSON, "rolled back by hand; measured: better"),
        ("v3", "promoted", TRAINING, "better"),
        ("v2", "promoted", PERSON, "promoted by hand"),
        ("v1", "promoted", TRAINING, "better"),
    ]
    rolled = now.rollback(MODEL)
    assert rolled is not None and rolled.number == 2
    assert rows.all()[MODEL].number == 2
