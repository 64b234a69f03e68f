"""What the doctor says of each control once a version is in service."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from backend.health import suggestion_check
from backend.labels.networks import Network
from backend.labels.schema import parse_label_config
from backend.served_models.parts import TAG, Part, dump
from model_registry import Version

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image" smart="true"><Label value="Car"/></RectangleLabels>
<KeyPointLabels name="click" toName="image"{}><Label value="Car"/></KeyPointLabels></View>"""


@pytest.mark.parametrize(
    ("attributes", "fine"),
    [(' smart="true"', True), (' smartOnly="true"', True), ("", False), (' smart="false"', False)],
)
def test_a_control_for_pointing_needs_no_labels(attributes: str, fine: bool) -> None:
    part = Part(Network("detect", "detect", ("Car",), ("label",)))
    version = Version("7.1", 1, datetime(2026, 11, 1, tzinfo=UTC), "run", {TAG: dump([part])}, {}, True)
    schema = parse_label_config(CONFIG.format(attributes))
    checks = {check.name: check for check in suggestion_check.known("labels of", schema, version, 64)}
    assert checks["labels of label"].ok
    assert checks["labels of click"].ok is fine
