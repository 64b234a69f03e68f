from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backend.fit.triggers import Rules, should_train
from backend.fit.unreadable import try_again
from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.services import Services
from backend.settings import Settings

UID = "1.100"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Car"/></RectangleLabels></View>'
)
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(Settings(home=tmp_path))
    made.store.save_project(UID, label_config=CONFIG)
    yield made
    made.close()


def annotated(services: Services, *tasks: int, image: str = "data:image/gif;base64,broken") -> None:
    for task in tasks:
        annotation = AnnotationRecord(task, [], False, False, NOON, NOON, 1, None, None)
        services.ledger.update(UID, [TaskRecord(task, NOON, NOON, {"image": image}, (annotation,))])


def trains(services: Services) -> bool:
    return should_train(services.ledger.progress(UID), Rules(10), 1e9).train


def learned(services: Services, unreadable: list[int]) -> None:
    """A training that could not read some of all images, as `Training` writes it down."""
    contents = {each.task_id: each.content for each in services.ledger.examples(UID) if each.task_id not in unreadable}
    services.unreadable.failed(UID, dict.fromkeys(unreadable, "It is gone."), 1000.0)
    services.ledger.mark_seen(UID, contents)


def test_what_cannot_be_read_trains_nothing_again(services: Services) -> None:
    annotated(services, *range(1, 51))
    assert trains(services)
    learned(services, list(range(41, 51)))
    assert not trains(services)
    progress = services.ledger.progress(UID)
    assert (progress.labelled, progress.new, services.ledger.counts(UID)) == (40, 0, (40, 0))
    assert [each.reason for each in services.unreadable.all(UID)] == ["It is gone."] * 10
    annotated(services, *range(51, 61))
    assert trains(services)


def test_another_image_is_news(services: Services) -> None:
    annotated(services, 1)
    learned(services, [1])
    annotated(services, 1)
    assert services.ledger.progress(UID).new == 0
    annotated(services, 1, image=PIXEL)
    assert services.ledger.progress(UID).new == 1


def test_they_are_tried_again_by_time(services: Services) -> None:
    annotated(services, 1, 2)
    learned(services, [1, 2])
    annotated(services, 3, image=PIXEL)
    services.unreadable.failed(UID, {3: "The network was away."}, 1000.0)
    try_again(services, UID, 1030.0)
    assert [each.tries for each in services.unreadable.all(UID)] == [1, 1, 1]
    try_again(services, UID, 1061.0)
    assert [(each.task_id, each.tries) for each in services.unreadable.all(UID)] == [(1, 2), (2, 2)]
    assert services.ledger.progress(UID).new == 1
    try_again(services, UID, 1170.0)
    assert [each.tries for each in services.unreadable.all(UID)] == [2, 2], "twice as long after the second time"


def test_they_go_with_their_tasks(services: Services) -> None:
    annotated(services, 1, 2)
    learned(services, [1, 2])
    services.ledger.keep_only(UID, [2])
    assert [each.task_id for each in services.unreadable.all(UID)] == [2]
