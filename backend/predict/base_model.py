"""The pretrained weights that everything starts from: on disk, downloaded once, or not to be had."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

from backend.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """Where the weights lie, or None and the reason in words that say what to do."""

    path: Path | None
    why: str = ""


def find_base_model(settings: Settings) -> BaseModel:
    """Look for `YOLOOP_BASE_MODEL` in `YOLOOP_MODELS`, without any download."""
    name = settings.base_model
    if not name:
        return BaseModel(None, "YOLOOP_BASE_MODEL is empty, so nothing is suggested before the first training.")
    if Path(name).name != name:
        return BaseModel(None, "YOLOOP_BASE_MODEL must be a file name; put the file into the folder YOLOOP_MODELS.")
    path = settings.models_dir / name
    if path.is_file() and path.stat().st_size > 0:
        return BaseModel(path)
    return BaseModel(
        None,
        f"The pretrained weights {name} are neither in the folder YOLOOP_MODELS nor downloaded, so nothing is "
        "suggested before the first training. Put the file there to start from it.",
    )


def get_base_model(settings: Settings) -> BaseModel:
    """The base model, downloaded when it is missing and `YOLOOP_OFFLINE` is not set; that may take minutes."""
    found = find_base_model(settings)
    if found.path is not None or settings.offline or not settings.base_model.endswith(".pt"):
        return found
    try:
        _download(settings.base_model, settings.models_dir)
    except Exception as error:  # ultralytics raises many kinds; without weights yoloop still learns
        log.warning("The base model could not be downloaded (%s).", type(error).__name__)
    return find_base_model(settings)


def _download(name: str, folder: Path) -> None:
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    if name not in GITHUB_ASSETS_NAMES:
        raise FileNotFoundError(name)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as part:
        got = Path(attempt_download_asset(Path(part) / name, retry=0, progress=False))
        got.replace(folder / name)
    log.info("Base model %s downloaded", name)
