"""A project's connection in Label Studio: addresses that it may talk to, the ML backend, its webhook, the order."""

from __future__ import annotations

from collections.abc import Sequence

from backend.errors import LabelStudioError
from backend.health.check import Check, by_error, ill, well
from backend.labelstudio.connect import UNCERTAINTY, our_backends, our_webhooks, same_address
from backend.labelstudio.probe import Probe
from backend.labelstudio.records import BackendInfo, ProjectInfo, WebhookInfo
from backend.labelstudio.refusals import public_url
from backend.labelstudio.webhook import EVENTS, HEADER
from backend.settings import Settings

TITLE = "yoloop"
"""What `yoloop connect` titles a backend that is new."""


def reserved(name: str, probe: Probe, number: int, url: str, connect: str) -> Check:
    """Whether Label Studio may talk to yoloop's address, for predictions and for events."""
    shown = public_url(url)
    try:
        backend, webhook = probe.reserved(number, url)
    except LabelStudioError as error:
        return by_error(name, error)
    if not backend and not webhook:
        return well(name, f"Label Studio may talk to {shown}.")
    if backend and webhook:
        return ill(
            name,
            f"Label Studio does not talk to {shown}: it is a reserved network address.",
            "Start Label Studio with ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false "
            f"(or with USE_DEFAULT_BANNED_SUBNETS=false), then `{connect}`.",
        )
    what, setting = ("suggestions", "ML_BLOCK_LOCAL_IP") if backend else ("events", "SSRF_PROTECTION_ENABLED")
    return ill(
        name,
        f"Label Studio does not ask {shown} for suggestions: it is a reserved network address."
        if backend
        else f"Label Studio sends no events to {shown}, so a submitted annotation is learned only when yoloop looks "
        "by itself: it is a reserved network address.",
        f"Start Label Studio with {setting}=false too, for {what}, then `{connect}`.",
    )


def backend(
    name: str, rows: Sequence[BackendInfo], hooks: Sequence[WebhookInfo], url: str, settings: Settings, connect: str
) -> Check:
    """Whether the project has one ML backend of ours, at the right address, and Label Studio reaches it.

    Args:
        url: where `yoloop connect` put it; empty: it was added by hand, wherever.
    """
    mine = our_backends(rows, hooks, url or f"http://localhost:{settings.port}", TITLE)
    mend = f"`{connect}`"
    if not mine:
        return ill(name, "The project has no ML backend of yoloop.", mend)
    if len(mine) > 1:
        places = ", ".join(public_url(row.url) for row in mine)
        return ill(name, f"yoloop is there {len(mine)} times: {places}.", mend)
    row = mine[0]
    shown = public_url(row.url)
    if url and not same_address(row.url, url):
        return ill(name, f"It is at {shown}, and was connected at {public_url(url)}.", mend)
    if row.basic_auth_user != settings.basic_auth_user:
        sent = f"the user name {row.basic_auth_user}" if row.basic_auth_user else "no user name"
        return ill(name, f"Label Studio sends {sent}, which is not YOLOOP_BASIC_AUTH_USER.", mend)
    if not row.connected:
        said = f": {' '.join(row.error_message.split())[:200]}" if row.error_message else ""
        return ill(
            name,
            f"Label Studio gets no answer from {shown}{said}.",
            f"Start `yoloop up`. If it runs, `{connect}` says why, and `--url` gives Label Studio another address.",
        )
    return well(name, f"Label Studio reaches {shown}, which serves {row.model_version or 'nothing yet'}.")


def webhook(name: str, hooks: Sequence[WebhookInfo], url: str, secret: str, connect: str) -> Check:
    """Whether events come: with all that yoloop needs, and let in.

    Args:
        hooks: those that are ours.
        url: of the ML backend.
    """
    here = [hook for hook in hooks if same_address(hook.url, f"{url.rstrip('/')}/webhook")]
    mend = f"`{connect}`"
    if not here:
        return ill(name, "There is none, so yoloop is told nothing.", mend)
    if len(here) > 1:
        return ill(name, f"There are {len(here)}, so each event comes {len(here)} times.", mend)
    hook = here[0]
    sent = {key.lower(): value for key, value in hook.headers.items()}.get(HEADER.lower())
    missing = sorted(EVENTS - hook.actions) if not hook.send_for_all_actions else []
    wrong = []
    if not hook.is_active:
        wrong.append("is switched off")
    if sent is None:
        wrong.append("carries no secret")
    elif sent != secret:
        wrong.append("carries another secret")
    if missing:
        wrong.append(f"does not tell of {', '.join(missing)}")
    if not hook.send_payload:
        wrong.append("sends no payload")
    if wrong:
        return ill(name, f"It {', '.join(wrong)}.", mend)
    return well(name, "It sends what yoloop needs, with its secret.")


def stale_webhooks(name: str, hooks: Sequence[WebhookInfo], url: str, connect: str) -> Check:
    """Webhooks of ours that lead elsewhere: each makes a submit wait for an address where nobody may be."""
    stale = [hook for hook in hooks if not same_address(hook.url, f"{url.rstrip('/')}/webhook")]
    if not stale:
        return well(name, "There are none.")
    places = ", ".join(public_url(hook.url) for hook in stale)
    return ill(name, f"Events also go to {places}, where yoloop was before.", f"`{connect}`")


def order(name: str, info: ProjectInfo, row: BackendInfo, refreshing: bool, connect: str) -> Check:
    """Whether Label Studio opens the least sure task next: it compares the title with the predictions' version.

    Args:
        refreshing: suggestions of a new version are on their way; the title follows them.
    """
    if info.sampling != UNCERTAINTY:
        return ill(name, f"Tasks come by {info.sampling.lower()}, not the least sure first.", f"`{connect}`")
    version = row.model_version
    if row.title != version or info.model_version != version:
        shown = info.model_version or "no version"
        if refreshing:
            return well(name, f"Label Studio orders by {shown} until {version} has suggested for all tasks.")
        told = f"Label Studio orders by {shown} and its backend is called {row.title}, but {version} serves."
        return ill(name, told, f"`{connect}`")
    return well(name, f"The least sure task comes next, by {version}.")


def ours(rows: Sequence[BackendInfo], hooks: Sequence[WebhookInfo], url: str) -> list[WebhookInfo]:
    """The project's webhooks that are ours.

    Args:
        url: of the ML backend.
    """
    mine = our_backends(rows, hooks, url, TITLE)
    return our_webhooks(hooks, mine, [row for row in rows if row not in mine], url)
