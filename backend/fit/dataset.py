"""The ledger's examples as files that ultralytics trains on: one folder for each network."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from backend.errors import ImageError, TrainingError
from backend.fit.duplicates import Duplicates
from backend.fit.ledger import Example
from backend.fit.ready import Ready, link, made_of, recall, remember
from backend.fit.splits import is_held_out, split_key
from backend.fit.yolo_format import OKS_SIGMA, label_line
from backend.labels.convert import from_regions
from backend.labels.geometry import Detection, ImageSize
from backend.labels.networks import Network, pixels_enough, plan
from backend.labels.rectangle import is_turned
from backend.labels.schema import Control, LabelSchema
from backend.predict.images import Source
from backend.predict.references import pages_of
from backend.services import Services
from backend.store import Project

log = logging.getLogger(__name__)

UNREADABLE = 0.2
"""Share of images that may fail before it is rather Label Studio, or the network, that has failed."""

FETCH_DEADLINE = 3600.0


@dataclass(frozen=True, slots=True)
class Picture:
    """One annotated image of one task; `page` counts the images of one field."""

    example: Example
    data_key: str
    page: int
    reference: str

    @property
    def key(self) -> str:
        return split_key(self.reference)

    @property
    def stem(self) -> str:
        return f"{self.example.task_id}-{self.data_key}-{self.page}"


@dataclass(slots=True)
class NetworkData:
    """What one network learns from: its folder, how many images teach and judge, how many objects they show."""

    network: Network
    controls: tuple[Control, ...]
    folder: Path
    train: int = 0
    holdout: int = 0
    objects: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)
    drawn_with: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Dataset:
    """What was written, for the networks that have something to learn from.

    `learned` maps task id → content of the examples whose images were all read; `unreadable` task id → reason.
    """

    networks: list[NetworkData]
    learned: dict[int, str]
    unreadable: dict[int, str]


def pictures_of(examples: Sequence[Example], schema: LabelSchema) -> list[Picture]:
    """The images that the examples speak of, in the order of task ids."""
    keys = dict.fromkeys((control.data_key, control.pages) for control in schema.controls)
    return [
        Picture(example, key, page, reference)
        for example in sorted(examples, key=lambda example: example.task_id)
        for key, pages in keys
        for page, reference in enumerate(pages_of(example.data.get(key), pages))
    ]


def plan_of(schema: LabelSchema, examples: Sequence[Example]) -> tuple[tuple[Network, tuple[Control, ...]], ...]:
    """The networks that the config needs, as far as the annotations tell: one turned box makes its control obb."""
    return plan(schema, lambda control: any(is_turned(example.result, control) for example in examples))


def objects_of(
    example: Example, controls: Iterable[Control], network: Network, size: ImageSize, page: int
) -> list[Detection]:
    """What an annotation shows on one of its images to one network, as objects of its classes."""
    return [
        found
        for control in controls
        for found in from_regions(example.result, control, network.classes, size, page_for(control, page))
    ]


def page_for(control: Control, page: int) -> int | None:
    """The `item_index` to look for; None where a control says something about all images of its field at once."""
    whole = control.kind in ("choices", "taxonomy") and not control.per_item
    return page if control.pages and not whole else None


def held_out_of(
    services: Services, project: Project, pictures: Sequence[Picture], thumbnails: Mapping[int, bytes]
) -> list[bool]:
    """Whether each picture judges. Near-duplicates share a side, and what was decided once stays.

    Args:
        pictures: all that are annotated, in the order of task ids.
        thumbnails: index of a picture → its image's (see `backend.fit.duplicates`); without one, only what was
            known before counts.
    """
    # Images arrive in any order; which of two near-duplicates was the first must not depend on that.
    images = {pictures[index].key: thumbnails[index] for index in sorted(thumbnails)}
    groups = Duplicates(services.store).groups(project.uid, images)
    return [is_held_out(groups.get(each.key, each.key), services.settings.holdout) for each in pictures]


def build(
    services: Services,
    project: Project,
    schema: LabelSchema,
    examples: Sequence[Example],
    folder: Path,
) -> Dataset:
    """Write `manifest.json` and a folder for each network, with images and labels; repeated, it starts over.

    Raises TrainingError when there is nothing to learn from, or too many images cannot be read.
    """
    for old in (*folder.glob("network-*"), folder / "images"):
        shutil.rmtree(old, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    data = [
        NetworkData(network, controls, folder / f"network-{number}")
        for number, (network, controls) in enumerate(plan_of(schema, examples))
    ]
    writers = [_Writer(each) for each in data]
    pictures = pictures_of(examples, schema)
    source = services.source_of(project)
    sources = [source(picture.reference, picture.example.task_id) for picture in pictures]
    enough = pixels_enough([each.network.task for each in data], services.settings.image_size)
    read, unreadable = _read(services, pictures, sources, enough, folder / "images")
    held_out = held_out_of(services, project, pictures, {index: pixels for index, (_, _, pixels) in read.items()})
    for index, (path, size, _) in sorted(read.items()):
        for writer in writers:
            writer.add(pictures[index], path, size, held_out=held_out[index])
    _check(pictures, unreadable, data)
    for writer in writers:
        writer.finish()
    sides = list(zip(pictures, held_out, strict=True))
    _write_manifest(folder / "manifest.json", project, data, sides, unreadable)
    learned = {each.task_id: each.content for each in examples if each.task_id not in unreadable}
    return Dataset([each for each in data if each.objects], learned, unreadable)


def _read(
    services: Services, pictures: Sequence[Picture], sources: Sequence[Source], enough: int, folder: Path
) -> tuple[dict[int, tuple[Path, ImageSize, bytes]], dict[int, str]]:
    """Write all images into the folder. Those that an earlier training made ready are not decoded again.

    Returns:
        Index of a picture → its file, the image's size and its thumbnail; and task id → why one could not be read.
    """
    images = services.images
    read: dict[int, tuple[Path, ImageSize, bytes]] = {}
    unreadable: dict[int, str] = {}

    def write(index: int, ready: Ready) -> None:
        path = ready.write(folder / pictures[index].stem, images.fetch(sources[index]))
        read[index] = path, ready.size, ready.thumbnail

    fresh: list[int] = []
    for index, source in enumerate(sources):
        ready = recall(images, source, enough)
        try:
            if ready is None:
                fresh.append(index)
            else:
                write(index, ready)
        except (ImageError, OSError):  # it has left the cache in this moment
            fresh.append(index)
    deadline = time.monotonic() + FETCH_DEADLINE
    for place, image in images.load_many([sources[index] for index in fresh], deadline, cover=enough):
        index = fresh[place]
        try:
            if isinstance(image, ImageError):
                raise image
            ready = made_of(images.fetch(sources[index]), image)  # the cache may have dropped it again meanwhile
            write(index, ready)
        except ImageError as error:
            unreadable[pictures[index].example.task_id] = str(error)
            continue
        remember(images, sources[index], enough, ready)
    log.info("%d images were ready from earlier trainings, %d are new", len(sources) - len(fresh), len(fresh))
    return read, unreadable


class _Writer:
    """Writes one network's folder, picture by picture."""

    def __init__(self, data: NetworkData) -> None:
        self._data = data
        self._teach: list[dict[str, object]] = []
        self._judge: list[dict[str, object]] = []
        for side in ("train", "holdout"):
            (data.folder / "images" / side).mkdir(parents=True)
            (data.folder / "labels" / side).mkdir(parents=True)

    def add(self, picture: Picture, image: Path, size: ImageSize, *, held_out: bool) -> None:
        data, network = self._data, self._data.network
        controls = [control for control in data.controls if control.data_key == picture.data_key]
        if not controls:
            return
        objects: list[Detection] = []
        for control in controls:
            found = objects_of(picture.example, [control], network, size, picture.page)
            if found:
                data.drawn_with.add(control.name)
            objects += found
        if network.task == "classify" and not objects and not network.multiple:
            return  # nothing was chosen, so there is nothing to learn
        side = "holdout" if held_out else "train"
        path = data.folder / "images" / side / image.name
        link(image, path)
        if network.task != "classify":
            lines = (label_line(network.task, each, size, _keypoints(network)) for each in objects)
            (data.folder / "labels" / side / f"{path.stem}.txt").write_text("\n".join(line for line in lines if line))
        entry = {"image": str(path), "classes": [each.cls for each in objects]}
        if held_out:
            self._judge.append(
                {**entry, "result": list(picture.example.result), "page": picture.page, "data_key": picture.data_key}
            )
        self._teach.append({**entry, "held_out": held_out})
        data.objects += len(objects)
        data.sizes.append((size.width, size.height))

    def finish(self) -> None:
        """Write the lists. With few images one side can be empty; then the other stands in, so that it runs at all."""
        data, network = self._data, self._data.network
        taught = (each.name for each in data.controls if not each.shape_name or each.name in data.drawn_with)
        data.network = replace(network, controls=tuple(dict.fromkeys(taught)))
        train = [each for each in self._teach if not each["held_out"]]
        data.train, data.holdout = len(train) or len(self._judge), len(self._judge)
        teach, judge = train or self._teach, [each for each in self._teach if each["held_out"]] or train
        (data.folder / "train.txt").write_text("\n".join(str(each["image"]) for each in teach))
        (data.folder / "holdout.json").write_text(json.dumps(self._judge))
        config: dict[str, object] = {
            "path": str(data.folder),
            "train": "epoch.txt",
            "val": "images/holdout" if self._judge else "images/train",
            "names": dict(enumerate(network.classes)),
        }
        if network.task == "pose":
            config["kpt_shape"] = [_keypoints(network), 3]
            config["kpt_oks_sigmas"] = [OKS_SIGMA] * _keypoints(network)
        if network.task == "classify":
            config |= {"teach": teach, "judge": judge, "multiple": network.multiple}
        (data.folder / "data.yaml").write_text(json.dumps(config))  # JSON is YAML, and no label can break it


