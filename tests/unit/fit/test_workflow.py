"""What a training starts from, on a real registry."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.fit.workflow import Training, _metric_name
from backend.services import Services
from backend.settings import Settings

UID = "1.100"


@pytest.fixture
def services(tmp_path: Path, empty_registry: Path) -> Iterator[Services]:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copyfile(empty_registry, home / "mlflow.db")
    made = Services(Settings(home=home))
    for number in (1, 2, 3):
        weights = home / "best.pt"
        weights.write_bytes(f"weights {number}".encode())
        made.registry.register(UID, f"{number}", {"weights.pt": weights}, metrics={}, params={}, tags={})
        made.registry.promote(UID, number, "better")
    yield made
    made.close()


def start(services: Services) -> str:
    found = Training(services, lambda _, function: function())._readable(UID)
    return "" if found is None else found.name


def spoil(services: Services, number: int, data: bytes | None) -> None:
    run = services.registry.version(UID, number).run_id
    (stored,) = (services.settings.root / "registry" / "artifacts" / run).rglob("weights.pt")
    stored.unlink()
    if data is not None:
        stored.write_bytes(data)


def test_a_training_starts_from_the_version_in_service(services: Services) -> None:
    assert start(services) == "v3"


def test_a_spoiled_champion_stops_no_training(services: Services) -> None:
    spoil(services, 3, b"half")
    spoil(services, 2, None)
    assert start(services) == "v1"
    spoil(services, 1, b"")
    assert start(services) == "v1", "its local copy is whole"
    shutil.rmtree(services.settings.root / "registry" / "local")
    assert start(services) == ""


def test_a_store_that_cannot_be_reached_is_not_taken_for_an_empty_one(services: Services) -> None:
    run = services.registry.version(UID, 3).run_id
    (stored,) = (services.settings.root / "registry" / "artifacts" / run).rglob("weights.pt")
    stored.unlink()
    stored.mkdir()
    with pytest.raises(OSError):
        start(services)


@pytest.mark.parametrize("label", [".", "/", "..", "./x", "a//b", "and/or/", "\U0001f697"])
def test_mlflow_takes_the_metric_of_any_label(services: Services, tmp_path: Path, label: str) -> None:
    weights = tmp_path / "best.pt"
    weights.write_bytes(b"weights")
    name = _metric_name(f"mAP50/{label}")
    made = services.registry.register(UID, label, {"weights.pt": weights}, metrics={name: 0.5}, params={}, tags={})
    assert dict(made.metrics) == {name: 0.5}
