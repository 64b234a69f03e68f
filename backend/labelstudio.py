"""Label Studio's API: the only place that calls label-studio-sdk.

The SDK gives connection, tokens and typed calls. Tasks are read as plain JSON through its HTTP client, whose
answers need no second parsing and keep every field.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from backend.errors import LabelStudioError

T = TypeVar("T")

TOKEN_HINT = (
    "In Label Studio open Account & Settings → Personal Access Token, create one, and set LABEL_STUDIO_API_KEY to it."
)
_ONCE = {"max_retries": 0}
_SPARE = timedelta(seconds=30)
_FIELDS = (
    "id,created_at,updated_at,data,annotations,"
    "result,was_cancelled,ground_truth,completed_by,lead_time,parent_prediction"
)


@dataclass(frozen=True)
class ProjectInfo:
    id: int
    title: str
    created_at: datetime
    label_config: str
    model_version: str

    @property
    def uid(self) -> str:
        """What Label Studio sends as `project` to an ML backend: `"{id}.{created_at in epoch seconds}"`."""
        return f"{self.id}.{int(self.created_at.timestamp())}"


@dataclass(frozen=True)
class AnnotationRecord:
    """One annotation; `result` holds its regions as Label Studio stores them."""

    id: int
    result: list[dict[str, Any]]
    was_cancelled: bool
    ground_truth: bool
    created_at: datetime
    updated_at: datetime
    completed_by: int | None
    lead_time: float | None
    parent_prediction: int | None


@dataclass(frozen=True)
class TaskRecord:
    """One task with all its annotations; addresses in `data` are as imported (`s3://…` is not resolved)."""

    id: int
    created_at: datetime
    updated_at: datetime
    data: dict[str, Any]
    annotations: tuple[AnnotationRecord, ...]


@dataclass(frozen=True)
class BackendInfo:
    """One ML backend row of a project. `connected`: Label Studio reached it just now and got its setup."""

    id: int
    url: str
    title: str
    connected: bool
    error_message: str
    model_version: str
    basic_auth_user: str
    """Empty: Label Studio sends no basic auth. The password cannot be read."""


@dataclass(frozen=True)
class WebhookInfo:
    id: int
    project: int | None
    url: str
    actions: frozenset[str]
    send_for_all_actions: bool
    send_payload: bool
    is_active: bool
    headers: dict[str, str] = field(repr=False)


class LabelStudioClient:
    """One Label Studio, as the owner of one token. Threads may share it.

    Args:
        url: Label Studio's address, with its path where it has one.
        api_key: a personal access token, or a legacy token.
        timeout: seconds that one request may take.

    Every method raises LabelStudioError. Nothing is sent, and the SDK is not imported, before the first call.
    """

    def __init__(self, url: str, api_key: str, *, timeout: float = 30) -> None:
        self.url = url.strip().rstrip("/")
        self._key = api_key.strip()
        self._timeout = timeout
        self._lock = threading.Lock()
        self._sdk: Any = None
        self._edition: str | None = None

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        with self._lock:
            sdk, self._sdk = self._sdk, None
        if sdk is not None:
            sdk._client_wrapper.httpx_client.httpx_client.close()

    # ---- who and where

    def version(self) -> str:
        """Label Studio's release; needs no valid token."""

        def ask(sdk: Any) -> tuple[str, str]:
            found = sdk.versions.get(request_options=_ONCE)
            return _given(found.release), _given(found.edition)

        release, self._edition = self._call("tell its version", ask)
        return release

    def whoami(self) -> str:
        """The e-mail of the token's owner."""
        return self._call("name this token's owner", lambda sdk: _given(sdk.users.whoami(request_options=_ONCE).email))

    def auth_headers(self) -> dict[str, str]:
        """The header for Label Studio's own paths, such as /data/upload; good for half a minute or more."""
        headers = self._call("renew its token", lambda sdk: sdk._client_wrapper.get_headers())
        return {"Authorization": str(headers["Authorization"])}

    # ---- projects and tasks

    def project(self, project_id: int) -> ProjectInfo:
        try:
            return self._get(f"read project {project_id}", f"api/projects/{project_id}/", {}, _project)
        except LabelStudioError as error:
            if error.code != 404:
                raise
            raise LabelStudioError(
                f"Label Studio has no project {project_id} that this token may see.",
                "Take the number from the project's address in Label Studio: /projects/NUMBER.",
                reason=error.reason,
                code=404,
            ) from None

    def projects(self) -> list[ProjectInfo]:
        """Every project that the token may see, by id."""
        # The SDK's own paging asks for one page too many, which Label Studio answers with 404.
        found: list[ProjectInfo] = []
        for page in itertools.count(1):
            params = {"page": page, "page_size": 100, "ordering": "id"}
            rows, more = self._get("list projects", "api/projects/", params, _project_page)
            found += rows
            if not more:
                break
        return found

    def set_model_version(self, project_id: int, version: str) -> None:
        """Choose whose predictions the project shows: a backend's title, or a version of stored ones."""
        self._call(
            f"change project {project_id}",
            lambda sdk: sdk.projects.update(project_id, model_version=version, request_options=_ONCE),
        )

    def count_tasks(self, project_id: int) -> int:
        doing, path = f"read project {project_id}", f"api/projects/{project_id}/"
        return self._get(doing, path, {}, lambda body: int(body["task_number"]))

    def task_ids(self, project_id: int, page_size: int = 1000) -> dict[int, datetime]:
        """Every task's id and `updated_at`, without their contents."""
        found: dict[int, datetime] = {}
        while True:
            after = [_filter("id", "greater", "Number", max(found))] if found else []
            page, more = self._tasks(project_id, after, "id", page_size, "id,updated_at", _id_and_time)
            found |= dict(page)
            if not more:
                return found

    def changed_tasks(
        self, project_id: int, since: datetime | None, page_size: int = 500
    ) -> Iterator[list[TaskRecord]]:
        """Pages of the tasks whose `updated_at` is later than `since` (None: all), oldest change first.

        Creating, updating, deleting, skipping and importing annotations all move a task's `updated_at`. Pages
        are cut by time and never by number, so a task that moves while pages are read shifts no other out of
        sight; it comes once more, newer. A time that may go on behind a page's end is left to the next page,
        and when one time fills a whole page its tasks are read by id. A task stored with an earlier time than
        one already returned (a slow transaction) is not seen: ask again from a little before the last one.
        """
        while True:
            later = [_filter("updated_at", "greater", "Datetime", _stamp(since))] if since is not None else []
            page, more = self._tasks(project_id, later, "updated_at", page_size, _FIELDS, _task)
            if not more:
                if page:
                    yield page
                return
            cut = page[-1].updated_at
            whole = [task for task in page if task.updated_at < cut]
            if whole:
                since = whole[-1].updated_at
                yield whole
            else:
                since = cut
                yield from self._tasks_of(project_id, cut, page_size)

    # ---- ML backends

    def backends(self, project_id: int) -> list[BackendInfo]:
        """The project's ML backends; Label Studio calls each of them before it answers."""
        return self._call("list ML backends", lambda sdk: [_backend(row) for row in sdk.ml.list(project=project_id)])

    def create_backend(
        self, project_id: int, url: str, title: str, basic_auth: tuple[str, str] | None = None
    ) -> BackendInfo:
        """Connect an ML backend; Label Studio calls it first, and refuses one that does not answer."""
        fields = {"project": project_id, "url": url, "title": title, **_auth(basic_auth)}
        return self._call("add the ML backend", lambda sdk: _backend(sdk.ml.create(**fields, request_options=_ONCE)))

    def update_backend(
        self,
        backend_id: int,
        project_id: int,
        url: str,
        title: str,
        basic_auth: tuple[str, str] | None = None,
    ) -> BackendInfo:
        """Change an ML backend; without `basic_auth` that stays as it is.

        A title that `project.model_version` names moves along with it.
        """
        fields = {"project": project_id, "url": url, "title": title, **_auth(basic_auth)}
        return self._call(
            "change the ML backend",
            lambda sdk: _backend(sdk.ml.update(backend_id, **fields, request_options=_ONCE)),
        )

    def delete_backend(self, backend_id: int) -> None:
        """Disconnect an ML backend; its webhook stays behind."""
        self._call("remove the ML backend", lambda sdk: sdk.ml.delete(backend_id, request_options=_ONCE))

    # ---- webhooks

    def webhooks(self, project_id: int) -> list[WebhookInfo]:
        """The project's own webhooks, without those of the whole organization."""
        return self._call(
            "list webhooks",
            lambda sdk: [_webhook(row) for row in sdk.webhooks.list(project=str(project_id))],
        )

    def create_webhook(
        self, project_id: int, url: str, actions: frozenset[str], headers: dict[str, str]
    ) -> WebhookInfo:
        """Add an active webhook that sends these events with their payload."""
        fields = {"project": project_id, "url": url, **_hook(actions, headers)}
        return self._call("add the webhook", lambda sdk: _webhook(sdk.webhooks.create(**fields, request_options=_ONCE)))

    def update_webhook(
        self, webhook_id: int, url: str, actions: frozenset[str], headers: dict[str, str]
    ) -> WebhookInfo:
        """Make a webhook an active one that sends these events with their payload."""
        fields = {"url": url, **_hook(actions, headers)}
        return self._call(
            "change the webhook",
            lambda sdk: _webhook(sdk.webhooks.update(webhook_id, **fields, request_options=_ONCE)),
        )

    def delete_webhook(self, webhook_id: int) -> None:
        self._call("remove the webhook", lambda sdk: sdk.webhooks.delete(webhook_id, request_options=_ONCE))

    # ---- how

    def _tasks_of(self, project_id: int, time: datetime, page_size: int) -> Iterator[list[TaskRecord]]:
        """Pages of the tasks changed exactly at `time`, by id."""
        last = 0
        more = True
        while more:
            same = [
                _filter("updated_at", "equal", "Datetime", _stamp(time)),
                _filter("id", "greater", "Number", last),
            ]
            page, more = self._tasks(project_id, same, "id", page_size, _FIELDS, _task)
            if page:
                last = page[-1].id
                yield page

    def _tasks(
        self,
        project_id: int,
        filters: list[dict[str, Any]],
        order: str,
        page_size: int,
        include: str,
        read: Callable[[dict[str, Any]], T],
    ) -> tuple[list[T], bool]:
        """A listing's first page and whether there is more; Label Studio may give less than `page_size`."""
        query = {"filters": {"conjunction": "and", "items": filters}, "ordering": [f"tasks:{order}"]}
        params: dict[str, Any] = {
            "project": project_id,
            "page_size": page_size,
            "fields": "all",
            "include": include,
            "resolve_uri": "false",
            "query": json.dumps(query),
        }
        if self._is_community():
            # A project that retrieves predictions on loading would ask its ML backend for the whole page.
            # In the Community edition `review` does nothing but prevent that; in others it hides tasks.
            params["review"] = "true"

        def page(body: Any) -> tuple[list[T], bool]:
            rows = [read(row) for row in body["tasks"]]
            return rows, int(body["total"]) > len(rows) > 0

        return self._get(f"list tasks of project {project_id}", "api/tasks/", params, page)

    def _get(self, doing: str, path: str, params: dict[str, Any], read: Callable[[Any], T]) -> T:
        """What `read` makes of the plain JSON at `path`."""

        def ask(sdk: Any) -> T:
            from label_studio_sdk.core.api_error import ApiError

            answer = sdk._client_wrapper.httpx_client.request(path, method="GET", params=params)
            if answer.status_code != 200:
                raise ApiError(status_code=answer.status_code, headers=dict(answer.headers), body=answer.text)
            return read(answer.json())

        return self._call(doing, ask)

    def _is_community(self) -> bool:
        if self._edition is None:
            self.version()
        return self._edition == "Community"

    def _call(self, doing: str, call: Callable[[Any], T]) -> T:
        """What `call(sdk)` returns, its errors in our words. `doing` completes "Label Studio refused to"."""
        import httpx
        from label_studio_sdk.core.api_error import ApiError

        if not self.url:
            raise LabelStudioError("Label Studio's address is not set.", "Set LABEL_STUDIO_URL to it.")
        if not self._key:
            raise LabelStudioError("No token of Label Studio is set.", TOKEN_HINT)
        where = f"Label Studio at {public_url(self.url)}"
        try:
            sdk = self._connected()
            try:
                return call(sdk)
            except ApiError as error:
                if error.status_code != 401 or not self._renew(sdk, refused=True):
                    raise
                return call(sdk)
        except ApiError as error:
            raise self._refusal(doing, error) from None
        except httpx.TimeoutException:
            raise LabelStudioError(
                f"{where} did not {doing} within {self._timeout:g} s.",
                "Try again, or look into Label Studio's log.",
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise LabelStudioError(
                f"{where} cannot be reached.",
                "Check that Label Studio runs and that LABEL_STUDIO_URL is its address as seen from here.",
                reason=self._clean(str(error)),
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LabelStudioError(
                f"{where} gave an answer that is none of Label Studio's when asked to {doing}.",
                "Check that LABEL_STUDIO_URL is Label Studio's address.",
                reason=type(error).__name__,
            ) from None

    def _connected(self) -> Any:
        """The SDK's client, with a token that lives a little longer than the next request."""
        with self._lock:
            sdk = self._sdk
            if sdk is None:
                # The extended client imports pandas and more for methods that nobody here calls.
                from label_studio_sdk.base_client import LabelStudioBase

                sdk = self._sdk = LabelStudioBase(
                    base_url=f"{self.url}/", api_key=self._key, timeout=self._timeout, follow_redirects=False
                )
        self._renew(sdk)
        return sdk

    def _renew(self, sdk: Any, *, refused: bool = False) -> bool:
        """Replace a personal access token's access token that is about to end, or was `refused`; False: kept.

        The SDK itself renews one only after its end, by this machine's clock.
        """
        tokens = sdk._client_wrapper._tokens_client
        if tokens._use_legacy_token:
            return False
        with self._lock:
            ends = tokens._access_token_expiration
            if not refused and ends is not None and ends - datetime.now(UTC) > _SPARE:
                return False
            tokens._set_access_token(tokens.refresh().access)
        return True

    def _refusal(self, doing: str, error: Any) -> LabelStudioError:
        code = error.status_code
        reason = self._clean(_words(error.body))
        if code == 401:
            return LabelStudioError(self._unknown(reason), TOKEN_HINT, reason=reason, code=code)
        if code is not None and 300 <= code < 400:
            target = public_url(str((error.headers or {}).get("location", "")))
            return LabelStudioError(
                f"Label Studio at {public_url(self.url)} sends its callers on to {target}.",
                "Set LABEL_STUDIO_URL to the address that it names.",
                code=code,
            )
        if code is None or code < 400 or (code == 404 and not isinstance(_parsed(error.body), dict)):
            return LabelStudioError(
                f"{public_url(self.url)} does not answer like Label Studio.",
                "Set LABEL_STUDIO_URL to Label Studio's address.",
                code=code,
            )
        hint = "Look into Label Studio's log." if code >= 500 else ""
        if code == 403:
            hint = "Use a token of somebody who may administer the project."
        message = f"Label Studio refused to {doing} (HTTP {code})" + (f": {reason}" if reason else ".")
        return LabelStudioError(message, hint, reason=reason, code=code)

    def _unknown(self, reason: str) -> str:
        """What is wrong with a token that Label Studio answers with 401."""
        if self._key.count(".") == 2:
            return (
                "Label Studio does not accept this personal access token: "
                "it is expired, revoked, incomplete or from another Label Studio."
            )
        if "legacy" in reason:
            return "This is a legacy token, and legacy tokens are switched off in this Label Studio."
        return "Label Studio does not know this token."

    def _clean(self, words: str) -> str:
        """Label Studio's words as one line of plain text, without the token."""
        text = " ".join(re.sub(r"<[^>]*>", "", words).split())[:600]
        return text.replace(self._key, "…") if self._key else text


def public_url(url: str) -> str:
    """The address without user name, password and query: fit for messages."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _parsed(body: Any) -> Any:
    if not isinstance(body, str):
        return body
    try:
        return json.loads(body)
    except ValueError:
        return None


def _words(body: Any) -> str:
    """The reason in an error's body: the validation errors where there are some, else `detail`."""
    parsed = _parsed(body)
    if not isinstance(parsed, dict):
        return ""
    errors = parsed.get("validation_errors")
    if isinstance(errors, dict) and errors:
        return " ".join(
            str(text) if name == "non_field_errors" else f"{name}: {text}"
            for name, texts in errors.items()
            for text in (texts if isinstance(texts, list) else [texts])
        )
    return str(parsed.get("detail") or "")


def _filter(column: str, operator: str, kind: str, value: str | int) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def _stamp(time: datetime) -> str:
    """A time as Label Studio's filters read it: UTC, with microseconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _auth(basic_auth: tuple[str, str] | None) -> dict[str, str]:
    if basic_auth is None:
        return {}
    return {"auth_method": "BASIC_AUTH", "basic_auth_user": basic_auth[0], "basic_auth_pass": basic_auth[1]}


def _hook(actions: frozenset[str], headers: dict[str, str]) -> dict[str, Any]:
    return {
        "actions": sorted(actions),
        "headers": dict(headers),
        "send_for_all_actions": False,
        "send_payload": True,
        "is_active": True,
    }


def _given(value: object) -> str:
    if not value:
        raise ValueError("missing")
    return str(value)


def _project_page(body: Any) -> tuple[list[ProjectInfo], bool]:
    return [_project(row) for row in body["results"]], bool(body["next"])


def _project(row: dict[str, Any]) -> ProjectInfo:
    return ProjectInfo(
        id=int(row["id"]),
        title=str(row["title"] or ""),
        created_at=_time(row["created_at"]),
        label_config=str(row["label_config"] or ""),
        model_version=str(row["model_version"] or ""),
    )


def _id_and_time(row: dict[str, Any]) -> tuple[int, datetime]:
    return int(row["id"]), _time(row["updated_at"])


def _task(row: dict[str, Any]) -> TaskRecord:
    return TaskRecord(
        id=int(row["id"]),
        created_at=_time(row["created_at"]),
        updated_at=_time(row["updated_at"]),
        data=row["data"],
        annotations=tuple(_annotation(one) for one in row["annotations"]),
    )


def _annotation(row: dict[str, Any]) -> AnnotationRecord:
    owner = row["completed_by"]
    return AnnotationRecord(
        id=int(row["id"]),
        result=row["result"] or [],
        was_cancelled=bool(row["was_cancelled"]),
        ground_truth=bool(row["ground_truth"]),
        created_at=_time(row["created_at"]),
        updated_at=_time(row["updated_at"]),
        completed_by=owner["id"] if isinstance(owner, dict) else owner,
        lead_time=row["lead_time"],
        parent_prediction=row["parent_prediction"],
    )


def _backend(row: Any) -> BackendInfo:
    return BackendInfo(
        id=int(row.id),
        url=str(row.url),
        title=str(row.title or ""),
        connected=row.state in ("CO", "TR", "PR"),
        error_message=str(row.error_message or ""),
        model_version=str(row.model_version or ""),
        basic_auth_user=str(row.basic_auth_user or "") if row.auth_method == "BASIC_AUTH" else "",
    )


def _webhook(row: Any) -> WebhookInfo:
    return WebhookInfo(
        id=int(row.id),
        project=row.project,
        url=str(row.url),
        actions=frozenset(str(action) for action in row.actions or ()),
        send_for_all_actions=bool(row.send_for_all_actions),
        send_payload=bool(row.send_payload),
        is_active=bool(row.is_active),
        headers={str(name): str(value) for name, value in (row.headers or {}).items()},
    )
