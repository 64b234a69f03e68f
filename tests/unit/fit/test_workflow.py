"""What a training starts from, on a real registry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.fit.workflow import Training, _fitness, _metric_name
from backend.labels.networks import Network
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


def test_a_candidate_is_held_against_the_best_version_before_the_one_in_service(services: Services) -> None:
    training = Training(services, lambda _, function: function())
    registry = services.registry
    registry.note(UID, 3, "gate", json.dumps({"networks": {"detect": {"best_version": "v1"}}}))
    served = [registry.version(UID, 3), *training._served_before(registry.version(UID, 3))]
    assert [each.name for each in served] == ["v3", "v2", "v1"]
    (best,) = training._best("detect", served)
    assert (best.version, Path(best.weights).read_bytes()) == ("v1", b"weights 1")
    assert training._best("pose:kp", served) == []
    shutil.rmtree(services.settings.root / "registry" / "local")
    spoil(services, 1, None)
    assert training._best("detect", served) == [], "its weights are gone"


def test_what_a_person_took_back_is_not_held_against_a_candidate(services: Services) -> None:
    training = Training(services, lambda _, function: function())
    registry = services.registry
    registry.rollback(UID)
    champion = registry.champion(UID)
    assert champion is not None and champion.name == "v2"
    assert [each.name for each in training._served_before(champion)] == ["v1"]
    registry.promote(UID, 1, "promoted by hand")
    first = registry.version(UID, 1)
    assert training._served_before(first) == [], "a person preferred the first one"


DETECT, SEGMENT = Network("detect", "detect", ("Car",)), Network("segment", "segment", ("Road",))
WEATHER = Network("classify:weather", "classify", ("Day",))


def scored(metric: str, score: float) -> dict[str, Any]:
    return {"candidate": {metric: 0.9}, "scored": {"score": score}}


def test_a_version_has_one_score_for_each_metric() -> None:
    boxes, masks = (DETECT, scored("mAP50-95", 0.4)), (SEGMENT, scored("mAP50-95", 0.6))
    assert _fitness([boxes, masks]) == {"fitness": 0.5}
    assert _fitness([boxes, masks, (WEATHER, scored("accuracy", 0.9))]) == {
        "fitness/mAP50-95": 0.5,
        "fitness/accuracy": 0.9,
    }, "no mean of mAP and accuracy"
    assert _fitness([(DETECT, {"candidate": {"mAP50-95": 0.3}})]) == {"fitness": 0.3}, "of an earlier release"


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
