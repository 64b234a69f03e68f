"""The ledger's examples as files that ultralytics trains on: one folder for each network."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from backend.errors import ImageError, ImageNotStored, NoRoom, TrainingError
from backend.fit.dataset.examples import Picture, Plan, pictures_of, plan_of
from backend.fit.dataset.index import IMAGES, SIDES, About, Index, Row, Shown, Written
from backend.fit.dataset.lesson import Lesson, lesson_of, reader_of
from backend.fit.dataset.prepared_images import Ready, link, made_of, recall, remember
from backend.fit.dataset.sides import sides_of
from backend.fit.dataset.split import TORN
from backend.fit.dataset.yolo_format import OKS_SIGMA, as_yaml, class_names, label_line
from backend.images.loader import Source
from backend.labels.geometry import ImageSize
from backend.labels.networks import Network, pixels_enough
from backend.labels.reading import Reading, counted
from backend.labels.schema import Control, LabelSchema
from backend.processes.room import trouble
from backend.services import Services
from backend.settings import Settings
from backend.store.database import Project
from backend.store.ledger import Example, Teaching
from backend.store.sides import NEITHER, VALIDATION

log = logging.getLogger(__name__)

VERSION = 5
"""Of the files of a dataset and their index: raised when others would be written for the same annotations."""

UNREADABLE = 0.2
"""Share of images that may fail before it is rather Label Studio, or the network, that has failed."""

MOST_NOT_UNDERSTOOD = 0.5
"""Share of annotations that may not be understood before it is rather the config that is wrong."""

FETCH_DEADLINE = 3600.0


@dataclass(frozen=True, slots=True)
class NetworkData:
    """What one network learns from: its folder, how many images teach and judge, how many objects they show.

    `most` is the number of objects of the image that shows most.
    """

    network: Network
    controls: tuple[Control, ...]
    folder: Path
    train: int
    holdout: int
    objects: int
    most: int
    sizes: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Dataset:
    """What was written, for the networks that have something to learn from.

    `learned` maps task id → content of the examples whose images were all read; `unreadable` task id → reason;
    `not_understood` the tasks with a region that is not understood, of which no network learns → the first reason;
    `sides` those that are learned from → whether they judge.
    """

    networks: list[NetworkData]
    learned: dict[int, str]
    unreadable: dict[int, str]
    not_understood: dict[int, str]
    sides: dict[int, bool]


def build(
    services: Services,
    project: Project,
    schema: LabelSchema,
    teaching: Mapping[int, Teaching],
    load: Callable[[Collection[int]], Sequence[Example]],
    folder: Path,
) -> Dataset:
    """Write `manifest.json` and a folder of lists for each network; images and labels lie in the project's own folder.

    There only those of new, changed and deleted annotations are touched, unless the labelling config or a setting that
    all depend on has changed. One dataset of a project is in use at a time: its training's.

    Args:
        teaching: task id → the annotation that teaches, of all tasks to learn from.
        load: reads those of some tasks.
        folder: the training's.

    Raises TrainingError when there is nothing to learn from, or too many images cannot be read.
    """
    root = services.settings.root / "datasets" / project.uid
    with closing(_index(root)) as index:
        stale, examples, planned = _outdated(index, services.settings, project, schema, teaching, load)
        unreadable = _update(index, services, project, schema, examples, planned)
        about = [index.about(number) for number in range(len(planned))]
        not_understood = index.left_out()
        _check(index.count(), unreadable, about, len(teaching), not_understood)
        data = [
            _lists(index, number, network, controls, about[number], folder / f"network-{number}")
            for number, (network, controls) in enumerate(planned)
        ]
        _write_manifest(folder / "manifest.json", project, data, index.manifest())
        learned = {task_id: content for task_id, (_, content) in teaching.items() if task_id not in stale}
        learned |= {each.task_id: each.content for each in examples if each.task_id not in unreadable}
        return Dataset(_taught(data), learned, unreadable, not_understood, index.sides())


def _taught(data: Sequence[NetworkData]) -> list[NetworkData]:
    """The networks that have an image to learn from. What is held out never teaches, so there may be none."""
    shown = [each for each in data if each.objects]
    taught = [each for each in shown if each.train]
    if not taught:
        raise TrainingError(
            "All annotated images are held out for validation, and none is left to train on.", "Annotate more images."
        )
    for each in shown:
        if not each.train:
            log.warning("No model of %s is trained: all of its %d images are held out", each.network.key, each.holdout)
    return taught


def _index(root: Path) -> Index:
    try:
        return Index(root)
    except sqlite3.DatabaseError:
        if trouble(root):
            raise
        log.warning("The index of the dataset cannot be read; all is written anew")
        shutil.rmtree(root)
        return Index(root)


def _outdated(
    index: Index,
    settings: Settings,
    project: Project,
    schema: LabelSchema,
    teaching: Mapping[int, Teaching],
    load: Callable[[Collection[int]], Sequence[Example]],
) -> tuple[set[int], Sequence[Example], Plan]:
    """The tasks that must be written, with the room made for them, what they hold, and the networks that the config
    needs."""
    known = index.tasks()
    stale = {task_id for task_id, each in teaching.items() if known.get(task_id) != each}
    gone = known.keys() - teaching.keys()
    examples = load(stale)
    planned = plan_of(schema, _readings(schema, examples).values(), index.turned(stale | gone))
    if index.layout != _layout(settings, project, planned):
        stale, gone = set(teaching), set()
        examples = load(stale)
        planned = plan_of(schema, _readings(schema, examples).values())
        index.reset(_layout(settings, project, planned))
    if stale or gone:
        stems: dict[int, list[str]] = {task_id: [] for task_id in stale}
        for picture in pictures_of(examples, schema):
            stems[picture.example.task_id].append(picture.stem)
        index.begin(stems, gone)
        # ultralytics tells by the files' sizes whether what it keeps of labels is outdated, which is not enough.
        for path in index.folder.glob("network-*/labels/*.cache"):
            path.unlink()
    log.info("%d annotated tasks are as they were, %d are written, %d are gone", *map(len, (teaching, stale, gone)))
    return stale, examples, planned


def _readings(schema: LabelSchema, examples: Iterable[Example]) -> dict[int, Reading]:
    """Task → what its annotation says."""
    return {each.task_id: reader_of(schema).read(each.result, each.data) for each in examples}


def _layout(settings: Settings, project: Project, planned: Plan) -> str:
    """What every file of a dataset depends on."""
    networks = [[asdict(network), [control.name for control in controls]] for network, controls in planned]
    # With another field, images that are known already must say what they have in it.
    split = [settings.group_by, settings.split_by]
    return json.dumps([VERSION, project.label_config, split, settings.image_size, networks])


def _update(
    index: Index,
    services: Services,
    project: Project,
    schema: LabelSchema,
    examples: Sequence[Example],
    planned: Plan,
) -> dict[int, str]:
    """Write the images and labels of examples; returns task id → why one of its images could not be read."""
    for number in range(len(planned)):
        for side in SIDES:
            for kind in ("images", "labels"):
                (index.folder / f"network-{number}" / kind / side).mkdir(parents=True, exist_ok=True)
    pictures = pictures_of(examples, schema)
    source = services.source_of(project)
    sources = [source(picture.reference, picture.example.task_id) for picture in pictures]
    enough = pixels_enough([network.task for network, _ in planned], services.settings.image_size)
    read, unreadable = _read(services, pictures, sources, enough, index.folder / IMAGES)
    thumbnails = {number: thumbnail for number, (_, _, thumbnail) in read.items()}
    readings = _readings(schema, examples)
    given = sides_of(
        services.settings,
        services.duplicates,
        services.sides,
        project.uid,
        pictures,
        thumbnails,
        readings,
        index.present(),
    )
    reasons: dict[int, dict[str, str]] = {}
    rows = []
    for number, (picture, (group, side)) in enumerate(zip(pictures, given, strict=True)):
        task, reading = picture.example.task_id, readings[picture.example.task_id]
        judges = side == VALIDATION
        row = Row(task, picture.stem, picture.data_key, picture.page, picture.shown, judges, group)
        if number in read:
            path, size, _ = read[number]
            shown: dict[int, Shown] = {}
            for place, (network, controls) in enumerate(planned):
                lesson = lesson_of(reading, schema, network, controls, picture.data_key, size, picture.page)
                if lesson is None:
                    continue
                if left_out := lesson.left_out or (TORN if side == NEITHER else ""):
                    reasons.setdefault(task, {})[network.key] = left_out
                    continue
                shown[place] = _write(
                    index.folder / f"network-{place}", network, lesson, picture, path, size, held_out=judges
                )
            torn = TORN if side == NEITHER else ""
            row = replace(row, file=path.name, size=size, shown=shown, labels=reading.labels, left_out=torn)
        rows.append(row)
    judged = {row.task for row in rows if row.held_out}
    written = {
        example.task_id: Written(
            (example.annotation_id, example.content),
            readings[example.task_id].turned,
            unreadable.get(example.task_id, ""),
            example.result if example.task_id in judged else (),
            reasons.get(example.task_id, {}),
        )
        for example in examples
    }
    if written:
        index.finish(rows, written)
    return unreadable


def _read(
    services: Services, pictures: Sequence[Picture], sources: Sequence[Source], enough: int, folder: Path
) -> tuple[dict[int, tuple[Path, ImageSize, bytes]], dict[int, str]]:
    """Write all images into the folder. Those that an earlier training made ready are not decoded again.

    Returns:
        Index of a picture → its file, the image's size and its thumbnail; and task id → why one could not be read.
    """
    folder.mkdir(exist_ok=True)
    images = services.images
    read: dict[int, tuple[Path, ImageSize, bytes]] = {}
    unreadable: dict[int, str] = {}

    def write(index: int, ready: Ready, original: Path) -> None:
        path = ready.write(folder / pictures[index].stem, original)
        read[index] = path, ready.size, ready.thumbnail

    fresh: list[int] = []
    for index, source in enumerate(sources):
        try:
            original = images.cached(source)
            ready = None if original is None else recall(images, original, enough)
            if original is None or ready is None:
                fresh.append(index)
            else:
                write(index, ready, original)
        except (ImageError, OSError):  # it has left the cache in this moment
            fresh.append(index)
    deadline = time.monotonic() + FETCH_DEADLINE
    for place, image in images.load_many([sources[index] for index in fresh], deadline, cover=enough):
        index = fresh[place]
        try:
            if isinstance(image, ImageError):
                raise image
            original = images.fetch(sources[index])  # the cache may have dropped it again meanwhile
            ready = made_of(original, image)
            write(index, ready, original)
        except ImageNotStored as error:
            raise NoRoom(error.message) from error
        except ImageError as error:
            unreadable[pictures[index].example.task_id] = str(error)
            continue
        except FileNotFoundError:  # the serving process has dropped it between two lines of this
            unreadable[pictures[index].example.task_id] = "The image left the cache meanwhile."
            continue
        remember(images, original, enough, ready)
    if sources:
        log.info("%d images were ready from earlier trainings, %d are new", len(sources) - len(fresh), len(fresh))
    return read, unreadable


def _write(
    folder: Path,
    network: Network,
    lesson: Lesson,
    picture: Picture,
    image: Path,
    size: ImageSize,
    *,
    held_out: bool,
) -> Shown:
    """Write a picture's image and labels for one network."""
    side = SIDES[held_out]
    link(image, folder / "images" / side / image.name)
    if network.task != "classify":
        lines = (label_line(network.task, each, size, _keypoints(network)) for each in lesson.objects)
        (folder / "labels" / side / f"{image.stem}.txt").write_text("\n".join(line for line in lines if line))
    return Shown([each.cls for each in lesson.objects], lesson.drawn)


