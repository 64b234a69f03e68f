"""Label Studio's API, as yoloop needs it.

The SDK gives connection, tokens and typed calls. Tasks are read as plain JSON through its HTTP client, whose
answers need no second parsing and keep every field.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from backend.errors import LabelStudioError
from backend.labelstudio.api import ONCE, LabelStudioApi, T
from backend.labelstudio.records import (
    AnnotationRecord,
    BackendInfo,
    OpenTask,
    ProjectInfo,
    TaskRecord,
    WebhookInfo,
    read_annotation,
    read_backend,
    read_id_and_time,
    read_open_task,
    read_project,
    read_projects,
    read_task,
    read_webhook,
)

_PROJECT = {"include": "id,title,created_at,label_config,model_version,sampling,task_number"}
"""All that `read_project` reads. Left alone, Label Studio counts eight things, which takes time in a large project."""

_PREDICTION = "id,result,score,model_version,created_at"
_FIELDS = (
    f"{_PREDICTION},updated_at,data,annotations,predictions,"
    "was_cancelled,ground_truth,completed_by,lead_time,parent_prediction"
)
_OPEN = f"{_PREDICTION},data,predictions,drafts,cancelled_annotations"


MOST_NAMED = 100
"""Tasks that are asked for by their ids at once: those stand in the address, which servers cut short."""


class LabelStudioClient(LabelStudioApi):
    """One Label Studio, as the owner of one token: see `LabelStudioApi`."""

    _edition: str | None = None

    # ---- who and where

    def version(self) -> str:
        """Label Studio's release; needs no valid token."""

        def ask(sdk: Any) -> tuple[str, str]:
            found = sdk.versions.get(request_options=ONCE)
            return _given(found.release), _given(found.edition)

        release, self._edition = self._call("tell its version", ask)
        return release

    def whoami(self) -> str:
        """The e-mail of the token's owner."""
        return self._call("name this token's owner", lambda sdk: _given(sdk.users.whoami(request_options=ONCE).email))

    def auth_headers(self) -> dict[str, str]:
        """The header for Label Studio's own paths, such as /data/upload; good for half a minute or more."""
        headers = self._call("renew its token", lambda sdk: sdk._client_wrapper.get_headers())
        return {"Authorization": str(headers["Authorization"])}

    # ---- projects and tasks

    def project(self, project_id: int) -> ProjectInfo:
        try:
            return self._get(f"read project {project_id}", f"api/projects/{project_id}/", _PROJECT, read_project)
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
            params = {"page": page, "page_size": 100, "ordering": "id", **_PROJECT}
            rows, more = self._get("list projects", "api/projects/", params, read_projects)
            found += rows
            if not more:
                break
        return found

    def set_model_version(self, project_id: int, version: str) -> None:
        """Choose whose predictions the project shows: a backend's title, or a version of stored ones."""
        self._call(
            f"change project {project_id}",
            lambda sdk: sdk.projects.update(project_id, model_version=version, request_options=ONCE),
        )

    def count_tasks(self, project_id: int) -> int:
        return self.project(project_id).tasks

    def task_ids(self, project_id: int, page_size: int = 1000) -> dict[int, datetime]:
        """Every task's id and `updated_at`, without their contents."""
        found: dict[int, datetime] = {}
        more = True
        while more:
            page, more = self.task_times(project_id, max(found, default=0), page_size)
            found |= page
        return found

    def task_times(self, project_id: int, after: int, page_size: int = 1000) -> tuple[dict[int, datetime], bool]:
        """The next tasks' ids and `updated_at`, from the lowest id above `after` on; and whether there are more."""
        above = [_filter("id", "greater", "Number", after)] if after else []
        page, more = self._tasks(project_id, above, "id", page_size, "id,updated_at", read_id_and_time)
        return dict(page), more

    def tasks(self, project_id: int, task_ids: Sequence[int]) -> list[TaskRecord]:
        """These tasks, at most `MOST_NAMED`, as `changed_tasks` gives them; those that are gone are left out."""
        page, _ = self._tasks(project_id, [], "id", MOST_NAMED, _FIELDS, read_task, only=task_ids)
        return page

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
            page, more = self._tasks(project_id, later, "updated_at", page_size, _FIELDS, read_task)
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

    def open_tasks(self, project_id: int, view: int | None = None, page_size: int = 200) -> Iterator[list[OpenTask]]:
        """Pages of the tasks without a submitted annotation, by id, with their predictions.

        Args:
            view: number of a Data Manager tab; only tasks that its filters show are returned.
        """
        last = 0
        more = True
        shown = None if view is None else self.view_tasks(project_id, view)
        while more:
            unlabelled = [
                _filter("total_annotations", "equal", "Number", 0),
                _filter("id", "greater", "Number", last),
            ]
            page, more = self._tasks(project_id, unlabelled, "id", page_size, _OPEN, read_open_task)
            if page:
                last = page[-1].id
                yield [task for task in page if shown is None or task.id in shown]

    def view_tasks(self, project_id: int, view: int) -> frozenset[int]:
        """Ids of the tasks that a Data Manager tab shows."""
        found: set[int] = set()
        for page in itertools.count(1):
            params = {"view": view, "project": project_id, "page": page, "page_size": 1000, "include": "id"}
            ids, total = self._get(
                f"list the tasks of tab {view}", "api/tasks/", params | self._unasked(), _ids_and_total
            )
            found |= set(ids)
            if not ids or len(found) >= total:
                break
        return frozenset(found)

    # ---- predictions and annotations

    def import_predictions(self, project_id: int, predictions: Sequence[Mapping[str, Any]]) -> int:
        """Store predictions, each `{"task", "result", "score", "model_version"}`; how many Label Studio took.

        It checks little, stores a repeated one again, and does not touch the tasks' `updated_at`.
        """
        return self._send(
            "store predictions",
            "POST",
            f"api/projects/{project_id}/import/predictions",
            list(predictions),
            lambda body: int(body["created"]),
        )

    def delete_prediction(self, prediction_id: int) -> None:
        """Remove a stored prediction; that it is gone already is no error.

        Label Studio then refuses an annotation that names it as its `parent_prediction`, which is what an
        editor does that still has it open.
        """
        self._delete("remove a prediction", f"api/predictions/{prediction_id}/")

    def create_annotation(
        self,
        project_id: int,
        task_id: int,
        result: Sequence[Mapping[str, Any]],
        *,
        parent_prediction: int | None = None,
        last_action: str | None = None,
    ) -> AnnotationRecord:
        """Submit an annotation in the name of the token's owner; its webhook goes out as for a person's."""
        body = {"result": list(result), "parent_prediction": parent_prediction, "last_action": last_action}
        path = f"api/tasks/{task_id}/annotations/?project={project_id}"
        return self._send("submit an annotation", "POST", path, body, read_annotation)

    def annotation(self, annotation_id: int) -> AnnotationRecord | None:
        """One annotation; None when it is gone."""
        try:
            return self._get("read an annotation", f"api/annotations/{annotation_id}/", {}, read_annotation)
        except LabelStudioError as error:
            if error.code == 404:
                return None
            raise

    def delete_annotation(self, annotation_id: int) -> None:
        """Remove an annotation; that it is gone already is no error."""
        self._delete("remove an annotation", f"api/annotations/{annotation_id}/")

    def annotation_count(self, project_id: int, task_id: int) -> int:
        """Annotations of a task now, skipped ones too."""
        return self._get(
            f"read task {task_id}",
            f"api/tasks/{task_id}/",
            {"project": project_id},
            lambda body: int(body["total_annotations"]) + int(body["cancelled_annotations"]),
        )

    def drafts(self, project_id: int, task_id: int) -> frozenset[int]:
        """Ids of the annotations of a task that somebody is changing: there is a draft that is not saved yet."""
        try:
            return self._get(
                f"read task {task_id}",
                f"api/tasks/{task_id}/",
                {"project": project_id},
                lambda body: frozenset(int(each["annotation"]) for each in body["drafts"] if each["annotation"]),
            )
        except LabelStudioError as error:
            if error.code == 404:
                return frozenset()
            raise

    def set_sampling(self, project_id: int, sampling: str) -> None:
        """Choose the order of the label stream: `Uncertainty sampling`, `Sequential sampling` …"""
        self._call(
            f"change project {project_id}",
            lambda sdk: sdk.projects.update(project_id, sampling=sampling, request_options=ONCE),
        )

    # ---- ML backends

    def backends(self, project_id: int) -> list[BackendInfo]:
        """The project's ML backends; Label Studio calls each of them before it answers."""
        return self._call(
            "list ML backends", lambda sdk: [read_backend(row) for row in sdk.ml.list(project=project_id)]
        )

    def create_backend(
        self,
        project_id: int,
        url: str,
        title: str,
        basic_auth: tuple[str, str] | None = None,
        *,
        interactive: bool = False,
    ) -> BackendInfo:
        """Connect an ML backend; Label Studio calls it first, and refuses one that does not answer."""
        fields = {"project": project_id, "url": url, "title": title, **_auth(basic_auth)}
        if interactive:
            fields["is_interactive"] = True
        return self._call("add the ML backend", lambda sdk: read_backend(sdk.ml.create(**fields, request_options=ONCE)))

    def update_backend(
        self,
        backend_id: int,
        project_id: int,
        url: str,
        title: str,
        basic_auth: tuple[str, str] | None = None,
        *,
        interactive: bool = False,
    ) -> BackendInfo:
        """Change an ML backend; without `basic_auth` and `interactive` those stay as they are.

        A title that `project.model_version` names moves along with it.
        """
        fields = {"project": project_id, "url": url, "title": title, **_auth(basic_auth)}
        if interactive:
            fields["is_interactive"] = True
        return self._call(
            "change the ML backend",
            lambda sdk: read_backend(sdk.ml.update(backend_id, **fields, request_options=ONCE)),
        )

    def delete_backend(self, backend_id: int) -> None:
        """Disconnect an ML backend; its webhook stays behind."""
        self._call("remove the ML backend", lambda sdk: sdk.ml.delete(backend_id, request_options=ONCE))

    # ---- webhooks

    def webhooks(self, project_id: int) -> list[WebhookInfo]:
        """The project's own webhooks, without those of the whole organization."""
        return self._call(
            "list webhooks",
            lambda sdk: [read_webhook(row) for row in sdk.webhooks.list(project=str(project_id))],
        )

    def create_webhook(
        self, project_id: int, url: str, actions: frozenset[str], headers: dict[str, str]
    ) -> WebhookInfo:
        """Add an active webhook that sends these events with their payload."""
        fields = {"project": project_id, "url": url, **_hook(actions, headers)}
        return self._call(
            "add the webhook", lambda sdk: read_webhook(sdk.webhooks.create(**fields, request_options=ONCE))
        )

    def update_webhook(
        self, webhook_id: int, url: str, actions: frozenset[str], headers: dict[str, str]
    ) -> WebhookInfo:
        """Make a webhook an active one that sends these events with their payload."""
        fields = {"url": url, **_hook(actions, headers)}
        return self._call(
            "change the webhook",
            lambda sdk: read_webhook(sdk.webhooks.update(webhook_id, **fields, request_options=ONCE)),
        )

    def delete_webhook(self, webhook_id: int) -> None:
        self._call("remove the webhook", lambda sdk: sdk.webhooks.delete(webhook_id, request_options=ONCE))

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
            page, more = self._tasks(project_id, same, "id", page_size, _FIELDS, read_task)
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
        only: Sequence[int] | None = None,
    ) -> tuple[list[T], bool]:
        """A listing's first page and whether there is more; Label Studio may give less than `page_size`."""
        query: dict[str, Any] = {
            "filters": {"conjunction": "and", "items": filters},
            "ordering": [f"tasks:{order}"],
        }
        if only is not None:
            query["selectedItems"] = {"all": False, "included": list(only)}
        params: dict[str, Any] = {
            "project": project_id,
            "page_size": page_size,
            "fields": "all",
            "include": include,
            "resolve_uri": "false",
            "query": json.dumps(query),
        }
        params |= self._unasked()

        def page(body: Any) -> tuple[list[T], bool]:
            rows = [read(row) for row in body["tasks"]]
            return rows, int(body["total"]) > len(rows) > 0

        return self._get(f"list tasks of project {project_id}", "api/tasks/", params, page)

    def _unasked(self) -> dict[str, str]:
        """Listing parameters that keep Label Studio from asking the ML backend for predictions of a whole page.

        In the Community edition `review` does nothing but prevent that; in others it hides tasks.
        """
        return {"review": "true"} if self._is_community() else {}

    def _is_community(self) -> bool:
        if self._edition is None:
            self.version()
        return self._edition == "Community"


def _ids_and_total(body: Any) -> tuple[list[int], int]:
    return [int(row["id"]) for row in body["tasks"]], int(body["total"])


def _filter(column: str, operator: str, kind: str, value: str | int) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def _stamp(time: datetime) -> str:
    """A time as Label Studio's filters read it: UTC, with microseconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


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
