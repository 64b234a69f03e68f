from __future__ import annotations

from typing import Any

import pytest

from backend.labels.reading import Reader
from backend.labels.schema import parse_label_config
from backend.labelstudio.records import read_annotation

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image"><Label value="Car"/>'
    "</RectangleLabels></View>"
)
ROW = {
    "id": 1,
    "completed_by": 1,
    "was_cancelled": False,
    "ground_truth": False,
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:00Z",
    "lead_time": None,
    "parent_prediction": None,
}


@pytest.mark.parametrize("result", [None, "text", 5, {"id": "r"}, [None], ["text"], [[]], [{}]])
def test_a_result_that_is_none_does_not_say_that_nothing_is_there(result: Any) -> None:
    annotation = read_annotation({**ROW, "result": result})
    assert all(isinstance(each, dict) for each in annotation.result)
    (problem,) = Reader(parse_label_config(CONFIG)).read(annotation.result).problems
    assert (problem.reason, problem.controls) == ("malformed", {"label"})


def test_an_empty_result_says_so() -> None:
    assert read_annotation({**ROW, "result": []}).result == []
