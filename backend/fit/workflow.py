"""From the ledger to a promoted version: the steps of one training, each safe to repeat.

DBOS writes down each step's outcome, so a worker that was killed goes on at the step it was in. The train
step itself goes on at the epoch it was in (`backend/fit/training/train.py`).
"""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import Timeout

from backend.engine.environment import cores
from backend.errors import TrainingCancelled, TrainingError, YoloopError
from backend.fit.dataset.build import Dataset, NetworkData, build
from backend.fit.ending import end, folder_of
from backend.fit.evaluation.judgement import GATE, best_so_far, judge, record, replaces
from backend.fit.evaluation.metrics import metric_of
from backend.fit.interruption import Interrupted, reason, resumable
from backend.fit.promotion import carry_out
from backend.fit.sync import sync
from backend.fit.training.process import run_training, said, start_training
from backend.fit.training.recipe import image_size, most_regions
from backend.fit.training.spec import NetworkSpec, Opponent, Spec
from backend.labels.networks import Network, serves
from backend.labels.schema import parse_label_config
from backend.observability.full_disk import message_of
from backend.observability.logs import about
from backend.processes.child import end_group
from backend.processes.liveness import training
from backend.served_models.base_model import find_base_model, without_sibling, yaml_for
from backend.served_models.loading import serving_engine
from backend.served_models.parts import TAG, Part, dump, network_from, parts_of
from backend.served_models.served import own_suggestions
from backend.served_models.thresholds import TAG as THRESHOLDS
from backend.served_models.thresholds import ThresholdPolicy
from backend.served_models.version_string import fingerprint, strategy_of
from backend.services import Services
from backend.store.database import DatabaseError, Project
from backend.store.jobs import Job
from backend.store.progress import KEPT, NOTHING_YET
from backend.store.readings import TRAINING, VALIDATION, reasons
from model_registry import RegistryError, Version, decide_together

log = logging.getLogger(__name__)


BOX_TASKS = ("detect", "obb")

READING = 600.0
"""Seconds to wait while somebody else reads the project."""


