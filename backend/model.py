"""YoloBackend: suggests with `predict()` and learns with `fit()`, under label-studio-ml's names.

`predict()` answers every task of a request, in order: suggestions, or an entry without `result`, which makes
Label Studio ask again later. `fit()` only writes down that something changed; the worker does the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.engine.pool import EnginePool
from backend.errors import BadRequest, NotFound
from backend.labels.document import LARGEST
from backend.labels.networks import pixels_enough
from backend.labels.references import task_id_of
from backend.labels.schema import LabelSchema, parse_label_config
from backend.labelstudio.webhook import DELETIONS, START_TRAINING, by_switch, is_submit
from backend.observability.metrics import Metrics
from backend.predict.answers import Answers, Pointing, task_distances
from backend.predict.batch import Look, looks_of, run
from backend.predict.interactive import MOST
from backend.predict.marks import Marks, marks_of
from backend.predict.ranking import ranked
from backend.predict.sampling import STRATEGIES
from backend.predict.shown import shown
from backend.served_models.cache import Models
from backend.served_models.served import Served
from backend.served_models.thresholds import ThresholdPolicy
from backend.served_models.version_string import fingerprint, strategy_of, version_string
from backend.services import Services
from backend.store.database import EVENT_PATIENCE, EVERY_PROJECT, HURRIED, DatabaseLocked, ProjectColumns
from backend.store.jobs import ASKED

LATE = "late"
LATER = (
    "The database is locked; the event is kept in memory and written as soon as that ends. Should yoloop stop before, "
    "the worker finds what changed at its next look at Label Studio."
)
"""What is told of an event that waits to be written."""

LONGEST_TITLE = 300
"""Characters of a project's title that are kept; Label Studio has 50."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Engine:
    """What a prediction runs on: the models in memory and the owner of the device."""

    models: Models
    pool: EnginePool
    metrics: Metrics


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
        seen: ProjectColumns = {}
        project = self._services.store.project(self.project_id)
        if access_token:
            seen["access_token"] = access_token
        if hostname:
            seen["hostname"] = hostname
            if project is not None and hostname != project.hostname:
                seen["access_token"] = access_token  # that of another host stays where it is known
        if self.label_config:
            seen["label_config"] = self.label_config
        if project is not None and project.disconnected_at is not None:
            seen["disconnected_at"] = None  # somebody added the ML backend in Label Studio again
        if project is None or any(value != getattr(project, key) for key, value in seen.items()):
            self._save(seen)
        return self.model_version

    @property
    def schema(self) -> LabelSchema:
        """Raises LabelConfigError for a labelling config that cannot be read."""
        return parse_label_config(self.label_config)

    @property
    def model_version(self) -> str:
        """The string that every prediction of now carries, and `/setup` reports."""
        return self._version(self._engine.models.target(self.project_id, parse_label_config(self.label_config)))

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Suggestions for tasks of Label Studio.

        Returns one entry per task, in order: `{"model_version", "score", "result"}` with regions by descending
        score, or `{"model_version", "error"}` for a task whose image could not be read in time. The entry's `score`
        is the strategy's (`predict/sampling.py`): lowest where a person's look is worth most.

        Args:
            context: of interactive mode, what a person has just drawn under `result`; then only the objects there that
                the task's page does not show yet.
        """
        deadline = time.monotonic() + self._services.settings.predict_budget
        schema = parse_label_config(self.label_config)
        served = self._engine.models.ready(self.project_id, schema, deadline)
        version = self._version(served)
        if not served.ready or not served.settled:
            self._engine.metrics.tasks.labels("no_model").inc(len(tasks))
            why = served.why if schema.controls else next(iter(schema.notes), "No control is about an image.")
            return [_failed(version, why or "No model knows the labels.") for _ in tasks]
        marks = marks_of(context)
        strategy = STRATEGIES[strategy_of(schema, self._services.settings.sampling)]
        compares = strategy.compares and marks is None
        metrics = self._engine.metrics
        answering = Answers(
            served,
            ThresholdPolicy.of(self._services.settings),
            self._services.settings.max_regions,
            lambda kind, count: metrics.skipped.labels(kind).inc(count),
            self._limited,
        )
        looks, errors = looks_of(tasks, [each.control for each in served.suggests if each.loaded.detector])
        run(
            looks,
            errors,
            served,
            lambda each: answering.thresholds(each).lowest,
            images=self._services.images,
            source=self._services.source_of(self._services.store.project(self.project_id)),
            pool=self._engine.pool,
            deadline=deadline,
            cover=self._pixels_enough(served),
            embed=compares,
            urgent=len(tasks) == 1 or marks is not None,
            most=None if marks is None else max(MOST, self._services.settings.max_regions),
        )
        of_task: dict[int, list[Look]] = {index: [] for index in range(len(tasks))}
        for look in looks:
            of_task[look.task].append(look)
        places = {index: answering.places(mine) for index, mine in of_task.items() if index not in errors}
        far = task_distances(self._services.embeddings, self.project_id, version, places, of_task) if compares else {}
        answers = []
        for index, mine in of_task.items():
            if index in errors:
                metrics.tasks.labels("failed").inc()
                metrics.failed(errors[index])
                answers.append(_failed(version, str(errors[index])))
                continue
            pointing = None if marks is None else self._pointing(tasks[index], marks, version)
            regions = ranked(answering.regions(mine, pointing))
            metrics.tasks.labels("answered").inc()
            metrics.regions.inc(len(regions))
            score = strategy.score(places[index], far.get(index, 1.0))
            answers.append({"model_version": version, "score": min(1.0, max(0.0, score)), "result": regions})
            if marks is not None and marks.why:
                answers[-1]["error"] = marks.why
        return answers

    def fit(self, event: str, data: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Write down a webhook's event durably; nothing is trained here.

        `START_TRAINING` asks for a training now and returns its job; one that is unfinished is joined. Where Label
        Studio may have sent it by itself, at a submit, the worker finds out, and it is a hint at first. All else is a
        hint that Label Studio has news, whatever the payload says or leaves out.
        """
        now = time.time()
        uid = self.project_id or EVERY_PROJECT
        project = data.get("project")
        if isinstance(project, Mapping) and self.project_id:
            self._remember(project)
        there = self._services.store.project(uid)
        known = there is not None and there.disconnected_at is None
        asked = by_switch(event, data)
        if event == START_TRAINING and not (asked and known):
            if not self.project_id:
                raise BadRequest("START_TRAINING names no project.", "Let the webhook send its payload.")
            if not known:
                raise NotFound("No such project is known.", "Connect it first: yoloop connect --project N")
            job, started = self._services.jobs.request(uid, ASKED, now, EVENT_PATIENCE)
            return {"job": job.id, "status": "queued" if started else "joined"}
        if known or uid == EVERY_PROJECT:  # of another one nobody could read what is new
            deletion, submit = event in DELETIONS, is_submit(event, data)
            if not self._services.store.hint(uid, now, deletion=deletion, asked=asked, submit=submit):
                return {"status": LATE, "message": LATER}
        return {"status": "noted"}

    def _remember(self, payload: Mapping[str, Any]) -> None:
        """Save the config and title that an event carries; what is not there, or is past all measure, changes nothing.

        Of a project that is not known yet the config is not kept: anybody may send an event, and the worker reads the
        config from Label Studio itself.
        """
        project = self._services.store.project(self.project_id)
        seen: ProjectColumns = {}
        label_config, title = payload.get("label_config"), payload.get("title")
        if project is not None and isinstance(label_config, str) and 0 < len(label_config) <= LARGEST:
            seen["label_config"] = label_config
        if isinstance(title, str) and title:
            seen["title"] = title[:LONGEST_TITLE]
        if project is None or any(value != getattr(project, key) for key, value in seen.items()):
            self._save(seen)

    def _save(self, seen: ProjectColumns) -> None:
        """Save what a request says of its project. Where the database is locked, the next one says it again."""
        try:
            self._services.store.save_project(self.project_id, HURRIED, **seen)
        except DatabaseLocked:
            log.info(
                "Project %s: the database is locked; what its request says is saved at the next one", self.project_id
            )

    def _limited(self, control: str, count: int) -> None:
        self._engine.metrics.limited.inc(count)
        log.info(
            "Project %s: %d more objects were found for control %r than are suggested for one image "
            "(YOLOOP_MAX_REGIONS=%d)",
            self.project_id,
            count,
            control,
            self._services.settings.max_regions,
        )

    def _version(self, served: Served) -> str:
        suggested = list(served.fingerprinted())
        if not served.baseline and not (suggested and served.settled):
            return version_string(served.name)  # v0 without weights, or not loaded yet, has no classes to speak of
        settings = self._services.settings
        strategy = strategy_of(parse_label_config(self.label_config), settings.sampling)
        now = fingerprint(suggested, ThresholdPolicy.of(settings), strategy)
        baseline = served.baseline
        if not baseline:
            project = self._services.store.project(self.project_id)
            baseline = project.baseline if project else ""
            if project is not None and not baseline:
                self._save({"baseline": now})
        return version_string(served.name, now, baseline)

    def _pointing(self, task: Mapping[str, Any], marks: Marks, version: str) -> Pointing:
        return Pointing(marks, shown(task, marks, version), (self.project_id, task_id_of(task)))

    def _pixels_enough(self, served: Served) -> int:
        sizes = [each.loaded.image_size for each in served.suggests]
        tasks = [each.loaded.network.task for each in served.suggests]
        return pixels_enough(tasks, max([self._services.settings.image_size, *sizes]))


def _failed(version: str, why: str) -> dict[str, Any]:
    return {"model_version": version, "error": why}
