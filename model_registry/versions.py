"""Versions of models with their artifacts, on MLflow. Every write can be repeated without harm."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from model_registry.long_tags import cut, joined
from model_registry.mlflow_client import make_client
from model_registry.serving import Rows, Unshared
from model_registry.sqlite_file import SQLITE
from model_registry.version import HASHES, Version

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

WEB = ("http://", "https://")
"""What the address of a server begins with."""

AT_ONCE = 1000
"""Metrics that MLflow takes in one call."""

LEAST = 16 * 2**20
"""Bytes below which a file that could not be written is put down to the disk."""

PART = "part-"
ABANDONED = 3600.0
"""What the names of folders begin with that are being filled, and seconds after which nobody fills them any more."""

AFTER = "numbers_after"
"""Tag of a version: the highest number that was given out before. One whose own is not higher is none: MLflow counts
from 1 again after a registered model was deleted, and no number is given twice."""

ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""How MLflow says that there is no such thing."""


class RegistryError(Exception):
    """A version or artifact that is not there, or is not what was registered."""


class Versions:
    """The versions of one installation.

    Args:
        tracking_uri: MLflow's tracking and registry server, or `sqlite:///…`.
        folder: where artifacts are stored (SQLite only) and local copies of weights are kept.
        rows: the database that says which version serves; None: MLflow alone says so.
    """

    def __init__(self, tracking_uri: str, folder: Path, rows: Rows | None = None) -> None:
        self._uri = tracking_uri
        self._folder = folder
        self._rows: Rows = rows or Unshared()

    @cached_property
    def _client(self) -> MlflowClient:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._uri.startswith(WEB):
            return make_client(self._uri)  # its database is its own affair
        # A client of a SQLite file makes its schema, and several processes start at once.
        with FileLock(self._folder / "schema.lock"):
            client = make_client(self._uri)
            client.search_experiments(max_results=1)
        return client

    @property
    def in_file(self) -> bool:
        """Whether it is a file of this machine, which costs little to ask."""
        return self._uri.startswith(SQLITE)

    @property
    def copies(self) -> Path:
        """Folder of the local copies: one folder for each model."""
        return self._folder / "local"

    def tidy(self, now: float) -> None:
        """Remove what processes that were killed began to write, once nobody can still be writing it.

        Args:
            now: epoch seconds.
        """
        for place in (self._folder, *self.copies.glob("*/*")):
            for path in place.glob(f"{PART}*"):
                with contextlib.suppress(OSError):
                    if now - path.stat().st_mtime > ABANDONED:
                        shutil.rmtree(path)

    def register(
        self,
        model: str,
        key: str,
        artifacts: Mapping[str, Path],
        *,
        metrics: Mapping[str, float],
        params: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> Version:
        """Store a trained model and its lineage as the next version.

        Args:
            model: the registered model, one per project.
            key: names the training; asked twice with one key, the first version is returned.
            artifacts: file name → local file; those ending in `.pt` are weights, of which there must be some.
            metrics: numbers to keep with the version.
            params: how it was trained.
            tags: its lineage: `parent`, `classes`, `fingerprint` …
        """
        client = self._client
        self._ensure_model(model)
        for known in self.versions(model):
            if known.tags.get("key") == key:
                self._rows.given(model, known.number)
                return known
        run = client.create_run(
            self._experiment(), run_name=f"{model} {key}", tags={"yoloop.model": model, "yoloop.key": key}
        )
        self._log(run.info.run_id, metrics)
        for name, text in params.items():
            client.log_param(run.info.run_id, name, text)
        for name, path in artifacts.items():
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=PART) as named:
                copy = Path(named) / name
                shutil.copyfile(path, copy)
                client.log_artifact(run.info.run_id, str(copy))
        client.set_terminated(run.info.run_id)
        hashes = {name: _sha256(path) for name, path in artifacts.items()}
        while True:
            after = self._rows.highest(model)
            made = client.create_model_version(
                model,
                source=f"runs:/{run.info.run_id}/{next(name for name in artifacts if name.endswith('.pt'))}",
                run_id=run.info.run_id,
                tags=cut({**tags, "key": key, HASHES: json.dumps(hashes), AFTER: str(after)}),
            )
            if int(made.version) > after:
                break
            client.delete_model_version(model, str(made.version))
        self._rows.given(model, int(made.version))
        return self.version(model, int(made.version))

    def _log(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Many at once: one for each of thousands of labels would take minutes one by one."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        made = [Metric(name, value, now, 0) for name, value in metrics.items()]
        for start in range(0, len(made), AT_ONCE):
            self._client.log_batch(run_id, metrics=made[start : start + AT_ONCE])

    def versions(self, model: str) -> list[Version]:
        """All versions of a model, newest first; empty for a model that has none."""
        client = self._client  # before any import of MLflow, which reads its settings then
        from mlflow.exceptions import MlflowException

        try:
            found = client.search_model_versions(f"name = '{model}'", max_results=10_000)
        except MlflowException as error:
            if error.error_code in ABSENT:
                return []
            raise
        counted = [each for each in found if int(each.version) > int(each.tags.get(AFTER, 0))]
        return sorted((self._read(each) for each in counted), key=lambda version: version.number, reverse=True)

    def version(self, model: str, number: int) -> Version:
        """One version. Raises RegistryError when there is none of that number."""
        client = self._client  # before any import of MLflow, which reads its settings then
        from mlflow.exceptions import MlflowException

        try:
            found = client.get_model_version(model, str(number))
        except MlflowException as error:
            if error.error_code in ABSENT:
                raise RegistryError(f"There is no version v{number}.") from None
            raise
        return self._read(found)

    def note(self, model: str, number: int, name: str, text: str) -> None:
        """Tag a version, unless it has a tag of that name."""
        if name not in self.version(model, number).tags:
            # What says that it is there comes last.
            for part, value in reversed(cut({name: text}).items()):
                self._client.set_model_version_tag(model, str(number), part, value)

    def fetch(self, version: Version, name: str = "weights.pt") -> Path:
        """A local copy of one of a version's artifacts, checked against its hash.

        Raises RegistryError when it is gone or not what was registered; what a store that cannot be reached raises.
        """
        if (here := self.copy_of(version, name)) is not None:
            return here
        target = self.copies / version.model / str(version.number) / name
        expected = version.hashes.get(name, "")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=PART) as folder:
            try:
                got = Path(self._client.download_artifacts(version.run_id, name, folder))
            except Exception:
                if shutil.disk_usage(self._folder).free < LEAST:  # MLflow does not say so
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
                if name in {each.path for each in self._client.list_artifacts(version.run_id)}:
                    raise
                raise RegistryError(f"The stored {name} of {version.name} is gone.") from None
            if expected and _sha256(got) != expected:
                raise RegistryError(f"The stored {name} of {version.name} is not the one that was registered.")
            got.replace(target)
        return target

    def copy_of(self, version: Version, name: str) -> Path | None:
        """The local copy of one of a version's artifacts, if there is one and it is what was registered."""
        path = self.copies / version.model / str(version.number) / name
        expected = version.hashes.get(name, "")
        return path if path.exists() and (not expected or _sha256(path) == expected) else None

    def verify(self, version: Version, name: str) -> None:
        """Read one of a version's stored artifacts. Raises RegistryError when it is gone or not what was registered."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=PART) as folder:
            try:
                got = Path(self._client.download_artifacts(version.run_id, name, folder))
            except Exception as error:  # each kind of store has its own
                raise RegistryError(
                    f"The stored {name} of {version.name} cannot be read ({type(error).__name__})."
                ) from None
            if (expected := version.hashes.get(name, "")) and _sha256(got) != expected:
                raise RegistryError(f"The stored {name} of {version.name} is not the one that was registered.")

    def forget(self, model: str) -> int:
        """Delete a model with all its versions, runs, artifacts and local copies. Returns how many versions it had.

        Safe to repeat. An MLflow server keeps what it deletes until its own garbage collection.
        """
        client = self._client  # before any import of MLflow, which reads its settings then
        from mlflow.exceptions import MlflowException

        count = len(self.versions(model))
        runs = self._runs(model)
        try:
            client.delete_registered_model(model)
        except MlflowException as error:
            if error.error_code not in ABSENT:
                raise
        for run in runs:
            client.delete_run(run)
            if self.in_file:
                shutil.rmtree(self._folder / "artifacts" / run, ignore_errors=True)
                # MLflow's own garbage collection, which is a command, does no more.
                client._tracking_client.store._hard_delete_run(run)
        shutil.rmtree(self.copies / model, ignore_errors=True)
        return count

    def _runs(self, model: str) -> list[str]:
        """Ids of all trainings of a model, those without a version too."""
        found = self._client.get_experiment_by_name("yoloop")
        if found is None:
            return []
        runs: list[str] = []
        token = None
        while True:
            page = self._client.search_runs(
                [found.experiment_id], f"tags.`yoloop.model` = '{model}'", max_results=1000, page_token=token
            )
            runs += [run.info.run_id for run in page]
            token = page.token
            if not token:
                return runs

    def _experiment(self) -> str:
        client = self._client
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name("yoloop")
        if found is None:
            local = (self._folder / "artifacts").absolute().as_uri() if self._uri.startswith("sqlite:") else None
            try:
                return str(client.create_experiment("yoloop", artifact_location=local))
            except MlflowException:  # made by another process in between
                found = client.get_experiment_by_name("yoloop")
                if found is None:
                    raise
        return str(found.experiment_id)

    def _ensure_model(self, model: str) -> None:
        client = self._client
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _read(self, found: Any) -> Version:
        run = self._client.get_run(found.run_id)
        return Version(
            model=found.name,
            number=int(found.version),
            created_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
            run_id=found.run_id,
            tags=joined(found.tags),
            metrics=dict(run.data.metrics),
            champion=False,
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
