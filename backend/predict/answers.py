"""From what the models found on a task's images to the regions and the places that Label Studio is told of."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backend.labels.convert import to_regions
from backend.labels.geometry import Detection, ImageSize
from backend.labels.outline import visible
from backend.labels.region import Region
from backend.labels.schema import Control
from backend.labels.shapes import is_covered
from backend.predict.batch import Look, merged
from backend.predict.interactive import MOST, THERE, ids_of, place_of, pointed_at
from backend.predict.marks import Entry, Mark, Marks, id_of
from backend.predict.sampling import STRATEGIES, Place, distances, places_of
from backend.predict.shown import objects_of
from backend.served_models.served import Served, Suggests
from backend.served_models.thresholds import ThresholdPolicy, Thresholds
from backend.store.embeddings import Embeddings


@dataclass(frozen=True, slots=True)
class Pointing:
    """What a person points at in one task.

    Attributes:
        marks: what was drawn.
        shown: the entries of what the page shows besides.
        about: names the task among all others.
    """

    marks: Marks
    shown: Sequence[Entry]
    about: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of one version to one request.

    Attributes:
        served: the models that were asked.
        policy: what settings say of scores.
        most: suggestions for one image by one control, where its model's annotations do not hold more.
        skipped: called with a control's kind and how many objects could not be drawn.
        limited: called with a control's name and how many objects were left out, as they are more than that.
    """

    served: Served
    policy: ThresholdPolicy
    most: int
    skipped: Callable[[str, int], None]
    limited: Callable[[str, int], None]

    def thresholds(self, each: Suggests) -> Thresholds:
        return each.thresholds(self.policy)

    def places(self, looks: Sequence[Look]) -> list[Place]:
        """What the models say of one task's images: the ground of its score."""
        return [
            place
            for each in self.served.suggests
            for _, found in merged(looks, each)
            # For a mark the models name more objects than for a suggestion.
            for place in places_of(found[: self.most], each.control, each.labels, self.thresholds(each).usual)
        ]

    def regions(self, looks: Sequence[Look], pointing: Pointing | None) -> list[Region]:
        """The regions of one task, in no order.

        Args:
            pointing: of interactive mode: then only what is at the mark, and is not there yet. None: all.
        """
        if pointing is not None and pointing.marks.asks is None:
            return []
        return [
            region
            for each in self.served.suggests
            for look, found in merged(looks, each)
            for region in self._drawn(each, look, found, pointing)
        ]

    def _drawn(self, each: Suggests, look: Look, found: Sequence[Detection], pointing: Pointing | None) -> list[Region]:
        assert look.size is not None
        control, thresholds = each.control, self.thresholds(each)
        chooses = control.kind in ("choices", "taxonomy")
        if pointing is not None:
            made = [] if chooses else self._pointed(each, look, look.size, found, pointing)
        else:
            if not chooses:
                found = self._best(each, [one for one in found if one.score >= thresholds.of(one.cls)])
            least = thresholds.usual if chooses else 0.0
            made, skipped = to_regions(found, control, each.labels, look.size, least, lambda: uuid.uuid4().hex[:10])
            self.skipped(control.kind, skipped)
        if control.pages and (not chooses or control.per_item):
            made = [{**region, "item_index": look.page} for region in made]
        return made

    def _pointed(
        self, each: Suggests, look: Look, size: ImageSize, found: Sequence[Detection], pointing: Pointing
    ) -> list[Region]:
        """The regions that answer to a mark, without those that the page shows already."""
        control, marks = each.control, pointing.marks

        def is_here(mark: Mark) -> bool:
            return (mark.to_name, mark.page) == (control.to_name, look.page)

        if marks.asks is None or not is_here(marks.asks):
            return []
        excluded = [mark for mark in marks.excluded if is_here(mark)]
        threshold = self.thresholds(each).usual
        chosen = pointed_at(found, marks.asks, excluded, each.labels, control.labels, size, threshold)[:MOST]
        if not chosen:
            return []
        there = objects_of(pointing.shown, control, look.page, size)
        names = {id_of(entry) for entry in pointing.shown}
        made: list[Region] = []
        given: Counter[tuple[object, ...]] = Counter()
        for one, label in chosen:
            place = (one.cls, *place_of(one, size))
            new_id = ids_of(*pointing.about, control.name, control.to_name, look.page, place, given[place])
            given[place] += 1
            regions, skipped = to_regions([one], control, {one.cls: label}, size, 0.0, new_id)
            self.skipped(control.kind, skipped)
            for part in _parts(regions, control):
                is_known = not names.isdisjoint(id_of(entry) for entry in part)
                if not is_known and not any(
                    is_covered(shape, there, control.kind, THERE) for shape in _shapes(part, one, control, size)
                ):
                    made += part
        return made

    def _best(self, each: Suggests, found: Sequence[Detection]) -> Sequence[Detection]:
        """What is suggested, best score first, as far as the limit goes."""
        most = max(self.most, each.loaded.max_regions)
        shown = [one for one in found if one.cls in each.labels]
        if len(shown) <= most:
            return found
        self.limited(each.control.name, len(shown) - most)
        return sorted(shown, key=lambda one: -one.score)[:most]


def _parts(regions: Sequence[Region], control: Control) -> list[list[Region]]:
    """What stands for itself among one object's regions: each polygon of it, but a skeleton as a whole."""
    parts: dict[str, list[Region]] = {}
    for region in regions:
        parts.setdefault("" if control.kind == "keypoint" else region["id"], []).append(region)
    return list(parts.values())


def _shapes(part: Sequence[Region], one: Detection, control: Control, size: ImageSize) -> list[Detection]:
    """What a part of an object covers, as the page would show it."""
    if control.kind in ("brush", "bitmask"):  # the same without packing and unpacking it
        mask = visible(one, size)
        return [] if mask is None else [Detection(one.cls, one.score, mask.box, mask=mask)]
    return objects_of(part, control, 0, size)


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
