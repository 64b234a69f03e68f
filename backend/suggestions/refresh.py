"""Suggests for every unlabelled task of a project, in bulk and behind everybody else's requests.

`python -m backend.suggestions.refresh UID` is the process that the worker starts after a promotion. Label Studio's
stored predictions are the truth of what is done, so a run that was killed is simply begun again.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from filelock import FileLock

from backend.errors import LabelStudioError, NotFound, YoloopError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.records import OpenTask, PredictionRecord
from backend.model import YoloBackend
from backend.processes.child import SUPERVISED, stand_back
from backend.served_models.version_string import made_here
from backend.server.process import Serving, make_serving
from backend.settings import Settings
from backend.store.database import Project
from backend.store.refreshes import Refreshes
from backend.suggestions.backend_title import follow
from backend.suggestions.refresh_due import key_of
from backend.suggestions.refresh_plan import lacking, outdated

log = logging.getLogger("backend.refresh")  # it runs as __main__

CHUNK = 16
SMALL_CHUNK = 4
"""Tasks between two looks at whether somebody waits, and while somebody does."""

QUIET = 2.0
PATIENCE = 30.0
"""Seconds without a request before background work goes on, and most seconds that it waits in a row."""

FIRST = 64
"""Most useful tasks that carry the new version before Label Studio is told to order by it."""

Told = Callable[[int, int, int], None]
"""Called with the numbers of tasks that are done, failed, and to do in total."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What came of a run: the version, tasks that it suggested for, those that failed, outdated suggestions removed."""

    version: str
    done: int
    failed: int
    removed: int


@dataclass(slots=True)
class _Count:
    """A run's numbers: `before` tasks carried the version already. `key` is None for a run over some tasks only."""

    version: str
    key: str | None
    before: int
    total: int
    told: Told
    done: int = 0
    failed: int = 0
    followed: bool = False


class OtherVersion(YoloopError):
    """Another version went into service meanwhile: what is left is another run's work."""


