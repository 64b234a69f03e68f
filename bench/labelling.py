"""How much work suggestions save: one annotator labels the same images with and without yoloop's loop.

    python bench/labelling.py [--pool easy|tails|tiles] [--base yolo11n] [--count 300] [--orders 3]
                              [--strategies mean,random] [--resume]

The annotator is simulated (`bench/annotator.py`); trainings, the gate and suggestions are the product's own. It writes
labelling.json and labelling.png, each mode as soon as it is done.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

from annotator import Effort, boxes_of, correct  # noqa: E402
from pool import NAMES, Pool, coco, generated, named  # noqa: E402
from wheels import real_base  # noqa: E402

from backend.predict.sampling import STRATEGIES  # noqa: E402
from backend.settings import ActionSeconds  # noqa: E402
from backend.simulation.replay import Replay, ReplaySettings, ReplayTask, Suggestion, next_task  # noqa: E402

UNAIDED, FROZEN, RANDOM = "unaided", "frozen", "random"
MODES = (UNAIDED, FROZEN, *STRATEGIES, RANDOM)
NO_VERSION = "v0"
WINDOW = 25
"""Images that the lately needed actions are told of."""

LONG = 100
"""Unaided actions that a window holds in which suggestions must not cost more than they save."""

GOALS = {"easy": (0.08, 0.36), "tails": (1.0, 0.65), "tiles": (1.0, 0.99)}
"""Pool → most actions, and most seconds of labour, of the loop, as shares of the unaided ones."""

COSTS = ActionSeconds()
SLOW = ActionSeconds(draw=25.5)
"""Where boxes are drawn with much care, and checked."""

OTHER_LOOK = 60
"""Pictures that the model which never learns was trained on, where none is given."""

SEED_OF_OTHER_LOOK = 1_000_003


@dataclass(frozen=True, slots=True)
class Options:
    """What all modes share."""

    pool: Pool
    seed: int
    minutes: float
    first_minutes: float
    image_size: int
    base: Path | None
    orders: int

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for a result to be taken over."""
        base = self.base.name if self.base else ""
        minutes = [self.first_minutes, self.minutes]
        return {
            "pool": self.pool.name,
            "minutes": minutes,
            "image_size": self.image_size,
            "base": base,
            "orders": self.orders,
        }


def main() -> int:
    given = arguments()
    logging.getLogger("backend").setLevel(logging.ERROR)  # that nothing is suggested at first is what it is about
    with tempfile.TemporaryDirectory(prefix="yoloop-labelling-") as folder:
        work = Path(folder)
        try:
            pool = (
                coco(given.images, given.coco, given.count, seed=given.seed)
                if given.coco
                else named(given.pool, work / "pictures", given.count, seed=given.seed, size=given.image_size)
            )
        except (OSError, ValueError, KeyError) as error:
            print(f"The images cannot be used: {error}", file=sys.stderr)
            return 2
        base = given.base
        options = Options(pool, given.seed, given.minutes, given.first_minutes, given.image_size, base, given.orders)
        print(f"Unlike the product's defaults: {differences(options)}. Seconds by {COSTS}.", flush=True)
        objects = sum(len(task.result) for task in pool.tasks)
        print(f"{pool.name}: {len(pool.tasks)} images with {objects} objects of {len(pool.labels)} labels", flush=True)
        given.out.mkdir(parents=True, exist_ok=True)
        report = given.out / "labelling.json"
        results: dict[str, Any] = json.loads(report.read_text()) if given.resume and report.exists() else {}
        wanted = dict.fromkeys((UNAIDED, *given.strategies))
        results = {mode: each for mode, each in results.items() if each["options"] == options.fingerprint()}
        for mode in wanted:
            if mode in results:
                print(f"{mode}: done before", flush=True)
                continue
            found = [run(mode, options, work, order) for order in range(1 if mode == UNAIDED else options.orders)]
            orders = [each for each in found if each is not None]
            if orders:
                results[mode] = together(orders, results.get(UNAIDED, orders[0]))
                report.write_text(json.dumps(results, indent=1))
                draw(results, given.out / "labelling.png")
    print(summary(results, GOALS.get(given.pool if given.coco is None else "")))
    return 0


def run(mode: str, options: Options, work: Path, order: int) -> dict[str, Any] | None:
    """One mode from the first image to the last, in one order; None where it makes no sense."""
    if mode == UNAIDED:
        efforts = [correct([], boxes_of(task.result)) for task in options.pool.tasks]
        return _result(options, efforts, [each.actions for each in efforts], trainings=[], seconds=0.0)
    settings = {"sampling": mode} if mode in STRATEGIES else {}
    home = work / f"{mode}-{order}"
    base = options.base
    if mode == FROZEN:
        base = base or other_look(options, work)
        if base is None:
            print("frozen: left out, for there is no model that knows these labels; give one with --base", flush=True)
            return None
    if base is not None:
        (home / "models").mkdir(parents=True)
        shutil.copyfile(base, home / "models" / "base.pt")
        settings["base_model"] = "base.pt"
    with replay_of(options.pool, home, options, **settings) as replay:
        found = label(replay, mode, options, order)
    shutil.rmtree(home, ignore_errors=True)
    return found


