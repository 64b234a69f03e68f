"""Which tests run together, in which order, and what each kind needs.

Tests of a module run in one worker, one after another. The mark `group` keeps tests together that share servers, or
sets a module's tests apart that do not; a group owns its ports, homes and Label Studio. Marks and fixtures choose,
never the place of a file.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

MARKS = (
    "group(name, minutes): runs in one worker with all tests of this name; `minutes` is about what they take alone on "
    "two cores: groups that take long begin first",
    "training: trains or exports a network for real, or starts the process that does; for tests outside e2e",
    "slow: takes many seconds of a core without any training, most often as it starts yoloop in processes of its own",
    "e2e: uses a real Label Studio; set by the fixtures that start one",
)

E2E_FIXTURES = {"label_studio_template", "label_studio"}


class GroupScheduling(LoadGroupScheduling):
    """Whole groups go to a worker at once; a test without a group belongs to its module."""

    def _split_scope(self, nodeid: str) -> str:
        group = str(super()._split_scope(nodeid))
        return nodeid.partition("::")[0] if group == nodeid else group

    def remove_node(self, node: WorkerController) -> str | None:
        """A test that ended its worker has failed; it is not tried again, as xdist would. The others of its group are.

        Returns its id, None where the worker had nothing left to do.
        """
        work = self.assigned_work[node]
        ended_by = next((name for tests in work.values() for name, done in tests.items() if not done), None)
        left = {group: tests | {name: True for name in tests if name == ended_by} for group, tests in work.items()}
        # A group without a test to run would be handed out as no work at all.
        self.assigned_work[node] = {group: tests for group, tests in left.items() if not all(tests.values())}
        super().remove_node(node)
        return ended_by

    def _assign_work_unit(self, node: WorkerController) -> None:
        """A worker that died meanwhile cannot hear of its group: `remove_node` takes it back."""
        with suppress(OSError):
            super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        """Hand out groups until the worker knows of two tests, or of the end: it begins a test when it knows the next.

        xdist hands out one, and a worker with a single test waits for ever.
        """
        super()._reschedule(node)
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)


def mark(item: pytest.Item) -> None:
    """Set the marks that follow from other marks and from fixtures."""
    if E2E_FIXTURES & set(getattr(item, "fixturenames", ())):
        item.add_marker("e2e")
    if found := item.get_closest_marker("group"):
        item.add_marker(pytest.mark.xdist_group(found.args[0]))


def arrange(items: list[pytest.Item]) -> None:
    """Put groups that take long first; the order within a group stays."""
    items.sort(key=lambda item: -minutes(item))


def takes_long(item: pytest.Item) -> bool:
    """Whether `--fast` leaves it out."""
    return any(item.get_closest_marker(name) for name in ("e2e", "training", "slow"))


def minutes(item: pytest.Item) -> float:
    """What the item's group takes alone, in minutes; 0 where nobody said."""
    found = item.get_closest_marker("group")
    return float(found.kwargs["minutes"]) if found else 0.0


def without_suffix(nodeid: str) -> str:
    """A test's own id: workers add `@` and the group's name."""
    name, _, group = nodeid.rpartition("@")
    return name if name and "]" not in group else nodeid
