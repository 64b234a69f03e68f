"""The ledger's examples as files that ultralytics trains on."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.errors import ImageError, TrainingError
from backend.fit.ledger import Example
from backend.fit.splits import is_held_out, split_key
from backend.labels import rectangle
from backend.labels.schema import LabelSchema
from backend.services import Services
from backend.store import Project

log = logging.getLogger(__name__)

UNREADABLE = 0.2
"""Share of images that may fail before it is rather Label Studio, or the network, that has failed."""

FETCH_DEADLINE = 3600.0


@dataclass(frozen=True, slots=True)
class Picture:
    """One annotated image of one task, and on which side it stands."""

    example: Example
    data_key: str
    reference: str
    held_out: bool

    @property
    def stem(self) -> str:
        return f"{self.example.task_id}-{self.data_key}"


@dataclass(frozen=True, slots=True)
class Dataset:
    """What was written: the counts, the sizes of the images (width, height) and what could not be read.

    `learned` maps task id → content of the examples whose images were all read; `unreadable` task id → reason.
    """

    train: int
    holdout: int
    boxes: int
    sizes: list[tuple[int, int]]
    learned: dict[int, str]
    unreadable: dict[int, str]


def pictures_of(examples: Sequence[Example], schema: LabelSchema, share: float) -> list[Picture]:
    """The images that the examples speak of; the split depends on the image's address alone."""
    keys = dict.fromkeys(control.data_key for control in schema.controls)
    return [
        Picture(example, key, reference, is_held_out(split_key(reference), share))
        for example in examples
        for key in keys
        if isinstance(reference := example.data.get(key), str) and reference
    ]


def build(
    services: Services, project: Project, schema: LabelSchema, examples: Sequence[Example], folder: Path
) -> Dataset:
    """Write `data.yaml`, images, labels, `holdout.json` and `manifest.json`; repeated, it starts over.

    Raises TrainingError when there is nothing to learn from, or too many images cannot be read.
    """
    for name in ("images", "labels"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for side in ("train", "holdout"):
        (folder / "images" / side).mkdir(parents=True)
        (folder / "labels" / side).mkdir(parents=True)
    pictures = pictures_of(examples, schema, services.settings.holdout)
    source = services.source_of(project)
    sources = [source(picture.reference, picture.example.task_id) for picture in pictures]
    sizes: list[tuple[int, int]] = []
    unreadable: dict[int, str] = {}
    held_out: list[dict[str, object]] = []
    boxes = 0
    for index, image in services.images.load_many(sources, time.monotonic() + FETCH_DEADLINE):
        picture = pictures[index]
        try:
            if isinstance(image, ImageError):
                raise image
            original = services.images.fetch(sources[index])  # the cache may have dropped it again meanwhile
        except ImageError as error:
            unreadable[picture.example.task_id] = str(error)
            continue
        height, width = image.shape[:2]
        labels = [
            box
            for control in schema.controls
            if control.data_key == picture.data_key
            for box in rectangle.from_regions(picture.example.result, control, schema.classes)
        ]
        side = "holdout" if picture.held_out else "train"
        path = _write_image(folder / "images" / side, picture.stem, original, image)
        lines = "\n".join(map(rectangle.yolo_line, labels))
        (folder / "labels" / side / f"{path.stem}.txt").write_text(lines)
        if picture.held_out:
            corners = [
                [
                    (box.cx - box.w / 2) * width,
                    (box.cy - box.h / 2) * height,
                    (box.cx + box.w / 2) * width,
                    (box.cy + box.h / 2) * height,
                ]
                for box in labels
            ]
            held_out.append({"image": str(path), "boxes": corners, "classes": [box.cls for box in labels]})
        boxes += len(labels)
        sizes.append((width, height))
    _check(pictures, unreadable, boxes)
    train = len(sizes) - len(held_out)
    # With few images one side can be empty; then the other stands in, so that ultralytics can run at all.
    teach = sorted(map(str, (folder / "images" / ("train" if train else "holdout")).iterdir()))
    (folder / "train.txt").write_text("\n".join(teach))
    judge = "images/holdout" if held_out else "images/train"
    names = dict(enumerate(schema.classes))
    config = {"path": str(folder), "train": "epoch.txt", "val": judge, "names": names}
    (folder / "data.yaml").write_text(json.dumps(config))  # JSON is YAML, and no label can break it
    (folder / "holdout.json").write_text(json.dumps(held_out))
    _write_manifest(folder / "manifest.json", project, schema, pictures, unreadable)
    learned = {each.task_id: each.content for each in examples if each.task_id not in unreadable}
    return Dataset(train or len(held_out), len(held_out), boxes, sizes, learned, unreadable)


def _check(pictures: Sequence[Picture], unreadable: dict[int, str], boxes: int) -> None:
    if not pictures:
        raise TrainingError("No annotated task has an image.", "Check the value of the Image tag.")
    if len(unreadable) > UNREADABLE * len(pictures):
        task, why = next(iter(unreadable.items()))
        raise TrainingError(f"{len(unreadable)} of {len(pictures)} images could not be read; task {task}: {why}")
    if not boxes:
        raise TrainingError(
            "No submitted annotation has a box with a label of the labelling config.",
            "Draw some boxes and submit.",
        )
    for task, why in unreadable.items():
        log.warning("Task %s is left out of the training: %s", task, why)


def _write_image(folder: Path, stem: str, original: Path, image: NDArray[np.uint8]) -> Path:
    """Link the original when ultralytics reads it as a browser does; else write the upright pixels."""
    with original.open("rb") as file:
        head = file.read(65536)
    plain = head.startswith(b"\xff\xd8") and b"Exif" not in head
    path = folder / f"{stem}.{'jpg' if plain else 'png'}"
    if plain:
        try:
            os.link(original, path)
        except OSError:
            shutil.copyfile(original, path)
    else:
        cv2.imwrite(str(path), image)
    return path


def _write_manifest(
    path: Path, project: Project, schema: LabelSchema, pictures: Sequence[Picture], unreadable: dict[int, str]
) -> None:
    manifest = {
        "project": project.uid,
        "classes": list(schema.classes),
        "label_config": project.label_config,
        "images": [
            {
                "task": picture.example.task_id,
                "annotation": picture.example.annotation_id,
                "content": picture.example.content,
                "image": split_key(picture.reference)[:500],
                "side": "holdout" if picture.held_out else "train",
                "unreadable": unreadable.get(picture.example.task_id, ""),
            }
            for picture in pictures
        ],
    }
    path.write_text(json.dumps(manifest, indent=1))
