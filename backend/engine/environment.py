"""The libraries as well-behaved guests: no network, no settings outside the home folder, no printing.

They read their environment when they are first imported, so `prepare()` comes before every such import.
"""

from __future__ import annotations

import getpass
import os
import shutil
import sys
from pathlib import Path


def prepare(home: Path) -> None:
    """Set ultralytics' environment and keep OpenVINO from reporting what it converts. Safe to repeat.

    Args:
        home: the project's home folder; the libraries' own settings and fonts go below it.
    """
    provide_user(home)
    os.environ.setdefault("MPLCONFIGDIR", str(home / "matplotlib"))
    config = home / "ultralytics"
    os.environ["YOLO_CONFIG_DIR"] = str(config)
    os.environ["YOLO_OFFLINE"] = "1"
    os.environ["YOLO_AUTOINSTALL"] = "0"
    os.environ["YOLO_VERBOSE"] = "0"
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # OpenVINO does without its telemetry package when it cannot be imported; left alone it reports unasked.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    _provide_font(config / "Ultralytics")


def provide_user(home: Path) -> None:
    """Give this process, and those that it starts, a home and a name where the system knows none. Safe to repeat.

    Containers run as numbers that no user has, and services without HOME. MLflow, OpenVINO, ultralytics and nltk ask
    for the user's home as they are imported, and end the process when there is none.

    Args:
        home: what becomes HOME where HOME is unset and the user has none either, or it cannot be entered.
    """
    try:
        known = os.access(Path.home(), os.R_OK | os.X_OK)
    except RuntimeError:
        known = False
    if not known:
        os.environ["HOME"] = str(home)
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = "yoloop"


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(threads: int) -> None:
    """Let torch use that many threads in this process, which ultralytics would set by its own rule."""
    import torch
    from ultralytics.utils import torch_utils

    torch_utils.NUM_THREADS = threads
    torch.set_num_threads(threads)


def _provide_font(folder: Path) -> None:
    """ultralytics downloads a font for its plots unless one lies here; matplotlib, which it needs, has one."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in ("Arial.ttf", "Arial.Unicode.ttf") if not (folder / name).exists()]
    if missing:
        import matplotlib

        font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
        for name in missing:
            part = folder / f".{name}.{os.getpid()}"
            shutil.copyfile(font, part)
            part.replace(folder / name)
