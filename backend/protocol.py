"""The wire format that Label Studio speaks to an ML backend."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, request

from backend.api.requests import body_of, serving, text_of
from backend.errors import BadRequest, Busy, LabelConfigError, NotFound, TooLarge, YoloopError
from backend.labels.references import task_id_of
from backend.labels.schema import parse_label_config
from backend.labelstudio.uid import project_uid
from backend.labelstudio.webhook import EVENTS, START_TRAINING
from backend.model import LATE, YoloBackend
from backend.observability import logs
from backend.predict.interactive import silenced
from backend.predict.marks import marks_of
from backend.store.database import EVERY_PROJECT
from backend.store.jobs import Job

blueprint = Blueprint("protocol", __name__)
MOST_TASKS = 100_000


def backend(uid: str = "", label_config: str = "") -> YoloBackend:
    """The backend of this request's project; a config that the body leaves out is the last one seen."""
    if uid and not label_config:
        project = serving().services.store.project(uid)
        label_config = project.label_config if project else ""
    logs.enter(project=uid)  # until the request ends
    return YoloBackend(serving().services, serving().engine, uid, label_config)


@blueprint.get("/health")
@blueprint.get("/")
def health() -> dict[str, Any]:
    return {"status": "UP", "model_class": "YoloBackend"}


@blueprint.post("/setup")
def setup() -> dict[str, Any]:
    body = body_of()
    uid = project_uid(body.get("project"))
    if not uid:
        raise BadRequest("The field 'project' is missing.", "Label Studio sends it as '<id>.<created_at>'.")
    version = backend(uid, text_of(body, "schema")).setup(text_of(body, "hostname"), text_of(body, "access_token"))
    return {"model_version": version}


@blueprint.post("/predict")
def predict() -> dict[str, Any]:
    body = body_of()
    tasks = body.get("tasks")
    if not isinstance(tasks, list) or len(tasks) > MOST_TASKS:
        raise BadRequest("The field 'tasks' must be a list of tasks.")
    params = body.get("params")
    context = params.get("context") if isinstance(params, Mapping) else None
    context = context if isinstance(context, Mapping) else None
    try:
        return {"results": _predicted(body, tasks, context)}
    except YoloopError as error:
        if marks_of(context) is None:
            raise
        # A person is drawing just now: an error would only stand in the way, an empty answer changes nothing.
        return {"results": silenced([{"model_version": "", "error": str(error)} for _ in tasks])}


def _predicted(body: Mapping[str, Any], tasks: list[Any], context: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    uid = project_uid(body.get("project"))
    made = backend(uid, text_of(body, "label_config"))
    permits = serving().predicting
    if not permits.acquire(blocking=False):
        raise Busy("Too many predictions are under way.", "Ask again in a few seconds.")
    try:
        ids = (task_id_of(task) for task in tasks)
        serving().activity.mark(uid, [each for each in ids if each is not None], time.time())
        with serving().engine.metrics.predicting.track_inprogress():
            entries = made.predict(tasks, context=context)
    finally:
        permits.release()
    return entries if marks_of(context) is None else silenced(entries)


@blueprint.post("/webhook")
def webhook() -> tuple[dict[str, Any], int]:
    try:
        body = body_of()
    except TooLarge:  # what it tells of is read from Label Studio all the same
        serving().services.store.hint(EVERY_PROJECT, time.time())
        raise
    action = body.get("action")
    if not isinstance(action, str) or not action:
        raise BadRequest("The field 'action' is missing.", "It names the event, such as ANNOTATION_CREATED.")
    known = action in EVENTS or action == START_TRAINING
    serving().engine.metrics.events.labels(action if known else "other").inc()
    answer = backend(project_uid(body.get("project"))).fit(action, body)
    return answer, 202 if answer["status"] == LATE else 201


@blueprint.post("/train")
def train() -> tuple[dict[str, Any], int]:
    body = body_of(empty=True)
    return backend(_uid_of(body.get("project"))).fit(START_TRAINING, body), 201


@blueprint.route("/job_status", methods=["GET", "POST"])
def job_status() -> dict[str, Any]:
    body = body_of(empty=True) if request.method == "POST" else dict(request.args)
    wanted = body.get("job")
    if not isinstance(wanted, str):
        raise BadRequest("The field 'job' is missing.", "It is what START_TRAINING answered.")
    job = serving().services.jobs.get(wanted)
    if job is None:
        raise NotFound("There is no such job.")
    return _describe(job)


@blueprint.route("/versions", methods=["GET", "POST"])
def versions() -> dict[str, Any]:
    """`versions` are names, newest first; Label Studio's GET names no project and gets those of all."""
    body = body_of(empty=True) if request.method == "POST" else dict(request.args)
    uid = _uid_of(body.get("project"))
    services = serving().services
    uids = [uid] if uid else services.store.uids()
    found = [version for each in uids for version in services.registry.versions(each)]
    details = [
        {
            "project": version.model,
            "version": version.name,
            "champion": version.champion,
            "parent": version.parent,
            "decision": version.decision,
            "decided_by": version.decided_by,
            "message": version.message,
            "reason": version.reason,
            "gate": version.gate,
            "metrics": dict(version.metrics),
        }
        for version in found
    ]
    names = sorted({version.name for version in found}, key=lambda name: -int(name[1:]))
    return {"versions": names, "details": details}


@blueprint.post("/validate")
def validate() -> dict[str, Any]:
    body = body_of()
    config = body.get("config") or body.get("label_config")
    if not isinstance(config, str):
        raise LabelConfigError("The field 'config' is missing.", "It holds the labelling config, as XML.")
    schema = parse_label_config(config).require()
    return {"valid": True, "labels": list(schema.classes), "notes": list(schema.notes)}


@blueprint.post("/delete")
def delete() -> dict[str, Any]:
    """Label Studio tells that a project is gone. Its versions stay: deleting them is a person's decision."""
    body_of(empty=True)
    return {
        "deleted": False,
        "message": "Versions are kept in the registry until somebody removes them there.",
    }


@blueprint.post("/duplicate_model")
def duplicate_model() -> dict[str, Any]:
    body_of(empty=True)
    return {
        "duplicated": False,
        "message": "A copied project learns its own versions from its own annotations.",
    }


def _uid_of(project: Any) -> str:
    """The uid that a person's request names, or that of the one project with the number that it names."""
    named = project_uid(project)
    return serving().services.store.find(named).uid if named.isdecimal() else named


def _describe(job: Job) -> dict[str, Any]:
    return {
        "job": job.id,
        "job_status": job.status,
        "error": job.message if job.status == "failed" else "",
        "message": job.message,
        "reason": job.reason,
        "version": job.version,
        "epoch": job.epoch,
        "epochs": job.epochs,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }
