"""What yoloop keeps: the databases, the registry and its files, the queue, syncs and trainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import requests

from backend.engine.environment import prepare
from backend.engine.weights import task_or_trouble
from backend.fit.queue import WAITS
from backend.fit.triggers import Rules, should_train
from backend.health.check import Check, ill, left_out, well
from backend.labels.networks import SERVES, Task, first_drawn, task_of
from backend.labels.schema import Control, LabelSchema
from backend.network.proxies import proxies_of, proxy_hint
from backend.processes.room import missing_space
from backend.served_models.base_model import FINDS, find_base_model, starts_pretrained
from backend.settings import Settings
from backend.store.database import Project
from backend.store.hints import Hint
from backend.store.jobs import Job
from backend.store.progress import Progress
from backend.store.readings import Annotations
from backend.store.refreshes import Refresh
from backend.store.sqlite_file import Locked, NoDatabase, NotWritable, check_writable, damage
from model_registry import Registry, RegistryError, Version

WAIT = 3.0
"""Seconds that a database may be held by another process' transaction."""

LATE = 120.0
"""Seconds more than usual that something may wait for the worker."""

START = "Start it with `yoloop up`."


def database(name: str, path: Path, wait: float = WAIT) -> Check:
    """Whether a SQLite file is whole and can be written now; one that is not there yet is well."""
    if not path.exists():
        return well(name, f"{path.name} is made when it is needed.")
    holder = f"End the program that holds it: `fuser $YOLOOP_HOME/{path.name}` names it."
    try:
        check_writable(path, wait)
        said = damage(path, wait)
    except Locked:
        return ill(name, f"{path.name} has been locked for {wait:g} s.", holder)
    except NotWritable as error:
        return ill(name, f"{path.name} cannot be written: {error}.", "Let yoloop's user own YOLOOP_HOME and its files.")
    except NoDatabase as error:
        said = str(error)
    if not said:
        return well(name, f"{path.name} is whole and can be written, {path.stat().st_size / 2**20:.1f} MiB.")
    return ill(
        name,
        f"{path.name} is damaged: {said}.",
        f"Stop yoloop and put a backup of {path.name} back"
        + (", or move it away and connect the projects again." if path.name == "yoloop.db" else ", or move it away."),
    )


