from __future__ import annotations

import itertools
import json
import math
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.converter.brush import decode_rle, mask2rle
from label_studio_sdk.label_interface import LabelInterface
from numpy.typing import NDArray

from backend.labels import brush
from backend.labels.brush import decode, from_regions, painted, to_regions
from backend.labels.geometry import Box, Detection, ImageSize, Mask
from backend.labels.schema import Control, parse_label_config

IMAGE = '<Image name="image" value="$image"/>'
LABELS = '<Label value="Car"/><Label value="Plane"/>'
OWN = f'<View>{IMAGE}<BrushLabels name="label" toName="image">{LABELS}</BrushLabels></View>'
SPLIT = f"""<View>{IMAGE}<Labels name="label" toName="image">{LABELS}</Labels>
<Brush name="shape" toName="image"/></View>"""
CLASSES = ("Car", "Plane")
SIZE = ImageSize(8, 6)

# A stroke over 8 x 6 pixels, as the editor of Label Studio 1.23.2 writes it, and its alpha.
STROKE = [
    *[0, 0, 0, 192, 57, 27, 252, 96, 17, 141, 70, 25, 132, 192, 35, 22, 143, 202, 63, 72, 225, 163, 18, 182, 1, 25],
    *[20, 126, 51, 255, 199, 233, 28, 52, 98, 83, 128, 70, 41, 28, 68, 126, 147, 255, 199, 207, 24, 165, 176, 8],
    *[197, 35, 136, 143, 210, 63, 24, 197, 48, 152, 4, 227, 49, 128, 0],
]
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


def region(rle: Any = STROKE, **changes: Any) -> dict[str, Any]:
    """What Label Studio stores for painting."""
    return {
        "id": "r",
        "from_name": "label",
        "to_name": "image",
        "type": "brushlabels",
        "original_width": 8,
        "original_height": 6,
        "image_rotation": 0,
        "origin": "manual",
        "value": {"format": "rle", "rle": rle, "brushlabels": ["Plane"]},
        **changes,
    }


def read(*regions: Any, size: ImageSize = SIZE) -> list[Detection]:
    return from_regions(regions, CONTROL, CLASSES, size)


def bits(found: Detection, size: ImageSize = SIZE) -> NDArray[np.bool_]:
    assert found.mask is not None
    assert found.box == found.mask.box
    return found.mask.full(size)


def encode(groups: list[tuple[bool, int, list[int]]], sizes: list[int]) -> tuple[bytes, list[int]]:
    """Any run-length code, with groups of (run or not, which of the sizes, values), and what it stands for."""
    values: list[int] = []
    stream = ""
    for run, which, numbers in groups:
        count = numbers[0] % (1 << sizes[which]) + 1 if run else min(len(numbers), 1 << sizes[which])
        words = numbers[:1] if run else numbers[:count]
        stream += f"{run:b}{which:02b}{count - 1:0{sizes[which]}b}" + "".join(f"{word:08b}" for word in words)
        values += words * count if run else words
    head = f"{len(values):032b}00111" + "".join(f"{size - 1:04b}" for size in sizes)
    stream = head + stream
    stream += "0" * (-len(stream) % 8)
    return int(stream, 2).to_bytes(len(stream) // 8, "big"), values


masks = st.builds(
    lambda width, height, seed, share: np.random.default_rng(seed).random((height, width)) < share,
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.02, 0.5, 0.98, 1.0]),
)


def test_region_of_a_detection() -> None:
    found = masked(Mask(2, 1, np.ones((3, 4), bool)), 0.75)
    whole = np.zeros((6, 8), np.uint8)
    whole[1:4, 2:6] = 255
    assert draw(found, "Car") == [
        {
            "id": "r0",
            "from_name": "label",
            "to_name": "image",
            "type": "brushlabels",
            "original_width": 8,
            "original_height": 6,
            "image_rotation": 0,
            "score": 0.75,
            "value": {"format": "rle", "rle": mask2rle(whole), "brushlabels": ["Car"]},
        }
    ]


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
    assert all(type(number) is int for number in made["value"]["rle"])


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
    values = decode(bytes(STROKE), 8 * 6 * 4)
    assert values is not None
    np.testing.assert_array_equal(values.reshape(6, 8, 4), np.repeat(ALPHA[:, :, None], 4, axis=2))
    (found,) = read(region())
    assert (found.cls, found.score) == (1, 1.0)
    np.testing.assert_array_equal(bits(found), ALPHA >= 128)
    # Half and more of a pixel is the painted area; every touched pixel would be far more.
    assert (ALPHA >= 128).sum() == pytest.approx(ALPHA.sum() / 255, rel=0.1)
    assert (ALPHA > 0).sum() > 1.3 * ALPHA.sum() / 255


@pytest.mark.parametrize("strongest", [1, 2, 100, 254, 255])
def test_faint_paint_counts_from_half_of_its_strongest(strongest: int) -> None:
    alpha = np.zeros((6, 8), np.uint8)
    alpha[2, 3:5] = strongest, (strongest + 1) // 2
    alpha[3, 3] = (strongest - 1) // 2
    found = painted(alpha, SIZE)
    assert found is not None
    assert found.box == Box(3, 2, 5, 3)


def test_no_paint() -> None:
    assert painted(np.zeros((6, 8), np.uint8), SIZE) is None


def test_layers_of_another_size_are_stretched() -> None:
    (half,) = read(region(), size=ImageSize(16, 12))
    np.testing.assert_array_equal(bits(half, ImageSize(16, 12)), (ALPHA >= 128).repeat(2, axis=0).repeat(2, axis=1))
    whole = np.zeros((12, 16), np.uint8)
    whole[2:8, 4:12] = 255
    (double,) = read(region(mask2rle(whole), original_width=16, original_height=12))
    assert double.box == Box(2, 1, 6, 4)
    assert bits(double).sum() == 12
    (odd,) = read(region(), size=ImageSize(3, 20))
    assert odd.box == Box(0, 3, 3, 17)


