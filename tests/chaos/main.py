"""Does harm to a real yoloop on a real Label Studio, at random times, and looks whether every promise was kept.

What it does and what must hold is told in docs/reliability.md. Ends with 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from chaos.faults import ALL
from chaos.rounds import Run
from chaos.world import World
from support.labelstudio import make_template


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="of all choices; default: the clock's")
    parser.add_argument("--rounds", type=int, default=3, help="how often each fault is tried (3)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no round after so many")
    parser.add_argument("--faults", default=",".join(ALL), help="which, with commas; default: all")
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    parser.add_argument("--output", type=Path, help="write what came of it here, as JSON")
    parser.add_argument("--keep", type=Path, help="folder for the world, which then stays")
    parser.add_argument("--template", type=Path, help="folder for a migrated Label Studio, to start sooner next time")
    given = parser.parse_args()
    if given.list:
        for name, fault in ALL.items():
            print(f"{name:<16}{fault.name}")
        return
    names = given.faults.split(",")
    if unknown := set(names) - set(ALL):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    seed = given.seed if given.seed is not None else int(time.time()) % 100_000
    print(f"seed {seed}", flush=True)
    os.environ |= {"YOLOOP_OFFLINE": "1"}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nothing of the world is to stay
    with tempfile.TemporaryDirectory(prefix="yoloop-chaos-", ignore_cleanup_errors=True) as name:
        folder = given.keep or Path(name)
        world = World(folder, make_template(given.template or Path(name) / "template"), seed)
        with world.running():
            outcome = Run(world, seed, lambda text: print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)).play(
                names, given.rounds, given.minutes
            )
    print(outcome)
    if given.output:
        given.output.write_text(json.dumps(outcome.as_json(), indent=1) + "\n")
    sys.exit(1 if outcome.broken else 0)


if __name__ == "__main__":
    main()
