"""What other settings would have made of a project: its own annotations, replayed under each of them.

Every run begins in an empty home, hands in the annotations in its order and trains after so many. Each version that
serves is measured on all held-out images of the project, which no run learns from.
"""

from __future__ import annotations

import math
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backend.errors import YoloopError
from backend.labels.schema import parse_label_config
from backend.predict.sampling import STRATEGIES
from backend.services import Services
from backend.settings import Settings, sqlite_url
from backend.simulation.holdout import Exam
from backend.simulation.replay import Replay, ReplaySettings, ReplayTask, Suggestion, next_task, without_sampling
from backend.store.database import Project, Store
from backend.store.ledger import Example
from backend.store.near_duplicates import copy_groups
from backend.store.sides import copy_sides

AS_SUBMITTED, RANDOM = "as submitted", "random"
ORDERS = (AS_SUBMITTED, RANDOM, *STRATEGIES)
"""In which order the tasks are annotated: a strategy's takes the task that its version is least sure of."""

EVERY = (10, 50)
DEFAULT_ORDERS = (AS_SUBMITTED, RANDOM, "least-confidence")
STEP = 0.05
"""Levels that the curves are compared at are multiples of it."""


@dataclass(frozen=True, slots=True)
class Point:
    """After a training: annotations that it could learn from, what served then, and its score in [0, 1]."""

    annotations: int
    score: float
    version: str


@dataclass(frozen=True, slots=True)
class Curve:
    """One run: the order, annotations between two trainings, its points, and the seconds that it took."""

    order: str
    every: int
    points: tuple[Point, ...]
    seconds: float

    def reached(self, level: float) -> int | None:
        """Annotations after which the version in service scored that much; None when none did."""
        return next((point.annotations for point in self.points if point.score >= level), None)


@dataclass(frozen=True, slots=True)
class Simulation:
    """All runs of one project. `metric` names the score: the mean over the networks of what decides for each."""

    project: str
    annotations: int
    held_out: int
    metric: str
    minutes: float
    seed: int
    curves: tuple[Curve, ...]

    def as_json(self) -> dict[str, Any]:
        """The same in what `json.dumps` takes."""
        return asdict(self)


def most_minutes(annotations: int, every: Sequence[int], orders: Sequence[str], minutes: float) -> float:
    """The most that the trainings of a simulation take together, in minutes."""
    return sum(math.ceil(annotations / each) * minutes for each in every) * len(orders)


def simulate(
    services: Services,
    project: Project,
    *,
    minutes: float = 1.0,
    every: Sequence[int] = EVERY,
    orders: Sequence[str] = DEFAULT_ORDERS,
    seed: int = 0,
    told: Callable[[str], None] = lambda text: None,
) -> Simulation:
    """Replay a project's submitted annotations. Nothing in its home changes, except that images are cached there.

    Args:
        services: the real home's; its ledger is only read.
        minutes: of one training, at most.
        every: annotations between two trainings; what is left over at the end is trained on, too.
        orders: some of `ORDERS`.
        seed: of what is left to chance.
        told: called with a line for a person after each training.

    Raises YoloopError when there is nothing to learn from, or nothing to measure on.
    """
    _check(every, orders)
    schema = parse_label_config(project.label_config).require()
    examples = in_order(services.ledger.examples(project.uid), services.ledger.submitted_at(project.uid))
    if not examples:
        raise YoloopError("The project has no submitted annotation.", "Submit some, then simulate.")
    tasks = [ReplayTask(each.task_id, each.data, each.result) for each in examples]
    curves = []
    with tempfile.TemporaryDirectory(prefix="yoloop-simulate-") as folder:
        groups = Store(sqlite_url(Path(folder) / "groups.db"))
        copy_groups(services.store, groups, project.uid)
        copy_sides(services.store, groups, project.uid)
        exam = Exam.of(services, project, schema, examples, groups)
        for number, (order, gap) in enumerate((order, gap) for gap in every for order in orders):
            home = Path(folder) / str(number)
            settings = _settings(services.settings, home, order, minutes)
            with _replay(settings, services, project) as replay:
                copy_groups(groups, replay.services.store, project.uid)
                copy_sides(groups, replay.services.store, project.uid)
                chance = random.Random(seed)  # noqa: S311 - no secret
                curves.append(_run(replay, tasks, order, gap, chance, exam, told))
            shutil.rmtree(home / "registry", ignore_errors=True)  # its weights would fill the disk, run by run
        groups.close()
    return Simulation(project.uid, len(examples), exam.images, exam.metric, minutes, seed, tuple(curves))


def in_order(examples: Sequence[Example], submitted: dict[int, float]) -> list[Example]:
    """The examples as they were submitted; those of one moment, and of an unknown one first, by their task's id."""
    return sorted(examples, key=lambda each: (submitted.get(each.task_id, 0.0), each.task_id))