def label(replay: Replay, mode: str, options: Options, order: int) -> dict[str, Any]:
    """Annotate every image in turn, and let the product train whenever it would."""
    chance = random.Random(options.seed + order)
    left = list(options.pool.tasks)
    chance.shuffle(left)
    began = time.monotonic()
    efforts: list[Effort] = []
    unaided: list[int] = []
    trainings: list[dict[str, Any]] = []
    suggested: dict[int, Suggestion] = replay.suggestions(left) if mode == FROZEN else {}
    while left:
        task = next_task(left, suggested, chance) if mode in STRATEGIES else left[0]
        left.remove(task)
        efforts.append(_correct(task, suggested))
        unaided.append(correct([], boxes_of(task.result)).actions)
        replay.submit(task, time.time())
        if mode != FROZEN and left and replay.due():
            first = replay.served.name == NO_VERSION
            trained = replay.train(minutes=options.first_minutes if first else None)
            trainings.append({"images": len(efforts), **asdict(trained)})
            print(f"{mode}: after {len(efforts)} images, {trained.seconds:.0f} s: {trained.message}", flush=True)
            if trained.new:
                suggested = replay.suggestions(left)
        if len(efforts) % WINDOW == 0 or not left:
            print(f"{mode}: {tell(efforts)}, {replay.served.name} serves", flush=True)
    return _result(options, efforts, unaided, trainings, time.monotonic() - began)


def replay_of(pool: Pool, home: Path, options: Options, **changed: Any) -> Replay:
    """An empty project that knows the pool's images, with random weights unless `changed` says otherwise."""
    settings: dict[str, Any] = {
        "home": home,
        "offline": True,
        "base_model": "",
        "cache_gb": 10_000,
        "train_minutes": options.minutes,
        "image_size": options.image_size,
    }
    replay = Replay(ReplaySettings(**(settings | changed)), pool.label_config)
    for reference, path in pool.files.items():
        replay.keep_image(reference, path.read_bytes())
    return replay


def other_look(options: Options, work: Path) -> Path | None:
    """The weights of a model that knows the generated shapes in other colours; None for other images."""
    if not options.pool.generated:
        return None
    pool = generated(work / "other", OTHER_LOOK, seed=SEED_OF_OTHER_LOOK, size=options.image_size, recoloured=True)
    print(
        f"frozen: its model never learns; it is trained once now, on {pool.name}, which are a little darker, too",
        flush=True,
    )
    with replay_of(pool, work / "other-home", options) as replay:
        for task in pool.tasks:
            replay.submit(task, time.time())
        print(f"frozen: {replay.train(minutes=options.first_minutes).message}", flush=True)
        return next(iter(replay.weights()), None)


def differences(options: Options) -> str:
    """What of the settings that matter is not the product's default."""
    usual = ReplaySettings()
    ours = {"base_model": options.base.name if options.base else "", "image_size": options.image_size}
    ours |= {"train_minutes": options.minutes}
    named = [f"{name} {value}" for name, value in ours.items() if value != getattr(usual, name)]
    return ", ".join([*named, f"first training {options.first_minutes:g} minutes"])


def together(orders: Sequence[dict[str, Any]], unaided: Mapping[str, Any]) -> dict[str, Any]:
    """The mean of several orders, and each order beside it."""
    mean = {
        name: statistics.fmean(each[name] for each in orders)
        for name, value in orders[0].items()
        if isinstance(value, int | float)
    }
    windows = [each["worst_window"] for each in orders if each["worst_window"] is not None]
    return {
        **orders[0],
        **mean,
        "cumulative": [statistics.fmean(at) for at in zip(*(each["cumulative"] for each in orders), strict=True)],
        "worst_window": max(windows, default=None),
        "actions_over_unaided": mean["actions"] / max(1, unaided["actions"]),
        "labour_over_unaided": mean["labour"] / max(1, unaided["labour"]),
        "slow_labour_over_unaided": mean["slow_labour"] / max(1, unaided["slow_labour"]),
        "orders": [
            {
                "actions_over_unaided": each["actions"] / max(1, unaided["actions"]),
                "labour_over_unaided": each["labour"] / max(1, unaided["labour"]),
            }
            for each in orders
        ],
    }


def tell(efforts: Sequence[Effort]) -> str:
    """Where an annotator stands, in words."""
    lately = efforts[-WINDOW:]
    total, recent = _sum(efforts), _sum(lately)
    per_image = recent.actions / len(lately)
    return (
        f"{len(efforts)} images, {per_image:.2f} actions an image over the last {len(lately)}, {total.actions} in all"
    )


