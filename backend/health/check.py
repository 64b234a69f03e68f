"""What a check finds, and how it is told: in one line, without secrets, whatever goes wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from backend.errors import YoloopError
from backend.observability import masking

T = TypeVar("T")

_LEAST_SECRET = 4
"""Characters; what is shorter would be found in half of all words."""

_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")
_TOKEN = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+")


@dataclass(frozen=True, slots=True)
class Check:
    """One checked thing.

    `ok` None: it could not be checked, and `told` says why. `mend` is the one command or setting that mends what is
    not well.
    """

    name: str
    ok: bool | None
    told: str
    mend: str = ""

    def __str__(self) -> str:
        mark = "–" if self.ok is None else "✓" if self.ok else "✗"
        return f"{mark} {self.name}: {self.told}" + (f"\n  → {self.mend}" if self.mend else "")


def well(name: str, told: str) -> Check:
    return Check(name, True, told)


def ill(name: str, told: str, mend: str) -> Check:
    return Check(name, False, told, mend)


def left_out(name: str, why: str) -> Check:
    return Check(name, None, f"left out, {why}.")


def by_error(name: str, error: YoloopError, mend: str = "") -> Check:
    """What an error tells. `mend`: where its own hint does not mend it here, or there is none."""
    reason = getattr(error, "reason", "")
    said = f" It said: {reason}" if reason and reason not in error.message else ""
    return ill(name, f"{error.message}{said}", mend or error.hint or "Look into the log of `yoloop up`.")


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """What a check finds; one that fails itself is not well either."""
    try:
        return check()
    except YoloopError as error:
        return by_error(name, error)
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        return ill(
            name,
            f"This could not be checked: {type(error).__name__}{f', {words}' if words else ''}.",
            "Look into the log of `yoloop up`.",
        )


def asked(name: str, ask: Callable[[], tuple[Check, T]]) -> tuple[Check, T | None]:
    """As `guarded`, of a check that brings what later ones need; None when it fails itself."""
    brought: T | None = None

    def check() -> Check:
        nonlocal brought
        found, brought = ask()
        return found

    return guarded(name, check), brought


def masked(check: Check, secrets: Iterable[str]) -> Check:
    """The check without tokens, passwords and what stands before the @ of an address.

    What is told may come from anywhere; what mends it is our own text, which names where a token goes.
    """
    return replace(check, told=masking.masked(_masked(check.told, secrets)), mend=_masked(check.mend, secrets))


def counted(checks: Iterable[Check]) -> str:
    """The last line: how many are well, to mend and left out."""
    found = [check.ok for check in checks]
    said = f"{found.count(True)} well, {found.count(False)} to mend"
    return said + (f", {found.count(None)} left out." if None in found else ".")


def _masked(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _LEAST_SECRET:
            text = text.replace(secret, "…")
    return _TOKEN.sub("…", _IN_URL.sub("…@", text))
