"""One project's labelling, lived through again in a home of its own, without Label Studio.

What a person submits is handed to the ledger directly. Training, the gate and the predictions are those of every
day, so what a replay tells is what the project would have seen.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any
from xml.etree import ElementTree

from backend.fit.triggers import Rules, should_train
from backend.fit.workflow import Training
from backend.images.addresses import locate
from backend.images.cache import ImageCache
from backend.labels.document import parse
from backend.labels.schema import parse_label_config
from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.model import YoloBackend
from backend.served_models.base_model import starts_pretrained
from backend.served_models.parts import parts_of
from backend.served_models.served import Served
from backend.server.process import make_serving
from backend.settings import Settings, sqlite_url
from backend.store.database import ProjectColumns

AT_ONCE = 50
"""Tasks of one prediction, as Label Studio asks for them."""

NEVER = 3600.0 * 24 * 365
"""Seconds between looks for a new version: a replay looks by itself, after each training."""


class ReplaySettings(Settings):
    """Settings of a home that is thrown away: its registry lies in it, whatever MLFLOW_TRACKING_URI says."""

    @property
    def tracking_uri(self) -> str:
        return sqlite_url(self.root / "mlflow.db")


@dataclass(frozen=True, slots=True)
class ReplayTask:
    """One task and its true annotation: Label Studio's `data`, and the `result` that a person submits for it."""

    id: int
    data: Mapping[str, Any]
    result: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a task shows when it is opened: its score, the lowest first under uncertainty sampling, and regions."""

    score: float
    result: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training ended.

    `status` is the job's and `message` its last words; `served` names what answers now and `new` tells whether
    this training put it there.
    """

    status: str
    message: str
    served: str
    new: bool
    seconds: float


class Replay:
    """A project of its own, to be closed after use.

    Args:
        settings: where its home lies, and how it trains and suggests.
        label_config: the project's labelling config, XML.
        uid: names the project, as Label Studio would.
        columns: how its images are reached: columns of `Store.save_project`, like `hostname`.
        cache: a folder of fetched images to share with another home; None: an empty one of its own.
    """

    def __init__(
        self,
        settings: ReplaySettings,
        label_config: str,
        *,
        uid: str = "1.0",
        columns: ProjectColumns | None = None,
        cache: Path | None = None,
    ) -> None:
        if cache is not None and cache.is_dir():
            (settings.root / "cache").symlink_to(cache.absolute(), target_is_directory=True)
        self._uid, self._label_config = uid, label_config
        self._schema = parse_label_config(label_config).require()
        self._serving = make_serving(settings.model_copy(update={"refresh_interval": NEVER}))
        self.services = self._serving.services
        self.services.store.save_project(uid, **(columns or {}))
        self.services.store.save_project(uid, label_config=label_config)
        self._left = 0

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._serving.close()

    def keep_image(self, reference: str, content: bytes) -> None:
        """Have an image at hand under the address that tasks name it by, as if it had been fetched already."""
        source = self.services.source_of(self.services.store.project(self._uid))(reference, None)
        cache = ImageCache(self._serving.settings.root / "cache", int(self._serving.settings.cache_gb * 2**30))
        cache.put(locate(source.ref, None, source.ls_url).key, content)

    def submit(self, task: ReplayTask, at: float) -> None:
        """Hand in a task's annotation, submitted at that epoch second."""
        when = datetime.fromtimestamp(at, UTC)
        annotation = AnnotationRecord(
            id=task.id,
            result=[dict(region) for region in task.result],
            was_cancelled=False,
            ground_truth=False,
            created_at=when,
            updated_at=when,
            completed_by=None,
            lead_time=None,
            parent_prediction=None,
        )
        record = TaskRecord(task.id, when, when, dict(task.data), (annotation,))
        self.services.ledger.update(self._uid, [record], at)

    @property
    def waiting(self) -> int:
        """Annotations submitted since the last training, whatever became of that."""
        return self.services.ledger.progress(self._uid).new - self._left

    def due(self) -> bool:
        """Whether the product would train now by itself. Its pauses are left out: a replay has no hours."""
        settings = self._serving.settings
        pretrained = starts_pretrained(settings, self._label_config)
        usual = Rules.of(settings, pretrained=pretrained)
        rules = Rules(usual.min_new_annotations, usual.min_per_class, early=usual.early)
        progress = replace(self.services.ledger.progress(self._uid), new=self.waiting)
        return should_train(progress, rules, math.inf).train

    def train(self, reason: str = "replayed", *, minutes: float | None = None) -> Trained:
        """Train on all that was submitted, judge the outcome, and serve it when it may serve.

        Args:
            minutes: the most that this training may take; None: as the settings say.
        """
        settings = self._serving.settings
        self.services.settings = settings if minutes is None else settings.model_copy(update={"train_minutes": minutes})
        before, began = self.served.name, time.monotonic()
        job, _ = self.services.jobs.request(self._uid, reason, time.time())
        status = Training(self.services, step=lambda name, function: function(), read=lambda *given, **named: None).run(
            job.id
        )
        self._serving.engine.models.refresh()
        # What could not be learned stays new for the ledger; it is no reason to train again at once.
        self._left = self.services.ledger.progress(self._uid).new
        ended, now = self.services.jobs.get(job.id), self.served.name
        return Trained(status, ended.message if ended else "", now, now != before, time.monotonic() - began)

    @property
    def served(self) -> Served:
        """The version in service with its models, all of them loaded."""
        deadline = time.monotonic() + self._serving.settings.predict_budget
        return self._serving.engine.models.ready(self._uid, self._schema, deadline)

    def weights(self) -> tuple[Path, ...]:
        """The checkpoints of the version in service, by its networks; none before the first."""
        champion = self.services.registry.champion(self._uid)
        if champion is None:
            return ()
        return tuple(self.services.registry.fetch(champion, part.file) for part in parts_of(champion))

    def suggestions(self, tasks: Sequence[ReplayTask]) -> dict[int, Suggestion]:
        """What the version in service suggests: task id → suggestion; a task that cannot be answered is left out."""
        backend = YoloBackend(self.services, self._serving.engine, self._uid, self._label_config)
        found: dict[int, Suggestion] = {}
        for start in range(0, len(tasks), AT_ONCE):
            some = tasks[start : start + AT_ONCE]
            answers = backend.predict([{"id": task.id, "data": dict(task.data)} for task in some])
            for task, answer in zip(some, answers, strict=True):
                if "result" in answer:
                    found[task.id] = Suggestion(float(answer["score"]), answer["result"])
        return found


def next_task(
    open_tasks: Sequence[ReplayTask], suggested: Mapping[int, Suggestion], chance: random.Random
) -> ReplayTask:
    """What Label Studio opens under uncertainty sampling: the lowest score, any task while none has one."""
    scored = [task for task in open_tasks if task.id in suggested]
    return min(scored, key=lambda task: suggested[task.id].score) if scored else chance.choice(open_tasks)


def without_sampling(label_config: str) -> str:
    """The labelling config without the strategies that its tags name, so that the setting decides."""
    root = parse(label_config)
    for element in root.iter():
        element.attrib.pop("model_sampling", None)
    return ElementTree.tostring(root, encoding="unicode")
