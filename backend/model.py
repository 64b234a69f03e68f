"""YoloBackend: suggests with `predict()` and learns with `fit()`, under label-studio-ml's names.

`predict()` answers every task of a request, in order: suggestions, or an entry without `result`, which makes
Label Studio ask again later. `fit()` only writes down that something changed; the worker does the rest.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

from backend.errors import BadRequest, ImageError, ImageUnavailable
from backend.labels.convert import to_regions
from backend.labels.geometry import Box, Detection, ImageSize
from backend.labels.mapping import fingerprint
from backend.labels.schema import Control, parse_label_config
from backend.metrics import Metrics
from backend.predict.engine.base import Detector
from backend.predict.engine.pool import EnginePool
from backend.predict.models import Models
from backend.predict.ranking import ranked, task_score
from backend.predict.references import pages_of
from backend.predict.served import Served, Suggests
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
    """One image of one task on its way through the engine; `found` holds what each model says of it."""

    task: int
    data_key: str
    page: int
    reference: str
    task_id: int | None
    size: ImageSize | None = None
    found: dict[int, Future[list[Detection]]] = field(default_factory=dict)


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

        Raises LabelConfigError for a labelling config that cannot be read. One that holds nothing to suggest for
        is no error: the project may be on its way to become one that does.
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
        return self._version(self._engine.models.target(self.project_id, parse_label_config(self.label_config)))

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Suggestions for tasks of Label Studio.

        Returns one entry per task, in order: `{"model_version", "score", "result"}` with regions by descending
        score, or `{"model_version", "error"}` for a task whose image could not be read in time.
        """
        deadline = time.monotonic() + self._services.settings.predict_budget
        schema = parse_label_config(self.label_config)
        served = self._engine.models.ready(self.project_id, schema, deadline)
        version = self._version(served)
        if not served.ready or not served.settled:
            self._engine.metrics.tasks.labels("no_model").inc(len(tasks))
            why = served.why if schema.controls else next(iter(schema.notes), "No control is about an image.")
            return [_failed(version, why or "No model knows the labels.") for _ in tasks]
        items, errors = _items(tasks, [each.control for each in served.suggests if each.loaded.detector])
        self._run(items, errors, served, deadline)
        answers = []
        for index in range(len(tasks)):
            if index in errors:
                self._engine.metrics.tasks.labels("failed").inc()
                answers.append(_failed(version, str(errors[index])))
                continue
            regions = ranked(self._regions([item for item in items if item.task == index], served))
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

    def _version(self, served: Served) -> str:
        suggested = list(served.fingerprinted())
        if not served.baseline and not (suggested and served.settled):
            return served.name  # v0 without weights, or not loaded yet, has no classes to speak of
        now = fingerprint(suggested, self._services.settings.score_threshold)
        baseline = served.baseline
        if not baseline:
            project = self._services.store.project(self.project_id)
            baseline = project.baseline if project else ""
            if project is not None and not baseline:
                self._services.store.save_project(self.project_id, baseline=now)
        return served.name if not baseline or now == baseline else f"{served.name}-{now}"

    def _threshold(self, control: Control) -> float:
        if control.score_threshold is None:
            return self._services.settings.score_threshold
        return control.score_threshold

    def _run(self, items: list[_Item], errors: dict[int, ImageError], served: Served, deadline: float) -> None:
        """Fetch, decode and run all images, each once through each model; what fails is noted in `errors` by task."""
        source = self._services.source_of(self._services.store.project(self.project_id))
        for index, image in self._services.images.load_many(
            [source(item.reference, item.task_id) for item in items], deadline
        ):
            item = items[index]
            if isinstance(image, ImageError):
                errors.setdefault(item.task, image)
                continue
            item.size = ImageSize(width=image.shape[1], height=image.shape[0])
            for detector, conf in self._wanted(served, item.data_key):
                item.found[id(detector)] = self._engine.pool.submit(detector, image, conf)
        for item in items:
            for found in item.found.values():
                try:
                    found.result(timeout=max(0.0, deadline - time.monotonic()))
                except (TimeoutError, CancelledError):
                    found.cancel()
                    errors.setdefault(item.task, ImageUnavailable("The time budget of the request ran out."))
                except Exception:  # logged where it happened; here it is one image that has no answer
                    errors.setdefault(item.task, ImageUnavailable("The model could not be run on this image."))

    def _wanted(self, served: Served, data_key: str) -> list[tuple[Detector, float]]:
        """The models that look at one field's image, each with the least score that some control asks for."""
        wanted: dict[int, tuple[Detector, float]] = {}
        for each in served.suggests:
            detector = each.loaded.detector
            if detector is None or each.control.data_key != data_key:
                continue
            # Scores of classes that mean one choice are added up, so small ones count too.
            conf = 0.0 if detector.task == "classify" else self._threshold(each.control)
            wanted[id(detector)] = (detector, min(conf, wanted.get(id(detector), (detector, 1.0))[1]))
        return list(wanted.values())

    def _regions(self, items: Sequence[_Item], served: Served) -> list[dict[str, Any]]:
        regions: list[dict[str, Any]] = []
        for each in served.suggests:
            mine = [item for item in items if item.data_key == each.control.data_key and item.size is not None]
            futures = [(item, item.found.get(id(each.loaded.detector))) for item in mine]
            looked = [(item, future.result()) for item, future in futures if future is not None]
            if each.control.kind in ("choices", "taxonomy") and not each.control.per_item and len(looked) > 1:
                looked = [(looked[0][0], _averaged([found for _, found in looked]))]
            for item, found in looked:
                regions += self._drawn(each, item, found)
        return regions

    def _drawn(self, each: Suggests, item: _Item, found: Sequence[Detection]) -> list[dict[str, Any]]:
        assert item.size is not None
        control = each.control
        made, skipped = to_regions(
            found, control, each.labels, item.size, self._threshold(control), lambda: uuid.uuid4().hex[:10]
        )
        self._engine.metrics.skipped.labels(control.kind).inc(skipped)
        if control.pages and (control.kind not in ("choices", "taxonomy") or control.per_item):
            made = [{**region, "item_index": item.page} for region in made]
        return made


def _averaged(looks: Sequence[Sequence[Detection]]) -> list[Detection]:
    """One score for each class from those of several images."""
    sums: dict[int, float] = {}
    for found in looks:
        for each in found:
            sums[each.cls] = sums.get(each.cls, 0.0) + each.score / len(looks)
    return [Detection(cls, score, Box(0, 0, 1, 1)) for cls, score in sums.items()]


def _items(
    tasks: Sequence[Mapping[str, Any]], controls: Sequence[Control]
) -> tuple[list[_Item], dict[int, ImageError]]:
    """The images that controls need; a task without one of them is an error of that task."""
    items: list[_Item] = []
    errors: dict[int, ImageError] = {}
    keys = dict.fromkeys((control.data_key, control.pages) for control in controls)
    for index, task in enumerate(tasks):
        data = task.get("data") if isinstance(task, Mapping) else None
        task_id = task.get("id") if isinstance(task, Mapping) else None
        number = task_id if isinstance(task_id, int) else None
        for key, pages in keys:
            references = pages_of(data.get(key), pages) if isinstance(data, Mapping) else []
            items += [_Item(index, key, page, each, number) for page, each in enumerate(references)]
            if not references or not all(references):
                errors[index] = ImageUnavailable(f"The task has no image under {key!r}.")
    return [item for item in items if item.task not in errors], errors


def _failed(version: str, why: str) -> dict[str, Any]:
    return {"model_version": version, "error": why}