class Training:
    """One job's steps.

    Args:
        services: the worker's.
        step: runs a function so that its outcome survives a crash: `step(name, function)`.
        read: brings the ledger in step with Label Studio; a replay, whose ledger is written by hand, reads nothing.
        trainer: gives a process as `start_training` does, which is what is called without it.
    """

    def __init__(
        self,
        services: Services,
        step: Callable[[str, Callable[[], Any]], Any],
        read: Callable[..., object] = sync,
        trainer: Callable[[], subprocess.Popen[bytes]] | None = None,
    ) -> None:
        self._services = services
        self._step = step
        self._read = read
        self._start = trainer or partial(start_training, services.settings.root)
        self._trainer: subprocess.Popen[bytes] | None = None

    def run(self, job_id: str) -> str:
        """Train, judge and promote. Returns the job's final status; it never raises what a job can be told.

        Raises Interrupted where nothing can be written, or somebody else takes the job's steps; then it is to be run
        again.
        """
        home = self._services.settings.root

        def alone() -> str:
            with training(home, job_id):
                job = self._services.jobs.get(job_id)
                if job is None or job.finished_at is not None:
                    return "unknown"
                with about(job_id=job.id, project=job.uid):
                    return self._told(job)

        try:
            return resumable(alone, home)
        except Timeout:
            raise Interrupted("it runs already") from None

    def _told(self, job: Job) -> str:
        """As `_run`; where that is interrupted, people are told."""
        try:
            return resumable(lambda: self._run(job), self._services.settings.root)
        except Interrupted as error:
            log.warning("%s", message_of(str(error)))
            with suppress(DatabaseError):
                message = f"interrupted, as {error}; it goes on by itself"
                self._services.jobs.update(job.id, status="queued", message=message)
            raise

    def _run(self, job: Job) -> str:
        self._services.jobs.update(job.id, status="running", started_at=job.started_at or time.time())
        try:
            learned = self._take("prepare", lambda: self._prepare(job))
            result = self._take("train", lambda: self._train(job))
            number = self._take("register", lambda: self._register(job, result))
            message = self._take("judge", lambda: self._judge(job, number, result))
            self._take("finish", lambda: self._finish(job, learned, number, message))
            return "done"
        except TrainingCancelled as error:
            self._end(job, "cancelled", str(error))
            return "cancelled"
        except YoloopError as error:
            self._end(job, "failed", str(error))
            return "failed"
        except Exception as error:
            if reason(error, self._services.settings.root):
                raise
            log.exception("Training %s failed", job.id)
            self._end(job, "failed", f"{type(error).__name__}; the worker's log says more.")
            return "failed"
        finally:
            self._end_trainer()

    def _take(self, name: str, function: Callable[[], Any]) -> Any:
        """A step, which is written down when it has ended by itself; interrupted, it is repeated."""
        return self._step(name, lambda: resumable(function, self._services.settings.root))

    def folder(self, job_id: str) -> Path:
        return folder_of(self._services, job_id)

    def _prepare(self, job: Job) -> dict[str, str]:
        """Sync, write the dataset and the training's spec. Returns task id → content of what will be learned."""
        self._tell(job, "reading Label Studio")
        folder = self.folder(job.id)
        folder.mkdir(parents=True, exist_ok=True)
        self._end_trainer()
        # It imports meanwhile. Should this process die before the step is written down, so does that one, untrained.
        self._trainer = self._start()
        self._read(self._services, job.uid, time.time(), wait=READING)
        project = self._services.store.project(job.uid)
        assert project is not None
        schema = parse_label_config(project.label_config).require()
        teaching = self._services.ledger.teaching(job.uid)
        if not teaching:
            raise TrainingError(NOTHING_YET, "Submit some, then train.")
        self._tell(job, f"preparing {len(teaching)} annotated tasks")
        load = partial(self._services.ledger.examples, job.uid)
        dataset = build(self._services, project, schema, teaching, load, folder)
        self._services.unreadable.failed(job.uid, dataset.unreadable, time.time())
        self._services.unreadable.read(job.uid, dataset.learned)
        sides = {task_id: VALIDATION if judges else TRAINING for task_id, judges in dataset.sides.items()}
        self._services.readings.prepared(job.uid, sides, dataset.not_understood)
        self._spec(project, dataset).save(folder)
        # What is not understood was not seen: as soon as it is, it is news.
        seen = {task_id: each for task_id, each in dataset.learned.items() if task_id not in dataset.not_understood}
        return {str(task_id): content for task_id, content in seen.items()}

    def _spec(self, project: Project, dataset: Dataset) -> Spec:
        settings = self._services.settings
        policy = ThresholdPolicy.of(settings)
        serves = self._services.registry.champion(project.uid)
        champion = self._readable(project.uid)
        served = [] if champion is None else [champion, *self._served_before(champion)]
        return Spec(
            home=str(settings.root),
            label_config=project.label_config,
            networks=[self._network_spec(each, served) for each in dataset.networks],
            parent_version=champion.name if champion is not None else "",
            in_service=None if serves is None else serves.number,
            minutes=settings.train_minutes,
            threads=settings.train_threads or cores(),
            device=settings.device,
            max_regions=most_regions(settings.max_regions, max(each.most for each in dataset.networks)),
            engine=serving_engine(settings.engine, settings.device),
            score_threshold=settings.score_threshold,
            action_seconds=settings.action_seconds.model_dump(),
            own_thresholds=policy.learns and settings.holdout > 0,  # else nothing would ever be suggested
            is_least=policy.floor is not None,
        )

    def _readable(self, uid: str) -> Version | None:
        """The version in service; where its weights are spoiled or gone, the last one before it whose are not."""
        registry = self._services.registry
        champion = registry.champion(uid)
        for number in () if champion is None else (champion.number, *registry.served_before(uid)):
            try:
                version = registry.version(uid, number)
                for part in parts_of(version):
                    registry.fetch(version, part.file)
            except RegistryError as error:
                log.warning("Project %s: the training starts from an earlier version: %s", uid, error)
            else:
                return version
        return None

    def _served_before(self, champion: Version) -> list[Version]:
        """The versions that served before this one and are still there, the last one first.

        Those that came later were taken back: a person preferred this one.
        """
        found = []
        for number in self._services.registry.served_before(champion.model):
            if number < champion.number:
                with suppress(RegistryError):  # deleted
                    found.append(self._services.registry.version(champion.model, number))
        return found

    def _best(self, key: str, served: Sequence[Version]) -> list[Opponent]:
        """The best version so far, where it is another one than the version in service and its weights are there."""
        best = best_so_far(key, served)
        if best is None:
            return []
        part = next(part for part in parts_of(best, self._services.settings.image_size) if part.network.key == key)
        try:
            weights = self._services.registry.fetch(best, part.file)
        except RegistryError as error:
            log.warning("The best version so far, %s, cannot be compared with: %s", best.name, error)
            return []
        return [Opponent(best.name, str(weights), asdict(part.network), part.image_size, bool(part.thresholds))]

    def _network_spec(self, data: NetworkData, served: Sequence[Version]) -> NetworkSpec:
        """What to start from, and what to beat: the same model of the version in service, else the pretrained one.

        Args:
            served: the version in service, then those before it, the last one first.
        """
        champion = served[0] if served else None
        settings, network = self._services.settings, data.network
        parts = () if champion is None else parts_of(champion, settings.image_size)
        known = {part.network.key: part for part in reversed(parts)}  # the newest of a key, which come first
        base = find_base_model(settings, network.task, data.controls[0].model_path)
        spec = NetworkSpec(
            network=asdict(network),
            folder=str(data.folder),
            architecture=yaml_for(settings, network.task),
            initial="",
            train_images=data.train,
            image_size=image_size(data.sizes, settings.image_size),
            note="" if data.controls[0].model_path else without_sibling(settings, network.task),
        )
        part = known.get(network.key) or _drew_boxes(network, parts)
        if champion is not None and part is not None:
            weights = str(self._services.registry.fetch(champion, part.file))
            return replace(
                spec,
                note="",
                initial=weights,
                opponent=weights,
                opponent_network=asdict(part.network),
                opponent_size=part.image_size,
                opponent_thresholds=bool(part.thresholds),
                others=self._best(network.key, served),
            )
        if base.path is not None:
            own = asdict(Network(base.path.name, network.task, (), own=False))
            path, size = str(base.path), settings.image_size
            return replace(spec, initial=path, opponent=path, opponent_network=own, opponent_size=size)
        if champion is not None and parts:
            # Another task's model has seen these images: its first layers are a better start than chance.
            return replace(spec, initial=str(self._services.registry.fetch(champion, parts[0].file)))
        return spec

    def _train(self, job: Job) -> dict[str, Any]:
        jobs = self._services.jobs

        def report(progress: Any) -> None:
            epoch, epochs, text = int(progress["epoch"]), int(progress["epochs"]), said(progress)
            jobs.update(job.id, epoch=epoch, epochs=epochs, message=text)
            log.info("Project %s: %s", job.uid, text)

        self._tell(job, "training")
        started, self._trainer = self._trainer, None
        return run_training(
            self.folder(job.id),
            on_progress=report,
            cancelled=lambda: jobs.cancelled(job.id),
            started=started,
        )

    def _register(self, job: Job, result: dict[str, Any]) -> int:
        """Store the candidate with its lineage; repeated, it finds the version it stored."""
        folder = self.folder(job.id)
        spec = Spec.load(folder)
        parts, files = self._parts(job, spec, result)
        exports = [
            f"{each.network['key']}: {measured['export']}"
            for each, measured in zip(spec.networks, result["networks"], strict=True)
            if measured.get("export")
        ]
        for each in exports:
            log.info("Project %s: %s", job.uid, each)
        schema = parse_label_config(spec.label_config)
        trained = [network_from(each.network) for each in spec.networks]

        def pinned(number: int) -> tuple[Part, ...]:
            try:
                return parts_of(self._services.registry.version(job.uid, number))
            except RegistryError:
                return ()

        metrics: dict[str, float] = {}
        for network, measured in zip(trained, result["networks"], strict=True):
            prefix = "" if len(trained) == 1 else f"{network.key}/"
            metrics |= {f"{prefix}{name}": value for name, value in measured["candidate"].items()}
            metrics |= {f"champion/{prefix}{name}": value for name, value in (measured["champion"] or {}).items()}
        metrics |= {
            **_fitness(zip(trained, result["networks"], strict=True)),
            "seconds": sum(each["seconds"] for each in result["networks"]),
            "epochs": sum(each["epochs"] for each in result["networks"]),
        }
        version = self._services.registry.register(
            job.uid,
            job.id,
            {**files, "manifest.json": folder / "manifest.json"},
            metrics={_metric_name(name): float(value) for name, value in metrics.items()},
            params={
                _metric_name(f"initial/{each.network['key']}"): Path(
                    measured.get("initial", each.initial) or each.architecture
                ).name
                for each, measured in zip(spec.networks, result["networks"], strict=True)
            },
            tags={
                TAG: dump(parts),
                "parent": spec.parent_version,
                "classes": json.dumps(list(dict.fromkeys(name for part in parts for name in part.network.classes))),
                "fingerprint": fingerprint(
                    own_suggestions(schema, parts, pinned),
                    ThresholdPolicy.of(self._services.settings),
                    strategy_of(schema, self._services.settings.sampling),
                ),
                "train_images": str(sum(each.train_images for each in spec.networks)),
                "holdout_images": str(sum(each["holdout"] for each in result["networks"])),
                "trigger": job.reason,
                "exports": "; ".join(exports),
                THRESHOLDS: json.dumps(_thresholds(spec, result)),
            },
        )
        return version.number

    def _parts(self, job: Job, spec: Spec, result: dict[str, Any]) -> tuple[list[Part], dict[str, Path]]:
        """The version's models and their files: those just trained, then those that it takes over."""
        parts: list[Part] = []
        files: dict[str, Path] = {}
        for number, (each, measured) in enumerate(zip(spec.networks, result["networks"], strict=True)):
            run, tail = Path(each.folder) / "run", f"-{number}" if number else ""
            # A training that an earlier release began says nothing of an export.
            precision = measured.get("openvino", "")
            part = Part(
                network_from(each.network),
                f"weights{tail}.pt",
                each.image_size,
                openvino=precision,
                thresholds={label: each["least"] for label, each in measured.get("thresholds", {}).items()},
                max_regions=spec.max_regions if spec.max_regions > self._services.settings.max_regions else 0,
            )
            parts.append(part)
            files[part.file] = run / "weights" / "best.pt"
            if precision:
                files |= {name: run / "weights" / f"best{Path(name).suffix}" for name in part.exported}
            files[f"results{tail}.csv"] = run / "results.csv"
            files[f"args{tail}.yaml"] = run / "args.yaml"
        for version, part, local in self._kept(job, spec, [part.network for part in parts]):
            kept = replace(part, file=f"weights-{len(parts)}.pt", since=part.since or version.name)
            parts.append(kept)
            names = (kept.file, *kept.exported) if part.openvino else (kept.file,)
            files |= dict(zip(names, local, strict=True))
        return parts, files

    def _kept(self, job: Job, spec: Spec, trained: Sequence[Network]) -> Iterator[tuple[Version, Part, list[Path]]]:
        """What a version takes over of its parent: the models of the controls that nothing has just been learned for.

        Where a control is back that the parent does not know, the newest version before it that learned from it
        gives its model. Each comes with its version and its files: the weights, then the export if there is one.
        """
        registry = self._services.registry
        schema = parse_label_config(spec.label_config)
        here = {control.name for control in schema.controls}
        networks = list(trained)
        parent = int(spec.parent_version[1:]) if spec.parent_version else None
        for number in () if parent is None else dict.fromkeys((parent, *registry.served_before(job.uid))):
            try:
                version = registry.version(job.uid, number)
                for part in parts_of(version, self._services.settings.image_size):
                    missing = here - {name for network in networks for name in network.controls}
                    wanted = number == parent or not missing.isdisjoint(part.network.controls)
                    if wanted and serves(schema, networks, part.network):
                        names = (part.file, *part.exported) if part.openvino else (part.file,)
                        yield version, part, [registry.fetch(version, name) for name in names]
                        networks.append(part.network)
            except RegistryError as error:
                log.warning("Project %s: nothing more of v%s is taken over: %s", job.uid, number, error)

    def _judge(self, job: Job, number: int, result: dict[str, Any]) -> str:
        registry = self._services.registry
        version = registry.version(job.uid, number)
        spec = Spec.load(self.folder(job.id))
        judged = {
            each.network["key"]: judge(
                measured, each, version.name, spec.parent_version, self._services.settings.max_class_drop
            )
            for each, measured in zip(spec.networks, result["networks"], strict=True)
        }
        decision = decide_together(
            {
                key: (each, replaces(measured))
                for (key, (each, _)), measured in zip(judged.items(), result["networks"], strict=True)
            }
        )
        registry.note(job.uid, number, GATE, record(decision, judged))
        promoted, told = carry_out(self._services, job, number, decision, spec.compared)
        notes = [each["note"] for each in result["networks"] if each.get("note")]
        known = self._services.readings.annotations(job.uid)
        if known.left_out:
            notes.append(
                f"{known.left_out} of {known.total} annotations are not understood: {reasons(known.not_understood)}."
            )
        return " ".join([f"{version.name} {'promoted' if promoted else KEPT}: {told}", *dict.fromkeys(notes)])

    def _finish(self, job: Job, learned: dict[str, str], number: int, message: str) -> None:
        self._services.ledger.mark_seen(job.uid, {int(task_id): content for task_id, content in learned.items()})
        self._end(job, "done", message, f"v{number}")

    def _end_trainer(self) -> None:
        """End a process that was started for a training which then did not begin."""
        if self._trainer is not None:
            end_group(self._trainer)
            self._trainer = None

    def _end(self, job: Job, status: str, message: str, version: str = "") -> None:
        self._end_trainer()
        end(self._services, job, status, message, version)

    def _tell(self, job: Job, message: str) -> None:
        if self._services.jobs.cancelled(job.id):
            raise TrainingCancelled("The training was cancelled.")
        self._services.jobs.update(job.id, message=message)


