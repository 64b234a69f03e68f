"""The registry on a real MLflow, with SQLite and files in a temporary folder."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from model_registry import PERSON, Registry, RegistryError, Version
from model_registry.versions import ABANDONED, PART

MODEL = "7.1795453273"


@pytest.fixture
def registry(tmp_path: Path, empty_registry: Path) -> Registry:
    shutil.copyfile(empty_registry, tmp_path / "mlflow.db")
    return reopened(tmp_path)


def reopened(folder: Path) -> Registry:
    return Registry(f"sqlite:///{folder / 'mlflow.db'}", folder / "registry")


@pytest.fixture
def register(registry: Registry, tmp_path: Path) -> Callable[..., Version]:
    def register(key: str, model: str = MODEL, into: Registry = registry) -> Version:
        weights = tmp_path / "best.pt"
        weights.write_bytes(f"weights of {key}".encode())
        manifest = tmp_path / "manifest.json"
        manifest.write_text(json.dumps({"key": key}))
        return into.register(
            model,
            key,
            {"weights.pt": weights, "manifest.json": manifest},
            metrics={"mAP50": 0.5, "mAP50-95": 0.25},
            params={"image_size": "64"},
            tags={"parent": "v0", "classes": json.dumps(["Ä", "b c"])},
        )

    return register


def state(registry: Registry) -> tuple[int | None, list[int], dict[str, str]]:
    """Champion, stack, and each version's decision."""
    return (
        registry.champion_number(MODEL),
        list(registry.serving(MODEL).stack),
        {version.name: version.decision for version in registry.versions(MODEL)},
    )


