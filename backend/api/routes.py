"""yoloop's own addresses, beside those that Label Studio speaks to: what is suggested, what it is worth, metrics."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify, request

from backend.api.requests import RETRY_AFTER, as_response, body_of, serving
from backend.api.schemas import description
from backend.errors import BadRequest, LabelConfigError
from backend.labels.region import number
from backend.labels.schema import parse_label_config
from backend.labelstudio.uid import project_name
from backend.served_models.label_coverage import mappings
from backend.store.database import Project

blueprint = Blueprint("api", __name__)


@blueprint.get("/report")
def report() -> dict[str, Any]:
    """Which model suggests for which control of each project, how classes and labels meet, and what meets nothing."""
    store, named = serving().services.store, project_name(request.args.get("project"))
    return {"projects": [_reported(each) for each in ([store.find(named)] if named else store.projects())]}


def _reported(project: Project) -> dict[str, Any]:
    known = {
        "project": project.uid,
        "title": project.title,
        "annotations": serving().services.readings.annotations(project.uid).as_json(),
    }
    try:
        schema = parse_label_config(project.label_config)
    except LabelConfigError as error:
        return {**known, "error": str(error)}
    served = serving().engine.models.target(project.uid, schema, wait=0.0)
    return {
        **known,
        "version": served.name,
        "why": served.why,
        "notes": list(schema.notes),
        "controls": [asdict(each) for each in mappings(schema, served)],
    }


@blueprint.get("/advice")
def advice() -> dict[str, Any]:
    """What became of a project's suggestions, and from which score on they can be trusted: see `yoloop advice`."""
    from backend.feedback.report import report as known

    services = serving().services
    return known(services, services.store.find(project_name(request.args.get("project")))).as_json()


@blueprint.post("/accept")
def accept() -> dict[str, Any]:
    """Accept sure suggestions, or take a run back: see `yoloop accept`.

    Takes `{"project", "min_score", "labels": {label: score}, "partial", "dry_run"}` or `{"project", "undo"}`.
    """
    from backend.suggestions import accept as accepting

    body = body_of(empty=True)
    services = serving().services
    project = services.store.find(project_name(body.get("project")))
    run = body.get("undo")
    if isinstance(run, str) and run:
        return accepting.undo(services, project, run).as_json()
    labels = body.get("labels") or {}
    if not isinstance(labels, Mapping):
        raise BadRequest("The field 'labels' must be an object.", 'It holds scores, such as {"Car": 0.9}.')
    accepted = accepting.accept(
        services,
        project,
        run=uuid.uuid4().hex[:8],
        now=time.time(),
        min_score=_score("min_score", body.get("min_score", 0.8)),
        labels={str(label): _score(str(label), score) for label, score in labels.items()},
        # A caller of before said that incomplete tasks are welcome by this.
        complete_only=body.get("partial") is not True and body.get("complete_only") is not False,
        dry_run=body.get("dry_run") is True,
    )
    return accepted.as_json()


def _score(name: str, value: Any) -> float:
    found = number(value)
    if found is None:
        raise BadRequest(f"The score {name!r} must be a number.", "Scores lie between 0 and 1, such as 0.8.")
    return found


@blueprint.get("/ready")
def ready() -> Response:
    """Whether the work can be done now: each check's outcome, and what to do. 503 unless all are well."""
    checks = serving().readiness.look()
    ill = [each for each in checks if not each.ok]
    known = {"status": "NOT READY" if ill else "READY", "checks": [asdict(each) for each in checks]}
    if not ill:
        return jsonify(known)
    names = ", ".join(each.name for each in ill)
    response = as_response(503, f"yoloop is not ready: {names}.", ill[0].mend)
    response.set_data(json.dumps({**response.get_json(), **known}))
    response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


@blueprint.get("/metrics")
def metrics() -> Response:
    return Response(serving().engine.metrics.text(), mimetype="text/plain; version=0.0.4")


@blueprint.get("/openapi.json")
def openapi() -> dict[str, Any]:
    return description()