def _drew_boxes(network: Network, parts: Sequence[Part]) -> Part | None:
    """What a model of boxes replaces where they were upright before and are turned now, or the other way round."""
    if network.task not in BOX_TASKS:
        return None
    drew = (each for each in parts if each.network.own and each.network.task in BOX_TASKS)
    return next((each for each in drew if not set(network.controls).isdisjoint(each.network.controls)), None)


def _fitness(measured: Iterable[tuple[Network, Mapping[str, Any]]]) -> dict[str, float]:
    """The mean score of a version's models as `fitness`; where they have several metrics, of each metric alone."""
    scores: dict[str, list[float]] = {}
    for network, each in measured:
        metric = metric_of(network.task)
        # The score that the decision rests on, so that people never read two of one version.
        score = each["scored"]["score"] if "scored" in each else each["candidate"][metric]
        scores.setdefault(metric, []).append(score)
    return {
        "fitness" if len(scores) == 1 else f"fitness/{metric}": sum(each) / len(each) for metric, each in scores.items()
    }


def _thresholds(spec: Spec, result: dict[str, Any]) -> dict[str, Any]:
    """Label → from which score on it is suggested and why; with the model's name where there are several."""
    several = len(spec.networks) > 1
    return {
        f"{label} ({each.network['key']})" if several else label: threshold
        for each, measured in zip(spec.networks, result["networks"], strict=True)
        for label, threshold in measured.get("thresholds", {}).items()
    }


def _metric_name(name: str) -> str:
    """MLflow allows letters, digits and a few signs, and takes the name for a path that must be in its shortest form; a
    label may be anything."""
    kept = "".join(char if char.isalnum() or char in "_-. /" else "_" for char in name)[:200]
    return "/".join("_" * max(len(part), 1) if part in ("", ".", "..") else part for part in kept.split("/"))
