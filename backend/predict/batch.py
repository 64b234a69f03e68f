"""Every image of a request, each fetched once and run once through each model that has something to say of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.engine.detector import Detector
from backend.engine.pool import EnginePool
from backend.errors import Busy, ImageError, ImageUnavailable
from backend.images.loader import Images, Source
from backend.labels.geometry import Box, Detection, ImageSize
from backend.labels.references import field_of, pages_of, task_id_of
from backend.labels.schema import Control
from backend.predict.sampling import FLOOR
from backend.served_models.served import Served, Suggests


@dataclass(slots=True)
class Look:
    """One image of one task on its way through the engine.

    `found` holds what each model says of it, `vector` what the first model makes of it as a whole. With `scale` the
    models saw fewer pixels than the image has.
    """

    task: int
    data_key: str
    page: int
    reference: str
    task_id: int | None
    size: ImageSize | None = None
    scale: tuple[float, float] | None = None
    found: dict[int, Future[list[Detection]]] = field(default_factory=dict)
    vector: Future[NDArray[np.float32]] | None = None

    def by(self, suggests: Suggests) -> list[Detection] | None:
        """What the control's model found, down to its floor; None when it did not look at this image."""
        if self.size is None or self.data_key != suggests.control.data_key:
            return None
        found = self.found.get(id(suggests.loaded.detector))
        if found is None:
            return None
        return found.result() if self.scale is None else [each.scaled(*self.scale) for each in found.result()]


def looks_of(
    tasks: Sequence[Mapping[str, Any]], controls: Sequence[Control]
) -> tuple[list[Look], dict[int, ImageError]]:
    """The images that controls need; a task without one of them is an error of that task."""
    looks: list[Look] = []
    errors: dict[int, ImageError] = {}
    keys = dict.fromkeys((control.data_key, control.pages) for control in controls)
    for index, task in enumerate(tasks):
        data = task.get("data") if isinstance(task, Mapping) else None
        number = task_id_of(task)
        for key, pages in keys:
            references = pages_of(field_of(data, key), pages)
            looks += [Look(index, key, page, each, number) for page, each in enumerate(references)]
            if not references or not all(references):
                errors[index] = ImageUnavailable(f"The task has no image under {key!r}.")
    return [look for look in looks if look.task not in errors], errors


def run(
    looks: Sequence[Look],
    errors: dict[int, ImageError],
    served: Served,
    threshold: Callable[[Suggests], float],
    *,
    images: Images,
    source: Callable[[str, int | None], Source],
    pool: EnginePool,
    deadline: float,
    cover: int = 0,
    embed: bool = False,
    urgent: bool = False,
    most: int | None = None,
) -> None:
    """Fetch, decode and run all images; what fails is noted in `errors` by task.

    Args:
        deadline: as `time.monotonic()` tells; what is not done then has failed.
        cover: pixels of the longer side that are enough for every model (see `Images.load_many`).
        embed: fill the vectors, too.
        urgent: a person waits, so these images pass those of other requests.
        most: most objects of one image, where that is not the models' own bound.
    """
    sources = [source(look.reference, look.task_id) for look in looks]
    with pool.expecting() if urgent else nullcontext():
        for index, image in images.load_many(sources, deadline, urgent=urgent, cover=cover):
            look = looks[index]
            if isinstance(image, ImageError):
                errors.setdefault(look.task, image)
                continue
            look.size = image.size
            look.scale = image.scale if image.shrunk else None
            for detector, conf in _wanted(served, look.data_key, threshold):
                look.found[id(detector)] = pool.submit(
                    detector, image.pixels, conf, urgent=urgent, most=most, deadline=deadline
                )
                if embed and look.vector is None:
                    look.vector = pool.embed(detector, image.pixels, urgent=urgent, deadline=deadline)
    for look in looks:
        for future in (*look.found.values(), *(() if look.vector is None else (look.vector,))):
            try:
                future.result(timeout=max(0.0, deadline - time.monotonic()))
            except (TimeoutError, CancelledError):
                future.cancel()
                errors.setdefault(look.task, ImageUnavailable("The time budget of the request ran out."))
            except Busy as error:
                errors.setdefault(look.task, ImageUnavailable(error.message, error.hint))
            except Exception:  # logged where it happened; here it is one image that has no answer
                errors.setdefault(look.task, ImageUnavailable("The model could not be run on this image."))


def merged(looks: Sequence[Look], suggests: Suggests) -> list[tuple[Look, list[Detection]]]:
    """What one control's model found on each image of one task; a choice about all of them at once comes once."""
    found = [(look, objects) for look in looks if (objects := look.by(suggests)) is not None]
    control = suggests.control
    if control.kind in ("choices", "taxonomy") and not control.per_item and len(found) > 1:
        return [(found[0][0], _averaged([objects for _, objects in found]))]
    return found


def _wanted(served: Served, data_key: str, threshold: Callable[[Suggests], float]) -> list[tuple[Detector, float]]:
    """The models that look at one field's image, each with the least score that is asked of it.

    That is below the threshold: the score of a task needs to know what was nearly suggested, and scores of classes
    that mean one choice are added up.
    """
    wanted: dict[int, tuple[Detector, float]] = {}
    for each in served.suggests:
        detector = each.loaded.detector
        if detector is None or each.control.data_key != data_key:
            continue
        conf = min(FLOOR[detector.task], threshold(each))
        wanted[id(detector)] = (detector, min(conf, wanted.get(id(detector), (detector, 1.0))[1]))
    return list(wanted.values())


def _averaged(looks: Sequence[Sequence[Detection]]) -> list[Detection]:
    """One score for each class from those of several images."""
    sums: dict[int, float] = {}
    for found in looks:
        for each in found:
            sums[each.cls] = sums.get(each.cls, 0.0) + each.score / len(looks)
    return [Detection(cls, score, Box(0, 0, 1, 1)) for cls, score in sums.items()]
