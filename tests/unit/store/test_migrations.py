"""Databases as earlier releases left them, in `tests/databases`: each was made by that release's own code."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from backend.errors import YoloopError
from backend.fit.dataset.until_0_7 import old_image_name, was_held_out
from backend.images.addresses import embedded
from backend.store.contents import content_hash
from backend.store.database import Store
from backend.store.hints import Hint
from backend.store.jobs import Jobs
from backend.store.ledger import Ledger
from backend.store.migrations import HEAD, VERSION_TABLE, revision_of
from backend.store.refreshes import Refreshes
from backend.store.tables import ledger, metadata, thumbnails

RELEASES = sorted((Path(__file__).parents[2] / "databases").glob("*.sql"))
UID = "7.1795453273"

Rows = dict[str, list[dict[str, Any]]]


def left_by(release: Path, path: Path) -> str:
    """The database of a release; its URL."""
    with sqlite3.connect(path) as db:
        db.executescript(release.read_text())
    db.close()
    return f"sqlite:///{path}"


def rows(path: Path) -> Rows:
    db = sqlite3.connect(path)
    db.row_factory = sqlite3.Row
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {name: [dict(row) for row in db.execute(f'SELECT * FROM "{name}"')] for name in tables}  # noqa: S608
    db.close()
    return found


def alembic_config(**options: Any) -> Config:
    config = Config(**options)
    config.set_main_option("script_location", "backend.store:migrations")
    return config


def test_every_release_is_here() -> None:
    assert [path.stem for path in RELEASES] == ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.1"]


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
class TestUpgrades:
    def test_no_row_and_no_column_is_lost(self, release: Path, tmp_path: Path) -> None:
        path = tmp_path / "yoloop.db"
        url = left_by(release, path)
        before = rows(path)
        assert sum(map(len, before.values())) > 10
        Store(url).close()
        after = rows(path)
        for table, kept in before.items():
            assert [{name: row[name] for name in old} for old, row in zip(kept, after[table], strict=True)] == kept

    def test_it_is_as_if_made_anew(self, release: Path, tmp_path: Path) -> None:
        store = Store(left_by(release, tmp_path / "yoloop.db"))
        with store.engine.connect() as db:
            assert revision_of(db) == HEAD
            assert compare_metadata(MigrationContext.configure(db), metadata) == []
        store.close()

    def test_what_it_says_is_read(self, release: Path, tmp_path: Path) -> None:
        store = Store(left_by(release, tmp_path / "yoloop.db"))
        (project,) = store.projects()
        assert (project.uid, project.title, project.cursor) == (UID, "Discs", 1795453300.5)
        assert project.active_learning is False
        assert store.hints() == [Hint(UID, 1795453302.0, 1795453303.0, 2, True)]
        examples = Ledger(store).examples(UID)
        assert [(each.task_id, each.annotation_id) for each in examples] == [(1, 11), (2, 12)]
        assert Ledger(store).counts(UID) == (2, 1)
        (running,) = Jobs(store).unfinished()
        assert (running.id, running.status, running.epoch) == ("b" * 32, "running", 3)
        refresh = Refreshes(store).get(UID)
        assert refresh is not None and refresh.version == "v1"
        store.close()

    def test_a_second_start_changes_nothing(self, release: Path, tmp_path: Path) -> None:
        url = left_by(release, tmp_path / "yoloop.db")
        Store(url).close()
        first = rows(tmp_path / "yoloop.db")
        Store(url).close()
        assert rows(tmp_path / "yoloop.db") == first

    def test_a_step_that_fails_leaves_it_as_it_was(
        self, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "yoloop.db"
        url = left_by(release, path)
        before = rows(path)

        def full(*_: Any, **__: Any) -> None:
            raise OSError("No space left on device")

        with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
            patched.setattr("alembic.runtime.migration.HeadMaintainer.update_to_step", full)
            Store(url)
        assert rows(path) == before
        Store(url).close()
        assert {row["version_num"] for row in rows(path)[VERSION_TABLE.name]} == {HEAD}


def test_a_later_release_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "yoloop.db"
    url = f"sqlite:///{path}"
    store = Store(url)
    store.save_project(UID, title="Discs")
    with store.write() as db:
        db.execute(VERSION_TABLE.update().values(version_num="later"))
    store.close()
    before = rows(path)
    with pytest.raises(YoloopError, match=r"of a later release.*Install that release again"):
        Store(url)
    assert rows(path) == before


def test_who_is_up_to_date_waits_for_no_writer(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'yoloop.db'}"
    store = Store(url)
    with store.write():
        Store(url).close()
    store.close()


def test_the_last_step_is_known() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [HEAD]


def test_a_new_database_is_as_the_steps_make_it(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'stepwise.db'}")
    config = alembic_config()
    with engine.begin() as db:
        config.attributes["connection"] = db
        command.upgrade(config, "head")
        assert compare_metadata(MigrationContext.configure(db), metadata) == []
    engine.dispose()


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_postgres_could_make_the_tables(table: sa.Table) -> None:
    assert str(CreateTable(table).compile(dialect=postgresql.dialect())).strip().startswith("CREATE TABLE")
    for index in table.indexes:
        made = str(CreateIndex(index).compile(dialect=postgresql.dialect()))
        assert ("WHERE finished_at IS NULL" in made) is (index.name == "one_unfinished_job")


def test_postgres_could_take_the_steps() -> None:
    said = io.StringIO()
    command.upgrade(alembic_config(output_buffer=said), "head", sql=True)
    made = said.getvalue()
    for table in metadata.tables:
        assert f"CREATE TABLE {table} " in made
    assert "WHERE finished_at IS NULL" in made


def test_of_the_tokens_of_one_label_studio_the_one_that_worked_last_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "yoloop.db"
    url = left_by(RELEASES[-1], path)
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM projects")
        db.executemany(
            "INSERT INTO projects (uid, url, api_key, synced_at, sync_error) VALUES (?, ?, ?, ?, ?)",
            [
                ("1.1", "http://studio", "old", 10.0, ""),
                ("2.1", "http://studio", "good", 20.0, ""),
                ("3.1", "http://studio", "revoked", 30.0, "Label Studio does not accept it."),
                ("4.1", "http://other", "theirs", None, ""),
                ("5.1", "", "nowhere", None, ""),
            ],
        )
    store = Store(url)
    assert store.label_studios() == {"http://other": "theirs", "http://studio": "good"}
    assert [each.api_key for each in store.projects()] == ["good", "good", "good", "theirs", "nowhere"]
    store.close()


def test_embedded_images_of_earlier_releases_leave_the_database(tmp_path: Path) -> None:
    path = tmp_path / "yoloop.db"
    url = left_by(RELEASES[-1], path)
    image = "data:image/png;base64," + "A" * 500_000
    data, result = {"image": image, "text": "data: none"}, [{"id": "r", "type": "rectanglelabels"}]
    text = json.dumps([data, [{"type": "rectanglelabels"}]], sort_keys=True)
    content = hashlib.sha256(text.encode()).hexdigest()
    with sqlite3.connect(path) as db:
        row = "INSERT INTO ledger (uid, task_id, task_created_at, data, annotation_id, result, content, seen)"
        for number, seen in ((101, content), (102, "another")):
            values = (UID, number, 1.0, json.dumps(data), number, json.dumps(result), content, seen)
            db.execute(f"{row} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        db.execute("INSERT INTO thumbnails VALUES (?, ?, ?, ?)", (UID, image, b"x", image))
    store = Store(url)
    with store.engine.connect() as db:
        kept = {row.task_id: row for row in db.execute(ledger.select().where(ledger.c.task_id > 100))}
        (thumbnail,) = db.execute(thumbnails.select().where(thumbnails.c.pixels == b"x")).all()
        assert db.scalar(sa.text("SELECT count(*) FROM ledger WHERE data LIKE '%base64%'")) == 0
    store.close()
    short = {**data, "image": embedded(image)}
    assert {number: (row.data, row.content) for number, row in kept.items()} == dict.fromkeys(
        (101, 102), (short, content_hash(data, result))
    )
    assert (kept[101].seen, kept[102].seen) == (kept[101].content, "another"), "what was learned is no news"
    assert thumbnail.key == thumbnail.group == thumbnail.family == old_image_name(embedded(image))
    old_side = int.from_bytes(hashlib.sha256(image.encode()).digest()[:8]) < 0.5 * 2**64
    assert was_held_out(thumbnail.group, 0.5) is old_side, "no image changes sides"


def test_tasks_with_several_annotations_are_read_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'yoloop.db'}"
    engine = sa.create_engine(url)
    own = alembic_config()
    with engine.begin() as db:
        own.attributes["connection"] = db
        command.upgrade(own, "what_annotations_say")
        for number, count in ((1, 1), (2, 3)):
            values = {"uid": UID, "number": number, "count": count}
            db.execute(
                sa.text(
                    "INSERT INTO ledger (uid, task_id, task_created_at, updated_at, data)"
                    " VALUES (:uid, :number, 1, 5, '{}')"
                ),
                {"uid": UID, "number": number},
            )
            db.execute(
                sa.text(
                    "INSERT INTO readings (uid, task_id, config, labels, problem, used, regions, annotations)"
                    " VALUES (:uid, :number, '', '{}', '', true, 0, :count)"
                ),
                values,
            )
        db.execute(sa.text("INSERT INTO listings (uid, wanted) VALUES (:uid, false)"), {"uid": UID})
    engine.dispose()
    store = Store(url)
    assert Ledger(store).times(UID) == {1: 5.0, 2: None}
    with store.engine.connect() as db:
        assert db.scalar(sa.text("SELECT wanted FROM listings"))
    store.close()
