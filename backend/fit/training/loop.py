"""ultralytics' training loop, which ends with the minutes and never sees an image that judges.

ultralytics chooses the best epoch, and the one to stop after, by a validation; on held-out images that would be what
they are to judge, and with few images any part that is kept back is missed by what is learned. So the weights of the
last epoch are taken: they are the moving average that ultralytics keeps, at the end of the learning rate's decay. With
20 images and three seeds they reached an mAP50-95 of 0.65, those of the best epoch on a fifth kept back 0.57. What
is told while a training runs is measured on some of the images that train.
"""

from __future__ import annotations

import heapq
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ultralytics.data.utils import img2label_paths
from ultralytics.utils.torch_utils import strip_optimizer

from backend.fit.dataset.prepared_images import link
from backend.fit.evaluation.held_out import rank
from backend.fit.training.minutes import Minutes
from backend.labels.networks import Task

log = logging.getLogger(__name__)

WATCHED = 32
"""Training images on which is measured what people are told meanwhile: a validation costs time of each epoch."""

NOTED = 2.0
"""Seconds after which what was spent is written down within an epoch."""

SAVED = 60.0
"""Seconds of an epoch after which a checkpoint is written, unless that takes more than a fiftieth of the time."""


def watched(folder: Path, task: Task) -> dict[str, Any]:
    """What ultralytics is to validate on: some images that train, in a folder of their own.

    Returns:
        The entries of its dataset that say so.
    """
    if task == "classify":
        teach = json.loads((folder / "data.yaml").read_text())["teach"]
        return {"judge": heapq.nsmallest(WATCHED, teach, key=lambda each: rank(each["image"]))}
    images = folder / "watched" / "images"
    # A folder of their own: ultralytics keeps what it knows of labels in one file a folder, for one list of images.
    for each in (images, images.with_name("labels")):
        each.mkdir(parents=True, exist_ok=True)
    for name in heapq.nsmallest(WATCHED, set((folder / "train.txt").read_text().splitlines()), key=rank):
        label = Path(img2label_paths([name])[0])
        link(Path(name), images / Path(name).name)
        if label.exists():
            link(label, images.with_name("labels") / label.name)
    return {"val": str(images)}


def trainer_of(base: type[Any], validation: Mapping[str, Any]) -> type[Any]:
    """A trainer of ultralytics that validates on what `watched` gave and takes the last epoch's weights."""

    class Trainer(base):  # type: ignore[misc]
        def get_dataset(self) -> dict[str, Any]:
            return {**super().get_dataset(), **validation}

        def validate(self) -> tuple[Any, Any]:
            metrics, fitness = super().validate()
            self.best_fitness = fitness  # so that best.pt is written, too, as the same
            return metrics, fitness

        def final_eval(self) -> None:
            finish(self.wdir)

        def _get_warmup_iterations(self, num_batches: int) -> int:
            return 0  # see `Loop`

    return Trainer


def finish(weights: Path) -> None:
    """Keep of the last checkpoint what serves: `last.pt` and `best.pt` are the same weights."""
    last = weights / "last.pt"
    strip_optimizer(last)
    part = weights / ".best.pt.part"
    shutil.copyfile(last, part)
    part.replace(weights / "best.pt")


class Loop:
    """Callbacks that end a training with its minutes, within an epoch where they end there.

    The learning rate follows the batches that are planned, or the minutes where these end sooner, so that it has
    decayed when they are over; its warm-up is shorter in the same measure.

    Args:
        note: is told from time to time that the training goes on; `trainer` is given where an epoch has ended.
    """

    def __init__(self, minutes: Minutes, note: Callable[[Any | None], None]) -> None:
        self._minutes, self._note = minutes, note
        self._batch = 0
        self._noted = self._saved = minutes.spent
        self._cost = 0.0

    def attach(self, model: Any) -> None:
        """Let ultralytics' model call this when it trains."""
        for name in (
            "on_pretrain_routine_start",
            "on_train_epoch_start",
            "on_train_batch_start",
            "on_train_batch_end",
            "on_fit_epoch_end",
        ):
            model.add_callback(name, getattr(self, name))

    def on_pretrain_routine_start(self, _trainer: Any) -> None:
        self._note(None)

    def on_train_epoch_start(self, _trainer: Any) -> None:
        self._batch = 0
        self._minutes.begin()

    def on_train_batch_start(self, trainer: Any) -> None:
        """Set the learning rate and the momentum of one batch."""
        batches, args = len(trainer.train_loader), trainer.args
        step, planned = trainer.epoch * batches + self._batch, trainer.epochs * batches
        rate = trainer.lf(max(step / planned, self._minutes.share) * trainer.epochs)
        short = min(1.0, (step + self._minutes.batches()) / planned)
        warm = min(args.warmup_epochs, max(trainer.epochs - 1, 0)) * batches * short
        gone = min(1.0, step / warm) if warm else 1.0
        for group in trainer.optimizer.param_groups:
            start = args.warmup_bias_lr if group.get("param_group") == "bias" else 0.0
            group["lr"] = start + gone * (group["initial_lr"] * rate - start)
            if "momentum" in group:
                group["momentum"] = args.warmup_momentum + gone * (args.momentum - args.warmup_momentum)

    def on_train_batch_end(self, trainer: Any) -> None:
        self._batch += 1
        self._minutes.batch()
        if self._minutes.over:
            trainer.stop = True
            trainer.epochs = trainer.args.epochs = trainer.epoch + 1
            return
        spent = self._minutes.spent
        if spent - self._noted >= NOTED:
            self._noted = spent
            self._note(None)
        if spent - self._saved >= max(SAVED, 50 * self._cost) and self._batch < len(trainer.train_loader):
            trainer.ema.update_attr(trainer.model, include=["yaml", "nc", "args", "names", "stride", "class_weights"])
            trainer.save_model()
            self._saved = self._minutes.spent
            self._cost = self._saved - spent
        self._minutes.begin()

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Plan as many epochs as there is time for."""
        self._minutes.epoch()
        self._noted = self._saved = self._minutes.spent
        done = trainer.epoch + 1
        last = done + self._minutes.epochs(len(trainer.train_loader))
        if last < trainer.epochs:
            trainer.epochs = trainer.args.epochs = int(last)
            trainer._setup_scheduler()
            trainer.scheduler.last_epoch = trainer.epoch
            trainer.stop |= done >= last
        self._note(trainer)
