"""What a project's annotators get: labels that a model knows, and one image from Label Studio to suggestions."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from backend.errors import ImageError, LabelConfigError, YoloopError
from backend.health.check import Check, by_error, ill, well
from backend.health.machine import server_url
from backend.images.loader import Source
from backend.labels.references import field_of
from backend.labels.schema import LabelSchema, parse_label_config
from backend.labelstudio.probe import Probe
from backend.network.proxies import DIRECT
from backend.served_models.label_coverage import Mapping as LabelMapping
from backend.served_models.label_coverage import mappings
from backend.served_models.parts import parts_of
from backend.served_models.served import Served, trained, unloaded
from backend.served_models.version_string import number_of
from backend.services import open_images
from backend.settings import Settings
from model_registry import Version

_LOCAL_FILES = "/data/local-files/"
_UPLOADS = "/data/upload/"


@dataclass(frozen=True, slots=True)
class Task:
    """A task that is tried: its id, its data, and the first image that a control looks at."""

    id: int
    data: Mapping[str, Any]
    image: object


def labels(name: str, label_config: str) -> tuple[Check, LabelSchema | None]:
    """Whether the labelling config can be worked with."""
    try:
        schema = parse_label_config(label_config).require()
    except LabelConfigError as error:
        return by_error(name, error), None
    notes = "".join(f" {note}" for note in schema.notes)
    return well(name, f"{', '.join(schema.classes)}.{notes}"), schema


def known(name: str, schema: LabelSchema, version: Version, image_size: int) -> Iterator[Check]:
    """Which class of the version in service goes to which label, one check for each control."""
    parts = parts_of(version, image_size)
    pointing = {control.name for control in schema.controls if control.pointing}
    for each in mappings(schema, Served(version.name, trained(schema, [unloaded(part) for part in parts]))):
        if not each.model and each.control in pointing:
            yield well(
                f"{name} {each.control}", f"{each.control} ({each.kind}) is for pointing; nothing learned from it."
            )
        else:
            yield _mapped(f"{name} {each.control}", each)


def pretrained(name: str, settings: Settings, uid: str) -> Iterator[Check]:
    """The same before any training, as the serving process tells it. Labels without a class are no fault then."""
    answer = requests.get(
        f"{server_url(settings)}/report",
        params={"project": uid},
        auth=credentials(settings),
        timeout=10,
        proxies=DIRECT,
    )
    for project in answer.json().get("projects") or [] if answer.ok else []:
        for fields in project.get("controls") or []:
            each = LabelMapping(**fields)
            if not each.model or not each.classes:
                told = f"{each} It suggests from the first training on."
                yield well(f"{name} {each.control}", told)
            else:
                yield well(f"{name} {each.control}", str(each))


def image(name: str, probe: Probe, task: Task, settings: Settings) -> Check:
    """Whether an image can be fetched now; what was fetched earlier does not count."""
    source = Source(task.image if isinstance(task.image, str) else "", task.id, probe.url, probe.auth_headers)
    with (
        tempfile.TemporaryDirectory(prefix="yoloop-") as folder,
        closing(open_images(settings, Path(folder), 2**40)) as images,
    ):
        began = time.monotonic()
        try:
            found = images.load(source)
        except ImageError as error:
            return by_error(name, error, _mend(source.ref, error))
    seconds = time.monotonic() - began
    return well(
        name, f"That of task {task.id}, {found.size.width} × {found.size.height} pixels, came in {seconds:.2f} s."
    )


def prediction(name: str, task: Task, uid: str, label_config: str, serves: str, settings: Settings) -> Check:
    """One task through the running server, as Label Studio asks, and its answer as Label Studio takes it.

    Args:
        serves: name of the version in service.
    """
    body = {
        "tasks": [{"id": task.id, "data": task.data}],
        "project": uid,
        "label_config": label_config,
        "params": {"login": None, "password": None, "context": None},
    }
    began = time.monotonic()
    try:
        answer = requests.post(
            f"{server_url(settings)}/predict",
            json=body,
            auth=credentials(settings),
            timeout=settings.predict_budget + 10,
            proxies=DIRECT,
        )
        found = answer.json()
    except (requests.RequestException, ValueError) as error:
        return ill(name, f"The server did not answer ({type(error).__name__}).", "Look into the log of `yoloop up`.")
    seconds = time.monotonic() - began
    if answer.status_code == 401:
        return ill(
            name,
            "The server does not let this command in.",
            "Set the YOLOOP_BASIC_AUTH_USER and YOLOOP_BASIC_AUTH_PASS that `yoloop up` was started with.",
        )
    if not answer.ok:
        told = YoloopError(str(found.get("error") or f"HTTP {answer.status_code}."), str(found.get("hint") or ""))
        return by_error(name, told)
    (entry,) = found["results"]
    version = str(entry.get("model_version") or "")
    if "result" not in entry:
        return ill(name, str(entry.get("error")), "Mend that; the log of `yoloop up` may say more.")
    if number_of(version) != int(serves.removeprefix("v")):
        return ill(name, f"{version} answers, but {serves} is in service.", "Restart `yoloop up`; its log says why.")
    if errors := refused(label_config, entry):
        return ill(
            name,
            f"Label Studio's own check refuses it: {errors[0]}",
            f"Go back: `yoloop rollback --project {uid.partition('.')[0]}`.",
        )
    count = len(entry["result"])
    return well(
        name, f"Task {task.id} got {count} suggestion{'' if count == 1 else 's'} of {version} in {seconds:.2f} s."
    )


def refused(label_config: str, entry: Mapping[str, Any]) -> list[str]:
    """What the SDK's own check has against a prediction."""
    from label_studio_sdk.label_interface import LabelInterface

    kept = {key: entry[key] for key in ("result", "score", "model_version")}
    return [str(error) for error in LabelInterface(label_config).validate_prediction(kept, return_errors=True)]


def credentials(settings: Settings) -> tuple[str, str] | None:
    if not settings.basic_auth_user:
        return None
    return settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()


def tried(schema: LabelSchema, task: tuple[int, dict[str, Any]]) -> Task:
    """The task with the image of the config's first control."""
    found = field_of(task[1], schema.controls[0].data_key)
    return Task(task[0], task[1], found[0] if isinstance(found, list) and found else found)


def _mapped(name: str, each: LabelMapping) -> Check:
    return ill(name, str(each), each.remedy) if each.unmapped_labels else well(name, str(each))


def _mend(ref: str, error: ImageError) -> str:
    """What mends an image that Label Studio itself does not give, where its status misleads; else empty."""
    path, status = urlsplit(ref).path, error.message.rpartition("Label Studio answered HTTP ")[2].rstrip(".")
    if _UPLOADS in path and status in ("404", "500"):
        return "Import the image again and delete this task: Label Studio has lost its file."
    if path.endswith(_LOCAL_FILES) and status == "403":
        return "Start Label Studio with LOCAL_FILES_SERVING_ENABLED=true and LOCAL_FILES_DOCUMENT_ROOT=<folder>."
    if path.endswith(_LOCAL_FILES) and status == "404":
        return (
            "In the project's Settings → Cloud Storage add a Local Files storage whose path holds the image, below "
            "LOCAL_FILES_DOCUMENT_ROOT."
        )
    return ""
