"""Brings the ledger in step with Label Studio, reading only what changed since the last time.

What became of suggestions is written down on the way: an annotation judges the one it was made from, then teaches.

A task's time says when it was changed, not when that could first be seen, and whose clock it was is not known. So the
times of all tasks are compared with those in the ledger now and then, and what differs is read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from backend.errors import LabelConfigError, LabelStudioError
from backend.feedback.record import record
from backend.labels.schema import parse_label_config
from backend.labelstudio.client import MOST_NAMED, LabelStudioClient
from backend.labelstudio.records import TaskRecord
from backend.services import Services
from backend.store.database import Project
from backend.store.leases import Lease, leased
from backend.store.listings import Listings

log = logging.getLogger(__name__)

OVERLAP = 10.0
"""Seconds read again each time: a task saved by a slow transaction, or by a slower clock, appears behind the cursor."""

SET_BACK = 60.0
"""Seconds by which Label Studio's clock goes behind the cursor before it is taken for set back: its servers may differ
by less."""

EVERY = 3600.0
"""Seconds after which the times of all tasks are compared again."""

LISTING = 20.0
"""Seconds that comparing them may take in one look; the next one goes on."""

WAIT = 60.0
"""Seconds to wait while somebody else reads the same project."""


@dataclass(frozen=True, slots=True)
class Synced:
    """Tasks that were read because they changed, and tasks that are gone. `complete` is False while the times of all
    tasks are still being compared."""

    changed: int
    gone: int
    complete: bool = True


def sync(
    services: Services,
    uid: str,
    now: float,
    *,
    deletions: bool = False,
    whole: bool = True,
    compare: bool = False,
    wait: float = WAIT,
) -> Synced:
    """Read a project's changes into the ledger. Safe to repeat and to interrupt at any point.

    Args:
        now: epoch seconds, remembered as the time of the sync.
        deletions: look for deleted tasks even when the number of tasks does not tell of any.
        whole: read the project, too: its config and title, its number of tasks, and whether it still is the one that
            is known. Otherwise only the tasks that changed are asked for, in one request.
        compare: compare the times of all tasks with the ledger, even if that was done lately.
        wait: seconds to wait while somebody else reads the same project.

    Raises LabelStudioError; then what was read so far is kept, and the next sync goes on from there, comparing all
    times. Raises Busy when somebody else is still reading the project.
    """
    _known(services, uid)
    listings = Listings(services.store)
    if deletions or compare:
        listings.want(uid)  # also when it turns out that somebody else reads just now
    with leased(services.store, f"sync {uid}", wait, "The project is being read from Label Studio.") as lease:
        try:
            client, project, there = _reached(services, uid) if whole or deletions else (*_known(services, uid), None)
            synced = _Reader(services, client, project, lease, now).run(there)
        except LabelStudioError:
            listings.want(uid)
            raise
    if chosen := services.ledger.select(uid):
        log.info("Project %s: of %d tasks with several annotations it was chosen again what is learned", uid, chosen)
    if renewed := services.readings.renew(uid):
        log.info("Project %s: %d annotations were read with the labelling config as it is now", uid, renewed)
    services.store.save_project(uid, synced_at=now, sync_error="")
    log.debug("Project %s: %d tasks changed, %d gone", uid, synced.changed, synced.gone)
    return synced


class _Reader:
    """One sync, by the holder of the project's lease."""

    def __init__(
        self, services: Services, client: LabelStudioClient, project: Project, lease: Lease, now: float
    ) -> None:
        self._ledger, self._store = services.ledger, services.store
        self._listings = Listings(services.store)
        self._client, self._project, self._lease, self._now = client, project, lease, now
        self._controls = _controls(project)
        self._trained = services.trained(project.uid)
        self._changed = self._gone = 0

    def run(self, there: int | None) -> Synced:
        """`there`: the project's number of tasks in Label Studio; None: only what changed is asked for."""
        self._read_changes()
        complete = there is None or self._compare(there)
        return Synced(self._changed, self._gone, complete)

    def _read_changes(self) -> None:
        cursor = self._project.cursor
        since = None if cursor is None else datetime.fromtimestamp(cursor - OVERLAP, UTC)
        for tasks in self._client.changed_tasks(self._project.id, since):
            if tasks:
                self._take(tasks, self._not_ahead(max(task.updated_at for task in tasks)))
        clock = self._client.clock
        if clock is not None and cursor is not None and cursor > clock.timestamp() + SET_BACK:
            log.warning("Project %s: Label Studio's clock was set back; all tasks are compared", self._project.uid)
            self._listings.want(self._project.uid)
            self._ledger.update(self._project.uid, (), clock.timestamp(), self._lease)

    def _not_ahead(self, time: datetime) -> float:
        """The time as a cursor: what is changed from now on is behind none that is ahead of Label Studio's clock."""
        clock = self._client.clock
        return (time if clock is None else min(time, clock + timedelta(seconds=1))).timestamp()

    def _take(self, tasks: Sequence[TaskRecord], cursor: float | None = None) -> None:
        """Into the ledger, once it is written down what the tasks say of suggestions."""
        record(self._store, self._project.uid, tasks, self._controls, self._lease, self._trained)
        self._ledger.update(self._project.uid, tasks, cursor, self._lease)
        self._changed += len(tasks)

    def _compare(self, there: int) -> bool:
        """Compare the times of all tasks, if it is time to. False: that goes on in the next look."""
        uid, number = self._project.uid, self._project.id
        listing = self._listings.get(uid)
        there, counted = self._counted(there)
        after = listing.after
        if after is None:
            late = listing.finished_at is None or not self._now - EVERY < listing.finished_at <= self._now
            if not (listing.wanted or late or counted not in ("", listing.counted)):
                return True
            self._listings.begin(uid, self._lease)
            after = 0
        until = time.monotonic() + LISTING
        more = True
        while more:
            page, more = self._client.task_times(number, after)
            times = {task_id: at.timestamp() for task_id, at in page.items()}
            last = max(times, default=after)
            up_to = last if more else None
            self._gone += self._ledger.keep_only(uid, times.keys(), after, up_to, self._lease)
            known = self._ledger.times(uid, after, up_to)
            differ = sorted(task_id for task_id, at in times.items() if known.get(task_id) != at)
            for start in range(0, len(differ), MOST_NAMED):
                some = differ[start : start + MOST_NAMED]
                self._take(self._client.tasks(number, some))
                self._listings.reached(uid, some[-1], self._lease)
                if time.monotonic() > until:
                    return False
            after = last
            if more:
                self._listings.reached(uid, after, self._lease)
                if time.monotonic() > until:
                    return False
        self._listings.finished(uid, self._now, self._counted(there)[1], self._lease)
        return True

    def _counted(self, there: int) -> tuple[int, str]:
        """The number of tasks in Label Studio, and both numbers as text where that is another one than here."""
        known = self._ledger.task_count(self._project.uid)
        if known != there:  # asked once more, as tasks may have come in between
            there = self._client.count_tasks(self._project.id)
        return there, "" if known == there else f"{known} here, {there} there"