QUIET = """
import json, logging, sys
from pathlib import Path
from model_registry import Registry
registry = Registry(f"sqlite:///{sys.argv[1]}/mlflow.db", Path(sys.argv[1]) / "registry")
getattr(registry, sys.argv[2])("none")
from mlflow.telemetry import get_telemetry_client
loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
print(json.dumps([get_telemetry_client() is None, all(each.propagate for each in loggers)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", ["champion_number", "versions", "_ensure_model"])
def test_mlflow_reports_nothing_and_has_no_log_of_its_own(tmp_path: Path, empty_registry: Path, first: str) -> None:
    """Whatever is asked for first, in an environment that says nothing of MLflow."""
    shutil.copyfile(empty_registry, tmp_path / "mlflow.db")
    silent = ("MLFLOW", "DO_NOT_TRACK", "CI", "PYTEST", "GITHUB", "TF_BUILD", "JENKINS")
    env = {name: value for name, value in os.environ.items() if not name.startswith(silent)}
    ran = subprocess.run(
        [sys.executable, "-c", QUIET, str(tmp_path), first], env=env, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [True, True]


class TestRegistering:
    def test_what_was_told_is_kept(self, register: Callable[..., Version], tmp_path: Path) -> None:
        register("first")
        (found,) = reopened(tmp_path).versions(MODEL)
        assert (found.model, found.number, found.name, found.parent) == (MODEL, 1, "v1", "v0")
        assert found.classes == ["Ä", "b c"]
        assert found.metrics == {"mAP50": 0.5, "mAP50-95": 0.25}
        assert (found.decision, found.reason, found.champion) == ("undecided", "", False)
        assert abs(datetime.now(UTC) - found.created_at) < timedelta(minutes=5)

    def test_numbers_count_up_and_the_newest_is_first(
        self, registry: Registry, register: Callable[..., Version]
    ) -> None:
        assert [register(f"training {number}").number for number in range(11)] == list(range(1, 12))
        assert [version.number for version in registry.versions(MODEL)] == list(range(11, 0, -1))

    def test_one_key_is_one_version(self, registry: Registry, register: Callable[..., Version]) -> None:
        first, other, again = register("a"), register("b"), register("a")
        assert (again.number, again.run_id) == (first.number, first.run_id)
        assert other.number == 2
        assert len(registry.versions(MODEL)) == 2

    def test_a_crash_before_the_version_is_made_costs_no_number(
        self, registry: Registry, register: Callable[..., Version]
    ) -> None:
        for writes in range(100):
            registry.__dict__["_client"] = Failing(reopened(registry._folder.parent)._client, after=writes)
            try:
                done = register("a")
            except Crash:
                continue
            assert done.number == 1
            break
        assert writes > 4
        assert len(registry.versions(MODEL)) == 1
        assert registry.fetch(registry.version(MODEL, 1)).read_bytes() == b"weights of a"

    def test_models_do_not_mix(self, registry: Registry, register: Callable[..., Version]) -> None:
        register("a")
        assert register("a", "8.1").number == 1
        registry.promote("8.1", 1, "")
        assert registry.champion_number(MODEL) is None

    @pytest.mark.parametrize("model", ["", "9.1", "none"])
    def test_an_unknown_model(self, registry: Registry, model: str) -> None:
        assert registry.versions(model) == []
        assert registry.champion_number(model) is None
        assert registry.champion(model) is None
        with pytest.raises(RegistryError, match="no version v1"):
            registry.version(model, 1)
        with pytest.raises(RegistryError, match="no version v1"):
            registry.promote(model, 1, "")
        with pytest.raises(RegistryError, match="nothing to roll back"):
            registry.rollback(model)


class TestServing:
    @pytest.fixture(autouse=True)
    def versions(self, register: Callable[..., Version]) -> None:
        for key in "abc":
            register(key)

    def test_a_promoted_version_serves(self, registry: Registry, tmp_path: Path) -> None:
        promoted = registry.promote(MODEL, 2, "It is better.")
        assert (promoted.number, promoted.champion, promoted.reason) == (2, True, "It is better.")
        other = reopened(tmp_path).champion(MODEL)
        assert other == promoted
        assert [version.champion for version in registry.versions(MODEL)] == [False, True, False]

    def test_an_unknown_version_leaves_the_champion(self, registry: Registry) -> None:
        registry.promote(MODEL, 2, "")
        with pytest.raises(RegistryError):
            registry.promote(MODEL, 4, "")
        assert state(registry)[:2] == (2, [2])

    def test_a_rejected_version_is_the_challenger_until_it_serves(self, registry: Registry) -> None:
        registry.promote(MODEL, 1, "")
        rejected = registry.reject(MODEL, 2, "It is worse.")
        assert (rejected.decision, rejected.reason, rejected.champion) == ("rejected", "It is worse.", False)
        assert str(registry._registered(MODEL).aliases["challenger"]) == "2"
        assert registry.champion_number(MODEL) == 1
        registry.promote(MODEL, 2, "by hand")
        assert "challenger" not in registry._registered(MODEL).aliases

    def test_rollback_goes_back_the_way_it_came(self, registry: Registry) -> None:
        for number in (1, 3, 2):
            registry.promote(MODEL, number, "")
        back = [registry.rollback(MODEL) for _ in range(3)]
        assert [each.number if each else None for each in back] == [3, 1, None]
        assert state(registry) == (None, [], {"v1": "rolled back", "v2": "rolled back", "v3": "rolled back"})
        with pytest.raises(RegistryError, match="nothing to roll back"):
            registry.rollback(MODEL)

    def test_a_version_that_was_rolled_back_may_serve_again(self, registry: Registry) -> None:
        registry.promote(MODEL, 1, "")
        registry.promote(MODEL, 2, "")
        registry.rollback(MODEL)
        registry.promote(MODEL, 2, "after all")
        assert state(registry)[:2] == (2, [1, 2])

    def test_what_served_before(self, registry: Registry) -> None:
        assert registry.served_before(MODEL) == []
        for number in (1, 3, 2):
            registry.promote(MODEL, number, "better")
        assert registry.served_before(MODEL) == [3, 1]
        registry.rollback(MODEL)
        assert registry.served_before(MODEL) == [1]

    def test_a_version_promoted_twice_is_left_at_once(self, registry: Registry) -> None:
        for number in (1, 2, 1):
            registry.promote(MODEL, number, "")
        rolled = registry.rollback(MODEL)
        assert rolled is not None
        assert rolled.number == 2

    def test_it_is_known_since_when_a_version_serves(self, registry: Registry) -> None:
        assert registry.version(MODEL, 1).since == registry.version(MODEL, 1).created_at.timestamp()
        times = []
        for number in (1, 2):
            times.append(time.time())
            registry.promote(MODEL, number, "better")
            found = registry.champion(MODEL)
            assert found is not None and times[-1] <= found.since <= time.time()
            times.append(time.time())
            registry.promote(MODEL, number, "told twice")
            assert registry.version(MODEL, number).since <= times[-1]
        first = registry.version(MODEL, 1).since
        registry.rollback(MODEL)
        found = registry.champion(MODEL)
        assert found is not None and found.name == "v1" and found.since > times[-1] > first

    def test_what_was_promoted_is_seen_in_service_however_the_reads_fall(
        self, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Somebody promotes between the two questions that a look at all versions asks."""
        other = reopened(tmp_path)
        client = type(registry._client)

        def first_then_promote(name: str) -> None:
            ask = getattr(client, name)

            def asked(self: Any, *given: Any, **named: Any) -> Any:
                found = ask(self, *given, **named)
                if self is registry._client:
                    other.promote(MODEL, 1, "better")
                return found

            monkeypatch.setattr(client, name, asked)

        for name in ("get_registered_model", "search_model_versions"):
            first_then_promote(name)
        for version in registry.versions(MODEL):
            assert version.champion or version.decision != "promoted"

    def test_promoting_again_changes_nothing(self, registry: Registry) -> None:
        registry.promote(MODEL, 1, "")
        registry.promote(MODEL, 2, "why")
        before = state(registry)
        registry.promote(MODEL, 2, "why")
        assert state(registry) == before

    @pytest.mark.parametrize("writes", range(5))
    def test_what_mlflow_could_not_be_told_it_is_told_at_the_next_look(
        self, registry: Registry, tmp_path: Path, writes: int
    ) -> None:
        for number in (1, 2, 3):
            registry.promote(MODEL, number, "better")
        whole = registry._client
        registry.__dict__["_client"] = Failing(whole, after=writes)
        registry.rollback(MODEL)  # does not fail
        registry.__dict__["_client"] = whole
        assert registry.champion_number(MODEL) == 2
        registry.promote(MODEL, 2, "serves already", PERSON)  # any act, and any look, tells MLflow first
        other = reopened(tmp_path)
        assert state(other) == (2, [1, 2], {"v1": "promoted", "v2": "promoted", "v3": "rolled back"})


