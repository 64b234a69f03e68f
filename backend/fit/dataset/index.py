"""What a dataset's folder holds, task by task and picture by picture, so that a training writes only what changed.

A SQLite file in the folder that it speaks of. A task is marked as unfinished before its files are touched and finished
once they are written: what a crash interrupted is written anew.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.labels.geometry import ImageSize
from backend.store.ledger import Teaching

FILE = "index.db"

IMAGES = "images"
"""Folder of the images; the other folders are the networks'."""

SIDES = ("train", "holdout")
SUFFIXES = ("jpg", "png")

LONGEST = 500
"""Characters of an image's key that the manifest tells."""

_TABLES = """
CREATE TABLE IF NOT EXISTS layout (value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tasks (
  task INTEGER PRIMARY KEY,
  annotation INTEGER NOT NULL,
  content TEXT NOT NULL,  -- empty: unfinished
  turned TEXT NOT NULL,   -- names of the controls with turned boxes, as JSON
  result TEXT NOT NULL,   -- as JSON, of tasks with a held-out picture
  left_out TEXT NOT NULL DEFAULT '{}'  -- key of a network → why it does not learn from the task, as JSON
);
CREATE TABLE IF NOT EXISTS pictures (
  stem TEXT PRIMARY KEY,
  task INTEGER NOT NULL,
  data_key TEXT NOT NULL,
  page INTEGER NOT NULL,
  told TEXT NOT NULL      -- what the manifest says of it, as JSON
);
CREATE INDEX IF NOT EXISTS pictures_in_order ON pictures (task, data_key, page);
CREATE TABLE IF NOT EXISTS lessons (  -- what a network sees, in the order in which it is listed
  network INTEGER NOT NULL,
  held_out INTEGER NOT NULL,
  task INTEGER NOT NULL,
  data_key TEXT NOT NULL,
  page INTEGER NOT NULL,
  file TEXT NOT NULL,
  width INTEGER NOT NULL,
  height INTEGER NOT NULL,
  objects INTEGER NOT NULL,
  classes TEXT NOT NULL,  -- of the objects, as JSON
  drawn TEXT NOT NULL,    -- names of the controls that they were drawn with, as JSON
  PRIMARY KEY (network, held_out, task, data_key, page)
) WITHOUT ROWID;
"""

# The database puts texts of many pictures together in a third of the time that it takes here.
_PATHS = """
SELECT group_concat(? || file, char(10)) FROM (
  SELECT file FROM lessons WHERE network = ? AND held_out = ? ORDER BY task, data_key, page
)
"""
_SIZES = """
SELECT task, data_key, page, width, height, annotation, content FROM lessons JOIN tasks USING (task)
"""
_CLASSES = """
SELECT group_concat(
  '{"image": ' || json_quote(? || file) || ', "classes": ' || classes
  || ', "held_out": ' || iif(held_out, 'true', 'false') || '}'
) FROM (SELECT * FROM lessons WHERE network = ? AND held_out = ? ORDER BY task, data_key, page)
"""
_JUDGED = """
SELECT group_concat(
  '{"image": ' || json_quote(? || file) || ', "page": ' || page || ', "data_key": ' || json_quote(data_key)
  || ', "classes": ' || classes || ', "result": ' || result || '}', ',' || char(10)
) FROM (
  SELECT file, page, data_key, classes, result FROM lessons CROSS JOIN tasks USING (task)
  WHERE network = ? AND held_out ORDER BY task, data_key, page
)
"""
_NAMED = "INSERT INTO pictures VALUES (?, ?, '', 0, '') ON CONFLICT DO NOTHING"
_MANIFEST = """
SELECT group_concat(told, ',' || char(10)) FROM (SELECT told FROM pictures ORDER BY task, data_key, page)
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a picture shows to one network: its objects' classes, and the names of the controls they were drawn with."""

    classes: Sequence[int]
    drawn: Collection[str]


