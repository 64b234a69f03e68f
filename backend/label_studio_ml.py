"""yoloop under `label-studio-ml start`, for those who install that package from its repository.

The package is optional and nothing else here needs it, so it is imported when the class is asked for:

    from backend.label_studio_ml import YoloModel
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from backend.labelstudio.uid import project_uid
from backend.model import YoloBackend
from backend.server.process import Serving, make_serving
from backend.settings import Settings

_opening = threading.Lock()


def _serving() -> Serving:
    """The models of this process: label-studio-ml makes a new object for every request."""
    with _opening:  # the cache itself lets two first requests in
        return _opened()


@lru_cache(maxsize=1)
def _opened() -> Serving:
    return make_serving(Settings())


def adapt(base: type[Any]) -> type[Any]:
    """The subclass of label-studio-ml's `LabelStudioMLBase` that speaks for yoloop.

    Made for 2.x, whose objects have `project_id`, `label_config` and `set()`, and whose `predict()` may return
    plain predictions in place of a `ModelResponse`.
    """

    class YoloModel(base):  # type: ignore[misc]
        """Suggests ranked YOLO boxes and learns from submitted annotations."""

        def _yoloop(self, project: Any = None) -> YoloBackend:
            made = _serving()
            uid = project_uid(project) or str(getattr(self, "project_id", None) or "")
            return YoloBackend(made.services, made.engine, uid, getattr(self, "label_config", None))

        def setup(self) -> None:
            """Called for every request: tells label-studio-ml the version that yoloop serves now."""
            if getattr(self, "label_config", None) and hasattr(self, "set"):
                self.set("model_version", self._yoloop().setup())

        def predict(
            self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **kwargs: Any
        ) -> Any:
            """Suggestions for tasks; see `backend.model.YoloBackend.predict`."""
            entries = self._yoloop().predict(tasks, context=context, **kwargs)
            return _response(entries)

        def fit(self, event: str, data: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
            """Write down a webhook's event; see `backend.model.YoloBackend.fit`."""
            return self._yoloop(data.get("project")).fit(event, data, **kwargs)

    return YoloModel


def _response(entries: list[dict[str, Any]]) -> Any:
    """A `ModelResponse` when every task has an answer, else the plain entries.

    `PredictionValue` insists on a `result`, whose absence is how a failed task is told.
    """
    try:
        from label_studio_ml.response import ModelResponse
        from label_studio_sdk.label_interface.objects import PredictionValue
    except ImportError:
        return entries
    if not all("result" in entry for entry in entries):
        return entries
    return ModelResponse(predictions=[PredictionValue(**entry) for entry in entries])


def __getattr__(name: str) -> Any:
    if name != "YoloModel":
        raise AttributeError(name)
    try:
        from label_studio_ml.model import LabelStudioMLBase
    except ImportError as error:
        raise ImportError(
            "label-studio-ml 2.x is not installed; `pip install 'yoloop[label-studio-ml]'` gets it from its repository."
        ) from error
    return adapt(LabelStudioMLBase)
