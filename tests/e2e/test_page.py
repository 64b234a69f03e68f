"""What a person sees: a stored prediction on Label Studio's own page, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from screenshot import drawn, listed, screenshot, show_task
from support.browser import signed_in
from support.labelstudio import LabelStudioServer
from support.shapes import LABELS, Picture, Shape, draw_pictures

pytestmark = pytest.mark.group("label-studio", minutes=5)

ROOT = Path(__file__).parents[2]
SCORES = (0.97, 0.64, 0.31)


@pytest.fixture
def task(
    label_studio: LabelStudioServer, new_project: Callable[..., int], tmp_path: Path
) -> tuple[LabelStudioServer, int, int]:
    """Server, project and a task with one suggestion per label, by descending score."""
    (noise,) = draw_pictures(tmp_path, 1, size=320)
    boxes = ((20.0, 30.0, 90.0, 100.0), (120.0, 130.0, 180.0, 190.0), (200.0, 210.0, 300.0, 310.0))
    shapes = tuple(Shape(label, box) for label, box in zip(LABELS, boxes, strict=True))
    result = Picture(noise.path, 320, 320, shapes).result()
    for region, score in zip(result, SCORES, strict=True):
        region["score"] = score
    config = (ROOT / "label_config.xml").read_text()
    project = new_project(label_config=config)
    with noise.path.open("rb") as image:
        label_studio.api("POST", f"/api/projects/{project}/import", files={"file": ("shapes.jpg", image)})
    (found,) = label_studio.api("GET", f"/api/tasks?project={project}")["tasks"]
    prediction = {"task": found["id"], "result": result, "score": 0.31, "model_version": "v7"}
    label_studio.api("POST", "/api/predictions/", json=prediction)
    # Label Studio prefills the editor from predictions of the project's model_version only.
    label_studio.api("PATCH", f"/api/projects/{project}/", json={"model_version": "v7"})
    return label_studio, project, int(found["id"])


def test_suggestions_are_drawn_and_listed_by_descending_score(task: tuple[LabelStudioServer, int, int]) -> None:
    server, project, number = task

    with signed_in(server) as page:
        show_task(page, server.url, project, number)
        assert listed(page) == list(zip(LABELS, SCORES, strict=True))
        assert drawn(page) == len(SCORES)


def test_screenshot_is_a_picture_of_the_page(task: tuple[LabelStudioServer, int, int], tmp_path: Path) -> None:
    server, project, number = task

    screenshot(server.url, server.email, server.password, project, number, tmp_path / "docs" / "page.png")

    data = (tmp_path / "docs" / "page.png").read_bytes()
    assert data.startswith(b"\x89PNG") and 50_000 < len(data) < 400_000