@dataclass(frozen=True, slots=True)
class Row:
    """One picture of a task, once its files are written.

    Attributes:
        data_key, page: its field in the task's data, and which of the field's images it is.
        key: names its image for the split.
        file: name of its image's file; empty, with `size` None: it could not be read.
        shown: number of a network → what it shows to that one.
    """

    task: int
    stem: str
    data_key: str
    page: int
    key: str
    held_out: bool
    file: str = ""
    size: ImageSize | None = None
    shown: Mapping[int, Shown] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """One task, once its files are written.

    Attributes:
        unreadable: why one of its images could not be read; then the task stays unfinished: it is tried again.
        turned: names of the controls with turned boxes.
        result: the annotation's, where a picture of the task is held out.
        left_out: key of a network → why it does not learn from the task.
    """

    teaching: Teaching
    turned: Collection[str]
    unreadable: str = ""
    result: Sequence[Mapping[str, Any]] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class About:
    """What is known of all pictures of a network.

    Attributes:
        train, holdout: how many teach and how many judge.
        sizes: width and height of each, in pixels.
        objects: their number.
        most: that of the picture with the most of them.
        drawn: names of the controls that objects were drawn with.
    """

    train: int
    holdout: int
    sizes: list[tuple[int, int]]
    objects: int
    most: int
    drawn: set[str]


