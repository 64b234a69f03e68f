"""How much work suggestions save: one annotator labels the same images with and without yoloop's loop.

    python bench/labelling.py [--count 300] [--strategies mean,random] [--resume]

The annotator is simulated (`bench/annotator.py`); trainings, the gate and suggestions are the product's own. It writes
labelling.json and labelling.png, each mode as soon as it is done.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
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
from pool import Pool, coco, generated  # noqa: E402

from backend.predict.sampling import STRATEGIES  # noqa: E402
from backend.simulation.replay import Replay, ReplaySettings, ReplayTask, Suggestion, next_task  # noqa: E402

UNAIDED, FROZEN, RANDOM = "unaided", "frozen", "random"
MODES = (UNAIDED, FROZEN, *STRATEGIES, RANDOM)
NO_VERSION = "v0"
WINDOW = 25
"""Images that the lately needed actions are told of."""

GOAL = 0.4
"""Most actions of the loop, as a share of the unaided ones."""

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

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for a result to be taken over."""
        base = self.base.name if self.base else ""
        minutes = [self.first_minutes, self.minutes]
        return {"pool": self.pool.name, "minutes": minutes, "image_size": self.image_size, "base": base}


def main() -> int:
    given = arguments()
    logging.getLogger("backend").setLevel(logging.ERROR)  # that nothing is suggested at first is what it is about
    with tempfile.TemporaryDirectory(prefix="yoloop-labelling-") as folder:
        work = Path(folder)
        try:
            pool = (
                coco(given.images, given.coco, given.count, seed=given.seed)
                if given.coco
                else generated(work / "pictures", given.count, seed=given.seed, size=given.image_size)
            )
        except (OSError, ValueError, KeyError) as error:
            print(f"The images cannot be used: {error}", file=sys.stderr)
            return 2
        options = Options(pool, given.seed, given.minutes, given.first_minutes, given.image_size, given.base)
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
            result = run(mode, options, work)
            if result is not None:
                unaided = results.get(UNAIDED, result)["actions"]
                results[mode] = {**result, "actions_over_unaided": result["actions"] / max(1, unaided)}
                report.write_text(json.dumps(results, indent=1))
                draw(results, given.out / "labelling.png")
    print(summary(results))
    return 0


def run(mode: str, options: Options, work: Path) -> dict[str, Any] | None:
    """One mode from the first image to the last; None where it makes no sense."""
    if mode == UNAIDED:
        efforts = [correct([], boxes_of(task.result)) for task in options.pool.tasks]
        return _result(options, efforts, trainings=[], seconds=0.0)
    settings = {"sampling": mode} if mode in STRATEGIES else {}
    home = work / mode
    if mode == FROZEN:
        base = options.base or other_look(options, work)
        if base is None:
            print("frozen: left out, for there is no model that knows these labels; give one with --base", flush=True)
            return None
        (home / "models").mkdir(parents=True)
        shutil.copyfile(base, home / "models" / "base.pt")
        settings["base_model"] = "base.pt"
    with replay_of(options.pool, home, options, **settings) as replay:
        found = label(replay, mode, options)
    shutil.rmtree(home / "registry", ignore_errors=True)
    return found


def label(replay: Replay, mode: str, options: Options) -> dict[str, Any]:
    """Annotate every image in turn, and let the product train whenever it would."""
    chance = random.Random(options.seed)
    left = list(options.pool.tasks)
    chance.shuffle(left)
    began = time.monotonic()
    efforts: list[Effort] = []
    trainings: list[dict[str, Any]] = []
    suggested: dict[int, Suggestion] = replay.suggestions(left) if mode == FROZEN else {}
    while left:
        task = next_task(left, suggested, chance) if mode in STRATEGIES else left[0]
        left.remove(task)
        efforts.append(_correct(task, suggested))
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
    return _result(options, efforts, trainings, time.monotonic() - began)