def _keypoints(network: Network) -> int:
    return max((point.index for point in network.points), default=-1) + 1


def _check(pictures: Sequence[Picture], unreadable: dict[int, str], data: Sequence[NetworkData]) -> None:
    if not pictures:
        raise TrainingError("No annotated task has an image.", "Check the value of the Image tag.")
    if len(unreadable) > UNREADABLE * len(pictures):
        task, why = next(iter(unreadable.items()))
        raise TrainingError(f"{len(unreadable)} of {len(pictures)} images could not be read; task {task}: {why}")
    if not any(each.objects for each in data):
        raise TrainingError(
            "No submitted annotation says anything with a label of the labelling config.",
            "Label some tasks and submit.",
        )
    for task, why in unreadable.items():
        log.warning("Task %s is left out of the training: %s", task, why)


def _write_manifest(
    path: Path,
    project: Project,
    data: Sequence[NetworkData],
    pictures: Sequence[tuple[Picture, bool]],
    unreadable: dict[int, str],
) -> None:
    """Write down what was learned from what; `pictures` come with whether they are held out."""
    manifest = {
        "project": project.uid,
        "networks": [
            {"key": each.network.key, "classes": each.network.classes, "objects": each.objects} for each in data
        ],
        "label_config": project.label_config,
        "images": [
            {
                "task": picture.example.task_id,
                "annotation": picture.example.annotation_id,
                "content": picture.example.content,
                "image": picture.key[:500],
                "page": picture.page,
                "side": "holdout" if held_out else "train",
                "unreadable": unreadable.get(picture.example.task_id, ""),
            }
            for picture, held_out in pictures
        ],
    }
    path.write_text(json.dumps(manifest, indent=1))
