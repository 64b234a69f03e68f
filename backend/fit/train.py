"""The training itself, in a process of its own: `python -m backend.fit.train FOLDER`.

Reads `spec.json` from the folder, trains, measures the candidate and the version in service on the same
held-out images, and writes `result.json`. Started again in the same folder after any crash, it goes on where
it was. It ends by itself when the process that started it is gone.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from backend.predict.engine.quiet import limit_threads, prepare

log = logging.getLogger("backend.fit.train")  # it runs as __main__

NICENESS = 19

REPORTERS = ("mlflow", "tensorboard", "wandb", "clearml", "comet", "dvc", "neptune", "raytune", "hub", "sync")
"""ultralytics' own integrations, which would write beside the registry or call out."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One training. Paths are absolute; `initial` is a checkpoint, or a model's yaml for random weights.

    `parent_version` names the version whose weights `initial` is; empty for the base model or none.
    `classes` are the labels in order. `champion` is the checkpoint in service (empty: none), `champion_size`
    its input in pixels. `own_session`: the process was given a session of its own.
    """

    home: str
    label_config: str
    classes: list[str]
    initial: str
    parent_version: str
    warm: bool
    train_images: int
    image_size: int
    minutes: float
    threads: int
    device: str
    max_regions: int
    champion: str = ""
    champion_size: int = 0
    own_session: bool = False
    parent: int = field(default=0)

    def save(self, folder: Path) -> None:
        write_json(folder / "spec.json", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Spec:
        return cls(**json.loads((folder / "spec.json").read_text()))


def write_json(path: Path, value: Any) -> None:
    """Write a file that is either whole or not there."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(value))
    part.replace(path)


def main() -> None:
    from backend.logs import configure

    configure("INFO", "trainer")
    folder = Path(sys.argv[1])
    spec = Spec.load(folder)
    _be_quiet(spec)
    with FileLock(folder / "lock"):  # a predecessor whose worker was killed may still be ending
        prepare(Path(spec.home))
        limit_threads(spec.threads)
        if not (folder / "trained.json").exists():
            train(folder, spec)
        if not (folder / "result.json").exists():
            write_json(folder / "result.json", measure(folder, spec))


def train(folder: Path, spec: Spec) -> None:
    """Train until the recipe's end, early stopping or the minutes' end; resume what a crash interrupted."""
    from ultralytics import YOLO
    from ultralytics.utils import SETTINGS

    from backend.fit.recipe import recipe
    from backend.predict.engine.torch import choose_device

    SETTINGS.update({name: False for name in REPORTERS if name in SETTINGS})
    last = folder / "run" / "weights" / "last.pt"
    began = time.monotonic() - _spent(folder)
    budget = spec.minutes * 60

    def report(trainer: Any) -> None:
        spent = time.monotonic() - began
        done = trainer.epoch + 1
        _fit_into(trainer, budget - spent)
        metrics = {key.removeprefix("metrics/"): float(value) for key, value in (trainer.metrics or {}).items()}
        progress = {
            "epoch": done,
            "epochs": trainer.epochs,
            "seconds": spent,
            "mAP50": metrics.get("mAP50(B)", 0.0),
        }
        write_json(folder / "progress.json", progress)

    model = YOLO(str(last) if last.exists() else spec.initial, task="detect")
    model.add_callback("on_fit_epoch_end", report)
    if last.exists():
        log.info("Going on from %s", last.name)
        model.train(resume=True)
    else:
        device = choose_device(spec.device)
        chosen = recipe(spec.train_images, warm=spec.warm, gpu=device != "cpu")
        images = (folder / "train.txt").read_text().splitlines()
        (folder / "epoch.txt").write_text("\n".join(images * chosen.repeats))
        model.train(
            data=str(folder / "data.yaml"),
            project=str(folder),
            name="run",
            exist_ok=True,
            imgsz=spec.image_size,
            device=device,
            workers=0 if device == "cpu" else min(4, os.cpu_count() or 1),
            cache="ram" if len(images) * chosen.repeats * spec.image_size**2 * 3 < 2**30 else False,
            amp=False,
            plots=False,
            verbose=False,
            seed=0,
            **chosen.arguments,
        )
    write_json(folder / "trained.json", {"seconds": time.monotonic() - began})


def _fit_into(trainer: Any, seconds: float) -> None:
    """Shorten the schedule to the time that is left, so that the learning rate still decays to its end."""
    done = trainer.epoch + 1
    run = done - trainer.start_epoch
    if run < 2:
        return
    pace = (time.time() - trainer.train_time_start) / run
    last = done + max(0, int(seconds / pace))
    if last < trainer.epochs:
        trainer.epochs = trainer.args.epochs = last
        trainer._setup_scheduler()
        trainer.scheduler.last_epoch = trainer.epoch
        trainer.stop |= done >= last


def measure(folder: Path, spec: Spec) -> dict[str, Any]:
    """Metrics of the candidate and of the version in service (None without one) on the hold-out."""
    import cv2

    from backend.fit.evaluate import Truth, evaluate
    from backend.labels.geometry import Box
    from backend.labels.mapping import map_classes
    from backend.labels.schema import parse_label_config
    from backend.predict.engine.torch import TorchDetector

    held_out = json.loads((folder / "holdout.json").read_text())
    images: list[Any] = [cv2.imread(each["image"]) for each in held_out]
    truths = [Truth([Box(*box) for box in each["boxes"]], each["classes"]) for each in held_out]
    schema = parse_label_config(spec.label_config)
    index = {label: position for position, label in enumerate(spec.classes)}

    def score(weights: Path, size: int, *, trained: bool) -> dict[str, float]:
        controls = (schema.own_labels() if trained else schema).controls
        detector = TorchDetector(weights, device=spec.device, image_size=size, max_regions=spec.max_regions)
        mapped = [map_classes(detector.names, control) for control in controls]
        labels = {cls: index[label] for mapping in mapped for cls, label in mapping.items()}
        return evaluate(detector, labels, images, truths, spec.classes) if labels else {"mAP50": 0.0, "mAP50-95": 0.0}

    return {
        "candidate": score(folder / "run" / "weights" / "best.pt", spec.image_size, trained=True),
        "champion": score(Path(spec.champion), spec.champion_size, trained=bool(spec.parent_version))
        if spec.champion
        else None,
        "holdout": len(held_out),
        "seconds": json.loads((folder / "trained.json").read_text())["seconds"],
        "epochs": json.loads((folder / "progress.json").read_text())["epoch"],
    }


def _spent(folder: Path) -> float:
    """Seconds that earlier tries of this training took."""
    try:
        return float(json.loads((folder / "progress.json").read_text())["seconds"])
    except (OSError, ValueError, KeyError):
        return 0.0


def _be_quiet(spec: Spec) -> None:
    """Stand back behind the process that serves, and end with the one that started this.

    Niceness counts only inside one session; in a session of its own the whole group is weighed down instead.
    """
    os.nice(NICENESS)
    if spec.own_session:
        try:
            Path("/proc/self/autogroup").write_text(str(NICENESS))
        except OSError:
            log.debug("This system groups no processes by session")

    def watch() -> None:
        while os.getppid() == spec.parent:
            time.sleep(0.5)
        os._exit(3)

    if spec.parent:
        threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