class Index:
    """The index of one folder.

    Raises sqlite3.DatabaseError when its file is not one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._db = sqlite3.connect(folder / FILE, isolation_level=None)
        try:
            self._db.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {_TABLES}")
        except sqlite3.DatabaseError:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    @property
    def layout(self) -> str:
        """What all of its files depend on, besides the tasks."""
        row = self._db.execute("SELECT value FROM layout").fetchone()
        return "" if row is None else str(row[0])

    def reset(self, layout: str) -> None:
        """Drop everything, files included. Tables are made anew: those of an earlier release may have other columns."""
        with self._write():
            for (table,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                self._db.execute(f'DROP TABLE "{table}"')
        self._db.executescript(_TABLES)
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        self._db.execute("INSERT INTO layout VALUES (?)", (layout,))

    def tasks(self) -> dict[int, Teaching]:
        """`Teaching` of what was written of each task; without content, its files may be wrong or missing."""
        rows = self._db.execute("SELECT task, annotation, content FROM tasks").fetchall()
        return {task: (annotation, content) for task, annotation, content in rows}

    def turned(self, apart_from: Collection[int]) -> set[str]:
        """Names of the controls of which a task, apart from some, holds a turned box."""
        rows = self._db.execute("SELECT task, turned FROM tasks WHERE turned != '[]'")
        return {name for task, names in rows if task not in apart_from for name in json.loads(names)}

    def begin(self, tasks: Mapping[int, Sequence[str]], gone: Collection[int]) -> None:
        """Mark tasks as unfinished and remove the files that they, and those `gone`, had.

        Args:
            tasks: task → stems of the files that are about to be written for it.
        """
        dropped = {*tasks, *gone}
        had = [
            stem for task in dropped for stem in self._db.execute("SELECT stem FROM pictures WHERE task = ?", (task,))
        ]
        # With their names known beforehand, a crash in the middle of writing leaves no file that is not found again.
        new = [(stem, task) for task, stems in tasks.items() for stem in stems]
        with self._write():
            self._db.executemany(
                "INSERT INTO tasks VALUES (?, 0, '', '[]', '', '{}') ON CONFLICT DO UPDATE SET content = ''",
                ((task,) for task in dropped),
            )
            self._db.executemany(_NAMED, new)
        self._remove(stem for (stem,) in had)
        with self._write():
            sides = list(self._db.execute("SELECT DISTINCT network, held_out FROM lessons"))
            self._db.executemany(
                "DELETE FROM lessons WHERE network = ? AND held_out = ? AND task = ?",
                ((*side, task) for side in sides for task in dropped),
            )
            self._db.executemany("DELETE FROM pictures WHERE stem = ?", had)
            self._db.executemany("DELETE FROM tasks WHERE task = ?", ((task,) for task in gone))
            self._db.executemany(_NAMED, new)

    def finish(self, rows: Iterable[Row], tasks: Mapping[int, Written]) -> None:
        """Note what was written, all at once."""
        with self._write():
            for row in rows:
                place = row.task, row.data_key, row.page
                self._db.execute(
                    "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)",
                    (row.stem, *place, json.dumps(_told(row, tasks[row.task]))),
                )
                size = () if row.size is None else (row.size.width, row.size.height)
                self._db.executemany(
                    "INSERT OR REPLACE INTO lessons VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        (network, row.held_out, *place, row.file, *size, *_about(each))
                        for network, each in row.shown.items()
                    ),
                )
            self._db.executemany(
                "INSERT OR REPLACE INTO tasks VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (
                        task,
                        each.teaching[0],
                        "" if each.unreadable else each.teaching[1],
                        _list(each.turned),
                        json.dumps(list(each.result)),
                        json.dumps(dict(each.left_out)),
                    )
                    for task, each in tasks.items()
                ),
            )

    def count(self) -> int:
        """Pictures of all tasks, those that could not be read too."""
        return int(self._db.execute("SELECT count(*) FROM pictures").fetchone()[0])

    def left_out(self) -> dict[int, str]:
        """Task → why no network learns from it, of those from which one could not."""
        rows = self._db.execute(
            "SELECT task, left_out FROM tasks WHERE left_out != '{}' AND task NOT IN (SELECT task FROM lessons)"
            " ORDER BY task"
        )
        return {task: next(iter(json.loads(reasons).values())) for task, reasons in rows}

    def sides(self) -> dict[int, bool]:
        """Task → whether one of its pictures judges, of all from which some network learns or by which it is judged."""
        rows = self._db.execute("SELECT task, max(held_out) FROM lessons GROUP BY task")
        return {task: bool(held_out) for task, held_out in rows}

    def about(self, network: int) -> About:
        """All pictures of a network taken together."""
        here = (network,)
        sides = self._db.execute(
            "SELECT held_out, count(*), sum(objects), max(objects) FROM lessons WHERE network = ? GROUP BY held_out",
            here,
        ).fetchall()
        count = {held_out: each for held_out, each, _, _ in sides}
        drawn = self._db.execute("SELECT DISTINCT drawn FROM lessons WHERE network = ?", here)
        return About(
            count.get(False, 0),
            count.get(True, 0),
            self._db.execute("SELECT width, height FROM lessons WHERE network = ?", here).fetchall(),
            sum(objects for _, _, objects, _ in sides),
            max((most for _, _, _, most in sides), default=0),
            {name for (names,) in drawn for name in json.loads(names)},
        )

    def paths(self, network: int, before: str, *, held_out: bool) -> str:
        """Of the pictures of one side, `before` with the file's name, one a line, in the order of tasks."""
        return self._text(_PATHS, before, network, held_out)

    def classes(self, network: int, before: str, *, held_out: bool) -> str:
        """As `paths`, a JSON array: each `image`, the `classes` of its objects, and `held_out`."""
        return f"[{self._text(_CLASSES, before, network, held_out)}]"

    def judged(self, network: int, before: str) -> str:
        """The held-out pictures, a JSON array with a line for each: its `image`, its `page` and `data_key` in the task,
        the `classes` of its objects, and the annotation's `result`."""
        return f"[{self._text(_JUDGED, before, network)}]"

    def manifest(self) -> str:
        """What is told of all pictures: JSON objects with commas between, in the order of tasks."""
        return self._text(_MANIFEST)

    def _text(self, statement: str, *given: object) -> str:
        (text,) = self._db.execute(statement, given).fetchone()
        return text or ""

    @contextmanager
    def _write(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _remove(self, stems: Iterable[str]) -> None:
        """Remove all files of pictures, wherever an interrupted training may have put them."""
        networks = [path for path in self.folder.iterdir() if path.is_dir() and path.name != IMAGES]
        for stem in stems:
            names = [f"{stem}.{suffix}" for suffix in SUFFIXES]
            found = [self.folder / IMAGES / name for name in names]
            for network in networks:
                for side in SIDES:
                    found += [network / "images" / side / name for name in names]
                    found.append(network / "labels" / side / f"{stem}.txt")
            for path in found:
                path.unlink(missing_ok=True)


def sizes_in(folder: Path, teaching: Mapping[int, Teaching]) -> dict[tuple[int, str, int], ImageSize]:
    """Task, data key and page → size of the image, of those that the index of a folder knows; nothing is written.

    Args:
        teaching: the tasks that are asked for; of those that have changed since nothing is told.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    # Nobody writes where there is no log; reading as if somebody could would make one.
    how = "mode=ro" if path.with_name(f"{FILE}-wal").exists() else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)) as db:
            rows = db.execute(_SIZES).fetchall()
    except sqlite3.DatabaseError:
        return {}
    return {
        (task, key, page): ImageSize(width=width, height=height)
        for task, key, page, width, height, annotation, content in rows
        if teaching.get(task) == (annotation, content)
    }


def _told(row: Row, written: Written) -> dict[str, Any]:
    annotation, content = written.teaching
    return {
        "task": row.task,
        "annotation": annotation,
        "content": content,
        "image": row.key[:LONGEST],
        "page": row.page,
        "side": SIDES[row.held_out],
        "unreadable": written.unreadable,
        "left_out": dict(written.left_out),
    }


def _about(shown: Shown) -> tuple[int, str, str]:
    return len(shown.classes), json.dumps(list(shown.classes)), _list(shown.drawn)


def _list(names: Iterable[str]) -> str:
    return json.dumps(sorted(names))