class TestArtifacts:
    def test_a_local_copy_is_made_once(
        self, registry: Registry, register: Callable[..., Version], tmp_path: Path
    ) -> None:
        version = register("a")
        path = registry.fetch(version)
        assert path.read_bytes() == b"weights of a"
        shutil.rmtree(tmp_path / "registry" / "artifacts")
        assert registry.fetch(version) == path
        assert [each.name for each in path.parent.iterdir()] == ["weights.pt"]

    def test_a_damaged_copy_is_made_again(self, registry: Registry, register: Callable[..., Version]) -> None:
        version = register("a")
        registry.fetch(version).write_bytes(b"half")
        assert registry.fetch(version).read_bytes() == b"weights of a"

    def test_damaged_weights_are_refused(
        self, registry: Registry, register: Callable[..., Version], tmp_path: Path
    ) -> None:
        version = register("a")
        (stored,) = (tmp_path / "registry" / "artifacts").rglob("weights.pt")
        stored.write_bytes(b"somebody else's")
        with pytest.raises(RegistryError, match="not the one that was registered"):
            registry.fetch(version)
        stored.write_bytes(b"weights of a")
        assert registry.fetch(version).read_bytes() == b"weights of a"

    def test_what_is_stored_is_verified_whatever_the_local_copy(
        self, registry: Registry, register: Callable[..., Version], tmp_path: Path
    ) -> None:
        version = register("a")
        registry.fetch(version)
        registry.verify(version, "weights.pt")
        (stored,) = (tmp_path / "registry" / "artifacts").rglob("weights.pt")
        stored.write_bytes(b"half")
        with pytest.raises(RegistryError, match="not the one that was registered"):
            registry.verify(version, "weights.pt")
        stored.unlink()
        with pytest.raises(RegistryError, match="of v1 cannot be read"):
            registry.verify(version, "weights.pt")
        registry.verify(version, "manifest.json")

    def test_what_is_gone_is_told_from_a_store_that_cannot_be_reached(
        self, registry: Registry, register: Callable[..., Version], tmp_path: Path
    ) -> None:
        version = register("a")
        (stored,) = (tmp_path / "registry" / "artifacts").rglob("weights.pt")
        stored.unlink()
        with pytest.raises(RegistryError, match=r"weights\.pt of v1 is gone"):
            registry.fetch(version)
        stored.mkdir()  # it is listed, but does not come
        with pytest.raises(OSError):
            registry.fetch(version)

    def test_what_the_killed_began_to_write_goes(
        self, registry: Registry, register: Callable[..., Version], tmp_path: Path
    ) -> None:
        version = register("a")
        left = registry.fetch(version).parent / f"{PART}abc"
        for path in (tmp_path / "registry" / f"{PART}xyz", left):
            path.mkdir()
            (path / "weights.pt").write_bytes(b"half")
        registry.tidy(time.time() + ABANDONED - 60)
        assert left.exists(), "somebody may still be at it"
        registry.tidy(time.time() + ABANDONED + 60)
        assert not list((tmp_path / "registry").rglob(f"{PART}*"))
        assert registry.fetch(version).read_bytes() == b"weights of a"
        registry.verify(version, "weights.pt")

    def test_other_artifacts(self, registry: Registry, register: Callable[..., Version]) -> None:
        first, second = register("a"), register("b")
        assert json.loads(registry.fetch(second, "manifest.json").read_text()) == {"key": "b"}
        assert json.loads(registry.fetch(first, "manifest.json").read_text()) == {"key": "a"}


