"""From the trainer's numbers to the version in service and the record of why, on a real registry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backend.fit.training.spec import NetworkSpec, Spec
from backend.fit.workflow import Training
from backend.labels.networks import Network
from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.services import Services
from backend.settings import Settings
from backend.store.jobs import Job
from backend.store.progress import KEPT
from model_registry import Comparison, Estimate, Scored

UID = "1.100"
DETECT = Network("detect", "detect", ("Car", "Bus"), ("label",))
WEATHER = Network("classify:weather", "classify", ("Day", "Night"), ("weather",))


@pytest.fixture
def services(tmp_path: Path, empty_registry: Path) -> Iterator[Services]:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copyfile(empty_registry, home / "mlflow.db")
    made = Services(Settings(home=home, max_class_drop=0.2))
    yield made
    made.close()


def earlier(new: float, old: float, **fields: Any) -> dict[str, Any]:
    """What 0.7 measured."""
    scores = [{"mAP50-95": value, "mAP50": value, "mAP50/Car": value} for value in (new, old)]
    return {"candidate": scores[0], "champion": scores[1], "holdout": 20, "seconds": 1.0, "epochs": 2, **fields}


def compared(new: float, old: float, error: float = 0.01, against: str = "v0", **fields: Any) -> dict[str, Any]:
    work = Estimate(41.0, 45.0, 4.0, 19, more_is_worse=True)
    return Comparison(
        against, ("Car", "Bus"), (), 20, 20, 60, Estimate(new, old, error, 19), **{"work": work, **fields}
    ).dump()


def detected(new: float, old: float, error: float = 0.01, **fields: Any) -> dict[str, Any]:
    return {
        **earlier(new, old),
        "scored": asdict(Scored("mAP50-95", new, 41.0, 20, 60)),
        "comparison": compared(new, old, error),
        **fields,
    }


def judge(services: Services, *measured: tuple[Network, dict[str, Any]]) -> tuple[str, dict[str, str]]:
    """A candidate of these models against a champion; the message, and the candidate's tags."""
    weights = services.settings.root / "best.pt"
    weights.write_bytes(b"weights")
    made = services.registry.register(UID, "key", {"weights.pt": weights}, metrics={}, params={}, tags={"parent": ""})
    training = Training(services, lambda _, function: function())
    job = Job("job", UID, "running", "why", 0.0, 0.0, None, None, None, "", "", False)
    training.folder(job.id).mkdir(parents=True)
    networks = [
        NetworkSpec(asdict(network), "", "", "", 1, 64, "opponent.pt", asdict(network), 64) for network, _ in measured
    ]
    Spec("", "", networks, "", 1.0, 1, "cpu", 50).save(training.folder(job.id))
    result = {"networks": [each for _, each in measured]}
    message = training._judge(job, made.number, result)
    tags = dict(services.registry.version(UID, made.number).tags)
    # A worker that was killed right after judges again: nothing changes.
    assert training._judge(job, made.number, result) == message
    assert dict(services.registry.version(UID, made.number).tags) == tags
    return message, tags


def test_the_decision_is_kept_with_its_numbers(services: Services) -> None:
    message, tags = judge(services, (DETECT, detected(0.812, 0.795)))
    assert message == (
        "v1 promoted: mAP50-95 0.812 instead of 0.795 of v0 (+0.017, 95 % sure between -0.004 and +0.038) and 41 "
        "instead of 45 corrections, on 60 objects on 20 held-out images: it is not worse; so few could tell 0.03."
    )
    assert json.loads(tags["gate"]) == {
        "promote": True,
        "networks": {
            "detect": {
                "promote": True,
                "rule": "not worse",
                "best_version": "",
                "metric": "mAP50-95",
                "candidate": 0.812,
                "corrections": 41,
                "compared": 0.812,
                "champion": 0.795,
                "difference": pytest.approx(0.017),
                "interval": [pytest.approx(-0.004, abs=1e-3), pytest.approx(0.038, abs=1e-3)],
                "could_tell": pytest.approx(0.029, abs=1e-3),
                "holdout": 20,
                "groups": 20,
                "objects": 60,
                "work": {
                    "candidate": 41,
                    "other": 45,
                    "difference": -4,
                    "interval": [pytest.approx(-12.4, abs=0.1), pytest.approx(4.4, abs=0.1)],
                },
            }
        },
    }
    assert services.registry.champion_number(UID) == 1


