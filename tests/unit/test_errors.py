from __future__ import annotations

import ast
import inspect
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend import errors
from backend.errors import ImageUnavailable, LabelStudioError, NoRoom, YoloopError, unwritable

ROOT = Path(__file__).parents[2]


def tree(root: type[YoloopError] = YoloopError, depth: int = 0) -> Iterator[tuple[type[YoloopError], int]]:
    yield root, depth
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child, depth + 1)


def test_the_docstring_draws_the_tree() -> None:
    drawn = re.findall(r"^    ([│├└─ ]*)(\w+) +(\d{3})?", inspect.getdoc(errors) or "", re.MULTILINE)
    expected = [(depth, each.__name__) for each, depth in tree()]
    assert [(len(lines) // 4, name) for lines, name, _ in drawn] == expected
    statuses = {each.__name__: each.status for each, _ in tree()}
    assert all(statuses[name] == int(status) for _, name, status in drawn if status)


def test_every_error_of_the_module_is_in_the_tree() -> None:
    own = {name for name, each in vars(errors).items() if inspect.isclass(each) and each.__module__ == errors.__name__}
    assert own == {each.__name__ for each, _ in tree()}


def test_what_a_person_reads() -> None:
    assert str(YoloopError("It broke.", "Mend it.")) == "It broke. Mend it."
    assert str(YoloopError("It broke.")) == "It broke."
    error = LabelStudioError("Refused.", "Ask.", reason="token 123 is bad", code=401)
    assert (error.reason, error.code, error.status) == ("token 123 is bad", 401, 502)
    assert "123" not in str(error) + repr(error)


def raised() -> Iterator[tuple[str, ast.Call]]:
    """Every place in the program that makes one of these errors."""
    names = {each.__name__ for each, _ in tree()}
    for path in sorted((ROOT / "backend").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


PLACES = list(raised())


def test_messages_quote_neither_paths_nor_other_errors_nor_secrets() -> None:
    for place, call in PLACES:
        quoted = [node for arg in call.args for node in ast.walk(arg) if isinstance(node, ast.FormattedValue)]
        named = {each.id for value in quoted for each in ast.walk(value) if isinstance(each, ast.Name)}
        bare = {value.value.id for value in quoted if isinstance(value.value, ast.Name)}
        assert not named & {"password", "secret", "token", "api_key", "headers"}, place
        assert not bare & {"path", "folder", "home"}, place
        # Another library's error may hold anything; the labelling config's parser is known to quote places only.
        assert "error" not in bare or place.startswith("backend/labels/document.py"), place


def test_messages_are_sentences() -> None:
    messages = [(place, call.args[0].value) for place, call in PLACES if isinstance(call.args[0], ast.Constant)]
    assert len(messages) > 30
    for place, message in messages:
        assert message[0].isupper() or message[0] in "'\"`<", place
        assert message.endswith("."), place


def test_a_database_on_a_full_disk_says_so(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'full.db'}")
    with engine.connect() as db, pytest.raises(sa.exc.OperationalError) as raised:
        db.exec_driver_sql("CREATE TABLE t (x)")
        db.exec_driver_sql("PRAGMA max_page_count = 3")
        db.exec_driver_sql("INSERT INTO t VALUES (zeroblob(100000))")
    assert unwritable(raised.value) == "the disk is full"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(28, "No space left on device"), "the disk is full"),
        (OSError(122, "Disk quota exceeded"), "the disk's quota is used up"),
        (OSError(30, "Read-only file system"), "the disk is read-only"),
        (
            RuntimeError("PytorchStreamWriter failed writing file data/0"),
            "it cannot be written",
        ),
        (NoRoom("The training was interrupted: the disk is full."), "the disk is full"),
        (OSError(2, "No such file or directory"), ""),
        (sqlite3.OperationalError("no such table: t"), ""),
        (LabelStudioError("It failed.", reason="No space left on device"), ""),
        (LabelStudioError("Label Studio said: No space left on device"), ""),
        (ImageUnavailable("The store said: No space left on device"), ""),
    ],
)
def test_what_an_error_says_of_the_disk(error: Exception, why: str) -> None:
    assert unwritable(error) == why
    try:
        raise ValueError("wrapped") from error
    except ValueError as wrapped:
        assert unwritable(wrapped) == why
