from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from support.shapes import LABELS, draw_pictures
from support.web import Server, answer, encoded

from backend.errors import TrainingError
from backend.fit.dataset.build import Dataset, NetworkData, build
from backend.fit.dataset.split import TORN, image_name
from backend.images.decode import Decoded, decode
from backend.labels.schema import parse_label_config
from backend.services import Services
from backend.settings import Settings
from backend.store.contents import name_of
from backend.store.database import Project
from backend.store.ledger import Example
from backend.store.near_duplicates import copy_groups
from backend.store.sides import TRAINING, VALIDATION, Given, Gives, copy_sides

CONFIG = """
<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
  <Label value="Disc"/><Label value="Square"/><Label value="Triangle"/></RectangleLabels></View>
"""


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(Settings(home=tmp_path / "home", holdout=0.5, allowed_hosts="127.0.0.1"))
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def project(services: Services) -> Project:
    services.store.save_project("1.100", label_config=CONFIG)
    found = services.store.project("1.100")
    assert found is not None
    return found


def example(number: int, reference: Any, result: list[dict[str, Any]]) -> Example:
    return Example(number, {"image": reference}, 10 * number, result, f"content {number}")


def box(label: str = "Disc", x: float = 10, **fields: Any) -> dict[str, Any]:
    value = {"x": x, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": [label]}
    region = {"from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}
    return {**region, "original_width": 100, "original_height": 50, **fields}


def sides(services: Services, server: Server) -> tuple[list[str], list[str]]:
    """Addresses on the server that train, and that validate, thirty of each."""
    urls = [f"{server.url}/{number}.jpg" for number in range(60)]
    given = {image_name(url): Given(url, VALIDATION if number % 2 else TRAINING) for number, url in enumerate(urls)}
    services.sides.give("1.100", given.keys(), lambda known: (Gives(given), None))
    return urls[::2], urls[1::2]


def photo(number: int, quality: int = 90) -> bytes:
    """A JPEG of 100 × 50 pixels, unlike those of other numbers."""
    coarse = np.random.default_rng(number).integers(0, 256, (5, 10, 3), dtype=np.uint8)
    return encoded(Image.fromarray(coarse).resize((100, 50)), "JPEG", quality=quality)


def sides_in(folder: Path) -> dict[int, str]:
    """Task → side, as the manifest tells, which must be that of the files."""
    manifest = json.loads((folder / "manifest.json").read_text())
    told = {each["task"]: each["side"] for each in manifest["images"]}
    network = folder / "network-0"
    held_out = [each["image"] for each in json.loads((network / "holdout.json").read_text())]
    files = [Path(each) for each in {*held_out, *(network / "train.txt").read_text().splitlines()}]
    assert all(path.exists() for path in files)
    assert {int(path.stem.partition("-")[0]): path.parent.name for path in files}.items() <= told.items()
    return told


def only(dataset: Dataset) -> NetworkData:
    (found,) = dataset.networks
    return found


def make(services: Services, project: Project, examples: list[Example], folder: Path) -> Dataset:
    teaching = {each.task_id: (each.annotation_id, each.content) for each in examples}

    def load(task_ids: Collection[int]) -> list[Example]:
        return [each for each in examples if each.task_id in task_ids]

    return build(services, project, parse_label_config(project.label_config), teaching, load, folder)


def written(services: Services) -> dict[str, bytes]:
    """What the images and labels of the project say."""
    found = (path for path in kept(services).rglob("*") if path.suffix in (".jpg", ".png", ".txt"))
    return {str(path.relative_to(kept(services))): path.read_bytes() for path in found}


def kept(services: Services) -> Path:
    """Where the images and labels of the project lie."""
    return services.settings.root / "datasets" / "1.100"


def test_what_ultralytics_reads(services: Services, project: Project, server: Server, tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path / "pictures", 20)
    examples = []
    for number, picture in enumerate(pictures):
        server.routes[f"/{number}.jpg"] = answer(picture.path.read_bytes())
        examples.append(example(number, f"{server.url}/{number}.jpg", picture.result()))
    dataset = make(services, project, examples, tmp_path / "job")
    folder = tmp_path / "job" / "network-0"
    made = only(dataset)
    assert made.train + made.holdout == 20
    assert made.objects == sum(len(picture.shapes) for picture in pictures)
    assert only(dataset).sizes == [(160, 160)] * 20
    assert dataset.learned == {number: f"content {number}" for number in range(20)}

    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    (folder / "epoch.txt").write_text((folder / "train.txt").read_text())
    data = check_det_dataset(str(folder / "data.yaml"), autodownload=False)
    assert list(data["names"].values()) == list(LABELS)
    seen = {}
    for side in ("train", "val"):
        read = YOLODataset(img_path=data[side], data=data, augment=False, cache=False)
        assert len(read.labels) == (made.train if side == "train" else made.holdout)
        seen |= {Path(each["im_file"]).stem: each for each in read.labels}
    for number, picture in enumerate(pictures):
        label = seen[f"{number}-image-0"]
        assert [LABELS[int(cls)] for (cls,) in label["cls"]] == [shape.label for shape in picture.shapes]
        expected = [
            ((x1 + x2) / 320, (y1 + y2) / 320, (x2 - x1) / 160, (y2 - y1) / 160)
            for x1, y1, x2, y2 in (shape.box for shape in picture.shapes)
        ]
        assert np.allclose(label["bboxes"], np.array(expected).reshape(-1, 4), atol=1e-5)


def test_the_hold_out_judges_and_never_teaches(
    services: Services, project: Project, server: Server, tmp_path: Path
) -> None:
    teach, judge = sides(services, server)
    for number, url in enumerate(teach + judge):
        server.routes[url.removeprefix(server.url)] = answer(photo(number))
    examples = [example(number, url, [box()]) for number, url in enumerate(teach + judge)]
    make(services, project, examples, tmp_path / "job")
    held_out = json.loads((tmp_path / "job" / "network-0" / "holdout.json").read_text())
    stems = {Path(each["image"]).stem for each in held_out}
    assert stems == {f"{number}-image-0" for number in range(len(teach), len(teach + judge))}
    assert held_out[0]["result"] == [box()]
    assert held_out[0]["classes"] == [0]
    taught = {Path(line).stem for line in (tmp_path / "job" / "network-0" / "train.txt").read_text().splitlines()}
    assert taught == {f"{number}-image-0" for number in range(len(teach))}
    manifest = json.loads((tmp_path / "job" / "manifest.json").read_text())
    assert manifest["networks"] == [{"key": "detect", "classes": list(LABELS), "objects": 60}]
    assert {each["side"] for each in manifest["images"] if each["task"] < len(teach)} == {"train"}
    assert manifest["images"][3]["annotation"] == 30
    assert manifest["images"][3]["content"] == "content 3"


def test_images_are_upright_for_everybody(services: Services, project: Project, server: Server, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    data = encoded(Image.new("RGB", (40, 20), (200, 30, 10)), "JPEG", exif=turned, quality=95)
    server.routes["/a.jpg"] = answer(data)
    dataset = make(services, project, [example(1, f"{server.url}/a.jpg", [box()])], tmp_path / "job")
    assert only(dataset).sizes == [(20, 40)]
    (path,) = (kept(services) / "images").glob("1-image-0.*")
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert stored is not None
    assert stored.shape == (40, 20, 3)


def test_large_images_teach_with_the_pixels_that_will_be_shown(
    services: Services, project: Project, server: Server, tmp_path: Path
) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(coarse).resize((2803, 2101)), "JPEG", quality=90)
    server.routes["/a.jpg"] = answer(data)
    dataset = make(services, project, [example(1, f"{server.url}/a.jpg", [box()])], tmp_path / "job")
    assert only(dataset).sizes == [(2803, 2101)]
    (path,) = (kept(services) / "images").glob("1-image-0.*")
    stored = cv2.imread(str(path))
    assert stored is not None
    assert stored.shape == (526, 701, 3)  # a quarter, which covers the 640 of the input
    shown = decode(data, 10**8, "a", cover=640).pixels
    assert np.abs(stored.astype(int) - shown).mean() < 1
    line = (kept(services) / "network-0" / "labels").rglob("1-image-0.txt")
    assert np.allclose([float(each) for each in next(line).read_text().split()], [0, 0.25, 0.4, 0.3, 0.4], atol=1e-6)


def test_only_new_images_are_decoded(
    services: Services, project: Project, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        server.routes[f"/{number}.jpg"] = answer(photo(number))
    server.routes["/11.jpg"] = answer(encoded(Image.new("RGB", (1300, 900)), "JPEG"))
    examples = [example(number, f"{server.url}/{number}.jpg", [box()]) for number in range(12)]
    decoded: list[str] = []

    def counted(data: bytes, max_pixels: int, name: str, *, cover: int = 0) -> Decoded:
        decoded.append(name)
        return decode(data, max_pixels, name, cover=cover)

    monkeypatch.setattr("backend.images.loader.decode", counted)

    make(services, project, examples[:9], tmp_path / "first")
    assert len(decoded) == 9
    second = make(services, project, examples, tmp_path / "second")
    assert len(decoded) == 12
    before = written(services)
    shutil.rmtree(kept(services))
    third = make(services, project, examples, tmp_path / "third")
    assert len(decoded) == 12
    assert written(services) == before
    assert only(third).sizes == only(second).sizes
    assert (1300, 900) in only(third).sizes


def test_an_empty_annotation_is_a_background_image(
    services: Services, project: Project, server: Server, tmp_path: Path
) -> None:
    server.routes["/a.jpg"] = server.routes["/b.jpg"] = answer(encoded(Image.new("RGB", (64, 64)), "JPEG"))
    examples = [example(1, f"{server.url}/a.jpg", []), example(2, f"{server.url}/b.jpg", [box()])]
    dataset = make(services, project, examples, tmp_path / "job")
    assert only(dataset).objects == 1
    (label,) = kept(services).rglob("1-image-0.txt")
    assert label.read_text() == ""
    assert dataset.learned == {1: "content 1", 2: "content 2"}


def test_some_unreadable_images_are_left_out(
    services: Services, project: Project, server: Server, tmp_path: Path
) -> None:
    for number in range(10):
        server.routes[f"/{number}.jpg"] = answer(encoded(Image.new("RGB", (64, 64)), "JPEG"))
    server.routes["/3.jpg"] = answer(b"junk")
    del server.routes["/7.jpg"]
    examples = [example(number, f"{server.url}/{number}.jpg", [box()]) for number in range(10)]
    dataset = make(services, project, examples, tmp_path / "job")
    assert set(dataset.unreadable) == {3, 7}
    assert set(dataset.learned) == set(range(10)) - {3, 7}
    assert only(dataset).objects == 8
    del server.routes["/8.jpg"]
    with pytest.raises(TrainingError, match="3 of 10 images could not be read; task"):
        make(
            Services(Settings(home=tmp_path / "other", allowed_hosts="127.0.0.1")), project, examples, tmp_path / "job"
        )


@pytest.mark.parametrize(
    ("reference", "result", "words"),
    [
        (None, [box()], "No annotated task has an image"),
        ("", [box()], "No annotated task has an image"),
        (5, [box()], "No annotated task has an image"),
        ("/a.jpg", [], "No submitted annotation says anything"),
        ("/a.jpg", [box("Unknown")], "1 of 1 annotations are not understood: label `Unknown` is not in the config"),
        ("/a.jpg", [box("Unknown", from_name="other")], "control `other` is not in the config"),
    ],
)
def test_nothing_to_learn_from(
    services: Services,
    project: Project,
    server: Server,
    tmp_path: Path,
    reference: Any,
    result: list[dict[str, Any]],
    words: str,
) -> None:
    server.routes["/a.jpg"] = answer(encoded(Image.new("RGB", (64, 64)), "JPEG"))
    given = server.url + reference if reference == "/a.jpg" else reference
    with pytest.raises(TrainingError, match=words):
        make(services, project, [example(1, given, result)], tmp_path / "job")


class TestNearDuplicates:
    def copies(self, server: Server, urls: list[str], number: int) -> None:
        """Photo `number` at all of these addresses, each time saved anew."""
        for count, url in enumerate(urls):
            server.routes[url.removeprefix(server.url)] = answer(photo(number, quality=90 - 8 * count))

    def test_they_are_on_one_side(self, services: Services, project: Project, server: Server, tmp_path: Path) -> None:
        urls = [f"{server.url}/{number}.jpg" for number in range(10)]
        for first in (0, 5):
            self.copies(server, urls[first : first + 5], first)
        examples = [example(number, url, [box()]) for number, url in enumerate(urls)]
        make(services, project, examples[::-1], tmp_path / "job")
        told = sides_in(tmp_path / "job")
        assert len({told[number] for number in range(5)}) == len({told[number] for number in range(5, 10)}) == 1
        assert set(told.values()) == {"train", "holdout"}
        held_out = json.loads((tmp_path / "job" / "network-0" / "holdout.json").read_text())
        assert len(held_out) == 5
        assert len({each["group"] for each in held_out}) == 1

    def test_a_side_stays_when_others_come(
        self, services: Services, project: Project, server: Server, tmp_path: Path
    ) -> None:
        teach, judge = sides(services, server)
        self.copies(server, [judge[0], f"{server.url}/new.jpg"], 0)
        server.routes[teach[1].removeprefix(server.url)] = answer(photo(1))
        later = [example(7, judge[0], [box()]), example(8, teach[1], [box()])]
        make(services, project, later, tmp_path / "first")
        assert sides_in(tmp_path / "first") == {7: "holdout", 8: "train"}
        # A task of a lower number: it would have been the first, and goes to the side that is taken.
        new = example(3, f"{server.url}/new.jpg", [box()])
        make(services, project, [new, *later], tmp_path / "second")
        assert sides_in(tmp_path / "second") == {3: "holdout", 7: "holdout", 8: "train"}
        make(services, project, [new, later[1]], tmp_path / "third")
        assert sides_in(tmp_path / "third") == {3: "holdout", 8: "train"}

    def test_an_image_that_is_not_read_keeps_its_side(
        self, services: Services, project: Project, server: Server, tmp_path: Path
    ) -> None:
        teach, judge = sides(services, server)
        urls = [*teach[:8], judge[0]]
        for number, url in enumerate(urls):
            server.routes[url.removeprefix(server.url)] = answer(photo(number))
        examples = [example(number, url, [box()]) for number, url in enumerate(urls)]
        make(services, project, examples, tmp_path / "first")
        expected = dict.fromkeys(range(8), "train") | {8: "holdout"}
        assert sides_in(tmp_path / "first") == expected
        server.routes[judge[0].removeprefix(server.url)] = answer(b"junk")
        shutil.rmtree(services.settings.root / "cache")
        examples[8] = replace(examples[8], content="changed")
        fresh = Services(services.settings)
        dataset = make(fresh, project, examples, tmp_path / "second")
        fresh.close()
        assert set(dataset.unreadable) == {8}
        assert sides_in(tmp_path / "second") == expected


def test_an_image_between_both_sides_is_left_out_and_told(
    services: Services, project: Project, server: Server, tmp_path: Path
) -> None:
    fixed = Services(services.settings.model_copy(update={"split_by": "split"}))
    examples = []
    for number, side in enumerate(["train", "val", "train"]):
        url = f"{server.url}/{number}.jpg"
        server.routes[f"/{number}.jpg"] = answer(photo(min(number, 1), quality=90 - 10 * number))
        examples.append(replace(example(number, url, [box()]), data={"image": url, "split": side}))
    dataset = make(fixed, project, examples[:2], tmp_path / "first")
    assert sides_in(tmp_path / "first") == {0: "train", 1: "holdout"}
    dataset = make(fixed, project, examples, tmp_path / "second")
    assert dataset.not_understood == {2: TORN}
    assert dataset.sides == {0: False, 1: True}
    assert (only(dataset).train, only(dataset).holdout) == (1, 1)
    manifest = json.loads((tmp_path / "second" / "manifest.json").read_text())
    assert [each["left_out"] for each in manifest["images"]] == [{}, {}, {"detect": TORN}]
    fixed.close()


def test_another_share_moves_no_image(services: Services, project: Project, server: Server, tmp_path: Path) -> None:
    for number in range(20):
        server.routes[f"/{number}.jpg"] = answer(photo(number))
    examples = [example(number, f"{server.url}/{number}.jpg", [box()]) for number in range(20)]
    make(services, project, examples, tmp_path / "first")
    before = sides_in(tmp_path / "first")
    assert list(before.values()).count("holdout") == 10
    for share in (0.1, 0.9):
        other = Services(services.settings.model_copy(update={"holdout": share}))
        shutil.rmtree(kept(services))  # an index that was lost
        make(other, project, examples[::-1], tmp_path / str(share))
        assert sides_in(tmp_path / str(share)) == before
        other.close()


class TestEmptySides:
    def test_without_a_hold_out_none_is_told_and_none_judges(
        self, services: Services, project: Project, server: Server, tmp_path: Path
    ) -> None:
        server.routes["/a.jpg"] = answer(photo(0))
        dataset = make(services, project, [example(1, f"{server.url}/a.jpg", [box()])], tmp_path / "job")
        assert (only(dataset).train, only(dataset).holdout) == (1, 0)
        folder = tmp_path / "job" / "network-0"
        assert json.loads((folder / "holdout.json").read_text()) == []
        config = json.loads((folder / "data.yaml").read_text())
        for name in (config["val"], "train.txt"):
            (image,) = (folder / name).read_text().splitlines()
            assert Path(image).exists()

    def test_what_is_held_out_never_trains(
        self, services: Services, project: Project, server: Server, tmp_path: Path
    ) -> None:
        _, judge = sides(services, server)
        for number, url in enumerate(judge[:3]):
            server.routes[url.removeprefix(server.url)] = answer(photo(number))
        examples = [example(number, url, [box()]) for number, url in enumerate(judge[:3])]
        with pytest.raises(TrainingError, match="All annotated images are held out"):
            make(services, project, examples, tmp_path / "job")


@pytest.mark.parametrize("form", ["/img?id={}", "/data/local-files/?d=a/{}.jpg", "/img?key=0123456789abcdef{:04}"])
def test_images_told_apart_by_the_query_are_not_on_both_sides(
    services: Services, project: Project, server: Server, tmp_path: Path, form: str
) -> None:
    urls = [server.url + form.format(number) for number in range(40)]
    for number, url in enumerate(urls):
        server.routes[url.removeprefix(server.url)] = answer(photo(number))
    made = only(make(services, project, [example(n, url, [box()]) for n, url in enumerate(urls)], tmp_path / "job"))
    assert (made.train, made.holdout) == (20, 20)
    taught = set((made.folder / "train.txt").read_text().splitlines())
    judging = {each["image"] for each in json.loads((made.folder / "holdout.json").read_text())}
    assert len(taught) == len(judging) == 20
    content = [{Path(path).read_bytes() for path in side} for side in (taught, judging)]
    assert not content[0] & content[1]


class TestWhatChanged:
    """Only what changed is read and written, and the outcome is what writing everything anew would give."""

    @pytest.fixture
    def examples(self, server: Server) -> list[Example]:
        for number in range(12):
            server.routes[f"/{number}.jpg"] = answer(photo(number))
        return [example(number, f"{server.url}/{number}.jpg", [box()]) for number in range(12)]

    def anew(self, known: Services, project: Project, examples: list[Example], folder: Path) -> dict[str, bytes]:
        """What another home writes for the same annotations and sides."""
        services = Services(Settings(home=folder, holdout=0.5, allowed_hosts="127.0.0.1"))
        copy_groups(known.store, services.store, project.uid)
        copy_sides(known.store, services.store, project.uid)
        make(services, project, examples, folder / "job")
        services.close()
        return written(services)

    def test_new_changed_and_deleted_annotations(
        self, services: Services, project: Project, tmp_path: Path, examples: list[Example]
    ) -> None:
        make(services, project, examples[:11], tmp_path / "first")
        before = {path: path.stat().st_mtime_ns for path in kept(services).rglob("*.txt")}
        (kept(services) / "network-0" / "labels" / "train.cache").write_bytes(b"of ultralytics")
        later = [replace(examples[0], result=[box("Square")], content="changed"), *examples[2:]]
        dataset = make(services, project, later, tmp_path / "second")
        assert written(services) == self.anew(services, project, later, tmp_path / "other")
        touched = {
            int(path.stem.partition("-")[0])
            for path in before
            if not path.exists() or path.stat().st_mtime_ns != before[path]
        }
        assert touched == {0, 1}
        assert not list(kept(services).rglob("*.cache"))
        assert dataset.learned == {each.task_id: each.content for each in later}
        assert only(dataset).objects == 11
        told = json.loads((tmp_path / "second" / "manifest.json").read_text())["images"]
        assert [(each["task"], each["content"]) for each in told] == [(each.task_id, each.content) for each in later]

    def test_only_they_are_loaded(
        self, services: Services, project: Project, tmp_path: Path, examples: list[Example]
    ) -> None:
        asked: list[set[int]] = []

        def load(task_ids: Collection[int]) -> list[Example]:
            asked.append(set(task_ids))
            return [each for each in examples if each.task_id in task_ids]

        for number in (11, 12, 12):
            teaching = {each.task_id: (each.annotation_id, each.content) for each in examples[:number]}
            build(services, project, parse_label_config(CONFIG), teaching, load, tmp_path / "job")
        assert asked[-2:] == [{11}, set()]

    def test_the_same_said_by_another_annotation_is_told_as_that(
        self, services: Services, project: Project, tmp_path: Path, examples: list[Example]
    ) -> None:
        make(services, project, examples, tmp_path / "first")
        examples[3] = replace(examples[3], annotation_id=777)
        make(services, project, examples, tmp_path / "second")
        told = json.loads((tmp_path / "second" / "manifest.json").read_text())["images"]
        assert told[3]["annotation"] == 777

    @pytest.mark.parametrize(
        "where", ["prepared_images.Ready.write", "build.link", "build.label_line", "index.Index.finish"]
    )
    def test_what_a_crash_left_half_written_is_written_anew(
        self,
        services: Services,
        project: Project,
        tmp_path: Path,
        examples: list[Example],
        monkeypatch: pytest.MonkeyPatch,
        where: str,
    ) -> None:
        make(services, project, examples[:9], tmp_path / "first")
        later = [replace(examples[0], result=[box("Square")], content="changed"), *examples[2:]]

        def crash(*args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(f"backend.fit.dataset.{where}", crash)
            make(services, project, later, tmp_path / "second")
        # In the meantime the person has taken everything back.
        make(services, project, examples[:9], tmp_path / "third")
        assert written(services) == self.anew(services, project, examples[:9], tmp_path / "other")

    def test_another_config_writes_everything_anew(
        self, services: Services, project: Project, tmp_path: Path, examples: list[Example]
    ) -> None:
        make(services, project, examples, tmp_path / "first")
        other = replace(project, label_config=CONFIG.replace('<Label value="Disc"/>', "") + "<!-- -->")
        other = replace(
            other,
            label_config=other.label_config.replace("</RectangleLabels>", '<Label value="Disc"/></RectangleLabels>'),
        )
        make(services, other, examples, tmp_path / "second")
        assert {label.split()[0] for path, label in written(services).items() if path.endswith(".txt")} == {b"2"}

    def test_a_turned_box_comes_and_goes(
        self, services: Services, project: Project, tmp_path: Path, examples: list[Example]
    ) -> None:
        turned = box()
        turned["value"]["rotation"] = 30
        tilted = [replace(examples[0], result=[turned], content="turned"), *examples[1:]]
        tasks = []
        for now in (examples, tilted, [*tilted[:11], replace(examples[11], content="new")], examples):
            tasks.append(only(make(services, project, now, tmp_path / "job")).network.task)
        assert tasks == ["detect", "obb", "obb", "detect"]
        assert written(services) == self.anew(services, project, examples, tmp_path / "other")

    @pytest.mark.parametrize("damage", [b"junk", b""])
    def test_without_a_readable_index_everything_is_written_anew(
        self, services: Services, project: Project, tmp_path: Path, examples: list[Example], damage: bytes
    ) -> None:
        make(services, project, examples, tmp_path / "first")
        for path in kept(services).glob("index.db*"):
            path.write_bytes(damage * 100)
        (kept(services) / "network-0" / "labels" / "train" / "99-image-0.txt").write_text("left over")
        assert make(services, project, examples, tmp_path / "second").learned.keys() == set(range(12))
        assert written(services) == self.anew(services, project, examples, tmp_path / "other")

    def test_an_unreadable_image_is_tried_again(
        self, services: Services, project: Project, server: Server, tmp_path: Path, examples: list[Example]
    ) -> None:
        there = server.routes.pop("/4.jpg")
        assert set(make(services, project, examples, tmp_path / "first").unreadable) == {4}
        server.routes["/4.jpg"] = there
        dataset = make(services, project, examples, tmp_path / "second")
        assert not dataset.unreadable
        assert dataset.learned.keys() == set(range(12))
        assert written(services) == self.anew(services, project, examples, tmp_path / "other")


def test_nothing_that_is_written_lets_somebody_in(
    services: Services, project: Project, server: Server, tmp_path: Path
) -> None:
    """Task data may hold passwords and signatures; the manifest becomes an artifact that all of a registry's users
    read."""
    place = server.url.removeprefix("http://")
    examples = []
    for number in range(8):
        server.routes[f"/{number}.jpg"] = answer(photo(number))
        reference = f"http://bob:hunter2@{place}/{number}.jpg?token=hunter2&sig=hunter2"
        examples.append(example(number, reference, [box()]))
    examples.append(example(8, f"http://bob:hunter2@{place}/gone.jpg?token=hunter2", [box()]))
    make(services, project, examples, tmp_path / "job")
    manifest = (tmp_path / "job" / "manifest.json").read_text()
    assert f"{place}/3.jpg" in manifest and f"{place}/gone.jpg" in manifest
    with closing(sqlite3.connect(services.settings.root / "yoloop.db")) as db:
        assert name_of(f"{place}/3.jpg") in {key for (key,) in db.execute("SELECT key FROM thumbnails")}
    services.close()
    files = [path for folder in (tmp_path / "job", services.settings.root) for path in folder.rglob("*")]
    assert not [path for path in files if path.is_file() and b"hunter2" in path.read_bytes()]
    assert not [path for path in files if "hunter2" in path.name]
