"""How the path of a choice in a taxonomy becomes one text, which is a label."""

from __future__ import annotations

PATH_SEPARATOR = " / "
