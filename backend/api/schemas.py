"""What yoloop answers, as an OpenAPI description: `GET /openapi.json`.

It tells what a client has to send and what it may rely on. Label Studio sends more than that, all of which is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend import __version__
from backend.labelstudio.webhook import HEADER

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
ANYTHING: Schema = {"type": "object"}
SCORE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
UID: Schema = {
    "type": "string",
    "pattern": r"^[0-9]{1,18}(\.[0-9]{1,18})?$",
    "description": "Label Studio's `<id>.<created_at in epoch seconds>`.",
    "example": "1.1795453273",
}
PROJECT: Schema = {
    "type": "object",
    "required": ["id", "created_at"],
    "properties": {
        "id": {"type": "integer", "minimum": 1, "maximum": 10**18 - 1},
        "created_at": {"type": "string", "format": "date-time"},
        "title": TEXT,
        "label_config": TEXT,
    },
}
EITHER: Schema = {"anyOf": [UID, PROJECT]}
NUMBERED: Schema = {"anyOf": [UID, {"type": "integer", "minimum": 1, "maximum": 10**18 - 1}]}
ERROR: Schema = {
    "type": "object",
    "required": ["error", "hint"],
    "properties": {"error": TEXT, "hint": {**TEXT, "description": "What to do about it."}},
}
JOB_STATES = ["queued", "running", "done", "failed", "cancelled"]


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


TASK = _object(
    {"id": {"type": "integer"}, "data": {"type": "object", "additionalProperties": True}},
    {"annotations": _list(ANYTHING), "predictions": _list(ANYTHING)},
)
REGION = _object(
    {
        "id": TEXT,
        "from_name": TEXT,
        "to_name": TEXT,
        "type": TEXT,
        "value": ANYTHING,
        "score": SCORE,
        "original_width": {"type": "integer", "minimum": 1},
        "original_height": {"type": "integer", "minimum": 1},
        "image_rotation": {"type": "integer", "enum": [0]},
    },
    {"parentID": TEXT, "meta": ANYTHING, "item_index": {"type": "integer"}},
)
PREDICTION = {
    "description": "One for each task, in order. Without `result` the image could not be had: ask again later.",
    "anyOf": [
        _object({"model_version": TEXT, "score": SCORE, "result": _list(REGION)}, {"error": TEXT}),
        _object({"model_version": TEXT, "error": TEXT}),
    ],
}
CONTEXT = _object({}, {"result": _list(ANYTHING)})
VERSION = _object(
    {
        "project": TEXT,
        "version": TEXT,
        "champion": FLAG,
        "parent": TEXT,
        "decision": TEXT,
        "decided_by": {"type": "string", "enum": ["person", "training", ""]},
        "message": TEXT,
        "reason": TEXT,
        "gate": {"type": "object"},
        "metrics": {"type": "object", "additionalProperties": NUMBER},
    }
)
JOB = _object(
    {
        "job": TEXT,
        "job_status": {"type": "string", "enum": JOB_STATES},
        "error": TEXT,
        "message": TEXT,
        "reason": TEXT,
        "version": TEXT,
        "epoch": _nullable({"type": "integer"}),
        "epochs": _nullable({"type": "integer"}),
        "created_at": NUMBER,
        "started_at": _nullable(NUMBER),
        "finished_at": _nullable(NUMBER),
    }
)
VERSIONS = _object({"versions": _list(TEXT), "details": _list(VERSION)})
ASKED = _object({"job": TEXT, "status": {"type": "string", "enum": ["queued", "joined"]}})
CHECK = _object(
    {
        "name": {"type": "string", "enum": ["database", "registry", "home", "worker", "models"]},
        "ok": FLAG,
        "told": TEXT,
        "mend": {**TEXT, "description": "What to do about it."},
    }
)
READY = _object({"status": {"type": "string", "enum": ["READY"]}, "checks": _list(CHECK)})
NOT_READY = _object(
    {"status": {"type": "string", "enum": ["NOT READY"]}, "checks": _list(CHECK), **ERROR["properties"]}
)
UP = _object({"status": {"type": "string", "enum": ["UP"]}, "model_class": TEXT})


def _answers(schema: Schema, *refusals: int, status: int = 200, form: str = "application/json") -> dict[str, Any]:
    """The responses of an operation: what it answers, and the errors that it may give."""
    found = {str(status): {"description": "Done.", "content": {form: {"schema": schema}}}}
    for each in refusals:
        found[str(each)] = {"description": REFUSALS[each], "content": {"application/json": {"schema": ERROR}}}
    return found


REFUSALS = {
    400: "Something in the request cannot be used.",
    401: "User name, password or secret are wrong, or yoloop is called by a name that it does not know.",
    404: "There is no such thing.",
    413: "The body is too large.",
    502: "Label Studio refused or could not be reached.",
    503: "Too much is under way; `Retry-After` says when to ask again.",
}


def _get(summary: str, answers: dict[str, Any], parameters: Sequence[tuple[str, Schema, bool]] = ()) -> dict[str, Any]:
    given = [
        {"name": name, "in": "query", "required": required, "schema": schema} for name, schema, required in parameters
    ]
    return {"summary": summary, "responses": answers, **({"parameters": given} if given else {})}


def _post(summary: str, body: Schema, answers: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    content = {"application/json": {"schema": body}}
    return {"summary": summary, "requestBody": {"required": required, "content": content}, "responses": answers}


LATE = _object({"status": {"type": "string", "enum": ["late"]}, "message": TEXT})

OPEN: dict[str, Any] = {"security": []}
WITH_SECRET: dict[str, Any] = {"security": [{"basic": []}, {"secret": []}]}

PATHS: dict[str, dict[str, dict[str, Any]]] = {
    "/": {"get": _get("Whether it lives.", _answers(UP, 401))},
    "/health": {"get": {**_get("Whether it lives.", _answers(UP)), **OPEN}},
    "/ready": {
        "get": _get(
            "Whether it can do its work now.",
            {
                **_answers(READY, 401),
                "503": {
                    "description": "Something stands in the way: the checks say what.",
                    "content": {"application/json": {"schema": NOT_READY}},
                },
            },
        )
    },
    "/setup": {
        "post": _post(
            "Tells of a project; answers the version that predictions carry.",
            _object({"project": EITHER, "schema": TEXT}, {"hostname": TEXT, "access_token": TEXT}),
            _answers(_object({"model_version": TEXT}), 400, 401, 413, 503),
        )
    },
    "/predict": {
        "post": _post(
            "Suggestions for tasks, those of each task by descending score.",
            _object(
                {"tasks": _list(TASK)},
                {
                    "project": EITHER,
                    "label_config": TEXT,
                    "params": _nullable(_object({}, {"context": _nullable(CONTEXT)})),
                },
            ),
            _answers(_object({"results": _list(PREDICTION)}), 400, 401, 413, 503),
        )
    },
    "/webhook": {
        "post": {
            **_post(
                "An event of Label Studio.",
                _object(
                    {"action": {"type": "string", "minLength": 1, "example": "ANNOTATION_CREATED"}},
                    {"project": _nullable(PROJECT)},
                ),
                {
                    **_answers(
                        {"anyOf": [_object({"status": {"type": "string", "enum": ["noted"]}}), ASKED]},
                        400,
                        401,
                        404,
                        413,
                        503,
                        status=201,
                    ),
                    "202": {
                        "description": "Noted in memory: the database is locked, and it is written when that ends.",
                        "content": {"application/json": {"schema": LATE}},
                    },
                },
            ),
            **WITH_SECRET,
        }
    },
    "/train": {
        "post": _post(
            "Asks for a training now.",
            _object({"project": EITHER}),
            _answers(ASKED, 400, 401, 404, 413, 503, status=201),
        )
    },
    "/job_status": {
        "get": _get("How far a training is.", _answers(JOB, 400, 401, 404), [("job", TEXT, True)]),
        "post": _post("How far a training is.", _object({"job": TEXT}), _answers(JOB, 400, 401, 404, 413, 503)),
    },
    "/versions": {
        "get": _get("The trained versions, newest first.", _answers(VERSIONS, 400, 401), [("project", UID, False)]),
        "post": _post(
            "The trained versions, newest first.",
            _object({}, {"project": EITHER}),
            _answers(VERSIONS, 400, 401, 413, 503),
            required=False,
        ),
    },
    "/validate": {
        "post": _post(
            "Whether a labelling config can be worked with.",
            _object({"config": TEXT}),
            _answers(_object({"valid": FLAG, "labels": _list(TEXT), "notes": _list(TEXT)}), 400, 401, 413, 503),
        )
    },
    "/delete": {
        "post": _post(
            "Declined: versions are kept.",
            ANYTHING,
            _answers(_object({"deleted": FLAG, "message": TEXT}), 400, 401, 413, 503),
            required=False,
        )
    },
    "/duplicate_model": {
        "post": _post(
            "Declined: a copy learns for itself.",
            ANYTHING,
            _answers(_object({"duplicated": FLAG, "message": TEXT}), 400, 401, 413, 503),
            required=False,
        )
    },
    "/report": {
        "get": _get(
            "Which model suggests for which control, and what meets nothing.",
            _answers(
                _object({"projects": _list(_object({"project": TEXT, "title": TEXT, "annotations": ANYTHING}))}),
                400,
                401,
                404,
            ),
            [("project", UID, False)],
        )
    },
    "/advice": {
        "get": _get(
            "What became of suggestions, and from which score on they can be trusted.",
            _answers(_object({"project": TEXT, "thresholds": ANYTHING, "advice": _list(ANYTHING)}), 400, 401, 404),
            [("project", UID, False)],
        )
    },
    "/accept": {
        "post": _post(
            "Accepts sure suggestions in Label Studio, or takes a run back.",
            _object(
                {},
                {
                    "project": NUMBERED,
                    "min_score": SCORE,
                    "labels": {"type": "object", "additionalProperties": SCORE},
                    "partial": FLAG,
                    "dry_run": FLAG,
                    "undo": {**TEXT, "description": "A run to take back."},
                },
            ),
            _answers(_object({"run": TEXT}), 400, 401, 404, 413, 502, 503),
            required=False,
        )
    },
    "/metrics": {"get": _get("Counters for Prometheus.", _answers(TEXT, 401, form="text/plain"))},
    "/openapi.json": {"get": _get("This description.", _answers(ANYTHING, 401))},
}


def description() -> dict[str, Any]:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "yoloop",
            "version": __version__,
            "description": "A Label Studio ML backend that suggests with YOLO and learns from submitted annotations.",
        },
        "paths": PATHS,
        "security": [{"basic": []}],
        "components": {
            "securitySchemes": {
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "Asked for when YOLOOP_BASIC_AUTH_USER or YOLOOP_BASIC_AUTH_PASS is set.",
                },
                "secret": {
                    "type": "apiKey",
                    "in": "header",
                    "name": HEADER,
                    "description": "What `yoloop connect` gives to the webhook.",
                },
            }
        },
    }
