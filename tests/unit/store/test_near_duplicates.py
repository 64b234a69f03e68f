from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.shapes import draw_pictures

from backend.store.contents import name_of
from backend.store.database import Store
from backend.store.near_duplicates import (
    LARGEST,
    MEAN,
    MOST,
    Duplicates,
    Groups,
    Known,
    Like,
    Placed,
    are_near,
    equal,
    thumbnail,
)
from backend.store.tables import thumbnails as thumbnails_table

Pixels = NDArray[np.uint8]
UID = "1.100"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Pixels]:
    drawn = draw_pictures(tmp_path_factory.mktemp("pictures"), 40)
    return [np.asarray(cv2.imread(str(each.path)), np.uint8) for each in drawn]


def as_jpeg(image: Pixels, quality: int) -> Pixels:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def brighter(image: Pixels, levels: int) -> Pixels:
    return np.clip(image.astype(int) + levels, 0, 255).astype(np.uint8)


def moved(image: Pixels, across: int, down: int) -> Pixels:
    return np.pad(image, ((down, 0), (across, 0), (0, 0)), mode="edge")[: image.shape[0], : image.shape[1]]


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: as_jpeg(image, 20),
        lambda image: as_jpeg(image, 80),
        lambda image: cv2.resize(image, None, fx=0.5, fy=0.5),
        lambda image: brighter(image, 8),
        lambda image: brighter(image, -8),
        lambda image: moved(image, 1, 0),
        lambda image: moved(image, 0, 1),
        lambda image: as_jpeg(brighter(cv2.resize(image, None, fx=0.5, fy=0.5), 8), 50),
    ],
)
def test_a_changed_copy_is_near(pictures: list[Pixels], change: Callable[[Pixels], Pixels]) -> None:
    assert all(are_near(thumbnail(image), thumbnail(change(image))) for image in pictures)


def test_other_pictures_are_not(pictures: list[Pixels]) -> None:
    thumbnails = [thumbnail(image) for image in pictures]
    assert not any(are_near(one, other) for n, one in enumerate(thumbnails) for other in thumbnails[:n])


def test_another_file_of_one_image_is_equal_and_a_little_new_thing_is_not(pictures: list[Pixels]) -> None:
    for image in pictures:
        small = image.copy()
        cv2.rectangle(small, (60, 60), (66, 66), (0, 0, 0) if image[63, 63].mean() > 127 else (255, 255, 255), -1)
        half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        files = [image, as_jpeg(image, 80), half, brighter(image, 2), small]
        assert equal([thumbnail(np.asarray(each, np.uint8)) for each in files])[0].tolist() == [True] * 4 + [False]


def test_a_large_new_object_makes_another_picture(pictures: list[Pixels]) -> None:
    changed = pictures[0].copy()
    cv2.rectangle(changed, (40, 40), (80, 80), (0, 0, 255), -1)
    assert not are_near(thumbnail(pictures[0]), thumbnail(changed))


def test_images_of_any_size_have_a_thumbnail() -> None:
    for height, width in ((1, 1), (5, 300), (16, 16), (2000, 31)):
        image = np.full((height, width, 3), 77, np.uint8)
        assert thumbnail(image) == bytes([77]) * 256


cells = st.integers(0, 255)


@given(level=st.integers(40, 200), change=st.integers(-40, 40), index=st.integers(0, 255))
def test_one_cell_may_differ_by_less_than_sixteen_levels(level: int, change: int, index: int) -> None:
    one = bytes([level]) * 256
    other = bytearray(one)
    other[index] += change
    apart = abs(change) * 255 / 256  # a 256th goes into the mean brightness
    assert are_near(one, bytes(other)) == (apart < LARGEST) == are_near(bytes(other), one)


@given(change=st.integers(0, 20))
def test_all_cells_may_differ_by_four_levels_on_average(change: int) -> None:
    one = bytes([100]) * 256
    other = bytes([100 + change * (number % 2) for number in range(256)])
    assert are_near(one, other) == (change / 2 < MEAN)


