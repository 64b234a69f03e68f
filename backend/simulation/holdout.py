"""All held-out images of a project with what is to be found on them, and what the served version scores there.

Training measures a candidate on what was annotated by then (`fit/evaluation/measure.py`); this is the same measure on
one set of images for all versions, so that a learning curve rises because the model is better.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.errors import ImageError, YoloopError
from backend.fit.dataset.build import FETCH_DEADLINE
from backend.fit.dataset.examples import pictures_of, plan_of
from backend.fit.dataset.lesson import lesson_of, reader_of
from backend.fit.dataset.sides import sides_of
from backend.fit.evaluation.metrics import evaluate, metric_of, nothing
from backend.labels.geometry import Detection, ImageSize
from backend.labels.networks import Network, Task, pixels_enough
from backend.labels.schema import LabelSchema
from backend.served_models.served import Served
from backend.services import Services
from backend.store.database import Project, Store
from backend.store.ledger import Example
from backend.store.near_duplicates import Duplicates, thumbnail
from backend.store.sides import VALIDATION, Sides


@dataclass(frozen=True, slots=True)
class Questions:
    """What one network is asked: the images, upright in BGR, and the true objects on each."""

    network: Network
    images: tuple[NDArray[np.uint8], ...]
    truths: tuple[tuple[Detection, ...], ...]


@dataclass(frozen=True, slots=True)
class Exam:
    """The questions for each network of a project; `images` counts the different images among them."""

    parts: tuple[Questions, ...]
    images: int

    @classmethod
    def of(
        cls, services: Services, project: Project, schema: LabelSchema, examples: Sequence[Example], groups: Store
    ) -> Exam:
        """Read the held-out images. Raises YoloopError when none can be had or shows anything.

        Args:
            services: how the images are reached.
            examples: everything that the project's runs will learn from.
            groups: where groups and sides are looked up, and kept for the runs to take over (`copy_groups`,
                `copy_sides`): all must hold out the same images, in whatever order those come.
        """
        pictures = pictures_of(examples, schema)
        source = services.source_of(project)
        sources = [source(each.reference, each.example.task_id) for each in pictures]

        readings = {each.task_id: reader_of(schema).read(each.result, each.data) for each in examples}
        planned = plan_of(schema, readings.values())
        tasks = [network.task for network, _ in planned]
        enough = pixels_enough(tasks, services.settings.image_size)

        def read(indexes: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
            deadline = time.monotonic() + FETCH_DEADLINE
            chosen = [sources[index] for index in indexes]
            for place, image in services.images.load_many(chosen, deadline, cover=enough):
                if not isinstance(image, ImageError):
                    yield indexes[place], image.pixels

        # All are looked at for their group before the held-out ones are kept: together they may not fit.
        thumbnails = {index: thumbnail(image) for index, image in read(range(len(pictures)))}
        given = sides_of(
            services.settings, Duplicates(groups), Sides(groups), project.uid, pictures, thumbnails, readings
        )
        images = dict(read([index for index in thumbnails if given[index].side == VALIDATION]))
        parts: list[Questions] = []
        asked: set[int] = set()
        for network, controls in planned:
            ours: dict[int, tuple[Detection, ...]] = {}
            for index, image in sorted(images.items()):
                picture, size = pictures[index], ImageSize(image.shape[1], image.shape[0])
                reading = readings[picture.example.task_id]
                lesson = lesson_of(reading, schema, network, controls, picture.data_key, size, picture.page)
                if lesson is not None and not lesson.left_out:
                    ours[index] = tuple(lesson.objects)
            if any(ours.values()):
                parts.append(Questions(network, tuple(images[index] for index in ours), tuple(ours.values())))
                asked.update(ours)
        if not parts:
            raise YoloopError(
                f"None of the {len(examples)} annotated tasks is held out, can be read and shows an object.",
                "Annotate more.",
            )
        return cls(tuple(parts), len(asked))

    @property
    def metric(self) -> str:
        names = list(dict.fromkeys(metric_of(each.network.task) for each in self.parts))
        return names[0] if len(names) == 1 else f"mean of {' and '.join(names)}"

    def score(self, served: Served) -> float:
        """The mean over the networks of what the served models score; a network without a model scores 0."""
        scores = [_metrics(served, each)[metric_of(each.network.task)] for each in self.parts]
        return sum(scores) / len(scores)


def _metrics(served: Served, asked: Questions) -> dict[str, float]:
    network = asked.network
    mine = [each for each in served.suggests if each.control.name in network.controls]
    loaded = next((each.loaded for each in mine if each.loaded.detector is not None), None)
    if loaded is None or loaded.detector is None or not _comparable(loaded.detector.task, network.task):
        return nothing(network.task)
    index = {label: position for position, label in enumerate(network.classes)}
    labels = {
        cls: index[label]
        for each in mine
        if each.loaded is loaded
        for cls, label in each.labels.items()
        if label in index
    }
    points = None
    if loaded.network.own and loaded.network.points:
        theirs = {point.label: point.index for point in loaded.network.points}
        points = {point.index: theirs[point.label] for point in network.points if point.label in theirs}
    if not labels:
        return nothing(network.task)
    return evaluate(loaded.detector, labels, asked.images, asked.truths, network, points)


def _comparable(detector: Task, network: Task) -> bool:
    return detector == network or (network == "detect" and detector != "classify")