class Refresher:
    """One project's run.

    Args:
        serving: with the project's version in memory, or about to be.
        uid: the project.
    """

    def __init__(self, serving: Serving, uid: str) -> None:
        project = serving.services.store.project(uid)
        if project is None:
            raise NotFound("No such project is known.", "Connect it first: yoloop connect --project N")
        self._serving = serving
        self._project: Project = project
        self._client: LabelStudioClient = serving.services.client(project)
        self._backend = YoloBackend(serving.services, serving.engine, uid, project.label_config)
        self._refreshes = Refreshes(serving.services.store)
        self._trained = serving.services.trained(uid)

    def run(
        self,
        told: Told = lambda done, failed, total: None,
        view: int | None = None,
        only: Collection[int] | None = None,
    ) -> Refreshed:
        """Suggest for every unlabelled task that lacks the version in service, then remove what is outdated.

        Args:
            view: number of a Data Manager tab; only tasks that it shows.
            only: ids of tasks; None: all.

        Raises LabelStudioError when Label Studio cannot be read or written, OtherVersion after a promotion meanwhile.
        """
        settings, uid = self._serving.settings, self._project.uid
        whole = view is None and only is None
        with FileLock(settings.root / f"refresh-{uid}.lock"):
            champion = self._serving.services.registry.champion_number(uid)
            key = key_of(self._project, champion, settings)
            version, ready = self._version(champion)
            began = time.time()
            tasks = self._open(view)
            todo = [task for task in lacking(tasks, version, _kept) if ready and (only is None or task.id in only)]
            count = _Count(version, key if whole else None, len(tasks) - len(todo), len(todo), told)
            if whole:
                known = self._serving.services.ledger.task_count(uid)
                self._refreshes.save(
                    uid, key, version=version, tasks=known, total=len(tasks), done=count.before, failed=0,
                    started_at=began, finished_at=None, message="",
                )  # fmt: skip
            told(0, 0, count.total)
            asked = self._suggest(todo, count, since=began)
            if asked:  # Label Studio has stored them meanwhile, unless its request failed
                forgotten = [task for task in lacking(self._open(view), version, _kept) if task.id in asked]
                self._counted(count, done=len(asked) - len(forgotten))
                self._suggest(forgotten, count, since=math.inf)
            removed, left = self._clean(version, view)
            if whole:
                self._follow(version)
                self._refreshes.save(uid, key, outdated=left, finished_at=time.time())
        return Refreshed(version, count.done, count.failed, removed)

    def _version(self, champion: int | None) -> tuple[str, bool]:
        """The champion's version string as it is served, as soon as its models are in memory.

        Before any training, and after a rollback to that time, there may be no model that suggests: False then.
        """
        deadline = time.monotonic() + self._serving.settings.predict_budget
        while True:
            served = self._serving.engine.models.ready(self._project.uid, self._backend.schema, deadline)
            ready = served.ready and served.settled
            if served.name == f"v{champion or 0}" and (ready or (champion is None and served.settled)):
                return self._backend.model_version, ready
            if time.monotonic() > deadline:
                raise YoloopError(served.why or "No model knows the labels.", "`yoloop doctor` says more.")
            time.sleep(0.2)

    def _open(self, view: int | None) -> list[OpenTask]:
        return [self._light(task) for page in self._client.open_tasks(self._project.id, view) for task in page]

    def _ours(self, prediction: PredictionRecord) -> bool:
        return made_here(prediction.version, prediction.result, self._trained)

    def _light(self, task: OpenTask) -> OpenTask:
        """The task with our own predictions alone, and without their regions, which would fill the memory."""
        own = filter(self._ours, task.predictions)
        return replace(task, predictions=tuple(replace(each, result=[]) for each in own))

    def _suggest(self, todo: Sequence[OpenTask], count: _Count, since: float) -> set[int]:
        """Predict and store. Returns the tasks left to Label Studio, as it asked for them itself since then."""
        asked: set[int] = set()
        place = 0
        while place < len(todo):
            busy = self._stand_aside()
            chunk = todo[place : place + (SMALL_CHUNK if busy else CHUNK)]
            place += len(chunk)
            made = self._predicted(chunk, count.version)
            # What Label Studio asks for it stores itself: a second prediction would be a twin.
            live = self._serving.activity.asked(self._project.uid, since).intersection(task.id for task in chunk)
            asked |= live
            taken = self._stored([each for each in made if each["task"] not in live])
            self._counted(count, done=taken, failed=len(chunk) - len(live) - taken)
            if count.key is not None and not count.followed and place >= FIRST:
                count.followed = True
                # The others must not wait for it; what is wrong there is said at the end.
                with contextlib.suppress(LabelStudioError):
                    self._follow(count.version)
        return asked

    def _counted(self, count: _Count, done: int, failed: int = 0) -> None:
        count.done += done
        count.failed += failed
        count.told(count.done, count.failed, count.total)
        if count.key is not None:
            self._refreshes.save(self._project.uid, count.key, done=count.before + count.done, failed=count.failed)

    def _stand_aside(self) -> bool:
        """Wait while somebody waits for suggestions; whether that was so."""
        began = time.monotonic()
        while self._serving.activity.idle(time.time()) < QUIET and time.monotonic() - began < PATIENCE:
            time.sleep(0.2)
        return time.monotonic() - began >= 0.2

    def _predicted(self, tasks: Sequence[OpenTask], version: str) -> list[dict[str, Any]]:
        """Predictions as Label Studio imports them, of the tasks whose images could be read."""
        entries = self._backend.predict([{"id": task.id, "data": task.data} for task in tasks])
        if any(entry["model_version"] != version for entry in entries):
            raise OtherVersion("Another version went into service.", "Run it again to suggest with that one.")
        made = []
        for task, entry in zip(tasks, entries, strict=True):
            if "result" in entry:
                made.append({"task": task.id, **entry})
            else:
                log.warning("Project %s: no suggestions for task %s: %s", self._project.uid, task.id, entry["error"])
        return made

    def _stored(self, predictions: Sequence[dict[str, Any]]) -> int:
        """How many of the predictions Label Studio took; what one of them spoils for all is sent one by one."""
        if not predictions:
            return 0
        try:
            taken = self._client.import_predictions(self._project.id, predictions)
        except LabelStudioError as error:
            if error.code != 400:
                raise
            if len(predictions) == 1:  # most often its task was deleted meanwhile
                log.warning("Project %s: %s", self._project.uid, error)
                return 0
            return sum(self._stored([each]) for each in predictions)
        if taken < len(predictions):
            log.warning(
                "Project %s: Label Studio took %d of %d predictions", self._project.uid, taken, len(predictions)
            )
        return taken

    def _clean(self, version: str, view: int | None) -> tuple[int, int]:
        """Remove outdated predictions; how many went, and how many are still too young to go."""
        settings = self._serving.settings
        removed = left = 0
        before = time.time() - 60 * settings.keep_minutes
        for page in self._client.open_tasks(self._project.id, view):
            for task in page:
                for prediction, replaced_at in outdated(task, version, settings.keep_versions, self._ours):
                    if replaced_at.timestamp() > before:
                        left += 1
                        continue
                    self._stand_aside()
                    self._client.delete_prediction(prediction)
                    removed += 1
        return removed, left

    def _follow(self, version: str) -> None:
        if self._project.active_learning:
            follow(self._client, self._project.id, version)


def _kept(_prediction: PredictionRecord) -> bool:
    """Of a light task all predictions are ours."""
    return True


def main() -> None:
    from backend.observability.logs import configure

    uid, parent = sys.argv[1], int(sys.argv[2])
    settings = Settings()
    configure(settings.log_level, "refresh", settings.log_format)
    stand_back(parent, own_session=SUPERVISED not in os.environ)
    serving = make_serving(settings, only=uid)
    code = 0
    try:
        found = Refresher(serving, uid).run()
        log.info(
            "Project %s: %d tasks have suggestions of %s now, %d failed, %d outdated ones removed",
            uid, found.done, found.version, found.failed, found.removed,
        )  # fmt: skip
    except OtherVersion:
        log.info("Project %s: another version serves; its suggestions come next", uid)
    except YoloopError as error:
        log.warning("Project %s: suggestions could not be refreshed: %s", uid, error)
        Refreshes(serving.services.store).note(uid, str(error))
        code = 1
    serving.services.close()
    logging.shutdown()
    os._exit(code)  # threads that load or look for versions would hold the process


if __name__ == "__main__":
    main()
