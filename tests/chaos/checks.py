"""What must hold once a fault has passed. Each check returns what is wrong, in words; nothing when all is well."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from chaos.prober import Answer
from chaos.world import World
from filelock import FileLock, Timeout
from support.tiny import SIZE

from backend.served_models.loading import load_part, on_torch
from backend.served_models.parts import parts_of
from backend.settings import Settings
from model_registry import RegistryError


def versions_load(world: World, known: set[int]) -> Iterator[str]:
    """Every version that was promoted is what was registered, and runs; those in `known` were looked at before."""
    settings = Settings(home=world.home, device="cpu", image_size=SIZE)
    image = np.full((SIZE, SIZE, 3), 127, np.uint8)
    for version in world.registry.versions(world.uid):
        if version.decision != "promoted" or version.number in known:
            continue
        try:
            for name in version.hashes:
                world.registry.verify(version, name)
            for part in parts_of(version, SIZE):
                for detector in (
                    load_part(settings, world.registry, version, part),
                    on_torch(settings, world.registry.fetch(version, part.file), part),
                ):
                    detector.detect([image], 0.1)
        except RegistryError as error:
            yield str(error)
        except Exception as error:
            yield f"{version.name} does not load: {type(error).__name__}: {error}"
        else:
            known.add(version.number)


def answers_good(answers: Sequence[Answer], floor: int) -> Iterator[str]:
    """Every answer came from a trained version, none from an older one than before; silence is measured elsewhere."""
    wrong = Counter(each.wrong for each in answers if each.wrong and not each.silent)
    for what, count in wrong.items():
        yield f"{count} answers: {what}"
    for each in answers:
        if each.wrong:
            continue
        if each.number < floor:
            yield f"v{each.number} answered after v{floor}"
            return
        floor = each.number


def no_twins(world: World) -> Iterator[str]:
    """Label Studio holds no two predictions of one version for one task."""
    for task in world.tasks():
        for version, count in Counter(each["model_version"] for each in task["predictions"]).items():
            if count > 1:
                yield f"task {task['id']} has {count} predictions of {version}"


def processes_in_order(world: World) -> Iterator[str]:
    """One supervisor, one server (an arbiter and its worker), one worker, at most one refresh; no zombie."""
    yield from (f"a zombie: {each}" for each in world.yoloop.zombies())
    for words, most in {
        ("backend.cli.main", "serve"): 2,
        ("backend.cli.main", "worker"): 1,
        ("backend.cli.main", "up"): 1,
    }.items():
        count = len(world.yoloop.named(*words))
        if count != most:
            yield f"{count} processes of `yoloop {words[1]}` instead of {most}"
    trainers = world.yoloop.named("backend.fit.training.train")
    if len(trainers) > 1:  # one may wait for what the last events might bring
        yield f"{len(trainers)} trainings run although no job does"


def nothing_left(world: World) -> Iterator[str]:
    """No job that never ends, no folder of one that has ended."""
    for job in world.jobs().unfinished():
        yield f"job {job.id} is still {job.status}: {job.message}"
    unfinished = {job.id for job in world.jobs().unfinished()}
    jobs = world.home / "jobs"
    for folder in jobs.iterdir() if jobs.exists() else ():
        if folder.name not in unfinished:
            yield f"the folder of job {folder.name} is left"


def stops_clean(world: World) -> Iterator[str]:
    """Stopped, nothing of it runs and no lock is held; started, it serves at once."""
    world.yoloop.stop()
    yield from (f"still runs after the stop: {' '.join(each.cmdline()[-3:])}" for each in world.yoloop.all())
    for path in sorted(world.home.rglob("*.lock")):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            yield f"{path.relative_to(world.home)} is still held"
    world.yoloop.start()
    world.wait_until_serving()


def tracebacks(text: str) -> Counter[str]:
    """The last lines of the tracebacks in a log, and how often each is there."""
    found: Counter[str] = Counter()
    for part in text.split("Traceback (most recent call last):")[1:]:
        for line in part.splitlines()[1:]:
            if line and not line.startswith((" ", "\t")) and re.match(r"[\w.]+(Error|Exception|Full|Timeout)?\b", line):
                found[line[:160]] += 1
                break
    with contextlib.suppress(KeyError):
        del found[""]
    return found
