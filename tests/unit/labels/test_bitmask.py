from __future__ import annotations

import base64
import itertools
import json
import math
import zlib
from io import BytesIO
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from backend.labels.bitmask import from_regions, to_regions
from backend.labels.geometry import Box, Detection, ImageSize, Mask
from backend.labels.schema import Control, parse_label_config

IMAGE = '<Image name="image" value="$image"/>'
LABELS = '<Label value="Car"/><Label value="Plane"/>'
OWN = f'<View>{IMAGE}<BitmaskLabels name="label" toName="image">{LABELS}</BitmaskLabels></View>'
SPLIT = f"""<View>{IMAGE}<Labels name="label" toName="image">{LABELS}</Labels>
<Bitmask name="shape" toName="image"/></View>"""
CLASSES = ("Car", "Plane")
SIZE = ImageSize(8, 6)
PREFIX = "data:image/png;base64,"

# A stroke over 8 x 6 pixels as a browser's canvas writes it, which is what the editor stores, and its alpha.
STROKE = (
    PREFIX + "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAGCAYAAAD+Bd/7AAAAY0lEQVR4AWTLMQ5AQBBG4YkSlYhCJRGJI3IBiQNKVAqVYls1789mtl"
    "nZz47JU1h8eq4a2VHQsT3xYEODdBToz49NhRU3UqjgYjFixwsPD+ZWAbcFXgsGeFgymweaxcOJjxnhBwAA//8k8GwDAAAABklEQVQDAOvfDz8A"
    "N+6oAAAAAElFTkSuQmCC"
)
ALPHA = np.array(
    [
        [0, 26, 12, 0, 0, 0, 0, 0],
        [22, 242, 244, 134, 18, 0, 0, 0],
        [34, 241, 255, 255, 244, 134, 18, 0],
        [0, 20, 136, 244, 255, 255, 231, 20],
        [0, 0, 0, 20, 136, 244, 241, 20],
        [0, 0, 0, 0, 0, 25, 25, 0],
    ],
    np.uint8,
)


def only(xml: str) -> Control:
    (control,) = parse_label_config(xml).controls
    return control


CONTROLS = {xml: only(xml) for xml in (OWN, SPLIT)}
CONTROL = CONTROLS[OWN]
INTERFACES = {xml: LabelInterface(xml) for xml in CONTROLS}


def draw(
    found: Detection, label: str = "Plane", control: Control = CONTROL, size: ImageSize = SIZE
) -> list[dict[str, Any]]:
    numbers = itertools.count()
    return to_regions(found, label, control, size, lambda: f"r{next(numbers)}")


def masked(mask: Mask | None, score: float = 0.5) -> Detection:
    return Detection(0, score, Box(0, 0, 1, 1), mask=mask)


def region(url: Any = STROKE, **changes: Any) -> dict[str, Any]:
    """What Label Studio stores for painting."""
    return {
        "id": "r",
        "from_name": "label",
        "to_name": "image",
        "type": "bitmasklabels",
        "original_width": 8,
        "original_height": 6,
        "image_rotation": 0,
        "origin": "manual",
        "value": {"imageDataURL": url, "bitmasklabels": ["Plane"]},
        **changes,
    }


def read(*regions: Any, size: ImageSize = SIZE) -> list[Detection]:
    return from_regions(regions, CONTROL, CLASSES, size)


def bits(found: Detection, size: ImageSize = SIZE) -> NDArray[np.bool_]:
    assert found.mask is not None
    assert found.box == found.mask.box
    return found.mask.full(size)


def url(image: Image.Image, kind: str = "PNG", **options: Any) -> str:
    file = BytesIO()
    image.save(file, kind, **options)
    return PREFIX + base64.b64encode(file.getvalue()).decode()


def data(url: str) -> bytes:
    return base64.b64decode(url.removeprefix(PREFIX))


def layer(alpha: NDArray[np.uint8]) -> Image.Image:
    found = Image.new("RGBA", (alpha.shape[1], alpha.shape[0]))
    found.putalpha(Image.fromarray(alpha))
    return found


masks = st.builds(
    lambda width, height, seed, share: np.random.default_rng(seed).random((height, width)) < share,
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.02, 0.5, 0.98, 1.0]),
)


