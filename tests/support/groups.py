"""Which tests run together, in which order, and what each kind needs.

Tests of a module run in one worker, one after another. The mark `group` keeps tests together that share servers, or
sets a module's tests apart that do not; a group owns its ports, homes and Label Studio. Marks and fixtures choose,
never the place of a file.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

MARKS = (
    "group(name, minutes): runs in one worker with all tests of this name; `minutes` is about what they take alone on "
    "two cores: groups that take long begin first",
    "training: trains a network for real, or starts the process that does; for tests outside e2e",
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
        for tests in self.assigned_work.get(node, {}).values():
            for nodeid, completed in tests.items():
                if not completed:
                    tests[nodeid] = True
                    super().remove_node(node)
                    return nodeid
        super().remove_node(node)
        return None


def mark(item: pytest.Item) -> None:
    """Set the marks that follow from other marks and from fixtures."""
    if E2E_FIXTURES & set(getattr(item, "fixturenames", ())):
        item.add_marker("e2e")
    if found := item.get_closest_marker("group"):
        item.add_marker(pytest.mark.xdist_group(found.args[0]))


def arrange(items: list[pytest.Item]) -> None:
    """Put groups that take long first; the order within a group stays."""
    items.sort(key=lambda item: -minutes(item))


def minutes(item: pytest.Item) -> float:
    """What the item's group takes alone, in minutes; 0 where nobody said."""
    found = item.get_closest_marker("group")
    return float(found.kwargs["minutes"]) if found else 0.0


def without_suffix(nodeid: str) -> str:
    """A test's own id: workers add `@` and the group's name."""
    name, _, group = nodeid.rpartition("@")
    return name if name and "]" not in group else nodeid
