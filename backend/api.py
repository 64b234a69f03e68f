"""yoloop's own addresses, beside those that Label Studio speaks to: what is suggested, what it is worth, metrics."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, request

from backend.errors import LabelConfigError, NotFound
from backend.labels.schema import parse_label_config
from backend.protocol import project_uid, serving
from backend.report import mappings
from backend.store import Project

blueprint = Blueprint("api", __name__)


@blueprint.get("/report")
def report() -> dict[str, Any]:
    """Which model suggests for which control of each project, how classes and labels meet, and what meets nothing."""
    uid = project_uid(request.args.get("project"))
    projects = [each for each in serving().services.store.projects() if uid in ("", each.uid)]
    if uid and not projects:
        raise NotFound("There is no such project.")
    return {"projects": [_reported(each) for each in projects]}


def _reported(project: Project) -> dict[str, Any]:
    known = {"project": project.uid, "title": project.title}
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


@blueprint.get("/metrics")
def metrics() -> Response:
    return Response(serving().engine.metrics.text(), mimetype="text/plain; version=0.0.4")
