from __future__ import annotations

import json
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backend.labelstudio.webhook import by_switch, is_submit, webhook_secret

BODIES = Path(__file__).parents[2] / "label_studio_1.23.2"


def sent(name: str) -> dict[str, Any]:
    """A body that a real Label Studio sent."""
    (first, *_) = json.loads((BODIES / f"{name}.json").read_text())
    return dict(first["body"])


def test_where_the_switch_is_off_a_person_asked_for_the_training() -> None:
    body = sent("start_training_webhook")
    assert body["project"]["min_annotations_to_start_training"] == 0
    assert not by_switch(body["action"], body)


@pytest.mark.parametrize(
    "fields", [{"min_annotations_to_start_training": 1}, {"min_annotations_to_start_training": 25}]
)
def test_where_the_switch_is_on_nobody_need_have_asked(fields: dict[str, Any]) -> None:
    body = sent("start_training_webhook")
    body["project"] |= fields
    assert by_switch(body["action"], body)
    assert not by_switch("ANNOTATION_CREATED", body)


@pytest.mark.parametrize("body", [{}, {"project": None}, {"project": "7.1795453273"}, {"project": {"id": 7}}])
def test_a_body_without_the_switch_is_a_persons(body: dict[str, Any]) -> None:
    assert not by_switch("START_TRAINING", body)


def test_what_a_submit_is() -> None:
    for name in ("webhook_ANNOTATION_CREATED", "webhook_ANNOTATION_UPDATED", "webhook_SKIP", "webhook_UNSKIP"):
        assert is_submit(sent(name)["action"], sent(name)), name
    # Of these the switch sends nothing.
    for name in ("webhook_ANNOTATION_UPDATED_ground_truth", "webhook_ANNOTATIONS_CREATED", "webhook_TASKS_CREATED_api"):
        assert not is_submit(sent(name)["action"], sent(name)), name


def test_the_secret_is_made_once(tmp_path: Path) -> None:
    first = webhook_secret(tmp_path)
    assert len(first) >= 32
    assert webhook_secret(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "webhook-secret").stat().st_mode) == 0o600


def test_every_installation_has_its_own(tmp_path: Path) -> None:
    homes = [tmp_path / name for name in "ab"]
    for home in homes:
        home.mkdir()
    assert webhook_secret(homes[0]) != webhook_secret(homes[1])


def test_a_file_left_empty_by_a_crash_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "webhook-secret").write_text("")
    secret = webhook_secret(tmp_path)
    assert secret
    assert webhook_secret(tmp_path) == secret


def test_a_secret_set_by_hand_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "webhook-secret"
    path.write_text("chosen\n")
    path.chmod(0o644)
    assert webhook_secret(tmp_path) == "chosen"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_those_who_come_first_together_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: webhook_secret(tmp_path), range(8)))) == 1
    other = tmp_path / "other"
    other.mkdir()
    code = (
        "import sys, pathlib; from backend.labelstudio.webhook import webhook_secret;"
        "print(webhook_secret(pathlib.Path(sys.argv[1])))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(other)], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert {process.communicate(timeout=60)[0].strip() for process in started} == {webhook_secret(other)}
