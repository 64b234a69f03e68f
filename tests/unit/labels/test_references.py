from __future__ import annotations

from typing import Any

import pytest

from backend.labels.references import field_of, pages_of

DATA = {
    "image": "a.jpg",
    "images": ["b.jpg", {"url": "c.jpg"}],
    "meta": {"url": "d.jpg", "0": "e.jpg"},
    "dotted.name": "f.jpg",
    "dotted": {"name": "g.jpg"},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("image", "a.jpg"),
        ("images[0]", "b.jpg"),
        ("images.0", "b.jpg"),
        ("images[1].url", "c.jpg"),
        ("images[2]", None),
        ("images[1].name", None),
        ("meta.url", "d.jpg"),
        ("meta[0]", "e.jpg"),
        ("meta.url.more", None),
        ("dotted.name", "f.jpg"),
        ("absent", None),
        ("absent.url", None),
        ("image[0]", None),
    ],
)
def test_a_field_is_found_where_label_studio_looks(path: str, found: object) -> None:
    assert field_of(DATA, path) == found


@pytest.mark.parametrize("data", [None, "text", 5, ["x"], {}])
def test_data_of_any_kind_holds_nothing(data: Any) -> None:
    assert field_of(data, "meta.url") is None


def test_a_list_is_pages_only_where_the_tag_says_so() -> None:
    assert pages_of(field_of(DATA, "images"), False) == []
    assert pages_of(field_of(DATA, "images"), True) == ["b.jpg", ""]