def test_region_of_a_detection() -> None:
    (made,) = draw(masked(Mask(2, 1, np.ones((3, 4), bool)), 0.75), "Car")
    picture = made["value"].pop("imageDataURL")
    assert made == {
        "id": "r0",
        "from_name": "label",
        "to_name": "image",
        "type": "bitmasklabels",
        "original_width": 8,
        "original_height": 6,
        "image_rotation": 0,
        "score": 0.75,
        "value": {"bitmasklabels": ["Car"]},
    }
    assert picture.startswith(PREFIX)
    image = Image.open(BytesIO(data(picture)))
    assert (image.format, image.size) == ("PNG", (8, 6))
    pixels = np.asarray(image.convert("RGBA"))
    expected = np.zeros((6, 8, 4), np.uint8)
    expected[1:4, 2:6, 3] = 255
    np.testing.assert_array_equal(pixels, expected)


@settings(deadline=None)
@given(masks, st.integers(0, 60), st.integers(0, 60), st.floats(0, 1), st.sampled_from([OWN, SPLIT]))
def test_round_trip(drawn: NDArray[np.bool_], x: int, y: int, score: float, config: str) -> None:
    size = ImageSize(x + drawn.shape[1] + 2, y + drawn.shape[0] + 3)
    made = json.loads(json.dumps(draw(masked(Mask(x, y, drawn), score), "Plane", CONTROLS[config], size)))
    prediction = {"model_version": "v1", "score": score, "result": made}
    assert INTERFACES[config].validate_prediction(prediction, return_errors=True) == []
    assert len(made) == (config == SPLIT) + 1 if drawn.any() else made == []
    back = from_regions(made, CONTROLS[config], CLASSES, size)
    assert len(back) == drawn.any()
    for found in back:
        assert (found.cls, found.score) == (1, 1.0)
        np.testing.assert_array_equal(bits(found, size), Mask(x, y, drawn).full(size))


@pytest.mark.parametrize("size", [ImageSize(1, 1), ImageSize(1280, 720), ImageSize(20_000, 3), ImageSize(3, 20_000)])
def test_whole_images_come_back(size: ImageSize) -> None:
    made = draw(masked(Mask(0, 0, np.ones((size.height, size.width), bool))), size=size)
    (found,) = read(*made, size=size)
    assert bits(found, size).all()


def test_a_region_of_numpy_numbers_is_json() -> None:
    mask = Mask(cast(int, np.int64(1)), cast(int, np.int64(2)), np.ones((2, 2), bool))
    (made,) = json.loads(json.dumps(draw(masked(mask, cast(float, np.float32(0.25))))))
    assert made["score"] == 0.25
    assert read(made)[0].box == Box(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("found", "size"),
    [
        (masked(None), SIZE),
        (masked(Mask(0, 0, np.zeros((2, 2), bool))), SIZE),
        (masked(Mask(0, 0, np.zeros((0, 0), bool))), SIZE),
        (masked(Mask(0, 0, np.ones((2, 2), bool)), math.nan), SIZE),
        (masked(Mask(8, 0, np.ones((2, 2), bool))), SIZE),
        (masked(Mask(0, -2, np.ones((2, 2), bool))), SIZE),
        (masked(Mask(0, 0, np.ones((2, 2), bool))), ImageSize(0, 5)),
        (masked(Mask(0, 0, np.ones((2, 2), bool))), ImageSize(5, 0)),
    ],
)
def test_what_covers_nothing_is_no_region(found: Detection, size: ImageSize) -> None:
    assert draw(found, size=size) == []


def test_a_mask_over_the_edge_is_cut_there() -> None:
    (found,) = read(*draw(masked(Mask(-1, 4, np.ones((5, 4), bool)))))
    assert found.box == Box(0, 4, 3, 6)


def test_a_stroke_of_the_editor() -> None:
    (found,) = read(region())
    assert (found.cls, found.score) == (1, 1.0)
    np.testing.assert_array_equal(bits(found), ALPHA >= 128)


@pytest.mark.parametrize(
    "picture",
    [
        url(layer(ALPHA)),
        url(layer(ALPHA).convert("LA")),
        url(Image.fromarray((ALPHA >= 128).astype(np.uint8)), transparency=0),
        url(Image.fromarray(ALPHA >= 128), transparency=0),
        url(Image.fromarray((ALPHA[:, :, None] >= 128).repeat(3, axis=2) * np.uint8(255)), transparency=(0, 0, 0)),
        url(layer(ALPHA), optimize=True),
    ],
)
def test_any_png_marks_the_object_by_alpha(picture: str) -> None:
    (found,) = read(region(picture))
    np.testing.assert_array_equal(bits(found), ALPHA >= 128)


def test_a_picture_without_transparency_covers_the_image() -> None:
    # The editor shows it so: it does not look at colours.
    (found,) = read(region(url(Image.fromarray(ALPHA))))
    assert bits(found).all()


