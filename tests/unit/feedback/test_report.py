from __future__ import annotations

from backend.feedback.report import shown_from


def test_a_label_that_pays() -> None:
    assert shown_from("Tree", {"least": 0.62, "right": 71, "shown": 100, "seconds": 2.04}) == (
        "Tree: shown from 0.62 on; 71 % right (61 to 79); saves about 2.0 s an image."
    )


def test_a_label_that_does_not() -> None:
    assert "not suggested by itself" in shown_from("Tree", {"least": None, "right": 0, "shown": 0, "seconds": 0.0})


def test_a_label_that_was_not_found_on_the_held_out_images() -> None:
    assert shown_from("Tree", {"least": 0.3, "right": 0, "shown": 0, "seconds": 0.0}) == "Tree: shown from 0.30 on."
