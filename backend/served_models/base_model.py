"""The pretrained weights that everything starts from: on disk, downloaded once, or not to be had."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from backend.engine.weights import hash_file, sha256
from backend.errors import LabelConfigError
from backend.labels.networks import Task, task_of
from backend.labels.schema import parse_label_config
from backend.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """Where the weights lie, or None and the reason in words that say what to do."""

    path: Path | None
    why: str = ""


_SUFFIX: Mapping[Task, str] = {"detect": "", "obb": "-obb", "segment": "-seg", "pose": "-pose", "classify": "-cls"}
FINDS: Mapping[Task, str] = {
    "detect": "boxes",
    "obb": "turned boxes",
    "segment": "outlines",
    "pose": "points",
    "classify": "choices",
}
"""What a model for each task finds, in words for people."""

COMPLETE = "yolo11"
"""A family that has a model for every task."""

_SCALE = re.compile(r"(yolo[a-z]*\d+)[nsmlx]([-.])")
_PUBLISHED = re.compile(r"(?P<family>yolo[a-z]*\d+[a-z]?)(-(obb|seg|pose|cls))?\.pt")


def base_name(settings: Settings, task: Task) -> str:
    """The base model's file for a task: `yolo11n.pt` stands for its siblings `yolo11n-seg.pt` and so on too."""
    published = _PUBLISHED.fullmatch(settings.base_model)
    if published is None:
        return settings.base_model
    return f"{published['family']}{_SUFFIX[task]}.pt"


def yaml_for(settings: Settings, task: Task) -> str:
    """The architecture to train with random weights: of the base model's family where it has one for the task."""
    published = _PUBLISHED.fullmatch(settings.base_model)
    if published is None:
        return f"{COMPLETE}n{_SUFFIX[task]}.yaml"
    family = published["family"]
    if _has_architecture(f"{family}{_SUFFIX[task]}.yaml"):
        return f"{family}{_SUFFIX[task]}.yaml"
    scale = family[-1] if family[-1] in "nsmlx" else "n"
    return f"{COMPLETE}{scale}{_SUFFIX[task]}.yaml"


def without_sibling(settings: Settings, task: Task) -> str:
    """That the base model's family has no model for a task, and what is done then, in one sentence; else empty."""
    published = _PUBLISHED.fullmatch(settings.base_model)
    if published is None or _has_architecture(f"{published['family']}{_SUFFIX[task]}.yaml"):
        return ""
    return (
        f"{published['family']} has no model for {FINDS[task]}, so these start from random weights of "
        f"{yaml_for(settings, task).removesuffix('.yaml')}."
    )


@cache
def _has_architecture(name: str) -> bool:
    """Whether ultralytics has an architecture of that name; most files stand for all sizes of one."""
    package = find_spec("ultralytics")  # without its import, which takes seconds and 400 MB
    if package is None or package.origin is None:
        return False
    known = {path.name for path in (Path(package.origin).parent / "cfg" / "models").rglob("*.yaml")}
    return name in known or _SCALE.sub(r"\1\2", name) in known


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
    if not model_path and (why := without_sibling(settings, task)):
        return BaseModel(None, f"{why} Set YOLOOP_BASE_MODEL to a model of {COMPLETE} to begin with more.")
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


def starts_pretrained(settings: Settings, label_config: str) -> bool:
    """Whether there are pretrained weights for everything that a labelling config asks for, as far as files tell."""
    try:
        controls = parse_label_config(label_config).require().controls
    except LabelConfigError:
        return False
    learning = [control for control in controls if control.pinned is None]
    return bool(learning) and all(
        find_base_model(settings, task_of(control), control.model_path).path is not None for control in learning
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
