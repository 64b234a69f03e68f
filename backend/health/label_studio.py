"""Label Studio itself: whether it answers, its clock, the token and whose it is, the project."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

from backend.errors import LabelStudioError
from backend.health.check import Check, by_error, ill, left_out, well
from backend.labelstudio.probe import Greeting, Probe, greet
from backend.labelstudio.records import ProjectInfo
from backend.labelstudio.refusals import public_url
from backend.services import Connection
from backend.settings import Settings
from backend.store.database import Project

MOST_APART = 5.0
"""Seconds between two clocks: times of one are compared with times of the other, a few seconds apart at least."""

SOON = 3 * 86400.0
"""Seconds before the end of a token from which on it is to be replaced."""


def connect_command(settings: Settings, number: int, project: Project | None = None) -> str:
    """The command that mends a project's connection, with the options that it was given last time."""
    words = ["yoloop connect --project", str(number)]
    if project is not None and project.backend_url not in ("", f"http://localhost:{settings.port}"):
        words += ["--url", project.backend_url]
    if project is not None and project.active_learning:
        words.append("--active-learning")
    return " ".join(words)


def reachable(connection: Connection, connect: str, timeout: float = 10.0) -> tuple[Check, Greeting | None]:
    """Whether Label Studio answers at all.

    Args:
        connect: the command that tells yoloop another address.
    """
    try:
        greeting = greet(connection.url, timeout)
    except LabelStudioError as error:
        mend = f"{error.hint.removesuffix('.')}. If it has another address, `LABEL_STUDIO_URL=<address> {connect}`."
        return by_error("Label Studio", error, mend), None
    return well("Label Studio", f"{greeting.release} answers at {public_url(connection.url)}."), greeting


def clock(greeting: Greeting, most: float = MOST_APART) -> Check:
    if greeting.ahead is None:
        return left_out("clock", "Label Studio's answer has no date")
    if abs(greeting.ahead) <= most:
        return well("clock", "Label Studio's and this machine's agree.")
    told = f"Label Studio's is {abs(greeting.ahead):.0f} s {'ahead of' if greeting.ahead > 0 else 'behind'} this one."
    return ill("clock", told, "Let both machines keep time by NTP: `timedatectl set-ntp true`.")


def token(probe: Probe, key: str, connect: str, now: float) -> tuple[Check, str]:
    """The token's kind, whose it is (empty: it is not accepted) and when it ends."""
    kind = "a personal access token" if key.count(".") == 2 else "a legacy token"
    mend = (
        "In Label Studio, Account & Settings → Personal Access Token, create one and run "
        f"`LABEL_STUDIO_URL={public_url(probe.url)} LABEL_STUDIO_API_KEY=<token> {connect}`."
    )
    try:
        owner = probe.whoami()
    except LabelStudioError as error:
        if error.code is not None and error.code >= 500:
            # It has just told its release: of a token's owner without an organization it makes a 500.
            return by_error("token", error, f"If its owner has left the organization, use another one. {mend}"), ""
        return by_error("token", error, mend if error.code in (401, 403) else ""), ""
    ends = token_end(key)
    if ends is not None and ends - now < SOON:
        return ill("token", f"{kind.capitalize()} of {owner}, which ends in {(ends - now) / 3600:.0f} h.", mend), owner
    until = "" if ends is None else f", good until {datetime.fromtimestamp(ends, UTC):%Y-%m-%d}"
    return well("token", f"{kind.capitalize()} of {owner}{until}."), owner


def project(probe: Probe, number: int, connect: str) -> tuple[Check, ProjectInfo | None]:
    """Whether the project is there for the token's owner."""
    name = f"project {number}"
    try:
        info = probe.project(number)
    except LabelStudioError as error:
        mend = f"Use a token of a member of it: `LABEL_STUDIO_API_KEY=<token> {connect}`."
        if error.code == 404:
            mend = f"If it was deleted, connect another one. If it is somebody else's: {mend}"
        return by_error(name, error, mend if error.code in (403, 404) else ""), None
    return well(name, f'"{info.title}" has {info.tasks} tasks.'), info


def token_end(key: str) -> float | None:
    """Epoch seconds at which a personal access token ends, as it says itself; None: it does not."""
    try:
        _, body, _ = key.split(".")
        found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return float(found["exp"])
    except (ValueError, KeyError, TypeError):
        return None
