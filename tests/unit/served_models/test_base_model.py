from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from backend.labels.networks import Task
from backend.served_models.base_model import (
    base_name,
    find_base_model,
    get_base_model,
    starts_pretrained,
    without_sibling,
    yaml_for,
)
from backend.settings import Settings

TASKS: tuple[Task, ...] = ("detect", "obb", "segment", "pose", "classify")
ENDINGS = ("", "-obb", "-seg", "-pose", "-cls")
DOWNLOADER = "ultralytics.utils.downloads.attempt_download_asset"


def configured(folder: Path, **changes: Any) -> Settings:
    return Settings(**{"home": folder, "models": folder / "models", "offline": True, **changes})


def put(folder: Path, name: str, content: bytes = b"weights") -> Path:
    path = folder / "models" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were downloaded, in place of the download."""
    names: list[str] = []

    def download(path: Path, **options: Any) -> str:
        names.append(path.name)
        path.write_bytes(b"downloaded")
        return str(path)

    monkeypatch.setattr(DOWNLOADER, download)
    return names


@pytest.mark.parametrize(
    ("base_model", "family"),
    [
        ("yolo11n.pt", "yolo11n"),
        ("yolo11n-seg.pt", "yolo11n"),
        ("yolov8m.pt", "yolov8m"),
        ("yolov8x-pose.pt", "yolov8x"),
        ("yolo11s-cls.pt", "yolo11s"),
        ("yolo26l-obb.pt", "yolo26l"),
    ],
)
def test_a_published_model_stands_for_its_siblings(tmp_path: Path, base_model: str, family: str) -> None:
    settings = configured(tmp_path, base_model=base_model)
    assert [base_name(settings, task) for task in TASKS] == [f"{family}{ending}.pt" for ending in ENDINGS]
    assert [yaml_for(settings, task) for task in TASKS] == [f"{family}{ending}.yaml" for ending in ENDINGS]


@pytest.mark.parametrize("base_model", ["ours.pt", "yolo11n-ours.pt", "my-yolo11n.pt", ""])
def test_a_model_of_ones_own_stands_for_itself(tmp_path: Path, base_model: str) -> None:
    settings = configured(tmp_path, base_model=base_model)
    assert {base_name(settings, task) for task in TASKS} == {base_model}
    assert [yaml_for(settings, task) for task in TASKS] == [f"yolo11n{ending}.yaml" for ending in ENDINGS]


def test_the_architectures_are_ultralytics_own(tmp_path: Path) -> None:
    from ultralytics import YOLO

    settings = configured(tmp_path)
    assert [YOLO(yaml_for(settings, task)).task for task in TASKS] == list(TASKS)


def test_files_are_found_by_task_and_by_name(tmp_path: Path) -> None:
    boxes, masks, ours = (put(tmp_path, name) for name in ("yolo11n.pt", "yolo11n-seg.pt", "ours.pt"))
    settings = configured(tmp_path)
    assert find_base_model(settings).path == boxes
    assert find_base_model(settings, "segment").path == masks
    assert find_base_model(settings, "segment", "ours.pt").path == ours
    assert find_base_model(settings, "detect", "yolo11n-seg.pt").path == masks
    missing = find_base_model(settings, "pose")
    assert missing.path is None
    assert "yolo11n-pose.pt" in missing.why


@pytest.mark.parametrize(
    "name", ["../x.pt", "/etc/x.pt", "./x.pt", "models/x.pt", "..", "../models/x.pt", "x.yaml", "x.pt.yaml", "x"]
)
def test_only_names_of_weights(tmp_path: Path, asked: list[str], name: str) -> None:
    for each in ("x.pt", "x.yaml", "x"):
        put(tmp_path, each)
    (tmp_path / "x.pt").write_bytes(b"outside of the folder")
    in_config = get_base_model(configured(tmp_path, offline=False), "detect", name)
    assert in_config.path is None
    assert "model_path" in in_config.why
    assert "YOLOOP_MODELS" in in_config.why
    in_settings = get_base_model(configured(tmp_path, offline=False, base_model=name), "pose")
    assert in_settings.path is None
    assert "YOLOOP_BASE_MODEL" in in_settings.why
    assert asked == []


def test_no_base_model_is_wanted(tmp_path: Path, asked: list[str]) -> None:
    found = get_base_model(configured(tmp_path, offline=False, base_model=""))
    assert found.path is None
    assert "empty" in found.why
    assert asked == []


@pytest.mark.parametrize(
    ("options", "task", "model_path", "missing"),
    [
        ({"offline": True}, "detect", "", "yolo11n.pt"),
        ({"offline": True}, "classify", "", "yolo11n-cls.pt"),
        ({"offline": False}, "segment", "yolo11s-seg.pt", "yolo11s-seg.pt"),
        ({"offline": False}, "detect", "yolo11n.pt", "yolo11n.pt"),
        ({"offline": False, "base_model": "ours.pt"}, "detect", "", "ours.pt"),
    ],
)
def test_nothing_is_downloaded(
    tmp_path: Path, asked: list[str], options: dict[str, Any], task: Task, model_path: str, missing: str
) -> None:
    found = get_base_model(configured(tmp_path, **options), task, model_path)
    assert found.path is None
    assert missing in found.why
    assert "YOLOOP_MODELS" in found.why
    assert str(tmp_path) not in found.why
    assert asked == []


def test_the_sibling_of_the_base_model_is_downloaded_once(tmp_path: Path, asked: list[str]) -> None:
    settings = configured(tmp_path, offline=False, models=tmp_path / "new" / "models")
    for _ in range(2):
        found = get_base_model(settings, "segment")
        assert found.path == tmp_path / "new" / "models" / "yolo11n-seg.pt"
        assert found.path.read_bytes() == b"downloaded"
    assert asked == ["yolo11n-seg.pt"]
    assert [path.name for path in settings.models_dir.glob("*.pt")] == ["yolo11n-seg.pt"]


def test_an_empty_file_is_downloaded_again(tmp_path: Path, asked: list[str]) -> None:
    put(tmp_path, "yolo11n.pt", b"")
    found = get_base_model(configured(tmp_path, offline=False))
    assert found.path is not None
    assert found.path.read_bytes() == b"downloaded"


def test_a_download_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: Path, **options: Any) -> str:
        path.write_bytes(b"half")
        raise ConnectionError("no network")

    monkeypatch.setattr(DOWNLOADER, fail)
    settings = configured(tmp_path, offline=False)
    found = get_base_model(settings)
    assert found.path is None
    assert "yolo11n.pt" in found.why
    assert "ConnectionError" in caplog.text
    assert list(settings.models_dir.iterdir()) == []


def test_a_download_is_remembered_by_its_hash(tmp_path: Path, asked: list[str]) -> None:
    found = get_base_model(configured(tmp_path, offline=False))
    assert asked == ["yolo11n.pt"]
    assert found.path is not None
    expected = hashlib.sha256(b"downloaded").hexdigest()
    assert (tmp_path / "models" / "yolo11n.pt.sha256").read_text() == f"{expected}  yolo11n.pt\n"


@pytest.mark.parametrize(
    ("base_model", "scale", "own"),
    [
        ("yolov10n.pt", "n", {"detect"}),
        ("yolov10x.pt", "x", {"detect"}),
        ("yolov9t.pt", "n", {"detect"}),
        ("yolov9c.pt", "n", {"detect", "segment"}),
        ("yolov3.pt", "n", {"detect"}),
        ("yolo12s.pt", "s", set(TASKS)),
        ("yolo26m.pt", "m", set(TASKS)),
    ],
)
def test_a_family_without_a_model_for_a_task_borrows_one(
    tmp_path: Path, base_model: str, scale: str, own: set[Task]
) -> None:
    from ultralytics.nn.tasks import yaml_model_load

    settings = configured(tmp_path, base_model=base_model)
    for task, ending in zip(TASKS, ENDINGS, strict=True):
        family = base_model.removesuffix(".pt") if task in own else f"yolo11{scale}"
        assert yaml_for(settings, task) == f"{family}{ending}.yaml"
        assert yaml_model_load(yaml_for(settings, task))["head"], "ultralytics has it"
        told = without_sibling(settings, task)
        assert bool(told) == (task not in own)
        if told:
            assert base_model.removesuffix(".pt") in told and f"yolo11{scale}{ending}" in told
            assert told in find_base_model(settings, task).why


IMAGE = '<View><Image name="image" value="$image"/>{}</View>'
BOXES = '<RectangleLabels name="box" toName="image"{}><Label value="Tree"/></RectangleLabels>'
OUTLINES = '<PolygonLabels name="outline" toName="image"><Label value="Leaf"/></PolygonLabels>'


@pytest.mark.parametrize(
    ("controls", "there", "expected"),
    [
        (BOXES.format(""), ["yolo11n.pt"], True),
        (BOXES.format(""), [], False),
        (OUTLINES, ["yolo11n.pt"], False),
        (BOXES.format("") + OUTLINES, ["yolo11n.pt"], False),
        (BOXES.format("") + OUTLINES, ["yolo11n.pt", "yolo11n-seg.pt"], True),
        (BOXES.format(' model_path="mine.pt"'), ["mine.pt"], True),
        (BOXES.format(' model_path="mine.pt"'), ["yolo11n.pt"], False),
        (BOXES.format(' model_path="v3"'), ["yolo11n.pt"], False),  # a version that learns no more
        ("", ["yolo11n.pt"], False),
    ],
)
def test_whether_a_project_starts_from_pretrained_weights(
    tmp_path: Path, controls: str, there: list[str], expected: bool
) -> None:
    for name in there:
        put(tmp_path, name)
    settings = configured(tmp_path, base_model="yolo11n.pt")
    assert starts_pretrained(settings, IMAGE.format(controls)) is expected


@pytest.mark.parametrize("config", ["", "<View", "<View/>"])
def test_a_config_that_cannot_be_read_starts_nothing(tmp_path: Path, config: str) -> None:
    put(tmp_path, "yolo11n.pt")
    assert not starts_pretrained(configured(tmp_path, base_model="yolo11n.pt"), config)