def test_pictures_of_another_size_are_stretched() -> None:
    for shape in (ImageSize(16, 12), ImageSize(8, 6)):
        (found,) = read(region(original_width=3), size=shape)
        scale = shape.width // 8
        np.testing.assert_array_equal(bits(found, shape), (ALPHA >= 128).repeat(scale, axis=0).repeat(scale, axis=1))


def test_a_drawing_tag_apart() -> None:
    made = draw(masked(Mask(2, 1, np.ones((3, 4), bool))), control=CONTROLS[SPLIT])
    assert [(each["id"], each["from_name"], each["type"]) for each in made] == [
        ("r0", "shape", "bitmask"),
        ("r0", "label", "labels"),
    ]
    assert made[1]["value"] == {**made[0]["value"], "labels": ["Plane"]}


def test_several_labels_are_several_detections() -> None:
    value = {"imageDataURL": STROKE, "bitmasklabels": ["Plane", "Ship", "Car", "Plane"]}
    assert [found.cls for found in read(region(value=value))] == [1, 0]


def test_pages() -> None:
    assert from_regions([region(item_index=1)], CONTROL, CLASSES, SIZE, page=0) == []
    assert len(from_regions([region(item_index=1)], CONTROL, CLASSES, SIZE, page=1)) == 1


def claiming(width: int, height: int) -> str:
    """A correct header of a picture, then the pixels of a small one."""
    content = bytearray(data(STROKE))
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return PREFIX + base64.b64encode(content).decode()


def test_large_claims_are_refused_before_any_pixel_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(PngImageFile, "load", lambda image: made.append(image.size))
    monkeypatch.setattr(PngImageFile, "convert", lambda image, _: made.append(image.size))
    side = 1 << 13
    for width, height in ((side, side), (side, side + 1), (2**31 - 1, 2**31 - 1)):
        read(region(claiming(width, height)))
    assert set(made) == {(side, side)}


@pytest.mark.parametrize(
    "bad",
    [
        {"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"},
        region(from_name="other"),
        region(to_name="other"),
        region(type="brushlabels"),
        region(value=None),
        region(value={"bitmasklabels": ["Plane"]}),
        region(value={"imageDataURL": STROKE, "bitmasklabels": ["Ship"]}),
        region(value={"imageDataURL": STROKE, "bitmasklabels": "Plane"}),
        region(None),
        region(""),
        region(5),
        region([STROKE]),
        region(PREFIX),
        region(PREFIX + "?"),
        region(PREFIX + "ä"),
        region(PREFIX + "AAAA"),
        region(STROKE[:60] + "?" + STROKE[60:]),
        region(STROKE.removeprefix(PREFIX)),
        region("file:///etc/passwd"),
        region("https://localhost/mask.png"),
        region(STROKE.replace("png", "gif")),
        region(url(layer(ALPHA), "GIF")),
        region(url(layer(ALPHA).convert("RGB"), "JPEG")),
        region(STROKE[:120]),
        region(claiming(8, 7)),
        region(claiming(0, 6)),
        region(claiming(1 << 13, 1 << 14)),
        region(claiming(2**31 - 1, 2**31 - 1)),
        region(url(layer(np.zeros((6, 8), np.uint8)))),
        {},
        None,
        "text",
    ],
)
def test_what_teaches_nothing_is_left_out(bad: Any) -> None:
    (found,) = read(bad, region())
    np.testing.assert_array_equal(bits(found), ALPHA >= 128)


words = st.text("ab1", max_size=3) | st.sampled_from(["Plane", "10"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
CONTENT = data(STROKE)
spoiled = st.builds(
    lambda changes, end: (
        PREFIX + base64.b64encode(bytes(changes.get(place, byte) for place, byte in enumerate(CONTENT[:end]))).decode()
    ),
    st.dictionaries(st.integers(0, len(CONTENT) - 1), st.integers(0, 255), max_size=4),
    st.integers(0, len(CONTENT)),
)


@given(
    st.dictionaries(st.sampled_from(sorted(region())), json_values),
    st.fixed_dictionaries(
        {"imageDataURL": json_values | spoiled | st.text().map(PREFIX.__add__)}, optional={"bitmasklabels": json_values}
    ),
)
def test_no_region_raises(top: dict[str, Any], value: dict[str, Any]) -> None:
    whole = region()
    for found in read({**whole, "value": {**whole["value"], **value}, **top}):
        assert bits(found).any()
