from __future__ import annotations

from pathlib import Path

from backend.fit.dataset.safe_names import folder_names

HOSTILE = ["a/b", "..", ".", "", "x" * 500, "CON", "nul.txt", "Box", "box", "a_b", "é" * 200, "left_out.json", "a\x00b"]


def test_every_name_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    found = folder_names(HOSTILE, taken=("left_out.json",))
    assert set(found) == set(HOSTILE)
    assert len({each.casefold() for each in found.values()} | {"left_out.json"}) == len(HOSTILE) + 1
    for each in found.values():
        (tmp_path / each).mkdir()
        assert (tmp_path / each).resolve().parent == tmp_path.resolve()
    assert not {each.lower() for each in found.values()} & {"con", "nul.txt"}


def test_what_can_stay_stays() -> None:
    assert folder_names(["a/b", "a_b", "label"]) == {"a_b": "a_b", "label": "label", "a/b": "a_b-2"}
