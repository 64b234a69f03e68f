from __future__ import annotations

import time
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.hostile import READABLE, UNREADABLE
from support.web import PNG, RED, encoded

from backend.errors import ImageUnreadable
from backend.images.decode import Decoded, Pixels
from backend.images.decode import decode as of
from backend.labels.geometry import ImageSize


def decode(data: bytes, *, max_pixels: int = 1_000_000) -> Pixels:
    whole = of(data, max_pixels, "The image")
    assert not whole.shrunk
    return whole.pixels


@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 95}, 4),
        ("JPEG", {"quality": 95, "progressive": True}, 4),
    ],
)
def test_plain_files(format: str, options: dict[str, Any], tolerance: int) -> None:
    pixels = decode(encoded(Image.new("RGB", (9, 5), RED), format, **options))
    assert pixels.shape == (5, 9, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - RED[::-1]).max() <= tolerance


@pytest.mark.parametrize(
    ("image", "format", "expected"),
    [
        (Image.new("L", (2, 2), 77), "PNG", (77, 77, 77)),
        (Image.new("1", (2, 2), 1), "PNG", (255, 255, 255)),
        (Image.new("LA", (2, 2), (0, 0)), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 0)), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (255, 0, 0, 51)), "PNG", (204, 204, 255)),
        (Image.new("RGB", (2, 2), RED).convert("P", palette=Image.Palette.ADAPTIVE), "PNG", RED[::-1]),
        (Image.fromarray(np.full((2, 2), 0x80FF, np.uint16)), "PNG", (128, 128, 128)),
        (Image.fromarray(np.full((2, 2), 0x80FF, np.uint16)), "TIFF", (128, 128, 128)),
        (Image.new("L", (2, 2), 77), "JPEG", (77, 77, 77)),
    ],
)
def test_odd_modes(image: Image.Image, format: str, expected: tuple[int, ...]) -> None:
    pixels = decode(encoded(image, format))
    assert pixels.shape == (2, 2, 3)
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_a_transparent_colour_is_the_page() -> None:
    for image, key in ((Image.new("RGB", (2, 2), RED), RED), (Image.new("P", (2, 2), 0), 0)):
        assert (decode(encoded(image, transparency=key)) == 255).all()


def test_cmyk_jpeg() -> None:
    pixels = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - (0, 0, 255)).max() <= 10


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(format: str) -> None:
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    data = encoded(first, format, save_all=True, append_images=[second], duration=100)
    assert np.abs(decode(data).astype(int) - (0, 0, 255)).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format", "mode"),
    [("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGB")],
)
def test_orientation(format: str, mode: str, orientation: int) -> None:
    # One white, one grey corner on black tell all eight apart.
    upright = Image.new("RGB", (48, 32))
    upright.paste((255, 255, 255), (0, 0, 16, 16))
    upright.paste((128, 128, 128), (32, 0, 48, 16))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {"quality": 95} if format == "JPEG" else {}
    pixels = decode(encoded(stored.convert(mode), format, exif=exif, **options))
    expected = np.asarray(upright)[:, :, ::-1].astype(int)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= 24


@pytest.mark.parametrize("exif", [b"Exif\x00\x00junk", b"Exif\x00\x00" + bytes(40)])
def test_broken_exif_harms_nothing(exif: bytes) -> None:
    assert decode(encoded(Image.new("RGB", (4, 2)), "JPEG", exif=exif)).shape == (2, 4, 3)


def test_xmp_turns_nothing_as_in_a_browser() -> None:
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    image = Image.new("RGB", (4, 2))
    assert decode(encoded(image, "JPEG", xmp=xmp)).shape == (2, 4, 3)
    assert decode(encoded(image.convert("CMYK"), "JPEG", xmp=xmp)).shape == (2, 4, 3)