def test_annotations_that_are_not_understood_are_told_with_the_outcome(services: Services) -> None:
    config = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
        '<Label value="Car"/></RectangleLabels></View>'
    )
    services.store.save_project(UID, label_config=config)
    tasks = []
    for number, name in enumerate(("Car", "car park", "tree", "tree"), 1):
        value = {"x": 1, "y": 2, "width": 30, "height": 40, "rectanglelabels": [name]}
        region = {"from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}
        now = datetime.now(UTC)
        made = AnnotationRecord(number, [region], False, False, now, now, 1, 2.0, None)
        tasks.append(TaskRecord(number, now, now, {"image": f"/data/{number}.jpg"}, (made,)))
    services.ledger.update(UID, tasks)
    message, _ = judge(services, (DETECT, detected(0.812, 0.795)))
    assert message.endswith(
        "3 of 4 annotations are not understood: label `tree` is not in the config (2), "
        "label `car park` is not in the config (1)."
    )


def test_worse_does_not_serve(services: Services) -> None:
    message, tags = judge(services, (DETECT, detected(0.77, 0.795)))
    assert message.startswith(f"v1 {KEPT}: ")
    assert json.loads(tags["gate"])["networks"]["detect"]["rule"] == "worse"
    assert services.registry.champion_number(UID) is None


def test_the_setting_says_how_much_a_label_may_lose(services: Services) -> None:
    lost = {label: Estimate(0.8 - loss, 0.8, 0.01, 19) for label, loss in (("Car", 0.15), ("Bus", 0.25))}
    message, tags = judge(services, (DETECT, detected(0.8, 0.8, comparison=compared(0.8, 0.8, by_label=lost))))
    assert "label 'Bus' clearly fell, from 0.800 to 0.550" in message
    assert json.loads(tags["gate"])["networks"]["detect"]["label"] == "Bus"


def test_the_best_version_so_far_is_held_against_it_and_remembered(services: Services) -> None:
    others = {"v7": {"metrics": {}, "comparison": compared(0.78, 0.85, against="v7")}}
    message, tags = judge(services, (DETECT, detected(0.78, 0.79, others=others)))
    told = json.loads(tags["gate"])["networks"]["detect"]
    assert KEPT in message and told["rule"] == "slow slide"
    assert told["best_version"] == "v7"


def test_one_that_is_proven_better_is_the_best_so_far(services: Services) -> None:
    others = {"v7": {"metrics": {}, "comparison": compared(0.9, 0.8, against="v7")}}
    _, tags = judge(services, (DETECT, detected(0.9, 0.79, others=others)))
    assert json.loads(tags["gate"])["networks"]["detect"]["best_version"] == "v1"


@pytest.mark.parametrize(
    ("new", "interval", "promote"),
    [
        (0.79, {"mean": 0, "low": -0.025, "high": 0.015, "rounds": 1000}, True),
        (0.7, {"mean": 0, "low": -0.115, "high": -0.075, "rounds": 1000}, False),
        (0.79, None, True),
    ],
)
def test_what_an_earlier_release_measured_is_judged_too(
    services: Services, new: float, interval: dict[str, float] | None, promote: bool
) -> None:
    message, tags = judge(services, (DETECT, earlier(new, 0.795, difference=interval)))
    assert message.startswith("v1 promoted: ") == promote
    assert json.loads(tags["gate"])["promote"] is promote
    assert ("interval" in json.loads(tags["gate"])["networks"]["detect"]) is (interval is not None)


def test_each_of_several_models_is_told(services: Services) -> None:
    choices = detected(0.9, 0.5, scored=asdict(Scored("accuracy", 0.9, 2.0, 20, 20)))
    message, tags = judge(services, (DETECT, detected(0.5, 0.8)), (WEATHER, choices))
    assert KEPT in message
    told = json.loads(tags["gate"])
    assert told["promote"] is False
    assert {key: each["promote"] for key, each in told["networks"].items()} == {
        "detect": False,
        "classify:weather": True,
    }


def test_the_first_record_of_a_decision_stays(services: Services) -> None:
    _, tags = judge(services, (DETECT, detected(0.8, 0.7)))
    services.registry.note(UID, 1, "gate", "another")
    services.registry.note(UID, 1, "new", "text")
    assert dict(services.registry.version(UID, 1).tags) == {**tags, "new": "text"}
