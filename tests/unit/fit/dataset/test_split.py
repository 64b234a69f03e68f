from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.fit.dataset.split import is_held_out, split_key


@pytest.mark.parametrize(
    ("reference", "key"),
    [
        ("https://bucket.host/a/b.jpg?X-Amz-Signature=1", "bucket.host/a/b.jpg"),
        ("http://host:8080/b.jpg", "host:8080/b.jpg"),
        ("http://bob:hunter2@host:8080/b.jpg?token=hunter2", "host:8080/b.jpg"),
        ("/data/local-files/?d=dir/x.png", "/data/local-files/?d=dir/x.png"),
        ("/data/upload/1/x.png", "/data/upload/1/x.png"),
        ("s3://bucket/x.png", "s3://bucket/x.png"),
    ],
)
def test_what_names_an_image(reference: str, key: str) -> None:
    assert split_key(reference) == key


def test_a_new_signature_keeps_the_side() -> None:
    assert split_key("https://h/a.jpg?sig=1&se=2") == split_key("https://h/a.jpg?sig=3&se=4")


def test_local_files_do_not_all_fall_on_one_side() -> None:
    sides = {is_held_out(split_key(f"/data/local-files/?d={number}.png"), 0.5) for number in range(50)}
    assert sides == {True, False}


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_the_share_is_kept(share: float) -> None:
    held = sum(is_held_out(f"/data/upload/1/{number}.jpg", share) for number in range(5000))
    assert held == pytest.approx(5000 * share, rel=0.1)


def test_the_sides_are_those_of_every_machine_and_release() -> None:
    """Written down, because a split that changes turns what was learned into what judges."""
    keys = [f"/data/upload/1/{number}.jpg" for number in range(20)]
    assert [number for number, key in enumerate(keys) if is_held_out(key, 0.2)] == [3, 4, 9, 19]


@given(key=st.text(), low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_larger_share_only_adds(key: str, low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    assert is_held_out(key, low) <= is_held_out(key, high)
    assert is_held_out(key, high) == is_held_out(key, high)
