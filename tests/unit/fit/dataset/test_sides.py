from __future__ import annotations

import json
import sqlite3
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from backend.fit.dataset.examples import pictures_of
from backend.fit.dataset.sides import sides_of
from backend.fit.dataset.split import Present
from backend.labels.reading import Reading
from backend.labels.schema import parse_label_config
from backend.settings import Settings
from backend.store.database import Store
from backend.store.ledger import Example, Ledger
from backend.store.near_duplicates import MOST, Duplicates
from backend.store.sides import NEITHER, TRAINING, VALIDATION, Given, Sides
from backend.store.tables import thumbnails as thumbnails_table

UID = "1.100"
ARCHIVE = Path(__file__).parents[3] / "homes" / "0.7.1.tar.gz"
SCHEMA = parse_label_config(
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
    '<Label value="Disc"/></RectangleLabels></View>'
)
PAGES = parse_label_config(
    '<View><Image name="image" valueList="$image"/><RectangleLabels name="box" toName="image">'
    '<Label value="Disc"/></RectangleLabels></View>'
)


def noise(seed: int, copy: int = 0) -> bytes:
    """A thumbnail unlike those of other seeds; nearly the same for every `copy`, and no copy of another."""
    cells = np.random.default_rng(seed).integers(20, 230, 256)
    change = np.random.default_rng((seed, copy)).integers(-4, 5, 256) if copy else 0
    return bytes((cells + change).astype(np.uint8).tobytes())


class Home:
    """A project's annotated tasks and their sides."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.store = Store(f"sqlite:///{folder / 'yoloop.db'}")
        self.folder = folder
        self.settings = Settings(home=folder, **settings)

    def sides(
        self, data: Mapping[int, Any], seen: Mapping[str, bytes], present: Sequence[Present] = (), pages: bool = False
    ) -> dict[tuple[int, int], Given]:
        """Task and page → side.

        Args:
            data: task → its data, or the address of its image.
            seen: address → thumbnail, of the images that can be read.
        """
        examples = [
            Example(task, each if isinstance(each, dict) else {"image": each}, 1, [], "") for task, each in data.items()
        ]
        pictures = pictures_of(examples, PAGES if pages else SCHEMA)
        thumbnails = {n: seen[each.reference] for n, each in enumerate(pictures) if each.reference in seen}
        readings = {each.task_id: Reading() for each in examples}
        duplicates, sides = Duplicates(self.store), Sides(self.store)
        found = sides_of(self.settings, duplicates, sides, UID, pictures, thumbnails, readings, present)
        return {(each.example.task_id, each.page): own for each, own in zip(pictures, found, strict=True)}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.store.close()


def on(found: Mapping[Any, Given]) -> list[str]:
    return [each.side for each in found.values()]


def test_copies_are_on_one_side_however_many(home: Home) -> None:
    """Two addresses of the same bytes are one image."""
    tasks = {number: f"/copy/{number}.jpg" for number in range(3 * MOST)}
    tasks |= {100 + number: f"/{number}.jpg" for number in range(3 * MOST)}
    seen = {url: noise(1 if task < 100 else task) for task, url in tasks.items()}
    found = home.sides(tasks, seen)
    assert len({own.side for (task, _), own in found.items() if task < 100}) == 1
    assert on(found).count(VALIDATION) == 24


def test_signatures_that_change_keep_the_side(home: Home) -> None:
    tasks = {number: f"https://bob:hush@h/img?id={number}&sig=a{number}&se=1" for number in range(20)}
    first = home.sides(tasks, {url: noise(task) for task, url in tasks.items()})
    assert on(first).count(VALIDATION) == 4
    later = {number: f"https://h/img?id={number}&sig=b{number}&se=2" for number in range(20)}
    assert home.sides(later, {url: noise(task) for task, url in later.items()}) == first
    assert home.sides(later, {}) == first, "by the address alone"
    with home.store.engine.connect() as db:
        for table in ("sides", "thumbnails"):
            assert "hush" not in str(db.exec_driver_sql(f"SELECT * FROM {table}").all())  # noqa: S608


def test_another_image_at_an_address_is_another_image(home: Home) -> None:
    """A webcam's address, or a token that is all that names an image."""
    tasks = {number: f"https://h/img?token={number}" for number in range(20)}
    found = home.sides(tasks, {url: noise(task) for task, url in tasks.items()})
    assert on(found).count(VALIDATION) == 4
    assert len({own.group for own in found.values()}) == 20
    held = next(task for (task, _), own in found.items() if own.side == VALIDATION)
    taught = next(task for (task, _), own in found.items() if own.side == TRAINING)
    (own,) = home.sides({50: "/plain.jpg"}, {"/plain.jpg": noise(taught)}).values()
    assert own.side == TRAINING
    (own,) = home.sides({50: "/plain.jpg"}, {"/plain.jpg": noise(held)}).values()
    assert own.side == NEITHER, "its address trains, and it shows what validates"


