"""Who may ask: basic auth for everything but /health, or the webhook's secret header for events; else known names."""

from __future__ import annotations

import secrets

from flask import Request

from backend.api import hosts
from backend.errors import Unauthorized
from backend.labelstudio.webhook import HEADER
from backend.settings import Settings
from backend.store.database import Store

OPEN = frozenset({"/health"})


def check(request: Request, settings: Settings, secret: str, store: Store) -> None:
    """Raise Unauthorized unless the request carries what the settings ask for.

    A secret header that is there must be right, asked for or not. Web pages may send nothing: any of them could make
    the browser of somebody who runs yoloop for themselves name a Label Studio of its own, and get the token. Where
    no credentials are asked for, the name that yoloop is called by must be a known one (see `hosts`).
    """
    if request.path in OPEN:
        return
    if request.headers.get("Origin") is not None:
        raise Unauthorized("Web pages may not ask yoloop.", "Ask from Label Studio or from a program.")
    sent = request.headers.get(HEADER)
    if sent is not None:
        if not secrets.compare_digest(sent.encode(), secret.encode()):
            raise Unauthorized(f"The header {HEADER} is wrong.", "Run `yoloop connect` again to set it.")
        if request.path == "/webhook":
            return
    user, password = settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()
    if not user and not password:
        if not hosts.is_known(request.headers.get("Host", ""), settings, store):
            raise Unauthorized(
                f"yoloop is not known as {request.headers['Host'][:100]!r}.",
                "Give that address to `yoloop connect --url`, or add its host to YOLOOP_TRUSTED_HOSTS.",
            )
        return
    given = request.authorization
    name = (given.username or "") if given and given.type == "basic" else ""
    word = (given.password or "") if given and given.type == "basic" else ""
    right = secrets.compare_digest(name.encode(), user.encode())
    right &= secrets.compare_digest(word.encode(), password.encode())
    if not right:
        raise Unauthorized(
            "User name or password is wrong.", "Set basic auth in the backend's settings in Label Studio."
        )