def _lists(
    index: Index, number: int, network: Network, controls: tuple[Control, ...], about: About, folder: Path
) -> NetworkData:
    """Write what ultralytics and the judging read first. Where nothing is held out, nothing judges; ultralytics' own
    validation must have images, and gets those that train."""
    root = index.folder / f"network-{number}" / "images"
    before = {held_out: f"{root / side}/" for held_out, side in zip((False, True), SIDES, strict=True)}
    train, holdout = (index.paths(number, before[held_out], held_out=held_out) for held_out in before)
    taught = (each.name for each in controls if not each.shape_name or each.name in about.drawn)
    data = NetworkData(
        replace(network, controls=tuple(dict.fromkeys(taught))),
        controls,
        folder,
        train=about.train,
        holdout=about.holdout,
        objects=about.objects,
        most=about.most,
        sizes=about.sizes,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.txt").write_text(train)
    (folder / "holdout.txt").write_text(holdout or train)
    (folder / "holdout.json").write_text(index.judged(number, before[True]))
    config: dict[str, object] = {
        "path": str(folder),
        "train": "epoch.txt",
        "val": "holdout.txt",
        "names": dict(enumerate(class_names(network.classes))),
    }
    if network.task == "pose":
        config["kpt_shape"] = [_keypoints(network), 3]
        config["kpt_oks_sigmas"] = [OKS_SIGMA] * _keypoints(network)
    if network.task == "classify":
        told = [json.loads(index.classes(number, before[held_out], held_out=held_out)) for held_out in before]
        config |= {"teach": told[0], "judge": told[1] or told[0], "multiple": network.multiple}
    (folder / "data.yaml").write_text(as_yaml(config), encoding="utf-8")
    return data


def _keypoints(network: Network) -> int:
    return max((point.index for point in network.points), default=-1) + 1


def _check(
    pictures: int,
    unreadable: Mapping[int, str],
    networks: Iterable[About],
    tasks: int,
    not_understood: Mapping[int, str],
) -> None:
    not_understood = {task: why for task, why in not_understood.items() if why != TORN}
    if len(not_understood) > MOST_NOT_UNDERSTOOD * tasks:
        task, why = next(iter(not_understood.items()))
        raise TrainingError(
            f"{len(not_understood)} of {tasks} annotations are not understood: {counted(not_understood.values())}, "
            f"as in task {task}.",
            "Correct the labelling config or the annotations.",
        )
    if not pictures:
        raise TrainingError("No annotated task has an image.", "Check the value of the Image tag.")
    if len(unreadable) > UNREADABLE * pictures:
        task, why = next(iter(unreadable.items()))
        raise TrainingError(f"{len(unreadable)} of {pictures} images could not be read; task {task}: {why}")
    if not any(each.objects for each in networks):
        raise TrainingError(
            "No submitted annotation says anything with a label of the labelling config.",
            "Label some tasks and submit.",
        )
    for task, why in unreadable.items():
        log.warning("Task %s is left out of the training: %s", task, why)


def _write_manifest(path: Path, project: Project, data: Sequence[NetworkData], images: str) -> None:
    """Write down what was learned from what; `images` are JSON already."""
    about = {
        "project": project.uid,
        "networks": [
            {"key": each.network.key, "classes": each.network.classes, "objects": each.objects} for each in data
        ],
        "label_config": project.label_config,
    }
    path.write_text(f'{json.dumps(about)[:-1]}, "images": [\n{images}\n]}}\n')
