"""A checkpoint as a network of OpenVINO's: for this torch is needed, for running it no more."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from backend.engine.openvino import INFO
from backend.engine.weights import open_model


def export(weights: Path, path: Path) -> None:
    """Write a checkpoint of any of the five tasks as OpenVINO's `.xml` and, beside it, `.bin`.

    The input is (1, height, width, 3) of bytes, blue-green-red; the stride divides its sides. The outputs are what
    ultralytics' head gives before suppression, or the classes' logits; the pooled features of the layer before the
    head, which `Detector.embed` gives; and of a network for masks their prototypes. `INFO` says what the network is.

    Raises whatever torch, ultralytics or OpenVINO raise for what they cannot read or convert.
    """
    import openvino as ov
    import torch
    from openvino.preprocess import ColorFormat, PrePostProcessor

    model = open_model(weights)
    # The network as ultralytics predicts with it: fused, and of two heads the one that it takes.
    model.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, device="cpu", verbose=False, save=False)
    served = model.predictor.model
    network = served.model.float().eval()
    head = network.model[-1]
    outlines, choices = model.task == "segment", model.task == "classify"
    if not choices:
        head.export, head.dynamic, head.format = True, True, "openvino"

    class Both(torch.nn.Module):
        """The network, and what goes into its head."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.kept: Any = None
            network.model[-2].register_forward_hook(lambda _module, _given, made: setattr(self, "kept", made))

        def forward(self, image: Any) -> Any:
            found = self.network(image)
            features = self.kept.mean((2, 3))
            if choices:
                return found[1], features
            return (found[0], features, found[1]) if outlines else (found, features)

    example = torch.zeros(1, 3, 64, 96)
    both = Both().eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls tracing old; OpenVINO takes a network in no other way
        both(example)
        traced = torch.jit.trace(both, example, strict=False, check_trace=False)  # type: ignore[no-untyped-call]
    converted = ov.convert_model(traced, example_input=example)
    converted.reshape([1, 3, -1, -1])
    steps = PrePostProcessor(converted)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC")).set_color_format(ColorFormat.BGR)
    steps.input().model().set_layout(ov.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(ov.Type.f32).convert_color(ColorFormat.RGB).scale(255.0)
    finished = steps.build()
    about = {
        "task": model.task,
        "names": {str(index): str(name) for index, name in model.names.items()},
        "classes": len(model.names) if choices else int(head.nc),
        "stride": int(served.stride),
        "end_to_end": bool(served.end2end),
        "keypoints": [int(each) for each in getattr(network, "kpt_shape", ())],
    }
    finished.set_rt_info(json.dumps(about), INFO)
    ov.save_model(finished, path, compress_to_fp16=False)


def sample_photographs() -> list[Path]:
    """The photographs that ultralytics brings along, on which an export is compared with torch."""
    from ultralytics.utils import ASSETS

    return sorted(ASSETS.glob("*.jpg"))
