"""What a training would learn, or what a version learned, as files to take away: ultralytics' format or COCO's."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backend.errors import BadRequest, ImageError
from backend.fit.dataset.build import FETCH_DEADLINE
from backend.fit.dataset.coco_format import Coco
from backend.fit.dataset.examples import Picture, Plan, pictures_of, plan_of
from backend.fit.dataset.index import LONGEST, SIDES, sizes_in
from backend.fit.dataset.lesson import lesson_of, reader_of
from backend.fit.dataset.prepared_images import Ready, made_of, recall
from backend.fit.dataset.safe_names import folder_names
from backend.fit.dataset.sides import sides_of
from backend.fit.dataset.split import TORN
from backend.fit.dataset.yolo_format import as_yaml, class_names, label_line
from backend.images.loader import Source
from backend.labels.geometry import Detection, ImageSize
from backend.labels.networks import Network, pixels_enough
from backend.labels.reading import Reading
from backend.labels.schema import Control, LabelSchema, parse_label_config
from backend.services import Services
from backend.store.database import Project
from backend.store.ledger import Example
from backend.store.sides import NEITHER, VALIDATION

FOLDERS = ("train", "val")
"""What ultralytics calls the two sides, in the order of `SIDES`."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An image of a task, as far as it is known.

    Attributes:
        ready: what a training reads; None when its file is not needed or cannot be read.
        why: it cannot be read.
    """

    size: ImageSize | None = None
    ready: Ready | None = None
    original: Path | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class ImageLabels:
    """What one control says of one image; with `reason` it is left out."""

    network: Network
    control: Control
    picture: Picture
    seen: Seen
    held_out: bool = False
    objects: Sequence[Detection] = ()
    reason: str = ""


@dataclass(slots=True)
class Exported:
    """How many images of how many controls were written, and what was left out: task, control, reason."""

    images: int = 0
    controls: int = 0
    left_out: list[dict[str, Any]] = field(default_factory=list)

    def leave_out(self, task: int, control: str, reason: str) -> None:
        self.left_out.append({"task": task, "control": control, "reason": reason})


def export(
    services: Services,
    project: Project,
    folder: Path,
    *,
    coco: bool = False,
    images: bool = False,
    manifest: Mapping[str, Any] | None = None,
) -> Exported:
    """Write the folder.

    Args:
        folder: a new one, or an empty one.
        images: copy the images, too.
        manifest: that of a version, to write what it learned; None: what a training would learn now.

    Raises BadRequest when the folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadRequest("The folder of --out is there already and not empty.", "Name a new one.")
    done = Exported()
    config = project.label_config if manifest is None else str(manifest["label_config"])
    schema = parse_label_config(config)
    examples = services.ledger.examples(project.uid)
    if manifest is not None:
        examples = _as_learned(examples, manifest, schema, done)
    labelled = list(_labels_of_images(services, project, schema, examples, images, manifest))
    folder.mkdir(parents=True, exist_ok=True)
    for each in labelled:
        if each.reason:
            done.leave_out(each.picture.example.task_id, each.control.name, each.reason)
    kept = [each for each in labelled if not each.reason]
    if coco:
        _write_coco(folder, kept, images, done)
    else:
        _write_yolo(folder, schema, kept, images)
    done.images = len({each.picture.stem for each in kept})
    done.controls = len({each.control.name for each in kept})
    (folder / "left_out.json").write_text(json.dumps(done.left_out, indent=1))
    return done


def _as_learned(
    examples: Sequence[Example], manifest: Mapping[str, Any], schema: LabelSchema, done: Exported
) -> list[Example]:
    """The annotations that a version learned from. Of those that were changed since only their hash is known."""
    now = {each.task_id: each for each in examples}
    found: dict[int, Example | None] = {}
    for image in manifest["images"]:
        task = int(image["task"])
        example = now.get(task)
        if example is not None and (example.annotation_id, example.content) == (image["annotation"], image["content"]):
            found[task] = example
        elif task not in found:
            found[task] = None
            why = "it is no longer annotated" if example is None else "its annotation has changed since"
            for name in dict.fromkeys(control.name for control in schema.controls):
                done.leave_out(task, name, why)
    return [each for each in found.values() if each is not None]


