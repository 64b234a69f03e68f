"""Opening a checkpoint: a `.pt` file is a pickle, which may carry code, so it is read as data only.

What may be opened is decided elsewhere: the registry's versions, whose hashes it checks, and files in the folder
YOLOOP_MODELS. Beside such a file, `<name>.sha256` may say what it has to be; yoloop writes one when it downloads.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from backend.errors import YoloopError


def open_model(weights: Path, task: str | None = None) -> Any:
    """ultralytics' model of a file. Nothing in the file is run, only what ultralytics itself knows is made.

    Raises YoloopError for a file that is not the one it should be; ultralytics raises many kinds for one that is none.
    """
    from ultralytics import YOLO

    _only_data()
    check_hash(weights)
    return YOLO(str(weights), task=task)


def task_or_trouble(weights: Path) -> tuple[str, str]:
    """What a file is a model for, as ultralytics calls it; or empty, and why it cannot be opened, in one sentence.

    For files that anybody may have put there.
    """
    try:
        return str(open_model(weights).task), ""
    except YoloopError as error:
        return "", str(error)
    except OSError as error:
        return "", f"{weights.name} cannot be read: {error.strerror or type(error).__name__}."
    except Exception:  # ultralytics raises many kinds for what is no model of its own
        return "", f"{weights.name} is no model that ultralytics can open."


def read_checkpoint(weights: Path) -> dict[str, Any]:
    """What is stored in a checkpoint; as `open_model`."""
    from ultralytics.nn.tasks import torch_safe_load

    _only_data()
    check_hash(weights)
    found: dict[str, Any] = torch_safe_load(str(weights), safe_only=True)[0]
    return found


def check_hash(weights: Path) -> None:
    """Raise YoloopError where a file of weights is not the one that the hash beside it tells of."""
    beside = hash_file(weights)
    if not beside.exists():
        return
    expected = beside.read_text(errors="replace").split()
    if expected[:1] != [sha256(weights)]:
        raise YoloopError(
            f"The weights {weights.name} are not those that {beside.name} tells of.",
            f"Put the right file there, or remove {beside.name} if the new one is meant.",
        )


def hash_file(weights: Path) -> Path:
    """Where the hash of a file of weights stands, as `sha256sum` writes it."""
    return weights.with_name(f"{weights.name}.sha256")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _only_data() -> None:
    """ultralytics would silently read pickles as torch once did where it cannot do otherwise."""
    from ultralytics.nn import tasks
    from ultralytics.utils import SAFE_LOAD

    if not (SAFE_LOAD and tasks._SafeLoad.SUPPORTED):
        raise YoloopError("Checkpoints cannot be read safely here.", "Update torch and ultralytics.")
