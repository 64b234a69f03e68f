"""Which version serves for each model, as the database says, and what is known of it while MLflow does not answer.

The database is asked each time, for all models at once. MLflow is looked at now and then: what was done there is
followed, and what it could not be told is told.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from model_registry.memory import Memory, Remembered
from model_registry.registry import Registry
from model_registry.version import Version
from model_registry.versions import RegistryError

log = logging.getLogger(__name__)

POLL = 5.0
"""Seconds between two looks at MLflow."""

SHARE = 10.0
"""A look that takes long is followed by a pause that many times as long: the server has other work."""

FIRST = 0.7
"""Seconds to wait for the first answer, where nothing is remembered. Label Studio gives /setup three, of which a first
look at pretrained models may take two."""


class Champions:
    """One object per process, used from any thread. MLflow's file is looked at by whoever asks, a server in the
    background.

    Args:
        registry: who is asked.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._memory = Memory(registry.copies)
        self._numbers: Mapping[str, int | None] = {}
        self._looked = -POLL
        self._remembered: dict[str, int | None] = {}
        self._lock = threading.Lock()
        self._asked = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.trouble = "It has not answered yet."
        self.back_at = 0.0
        """When (`time.monotonic()`) it answered again after it had not."""

    def start(self) -> None:
        """Open the registry: a file now, a server in the background. Once is enough."""
        if self._registry.in_file:
            self._registry.open()
            self.look()
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="champions", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop looking. A question that is under way is left alone."""
        self._stop.set()

    @property
    def away(self) -> bool:
        """Whether the registry did not answer when it was last asked, or has not answered yet."""
        return bool(self.trouble)

    def look(self) -> None:
        """Look at MLflow once, for all models. Where that fails, what is known stays."""
        self._looked = time.monotonic()
        try:
            numbers = self._registry.look()
        except Exception as error:
            if not self.trouble or not self._asked.is_set():
                log.warning("MLflow cannot be asked which versions serve; those known serve on: %s", _short(error))
            self.trouble = f"It does not answer ({type(error).__name__})."
        else:
            if self.trouble and self._asked.is_set():
                log.info("MLflow answers again")
                self.back_at = time.monotonic()
            self._numbers, self.trouble = numbers, ""
        self._asked.set()

    def numbers(self) -> Mapping[str, int | None] | None:
        """Model → number of its version in service, of now; None while MLflow does not answer: what an earlier release
        left there may be unknown yet."""
        if self._registry.in_file and time.monotonic() - self._looked >= POLL:
            self.look()
        self._ask()
        return None if self.away else self._numbers

    def number(self, model: str, wait: float = FIRST) -> int | None:
        """Number of the version in service; None: there is none, or nobody knows of one.

        Args:
            wait: seconds to wait for the first answer of MLflow, where nothing is known; 0: what was asked last will
                do.
        """
        if wait:
            self._ask()
            if self._registry.in_file and model not in self._numbers:
                self.look()
        if model in self._numbers or not self.away:
            return self._numbers.get(model)
        known = self._memory.read(model)
        if known is not None:
            return known.champion
        self._asked.wait(wait)
        return self._numbers.get(model)

    def _ask(self) -> None:
        """Ask the database. Where there is none, the last look at MLflow will do."""
        if (numbers := self._registry.numbers()) is not None:
            self._numbers = numbers

    def version(self, model: str, number: int) -> Version:
        """One version. Raises RegistryError when there is none, or none is known while the registry does not answer."""
        if not self.away:
            try:
                return self._registry.version(model, number)
            except RegistryError:
                raise
            except Exception as error:
                log.warning("Version v%d of %s cannot be read from MLflow: %s", number, model, _short(error))
        known = self._memory.read(model)
        if known is None or number not in known.versions:
            raise RegistryError(f"MLflow does not answer, and v{number} is not known here.")
        return known.versions[number]

    def served_before(self, model: str) -> list[int]:
        """As `Registry.served_before`."""
        if not self.away or model in (self._registry.numbers() or ()):
            return self._registry.served_before(model)
        known = self._memory.read(model)
        return [] if known is None else known.served_before

    def fetch(self, version: Version, name: str = "weights.pt") -> Path:
        """As `Registry.fetch`; a file that is not here is not asked for while the registry does not answer."""
        if self.away and self._registry.copy_of(version, name) is None:
            raise RegistryError(f"MLflow does not answer, and no copy of {name} of {version.name} is here.")
        return self._registry.fetch(version, name)

    def remember(self, model: str) -> None:
        """Write down what serves now, unless that is known: it then costs nothing."""
        number = self._numbers.get(model)
        if self.away or (model in self._remembered and self._remembered[model] == number):
            return
        try:
            self._write(model, number)
        except Exception as error:  # once more at the next call
            log.warning("What serves for %s could not be read from MLflow: %s", model, _short(error))
        else:
            self._remembered[model] = number

    def _write(self, model: str, number: int | None) -> None:
        known = self._memory.read(model)
        if (known is None and number is not None) or (known is not None and known.champion != number):
            made = known or Remembered()
            made.champion, made.served_before = number, []
            if number is not None:
                made.served_before = self._registry.served_before(model)
                for each in (number, *made.served_before[:1]):
                    made.versions[each] = self._registry.version(model, each)
            self._memory.write(model, made)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self.look()
            took = time.monotonic() - began
            if self._stop.wait(max(POLL, SHARE * took if not self.away else 0.0)):
                return


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