def _planned(schema: LabelSchema, readings: Mapping[int, Reading], manifest: Mapping[str, Any] | None) -> Plan:
    planned = plan_of(schema, readings.values())
    if manifest is None:
        return planned
    learned = {each["key"] for each in manifest["networks"]}
    if learned - {network.key for network, _ in planned}:  # its turned boxes are gone since
        turned = plan_of(schema, readings.values(), [control.name for control in schema.controls])
        if learned <= {network.key for network, _ in turned}:
            return turned
    return planned


def _labels_of_images(
    services: Services,
    project: Project,
    schema: LabelSchema,
    examples: Sequence[Example],
    images: bool,
    manifest: Mapping[str, Any] | None,
) -> Iterator[ImageLabels]:
    readings = {each.task_id: reader_of(schema).read(each.result, each.data) for each in examples}
    planned = _planned(schema, readings, manifest)
    pictures = pictures_of(examples, schema)
    enough = pixels_enough([network.task for network, _ in planned], services.settings.image_size)
    seen = _look(services, project, pictures, enough, images)
    thumbnails = {number: each.ready.thumbnail for number, each in enumerate(seen) if each.ready is not None}
    given = sides_of(
        services.settings, services.duplicates, services.sides, project.uid, pictures, thumbnails, readings
    )
    held_out = [each.side == VALIDATION for each in given]
    torn = [each.side == NEITHER for each in given]
    if manifest is not None:
        sides = {(each["task"], each["page"], each["image"]): each["side"] == SIDES[1] for each in manifest["images"]}
        at = [(each.example.task_id, each.page, each.shown[:LONGEST]) for each in pictures]
        held_out = [sides.get(place, now) for place, now in zip(at, held_out, strict=True)]
        torn = [now and place not in sides for place, now in zip(at, torn, strict=True)]
    for network, controls in planned:
        lessons = [
            lesson_of(readings[each.example.task_id], schema, network, controls, each.data_key, shown.size, each.page)
            if shown.size is not None
            else None
            for each, shown in zip(pictures, seen, strict=True)
        ]
        for control in controls:
            mine = network if len(controls) == 1 else _of_control(network, control)
            for picture, shown, judges, neither, lesson in zip(pictures, seen, held_out, torn, lessons, strict=True):
                if picture.data_key != control.data_key:
                    continue
                if shown.size is None:
                    yield ImageLabels(mine, control, picture, shown, reason=shown.why)
                elif lesson is None:
                    yield ImageLabels(mine, control, picture, shown, reason=f"`{control.name}` has no answer")
                else:
                    left_out = lesson.left_out or (TORN if neither else "")
                    objects = _known(lesson.objects, network, mine)
                    yield ImageLabels(mine, control, picture, shown, judges, objects, left_out)


def _of_control(network: Network, control: Control) -> Network:
    """A network with a control's labels alone, of those that it shares with others."""
    classes = tuple(each for each in network.classes if each in control.labels)
    return replace(network, classes=classes or network.classes)


def _known(objects: Sequence[Detection], network: Network, mine: Network) -> list[Detection]:
    """What a training teaches a network, as far as it carries the labels of one control."""
    index = {label: number for number, label in enumerate(mine.classes)}
    names = network.classes
    return [replace(each, cls=index[names[each.cls]]) for each in objects if names[each.cls] in index]


def _look(services: Services, project: Project, pictures: Sequence[Picture], enough: int, files: bool) -> list[Seen]:
    """What is known of images, fetched only where their size, or with `files` the file, is not at hand."""
    teaching = {each.example.task_id: (each.example.annotation_id, each.example.content) for each in pictures}
    sizes = sizes_in(services.settings.root / "datasets" / project.uid, teaching)
    source = services.source_of(project)
    seen = [Seen()] * len(pictures)
    fresh: list[tuple[int, Source]] = []
    for number, picture in enumerate(pictures):
        size = sizes.get((picture.example.task_id, picture.data_key, picture.page))
        if size is not None and not files:
            seen[number] = Seen(size)
            continue
        where = source(picture.reference, picture.example.task_id)
        try:
            original = services.images.cached(where)
            ready = None if original is None else recall(services.images, original, enough)
        except (ImageError, OSError):
            original = ready = None
        if ready is None:
            fresh.append((number, where))
        else:
            seen[number] = Seen(ready.size, ready, original)
    deadline = time.monotonic() + FETCH_DEADLINE
    for place, image in services.images.load_many([each for _, each in fresh], deadline, cover=enough):
        number, where = fresh[place]
        try:
            if isinstance(image, ImageError):
                raise image
            original = services.images.fetch(where)
            ready = made_of(original, image)
            seen[number] = Seen(ready.size, ready, original)
        except ImageError as error:
            seen[number] = Seen(why=str(error))
        except FileNotFoundError:
            seen[number] = Seen(why="The image left the cache meanwhile.")
    return seen