def replay_of(pool: Pool, home: Path, options: Options, **changed: Any) -> Replay:
    """An empty project that knows the pool's images, with random weights unless `changed` says otherwise."""
    settings: dict[str, Any] = {
        "home": home,
        "offline": True,
        "base_model": "",
        "cache_gb": 10_000,
        "train_minutes": options.minutes,
        "image_size": options.image_size,
        "min_new_annotations": 10,
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


def tell(efforts: Sequence[Effort]) -> str:
    """Where an annotator stands, in words."""
    lately = efforts[-WINDOW:]
    total, recent = _sum(efforts), _sum(lately)
    per_image = recent.actions / len(lately)
    return (
        f"{len(efforts)} images, {per_image:.2f} actions an image over the last {len(lately)}, {total.actions} in all"
    )


def summary(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each mode, and whether the goal is met."""
    head = f"{'mode':<18}{'actions':>8}{'of unaided':>12}{'drawn':>7}{'deleted':>9}{'moved':>7}{'relabelled':>12}"
    lines = [f"{head}{'untouched':>11}{'trainings':>11}{'minutes':>9}"]
    for mode, each in results.items():
        lines.append(
            f"{mode:<18}{each['actions']:>8}{each['actions_over_unaided']:>12.1%}{each['drawn']:>7}"
            f"{each['deleted']:>9}{each['moved']:>7}{each['relabelled']:>12}{each['accepted']:>11}"
            f"{len(each['trainings']):>11}{each['seconds'] / 60:>9.1f}"
        )
    for mode in (mode for mode in STRATEGIES if mode in results):
        share, images = results[mode]["actions_over_unaided"], len(results[mode]["cumulative"])
        met = "met" if share <= GOAL else "missed"
        lines.append(
            f"Goal {met}: with {mode} {share:.1%} of the unaided actions over {images} images, at most {GOAL:.0%}"
        )
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
        axes.plot([0, *each["cumulative"]], line, label=f"{mode} ({each['actions']})")
    axes.set(xlabel="images labelled", ylabel="actions in all")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, format="png")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of images to label, with --coco; default: generated ones")
    parser.add_argument("--coco", type=Path, help="COCO file with the boxes of --images")
    parser.add_argument("--count", type=int, default=300, help="most images (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the images and their order")
    parser.add_argument("--minutes", type=float, default=5.0, help="of one training, at most (%(default)s)")
    parser.add_argument(
        "--first-minutes", type=float, default=5.0, help="the same until a version serves (%(default)s)"
    )
    parser.add_argument("--image-size", type=int, default=96, help="pixels of the longer side (%(default)s)")
    parser.add_argument("--strategies", default=",".join(MODES), help="some of %(default)s; unaided is always there")
    parser.add_argument("--base", type=Path, help="weights of the model that never learns")
    parser.add_argument("--out", type=Path, default=ROOT / "bench", help="folder of labelling.json and labelling.png")
    parser.add_argument("--resume", action="store_true", help="keep the modes that labelling.json holds already")
    given = parser.parse_args()
    given.strategies = [each.strip() for each in given.strategies.split(",") if each.strip()]
    unknown = [each for each in given.strategies if each not in MODES]
    if unknown:
        parser.error(f"there is no mode {', '.join(unknown)}")
    if (given.images is None) != (given.coco is None):
        parser.error("--images and --coco go together")
    if given.count < 1:
        parser.error("--count must be at least 1")
    return given


def _correct(task: ReplayTask, suggested: Mapping[int, Suggestion]) -> Effort:
    shown = suggested[task.id].result if task.id in suggested else ()
    return correct(boxes_of(shown), boxes_of(task.result))


def _sum(efforts: Sequence[Effort]) -> Effort:
    return sum(efforts, Effort())


def _result(
    options: Options, efforts: Sequence[Effort], trainings: Sequence[Mapping[str, Any]], seconds: float
) -> dict[str, Any]:
    total, cumulative = _sum(efforts), []
    for effort in efforts:
        cumulative.append(effort.actions + (cumulative[-1] if cumulative else 0))
    return {
        "actions": total.actions,
        **asdict(total),
        "trainings": list(trainings),
        "seconds": round(seconds, 1),
        "options": options.fingerprint(),
        "cumulative": cumulative,
    }


if __name__ == "__main__":
    sys.exit(main())
