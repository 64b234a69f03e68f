"""Which version serves, with a real registry in a file, and one that stops answering."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model_registry import Champions, Registry, RegistryError, Version
from model_registry.memory import NAME, Memory, Remembered

MODEL = "7.1795453273"


class Failing(Registry):
    """A registry that is asked like a server, and answers while it is not `away`."""

    away = False
    in_file = False

    def aliases(self) -> dict[str, int]:
        if self.away:
            raise ConnectionError("away")
        found = self.champion_number(MODEL)
        return {} if found is None else {MODEL: found}


@pytest.fixture
def registry(tmp_path: Path, empty_registry: Path) -> Failing:
    shutil.copyfile(empty_registry, tmp_path / "mlflow.db")
    return Failing(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "registry")


def register(registry: Registry, folder: Path, key: str) -> Version:
    weights = folder / "best.pt"
    weights.write_bytes(key.encode())
    return registry.register(MODEL, key, {"weights.pt": weights}, metrics={"fitness": 0.5}, params={}, tags={"x": "ä"})


def restarted(registry: Failing, *, away: bool) -> Champions:
    registry.away = away
    made = Champions(registry)
    made.look()
    return made


def test_what_was_said_last_is_known_after_a_restart(registry: Failing, tmp_path: Path) -> None:
    for key in ("one", "two"):
        registry.promote(MODEL, register(registry, tmp_path, key).number, "better")
    before = restarted(registry, away=False)
    before.remember(MODEL)
    version = before.version(MODEL, 2)
    before.fetch(version)
    after = restarted(registry, away=True)
    assert after.numbers() is None
    assert after.number(MODEL) == 2
    assert after.served_before(MODEL) == [1]
    assert after.version(MODEL, 2) == version
    assert after.fetch(version).read_bytes() == b"two"
    with pytest.raises(RegistryError, match=r"no copy of weights\.pt of v1"):
        after.fetch(after.version(MODEL, 1))
    with pytest.raises(RegistryError, match="v3 is not known"):
        after.version(MODEL, 3)
    assert after.back_at == 0.0
    registry.away = False
    registry.rollback(MODEL)
    after.look()
    assert after.number(MODEL) == 1
    assert after.back_at > 0.0


def test_a_rollback_to_before_any_training_is_remembered(registry: Failing, tmp_path: Path) -> None:
    registry.promote(MODEL, register(registry, tmp_path, "one").number, "better")
    champions = restarted(registry, away=False)
    champions.remember(MODEL)
    registry.rollback(MODEL)
    champions.look()
    champions.remember(MODEL)
    assert restarted(registry, away=True).number(MODEL) is None


def test_what_is_forgotten_is_not_remembered(registry: Failing, tmp_path: Path) -> None:
    registry.promote(MODEL, register(registry, tmp_path, "one").number, "better")
    champions = restarted(registry, away=False)
    champions.remember(MODEL)
    registry.forget(MODEL)
    champions.look()
    champions.remember(MODEL)
    assert not (registry.copies / MODEL).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"champion": "x", "served_before": [], "versions": []}'])
def test_a_damaged_file_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / MODEL).mkdir()
    (tmp_path / MODEL / NAME).write_text(text)
    memory = Memory(tmp_path)
    assert memory.read(MODEL) is None
    memory.write(MODEL, Remembered(3, [2, 1]))
    assert memory.read(MODEL) == Remembered(3, [2, 1])


def test_all_models_in_one_question(registry: Failing, tmp_path: Path) -> None:
    asked = Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "registry")
    assert asked.look() == {}
    asked.promote(MODEL, register(asked, tmp_path, "one").number, "better")
    assert asked.look() == {MODEL: 1}
