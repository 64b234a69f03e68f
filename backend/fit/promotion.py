"""What becomes of a version once its training has been judged: in service, or kept; a person's act stays."""

from __future__ import annotations

from backend.errors import TrainingCancelled
from backend.services import Services
from backend.store.jobs import Job
from model_registry import PERSON, CancelledMeanwhile, Decision, Serving
from model_registry.serving import DELETED, ROLLED_BACK, UNSET


def carry_out(services: Services, job: Job, number: int, decision: Decision, compared: int | None) -> tuple[bool, str]:
    """Promote a version, if the decision says so and what it was compared with still serves; else keep it.

    Args:
        number: the version.
        compared: number of the version that served when the training was told what to beat; None: none.

    Returns whether the version serves, and why, in sentences for a person. Safe to repeat: what was promoted once and
    taken out of service since is not promoted again. Raises TrainingCancelled where a person cancelled meanwhile.
    """
    registry = services.registry
    if services.jobs.cancelled(job.id) and registry.champion_number(job.uid) != number:
        raise TrainingCancelled("The training was cancelled.")
    if not decision.promote:
        registry.reject(job.uid, number, decision.reason)
        serving = registry.serving(job.uid)
        promoted = serving.number == number
        by_hand = f"A person promoted v{number} meanwhile, and it serves." if promoted else ""
        return promoted, " ".join(filter(None, (by_hand, decision.reason)))
    try:
        instead = registry.promote_candidate(job.uid, number, decision.reason, expected=compared, job=job.id)
    except CancelledMeanwhile:
        raise TrainingCancelled("The training was cancelled.") from None
    if instead is None:
        return True, decision.reason
    registry.reject(job.uid, number, decision.reason)
    return False, f"{kept_back(instead, number, compared)} {decision.reason}"


def kept_back(serving: Serving, number: int, compared: int | None) -> str:
    """Why a version that might serve does not, and what a person can do.

    Args:
        serving: what serves instead.
        number: the version.
        compared: number of the version that it was compared with; None: none served.
    """
    name = serving.name
    who = "A person" if serving.by == PERSON else "Another training"
    if serving.what == ROLLED_BACK:
        done = f"{who} rolled back to {name} meanwhile"
    elif serving.what == DELETED:
        done = serving.reason
    elif serving.what == UNSET:
        done = "A person removed the alias champion in MLflow meanwhile, and no trained version serves"
    else:
        done = f"{who} promoted {name} meanwhile"
    # What was promoted, and then taken out of service, was not compared with anything else since.
    before = "no trained version" if compared is None else f"v{compared}"
    with_what = "" if serving.number == compared else f"; v{number} was compared with {before}"
    return f"{done}{with_what}. Promote it with `yoloop promote v{number}`."
