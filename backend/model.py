"""YoloBackend: suggests with `predict()` and learns with `fit()`, under label-studio-ml's names.

`predict()` answers every task of a request, in order: suggestions, or an entry without `result`, which makes
Label Studio ask again later. `fit()` only writes down that something changed; the worker does the rest.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any

from backend.errors import BadRequest, ImageError, ImageUnavailable
from backend.labels import rectangle
from backend.labels.geometry import Detection, ImageSize
from backend.labels.mapping import fingerprint, map_classes
from backend.labels.schema import Control, LabelSchema, parse_label_config
from backend.metrics import Metrics
from backend.predict.engine.pool import EnginePool
from backend.predict.models import Models, Served
from backend.predict.ranking import ranked, task_score
from backend.services import Services
from backend.store import EVERY_PROJECT

START_TRAINING = "START_TRAINING"
DELETIONS = ("ANNOTATIONS_DELETED", "TASKS_DELETED")


@dataclass(frozen=True, slots=True)
class Engine:
    """What a prediction runs on: the models in memory and the owner of the device."""

    models: Models
    pool: EnginePool
    metrics: Metrics


@dataclass(slots=True)
class _Item:
    """One image of one task on its way through the engine."""

    task: int
    data_key: str
    reference: str
    task_id: int | None
    size: ImageSize | None = None
    found: Future[list[Detection]] | None = None


class YoloBackend:
    """One Label Studio project's backend for one request.

    Args:
        services: the store, the images, the way to Label Studio.
        engine: what predictions run on; only `predict()` and the version need it.
        project_id: Label Studio's uid of the project, `<id>.<created_at epoch>`.
        label_config: its labelling config, XML.
    """

    def __init__(
        self,
        services: Services,
        engine: Engine,
        project_id: str | None = None,
        label_config: str | None = None,
    ) -> None:
        self._services = services
        self._engine = engine
        self.project_id = project_id or ""
        self.label_config = label_config or ""

    def setup(self, hostname: str = "", access_token: str = "") -> str:
        """Take note of the project and return its model version.

        Raises LabelConfigError when the labelling config holds nothing to suggest for.
        """
        parse_label_config(self.label_config)
        seen = {"hostname": hostname, "access_token": access_token, "label_config": self.label_config}
        project = self._services.store.project(self.project_id)
        if project is None or any(value and value != getattr(project, key) for key, value in seen.items()):
            self._services.store.save_project(self.project_id, **{key: value for key, value in seen.items() if value})
        return self.model_version

    @property
    def model_version(self) -> str:
        """The string that every prediction of now carries, and `/setup` reports."""
        return self._version(self._engine.models.target(self.project_id), parse_label_config(self.label_config))

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Suggestions for tasks of Label Studio.

        Returns one entry per task, in order: `{"model_version", "score", "result"}` with regions by descending
        score, or `{"model_version", "error"}` for a task whose image could not be read in time.
        """
        deadline = time.monotonic() + self._services.settings.predict_budget
        config = parse_label_config(self.label_config)
        served = self._engine.models.ready(self.project_id, deadline)
        version, schema = self._version(served, config), served.read(config)
        if served.detector is None:
            self._engine.metrics.tasks.labels("no_model").inc(len(tasks))
            return [_failed(version, served.why) for _ in tasks]
        items, errors = _items(tasks, schema)
        self._run(items, errors, served, schema, deadline)
        answers = []
        for index in range(len(tasks)):
            if index in errors:
                self._engine.metrics.tasks.labels("failed").inc()
                answers.append(_failed(version, str(errors[index])))
                continue
            regions = ranked(self._regions([item for item in items if item.task == index], served, schema))
            self._engine.metrics.tasks.labels("answered").inc()
            self._engine.metrics.regions.inc(len(regions))
            answers.append({"model_version": version, "score": task_score(regions), "result": regions})
        return answers

    def fit(self, event: str, data: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Write down a webhook's event durably; nothing is trained here.

        `START_TRAINING` asks for a training now and returns its job; one that is unfinished is joined. All
        else is a hint that Label Studio has news, whatever the payload says or leaves out.
        """
        now = time.time()
        uid = self.project_id or EVERY_PROJECT
        project = data.get("project")
        if isinstance(project, Mapping) and self.project_id:
            self._remember(str(project.get("label_config") or ""), str(project.get("title") or ""))
        if event == START_TRAINING:
            if not self.project_id:
                raise BadRequest("START_TRAINING names no project.", "Let the webhook send its payload.")
            job, started = self._services.jobs.request(uid, "asked for in Label Studio", now)
            return {"job": job.id, "status": "queued" if started else "joined"}
        self._services.store.hint(uid, now, deletion=event in DELETIONS)
        return {"status": "noted"}

    def _remember(self, label_config: str, title: str) -> None:
        project = self._services.store.project(self.project_id)
        if project is None or (label_config, title) != (project.label_config, project.title):
            self._services.store.save_project(self.project_id, label_config=label_config, title=title)

    def _version(self, served: Served, schema: LabelSchema) -> str:
        if served.detector is None and not served.baseline:
            return served.name  # v0 without weights, or not loaded yet, has no classes to speak of
        threshold = self._services.settings.score_threshold
        now = fingerprint(served.read(schema), served.names, threshold, served.model)
        baseline = served.baseline
        if not baseline:
            project = self._services.store.project(self.project_id)
            baseline = project.baseline if project else ""
            if project is not None and not baseline and served.settled:
                self._services.store.save_project(self.project_id, baseline=now)
        return served.name if not baseline or now == baseline else f"{served.name}-{now}"

    def _threshold(self, control: Control) -> float:
        if control.score_threshold is None:
            return self._services.settings.score_threshold
        return control.score_threshold

    def _run(
        self,
        items: list[_Item],
        errors: dict[int, ImageError],
        served: Served,
        schema: LabelSchema,
        deadline: float,
    ) -> None:
        """Fetch, decode and run all images; what fails is noted in `errors` by task."""
        assert served.detector is not None
        source = self._services.source_of(self._services.store.project(self.project_id))
        conf = min(self._threshold(control) for control in schema.controls)
        for index, image in self._services.images.load_many(
            [source(item.reference, item.task_id) for item in items], deadline
        ):
            item = items[index]
            if isinstance(image, ImageError):
                errors.setdefault(item.task, image)
                continue
            item.size = ImageSize(width=image.shape[1], height=image.shape[0])
            item.found = self._engine.pool.submit(served.detector, image, conf)
        for item in items:
            if item.found is None:
                continue
            try:
                item.found.result(timeout=max(0.0, deadline - time.monotonic()))
            except (TimeoutError, CancelledError):
                item.found.cancel()
                errors.setdefault(item.task, ImageUnavailable("The time budget of the request ran out."))
            except Exception:  # logged where it happened; here it is one image that has no answer
                errors.setdefault(item.task, ImageUnavailable("The model could not be run on this image."))

    def _regions(self, items: Sequence[_Item], served: Served, schema: LabelSchema) -> list[dict[str, Any]]:
        regions = []
        for control in schema.controls:
            labels = map_classes(served.names, control)
            threshold = self._threshold(control)
            for item in items:
                if item.data_key != control.data_key or item.size is None or item.found is None:
                    continue
                for detection in item.found.result():
                    if detection.score < threshold or detection.cls not in labels:
                        continue
                    region = rectangle.to_region(
                        detection, labels[detection.cls], control, item.size, uuid.uuid4().hex[:10]
                    )
                    if region is not None:
                        regions.append(region)
        return regions


def _items(tasks: Sequence[Mapping[str, Any]], schema: LabelSchema) -> tuple[list[_Item], dict[int, ImageError]]:
    """The images that a request needs; a task without one of them is an error of that task."""
    items: list[_Item] = []
    errors: dict[int, ImageError] = {}
    keys = dict.fromkeys(control.data_key for control in schema.controls)
    for index, task in enumerate(tasks):
        data = task.get("data") if isinstance(task, Mapping) else None
        task_id = task.get("id") if isinstance(task, Mapping) else None
        for key in keys:
            reference = data.get(key) if isinstance(data, Mapping) else None
            if isinstance(reference, str) and reference:
                items.append(_Item(index, key, reference, task_id if isinstance(task_id, int) else None))
            else:
                errors[index] = ImageUnavailable(f"The task has no image under {key!r}.")
    return [item for item in items if item.task not in errors], errors


def _failed(version: str, why: str) -> dict[str, Any]:
    return {"model_version": version, "error": why}
