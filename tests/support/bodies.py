"""What Label Studio sends, made small: configs, tasks and embedded images."""

from __future__ import annotations

import base64
from typing import Any

from PIL import Image
from support.web import encoded

UID = "7.1795453273"
CREATED_AT = "2026-11-23T17:01:13.589946Z"  # of the project with that uid

CONFIG = """
<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image"{attributes}>
    <Label value="Disc"/><Label value="Square"/><Label value="Triangle"/>
  </RectangleLabels>
</View>
"""


def config(attributes: str = "") -> str:
    """Three labels on one image; `attributes` of the control, such as `model_score_threshold="0.05"`."""
    return CONFIG.format(attributes=f" {attributes}" if attributes else "")


def picture(width: int = 200, height: int = 100) -> str:
    """An embedded image, so that nothing needs fetching."""
    return "data:image/png;base64," + base64.b64encode(encoded(Image.new("RGB", (width, height)))).decode()


def task(number: int, image: Any = None, **data: Any) -> dict[str, Any]:
    return {"id": number, "data": {"image": picture() if image is None else image, **data}, "annotations": []}


def predict(tasks: list[Any], label_config: str | None = None, uid: str = UID) -> dict[str, Any]:
    return {
        "tasks": tasks,
        "project": uid,
        "label_config": config() if label_config is None else label_config,
        "params": {"login": None, "password": None, "context": None},
    }


def setup(label_config: str | None = None, uid: str = UID, hostname: str = "") -> dict[str, Any]:
    return {
        "project": uid,
        "schema": config() if label_config is None else label_config,
        "hostname": hostname,
        "access_token": "0" * 40,
        "extra_params": None,
    }


def event(action: str, **fields: Any) -> dict[str, Any]:
    """A webhook's body, with as much of its project as yoloop reads."""
    project = {"id": 7, "created_at": CREATED_AT, "title": "Shapes", "label_config": config()}
    return {"action": action, "project": project, **fields}
