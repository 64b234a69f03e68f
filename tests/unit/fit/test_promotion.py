"""What becomes of a judged version while people act: on a real registry and a real database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.errors import TrainingCancelled
from backend.fit.promotion import carry_out, kept_back
from backend.services import Services
from backend.settings import Settings
from backend.store.jobs import Job
from model_registry import PERSON, TRAINING, Decision, Serving

UID = "1.100"
BETTER = Decision(True, "mAP50-95 0.6 against 0.5.")
WORSE = Decision(False, "mAP50-95 0.4 against 0.5.")
FIRST = Serving().promoted(1, TRAINING, "", 1.0)
TWO = FIRST.promoted(2, TRAINING, "", 2.0)


@pytest.fixture
def services(tmp_path: Path, empty_registry: Path) -> Iterator[Services]:
    """With v1 and v2, which served one after the other, and v3."""
    shutil.copyfile(empty_registry, tmp_path / "mlflow.db")
    made = Services(Settings(home=tmp_path))
    (tmp_path / "best.pt").write_bytes(b"weights")
    for number in (1, 2, 3):
        files = {"weights.pt": tmp_path / "best.pt"}
        made.registry.register(UID, f"{number}", files, metrics={}, params={}, tags={})
        if number < 3:
            made.registry.promote(UID, number, "better")
    yield made
    made.close()


@pytest.fixture
def job(services: Services) -> Job:
    made, _ = services.jobs.request(UID, "why", 1.0)
    return made


def test_the_better_one_serves(services: Services, job: Job) -> None:
    assert carry_out(services, job, 3, BETTER, 2) == (True, BETTER.reason)
    assert carry_out(services, job, 3, BETTER, 2) == (True, BETTER.reason)
    found = services.registry.champion(UID)
    assert found is not None and (found.name, found.decided_by, found.reason) == ("v3", TRAINING, BETTER.reason)


def test_a_person_who_acts_meanwhile_is_not_overridden(services: Services, job: Job) -> None:
    services.registry.rollback(UID)
    promoted, told = carry_out(services, job, 3, BETTER, 2)
    assert not promoted
    assert told == (
        "A person rolled back to v1 meanwhile; v3 was compared with v2. Promote it with `yoloop promote v3`. "
        f"{BETTER.reason}"
    )
    assert services.registry.champion_number(UID) == 1
    kept = services.registry.version(UID, 3)
    assert (kept.decision, kept.reason) == ("rejected", BETTER.reason)


def test_a_person_who_promotes_the_candidate_first_is_right(services: Services, job: Job) -> None:
    services.registry.promote(UID, 3, "promoted by hand", PERSON)
    promoted, told = carry_out(services, job, 3, WORSE, 2)
    assert promoted and told == f"A person promoted v3 meanwhile, and it serves. {WORSE.reason}"
    assert services.registry.champion_number(UID) == 3
    assert services.registry.version(UID, 3).message == f"promoted by hand; measured: {WORSE.reason}"


@pytest.mark.parametrize("decision", [BETTER, WORSE], ids=["better", "worse"])
def test_what_is_cancelled_after_the_measuring_is_not_promoted(
    services: Services, job: Job, decision: Decision
) -> None:
    services.jobs.cancel(UID)
    with pytest.raises(TrainingCancelled):
        carry_out(services, job, 3, decision, 2)
    assert services.registry.champion_number(UID) == 2


def test_what_is_cancelled_right_before_the_promotion_is_not_promoted(
    services: Services, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services.jobs, "cancelled", lambda job_id: False)  # it was looked at a moment before
    services.jobs.cancel(UID)
    with pytest.raises(TrainingCancelled):
        carry_out(services, job, 3, BETTER, 2)
    assert services.registry.champion_number(UID) == 2


@pytest.mark.parametrize(
    ("serving", "compared", "said"),
    [
        (TWO.left(PERSON, 3.0, lambda _: True), 2, "A person rolled back to v1 meanwhile; v3 was compared with v2."),
        (
            FIRST.left(PERSON, 3.0, lambda _: True),
            1,
            "A person rolled back to v0, the model before any training, meanwhile; v3 was compared with v1.",
        ),
        (FIRST.promoted(2, PERSON, "", 3.0), 1, "A person promoted v2 meanwhile; v3 was compared with v1."),
        (FIRST.promoted(2, TRAINING, "", 3.0), 1, "Another training promoted v2 meanwhile; v3 was compared with v1."),
        (FIRST, None, "Another training promoted v1 meanwhile; v3 was compared with no trained version."),
        (
            TWO.without({1}, 3.0),
            2,
            "v2 was deleted in MLflow, and v1 served before it; v3 was compared with v2.",
        ),
        (
            TWO.unset(3.0),
            2,
            "A person removed the alias champion in MLflow meanwhile, and no trained version serves; "
            "v3 was compared with v2.",
        ),
        (TWO.left(PERSON, 3.0, lambda _: True), 1, "A person rolled back to v1 meanwhile."),
    ],
    ids=["rolled back", "to v0", "by hand", "a training", "the first", "deleted", "unset", "once more"],
)
def test_why_it_does_not_serve_is_one_sentence_and_what_to_do(
    serving: Serving, compared: int | None, said: str
) -> None:
    assert kept_back(serving, 3, compared) == f"{said} Promote it with `yoloop promote v3`."
