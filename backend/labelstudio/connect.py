"""Connects yoloop to a project of Label Studio, repairs an old connection, changes nothing the second time.

A connection is two rows in Label Studio. The ML backend is what it asks for predictions; the webhook beside
it tells of annotations. Label Studio makes the webhook itself, with all events and without any header, makes
none when its settings stop it, and leaves old ones behind: here it gets its secret, its events and no twins.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from backend.errors import BadRequest, LabelStudioError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.records import BackendInfo, ProjectInfo, WebhookInfo
from backend.labelstudio.refusals import public_url
from backend.labelstudio.webhook import EVENTS, HEADER

UNCERTAINTY = "Uncertainty sampling"
SEQUENTIAL = "Sequential sampling"
_SMART = re.compile(r"""\ssmart\s*=\s*["']true["']""", re.IGNORECASE)

# Label Studio's words, what they mean, and the one thing to change.
_REFUSALS = (
    (
        "reserved network address",
        "Label Studio does not talk to {url}: it is a reserved network address.",
        "Start Label Studio with ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false "
        "(or with USE_DEFAULT_BANNED_SUBNETS=false), then connect again.",
    ),
    (
        "can't connect to ml backend",
        "Label Studio cannot reach yoloop at {url}.",
        "Start it with `yoloop up`, or give `--url` the address at which Label Studio reaches it.",
    ),
    (
        "authentication parameters",
        "yoloop at {url} does not accept this user name and password.",
        "Use the YOLOOP_BASIC_AUTH_USER and YOLOOP_BASIC_AUTH_PASS that yoloop was started with.",
    ),
    (
        "look like a valid ml backend",
        "What answers at {url} is not a working ML backend.",
        "Check that `--url` is yoloop's address, and look into yoloop's log.",
    ),
    (
        "resolve hostname",
        "Label Studio does not know the host of {url}.",
        "Give `--url` the address at which Label Studio reaches yoloop.",
    ),
    (
        "enter a valid url",
        "Label Studio takes no webhook at {url}.",
        "Give `--url` an IP address, localhost, or a host name with a dot in it.",
    ),
)


@dataclass(frozen=True)
class Step:
    """One line of the report: what is so now, and whether that took a change in Label Studio."""

    done: str
    changed: bool


@dataclass(frozen=True)
class Report:
    project: ProjectInfo
    backend_id: int
    webhook_id: int
    steps: tuple[Step, ...]

    @property
    def changed(self) -> bool:
        return any(step.changed for step in self.steps)


def connect(
    client: LabelStudioClient,
    project_id: int,
    url: str,
    *,
    secret: str,
    basic_auth: tuple[str, str] | None,
    title: str = "yoloop",
    active_learning: bool = False,
    before: Callable[[ProjectInfo], None] = lambda project: None,
    was_active: bool = False,
) -> Report:
    """Make `url` the project's yoloop. Other people's backends and webhooks are not touched.

    A config with smart tools (`smart="true"`) is connected for interactive mode.

    Args:
        url: yoloop's address as Label Studio reaches it.
        secret: value of the header that lets events in.
        basic_auth: what Label Studio sends with its other requests; None: a backend keeps what it has.
        title: names a new backend, and tells ours from others'. A kept backend keeps its title.
        active_learning: let Label Studio open the least sure task next. Its backend is then titled with the version
            in service, see `backend.suggestions.backend_title`.
        before: called with the project before Label Studio is told of yoloop, whom it asks at once.
        was_active: it did so until now; without `active_learning` tasks then come in their order again.

    Raises:
        LabelStudioError: Label Studio cannot be reached, or refuses.
        LabelConfigError: the project's config has no control that yoloop can work with.
        BadRequest: `url` is no address, or half of `basic_auth` is missing.
    """
    from backend.labels.schema import parse_label_config

    url = _checked(url, basic_auth)
    steps = [
        Step(f"Label Studio {client.version()} answers at {public_url(client.url)}.", False),
        Step(f"The token belongs to {client.whoami()}.", False),
    ]
    project = client.project(project_id)
    interactive = _SMART.search(project.label_config) is not None
    classes = parse_label_config(project.label_config).require().classes
    steps.append(Step(f'Project {project_id} "{project.title}" labels {_listed(classes)}.', False))
    hooks = client.webhooks(project_id)
    rows = client.backends(project_id)
    mine = our_backends(rows, hooks, url, title)
    before(project)
    try:
        if mine:
            kept = _keep_backend(client, project, mine, url, basic_auth, interactive, steps)
        else:
            kept = _add_backend(client, project_id, rows, url, title, basic_auth, interactive)
            steps.append(Step(f"The ML backend {public_url(url)} is added.", True))
            hooks = client.webhooks(project_id)
        try:
            others = [row for row in rows if row not in mine]
            hook = _keep_webhook(client, project_id, our_webhooks(hooks, mine, others, url), url, secret, steps)
        except LabelStudioError:
            if not mine:
                _take_back(client, [kept])
            raise
        if active_learning:
            _order_by_score(client, project, kept.id, steps)
        elif was_active and project.sampling == UNCERTAINTY:
            client.set_sampling(project.id, SEQUENTIAL)
            steps.append(Step("Label Studio opens tasks in their order.", True))
    except LabelStudioError as error:
        raise _explained(error, url) from None
    return Report(project, kept.id, hook, tuple(steps))


def our_backends(rows: Iterable[BackendInfo], hooks: Iterable[WebhookInfo], url: str, title: str) -> list[BackendInfo]:
    """The rows that are ours by address, title or a signed webhook of theirs; the one to keep first."""
    signed = {_normal(hook.url) for hook in hooks if _is_signed(hook)}
    mine = [
        row for row in rows if same_address(row.url, url) or row.title == title or _normal(_target(row.url)) in signed
    ]
    return sorted(mine, key=lambda row: (not same_address(row.url, url), row.id))


def our_webhooks(
    hooks: Iterable[WebhookInfo], mine: Iterable[BackendInfo], others: Iterable[BackendInfo], url: str
) -> list[WebhookInfo]:
    """The webhooks that are ours, the one to keep first: at our address, signed, or of a row of ours."""
    here = _normal(_target(url))
    old = {_normal(_target(row.url)) for row in mine} - {_normal(_target(row.url)) for row in others}
    found = [hook for hook in hooks if _is_signed(hook) or _normal(hook.url) in old | {here}]
    return sorted(found, key=lambda hook: (_normal(hook.url) != here, not _is_signed(hook), hook.id))


def _keep_backend(
    client: LabelStudioClient,
    project: ProjectInfo,
    mine: Sequence[BackendInfo],
    url: str,
    basic_auth: tuple[str, str] | None,
    interactive: bool,
    steps: list[Step],
) -> BackendInfo:
    kept, *extra = mine
    right = same_address(kept.url, url) and kept.connected and (kept.is_interactive or not interactive)
    if basic_auth is not None:
        right = right and kept.basic_auth_user == basic_auth[0]
    if not right:
        # Sent for a broken connection too: Label Studio then calls the backend and says what is wrong.
        client.update_backend(kept.id, project.id, url, kept.title, basic_auth, interactive=interactive)
    steps.append(Step(f"The ML backend is {public_url(url)}.", not right))
    for row in extra:
        client.delete_backend(row.id)
        steps.append(Step(f"The surplus ML backend {public_url(row.url)} is removed.", True))
    shown = project.model_version
    # Removing a row switches live predictions off when the project is set to its title, a twin's too.
    if extra and shown in {row.title for row in mine} and client.project(project.id).model_version != kept.title:
        client.set_model_version(project.id, kept.title)
    return kept


def _add_backend(
    client: LabelStudioClient,
    project_id: int,
    rows: Iterable[BackendInfo],
    url: str,
    title: str,
    basic_auth: tuple[str, str] | None,
    interactive: bool,
) -> BackendInfo:
    known = {row.id for row in rows}
    try:
        return client.create_backend(project_id, url, title, basic_auth, interactive=interactive)
    except LabelStudioError:
        # Label Studio stores the row before it refuses the webhook.
        with contextlib.suppress(LabelStudioError):
            left = client.backends(project_id)
            _take_back(client, [row for row in left if row.id not in known and same_address(row.url, url)])
        raise


def _order_by_score(client: LabelStudioClient, project: ProjectInfo, backend_id: int, steps: list[Step]) -> None:
    """Let the label stream open the lowest score first, of predictions called like the version in service."""
    ordered = project.sampling != UNCERTAINTY
    if ordered:
        client.set_sampling(project.id, UNCERTAINTY)
    steps.append(Step("Label Studio opens the least sure task next.", ordered))
    row = next(each for each in client.backends(project.id) if each.id == backend_id)
    version = row.model_version
    titled = bool(version) and (row.title != version or client.project(project.id).model_version != version)
    if titled:
        client.update_backend(row.id, project.id, row.url, version)
        if client.project(project.id).model_version != version:
            client.set_model_version(project.id, version)
    steps.append(Step(f"The ML backend is called {version or row.title}, like its predictions.", titled))


def _take_back(client: LabelStudioClient, rows: Iterable[BackendInfo]) -> None:
    for row in rows:
        with contextlib.suppress(LabelStudioError):
            client.delete_backend(row.id)


def _keep_webhook(
    client: LabelStudioClient,
    project_id: int,
    mine: Sequence[WebhookInfo],
    url: str,
    secret: str,
    steps: list[Step],
) -> int:
    """The id of the one webhook that remains."""
    target = _target(url)
    if not mine:
        kept = client.create_webhook(project_id, target, EVENTS, {HEADER: secret})
        steps.append(Step("The webhook is added.", True))
        return kept.id
    kept, *extra = mine
    headers = {name: value for name, value in kept.headers.items() if name.lower() != HEADER.lower()}
    headers[HEADER] = secret
    right = (
        same_address(kept.url, target)
        and kept.is_active
        and kept.send_payload
        and not kept.send_for_all_actions
        and kept.actions == EVENTS
        and kept.headers == headers
    )
    if not right:
        client.update_webhook(kept.id, target, EVENTS, headers)
    steps.append(Step("The webhook sends what yoloop needs, with its secret.", not right))
    for hook in extra:
        client.delete_webhook(hook.id)
        steps.append(Step(f"The stale webhook {public_url(hook.url)} is removed.", True))
    return kept.id


def _checked(url: str, basic_auth: tuple[str, str] | None) -> str:
    url = url.strip().rstrip("/")
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            if basic_auth is not None and not all(basic_auth):
                raise BadRequest("Basic auth needs a user name and a password.", "Set both, or neither.")
            return url
    raise BadRequest("This is not an address of yoloop.", "Write it like http://192.168.1.10:9090.")


def _explained(error: LabelStudioError, url: str) -> LabelStudioError:
    """The refusal in yoloop's words, where they are known; Label Studio's stay in `reason`."""
    for words, message, hint in _REFUSALS:
        if words in error.reason.lower():
            told = message.format(url=public_url(url))
            return LabelStudioError(told, hint, reason=error.reason, code=error.code)
    return error


def _is_signed(hook: WebhookInfo) -> bool:
    return any(name.lower() == HEADER.lower() for name in hook.headers)


def _target(url: str) -> str:
    """Where Label Studio puts a backend's webhook."""
    return f"{url.rstrip('/')}/webhook"


def same_address(one: str, other: str) -> bool:
    """Whether two addresses lead to one place."""
    return _normal(one) == _normal(other)


def _normal(url: str) -> str:
    """The address without what does not tell two servers apart: case, a default port, a slash at the end."""
    parts = urlsplit(url.strip())
    user, _, host = parts.netloc.rpartition("@")
    host = host.lower().removesuffix(":443" if parts.scheme.lower() == "https" else ":80")
    return f"{parts.scheme.lower()}://{user}@{host}{parts.path.rstrip('/')}?{parts.query}"


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
