"""The checkpoints of a training that was interrupted: a full disk or a crash can leave half of one."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from backend.engine.weights import read_checkpoint

log = logging.getLogger(__name__)


def mend(run: Path) -> Path | None:
    """The checkpoint that a run goes on from; None where it has to begin anew, and what is left of it is removed.

    ultralytics writes `last.pt` after each epoch, and the same bytes once more as `best.pt` where it is the best one:
    of the two, one is whole, unless the first epoch was interrupted.
    """
    last, best = run / "weights" / "last.pt", run / "weights" / "best.pt"
    if not last.exists():
        return None
    if _is_whole(last):
        if best.exists() and not _is_whole(best):
            _put(last, best)
        return last
    if best.exists() and _is_whole(best):
        log.warning("The last checkpoint is half written; the training goes on from the best one")
        _put(best, last)
        return last
    log.warning("No checkpoint of the interrupted training is whole; it begins anew")
    shutil.rmtree(run)
    return None


def _put(source: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, part)
    part.replace(target)


def _is_whole(checkpoint: Path) -> bool:
    try:
        return "epoch" in read_checkpoint(checkpoint)
    except Exception:  # torch raises many kinds for half a file
        return False
