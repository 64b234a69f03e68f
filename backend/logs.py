"""One line a message, to standard error, the same in every process."""

from __future__ import annotations

import logging
import sys

from backend.masking import Masked


def configure(level: str, process: str) -> None:
    """Set up logging for this process. Libraries speak only to warn."""
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter(f"%(asctime)s {process:<7} %(levelname)-7s %(message)s", "%H:%M:%S")
    handler.setFormatter(Masked(plain))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("backend", "model_registry"):
        logging.getLogger(name).setLevel(level)