class Crash(Exception):
    pass


class Failing:
    """MLflow's client until so many writes were made; the next one never happens."""

    def __init__(self, client: Any, after: int) -> None:
        self._client = client
        self._left = after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not name.startswith(("set_", "delete_", "create_", "log_")):
            return found

        def write(*args: Any, **kwargs: Any) -> Any:
            if self._left == 0:
                raise Crash(name)
            self._left -= 1
            return found(*args, **kwargs)

        return write


def test_the_name_in_service_is_told_without_mlflow(
    registry: Registry, register: Callable[..., Version], tmp_path: Path
) -> None:
    assert registry.name_in_service(MODEL) is None
    register("one")
    register("two")
    for number in (2, 1):
        registry.promote(MODEL, number, "better")
        assert reopened(tmp_path).name_in_service(MODEL) == f"v{number}" == f"v{registry.champion_number(MODEL)}"
    assert reopened(tmp_path).name_in_service("8.1") is None


def test_asking_for_the_name_in_service_makes_no_file(tmp_path: Path) -> None:
    assert reopened(tmp_path).name_in_service(MODEL) is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_forgotten_leaves_nothing_and_others_stay(
    registry: Registry, register: Callable[..., Version], tmp_path: Path
) -> None:
    versions = [register("one"), register("two"), register("three", "8.1")]
    registry.promote(MODEL, 2, "better")
    registry.promote("8.1", 1, "better")
    for each in versions:
        registry.fetch(each)
    assert registry.forget(MODEL) == 2
    assert registry.forget(MODEL) == 0  # safe to repeat
    assert registry.versions(MODEL) == [] and registry.champion_number(MODEL) is None
    (other,) = registry.versions("8.1")
    assert other.champion and registry.fetch(other).read_bytes() == b"weights of three"
    registry.verify(other, "weights.pt")
    found = [path for path in (tmp_path / "registry").rglob("*") if path.is_file()]
    left = [path for path in found if path.suffix != ".lock"]
    assert left and all("8.1" in str(path) or other.run_id in str(path) for path in left)
    assert _rows_with(tmp_path / "mlflow.db", MODEL) == []


def _rows_with(path: Path, word: str) -> list[str]:
    """Tables of which a row holds the word; a file keeps the bytes of deleted rows until they are written over."""
    with sqlite3.connect(path) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [name for name in tables if any(word in str(row) for row in _all(db, name))]


def _all(db: sqlite3.Connection, table: str) -> sqlite3.Cursor:
    return db.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - the file's own tables


def test_a_version_after_forgetting_begins_anew(registry: Registry, register: Callable[..., Version]) -> None:
    register("one")
    registry.forget(MODEL)
    assert register("again").name == "v1"


def test_thousands_of_labels_are_registered(registry: Registry, tmp_path: Path) -> None:
    weights = tmp_path / "best.pt"
    weights.write_bytes(b"weights")
    labels = [f"Label number {number}, ½ “of” many" for number in range(6000)]
    tags = {"parent": "", "classes": json.dumps(labels), "networks": json.dumps([{"classes": labels}] * 2)}
    metrics = {f"mAP50/label {number}": number / 6000 for number in range(2500)}
    made = registry.register(MODEL, "many", {"weights.pt": weights}, metrics=metrics, params={}, tags=tags)
    assert {name: made.tags[name] for name in tags} == tags and not [name for name in made.tags if ".1" in name]
    assert list(made.classes) == labels and made.metrics == pytest.approx(metrics)
    registry.note(MODEL, made.number, "gate", json.dumps(labels))
    registry.note(MODEL, made.number, "gate", "once is enough")
    (read,) = reopened(tmp_path).versions(MODEL)
    assert read.tags["gate"] == json.dumps(labels) and read.tags["classes"] == tags["classes"]