def test_an_image_between_two_that_are_on_both_sides_is_left_out(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    base = np.random.default_rng(1).integers(40, 200, 256)
    checks = np.indices((16, 16)).sum(axis=0).ravel() % 2
    one, between, other = ((base + checks * step).astype(np.uint8).tobytes() for step in (0, 6, 12))
    seen = {f"/{number}.jpg": noise(number + 10) for number in range(30)}
    seen |= {"/one.jpg": one, "/other.jpg": other, "/between.jpg": between}
    tasks = dict(enumerate(seen))
    split_by = Home(home.folder, split_by="split")
    first = {30: {"image": "/one.jpg", "split": "train"}, 31: {"image": "/other.jpg", "split": "val"}}
    assert on(split_by.sides(first, seen)) == [TRAINING, VALIDATION]
    split_by.store.close()
    found = home.sides(tasks, seen)
    assert found[32, 0].side == NEITHER
    assert "1 images are on neither side" in caplog.text
    assert on(found).count(NEITHER) == 1


def test_pages_of_one_task_are_on_one_side(home: Home) -> None:
    tasks = {task: {"image": [f"/{task}-{page}.jpg" for page in range(3)]} for task in range(20)}
    seen = {url: noise(100 * task + page) for task, each in tasks.items() for page, url in enumerate(each["image"])}
    found = home.sides(tasks, seen, pages=True)
    assert len(found) == 60 and on(found).count(VALIDATION) == 12
    for task in range(20):
        assert len({found[task, page] for page in range(3)}) == 1


@pytest.mark.parametrize(
    ("group_by", "data"),
    [
        ("patient", lambda number: {"patient": number // 3}),
        (" meta.patient ", lambda number: {"meta": {"patient": f"P{number // 3}"}}),
        ("site, patient", lambda number: {"patient": number // 3 if number % 2 else "", "site": number // 3}),
        ("patient", lambda number: {"patient": [number // 3, "x"]}),
    ],
)
def test_a_field_keeps_images_together(tmp_path: Path, group_by: str, data: Any) -> None:
    home = Home(tmp_path, group_by=group_by)
    tasks = {number: {"image": f"/{number}.jpg", **data(number)} for number in range(30)}
    seen = {f"/{number}.jpg": noise(number) for number in range(40)}
    found = home.sides(tasks, seen)
    assert on(found).count(VALIDATION) == 6
    for number in range(30):
        assert found[number, 0] == found[number - number % 3, 0]
    held = next(task for (task, _), own in found.items() if own.side == VALIDATION)
    new = {30: {**tasks[held], "image": "/30.jpg"}}
    assert home.sides(new, seen)[30, 0] == found[held, 0]
    home.store.close()


def test_a_task_without_the_field_is_a_group_of_its_own(tmp_path: Path) -> None:
    home = Home(tmp_path, group_by="patient")
    empty: list[dict[str, Any]] = [{}, {"patient": None}, {"patient": " "}, {"patient": []}]
    tasks = {number: {"image": f"/{number}.jpg", **empty[number % 4]} for number in range(20)}
    found = home.sides(tasks, {f"/{number}.jpg": noise(number) for number in range(20)})
    assert len({each.group for each in found.values()}) == 20
    home.store.close()


def test_a_field_that_is_named_later_keeps_what_is_new_together(tmp_path: Path) -> None:
    tasks = {number: {"image": f"/{number}.jpg", "patient": number // 10} for number in range(20)}
    seen = {f"/{number}.jpg": noise(number) for number in range(30)}
    first = Home(tmp_path)
    before = first.sides(tasks, seen)
    first.store.close()
    home = Home(tmp_path, group_by="patient")
    assert on(home.sides(tasks, seen)) == on(before)
    both = {n // 10 for (n, _), own in before.items() if own.side == VALIDATION}
    new = {20 + patient: {"image": f"/{20 + patient}.jpg", "patient": patient} for patient in range(2)}
    assert on(home.sides(new, seen, [Present("g", TRAINING, frozenset(), 100)])) == [TRAINING, TRAINING]
    assert both
    home.store.close()


def test_a_field_fixes_the_side(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = Home(tmp_path, split_by="meta.split")
    words = ["val", " Test ", "validation", "HOLDOUT", "train", "", None, 7, "fold 3"]
    tasks = {number: {"image": f"/{number}.jpg", "meta": {"split": word}} for number, word in enumerate(words)}
    found = home.sides(tasks, {f"/{number}.jpg": noise(number) for number in range(9)})
    assert on(found) == [VALIDATION] * 4 + [TRAINING] * 5
    (warning,) = [each.getMessage() for each in caplog.records]
    assert "in 2 tasks" in warning and "'7' (1)" in warning and "'fold 3' (1)" in warning
    moved = {0: {"image": "/0.jpg", "meta": {"split": "train"}}}
    assert home.sides(moved, {"/0.jpg": noise(0)})[0, 0].side == VALIDATION
    assert "a side once given stays" in caplog.text
    home.store.close()


def left_by_0_7(home: Home, tasks: Mapping[int, str], seen: Mapping[str, bytes]) -> dict[int, bool]:
    """The rows that 0.7.1 kept of tasks, and whether it held each out."""
    import hashlib

    rows: dict[str, bytes] = {}
    sides = {}
    for task, url in tasks.items():
        parts = urlsplit(url)
        key = f"{parts.netloc}{parts.path}" if parts.scheme in ("http", "https") else url
        rows.setdefault(key, seen[url])
        sides[task] = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) < 0.2 * 2**64
    with home.store.write() as db:
        columns = ("uid", "key", "pixels", "group")
        db.execute(
            thumbnails_table.insert(),
            [dict(zip(columns, (UID, key, pixels, key), strict=True)) for key, pixels in rows.items()],
        )
    return sides


@pytest.mark.parametrize(
    "form", ["/data/upload/1/{}.jpg", "http://bob:hush@Host:80/{}.jpg", "https://h/{}.jpg?sig=1", "/f/?d={}&token=hush"]
)
def test_sides_of_0_7_stay(home: Home, form: str) -> None:
    tasks = {number: form.format(number) for number in range(60)}
    seen = {url: noise(task) for task, url in tasks.items()}
    before = left_by_0_7(home, {task: url for task, url in tasks.items() if task < 40}, seen)
    found = home.sides(tasks, seen)
    assert {task: found[task, 0].side == VALIDATION for task in before} == before
    assert on(found).count(VALIDATION) == 12 and 0 < sum(before.values()) < 12, "what is new fills the share"
    assert home.sides(tasks, seen) == found
    with home.store.engine.connect() as db:
        assert "hush" not in str(db.exec_driver_sql('SELECT key, "group" FROM thumbnails').all())


def test_images_that_0_7_took_for_one_are_several(home: Home) -> None:
    tasks = {number: f"https://h/img?id={number}" for number in range(40)}
    tasks |= {40 + number: f"https://h/{number}.jpg?v=2" for number in range(20)}
    seen = {url: noise(task) for task, url in tasks.items()}
    before = left_by_0_7(home, tasks, seen)
    found = home.sides(tasks, seen)
    assert len({before[task] for task in range(40)}) == 1
    assert {task: found[task, 0].side == VALIDATION for task in range(40, 60)} == {n: before[n] for n in range(40, 60)}
    assert 4 < sum(found[task, 0].side == VALIDATION for task in range(40)) < 12
    assert on(found).count(VALIDATION) == 12


def test_a_real_home_of_0_7_keeps_its_sides(tmp_path: Path) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "left", filter="data")
    (dump,) = (tmp_path / "left").glob("yoloop.sql")
    (index,) = (tmp_path / "left" / "datasets").glob("*/index.sql")
    uid = index.parent.name
    for path, name in ((dump, "yoloop.db"), (index, "index.db")):
        with closing(sqlite3.connect(tmp_path / name)) as database:
            database.executescript(path.read_text())
    with closing(sqlite3.connect(tmp_path / "index.db")) as database:
        before = dict(database.execute("SELECT task, held_out FROM lessons").fetchall())
    with closing(sqlite3.connect(tmp_path / "yoloop.db")) as database:
        pixels = dict(database.execute("SELECT key, pixels FROM thumbnails").fetchall())
    assert set(before.values()) == {0, 1}
    store = Store(f"sqlite:///{tmp_path / 'yoloop.db'}")
    examples = Ledger(store).examples(uid)
    pictures = pictures_of(examples, SCHEMA)
    thumbnails = {number: pixels[each.reference] for number, each in enumerate(pictures)}
    readings = {each.task_id: Reading() for each in examples}
    given = sides_of(Settings(home=tmp_path), Duplicates(store), Sides(store), uid, pictures, thumbnails, readings)
    found = {each.example.task_id: int(own.side == VALIDATION) for each, own in zip(pictures, given, strict=True)}
    assert found == before, json.dumps(found)
    store.close()