def _check(every: Sequence[int], orders: Sequence[str]) -> None:
    unknown = [order for order in orders if order not in ORDERS]
    if unknown or not orders:
        raise YoloopError(f"There is no order {', '.join(unknown)!r}.", f"Take some of: {', '.join(ORDERS)}.")
    if not every or min(every) < 1:
        raise YoloopError("There must be at least one annotation between two trainings.")


def _settings(real: Settings, home: Path, order: str, minutes: float) -> ReplaySettings:
    changed: dict[str, Any] = {
        "home": home,
        "models": real.models_dir,
        "offline": True,
        "train_minutes": minutes,
    }
    if order in STRATEGIES:
        changed["sampling"] = order
    return ReplaySettings(**(real.model_dump() | changed))


def _replay(settings: ReplaySettings, services: Services, project: Project) -> Replay:
    return Replay(
        settings,
        without_sampling(project.label_config),
        uid=project.uid,
        columns={
            "url": project.url,
            "api_key": project.api_key,
            "hostname": project.hostname,
            "access_token": project.access_token,
        },
        cache=services.settings.root / "cache",
    )


def _run(
    replay: Replay,
    tasks: Sequence[ReplayTask],
    order: str,
    every: int,
    chance: random.Random,
    exam: Exam,
    told: Callable[[str], None],
) -> Curve:
    began = time.monotonic()
    left = list(tasks)
    if order != AS_SUBMITTED:
        chance.shuffle(left)
    ranked = order in STRATEGIES
    suggested: dict[int, Suggestion] = replay.suggestions(left) if ranked else {}
    points = [Point(0, exam.score(replay.served), replay.served.name)]
    for count in range(1, len(tasks) + 1):
        task = next_task(left, suggested, chance) if ranked else left[0]
        left.remove(task)
        replay.submit(task, time.time())
        if count % every and left:
            continue
        trained = replay.train(f"{count} annotations replayed")
        score = exam.score(replay.served) if trained.new else points[-1].score
        points.append(Point(count, score, trained.served))
        told(f"{name_of(order, every)}: {count} of {len(tasks)} annotations, {score:.3f}, {trained.message}")
        if ranked and trained.new and left:
            suggested = replay.suggestions(left)
    return Curve(order, every, tuple(points), time.monotonic() - began)


def name_of(order: str, every: int) -> str:
    """A run in words."""
    words = order if order == AS_SUBMITTED else "in random order" if order == RANDOM else f"with {order}"
    return f"{words}, every {every}"


def table(simulation: Simulation) -> str:
    """The scores of all runs as text: a line for each number of annotations, a column for each run."""
    counts = sorted({point.annotations for curve in simulation.curves for point in curve.points})
    names = [name_of(curve.order, curve.every) for curve in simulation.curves]
    widths = [max(len(name), 5) for name in names]
    head = ["annotations", *(name.rjust(width) for name, width in zip(names, widths, strict=True))]
    lines = ["  ".join(head)]
    for count in counts:
        cells = [str(count).rjust(len(head[0]))]
        for curve, width in zip(simulation.curves, widths, strict=True):
            score = next((point.score for point in curve.points if point.annotations == count), None)
            cells.append(("" if score is None else f"{score:.3f}").rjust(width))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def conclusion(curves: Sequence[Curve]) -> str:
    """Which run needed how many annotations for the highest level that every run reached, in a sentence."""
    best = {curve: max((point.score for point in curve.points), default=0.0) for curve in curves}
    if not best:
        return "Nothing was replayed."
    level = math.floor(min(best.values()) / STEP + 1e-9) * STEP
    if level <= 0:
        found = "; ".join(f"{score:.2f} {name_of(each.order, each.every)}" for each, score in best.items())
        return f"Not every run learned something. The best scores: {found}."
    needed = sorted((curve.reached(level - 1e-9) or 0, name_of(curve.order, curve.every)) for curve in curves)
    (first, name), *others = needed
    said = [f"{level:.2f} was reached after {first} annotations {name}"]
    return "; ".join([*said, *(f"after {count} {name}" for count, name in others)]) + "."


def draw(simulation: Simulation, path: Path) -> None:
    """Write the learning curves as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for curve in simulation.curves:
        axes.plot(
            [point.annotations for point in curve.points],
            [point.score for point in curve.points],
            marker=".",
            drawstyle="steps-post",
            label=name_of(curve.order, curve.every),
        )
    axes.set(xlabel="annotations learned", ylabel=f"{simulation.metric} on {simulation.held_out} held-out images")
    axes.set_ylim(0, 1)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, format="png")
