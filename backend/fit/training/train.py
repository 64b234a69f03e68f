"""The training itself, in a process of its own: `python -m backend.fit.training.train HOME PARENT`.

Imports what it needs and waits for a line on its input that names a folder (see `process`). Then it reads `spec.json`
from there, trains, measures the candidate and the version in service on the same held-out images, and
writes `result.json`. Started again in the same folder after any crash, it goes on where it was. It ends by itself when
the process that started it is gone.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from filelock import FileLock

from backend.engine.environment import limit_threads, prepare
from backend.engine.weights import open_model, read_checkpoint, task_or_trouble
from backend.errors import unwritable
from backend.fit.evaluation.measure import measure
from backend.fit.training.checkpoints import mend
from backend.fit.training.spec import NetworkSpec, Spec, seconds_of, write_json
from backend.fit.training.start import initial, rename_classes
from backend.labels.networks import Task
from backend.observability.full_disk import message_of
from backend.processes.child import SUPERVISED, stand_back
from backend.processes.room import trouble
from backend.served_models.base_model import FINDS
from backend.served_models.parts import network_from
from backend.settings import Settings

log = logging.getLogger("backend.fit.training.train")  # it runs as __main__

REPORTERS = ("mlflow", "tensorboard", "wandb", "clearml", "comet", "dvc", "neptune", "raytune", "hub", "sync")
"""ultralytics' own integrations, which would write beside the registry or call out."""


def main() -> None:
    from backend.observability.logs import configure, enter

    configure("INFO", "trainer", Settings().log_format)
    home, parent = Path(sys.argv[1]), int(sys.argv[2])
    stand_back(parent, own_session=SUPERVISED not in os.environ)
    prepare(home)
    rehearse()
    line = sys.stdin.buffer.readline()
    if not line:
        os._exit(3)  # there is nothing to train, or nobody left who would want it
    told = json.loads(line)
    folder = Path(told.pop("folder"))
    enter(**told)
    with (folder / "train.log").open("ab") as output:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(output.fileno(), stream.fileno())
    try:
        work(folder)
    except Exception as error:
        # Torch and ultralytics make many things of a failed write; whoever started this looks at the disk, too.
        if not (why := unwritable(error) or trouble(folder)):
            raise
        log.warning("%s", message_of(why))
        logging.shutdown()
        os._exit(os.EX_TEMPFAIL)


def work(folder: Path) -> None:
    """Train and measure what `spec.json` there names, from where it was interrupted."""
    spec = Spec.load(folder)
    spec = replace(spec, networks=[checked(each) for each in spec.networks])
    with FileLock(folder / "lock"):  # a predecessor whose worker was killed may still be ending
        limit_threads(spec.threads)
        began = time.monotonic() - sum(seconds_of(Path(each.folder)) for each in spec.networks)
        for number, each in enumerate(spec.networks):
            if not (Path(each.folder) / "trained.json").exists():
                left = spec.minutes * 60 - (time.monotonic() - began)
                train(folder, spec, number, max(0.0, left) / (len(spec.networks) - number))
        if not (folder / "result.json").exists():
            write_json(folder / "result.json", {"networks": [measure(spec, each) for each in spec.networks]})


def checked(todo: NetworkSpec) -> NetworkSpec:
    """The same without what cannot be opened: such a file costs a training its start, and not more."""
    if not todo.initial:
        return todo
    weights = Path(todo.initial)
    task, why = task_or_trouble(weights)
    if not task:
        note = f"{why} The training began with random weights of {Path(todo.architecture).stem}."
        log.warning("%s", note)
        opponent = "" if todo.opponent == todo.initial else todo.opponent
        return replace(todo, initial="", opponent=opponent, note=note)
    wanted = network_from(todo.network).task
    if task != wanted and todo.opponent == todo.initial and not todo.opponent_network["own"]:
        note = (
            f"{weights.name} finds {FINDS[cast(Task, task)]}, so the model for {FINDS[wanted]} starts from random "
            "weights, but for the layers that both have."
        )
        log.info("%s", note)
        return replace(todo, note=note)
    return todo


def rehearse() -> None:
    """Import now what would be imported piece by piece while a person waits."""
    import torch._inductor  # noqa: F401  ultralytics asks for reproducible results, and torch then imports it
    import ultralytics.engine.trainer  # noqa: F401

    import backend.fit.evaluation.export_check  # noqa: F401


