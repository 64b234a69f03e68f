from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from backend.labels.networks import Network
from backend.labels.schema import parse_label_config
from backend.served_models.parts import Part, dump, parts_of
from backend.served_models.served import own_suggestions
from backend.served_models.thresholds import ThresholdPolicy
from backend.served_models.version_string import fingerprint
from backend.settings import ActionSeconds, Settings
from model_registry import Version

NAMES = {0: "Tree", 1: "Car", 2: "New"}
LEARNED = {"Tree": 0.62, "Car": None}


def config(extra: str = "") -> str:
    return (
        f'<View><Image name="i" value="$image"/><RectangleLabels name="box" toName="i" {extra}>'
        '<Label value="Tree"/><Label value="Car"/><Label value="New"/></RectangleLabels></View>'
    )


def scores(policy: ThresholdPolicy, extra: str = "", learned: dict[str, float | None] = LEARNED) -> list[float]:
    (control,) = parse_label_config(config(extra)).controls
    found = policy.thresholds(control, NAMES, learned)
    return [found.of(cls) for cls in NAMES]


def test_each_label_has_its_own_and_a_silent_one_none() -> None:
    assert scores(ThresholdPolicy(0.25)) == [0.62, math.inf, 0.25]


def test_what_a_person_has_set_is_the_least() -> None:
    assert scores(ThresholdPolicy(0.8, floor=0.8)) == [0.8, math.inf, 0.8]
    assert scores(ThresholdPolicy(0.25), 'model_score_threshold="0.7"') == [0.7, math.inf, 0.7]
    assert scores(ThresholdPolicy(0.9, floor=0.9), 'model_score_threshold="0.1"') == [0.62, math.inf, 0.1]


def test_without_what_a_version_learned_the_setting_decides() -> None:
    assert scores(ThresholdPolicy(0.25), learned={}) == [0.25, 0.25, 0.25]
    assert scores(ThresholdPolicy(0.25, learns=False)) == [0.25, 0.25, 0.25]


def test_the_lowest_is_what_a_model_is_asked_for() -> None:
    (control,) = parse_label_config(config()).controls
    assert ThresholdPolicy(0.25).thresholds(control, NAMES, {"Tree": 0.1}).lowest == 0.1
    assert ThresholdPolicy(0.25).thresholds(control, NAMES, {"Tree": None}).lowest == 0.25


def test_the_policy_is_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ThresholdPolicy.of(Settings(home=tmp_path)) == ThresholdPolicy(0.25)
    monkeypatch.setenv("YOLOOP_SCORE_THRESHOLD", "0.25")
    assert ThresholdPolicy.of(Settings(home=tmp_path)) == ThresholdPolicy(0.25, floor=0.25)
    monkeypatch.setenv("YOLOOP_THRESHOLDS", "fixed")
    assert not ThresholdPolicy.of(Settings(home=tmp_path)).learns


def test_a_version_keeps_them_and_its_predictions_change_their_name_when_they_count_no_more() -> None:
    part = Part(Network("detect", "detect", ("Tree", "Car")), thresholds=LEARNED)
    version = Version("p", 1, datetime.now(UTC), "run", {"networks": dump([part])}, {}, champion=False)
    assert parts_of(version) == (part,)
    schema = parse_label_config(config())
    suggested = own_suggestions(schema, [part])
    assert fingerprint(suggested, ThresholdPolicy(0.25)) != fingerprint(suggested, ThresholdPolicy(0.25, learns=False))
    fixed = own_suggestions(schema, [Part(part.network)])
    assert fingerprint(suggested, ThresholdPolicy(0.25, learns=False)) == fingerprint(fixed, ThresholdPolicy(0.25))


class TestActionSeconds:
    def test_some_of_them_are_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("YOLOOP_ACTION_SECONDS", "draw=25.5, delete = 1")
        assert Settings(home=tmp_path).action_seconds == ActionSeconds(draw=25.5, delete=1)

    @pytest.mark.parametrize("text", ["draw", "draw=x", "draw=-1", "click=2", "draw=nan"])
    def test_nonsense_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("YOLOOP_ACTION_SECONDS", text)
        with pytest.raises(ValidationError):
            Settings(home=tmp_path)

    def test_as_text_it_is_the_setting(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        given = ActionSeconds(draw=9)
        monkeypatch.setenv("YOLOOP_ACTION_SECONDS", str(given))
        assert Settings(home=tmp_path).action_seconds == given

    def test_outlines_and_skeletons_take_longer(self) -> None:
        costs = ActionSeconds()
        assert costs.drawing("segment") > costs.drawing("pose") > costs.drawing("detect") == costs.drawing("obb") == 7
