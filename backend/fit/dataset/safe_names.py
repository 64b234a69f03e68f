"""Names of controls as names of folders, on every file system."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

LONGEST = 80
"""Bytes of a folder's name; every file system takes 255, and the path has more parts."""

_UNFIT = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def folder_names(names: Sequence[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Name → its folder, one for each, also where upper and lower case are the same.

    Args:
        taken: what lies beside them already.
    """
    used = {each.casefold() for each in taken}
    found: dict[str, str] = {}
    # Those that can stay as they are go first: another one's replacement must not take their place.
    for name in sorted(dict.fromkeys(names), key=lambda each: _safe(each) != each):
        safe = _safe(name)
        made, number = safe, 2
        while made.casefold() in used:
            made, number = f"{safe}-{number}", number + 1
        used.add(made.casefold())
        found[name] = made
    return found


def _safe(name: str) -> str:
    made = _UNFIT.sub("_", name).encode()[:LONGEST].decode(errors="ignore").strip(" .")
    if not made:
        return "control"
    return f"_{made}" if _RESERVED.fullmatch(made) else made