def train(job: Path, spec: Spec, number: int, budget: float) -> None:
    """Train one network until the recipe's end, early stopping or `budget` seconds; resume what a crash interrupted."""
    from ultralytics.utils import SETTINGS

    from backend.engine.gpu import is_out_of_memory
    from backend.engine.torch import choose_device
    from backend.fit.training.gpu_memory import back_off, prepare_gpu
    from backend.fit.training.recipe import Machine, recipe

    SETTINGS.update({name: False for name in REPORTERS if name in SETTINGS})
    todo = spec.networks[number]
    network, folder = network_from(todo.network), Path(todo.folder)
    last = folder / "run" / "weights" / "last.pt"
    spent = seconds_of(folder)
    began = time.monotonic() - spent
    budget += spent
    metric = PROGRESS[network.task]

    def report(trainer: Any) -> None:
        seconds = time.monotonic() - began
        _fit_into(trainer, budget - seconds)
        metrics = {key.removeprefix("metrics/"): float(value) for key, value in (trainer.metrics or {}).items()}
        progress = {
            "network": network.key,
            "number": number + 1,
            "networks": len(spec.networks),
            "epoch": trainer.epoch + 1,
            "epochs": trainer.epochs,
            "seconds": seconds,
            "metric": "accuracy" if network.task == "classify" else "mAP50",
            "value": metrics.get(metric, 0.0),
        }
        write_json(folder / "progress.json", progress)
        write_json(job / "progress.json", progress)

    trainer: Any = None
    if network.task == "classify":
        from backend.fit.training.classify import ChoiceTrainer

        trainer = ChoiceTrainer
    device = choose_device(spec.device)
    half = prepare_gpu(device)

    def go_on(batch: int | None) -> tuple[Any, dict[str, Any]]:
        log.info("%s: going on from %s", network.key, last.name)
        return open_model(last), {"resume": True, **({} if batch is None else {"batch": batch})}

    def begin(batch: int | None) -> tuple[Any, dict[str, Any]]:
        model, warm = initial(todo, network)
        if warm:
            rename_classes(model, todo, spec)
        images = (folder / "train.txt").read_text().splitlines()
        machine = Machine(gpu=device != "cpu", half=half, threads=spec.threads)
        chosen = recipe(todo.train_images, task=network.task, warm=warm, machine=machine, image_size=todo.image_size)
        (folder / "epoch.txt").write_text("\n".join(images * chosen.repeats))
        if network.task == "classify":
            data = json.loads((folder / "data.yaml").read_text())
            write_json(folder / "data.yaml", {**data, "repeats": chosen.repeats})
        return model, {
            "data": str(folder / "data.yaml"),
            "project": str(folder),
            "name": "run",
            "exist_ok": True,
            "imgsz": todo.image_size,
            "device": device,
            "plots": False,
            "verbose": False,
            "seed": 0,
            "max_det": spec.max_regions,
            **chosen.arguments,
            **({} if batch is None else {"batch": batch}),
        }

    def run(batch: int | None) -> int:
        """See `back_off`."""
        if last.exists() and _is_finished(last):
            log.info("%s: its last epoch was done already", network.key)
            return 0
        model, arguments = go_on(batch) if last.exists() else begin(batch)
        model.add_callback("on_fit_epoch_end", report)
        try:
            model.train(trainer=trainer, **arguments)
        except RuntimeError as error:
            if model.trainer is None or not is_out_of_memory(error):
                raise
            return int(model.trainer.args.batch)  # ultralytics may have halved it before
        return 0

    mend(folder / "run")
    back_off(run)
    write_json(folder / "trained.json", {"seconds": time.monotonic() - began})


def _is_finished(checkpoint: Path) -> bool:
    """Whether a crash came after the last epoch: ultralytics refuses to go on from such a checkpoint."""
    found = read_checkpoint(checkpoint)
    return bool(found["epoch"] < 0 or found["epoch"] + 1 >= found["train_args"]["epochs"])


PROGRESS = {
    "detect": "mAP50(B)",
    "obb": "mAP50(B)",
    "segment": "mAP50(M)",
    "pose": "mAP50(P)",
    "classify": "accuracy_top1",
}
"""ultralytics' names of what is told while a training runs."""


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


if __name__ == "__main__":
    main()
    # All is written; taking torch down in order would take another second.
    logging.shutdown()
    os._exit(0)
