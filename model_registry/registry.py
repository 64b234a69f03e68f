"""Which version of each model serves, on MLflow and the database that all processes share.

A row of the database says which version serves (`serving.py`). MLflow follows: there the version in service carries the
alias `champion`, the newest one that was not promoted `challenger`, and the tag `promoted` of the registered model
holds the stack of numbers that led to the champion. Where MLflow does not answer it is told later. Who sets or removes
the alias in MLflow, or deletes a version there, has acted like one who used yoloop.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from model_registry.memory import Memory
from model_registry.serving import (
    BY_HAND,
    DELETED,
    PERSON,
    PROMOTED,
    ROLLED_BACK,
    TRAINING,
    UNSET,
    Act,
    Brief,
    Serving,
)
from model_registry.sqlite_file import alias_in_file, aliases_in_file, path_of
from model_registry.version import ACT, DECIDED_BY, DECISION, REASON, SINCE, Version
from model_registry.versions import ABSENT, RegistryError, Versions, log

CHAMPION = "champion"
CHALLENGER = "challenger"
STACK = "promoted"

BY_TRAINING = "by its training"
IN_MLFLOW = "the alias champion was set in MLflow"


class Registry(Versions):
    """The registry of one installation, see `Versions`."""

    def open(self) -> None:
        """Import MLflow and make its schema now, a matter of seconds, rather than in the first request."""
        self.champion_number("none")

    def register(self, model: str, *given: Any, **named: Any) -> Version:
        self.serving(model)  # what an earlier release left is taken over before anything is new
        return super().register(model, *given, **named)

    register.__doc__ = Versions.register.__doc__

    def versions(self, model: str) -> list[Version]:
        """All versions of a model, newest first; empty for a model that has none."""
        found = super().versions(model)
        if not found:
            return []
        serving = self.serving(model)  # last: what was promoted is then seen in service
        return [_told(each, serving) for each in found]

    def version(self, model: str, number: int) -> Version:
        """One version. Raises RegistryError when there is none of that number."""
        return _told(super().version(model, number), self.serving(model))

    def serving(self, model: str) -> Serving:
        """What serves for a model, and how it came to that. What an earlier release left in MLflow is taken over."""
        known = self._rows.get(model)
        if known is not None and (self._rows.shared or known.mirrored < known.sequence):
            return known
        found = self._in_mlflow(model)
        if found is None:
            return Serving()
        if known is not None and found == replace(known, sequence=0, mirrored=0):
            return known
        self._rows.replace(model, 0 if known is None else known.sequence, found, mirrored=True)
        return self._rows.get(model) or found

    def champion_number(self, model: str) -> int | None:
        """Number of the version in service; None: no trained one."""
        return self.serving(model).number

    def champion(self, model: str) -> Version | None:
        """The version in service. One that is not in MLflow any more is followed by the one before it."""
        number = self.champion_number(model)
        try:
            return None if number is None else self.version(model, number)
        except RegistryError:
            self._follow(model, self.serving(model).sequence, None)
        number = self.champion_number(model)
        return None if number is None else self.version(model, number)

    def name_in_service(self, model: str) -> str | None:
        """Name of the version in service, such as `v3`; None: there is none.

        Asks the database; before it knows, MLflow's file without MLflow, as its import takes a second, and without
        making anything that is not there.
        """
        if (known := self._rows.get(model)) is not None and self._rows.shared:
            number = known.number
        else:
            number = alias_in_file(path_of(self._uri), model, CHAMPION) if self.in_file else self.champion_number(model)
        return None if number is None else f"v{number}"

    def trouble_in_mlflow(self, model: str) -> str:
        """What was done in MLflow that took the version in service away; empty: nothing."""
        known = self._rows.get(model)
        return known.reason if known is not None and known.what in (DELETED, UNSET) else ""

    def served_before(self, model: str) -> list[int]:
        """Numbers of the versions that led to the one in service, the last one first; that one is not among them."""
        return list(self.serving(model).before)

    def rolled_back(self, model: str) -> frozenset[int]:
        """Numbers of the versions that a person took out of service and nobody put back."""
        return self.serving(model).rolled_back

    def eligible(self, model: str) -> list[int]:
        """Numbers of the versions that serve or served, that nobody rolled back or deleted: the newest promotion first.

        A new version may be compared with each of them.
        """
        serving, existing = self.serving(model), self._existing(model)
        return [number for number in dict.fromkeys(reversed(serving.stack)) if number in existing]

    def numbers(self) -> dict[str, int | None] | None:
        """Model → number of its version in service, of all models that the database knows: one cheap question.

        None where there is no database.
        """
        return {model: each.number for model, each in self._rows.all().items()} if self._rows.shared else None

    def look(self) -> dict[str, int]:
        """Compare what serves with what MLflow says, all models in one question to each, and set right what differs.

        Takes over what an earlier release left there, tells MLflow what it could not be told, and follows what was
        done there. Returns model → number of its version in service. Raises what a server that is away raises.
        """
        known = self._rows.all() if self._rows.shared else {}
        aliases = self.aliases()  # after the database: what changed since is then seen there
        for model in dict.fromkeys((*known, *aliases)):
            brief = known.get(model)
            if brief is None:
                self.serving(model)
            elif brief.mirrored < brief.sequence:
                self._mirror(model)
            elif brief.number != aliases.get(model):
                self._follow(model, brief.sequence, aliases.get(model))
        found = self._rows.all() if self._rows.shared else {name: Brief(each, 0, 0) for name, each in aliases.items()}
        return {model: each.number for model, each in found.items() if each.number is not None}

    def aliases(self) -> dict[str, int]:
        """Model → number that its alias `champion` names in MLflow, of all models in one question."""
        if self.in_file:
            return aliases_in_file(path_of(self._uri), CHAMPION)
        found: dict[str, int] = {}
        token = None
        while True:
            page = self._client.search_registered_models(max_results=1000, page_token=token)
            found |= {each.name: int(each.aliases[CHAMPION]) for each in page if CHAMPION in each.aliases}
            token = page.token
            if not token:
                return found

    def promote(self, model: str, number: int, reason: str, by: str = TRAINING) -> Version:
        """Put a version in service, whatever serves. Repeating it changes nothing.

        Args:
            reason: what the training measured; of a person, why.
            by: TRAINING or PERSON. What was measured stays known whatever a person does.

        While MLflow does not answer, a version whose weights are on this machine can be promoted by a person; of
        another one a RegistryError says so.
        """
        version = self.version(model, number) if by == TRAINING else self._usable(model, number)
        if by == TRAINING:
            self._client.set_model_version_tag(model, str(number), REASON, reason)
        serving = self._change(model, lambda seen: seen.promoted(number, by, reason, time.time()))
        return self._now(version, serving)

    def promote_candidate(
        self, model: str, number: int, reason: str, *, expected: int | None, job: str = ""
    ) -> Serving | None:
        """Put a version in service that was compared with the one that serves; repeating it changes nothing.

        Args:
            expected: number of the version that it was compared with; None: none served.
            job: the training, which must not have been cancelled.

        Returns None when it serves; else what serves by somebody's act meanwhile, which stays. What was promoted once
        and taken out of service is not promoted again. Raises CancelledMeanwhile.
        """
        self.version(model, number)
        self._client.set_model_version_tag(model, str(number), REASON, reason)
        self._heed(model)
        while True:
            seen = self.serving(model)
            if seen.number == number:
                break
            if seen.number != expected or number in seen.acts:
                return seen
            wanted = seen.promoted(number, TRAINING, reason, time.time())
            if self._rows.replace(model, seen.sequence, wanted, job=job):
                break
        self._mirror(model)
        return None

    def reject(self, model: str, number: int, reason: str) -> Version:
        """Keep a version, but not in service. Where a person has put it there meanwhile, it stays."""
        self._heed(model)
        client, serving = self._client, self.serving(model)
        if number not in serving.acts:
            client.set_model_version_tag(model, str(number), DECISION, "rejected")
        client.set_model_version_tag(model, str(number), REASON, reason)
        if serving.number != number:
            client.set_registered_model_alias(model, CHALLENGER, str(number))
        return self.version(model, number)

    def rollback(self, model: str, by: str = PERSON) -> Version | None:
        """Put the version in service that served before the present one and is still there.

        Returns None when that was before any training. Raises RegistryError when nothing serves, and when MLflow does
        not answer and the weights of that version are not on this machine.
        """
        try:
            self._heed(model)
            existing, away = self._existing(model), False
        except Exception as error:
            log.warning("MLflow does not answer (%s): the rollback goes by what is on this machine", _short(error))
            existing, away = frozenset[int](), True
        target: list[Version] = []

        def back(seen: Serving) -> Serving:
            if seen.number is None:
                raise RegistryError("No trained version is in service, so there is nothing to roll back.")
            wanted = seen.left(by, time.time(), lambda number: away or number in existing)
            target[:] = [] if wanted.number is None else [self._usable(model, wanted.number)]
            return wanted

        serving = self._change(model, back, mirror=not away)
        return self._now(target[0], serving) if target else None

    def _change(self, model: str, act: Callable[[Serving], Serving], *, mirror: bool = True) -> Serving:
        """Act on what serves, once more if somebody else acted meanwhile, and tell MLflow."""
        while True:
            try:
                seen = self.serving(model)
            except Exception as error:
                raise RegistryError(
                    "MLflow does not answer, and it was never asked what serves here. Try again when it answers."
                ) from error
            wanted = act(seen)
            if wanted == seen or self._rows.replace(model, seen.sequence, wanted):
                break
        if mirror:
            self._mirror(model)
        return wanted

    def _usable(self, model: str, number: int) -> Version:
        """A version that can serve: one that MLflow knows, or, while it does not answer, one whose weights are here."""
        try:
            return self.version(model, number)
        except RegistryError:
            raise
        except Exception as error:
            known = Memory(self.copies).read(model)
            version = None if known is None else known.versions.get(number)
            weights = [] if version is None else [name for name in version.hashes if name.endswith(".pt")]
            if version is None or not weights or any(self.copy_of(version, name) is None for name in weights):
                raise RegistryError(
                    f"MLflow does not answer, and the weights of v{number} are not on this machine. Nothing was "
                    "changed; try again when MLflow answers."
                ) from error
            log.warning("MLflow does not answer (%s); v%d serves from its files here", _short(error), number)
            return version

    def _now(self, version: Version, serving: Serving) -> Version:
        """A version as it is after an act, read again where MLflow answers."""
        with contextlib.suppress(Exception):
            return self.version(version.model, version.number)
        return _told(version, serving)

    def _existing(self, model: str) -> frozenset[int]:
        """Numbers of the versions that MLflow has."""
        return frozenset(_number_of(each) for each in self._search(model))

    def _search(self, model: str) -> list[Any]:
        client = self._client  # before any import of MLflow, which reads its settings then
        from mlflow.exceptions import MlflowException

        try:
            return list(client.search_model_versions(f"name = '{model}'", max_results=10_000))
        except MlflowException as error:
            if error.error_code in ABSENT:
                return []
            raise

    def _registered(self, model: str) -> Any:
        """MLflow's registered model, or None."""
        client = self._client  # before any import of MLflow, which reads its settings then
        from mlflow.exceptions import MlflowException

        try:
            return client.get_registered_model(model)
        except MlflowException as error:
            if error.error_code in ABSENT:
                return None
            raise

    def _in_mlflow(self, model: str) -> Serving | None:
        """What MLflow alone says of a model: its alias, its stack and the tags of its versions. None: it has none."""
        registered = self._registered(model)
        if registered is None:
            return None
        tags = {_number_of(each): each.tags for each in self._search(model)}
        alias = registered.aliases.get(CHAMPION)
        number = None if alias is None else int(alias)
        stack = [int(each) for each in json.loads(registered.tags.get(STACK, "[]"))]
        if number is not None and stack[-1:] != [number]:
            stack.append(number)
        acts = {
            each: _act_of(tags[each])
            for each in sorted(tags, key=lambda one: (float(tags[one].get(SINCE, 0)), one))
            if tags[each].get(DECISION) in (PROMOTED, ROLLED_BACK)
        }
        highest = max(*tags, self._rows.highest(model), 0) if tags else self._rows.highest(model)
        last = acts.get(number or 0)
        made = Serving(number=number, stack=tuple(stack), acts=acts, highest=highest)
        return made if last is None else replace(made, what=last.what, by=last.by, at=last.at, reason=last.reason)

    def _mirror(self, model: str) -> None:
        try:
            self._rows.mirror(model, partial(self._write, model))
        except Exception as error:
            log.warning("MLflow could not be told what serves for %s; it is told later: %s", model, _short(error))

    def _write(self, model: str, serving: Serving) -> None:
        """Tell MLflow what serves. Safe to repeat."""
        registered = self._registered(model)
        if registered is None:
            return
        client, tags = self._client, {_number_of(each): each.tags for each in self._search(model)}
        if serving.number in tags:
            client.set_model_version_tag(model, str(serving.number), SINCE, str(serving.at))
        client.set_registered_model_tag(model, STACK, json.dumps(list(serving.stack)))
        if serving.number in tags:
            client.set_registered_model_alias(model, CHAMPION, str(serving.number))
        elif CHAMPION in registered.aliases:
            client.delete_registered_model_alias(model, CHAMPION)
        # Told last: whoever reads that a version was promoted finds it in service.
        for number, act in serving.acts.items():
            for name, text in _tags_of(act).items() if number in tags else ():
                if tags[number].get(name) != text:
                    client.set_model_version_tag(model, str(number), name, text)
        if str(registered.aliases.get(CHALLENGER, "")) == str(serving.number):  # a file gives a number, a server text
            client.delete_registered_model_alias(model, CHALLENGER)

    def _heed(self, model: str) -> None:
        """Follow what was done in MLflow to one model since the last look: an act here must not take that back."""
        known = self._rows.get(model)
        if known is None or not self._rows.shared or known.mirrored < known.sequence:
            return
        registered = self._registered(model)
        alias = None if registered is None else registered.aliases.get(CHAMPION)
        number = None if alias is None else int(alias)
        if number != known.number:
            self._follow(model, known.sequence, number)

    def _follow(self, model: str, sequence: int, alias: int | None) -> None:
        """Take over what was done in MLflow, unless something else was done here meanwhile.

        Args:
            sequence: of what served when MLflow was asked.
            alias: number of the version that the alias `champion` names there.
        """
        seen = self._rows.get(model)
        if seen is None or seen.sequence != sequence:
            return
        existing = self._existing(model)
        if alias is not None and alias in existing:
            wanted, mirrored = seen.promoted(alias, PERSON, IN_MLFLOW, time.time()), True
        elif seen.number is None:
            return
        elif seen.number in existing:
            wanted, mirrored = seen.unset(time.time()), True
        else:
            wanted, mirrored = seen.without(existing, time.time()), False
        if self._rows.replace(model, sequence, wanted, mirrored=mirrored):
            log.warning("%s: %s, so %s serves", model, wanted.reason, wanted.name.rstrip(","))
            self._mirror(model)


def _number_of(found: Any) -> int:
    return int(found.version)


def _act_of(tags: Mapping[str, str]) -> Act:
    """What the tags of a version tell of the last act on it; releases until 0.8 wrote a person's into the reason."""
    by_hand = tags.get(DECISION) == ROLLED_BACK or tags.get(REASON) == BY_HAND[PROMOTED]
    by = tags.get(DECIDED_BY, PERSON if by_hand else TRAINING)
    reason = tags.get(ACT, BY_HAND[tags[DECISION]]) if by == PERSON else tags.get(REASON, "")
    return Act(tags[DECISION], by, float(tags.get(SINCE, 0)), reason)


def _tags_of(act: Act) -> dict[str, str]:
    return {DECIDED_BY: act.by, ACT: act.reason if act.by == PERSON else BY_TRAINING, DECISION: act.what}


def _told(version: Version, serving: Serving) -> Version:
    """A version as the database tells of it, whatever MLflow could be told."""
    tags, act, champion = dict(version.tags), serving.acts.get(version.number), version.number == serving.number
    if act is not None:
        tags |= _tags_of(act)
    if champion and serving.at:
        tags[SINCE] = str(serving.at)
    return replace(version, tags=tags, champion=champion)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
