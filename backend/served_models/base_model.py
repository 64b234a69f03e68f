"""The pretrained weights that everything starts from: on disk, downloaded once, or not to be had."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backend.engine.weights import hash_file, sha256
from backend.labels.networks import Task
from backend.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """Where the weights lie, or None and the reason in words that say what to do."""

    path: Path | None
    why: str = ""


_SUFFIX: Mapping[Task, str] = {"detect": "", "obb": "-obb", "segment": "-seg", "pose": "-pose", "classify": "-cls"}
_PUBLISHED = re.compile(r"(?P<family>yolo[a-z]*\d+[a-z]?)(-(obb|seg|pose|cls))?\.pt")


def base_name(settings: Settings, task: Task) -> str:
    """The base model's file for a task: `yolo11n.pt` stands for its siblings `yolo11n-seg.pt` and so on too."""
    published = _PUBLISHED.fullmatch(settings.base_model)
    if published is None:
        return settings.base_model
    return f"{published['family']}{_SUFFIX[task]}.pt"


def yaml_for(settings: Settings, task: Task) -> str:
    """The architecture to train with random weights."""
    published = _PUBLISHED.fullmatch(settings.base_model)
    return f"{published['family'] if published else 'yolo11n'}{_SUFFIX[task]}.yaml"


def find_base_model(settings: Settings, task: Task = "detect", model_path: str = "") -> BaseModel:
    """Look for pretrained weights in `YOLOOP_MODELS`, without any download.

    Args:
        model_path: the file's name, when the labelling config names one.
    """
    name = model_path or base_name(settings, task)
    if not name:
        return BaseModel(None, "YOLOOP_BASE_MODEL is empty, so nothing is suggested before the first training.")
    if Path(name).name != name or not name.endswith(".pt"):
        named = "model_path in the labelling config" if model_path else "YOLOOP_BASE_MODEL"
        return BaseModel(None, f"{named} must be the name of a .pt file; put the file into the folder YOLOOP_MODELS.")
    path = settings.models_dir / name
    with suppress(OSError, ValueError):  # a name that no file can have
        if path.is_file() and path.stat().st_size > 0:
            return BaseModel(path)
    name = name if len(name) <= 100 else f"{name[:99]}…"
    return BaseModel(
        None,
        f"The pretrained weights {name} are neither in the folder YOLOOP_MODELS nor downloaded, so nothing is "
        "suggested before the first training. Put the file there to start from it.",
    )


def get_base_model(settings: Settings, task: Task = "detect", model_path: str = "") -> BaseModel:
    """As `find_base_model`, but downloaded when it is missing; that may take minutes.

    Only what `YOLOOP_BASE_MODEL` stands for is downloaded, never what a labelling config names, and nothing with
    `YOLOOP_OFFLINE`.
    """
    found = find_base_model(settings, task, model_path)
    if found.path is not None or settings.offline or model_path:
        return found
    name = base_name(settings, task)
    try:
        _download(name, settings.models_dir)
    except Exception as error:  # ultralytics raises many kinds; without weights yoloop still learns
        log.warning("The base model %s could not be downloaded (%s).", name, type(error).__name__)
    return find_base_model(settings, task)


def _download(name: str, folder: Path) -> None:
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    if name not in GITHUB_ASSETS_NAMES:
        raise FileNotFoundError(name)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as part:
        got = Path(attempt_download_asset(Path(part) / name, retry=0, progress=False))
        hash_file(folder / name).write_text(f"{sha256(got)}  {name}\n")
        got.replace(folder / name)
    log.info("Base model %s downloaded", name)
