"""What Label Studio tells, as plain records, and how its rows are read into them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class ProjectInfo:
    id: int
    title: str
    created_at: datetime
    label_config: str
    model_version: str
    sampling: str = ""
    tasks: int = 0

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
class PredictionRecord:
    """One stored prediction; `score` is the task's, None when it came without."""

    id: int
    version: str
    score: float | None
    result: list[dict[str, Any]]
    created_at: datetime


@dataclass(frozen=True)
class TaskRecord:
    """One task with all its annotations and predictions; addresses in `data` are as imported (`s3://…` is not
    resolved)."""

    id: int
    created_at: datetime
    updated_at: datetime
    data: dict[str, Any]
    annotations: tuple[AnnotationRecord, ...]
    predictions: tuple[PredictionRecord, ...] = ()


@dataclass(frozen=True)
class OpenTask:
    """A task without any submitted annotation. `touched`: somebody has a draft of it, or skipped it."""

    id: int
    data: dict[str, Any]
    predictions: tuple[PredictionRecord, ...]
    touched: bool


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
    is_interactive: bool = False


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


def read_projects(body: Any) -> tuple[list[ProjectInfo], bool]:
    """A page of projects, and whether there is another."""
    return [read_project(row) for row in body["results"]], bool(body["next"])


def read_project(row: dict[str, Any]) -> ProjectInfo:
    return ProjectInfo(
        id=int(row["id"]),
        title=str(row["title"] or ""),
        created_at=_time(row["created_at"]),
        label_config=str(row["label_config"] or ""),
        model_version=str(row["model_version"] or ""),
        sampling=str(row.get("sampling") or ""),
        tasks=int(row.get("task_number") or 0),
    )


def read_id_and_time(row: dict[str, Any]) -> tuple[int, datetime]:
    return int(row["id"]), _time(row["updated_at"])


def read_task(row: dict[str, Any]) -> TaskRecord:
    return TaskRecord(
        id=int(row["id"]),
        created_at=_time(row["created_at"]),
        updated_at=_time(row["updated_at"]),
        data=_data(row["data"]),
        annotations=tuple(read_annotation(one) for one in row["annotations"]),
        predictions=tuple(_prediction(one) for one in row.get("predictions") or ()),
    )


def read_open_task(row: dict[str, Any]) -> OpenTask:
    return OpenTask(
        id=int(row["id"]),
        data=_data(row["data"]),
        predictions=tuple(_prediction(one) for one in row["predictions"] or ()),
        touched=bool(row["drafts"]) or bool(row["cancelled_annotations"]),
    )


def _prediction(row: dict[str, Any]) -> PredictionRecord:
    return PredictionRecord(
        id=int(row["id"]),
        version=str(row["model_version"] or ""),
        score=row["score"],
        result=_regions(row["result"]),
        created_at=_time(row["created_at"]),
    )


def read_annotation(row: dict[str, Any]) -> AnnotationRecord:
    owner = row["completed_by"]
    return AnnotationRecord(
        id=int(row["id"]),
        result=_entries(row["result"]),
        was_cancelled=bool(row["was_cancelled"]),
        ground_truth=bool(row["ground_truth"]),
        created_at=_time(row["created_at"]),
        updated_at=_time(row["updated_at"]),
        completed_by=owner["id"] if isinstance(owner, dict) else owner,
        lead_time=row["lead_time"],
        parent_prediction=row["parent_prediction"],
    )


def read_backend(row: Any) -> BackendInfo:
    return BackendInfo(
        id=int(row.id),
        url=str(row.url),
        title=str(row.title or ""),
        connected=row.state in ("CO", "TR", "PR"),
        error_message=str(row.error_message or ""),
        model_version=str(row.model_version or ""),
        basic_auth_user=str(row.basic_auth_user or "") if row.auth_method == "BASIC_AUTH" else "",
        is_interactive=bool(row.is_interactive),
    )


def read_webhook(row: Any) -> WebhookInfo:
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


def _regions(result: Any) -> list[dict[str, Any]]:
    """A prediction's. Label Studio takes any JSON for a result: whatever in it is no region is left out."""
    return [each for each in result if isinstance(each, dict)] if isinstance(result, list) else []


def _entries(result: Any) -> list[dict[str, Any]]:
    """An annotation's regions. What is none stays as a region without a type: left out, it would say that nothing is
    there, and so would a result that is no list."""
    there = result if isinstance(result, list) else [result]
    return [each if isinstance(each, dict) else {"value": each} for each in there]


def _data(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
