"""The loop: annotate, harm, heal, wait for rest, and look whether every promise was kept."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from chaos import checks
from chaos.faults import ALL
from chaos.prober import BUSY, CALM, Answer, Prober, longest_silence
from chaos.world import CONFIG, OPEN, World

SETTLE = 240.0
"""Seconds that the world gets to come to rest after a fault, on a busy machine."""


ATTEMPTS = 4
"""Times that a fault is tried to be done in one round: the moment for it may have passed, or nobody may notice it."""


@dataclass
class Tally:
    """What came of one fault. Times are seconds.

    `tried` counts the rounds in which it was really done; `lost` the submitted annotations in no version's ledger.
    """

    fault: str
    tried: int = 0
    lost: int = 0
    answers: int = 0
    silence: float = 0.0
    rest: float = 0.0
    skipped: str = ""
    broken: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """What came of a run."""

    seed: int
    seconds: float = 0.0
    submitted: int = 0
    versions: int = 0
    promoted: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    at_the_end: list[str] = field(default_factory=list)
    tracebacks: dict[str, int] = field(default_factory=dict)

    @property
    def broken(self) -> list[str]:
        return self.at_the_end + [f"{name}: {each}" for name, tally in self.tallies.items() for each in tally.broken]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            "| fault | times tried | annotations lost | promises broken | longest wait for an answer | at rest after |"
        ]
        lines.append("|---|---|---|---|---|---|")
        for each in self.tallies.values():
            tried = str(each.tried) if not each.skipped else f"{each.tried} (skipped: {each.skipped})"
            cells = each.fault, tried, each.lost, len(each.broken), f"{each.silence:.1f} s", f"{each.rest:.0f} s"
            lines.append(f"| {' | '.join(map(str, cells))} |")
        total = sum(each.tried for each in self.tallies.values())
        lines.append(
            f"\n{total} faults in {self.seconds / 60:.0f} minutes, seed {self.seed}: {self.submitted} annotations, "
            f"{self.versions} versions, {self.promoted} of them promoted."
        )
        return "\n".join(lines + self.broken)


class Run:
    """Rounds of faults in one world.

    Args:
        world: running.
        seed: of all choices; times still depend on the machine.
        say: told what happens.
    """

    def __init__(self, world: World, seed: int, say: Callable[[str], None] = print) -> None:
        self._world, self._chance, self._say = world, random.Random(seed), say
        self._annotator = random.Random(seed + 1)  # its own, as it works beside the faults
        self._outcome = Outcome(seed)
        self._loaded: set[int] = set()
        tasks = [{"id": task["id"], "data": task["data"]} for task in world.tasks()[:6]]
        body = {"project": world.uid, "label_config": CONFIG}
        self._prober = Prober(world.yoloop.url, body, tasks)
        world.wait_until_serving()
        for index in range(len(tasks)):  # what it has seen once, it needs no Label Studio for
            self._prober.ask(index)

    def play(self, names: Sequence[str], rounds: int, minutes: float = float("inf")) -> Outcome:
        """So many rounds of each fault, in random order, or until the minutes are over."""
        began = time.monotonic()
        self._outcome.tallies = {name: Tally(name) for name in names}
        with self._prober:
            for _ in range(rounds):
                for name in self._chance.sample(list(names), len(names)):
                    for _ in range(ATTEMPTS):
                        if time.monotonic() - began > 60 * minutes or self._round(name, self._outcome.tallies[name]):
                            break
        self._outcome.at_the_end = list(checks.stops_clean(self._world))
        versions = self._world.registry.versions(self._world.uid)
        self._outcome.versions = len(versions)
        self._outcome.promoted = sum(each.decision == "promoted" for each in versions)
        self._outcome.submitted = len(self._world.submitted)
        self._outcome.seconds = time.monotonic() - began
        log = self._world.yoloop.log.read_text(errors="replace")
        self._outcome.tracebacks = dict(checks.tracebacks(log).most_common())
        return self._outcome

    def _round(self, name: str, tally: Tally) -> bool:
        """Whether the fault was done, or cannot be; what came of it is added to the tally."""
        world, chance = self._world, self._chance
        fault = ALL[name](world, chance)
        tally.fault = fault.name
        if why := fault.impossible():
            tally.skipped = why
            return True
        if len(world.open) < OPEN:
            world.more_tasks(OPEN)
        began = time.monotonic()
        floor = max((each.number for each in self._prober.answers), default=0)
        self._annotate(chance.randint(2, 5))
        moment = chance.choice(fault.moments)
        if moment != "idle":
            world.press_train()
        reached = world.wait_for_phase(moment, 60)
        time.sleep(chance.uniform(0, 1.5))
        self._prober.pause = BUSY
        meanwhile = threading.Thread(target=self._annotate, args=(chance.randint(1, 3),))
        meanwhile.start()
        try:
            done = fault.inject()
            time.sleep(chance.uniform(*fault.lasts))
            fault.heal()
        except LookupError as error:  # it came too late, or met nobody: that is no try
            self._say(f"{fault.name} ({moment}): not done, {error}")
            done = ""
        meanwhile.join(120)
        self._prober.pause = CALM
        healed_at = time.monotonic()
        self._annotate(1)
        unsettled = world.settle(SETTLE)
        rest = time.monotonic() - healed_at
        answers = self._prober.since(began)
        before = max(1, floor - 1) if fault.spoils_version else floor
        found = [unsettled] if unsettled else []
        found += self._checked(answers, before, spoiled=fault.spoils_version)
        lost = world.missing() if unsettled else set()
        if done:
            tally.tried += 1
            tally.done.append(f"{moment if reached else 'any time'}: {done}")
            tally.silence = max(tally.silence, longest_silence(answers))
            tally.rest = max(tally.rest, rest)
        tally.answers += sum(not each.wrong for each in answers)
        tally.lost += len(lost)
        tally.broken += found
        for each in lost:  # told once
            del world.submitted[each]
        told = "; ".join(found) or "all well"
        silence = longest_silence(answers)
        self._say(
            f"{fault.name} ({moment if reached else 'any time'}): {done or 'not done'}; {told}; "
            f"longest wait {silence:.1f} s, at rest after {rest:.0f} s"
        )
        return bool(done)

    def _checked(self, answers: Sequence[Answer], floor: int, *, spoiled: bool) -> list[str]:
        world = self._world
        rising = answers if not spoiled else [each for each in answers if each.wrong]
        found: Iterable[str] = [
            *checks.answers_good(rising, floor),
            *(f"v{each.number} answered" for each in answers if spoiled and not each.wrong and each.number < floor),
            *checks.versions_load(world, self._loaded),
            *checks.no_twins(world),
            *checks.processes_in_order(world),
            *checks.nothing_left(world),
        ]
        return list(found)

    def _annotate(self, count: int) -> None:
        """A person at work, who opens the next task and submits."""
        for _ in range(count):
            if self._annotator.random() < 0.3:
                self._world.next()
            self._world.submit()
            time.sleep(self._annotator.uniform(0.1, 0.8))
