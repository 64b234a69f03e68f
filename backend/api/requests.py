"""What every endpoint needs of a request and for its answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from flask import Response, current_app, jsonify, request

from backend.errors import BadRequest
from backend.observability.masking import masked
from backend.server.process import Serving

RETRY_AFTER = 3
"""Seconds after which a client that was sent away may ask again."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def serving() -> Serving:
    found: Serving = current_app.extensions["yoloop"]
    return found


def body_of(*, empty: bool = False) -> dict[str, Any]:
    """The request's JSON object, whatever its Content-Type says. Raises BadRequest."""
    if empty and not request.get_data():
        return {}
    try:
        found = request.get_json(force=True, silent=True)
        if isinstance(found, dict) and _SURROGATE.search(request.get_data()):
            found = _whole(found)
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise BadRequest("The body must be a JSON object.")
    return found


def text_of(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRequest(f"The field {key!r} must be text.")
    return value


def as_response(status: int, message: str, hint: str) -> Response:
    """An error for people: JSON, and the message as the reason phrase, which is all that Label Studio shows."""
    message, hint = masked(message), masked(hint)
    response = jsonify({"error": message, "hint": hint})
    phrase = "".join(each if each.isprintable() else " " for each in f"{message} {hint}".strip())
    phrase = " ".join(phrase.split()).encode("latin-1", "replace").decode("latin-1")
    response.status = f"{status} {phrase[:300]}"
    return response


def _whole(found: dict[str, Any]) -> Any:
    """The same with a question mark for each half of a character, which JSON can spell and no database can keep."""
    return json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