def test_an_orientation_outside_the_standard_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    assert decode(encoded(Image.new("RGB", (4, 2)), "JPEG", exif=exif)).shape == (2, 4, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP"])
def test_cut_files_are_unreadable(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), format)
    with pytest.raises(ImageUnreadable) as error:
        decode(data[: len(data) // 2])
    assert error.value.hint


@pytest.mark.parametrize(
    "data", [b"", b"junk", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(ImageUnreadable, match="The image is not an image that can be read"):
        decode(data)


def test_a_jpeg_with_bytes_behind_its_end() -> None:
    data = encoded(Image.new("RGB", (4, 2)), "JPEG") + b"a phone's extras"
    assert decode(data).shape == (2, 4, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [1100, 12_000, 60_000])
def test_bombs_are_refused_from_their_header(side: int) -> None:
    # The header claims side x side pixels and next to no data follows: decoding it would fail otherwise.
    small = encoded(Image.new("L", (1, 1)))
    header = small[12:16] + side.to_bytes(4, "big") * 2 + small[24:29]
    data = small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:]
    with pytest.raises(ImageUnreadable, match="pixels") as error:
        decode(data)
    assert "YOLOOP_MAX_IMAGE_MEGAPIXELS" in error.value.hint


MOST_PIXELS = 100_000_000
"""As YOLOOP_MAX_IMAGE_MEGAPIXELS is without a word."""


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_harmful_files_are_refused_at_once(data: bytes) -> None:
    began = time.thread_time()
    with pytest.raises(ImageUnreadable) as error:
        decode(data, max_pixels=MOST_PIXELS)
    assert time.thread_time() - began < 2
    assert error.value.hint
    assert "passwd" not in str(error.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("data", "size"), READABLE.values(), ids=READABLE)
def test_odd_files_are_read_as_a_browser_does(data: bytes, size: tuple[int, int]) -> None:
    began = time.thread_time()
    assert decode(data, max_pixels=MOST_PIXELS).shape == (size[1], size[0], 3)
    assert time.thread_time() - began < 10


def test_the_limit_itself_is_allowed() -> None:
    assert decode(PNG, max_pixels=48).shape == (6, 8, 3)
    with pytest.raises(ImageUnreadable, match="8 x 6 pixels"):
        decode(PNG, max_pixels=47)


class TestFewerPixels:
    """Large JPEGs, of which a part of the pixels is enough."""

    @pytest.mark.parametrize(
        ("size", "cover", "shape"),
        [
            ((400, 300), 0, (300, 400)),
            ((400, 300), 201, (300, 400)),
            ((400, 300), 200, (150, 200)),
            ((400, 300), 100, (75, 100)),
            ((300, 400), 50, (50, 38)),
            ((4001, 7), 100, (1, 501)),
            ((333, 221), 100, (111, 167)),
        ],
    )
    @pytest.mark.parametrize(
        ("format", "mode"),
        [
            ("JPEG", "RGB"),
            ("JPEG", "L"),
            ("JPEG", "CMYK"),
            ("PNG", "RGB"),
            ("PNG", "RGBA"),
            ("WEBP", "RGB"),
            ("GIF", "P"),
        ],
    )
    def test_what_is_left_still_covers(
        self, size: tuple[int, int], cover: int, shape: tuple[int, int], format: str, mode: str
    ) -> None:
        found = of(encoded(Image.new(mode, size), format), 10**6, "The image", cover=cover)
        assert found.pixels.shape == (*shape, 3)
        assert (found.size.width, found.size.height) == size
        assert found.shrunk == (shape != size[::-1])
        across, down = found.scale
        assert (across * shape[1], down * shape[0]) == pytest.approx(size)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("format", ["JPEG", "PNG"])
    def test_they_are_the_same_picture(self, orientation: int, format: str) -> None:
        coarse = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(coarse).resize((800, 600)), format, quality=95, exif=exif)
        whole, small = (of(data, 10**6, "The image", cover=cover) for cover in (0, 150))
        assert small.size == whole.size
        assert max(small.pixels.shape) == 200
        height, width = small.pixels.shape[:2]
        expected = cv2.resize(whole.pixels, (width, height), interpolation=cv2.INTER_AREA)
        assert np.abs(small.pixels.astype(int) - expected).max() <= 6

    def test_as_bytes_and_back(self) -> None:
        found = of(encoded(Image.new("RGB", (400, 300), RED), "JPEG"), 10**6, "The image", cover=50)
        back = Decoded.parse(found.dump())
        assert back.size == found.size
        assert back.pixels.flags.writeable
        assert np.array_equal(back.pixels, found.pixels)

    @pytest.mark.parametrize(
        "data", [b"", b"junk", b"junk\n", b"[]\n", b'{"width": 3}\n', b"\xff\n", b"cut", b"\n", b"0\nabc"]
    )
    def test_other_bytes_are_refused(self, data: bytes) -> None:
        if data == b"cut":
            data = Decoded(np.zeros((2, 2, 3), np.uint8), ImageSize(width=4, height=4)).dump()[:-1]
        with pytest.raises(ValueError, match=r"."):
            Decoded.parse(data)


def deep_file(format: str, values: NDArray[Any]) -> bytes:
    """A file with these numbers, as cameras and microscopes write it; colours in the order BGR."""
    written, data = cv2.imencode(f".{format.lower()}", values)
    assert written
    return data.tobytes()


class TestMoreThanEightBits:
    @pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("format", ["PNG", "TIFF"])
    def test_the_bits_that_are_used_are_stretched(self, format: str, channels: int, bits: int) -> None:
        levels = np.arange(256, dtype=np.uint16).reshape(16, 16) << (bits - 8)
        values = np.repeat(levels[:, :, None], channels, axis=2)
        values[:, :, 3:] = 65535  # whole
        pixels = decode(deep_file(format, values))
        assert (pixels == np.arange(256).reshape(16, 16, 1)).all()

    def test_one_rule_for_all_channels(self) -> None:
        values = np.zeros((4, 4, 3), np.uint16)
        values[0, 0] = (100, 1000, 4000)
        assert decode(deep_file("PNG", values))[0, 0].tolist() == [6, 62, 250]

    def test_what_is_transparent_is_the_page(self) -> None:
        values = np.full((4, 4, 4), 4000, np.uint16)
        values[:2, :, 3], values[2:, :, 3] = 0, 65535
        assert decode(deep_file("PNG", values))[:, 0, 0].tolist() == [255, 255, 250, 250]

    @pytest.mark.parametrize(
        ("row", "expected"),
        [
            ([0.0, 0.25, 0.5, 1.0], [0, 64, 128, 255]),
            ([0.0, 0.1, 0.2, 0.2], [0, 26, 51, 51]),
            ([-10.0, 0.0, 10.0, 30.0], [0, 64, 128, 255]),
            ([20.0, 25.0, 30.0, 40.0], [0, 64, 128, 255]),
            ([np.nan, 20.0, 30.0, 40.0], [0, 0, 128, 255]),
            ([-np.inf, 20.0, 40.0, np.inf], [0, 0, 255, 255]),
            ([7.0, 7.0, 7.0, 7.0], [0, 0, 0, 0]),
            ([np.nan] * 4, [0, 0, 0, 0]),
        ],
    )
    def test_floating_point_numbers(self, row: list[float], expected: list[int]) -> None:
        pixels = decode(deep_file("TIFF", np.array([row] * 3, np.float32)))
        assert pixels.shape == (3, 4, 3) and (pixels == np.array(expected)[None, :, None]).all()

    def test_whole_numbers_beyond_sixteen_bits(self) -> None:
        for row in ([-100, 0, 100, 300], [0, 100_000, 200_000, 400_000]):
            assert decode(deep_file("TIFF", np.array([row] * 3, np.int32)))[0, :, 0].tolist() == [0, 64, 128, 255]

    def test_a_large_one_is_stretched_as_a_whole_and_made_smaller_so(self) -> None:
        values = np.zeros((3000, 1000), np.uint16)
        values[-1] = 4000
        values[:1000] = 1000
        data = deep_file("PNG", values)
        assert decode(data, max_pixels=3_000_000)[0, 0, 0] == 62
        shrunk = of(data, 3_000_000, "The image", cover=400)
        assert shrunk.shrunk and shrunk.pixels[0, 0, 0] == 62 and shrunk.pixels[600, 0, 0] == 0

    @pytest.mark.parametrize("values", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.float64)])
    def test_other_kinds_are_refused_by_name(self, values: NDArray[Any]) -> None:
        import ultralytics.utils.patches  # noqa: F401  which changes Image.open, as the serving process may

        with pytest.raises(ImageUnreadable, match=r"^The image is a TIFF or PNG file of a kind") as error:
            decode(deep_file("TIFF", values))
        assert "32-bit floating point" in error.value.hint

    @pytest.mark.parametrize("format", ["PNG", "TIFF"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_a_cut_file_is_refused(self, format: str, channels: int) -> None:
        noise = np.random.default_rng(1).integers(0, 4096, (64, 64, channels), np.uint16)
        with pytest.raises(ImageUnreadable):
            decode(deep_file(format, noise)[:-3000])
