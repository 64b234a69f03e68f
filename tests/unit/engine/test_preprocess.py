from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from backend.engine.detector import Image
from backend.engine.preprocess import letterbox, middle, squeezed

SHAPES = [(160, 160), (90, 320), (333, 77), (1, 500), (161, 479)]


def picture(height: int, width: int) -> Image:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_letterbox_is_the_one_of_ultralytics(shape: tuple[int, int]) -> None:
    from ultralytics.data.augment import LetterBox

    image = picture(*shape)
    made, placed = letterbox(image, 160, 32)
    assert (made == LetterBox(160, auto=True, stride=32)(image=image)).all()
    assert placed.input == made.shape[:2]


@pytest.mark.parametrize("shape", [*SHAPES, (20, 30), (224, 640)])
@pytest.mark.parametrize("size", [160, 224])
def test_the_middle_is_the_one_of_ultralytics(shape: tuple[int, int], size: int) -> None:
    from ultralytics.data.augment import classify_transforms

    image = picture(*shape)
    expected = classify_transforms(size)(Pillow.fromarray(image)).numpy()
    made = middle(image, size)
    assert made.flags.writeable and made.shape == (size, size, 3)
    assert (made == (expected.transpose(1, 2, 0) * 255).round()).all()


def test_a_squeezed_image_is_seen_whole() -> None:
    image = np.zeros((50, 200, 3), np.uint8)
    image[:, :100] = 255
    made = squeezed(image, 64)
    assert (made[:, :32] == 255).all() and (made[:, 32:] == 0).all()
    assert (made == cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)).all()
