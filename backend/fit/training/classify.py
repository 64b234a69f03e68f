"""Training of choices with ultralytics' own loop: single choice as it is, multiple choice one against the rest.

ultralytics reads classes from the names of folders, knows one class for an image and scores by softmax. Here
images come with class indexes from `data.yaml`, known classes keep their weights, and where several choices go
together each class has a binary cross-entropy of its own. Images are squeezed whole into the square input:
ultralytics' middle square would not show what lies at the sides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import cv2
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import Dataset as TorchDataset
from ultralytics.data.augment import classify_augmentations, classify_transforms
from ultralytics.models.yolo.classify import ClassificationTrainer, ClassificationValidator
from ultralytics.nn.modules import Classify

from backend.fit.training.recipe import CACHED


class Pictures(TorchDataset[dict[str, Any]]):
    """Images with the indexes of their classes.

    Args:
        entries: `{"image": path, "classes": [index, …]}`.
        classes: number of classes.
        multiple: give 0 and 1 for each class instead of one index.
        args: the training's arguments.
        augment: change the images as the arguments say.
    """

    def __init__(
        self, entries: Sequence[Mapping[str, Any]], classes: int, *, multiple: bool, args: Any, augment: bool
    ) -> None:
        self._classes, self._multiple, self._size = classes, multiple, int(args.imgsz)
        self.samples = [(each["image"], each["classes"]) for each in entries]
        self.torch_transforms = (
            classify_augmentations(
                size=args.imgsz,
                scale=(1.0 - args.scale, 1.0),
                hflip=args.fliplr,
                vflip=args.flipud,
                erasing=args.erasing,
                auto_augment=args.auto_augment,
                hsv_h=args.hsv_h,
                hsv_s=args.hsv_s,
                hsv_v=args.hsv_v,
            )
            if augment
            else classify_transforms(size=args.imgsz)
        )
        self._images: dict[str, Image.Image] = {}
        # Each process that loads has its own, so they share what a training may keep.
        self._room = CACHED // max(1, int(args.workers))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, classes = self.samples[index]
        target: Any = classes[0] if classes else 0
        if self._multiple:
            target = torch.zeros(self._classes)
            target[classes] = 1.0
        return {"img": self.torch_transforms(self._image(path)), "cls": target}

    def _image(self, path: str) -> Image.Image:
        """An image at the size of the network's input; the first ones are kept, as many as there is room for."""
        if path in self._images:
            return self._images[path]
        pixels = cv2.resize(cv2.imread(path), (self._size, self._size), interpolation=cv2.INTER_AREA)
        image = Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
        if pixels.nbytes <= self._room:
            self._room -= pixels.nbytes
            self._images[path] = image
        return image


class OneAgainstTheRest:
    """Binary cross-entropy of each class by itself."""

    def __call__(self, preds: Any, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        scores = preds[1] if isinstance(preds, list | tuple) else preds
        loss = functional.binary_cross_entropy_with_logits(scores.float(), batch["cls"].float())
        return loss, {"loss": loss.detach()}


class ChoiceTrainer(ClassificationTrainer):  # type: ignore[misc]
    """ultralytics' classification trainer on the data of one network's folder."""

    def get_dataset(self) -> dict[str, Any]:
        path = Path(str(self.args.data))
        found = json.loads(path.read_text())
        names = {int(index): str(name) for index, name in found["names"].items()}
        return {**found, "names": names, "nc": len(names), "channels": 3, "train": "teach", "val": "judge", "test": ""}

    def build_dataset(self, img_path: str, mode: str = "train", batch: Any = None) -> Pictures:
        entries = self.data["judge" if mode != "train" else "teach"]
        repeats = int(self.data.get("repeats", 1)) if mode == "train" else 1
        return Pictures(
            entries * repeats,
            self.data["nc"],
            multiple=self.data["multiple"],
            args=self.args,
            augment=mode == "train",
        )

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        model = super().get_model(cfg, weights, verbose)
        if self.data["multiple"]:
            model.criterion = OneAgainstTheRest()
        if weights is not None:
            _keep_known(weights, model, self.data["names"])
        return model

    def get_validator(self) -> ClassificationValidator:
        made = ManyValidator if self.data["multiple"] else ClassificationValidator
        return made(self.test_loader, self.save_dir, args=copy(self.args), _callbacks=self.callbacks)


class ManyValidator(ClassificationValidator):  # type: ignore[misc]
    """Counts each class of each image as one question; its `top1` is the share of right answers."""

    def postprocess(self, preds: Any) -> Any:
        return preds[1].float().sigmoid()

    def update_metrics(self, preds: Any, batch: Mapping[str, Any]) -> None:
        said = (preds > 0.5).long().reshape(-1, 1)
        self.pred.append(torch.cat([said, 1 - said], dim=1).int().cpu())
        self.targets.append(batch["cls"].reshape(-1).int().cpu())

    def finalize_metrics(self) -> None:
        self.metrics.speed, self.metrics.save_dir = self.speed, self.save_dir


def _keep_known(source: Any, target: Any, names: Mapping[int, str]) -> None:
    """Copy the rows of the classes that the source knows by name."""
    old, new = list(source.modules()), list(target.modules())
    here = next((each.linear for each in reversed(new) if isinstance(each, Classify)), None)
    there = next((each.linear for each in reversed(old) if isinstance(each, Classify)), None)
    if here is None or there is None or here.in_features != there.in_features:
        return
    known = {str(name): index for index, name in source.names.items()}
    fresh = torch.nn.Linear(here.in_features, here.out_features)
    with torch.no_grad():
        for index, name in names.items():
            row = known.get(name)
            into = there if row is not None and row < there.out_features else fresh
            place = row if into is there else index
            here.weight[index] = into.weight[place].to(here.weight)
            here.bias[index] = into.bias[place].to(here.bias)
