"""How long a command takes to answer, against what it cannot do without: the imports of typer, SQLAlchemy and
pydantic-settings.

    .venv/bin/python bench/terminal.py                 # `yoloop status` of a project in a new home
    .venv/bin/python bench/terminal.py --home .yoloop  # of your own
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

IMPORTS = "import typer, sqlalchemy, pydantic_settings"


def seconds(command: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(home: Path, times: int) -> tuple[float, float]:
    """Median seconds of the imports alone, and of `yoloop status`; taken in turn, as other work comes and goes."""
    env = {**os.environ, "YOLOOP_HOME": str(home)}
    found = [
        (
            seconds([sys.executable, "-c", IMPORTS], env),
            seconds([sys.executable, "-m", "backend.cli.main", "status"], env),
        )
        for _ in range(times)
    ]
    imports, status = zip(*found, strict=True)
    return statistics.median(imports), statistics.median(status)


def new_home(folder: Path) -> Path:
    """A home with one project and an empty registry."""
    from backend.store.database import Store
    from model_registry import Registry

    store = Store(f"sqlite:///{folder / 'yoloop.db'}")
    store.save_project("1.1795453273", title="Shapes", url="http://127.0.0.1:8080", api_key="0" * 40)
    store.close()
    Registry(f"sqlite:///{folder / 'mlflow.db'}", folder / "registry").open()
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/terminal.py", description=__doc__)
    parser.add_argument("--home", type=Path, help="a home with projects (default: a new one)")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--most", type=float, metavar="SECONDS", help="end with 1 when it takes longer than this more")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        imports, status = measure(given.home or new_home(Path(folder)), given.times)
    print(f"imports alone   {imports:6.2f} s   {IMPORTS}")
    print(f"yoloop status   {status:6.2f} s   {status / imports:.2f} times as long, {status - imports:.2f} s more")
    return int(given.most is not None and status - imports > given.most)


if __name__ == "__main__":
    sys.exit(main())
