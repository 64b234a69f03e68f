from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
from pool import named
from recipe import FINAL, PRODUCT, SCREENING, VARIANTS, Trial, changed, drawn, lay_out, search, summary

from backend.fit.training import recipe as product

TRIAL = Trial(PRODUCT, "easy", "random", 8, 0)
CPU = product.Machine(gpu=False, half=False, threads=2)


def test_no_image_that_measures_teaches_or_chooses() -> None:
    for seed in (*SCREENING, *FINAL):
        teach, judge, held_out = drawn(Trial(PRODUCT, "tiles", "random", 28, seed), 43)
        assert (len(teach), len(judge), len(held_out)) == (22, 6, 15)
        assert len({*teach, *judge, *held_out}) == 43
    assert set(SCREENING).isdisjoint(FINAL)


def test_fewer_images_are_measured_on_the_same_ones() -> None:
    many, few = (drawn(Trial(PRODUCT, "tiles", "random", images, 3), 43) for images in (28, 5))
    assert many[2] == few[2]
    assert {*few[0], *few[1]} <= {*many[0], *many[1]}
    with pytest.raises(ValueError, match="28 are left"):
        drawn(Trial(PRODUCT, "tiles", "random", 29, 3), 43)


def test_the_best_third_goes_on_and_the_products_own() -> None:
    asked: list[tuple[tuple[str, ...], int]] = []
    worth = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.5, "f": 0.4, PRODUCT: 0.1}

    def scores(variants: Sequence[str], seeds: Sequence[int]) -> dict[str, float] | None:
        asked.append((tuple(variants), len(seeds)))
        return {each: worth[each] for each in variants}

    assert search(list(worth), scores, (1, 2, 3), halve=True) == ["a", "b", PRODUCT]
    assert asked == [(tuple(worth), 1), (("a", "b", "c", PRODUCT), 2), (("a", "b", PRODUCT), 3)]
    assert search(["a", "b"], lambda variants, seeds: None, (1, 2), halve=True) == ["a", "b"]


def test_a_variant_changes_what_it_says_and_only_while_it_is_tried() -> None:
    before = product.recipe(22, start="base", machine=CPU)
    with changed("lr 0.001+twice the steps+batch 4"):
        found = product.recipe(22, start="base", machine=CPU)
    assert found.arguments["lr0"] == 0.001
    assert found.arguments["batch"] == found.arguments["nbs"] == 4
    assert "steps" not in found.arguments and "ema" not in found.arguments
    steps = [each.arguments["epochs"] * -(-22 * each.repeats // each.arguments["batch"]) for each in (before, found)]
    assert steps[1] == pytest.approx(2 * steps[0], rel=0.15)
    assert product.recipe(22, start="base", machine=CPU) == before


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_gives_a_recipe(variant: str) -> None:
    from ultralytics.cfg import DEFAULT_CFG_DICT

    with changed(variant):
        arguments = product.recipe(20, start="base", machine=CPU).arguments
    assert set(arguments) <= set(DEFAULT_CFG_DICT)
    assert arguments["epochs"] >= 1


def test_a_trial_is_laid_out_as_the_product_does(tmp_path: Path) -> None:
    pool = named("easy", tmp_path / "pool", 20, seed=0, size=96)
    todo = lay_out(TRIAL, pool, None, tmp_path, larger=1.5)
    place = tmp_path / "network-0"
    assert (todo.image_size, todo.initial, todo.train_images) == (160, "", 6)
    taught = (place / "train.txt").read_text().splitlines()
    assert len(taught) == 6 and all(Path(each).is_file() for each in taught)
    numbers = [float(part) for part in (place / "labels" / f"{Path(taught[0]).stem}.txt").read_text().split()]
    assert numbers and all(0 <= part <= 2 for part in numbers)


def test_the_summary_keeps_what_was_chosen_by_from_what_is_quoted() -> None:
    result = {**dict.fromkeys(("mAP50-95", "epochs", "seconds"), 1), "pool": "tiles", "base": "yolo11n", "images": 28}
    results = [
        {**result, "variant": "auto", "seed": seed, "mAP50": value} for seed, value in ((10, 0.4), (0, 0.2), (1, 0.3))
    ]
    rows = [line.split()[4:] for line in summary(results).splitlines()[1:]]
    assert rows == [["0.400", "0.400", "0.400", "10"], ["0.250", "0.200", "0.300", "0,1"]]
