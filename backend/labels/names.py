"""Which label of a control a name means, as importers and earlier configs wrote it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping


class Names:
    """Which label of a control a region means."""

    def __init__(self, labels: Iterable[str], others: Mapping[str, Iterable[str]]) -> None:
        self._labels = dict.fromkeys(labels)
        self._others: dict[str, set[str]] = {}
        for label, names in others.items():
            for name in names:
                self._others.setdefault(name, set()).add(label)
        self._composed: dict[str, set[str]] = {}
        self._folded: dict[str, set[str]] = {}
        for name, meant in (*((label, {label}) for label in self._labels), *self._others.items()):
            self._composed.setdefault(_composed(name), set()).update(meant)
            self._folded.setdefault(_composed(name).casefold(), set()).update(meant)
        self._known: dict[str, str | None] = {}

    def find(self, name: str) -> str | None:
        """The label; None: none, or more than one could be meant."""
        if name not in self._known:
            stripped = name.strip()
            composed = _composed(name)
            steps = (
                self._exactly(name),
                self._exactly(stripped),
                self._composed.get(composed, set()),
                self._folded.get(composed.casefold(), set()),
            )
            meant = next((each for each in steps if each), set())
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[name] = next(iter(meant)) if len(meant) == 1 else None
        return self._known[name]

    def _exactly(self, name: str) -> set[str]:
        return {name} if name in self._labels else self._others.get(name, set())


def _composed(name: str) -> str:
    """A name with its letters composed in one way and single blanks within: what looks the same is the same."""
    return " ".join(unicodedata.normalize("NFC", name).split())