def summary(results: Mapping[str, Mapping[str, Any]], goals: tuple[float, float] | None) -> str:
    """A line for each mode, and whether the goals are met."""
    head = f"{'mode':<18}{'actions':>8}{'of unaided':>12}{'seconds':>9}{'slow':>7}{'drawn':>7}"
    head += f"{'deleted':>9}{'moved':>7}{'relabelled':>12}"
    lines = [f"{head}{'untouched':>11}{'trainings':>11}{'minutes':>9}"]
    for mode, each in results.items():
        lines.append(
            f"{mode:<18}{each['actions']:>8.0f}{each['actions_over_unaided']:>12.1%}"
            f"{each['labour_over_unaided']:>9.1%}{each['slow_labour_over_unaided']:>7.1%}{each['drawn']:>7.0f}"
            f"{each['deleted']:>9.0f}{each['moved']:>7.0f}{each['relabelled']:>12.0f}{each['accepted']:>11.0f}"
            f"{len(each['trainings']):>11}{each['seconds'] / 60:>9.1f}"
        )
    for mode in (mode for mode in (*STRATEGIES, RANDOM) if mode in results and goals is not None):
        for what, most in zip(("actions", "labour"), goals or (), strict=True):
            share, each = results[mode][f"{what}_over_unaided"], results[mode]["orders"]
            met = "met" if share <= most else "missed"
            by_order = ", ".join(f"{one[f'{what}_over_unaided']:.1%}" for one in each)
            lines.append(
                f"Goal {met}: with {mode} {share:.1%} of the unaided {'seconds' if what == 'labour' else what} "
                f"({by_order}), at most {most:.0%}"
            )
        if (worst := results[mode]["worst_window"]) is not None:
            lines.append(f"Most of {mode} in a window of {LONG} unaided actions: {worst:.1%}, at most 105%")
    return "\n".join(lines)


def draw(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """The actions of each mode, added up over the images, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for mode, each in results.items():
        line = "--" if mode in (UNAIDED, FROZEN, RANDOM) else "-"
        axes.plot([0, *each["cumulative"]], line, label=f"{mode} ({each['actions']:.0f})")
    axes.set(xlabel="images labelled", ylabel="actions in all")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, format="png")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", choices=NAMES, default="easy", help="what is labelled (%(default)s)")
    parser.add_argument("--orders", type=int, default=1, help="orders of the images whose mean is told (%(default)s)")
    parser.add_argument("--images", type=Path, help="folder of images to label, with --coco; default: generated ones")
    parser.add_argument("--coco", type=Path, help="COCO file with the boxes of --images")
    parser.add_argument("--count", type=int, default=300, help="most images (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the images and their order")
    parser.add_argument("--minutes", type=float, default=5.0, help="of one training, at most (%(default)s)")
    parser.add_argument(
        "--first-minutes", type=float, default=5.0, help="the same until a version serves (%(default)s)"
    )
    parser.add_argument("--image-size", type=int, help="pixels of the longer side; default: 96, of tiles 192")
    parser.add_argument("--strategies", default=",".join(MODES), help="some of %(default)s; unaided is always there")
    parser.add_argument("--base", type=Path, help="pretrained weights; yolo11n: the official ones")
    parser.add_argument("--out", type=Path, default=ROOT / "bench", help="folder of labelling.json and labelling.png")
    parser.add_argument("--resume", action="store_true", help="keep the modes that labelling.json holds already")
    given = parser.parse_args()
    given.strategies = [each.strip() for each in given.strategies.split(",") if each.strip()]
    unknown = [each for each in given.strategies if each not in MODES]
    if unknown:
        parser.error(f"there is no mode {', '.join(unknown)}")
    if (given.images is None) != (given.coco is None):
        parser.error("--images and --coco go together")
    if given.count < 1 or given.orders < 1:
        parser.error("--count and --orders must be at least 1")
    given.image_size = given.image_size or (192 if given.pool == "tiles" else 96)
    if given.base == Path("yolo11n"):
        try:
            given.base = real_base()
        except OSError as error:
            parser.error(str(error))
    return given


def _correct(task: ReplayTask, suggested: Mapping[int, Suggestion]) -> Effort:
    shown = suggested[task.id].result if task.id in suggested else ()
    return correct(boxes_of(shown), boxes_of(task.result))


def _sum(efforts: Sequence[Effort]) -> Effort:
    return sum(efforts, Effort())


def worst_window(efforts: Sequence[Effort], unaided: Sequence[int]) -> float | None:
    """Most actions over unaided ones in the windows of `LONG` unaided actions, one after another; None without any."""
    worst, actions, alone = None, 0, 0
    for effort, without in zip(efforts, unaided, strict=True):
        actions, alone = actions + effort.actions, alone + without
        if alone >= LONG:
            worst, actions, alone = max(actions / alone, worst or 0.0), 0, 0
    return worst


def _result(
    options: Options,
    efforts: Sequence[Effort],
    unaided: Sequence[int],
    trainings: Sequence[Mapping[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    total = _sum(efforts)
    cumulative: list[int] = []
    for effort in efforts:
        cumulative.append(effort.actions + (cumulative[-1] if cumulative else 0))
    return {
        "actions": total.actions,
        "labour": round(total.seconds(COSTS), 1),
        "slow_labour": round(total.seconds(SLOW), 1),
        "worst_window": worst_window(efforts, unaided),
        **asdict(total),
        "trainings": list(trainings),
        "seconds": round(seconds, 1),
        "options": options.fingerprint(),
        "cumulative": cumulative,
    }


if __name__ == "__main__":
    sys.exit(main())
