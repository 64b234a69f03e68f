"""A short run of `scripts/chaos`: the most telling faults once each, on a real Label Studio and a real yoloop."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.rounds import Run
from chaos.world import World

pytestmark = pytest.mark.group("chaos", minutes=5)

FAULTS = ("kill-worker", "db-locked", "corrupt")
"""A corrupt version comes with a killed server; test_loop has the other kills, and a stopped Label Studio."""


def test_nothing_is_lost_whatever_is_killed_locked_or_spoiled(label_studio_template: Path, tmp_path: Path) -> None:
    world = World(tmp_path, label_studio_template, seed=1)
    with world.running():
        outcome = Run(world, seed=1).play(FAULTS, rounds=1)
    print(outcome)
    assert outcome.broken == [], outcome.broken
    assert {name: tally.tried for name, tally in outcome.tallies.items()} == dict.fromkeys(FAULTS, 1)
    assert all(tally.answers and tally.lost == 0 for tally in outcome.tallies.values())
    assert outcome.promoted >= 2
