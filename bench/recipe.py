"""Which recipe learns most from few images: variants of the product's own, by successive halving, within minutes.

    python bench/recipe.py [--pool tiles] [--base yolo11n|random|FILE] [--images 20,28] [--minutes 60]

Each trial trains as the product does, on images drawn from a pool, and is measured on others that neither taught nor
chose the epoch. Trials are kept in recipe.json as soon as they are done, and a later call goes on after them.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

from annotator import boxes_of  # noqa: E402
from pool import NAMES, Pool, named  # noqa: E402
from wheels import real_base  # noqa: E402

HELD_OUT = 15
"""Images of a small pool that only measure; of a larger one a quarter."""

JUDGING = 0.2
"""Share of the images drawn for a trial that choose its epoch: the product's own share of held-out images."""

SCREENING = (10, 11, 12)
"""Seeds that variants are chosen by: which images teach, choose the epoch and measure."""

FINAL = (0, 1, 2)
"""Seeds of the figures that are quoted. Nothing is chosen by them."""

KEPT = 3
"""One variant of so many goes on to the next seed."""

PRODUCT = "product"

VARIANTS: dict[str, dict[str, Any]] = {
    PRODUCT: {},
    "auto": {"optimizer": "auto"},
    "lr 0.00025": {"optimizer": "AdamW", "lr0": 0.00025, "momentum": 0.9, "warmup_bias_lr": 0.0},
    "lr 0.0005": {"optimizer": "AdamW", "lr0": 0.0005, "momentum": 0.9, "warmup_bias_lr": 0.0},
    "lr 0.001": {"optimizer": "AdamW", "lr0": 0.001, "momentum": 0.9, "warmup_bias_lr": 0.0},
    "no warm-up": {"warmup_epochs": 0.0},
    "long warm-up": {"warmup_epochs": 2.0},
    "batch 4": {"batch": 4},
    "batch 2": {"batch": 2},
    "frozen backbone": {"freeze": 10},
    "mosaic": {"mosaic": 0.5, "close_mosaic": 2},
    "wide scale": {"scale": 0.5},
    "flips": {"flipud": 0.5},
    "cosine": {"cos_lr": True},
    "constant": {"lrf": 1.0},
    "half the steps": {"steps": 0.5},
    "twice the steps": {"steps": 2.0},
    "averaged": {"ema": 0.95},
    "larger input": {"larger": 1.5},
    "ultralytics": {"optimizer": "auto", "mosaic": 1.0, "close_mosaic": 10, "scale": 0.5, "hsv_h": 0.015, "batch": 16},
}
"""What each changes of the product's recipe: ultralytics' arguments; `steps` times its optimizer steps, `larger` times
its input in pixels, `ema` the most that the average of weights keeps at a step. `a+b` makes both changes."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One training: of a variant, on so many images of a pool, from a base, with a seed."""

    variant: str
    pool: str
    base: str
    images: int
    seed: int


def main() -> int:
    given = arguments()
    logging.getLogger("backend").setLevel(logging.WARNING)
    until = time.monotonic() + given.minutes * 60
    report = given.out / "recipe.json"
    results: list[dict[str, Any]] = json.loads(report.read_text()) if report.exists() else []
    with tempfile.TemporaryDirectory(prefix="yoloop-recipe-") as folder:
        work = Path(folder)
        try:
            pool = named(given.pool, work / "pool", given.count, seed=0, size=given.size)
            base = real_base() if given.base == "yolo11n" else None if given.base == "random" else Path(given.base)
        except OSError as error:
            print(error, file=sys.stderr)
            return 2

        def scores(variants: Sequence[str], seeds: Sequence[int]) -> dict[str, float] | None:
            """Mean mAP50 of each variant over the numbers of images and seeds; None when the minutes are over."""
            for seed in seeds:
                for variant in variants:
                    for images in given.images:
                        trial = Trial(variant, given.pool, given.base, images, seed)
                        if _found(results, trial) is None:
                            if time.monotonic() > until:
                                print(f"The minutes are over before {trial}; the next call goes on there.")
                                return None
                            results.append(run(trial, pool, base, work, given.threads))
                            _keep(report, results)
                            print(told(results[-1]), flush=True)
            return {each: _mean(results, each, given, seeds) for each in variants}

        search(given.variants, scores, SCREENING if not given.final else FINAL, halve=not given.final)
    print(summary(results))
    return 0