def tracking_server(name: str, uri: str, timeout: float = 5.0) -> Check:
    """Whether MLflow's server answers; its own client would ask for minutes."""
    mend = f"Start it, or correct MLFLOW_TRACKING_URI. {proxy_hint(uri)}".strip()
    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=timeout, proxies=proxies_of(uri))
    except requests.RequestException as error:
        return ill(name, f"MLflow at {uri} does not answer ({type(error).__name__}).", mend)
    if answer.status_code in (401, 403):
        return ill(
            name, f"MLflow at {uri} lets nobody in.", "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
    if not answer.ok:
        return ill(name, f"MLflow at {uri} answers HTTP {answer.status_code}.", mend)
    return well(name, f"MLflow answers at {uri}.")


def weights(name: str, settings: Settings, schema: LabelSchema) -> Check:
    """Before any training: whether the pretrained models that the config asks for are on the disk, and can be used."""
    controls = [control for control in first_drawn(schema) if control.pinned is None]
    bases = [find_base_model(settings, task_of(control), control.model_path) for control in controls]
    missing = next((base for base in bases if base.path is None), None)
    if missing is None:
        return _suggesting(name, settings, controls, [base.path for base in bases if base.path is not None])
    message, _, hint = missing.why.partition(". ")
    mend = hint or "Set YOLOOP_BASE_MODEL to a file in YOLOOP_MODELS."
    if settings.offline:
        mend += " Or unset YOLOOP_OFFLINE and restart yoloop, which then downloads it."
    return ill(name, f"{message.removesuffix('.')}.", mend)


def _suggesting(name: str, settings: Settings, controls: Sequence[Control], files: Sequence[Path]) -> Check:
    """What the file for each control suggests, which only opening it tells."""
    prepare(settings.root)
    tasks = {path: task_or_trouble(path) for path in dict.fromkeys(files)}
    for path, (_, why) in tasks.items():
        if why:
            mend = f"Put a model that ultralytics published into YOLOOP_MODELS as {path.name}, or name another one."
            return ill(name, f"{why} Trainings begin with random weights.", mend)
    helps, other = [], []
    for control, path in zip(controls, files, strict=True):
        task = cast(Task, tasks[path][0])
        if task in SERVES[control.kind]:
            helps.append(path.name)
        else:
            other.append(
                f"{path.name} finds {FINDS[task]}, so {control.name} gets suggestions after the first training"
            )
    there = ", ".join(dict.fromkeys(helps)) or ("nothing" if files else "another version")
    return well(name, ". ".join([f"Nothing is trained yet; {there} suggests until then", *dict.fromkeys(other)]) + ".")


def files(name: str, registry: Registry, version: Version) -> Check:
    """Whether all files of the version in service are what was registered."""
    number = version.model.partition(".")[0]
    try:
        for file in version.hashes:
            registry.verify(version, file)
    except RegistryError as error:
        return ill(
            name,
            str(error),
            f"Put the file back from a backup, or serve the version before: `yoloop rollback --project {number}`.",
        )
    return well(name, f"{version.name} serves, its {len(version.hashes)} files are whole. {version.reason}".strip())


def queue(
    hints: Sequence[Hint], jobs: Sequence[Job], settings: Settings, now: float, works: bool, *, failing: bool
) -> Check:
    """Whether events and trainings that wait have waited too long.

    Args:
        works: a worker runs.
        failing: a project cannot be read, whose hints then wait for the next try.
    """
    late = LATE + settings.debounce_max
    oldest = min((hint.first_at for hint in hints), default=now)
    waiting = [job for job in jobs if job.status == "queued"]
    running = [job for job in jobs if job.status == "running"]
    mend = "Restart `yoloop up`; its log may say why it hangs." if works else START
    if now - oldest > late and not (failing and works):
        events = sum(hint.events for hint in hints)
        return ill("queue", f"{events} events wait, the first for {_long(now - oldest)}.", mend)
    if not works and (running or any(job.started_at is not None for job in waiting)):
        return ill("queue", "A training has begun, but nobody works on it.", START)
    waiting = [job for job in waiting if not job.message.startswith(WAITS)]  # of the disk, another check tells
    if waiting and not running and now - min(job.created_at for job in waiting) > LATE:
        first = min(job.created_at for job in waiting)
        return ill("queue", f"{len(waiting)} trainings wait, the first for {_long(now - first)}.", mend)
    if not hints and not jobs:
        return well("queue", "Nothing waits.")
    return well("queue", f"{len(hints)} projects with events, {len(waiting)} trainings wait, {len(running)} run.")


def synced(name: str, project: Project, settings: Settings, now: float, works: bool, connect: str) -> Check:
    """Whether Label Studio has been read lately."""
    if project.sync_error:
        return ill(
            name, f"The last one failed: {project.sync_error}", f"When that is mended, `{connect}` reads at once."
        )
    if project.synced_at is None:
        return ill(name, "Label Studio was never read.", START if not works else "Wait a minute, and look again.")
    ago = now - project.synced_at
    if ago > 3 * settings.sync_interval + LATE:
        mend = "Restart `yoloop up`; its log may say why it hangs." if works else START
        return ill(name, f"Label Studio was last read {_long(ago)} ago.", mend)
    return well(name, f"Label Studio was read {_long(ago)} ago.")


def learned_from(name: str, known: Annotations, number: int) -> Check:
    """Whether all annotations say something under the labelling config."""
    if not known.left_out and not known.in_part:
        return well(name, f"{known}.")
    return ill(
        name,
        f"{known}.",
        f"Correct the config, or what `yoloop annotations {number} --not-understood` lists in Label Studio.",
    )


def training(
    name: str,
    last: Job | None,
    progress: Progress,
    settings: Settings,
    now: float,
    number: int,
    label_config: str = "",
) -> Check:
    """What came of the last training, and what the next one waits for."""
    rules = Rules.of(settings, pretrained=starts_pretrained(settings, label_config))
    trigger = should_train(progress, rules, now)
    waits = f"The next one {'is due' if trigger.train else 'waits'}: {trigger.reason}."
    if last is None:
        return well(name, f"There was none. {waits}")
    if last.finished_at is None:
        lack = missing_space(settings.root, settings.min_free_gb)
        if last.status == "queued" and lack:
            return ill(name, f"One waits for room, as {lack}.", "Free some; it then goes on by itself.")
        if last.status == "queued" and last.started_at is not None:
            # The worker takes it up within seconds.
            return left_out(name, f"as one is {last.message}")
        return well(name, f"One is {last.status}: {last.message}.")
    if last.status == "failed":
        mend = f"When that is mended, `yoloop train --project {number}`."
        return ill(name, f"The last one failed {_long(now - last.finished_at)} ago: {last.message} {waits}", mend)
    return well(name, f"The last one, {_long(now - last.finished_at)} ago: {last.message} {waits}")


def refreshed(name: str, refresh: Refresh | None, number: int) -> Check:
    """Whether unlabelled tasks carry suggestions of the version in service."""
    if refresh is None:
        return left_out(name, "there is no trained version yet")
    mend = f"`yoloop predict --project {number}` tries them again and says why they fail."
    if (refresh.message and refresh.finished_at is None) or refresh.failed:
        return ill(name, f"{str(refresh).removesuffix('.')}.", mend)
    return well(name, f"{refresh}.")


def _long(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
