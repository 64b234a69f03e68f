"""The pretrained weights that everything starts from: on disk, downloaded once, or not to be had."""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from backend.settings import Settings

log = logging.getLogger(__name__)

RETRY_DOWNLOAD = 3600.0
"""Seconds after a download that failed before the next try."""


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


class BaseModelSource:
    """Finds the base model and, unless `YOLOOP_OFFLINE` is set, downloads it once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._failed_at: float | None = None

    def get(self) -> BaseModel:
        """The base model; may take as long as a download does, at most once an hour."""
        found = find_base_model(self._settings)
        if found.path is not None or self._settings.offline or not self._settings.base_model.endswith(".pt"):
            return found
        if self._failed_at is not None and time.monotonic() - self._failed_at < RETRY_DOWNLOAD:
            return found
        try:
            self._download(self._settings.base_model)
        except Exception as error:  # ultralytics raises many kinds; without weights yoloop still learns
            self._failed_at = time.monotonic()
            log.warning("Base model not downloaded (%s). %s", type(error).__name__, found.why)
        return find_base_model(self._settings)

    def _download(self, name: str) -> None:
        from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

        if name not in GITHUB_ASSETS_NAMES:
            raise FileNotFoundError(name)
        folder = self._settings.models_dir
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as part:
            got = Path(attempt_download_asset(Path(part) / name, retry=0, progress=False))
            got.replace(folder / name)
        log.info("Base model %s downloaded", name)
