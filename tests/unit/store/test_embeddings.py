from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.store.database import Store
from backend.store.embeddings import Embeddings

UID = "1.100"


@pytest.fixture
def embeddings(tmp_path: Path) -> Embeddings:
    return Embeddings(Store(f"sqlite:///{tmp_path / 'yoloop.db'}"))


def test_what_was_saved_comes_back(embeddings: Embeddings) -> None:
    rows = np.eye(3, dtype=np.float32)
    embeddings.save(UID, "v1", dict(enumerate(rows)))
    embeddings.save(UID, "v1", {})
    assert sorted(embeddings.of(UID, "v1", frozenset(), 3).tolist()) == sorted(rows.tolist())
    assert embeddings.of(UID, "v1", frozenset({0, 2}), 3).tolist() == [[0, 1, 0]]


def test_versions_projects_and_sizes_do_not_mix(embeddings: Embeddings) -> None:
    embeddings.save(UID, "v1", {1: np.ones(3, np.float32), 2: np.ones(4, np.float32)})
    assert embeddings.of(UID, "v1", frozenset(), 3).shape == (1, 3)
    assert embeddings.of(UID, "v2", frozenset(), 3).shape == (0, 3)
    assert embeddings.of("2.100", "v1", frozenset(), 3).shape == (0, 3)


def test_a_task_counts_for_the_version_that_looked_last(embeddings: Embeddings) -> None:
    embeddings.save(UID, "v1", {1: np.ones(3, np.float32)})
    embeddings.save(UID, "v2", {1: np.zeros(3, np.float32)})
    assert embeddings.of(UID, "v1", frozenset(), 3).shape == (0, 3)
    assert embeddings.of(UID, "v2", frozenset(), 3).tolist() == [[0, 0, 0]]