def search(variants: Sequence[str], scores: Any, seeds: Sequence[int], *, halve: bool) -> list[str]:
    """Give the variants one seed after another; before each further one only the best third stays, with the product's.

    Returns the variants that were left, the best first; those of the last complete round where the minutes ended.
    """
    left = list(variants)
    for number in range(1, len(seeds) + 1):
        found = scores(left, seeds[:number])
        if found is None:
            break
        left = sorted(found, key=lambda each: -found[each])
        if halve and number < len(seeds):
            best = left[: max(2, -(-len(left) // KEPT))]
            left = best + [each for each in left if each == PRODUCT and each not in best]
    return left


def run(trial: Trial, pool: Pool, base: Path | None, work: Path, threads: int) -> dict[str, Any]:
    """Train and measure."""
    from backend.engine.environment import limit_threads, prepare
    from backend.fit.evaluation.measure import measure
    from backend.fit.training.spec import Spec
    from backend.fit.training.train import train

    folder = Path(tempfile.mkdtemp(dir=work))
    prepare(work)
    limit_threads(threads)
    todo = lay_out(trial, pool, base, folder, _changes(trial.variant).get("larger", 1.0))
    network_file = "" if base is None else base.name
    spec = Spec(str(work), pool.label_config, [todo], network_file, 60.0, threads, "cpu", 300)
    began, processor = time.monotonic(), time.process_time()
    with changed(trial.variant):
        train(folder, spec, 0, 3600.0)
    seconds, processor = time.monotonic() - began, time.process_time() - processor
    metrics = measure(spec, todo)["candidate"]
    progress = json.loads((Path(todo.folder) / "progress.json").read_text())
    return {
        **asdict(trial),
        "mAP50": round(metrics["mAP50"], 4),
        "mAP50-95": round(metrics["mAP50-95"], 4),
        "epochs": progress["epoch"],
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
    }


def lay_out(trial: Trial, pool: Pool, base: Path | None, folder: Path, larger: float = 1.0) -> Any:
    """Write the images and labels of a trial as the product does; `holdout.json` names those that only measure."""
    import cv2

    from backend.fit.dataset.yolo_format import as_yaml, class_names
    from backend.fit.training.recipe import image_size
    from backend.fit.training.spec import NetworkSpec
    from backend.labels.networks import Network

    network = Network("detect", "detect", pool.labels, ("label",))
    place = folder / "network-0"
    (place / "images").mkdir(parents=True)
    (place / "labels").mkdir()
    teach, judge, held_out = drawn(trial, len(pool.tasks))
    sizes, paths = [], {}
    for number in (*teach, *judge, *held_out):
        task = pool.tasks[number]
        pixels = cv2.imread(str(pool.files[str(task.data["image"])]))
        sizes.append((pixels.shape[1], pixels.shape[0]))
        paths[number] = place / "images" / f"{number}.png"
        cv2.imwrite(str(paths[number]), pixels)
        lines = [
            f"{pool.labels.index(box.label)} {(box.x1 + box.x2) / 200:.6f} {(box.y1 + box.y2) / 200:.6f} "
            f"{(box.x2 - box.x1) / 100:.6f} {(box.y2 - box.y1) / 100:.6f}"
            for box in boxes_of(task.result)
        ]
        (place / "labels" / f"{number}.txt").write_text("\n".join(lines))
    (place / "train.txt").write_text("\n".join(str(paths[number]) for number in teach))
    (place / "val.txt").write_text("\n".join(str(paths[number]) for number in judge))
    names = class_names(pool.labels)
    data = {"path": str(place), "train": "epoch.txt", "val": "val.txt", "nc": len(names), "names": names}
    (place / "data.yaml").write_text(as_yaml(data))
    measuring = [
        {"image": str(paths[number]), "result": pool.tasks[number].result, "page": 0, "data_key": "image"}
        for number in held_out
    ]
    (place / "holdout.json").write_text(json.dumps(measuring))
    initial = "" if base is None else str(base)
    size = image_size([(round(w * larger), round(h * larger)) for w, h in sizes], 640)
    own = asdict(Network(Path(initial).name, "detect", (), own=False)) if initial else {}
    return NetworkSpec(
        asdict(network), str(place), "yolo11n.yaml", initial, len(teach), size, opponent_network=own, opponent=""
    )


def drawn(trial: Trial, count: int) -> tuple[list[int], list[int], list[int]]:
    """Which of a pool's images teach, choose the epoch and measure. With one seed the same ones always measure.

    Raises ValueError where the pool has too few.
    """
    order = list(range(count))
    random.Random(trial.seed).shuffle(order)
    measuring = max(min(HELD_OUT, count // 2), count // 4)
    held_out, rest = order[:measuring], order[measuring:]
    if len(rest) < trial.images:
        raise ValueError(f"The pool has {count} images: {measuring} measure, so that {len(rest)} are left to learn.")
    chosen = rest[: trial.images]
    judging = max(1, round(JUDGING * len(chosen)))
    return chosen[judging:], chosen[:judging], held_out


class changed(ExitStack):
    """While it lasts, the product's recipe is that of a variant."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        import ultralytics.engine.trainer

        from backend.fit.training import recipe as module

        changes = _changes(variant)
        ema, steps = changes.pop("ema", None), changes.pop("steps", 1.0)
        changes.pop("larger", None)
        original = module.recipe

        def other(train_images: int, **given: Any) -> module.Recipe:
            found = original(train_images, **given)
            arguments = {**found.arguments, **changes}
            arguments["batch"] = arguments["nbs"] = min(arguments["batch"], max(2, train_images))
            batches = -(-train_images * found.repeats // found.arguments["batch"])
            wanted = steps * found.arguments["epochs"] * batches
            now = -(-train_images * found.repeats // arguments["batch"])
            arguments["epochs"] = max(1, round(wanted / now))
            arguments["patience"] = arguments["epochs"]
            return replace(found, arguments=arguments)

        self.enter_context(patch.object(module, "recipe", other))
        if ema is not None:
            averaging = ultralytics.engine.trainer.ModelEMA
            self.enter_context(
                patch.object(ultralytics.engine.trainer, "ModelEMA", partial(averaging, decay=ema, tau=10))
            )


def summary(results: Iterable[Mapping[str, Any]]) -> str:
    """A line for each variant, pool, base and number of images: mean, and lowest and highest of its seeds."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for each in results:
        key = (each["pool"], each["base"], each["images"], each["seed"] in FINAL, each["variant"])
        groups.setdefault(key, []).append(each)
    lines = [f"{'pool':<7}{'base':<9}{'images':>6}  {'variant':<28}{'mAP50':>7}{'from':>7}{'to':>7}{'seeds':>10}"]
    for (pool, base, images, _, variant), found in sorted(
        groups.items(), key=lambda item: (*map(str, item[0][:4]), -statistics.mean(r["mAP50"] for r in item[1]))
    ):
        values = [each["mAP50"] for each in found]
        seeds = ",".join(str(each["seed"]) for each in found)
        lines.append(
            f"{pool:<7}{Path(str(base)).stem:<9}{images:>6}  {variant:<28}{statistics.mean(values):>7.3f}"
            f"{min(values):>7.3f}{max(values):>7.3f}{seeds:>10}"
        )
    return "\n".join(lines)


def told(result: Mapping[str, Any]) -> str:
    return (
        f"{time.strftime('%H:%M:%S')} {result['pool']}, {result['base']}, {result['images']} images, seed "
        f"{result['seed']}, {result['variant']}: mAP50 {result['mAP50']:.3f}, mAP50-95 {result['mAP50-95']:.3f} after "
        f"{result['epochs']} epochs, {result['seconds']:.0f} s ({result['processor_seconds']:.0f} s of the processor)"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", choices=NAMES, default="tiles", help="what is learned (%(default)s)")
    parser.add_argument("--base", default="yolo11n", help="yolo11n, random, or a file of weights (%(default)s)")
    parser.add_argument("--images", default="20,28", help="numbers of images to learn from (%(default)s)")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="some of them, joined by + (all)")
    parser.add_argument("--final", action="store_true", help="the three seeds of quoted figures, all variants")
    parser.add_argument("--minutes", type=float, default=60.0, help="no trial begins after them (%(default)s)")
    parser.add_argument("--count", type=int, default=200, help="pictures of a generated pool (%(default)s)")
    parser.add_argument("--size", type=int, default=96, help="pixels of a generated picture (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of the processor (%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "bench", help="folder of recipe.json")
    given = parser.parse_args()
    given.images = [int(each) for each in given.images.split(",")]
    given.variants = [each.strip() for each in given.variants.split(",") if each.strip()]
    unknown = [part for each in given.variants for part in each.split("+") if part not in VARIANTS]
    if unknown:
        parser.error(f"there is no variant {', '.join(unknown)}")
    return given


def _changes(variant: str) -> dict[str, Any]:
    return {name: value for part in variant.split("+") for name, value in VARIANTS[part].items()}


def _found(results: Iterable[Mapping[str, Any]], trial: Trial) -> Mapping[str, Any] | None:
    wanted = asdict(trial)
    return next((each for each in results if all(each[name] == value for name, value in wanted.items())), None)


def _mean(results: Sequence[Mapping[str, Any]], variant: str, given: argparse.Namespace, seeds: Sequence[int]) -> float:
    trials = (Trial(variant, given.pool, given.base, images, seed) for images in given.images for seed in seeds)
    return statistics.mean(each["mAP50"] for trial in trials if (each := _found(results, trial)) is not None)


def _keep(path: Path, results: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text("[\n" + ",\n".join(json.dumps(each) for each in results) + "\n]\n")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
