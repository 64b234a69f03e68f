"""From what the models found on a task's images to the regions and the places that Label Studio is told of."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.labels.convert import to_regions
from backend.labels.geometry import Detection
from backend.labels.schema import Control
from backend.predict.batch import Look, merged
from backend.predict.interactive import Prompt, prompted
from backend.predict.sampling import STRATEGIES, Place, distances, places_of
from backend.served_models.served import Served, Suggests
from backend.store.embeddings import Embeddings


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of one version to one request.

    Attributes:
        served: the models that were asked.
        threshold: least score where a control names none, in [0, 1].
        most: suggestions for one image by one control, where its model's annotations do not hold more.
        skipped: called with a control's kind and how many objects could not be drawn.
        limited: called with a control's name and how many objects were left out, as they are more than that.
    """

    served: Served
    threshold: float
    most: int
    skipped: Callable[[str, int], None]
    limited: Callable[[str, int], None]

    def threshold_of(self, control: Control) -> float:
        return self.threshold if control.score_threshold is None else control.score_threshold

    def places(self, looks: Sequence[Look]) -> list[Place]:
        """What the models say of one task's images: the ground of its score."""
        return [
            place
            for each in self.served.suggests
            for _, found in merged(looks, each)
            for place in places_of(found, each.control, each.labels, self.threshold_of(each.control))
        ]

    def regions(self, looks: Sequence[Look], prompts: Sequence[Prompt] | None) -> list[dict[str, Any]]:
        """The regions of one task, in no order.

        Args:
            prompts: of interactive mode, what a person has just drawn: then only the objects there. None: all.
        """
        return [
            region
            for each in self.served.suggests
            for look, found in merged(looks, each)
            for region in self._drawn(each, look, found, prompts)
        ]

    def _drawn(
        self, each: Suggests, look: Look, found: Sequence[Detection], prompts: Sequence[Prompt] | None
    ) -> list[dict[str, Any]]:
        assert look.size is not None
        control, threshold = each.control, self.threshold_of(each.control)
        chooses = control.kind in ("choices", "taxonomy")
        if prompts:
            here = [mark for mark in prompts if (mark.to_name, mark.page) == (control.to_name, look.page)]
            if chooses or not here:
                return []
            known = [one for one in found if one.cls in each.labels]
            found, threshold = prompted(known, here, look.size, threshold), 0.0
        if not chooses:
            found = self._best(each, found, threshold)
        made, skipped = to_regions(found, control, each.labels, look.size, threshold, lambda: uuid.uuid4().hex[:10])
        self.skipped(control.kind, skipped)
        if control.pages and (not chooses or control.per_item):
            made = [{**region, "item_index": look.page} for region in made]
        return made

    def _best(self, each: Suggests, found: Sequence[Detection], threshold: float) -> Sequence[Detection]:
        """What is suggested, best score first, as far as the limit goes."""
        most = max(self.most, each.loaded.max_regions)
        shown = [one for one in found if one.cls in each.labels and one.score >= threshold]
        if len(shown) <= most:
            return found
        self.limited(each.control.name, len(shown) - most)
        return sorted(shown, key=lambda one: -one.score)[:most]


def task_distances(
    embeddings: Embeddings,
    uid: str,
    version: str,
    places: Mapping[int, Sequence[Place]],
    looks: Mapping[int, Sequence[Look]],
) -> dict[int, float]:
    """How far each task's image is from those known before it, the least sure ones first; they are known from now on.

    Args:
        places, looks: by the task's index in the request.
    """
    vectors = {
        index: look.vector.result()
        for index in sorted(places, key=lambda index: STRATEGIES["least-confidence"].score(places[index]))
        for look in looks[index][:1]
        if look.vector is not None
    }
    if not vectors:
        return {}
    rows = np.stack(list(vectors.values()))
    ids = {index: look.task_id for index in vectors for look in looks[index][:1] if look.task_id is not None}
    known = embeddings.of(uid, version, frozenset(ids.values()), rows.shape[1])
    embeddings.save(uid, version, {task_id: vectors[index] for index, task_id in ids.items()})
    return dict(zip(vectors, distances(rows, known), strict=True))
