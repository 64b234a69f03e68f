from __future__ import annotations

import json
from datetime import UTC, datetime

from backend.labels.networks import Network
from backend.labels.schema import Keypoint
from backend.served_models.parts import TAG, Part, dump, parts_of
from model_registry import Version

POSE = Network(
    "pose:points",
    "pose",
    ("Person", "Dog"),
    ("points",),
    (Keypoint("nose", 0, ("Person",)), Keypoint("tail", 3, ("Dog", "cat")), Keypoint("centre", 1)),
)
CHOICES = Network("classify:weather", "classify", ("Sün", 'a "b"', "c, d"), ("weather", "other"), multiple=True)
BARE = Network("detect@ours.pt", "detect", (), own=False)
PARTS = (
    Part(POSE, "weights.pt", 320, "v2"),
    Part(CHOICES, "weights-1.pt", 224),
    Part(BARE),
)


def version(**tags: str) -> Version:
    return Version("7.1", 3, datetime.now(UTC), "run", tags, {}, champion=False)


def test_parts_are_read_back() -> None:
    read = parts_of(version(**{TAG: dump(PARTS), "classes": '["other"]', "image_size": "32"}))
    assert read == PARTS
    # Networks are keys of dictionaries: a list left inside would make them none.
    assert {each.network for each in read} == {POSE, CHOICES, BARE}


def test_no_parts_at_all() -> None:
    assert parts_of(version(**{TAG: dump([])})) == ()


def test_the_tag_is_json_that_others_can_read() -> None:
    first = json.loads(dump(PARTS))[0]
    assert (first["file"], first["image_size"], first["since"]) == ("weights.pt", 320, "v2")
    assert first["network"]["points"][1] == {"label": "tail", "index": 3, "classes": ["Dog", "cat"]}


def test_a_version_without_the_tag_is_one_model_for_boxes() -> None:
    (part,) = parts_of(version(classes='["Disc", "Square"]', image_size="160"))
    assert part == Part(Network("detect", "detect", ("Disc", "Square")), "weights.pt", 160)


def test_the_size_of_a_version_that_does_not_say() -> None:
    assert [each.image_size for each in parts_of(version(classes="[]"), 96)] == [96]
    assert [each.image_size for each in parts_of(version(classes="[]"))] == [640]
    assert parts_of(version())[0].network.classes == ()