def reach(services: Services, uid: str) -> tuple[LabelStudioClient, Project]:
    """The way to a project's Label Studio, and the project with its config and title as they are there now.

    Raises LabelStudioError, also when the project of that number is another one by now.
    """
    client, project, _ = _reached(services, uid)
    return client, project


def _known(services: Services, uid: str) -> tuple[LabelStudioClient, Project]:
    """The way to a project's Label Studio, and the project as it was there when it was read last."""
    project = services.store.project(uid)
    if project is None:
        raise LabelStudioError("The project is not known.", "Run `yoloop connect --project N`.")
    return services.client(project), project


def _reached(services: Services, uid: str) -> tuple[LabelStudioClient, Project, int]:
    """As `reach`, with the number of tasks that the project has there."""
    client, project = _known(services, uid)
    info = client.project(project.id)
    if info.uid != uid:
        raise LabelStudioError(
            f"Label Studio's project {project.id} was made at another time than the one that yoloop learned from.",
            "Run `yoloop connect --project N` for the new one.",
            code=404,
        )
    if (info.label_config, info.title) != (project.label_config, project.title):
        services.store.save_project(uid, label_config=info.label_config, title=info.title)
    return client, replace(project, label_config=info.label_config, title=info.title), info.tasks


def _controls(project: Project) -> frozenset[str] | None:
    """Names of the tags that yoloop suggests with; None when the config cannot be read."""
    try:
        controls = parse_label_config(project.label_config).controls
    except LabelConfigError:
        return None
    return frozenset(each.from_name for one in controls for each in (one, one.box) if each is not None)