def noise(seed: int) -> NDArray[np.uint8]:
    """A thumbnail unlike those of other seeds."""
    return np.random.default_rng(seed).integers(0, 256, 256, dtype=np.uint8)


def near(seed: int, copy: int) -> bytes:
    """Nearly the same thumbnail for every `copy`."""
    change = np.random.default_rng((seed, copy)).integers(-2, 3, 256)
    return np.clip(noise(seed).astype(int) + change, 0, 255).astype(np.uint8).tobytes()


def placed(known: Sequence[Known], new: Mapping[str, bytes]) -> dict[str, str]:
    groups = Groups()
    groups.know(known)
    return groups_of(groups.place(new))


def groups_of(found: Mapping[str, Placed | Like]) -> dict[str, str]:
    return {key: each.group for key, each in found.items()}


thumbnails = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 50)), min_size=1, max_size=60, unique=True).map(
    lambda given: {f"{seed}-{copy}": near(seed, copy) for seed, copy in given}
)


@given(thumbnails)
def test_groups_are_the_near_ones_twenty_at_a_time(images: dict[str, bytes]) -> None:
    groups = placed([], images)
    assert list(groups) == list(images)
    for group in set(groups.values()):
        mine = [key for key in images if groups[key] == group]
        assert mine[0] == group
        assert len(mine) <= MOST
        assert len({key.partition("-")[0] for key in mine}) == 1
    for seed in range(5):
        mine = [key for key in images if key.startswith(f"{seed}-")]
        assert len({groups[key] for key in mine}) == -(-len(mine) // MOST)


@given(images=thumbnails, cut=st.integers(0, 60))
def test_what_comes_later_changes_nothing(images: dict[str, bytes], cut: int) -> None:
    keys = list(images)
    first = placed([], {key: images[key] for key in keys[:cut]})
    known = [Known(images[key], group, group) for key, group in first.items()]
    later = placed(known, {key: images[key] for key in keys[cut:]})
    assert first | later == placed([], images)


def test_the_nearest_one_decides() -> None:
    base = noise(1).astype(int).clip(20, 220)
    checks = np.indices((16, 16)).sum(axis=0).ravel() % 2
    far, close, new = ((base + checks * step).astype(np.uint8).tobytes() for step in (6, 1, 0))
    assert placed([Known(far, "far", "far"), Known(close, "close", "close")], {"new": new}) == {"new": "close"}
    assert placed([Known(close, "close", "close"), Known(far, "far", "far")], {"new": new}) == {"new": "close"}
    assert placed([Known(close, "close", "close")] * MOST, {"new": new}) == {"new": "close"}, "a copy"
    further = (base + checks * 3).astype(np.uint8).tobytes()
    full = [Known(further, "further", "family")] * MOST
    assert placed([*full, Known(far, "far", "far")], {"new": new}) == {"new": "far"}
    assert placed(full, {"new": new}) == {"new": "new"}


def test_families_are_told() -> None:
    base = noise(1).astype(int).clip(40, 200)
    checks = np.indices((16, 16)).sum(axis=0).ravel() % 2
    left, middle, right = ((base + checks * step).astype(np.uint8).tobytes() for step in (0, 6, 12))
    assert are_near(left, middle) and are_near(middle, right) and not are_near(left, right)
    groups = Groups()
    groups.know([Known(left, "left", "left"), Known(right, "right", "right")])
    assert groups.place({"middle": middle})["middle"] in (
        Placed("left", "left", ("right",)),
        Placed("right", "right", ("left",)),
    )
    groups = Groups()
    groups.know([Known(left, "left", "left"), *[Known(right, "right", "right")] * (MOST - 1)])
    assert groups.place({"middle": middle})["middle"].also == (), "together they are more than a group"
    groups = Groups()
    groups.know([*[Known(left, "left", "family")] * MOST, *[Known(left, "next", "family")] * MOST])
    assert groups.place({"middle": middle}) == {"middle": Placed("middle", "family")}


class TestStored:
    def test_an_assignment_stays(self, store: Store) -> None:
        duplicates = Duplicates(store)
        assert groups_of(duplicates.find(UID, {"a": near(1, 0)})) == {"a": "a"}
        assert groups_of(duplicates.find(UID, {"b": near(1, 1), "c": near(2, 0)})) == {"b": "a", "c": "c"}
        # Another image under a known key; a near one before the first of its group.
        assert groups_of(Duplicates(store).find(UID, {"0": near(2, 9), "b": near(2, 5)})) == {"b": "a", "0": "c"}

    def test_two_objects_on_one_store_know_what_the_other_one_wrote(self, store: Store) -> None:
        one, other = Duplicates(store), Duplicates(store)
        assert groups_of(one.find(UID, {"a": near(1, 0)})) == {"a": "a"}
        assert groups_of(other.find(UID, {"b": near(1, 1), "c": near(2, 0)})) == {"b": "a", "c": "c"}
        assert groups_of(one.find("2.200", {"d": near(2, 1)})) == {"d": "d"}
        assert groups_of(one.find(UID, {"e": near(2, 2), "f": near(3, 0)})) == {"e": "c", "f": "f"}
        assert groups_of(other.find(UID, {"g": near(3, 1)})) == {"g": "f"}

    def test_those_without_thumbnail_have_the_group_that_is_known(self, store: Store) -> None:
        duplicates = Duplicates(store)
        groups_of(duplicates.find(UID, {"a": near(1, 0), "b": near(1, 1), "c": near(2, 0)}))
        assert groups_of(duplicates.find(UID, {"d": near(2, 1)}, {"b", "e"})) == {"b": "a", "d": "c"}
        assert groups_of(duplicates.find(UID, {}, {"a", "b", "c", *map(str, range(600))})) == {
            "a": "a",
            "b": "a",
            "c": "c",
        }

    def test_keys_of_releases_until_0_7_are_kept_without_what_lets_somebody_in(self, store: Store) -> None:
        rows = [
            {"uid": UID, "key": f"bob:hush@host/{key}", "pixels": near(1, 0), "group": "bob:hush@host/a"}
            for key in "ab"
        ]
        with store.write() as db:
            db.execute(sa.insert(thumbnails_table), rows)
        for _ in range(2):
            found = Duplicates(store).find(UID, {"new": near(1, 1)}, {name_of("bob:hush@host/b")})
            group = name_of("bob:hush@host/a")
            assert groups_of(found) == {"new": group, name_of("bob:hush@host/b"): group}
            assert {key: each.old for key, each in found.items()} == {"new": False, name_of("bob:hush@host/b"): True}
        with store.engine.connect() as db:
            assert "hush" not in str(db.execute(sa.select(thumbnails_table)).all())

    def test_projects_do_not_share_groups(self, store: Store) -> None:
        duplicates = Duplicates(store)
        groups_of(duplicates.find(UID, {"a": near(1, 0)}))
        assert groups_of(duplicates.find("2.200", {"b": near(1, 1)})) == {"b": "b"}
        assert groups_of(duplicates.find(UID, {}, {"a", "b"})) == {"a": "a"}

    @settings(deadline=None, max_examples=15)
    @given(images=thumbnails, sizes=st.lists(st.integers(1, 20), min_size=1, max_size=6))
    def test_batches_are_as_good_as_all_at_once(self, images: dict[str, bytes], sizes: list[int]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(f"sqlite:///{folder}/duplicates.db")
            duplicates, keys = Duplicates(store), list(images)
            before: dict[str, str] = {}
            while keys:
                batch, keys = keys[: sizes[0]], keys[sizes[0] :]
                sizes = [*sizes[1:], sizes[0]]
                after = groups_of(duplicates.find(UID, {key: images[key] for key in batch}, before))
                assert after.items() >= before.items()
                before = after
            store.close()
        assert before == placed([], images)
