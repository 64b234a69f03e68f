"""Files and labelling configs that somebody made to do harm, or that a broken program wrote."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image
from support.web import PNG, encoded


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0, data: bytes = b"") -> bytes:
    """A PNG whose header claims what it likes."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", data or zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + body + chunk(b"IEND", b"")


def packed(width: int, height: int) -> bytes:
    """A PNG of black pixels, all of them there: a few KB that unpack to a thousand times as much."""
    size, block = (width + 1) * height, 2**20
    # Black is zeros, and what follows a full flush depends on nothing before it: one block is packed and repeated.
    packer = zlib.compressobj(9, wbits=-15)
    one = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, wbits=-15)
    rest = packer.compress(bytes(size % block)) + packer.flush()
    check = struct.pack(">HH", size % 65521, 1)  # Adler-32 of so many zeros
    return png(width, height, data=b"\x78\xda" + one * (size // block) + rest + check)


def gif(width: int, height: int, *, frames: int = 1) -> bytes:
    """A GIF that claims a screen of that size and holds frames of 1 × 1."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return screen + frame * frames + b"\x3b"


def bmp(width: int, height: int) -> bytes:
    head = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def tiff(width: int, height: int, *, next_ifd: int = 0) -> bytes:
    """A TIFF with one directory, whose successor lies where `next_ifd` says: at 8 it is its own."""
    fields = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    fields += [(277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 1)]
    rows = b"".join(struct.pack("<HHII", *each) for each in fields)
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + rows + struct.pack("<I", next_ifd)


def exif(kind: int, count: int, value: bytes) -> bytes:
    """An EXIF block whose orientation has a type of our choice, such as a rational 0/0, which is NaN."""
    head = b"Exif\0\0MM\0*\0\0\0\x08\0\x01"
    return head + struct.pack(">HHI", 0x0112, kind, count) + struct.pack(">I", 26) + b"\0\0\0\0" + value


_NOISE = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)))
_JPEG = encoded(Image.new("RGB", (64, 48), "red"), "JPEG")
_DEEP = np.random.default_rng(0).integers(0, 2**16, (32, 48), np.uint16)

UNREADABLE: dict[str, bytes] = {
    "no byte": b"",
    "zero bytes": bytes(4096),
    "text": b"hello",
    "half a PNG": _NOISE[: len(_NOISE) // 2],
    "a cut JPEG": _JPEG[:200],
    "a JPEG's first bytes": _JPEG[:3],
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="file:///etc/passwd"/></svg>',
    "SVG with an entity": b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ls) system\n",
    "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "PCX": b"\x0a\x05\x01\x08" + bytes(200),
    "HTML": b"<!doctype html><title>Log in</title>",
    "a program": b"\x7fELF" + bytes(200),
    "a zip": b"PK\x03\x04" + bytes(200),
    "a pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",
    "a PNG of 50,000 × 50,000": png(50_000, 50_000),
    "a PNG of no size": png(0, 0),
    "a PNG past all measure": png(2**31 - 1, 2**31 - 1),
    "a PNG without pixels": png(4, 4, data=zlib.compress(b"")),
    "a PNG with broken sums": PNG[:30] + b"\0\0" + PNG[32:],
    "a GIF of 50,000 × 50,000": gif(50_000, 50_000),
    "a BMP of 50,000 × 50,000": bmp(50_000, 50_000),
    "a BMP upside down past all measure": bmp(2**31 - 1, -(2**31) + 1),
    "a TIFF of 50,000 × 50,000": tiff(50_000, 50_000),
    "a text inside that unpacks to 64 MiB": png(
        4, 4, chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**26), 9)), data=zlib.compress(bytes(20))
    ),
    "a bomb of 20,000 × 20,000": packed(20_000, 20_000),
}
"""What is no image, or is one that must not be unpacked."""

READABLE: dict[str, tuple[bytes, tuple[int, int]]] = {
    "animated GIF": (
        encoded(
            Image.new("RGB", (9, 7), "red"), "GIF", save_all=True, append_images=[Image.new("RGB", (9, 7), "blue")]
        ),
        (9, 7),
    ),
    "animated PNG": (
        encoded(Image.new("RGB", (9, 7)), "PNG", save_all=True, append_images=[Image.new("RGB", (9, 7), "red")]),
        (9, 7),
    ),
    "a GIF of many frames": (gif(9, 7, frames=20_000), (9, 7)),
    "16-bit PNG": (encoded(Image.fromarray(_DEEP)), (48, 32)),
    "16-bit TIFF": (encoded(Image.fromarray(_DEEP), "TIFF"), (48, 32)),
    "float TIFF with NaN": (encoded(Image.fromarray(np.full((7, 9), np.nan, np.float32)), "TIFF"), (9, 7)),
    "EXIF that is NaN": (encoded(Image.new("RGB", (9, 7)), "JPEG", exif=exif(5, 1, struct.pack(">II", 0, 0))), (9, 7)),
    "EXIF of a float NaN": (encoded(Image.new("RGB", (9, 7)), "JPEG", exif=exif(11, 1, b"\x7f\xc0\0\0")), (9, 7)),
    "EXIF that is text": (encoded(Image.new("RGB", (9, 7)), "JPEG", exif=exif(2, 5, b"six\0\0")), (9, 7)),
    "EXIF of a million values": (encoded(Image.new("RGB", (9, 7)), "JPEG", exif=exif(3, 10**6, b"\0\6")), (9, 7)),
    "a TIFF that is its own successor": (tiff(4, 4, next_ifd=8), (4, 4)),
    "a bomb of 9,000 × 9,000": (packed(9_000, 9_000), (9_000, 9_000)),
}
"""Odd images that a browser shows, with the size that it shows."""


def data_uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64," + base64.b64encode(data).decode()


_VIEW = '<View><Image name="image" value="$image"/>{}</View>'
_BOXES = '<RectangleLabels name="label" toName="image">{}</RectangleLabels>'


def labels(count: int, tag: str = "Label") -> str:
    return "".join(f'<{tag} value="label {number}"/>' for number in range(count))


def nested(depth: int, tag: str = "View", inside: str = "", **attributes: str) -> str:
    given = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return f"<{tag}{given}>" * depth + inside + f"</{tag}>" * depth


REFUSED: dict[str, str] = {
    "nothing": "",
    "no XML": "hello",
    "never closed": "<View>" * 5000,
    "entities that grow": f'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "{"&a;" * 99}">]><View>&b;</View>',
    "a file as an entity": '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><View>&a;</View>',
    "an address as an entity": '<!DOCTYPE x SYSTEM "http://169.254.169.254/x.dtd"><View/>',
    "an entity that nobody declared": "<View>&lol;</View>",
    "two roots": "<View/><View/>",
    "deep nesting": nested(100_000),
    "deep nesting of choices": _VIEW.format(
        nested(1, "Taxonomy", nested(20_000, "Choice", value="a"), name="t", toName="image")
    ),
    "a null byte": "<View>\0</View>",
    "half a character": "<View>\ud800</View>",
    "a threshold that is NaN": _VIEW.format(
        f'<RectangleLabels name="l" toName="image" score_threshold="nan">{labels(1)}</RectangleLabels>'
    ),
    "an index past all measure": _VIEW.format(
        '<KeyPointLabels name="k" toName="image"><Label value="a" model_index="1e999"/></KeyPointLabels>'
    ),
    "a table of all with all": _VIEW.format(
        "".join(f'<Labels name="l{n}" toName="image">{labels(1)}</Labels>' for n in range(2000))
        + "".join(f'<Rectangle name="r{n}" toName="image"/>' for n in range(2000))
    ),
    "a label without end": _VIEW.format(_BOXES.format(f'<Label value="{"x" * 2000}"/>')),
    "paths without end": _VIEW.format(
        '<Taxonomy name="t" toName="image">'
        + f'<Choice value="{"x" * 100_000}">{labels(5000, "Choice")}</Choice></Taxonomy>'
    ),
    "ten megabytes of blanks": _VIEW.format(" " * 10 * 2**20),
}
"""Configs that are answered with 400."""

ACCEPTED: dict[str, str] = {
    "10,000 labels": _VIEW.format(_BOXES.format(labels(10_000))),
    "10,000 points": _VIEW.format(f'<KeyPointLabels name="k" toName="image">{labels(10_000)}</KeyPointLabels>'),
    "10,000 choices": _VIEW.format(f'<Choices name="c" toName="image">{labels(10_000, "Choice")}</Choices>'),
    "quotes and newlines": _VIEW.format(
        _BOXES.format(
            '<Label value="&quot;a&quot;&#10;b\'c"/><Label value="&lt;script&gt;"/><Label value="{x}%s$(id)"/>'
        )
    ),
    "names of a file": _VIEW.format(
        f'<RectangleLabels name="../../x" toName="image" model_path="../../etc/passwd">{labels(2)}</RectangleLabels>'
    ),
    "names of an address": _VIEW.format(
        f'<RectangleLabels name="l" toName="image" model_path="http://169.254.169.254/a.pt">{labels(2)}</RectangleLabels>'
    ),
    "a file's name past all measure": _VIEW.format(
        f'<RectangleLabels name="l" toName="image" model_path="{"a" * 300}.pt">{labels(2)}</RectangleLabels>'
    ),
    "an image named a hundred thousand times": _VIEW.format(
        f'<RectangleLabels name="l" toName="{",".join(["image"] * 100_000)}">{labels(10)}</RectangleLabels>'
    ),
    "the same name twice": _VIEW.format(_BOXES.format(labels(3)) * 2),
    "an encoding that it has not": '<?xml version="1.0" encoding="utf-7"?><View/>',
    "no names": "<View><Image/><RectangleLabels><Label/></RectangleLabels></View>",
    "names of another alphabet": _VIEW.format(_BOXES.format('<Label value="‮gnp.exe"/><Label value="𝔘𝔫𝔦"/>')),
    "some depth": nested(90, inside='<Image name="image" value="$image"/>' + _BOXES.format(labels(2))),
}
"""Odd configs that nevertheless are answered."""


REGION: dict[str, Any] = {
    "id": "r1",
    "from_name": "l",
    "to_name": "image",
    "type": "rectanglelabels",
    "original_width": 40,
    "original_height": 30,
    "image_rotation": 0,
    "value": {"x": 1, "y": 2, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["a"]},
}
"""A region that is well."""


def region(kind: str = "rectanglelabels", labels: Any = None, **value: Any) -> dict[str, Any]:
    """A region of a control of that kind, which is named by it."""
    given = {**value, kind: ["a"] if labels is None else labels}
    return {**REGION, "from_name": kind, "type": kind, "value": given}


_HUGE = {"original_width": 10**9, "original_height": 10**9}

RESULTS: dict[str, Any] = {
    "no list": {"a": 1},
    "text": "all of them",
    "a number": 5,
    "what are no regions": [None, 1, "x", [], [[]], True],
    "regions of nothing": [{}, {"value": None}, {"id": 1, "type": [], "value": []}],
    "names that are none": [{**REGION, "id": {"a": 1}, "from_name": ["l"], "to_name": 5, "type": {"b": []}}],
    "numbers that are none": [region(x=float("nan"), y=float("inf"), width=1e308, height=-1e308, rotation=10**400)],
    "numbers in words": [region(x="1", y=None, width=[3], height={}, rotation=True)],
    "labels that are none": [region(labels=each, x=1, y=1, width=5, height=5) for each in (5, {}, [[]], [None, {}])],
    "half a character": [{**region(labels=["\ud800"], x=1, y=1, width=5, height=5), "id": "\udfff"}],
    "pages that are none": [{**region(x=1, y=1, width=5, height=5), "item_index": each} for each in (-1, 1e300, "x")],
    "sizes past all measure": [
        {**region("polygonlabels", points=[[0, 0], [100, 0], [100, 100]]), **_HUGE},
        {**region("brushlabels", format="rle", rle=[0] * 100), "id": "r2", **_HUGE},
        {**region("brushlabels", format="rle", rle=[255] * 100), "id": "r3", **_HUGE},
        {**region("ellipselabels", x=5, y=5, radiusX=5, radiusY=5), "id": "r4", **_HUGE},
    ],
    "a code that claims gigabytes": [region("brushlabels", format="rle", rle=[255, 255, 255, 255, 63, 255, 255, 255])],
    "a code that is none": [region("brushlabels", format="rle", rle=each) for each in ([1e9], ["x"], [-1], "rle", [])],
    "a picture that is a bomb": [region("bitmasklabels", imageDataURL=data_uri(packed(20_000, 20_000)))],
    "a picture elsewhere": [region("bitmasklabels", imageDataURL="http://169.254.169.254/a.png")],
    "a picture that is none": [region("bitmasklabels", imageDataURL=data_uri(b"<svg/>"))],
    "points that are none": [
        region("polygonlabels", points=each)
        for each in ("x", [], [[1]], [["a", "b"]], [[1, 2], None], [[1e300, 1]] * 3)
    ],
    "points without end": [region("polygonlabels", points=[[n % 101, n * 7 % 101] for n in range(50_000)])],
    "a region within itself": [{**region(x=1, y=1, width=5, height=5), "parentID": "r1"}],
    "the same id again": [region(x=1, y=1, width=5, height=5)] * 50,
    "very many": [{**region(x=1, y=1, width=5, height=5), "id": str(number)} for number in range(5_000)],
    "depth": [region("polygonlabels", points=json.loads("[" * 800 + "]" * 800))],
    "paths that are none": [region("taxonomy", labels=each) for each in ([[]], [["a", 1]], ["a"], [[["a"]]], 5)],
    "choices that are none": [region("choices", labels=each) for each in ("a", [1], {"a": 1})],
    "a skeleton of one thing": [region("keypointlabels", x="1", y=2, width=0), {**REGION, "type": "relation"}],
}
"""What an annotation may hold when somebody writes it by hand."""

CONTROLS = """
<View><Image name="image" value="$image"/>
  <RectangleLabels name="rectanglelabels" toName="image"><Label value="a"/></RectangleLabels>
  <EllipseLabels name="ellipselabels" toName="image"><Label value="a"/></EllipseLabels>
  <PolygonLabels name="polygonlabels" toName="image"><Label value="a"/></PolygonLabels>
  <BrushLabels name="brushlabels" toName="image"><Label value="a"/></BrushLabels>
  <BitmaskLabels name="bitmasklabels" toName="image"><Label value="a"/></BitmaskLabels>
  <KeyPointLabels name="keypointlabels" toName="image"><Label value="a"/></KeyPointLabels>
  <Choices name="choices" toName="image"><Choice value="a"/></Choices>
  <Taxonomy name="taxonomy" toName="image"><Choice value="a"/></Taxonomy>
</View>
"""


def leaves(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a JSON value: the path to every node but the root."""
    found = [at] if at else []
    if isinstance(value, dict):
        return found + [path for key, each in value.items() for path in leaves(each, (*at, key))]
    if isinstance(value, list):
        return found + [path for index, each in enumerate(value[:50]) for path in leaves(each, (*at, index))]
    return found


CONFIGS = [xml for name, xml in (REFUSED | ACCEPTED).items() if len(xml) < 200_000]
IMAGES = [
    data_uri(data) for data in [*UNREADABLE.values(), *(data for data, _ in READABLE.values())] if len(data) < 60_000
]