def _copy(each: ImageLabels, path: Path) -> None:
    """Copy an image, as a training reads it, to `path`, which has its suffix. Never a link: it may be written to."""
    ready, original = each.seen.ready, each.seen.original
    if ready is None or original is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if ready.data is None:
        shutil.copyfile(original, path)
    else:
        path.write_bytes(ready.data)


def _suffix(each: ImageLabels) -> str:
    return each.seen.ready.suffix if each.seen.ready is not None else "jpg"


def _stem(each: ImageLabels) -> str:
    task = str(each.picture.example.task_id)
    return f"{task}-{each.picture.page}" if each.control.pages else task


def _write_yolo(folder: Path, schema: LabelSchema, labelled: Sequence[ImageLabels], images: bool) -> None:
    networks = {each.control.name: each.network for each in labelled}
    names = folder_names(list(networks), taken=("left_out.json",))
    for name, network in networks.items():
        mine = [each for each in labelled if each.control.name == name]
        for kind in ("labels", "images"):
            for side in FOLDERS:
                (folder / names[name] / kind / side).mkdir(parents=True, exist_ok=True)
        for each in mine:
            side, stem = FOLDERS[each.held_out], _stem(each)
            if network.task == "classify":
                text = "\n".join(str(found.cls) for found in each.objects)
            else:
                lines = (label_line(network.task, found, _size(each), _points(network)) for found in each.objects)
                text = "\n".join(line for line in lines if line)
            (folder / names[name] / "labels" / side / f"{stem}.txt").write_text(text)
            if images:
                _copy(each, folder / names[name] / "images" / side / f"{stem}.{_suffix(each)}")
        sides = {each.held_out for each in mine}
        # Without images on one side the other stands in: ultralytics reads nothing where there is none.
        config: dict[str, object] = {
            "train": f"images/{FOLDERS[False not in sides]}",
            "val": f"images/{FOLDERS[True in sides]}",
            "names": dict(enumerate(class_names(network.classes))),
        }
        if network.task == "pose":
            config["kpt_shape"] = [_points(network), 3]
        (folder / names[name] / "data.yaml").write_text(as_yaml(config), encoding="utf-8")


def _write_coco(folder: Path, labelled: Sequence[ImageLabels], images: bool, done: Exported) -> None:
    coco = Coco()
    numbers = {key: number for number, key in enumerate(dict.fromkeys(each.picture.data_key for each in labelled))}
    for each in labelled:
        task = each.picture.example.task_id
        if each.network.task == "classify":
            done.leave_out(task, each.control.name, "COCO has no choices: export them with --format yolo")
            continue
        field_number = numbers[each.picture.data_key]
        stem = f"{task}-{field_number}-{each.picture.page}" if len(numbers) > 1 else _stem(each)
        name = f"{FOLDERS[each.held_out]}/{stem}.{_suffix(each)}"
        image = coco.image(name, _size(each), task)
        for found in each.objects:
            coco.add(image, each.network, each.control.name, found, _size(each), _points(each.network))
        coco.know(each.network, each.control.name)
        if images:
            _copy(each, folder / "images" / name)
    (folder / "annotations.json").write_text(json.dumps(coco.as_json()))


def _points(network: Network) -> int:
    return max((point.index for point in network.points), default=-1) + 1


def _size(each: ImageLabels) -> ImageSize:
    assert each.seen.size is not None
    return each.seen.size


def manifest_of(services: Services, project: Project, number: int) -> dict[str, Any]:
    """What a version learned from. Raises RegistryError where that was not kept."""
    version = services.registry.version(project.uid, number)
    found: dict[str, Any] = json.loads(services.registry.fetch(version, "manifest.json").read_text())
    return found
