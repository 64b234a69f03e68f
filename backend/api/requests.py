"""What every endpoint needs of a request and for its answer."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from flask import Response, current_app, g, jsonify, request

from backend.errors import BadRequest, Busy, TooLarge
from backend.observability.masking import masked
from backend.server.gunicorn_worker import BUSY, REFUSED, TOO_LARGE
from backend.server.process import BODIES, Serving

RETRY_AFTER = 3
"""Seconds after which a client that was sent away may ask again."""

LARGEST_BODIES = {
    "/predict": 64 * 2**20,
    "/setup": 2 * 2**20,
    "/train": 2 * 2**20,
    "/validate": 2 * 2**20,
    "/webhook": 2 * 2**20,
}
"""Bytes by path: a thousand tasks with all their annotations are a few MiB, a project with its config some KiB."""

OTHER_BODIES = 256 * 1024
"""Bytes that are taken anywhere else."""

UNCOUNTED = 64 * 1024
"""Bytes of a body whose values need no memory to speak of."""

PATIENCE = 5.0
"""Seconds that a large body waits for others to be done."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def serving() -> Serving:
    found: Serving = current_app.extensions["yoloop"]
    return found


def largest_body(path: str) -> int:
    """Most bytes of a body that is sent to an address."""
    return LARGEST_BODIES.get(path, OTHER_BODIES)


def body_of(*, empty: bool = False) -> dict[str, Any]:
    """The request's JSON object, whatever its Content-Type says. Raises BadRequest, and Busy."""
    most = largest_body(request.path)
    why = request.environ.get(REFUSED)
    if why == TOO_LARGE or (request.content_length or 0) > most:
        raise TooLarge(f"The body is larger than {most:,} bytes.", "Send less at a time.")
    if why == BUSY:
        raise Busy("Other large requests take the memory.", "Ask again in a few seconds.")
    request.max_content_length = most  # of one that does not say its length
    data = request.get_data()
    if empty and not data:
        return {}
    _hold(data)
    try:
        found = request.get_json(force=True, silent=True)
        if isinstance(found, dict) and _SURROGATE.search(data):
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


def _hold(data: bytes) -> None:
    """Take the memory that a body's values need, until the request ends: a few bytes can be a whole object."""
    if len(data) <= UNCOUNTED:
        return
    needed = 3 * len(data) + 88 * data.count(b"[") + 184 * data.count(b"{") + 40 * data.count(b",")
    if needed > BODIES:
        raise TooLarge("The body holds too many values.", "Send fewer tasks at a time.")
    held: ExitStack = g.setdefault("held", ExitStack())
    held.enter_context(serving().bodies.hold(needed, time.monotonic() + PATIENCE))


def release() -> None:
    """Give back what `body_of` took; for the end of a request."""
    held: ExitStack | None = g.pop("held", None)
    if held is not None:
        held.close()


def _whole(found: dict[str, Any]) -> Any:
    """The same with a question mark for each half of a character, which JSON can spell and no database can keep."""
    return json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