@pytest.mark.parametrize("missing", [None, 0, "8", math.nan])
def test_without_a_size_the_layer_is_as_large_as_the_image(missing: Any) -> None:
    (found,) = read(region(original_width=missing, original_height=missing))
    np.testing.assert_array_equal(bits(found), ALPHA >= 128)
    assert read(region(original_width=missing, original_height=missing), size=ImageSize(9, 6)) == []


def test_a_drawing_tag_apart() -> None:
    made = draw(masked(Mask(2, 1, np.ones((3, 4), bool))), control=CONTROLS[SPLIT])
    assert [(each["id"], each["from_name"], each["type"]) for each in made] == [
        ("r0", "shape", "brush"),
        ("r0", "label", "labels"),
    ]
    assert made[1]["value"] == {**made[0]["value"], "labels": ["Plane"]}


def test_several_labels_are_several_detections() -> None:
    value = {"format": "rle", "rle": STROKE, "brushlabels": ["Plane", "Ship", "Car", "Plane"]}
    assert [found.cls for found in read(region(value=value))] == [1, 0]


def test_pages() -> None:
    assert from_regions([region(item_index=1)], CONTROL, CLASSES, SIZE, page=0) == []
    assert len(from_regions([region(item_index=1)], CONTROL, CLASSES, SIZE, page=1)) == 1


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 3), st.lists(st.integers(0, 255), min_size=1, max_size=40)),
        min_size=1,
        max_size=12,
    ),
    st.lists(st.integers(1, 16), min_size=4, max_size=4),
)
def test_decoding_is_the_sdks(groups: list[tuple[bool, int, list[int]]], sizes: list[int]) -> None:
    code, values = encode(groups, sizes)
    found = decode(code, len(values))
    assert found is not None
    assert found.tolist() == values
    np.testing.assert_array_equal(found, decode_rle(list(code)))
    assert decode(code, len(values) + 4) is None
    assert decode(code + b"\x00\x01", len(values)) is not None


@given(masks, st.integers(0, 2**32 - 1))
def test_decoding_what_the_sdk_encodes(drawn: NDArray[np.bool_], seed: int) -> None:
    alpha = np.where(drawn, np.random.default_rng(seed).integers(0, 256, drawn.shape), 0).astype(np.uint8)
    found = decode(bytes(mask2rle(alpha)), alpha.size * 4)
    assert found is not None
    np.testing.assert_array_equal(found.reshape(*alpha.shape, 4), np.repeat(alpha[:, :, None], 4, axis=2))


@given(st.integers(0, len(STROKE) - 2))
def test_a_cut_code_is_none(length: int) -> None:
    assert decode(bytes(STROKE[:length]), 8 * 6 * 4) is None


def test_a_code_of_other_words_is_none() -> None:
    code, values = encode([(True, 3, [99, 7]), (False, 0, [1, 2, 3])], [3, 4, 8, 16])
    assert decode(code, len(values)) is not None
    assert decode(code[:4] + bytes([code[4] ^ 0b1000]) + code[5:], len(values)) is None


@pytest.mark.parametrize("last", [(True, 3, [99, 7]), (False, 0, [1, 2, 3])])
def test_a_code_with_too_many_values_is_none(last: tuple[bool, int, list[int]]) -> None:
    code, values = encode([(True, 2, [9, 7]), last], [3, 4, 8, 16])
    shorter = len(values) - 1
    assert decode(shorter.to_bytes(4, "big") + code[4:], shorter) is None


def test_a_code_is_not_trusted_about_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError

    huge = [255, 255, 255, 252, *STROKE[4:]]
    assert decode(bytes(huge), 8 * 6 * 4) is None
    assert read(region(huge)) == []
    monkeypatch.setattr(brush, "decode", never)
    side = (1 << 13) + 1
    assert read(region(original_width=side, original_height=side)) == []
    assert read(region(original_width=1e300, original_height=1)) == []


@pytest.mark.parametrize(
    "bad",
    [
        {"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"},
        region(from_name="other"),
        region(to_name="other"),
        region(type="bitmasklabels"),
        region(value=None),
        region(value={"brushlabels": ["Plane"]}),
        region(value={"rle": STROKE, "brushlabels": ["Ship"]}),
        region(value={"rle": STROKE, "brushlabels": "Plane"}),
        region(original_width=9),
        region(original_width=6, original_height=6),
        region([]),
        region("AAAA"),
        region({"0": 1}),
        region(mask2rle(np.zeros((6, 8), np.uint8))),
        region([*STROKE[:4], 0xFF, *STROKE[5:]]),
        region([-1, *STROKE[1:]]),
        region([256, *STROKE[1:]]),
        region([10**400, *STROKE[1:]]),
        region([0.0, *STROKE[1:]]),
        region([None, *STROKE[1:]]),
        region(["0", *STROKE[1:]]),
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
spoiled = st.dictionaries(st.integers(4, len(STROKE) - 1), st.integers(0, 255), max_size=5).map(
    lambda changes: [changes.get(place, byte) for place, byte in enumerate(STROKE)]
)


@given(
    st.dictionaries(st.sampled_from(sorted(region())), json_values),
    st.fixed_dictionaries({"rle": json_values | spoiled}, optional={"brushlabels": json_values, "format": json_values}),
)
def test_no_region_raises(top: dict[str, Any], value: dict[str, Any]) -> None:
    whole = region()
    for found in read({**whole, "value": {**whole["value"], **value}, **top}):
        assert bits(found).any()
