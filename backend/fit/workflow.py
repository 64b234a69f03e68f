"""From the ledger to a promoted version: the steps of one training, each safe to repeat.

DBOS writes down each step's outcome, so a worker that was killed goes on at the step it was in. The train
step itself goes on at the epoch it was in (`backend/fit/train.py`).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.errors import TrainingCancelled, TrainingError, YoloopError
from backend.fit.dataset import Dataset, build
from backend.fit.jobs import Job
from backend.fit.process import run_training
from backend.fit.recipe import image_size
from backend.fit.sync import sync
from backend.fit.train import Spec
from backend.labels.mapping import fingerprint
from backend.labels.schema import LabelSchema, parse_label_config
from backend.predict.base_model import find_base_model
from backend.predict.models import TRAINED
from backend.services import Services
from backend.store import Project
from model_registry import decide

log = logging.getLogger(__name__)


class Training:
    """One job's steps.

    Args:
        services: the worker's.
        step: runs a function so that its outcome survives a crash: `step(name, function)`.
    """

    def __init__(self, services: Services, step: Callable[[str, Callable[[], Any]], Any]) -> None:
        self._services = services
        self._step = step

    def run(self, job_id: str) -> str:
        """Train, judge and promote. Returns the job's final status; it never raises what a job can be told."""
        job = self._services.jobs.get(job_id)
        if job is None or job.finished_at is not None:
            return "unknown"
        self._services.jobs.update(job_id, status="running", started_at=job.started_at or time.time())
        try:
            learned = self._step("prepare", lambda: self._prepare(job))
            result = self._step("train", lambda: self._train(job))
            number = self._step("register", lambda: self._register(job, result))
            message = self._step("judge", lambda: self._judge(job, number, result))
            self._step("finish", lambda: self._finish(job, learned, number, message))
            return "done"
        except TrainingCancelled as error:
            self._end(job, "cancelled", str(error))
            return "cancelled"
        except YoloopError as error:
            self._end(job, "failed", str(error))
            return "failed"
        except Exception as error:
            log.exception("Training %s failed", job_id)
            self._end(job, "failed", f"{type(error).__name__}; the worker's log says more.")
            return "failed"

    def folder(self, job_id: str) -> Path:
        return self._services.settings.root / "jobs" / job_id

    def _prepare(self, job: Job) -> dict[str, str]:
        """Sync, write the dataset and the training's spec. Returns task id → content of what will be learned."""
        self._tell(job, "reading Label Studio")
        sync(self._services, job.uid, time.time(), deletions=True)
        project = self._services.store.project(job.uid)
        assert project is not None
        schema = parse_label_config(project.label_config)
        examples = self._services.ledger.examples(job.uid)
        if not examples:
            raise TrainingError("There is no submitted annotation yet.", "Submit some, then train.")
        folder = self.folder(job.id)
        folder.mkdir(parents=True, exist_ok=True)
        self._tell(job, f"preparing {len(examples)} annotated tasks")
        dataset = build(self._services, project, schema, examples, folder)
        self._spec(project, schema, dataset).save(folder)
        return {str(task_id): content for task_id, content in dataset.learned.items()}

    def _spec(self, project: Project, schema: LabelSchema, dataset: Dataset) -> Spec:
        settings = self._services.settings
        size = image_size(dataset.sizes, settings.image_size)
        champion = self._services.registry.champion(project.uid)
        base = find_base_model(settings)
        opponent, opponent_size = "", 0
        if champion is not None:
            initial = opponent = str(self._services.registry.fetch(champion))
            opponent_size = int(champion.tags.get("image_size") or settings.image_size)
        elif base.path is not None:
            initial, opponent, opponent_size = str(base.path), str(base.path), settings.image_size
        else:
            initial = Path(settings.base_model or "yolo11n.pt").with_suffix(".yaml").name
        return Spec(
            home=str(settings.root),
            label_config=project.label_config,
            classes=list(schema.classes),
            initial=initial,
            parent_version=champion.name if champion is not None else "",
            warm=champion is not None or base.path is not None,
            train_images=dataset.train,
            image_size=size,
            minutes=settings.train_minutes,
            threads=settings.train_threads or _cores(),
            device=settings.device,
            max_regions=settings.max_regions,
            champion=opponent,
            champion_size=opponent_size,
        )

    def _train(self, job: Job) -> dict[str, Any]:
        jobs = self._services.jobs

        def report(progress: Any) -> None:
            epoch, epochs = int(progress["epoch"]), int(progress["epochs"])
            text = f"epoch {min(epoch, epochs)} of {epochs}, mAP50 {progress['mAP50']:.3f}"
            jobs.update(job.id, epoch=epoch, epochs=epochs, message=text)
            log.info("Project %s: %s", job.uid, text)

        self._tell(job, "training")
        return run_training(self.folder(job.id), on_progress=report, cancelled=lambda: jobs.cancelled(job.id))

    def _register(self, job: Job, result: dict[str, Any]) -> int:
        """Store the candidate with its lineage; repeated, it finds the version it stored."""
        folder = self.folder(job.id)
        spec = Spec.load(folder)
        schema = parse_label_config(spec.label_config).own_labels()
        names = dict(enumerate(spec.classes))
        metrics = dict(result["candidate"])
        if result["champion"]:
            metrics |= {f"champion/{name}": value for name, value in result["champion"].items()}
        metrics |= {"seconds": result["seconds"], "epochs": result["epochs"]}
        version = self._services.registry.register(
            job.uid,
            job.id,
            {
                "weights.pt": folder / "run" / "weights" / "best.pt",
                "manifest.json": folder / "manifest.json",
                "results.csv": folder / "run" / "results.csv",
                "args.yaml": folder / "run" / "args.yaml",
            },
            metrics={_metric_name(name): float(value) for name, value in metrics.items()},
            params={"initial": Path(spec.initial).name, "image_size": str(spec.image_size)},
            tags={
                "parent": spec.parent_version,
                "classes": json.dumps(spec.classes),
                "fingerprint": fingerprint(schema, names, self._services.settings.score_threshold, TRAINED),
                "image_size": str(spec.image_size),
                "train_images": str(spec.train_images),
                "holdout_images": str(result["holdout"]),
                "trigger": job.reason,
            },
        )
        return version.number

    def _judge(self, job: Job, number: int, result: dict[str, Any]) -> str:
        registry = self._services.registry
        version = registry.version(job.uid, number)
        parent = registry.champion(job.uid)
        decision = decide(
            result["candidate"],
            result["champion"],
            holdout=result["holdout"],
            same_classes=parent is None or parent.number == number or parent.classes == version.classes,
        )
        if decision.promote:
            registry.promote(job.uid, number, decision.reason)
        else:
            registry.reject(job.uid, number, decision.reason)
        return f"{version.name} {'promoted' if decision.promote else 'kept, not promoted'}: {decision.reason}"

    def _finish(self, job: Job, learned: dict[str, str], number: int, message: str) -> None:
        self._services.ledger.mark_seen(job.uid, {int(task_id): content for task_id, content in learned.items()})
        self._end(job, "done", message, f"v{number}")

    def _end(self, job: Job, status: str, message: str, version: str = "") -> None:
        if status == "cancelled":
            # What a person stopped is not started again until there is as much news again.
            examples = self._services.ledger.examples(job.uid)
            self._services.ledger.mark_seen(job.uid, {each.task_id: each.content for each in examples})
        self._services.jobs.finish(job.id, status, message, time.time(), version)
        log.log(logging.INFO if status == "done" else logging.WARNING, "Project %s: %s", job.uid, message)
        folder = self.folder(job.id)
        if status == "failed" and (folder / "train.log").exists():
            logs = self._services.settings.root / "logs"
            logs.mkdir(exist_ok=True)
            shutil.move(folder / "train.log", logs / f"train-{job.id}.log")
        shutil.rmtree(folder, ignore_errors=True)

    def _tell(self, job: Job, message: str) -> None:
        if self._services.jobs.cancelled(job.id):
            raise TrainingCancelled("The training was cancelled.")
        self._services.jobs.update(job.id, message=message)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _metric_name(name: str) -> str:
    """MLflow allows letters, digits and a few signs; a label may hold any."""
    return "".join(char if char.isalnum() or char in "_-. /" else "_" for char in name)[:200]
