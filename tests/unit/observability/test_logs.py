"""What a line of the log holds, in both forms, and whose ids it carries."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.observability.logs import (
    INHERITED,
    Ids,
    about,
    adopt,
    configure,
    inherited,
    known,
    last_words,
    new_job,
    request_id,
)
from backend.processes import child

log = logging.getLogger("backend.test")

FIELDS = ("time", "level", "logger", "message", "request_id", "job_id", "project")


class Said:
    """What was written since the last look."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def text(self) -> str:
        return self._capsys.readouterr().err

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def said(own_logging: None, capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


def test_a_line_of_text_is_for_people(said: Said) -> None:
    configure("INFO", "serve")
    log.info("Nothing in particular")
    with about(request_id="r1", project="7.1"):
        log.warning("%s went wrong", "It")
    plain, named = said.text().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d serve   INFO    Nothing in particular", plain)
    assert named.endswith(" serve   WARNING [request=r1 project=7.1] It went wrong")


def test_a_line_of_json_holds_these_fields_and_no_others(said: Said) -> None:
    configure("INFO", "serve", "json")
    before = datetime.now(UTC)
    log.info("It is %s\nand more", "“so”")
    with about(job_id="j1", project="7.1"):
        log.error("Bad")
    first, second = said.objects()
    assert tuple(first) == FIELDS
    assert (first["level"], first["logger"], first["message"]) == ("INFO", "backend.test", "It is “so”\nand more")
    assert (first["request_id"], first["job_id"], first["project"]) == (None, None, None)
    assert (second["level"], second["job_id"], second["project"]) == ("ERROR", "j1", "7.1")
    at = datetime.fromisoformat(first["time"])
    assert at.utcoffset() is not None and abs((at - before).total_seconds()) < 5


def test_an_exception_is_one_field_of_the_line(said: Said) -> None:
    configure("INFO", "serve", "json")
    try:
        raise ValueError("inner")
    except ValueError:
        log.exception("Outer")
    (line,) = said.objects()
    assert tuple(line) == (*FIELDS, "exception")
    assert line["message"] == "Outer"
    assert line["exception"].splitlines()[0] == "Traceback (most recent call last):"
    assert line["exception"].splitlines()[-1] == "ValueError: inner"


@given(message=st.text(), name=st.text(max_size=30))
def test_whatever_is_said_stays_one_line_of_json(message: str, name: str) -> None:
    from backend.observability.logs import formatter

    record = logging.LogRecord("backend", logging.INFO, "", 0, message, None, None)
    record.ids = Ids(request_id=name)
    line = formatter("serve", "json").format(record)
    assert len(line.splitlines()) == 1
    assert set(json.loads(line)) == set(FIELDS)


def test_what_is_left_out_is_kept_from_around(said: Said) -> None:
    with about(request_id="r1"), about(project="7.1"), about(job_id="j1"):
        assert known() == Ids("r1", "j1", "7.1")
        with about(job_id="j2"):
            assert known() == Ids("r1", "j2", "7.1")
        assert known().job_id == "j1"
    assert known() == Ids()


def test_threads_have_ids_of_their_own_unless_they_are_given_a_context(said: Said) -> None:
    configure("INFO", "serve", "json")
    with about(request_id="r1"), ThreadPoolExecutor(1) as pool:
        pool.submit(log.info, "alone").result()
        pool.submit(copy_context().run, log.info, "with it").result()
    assert [each["request_id"] for each in said.objects()] == [None, "r1"]


@pytest.mark.parametrize(
    "offered", ["a", "abc-1", "0f8fad5b-d9cb-469f-a165-70867728950e", "Root=1-67:a/b+c@d~", "x" * 64]
)
def test_a_plain_id_is_taken_over(offered: str) -> None:
    assert request_id(offered) == offered


@pytest.mark.parametrize(
    "offered", [None, "", " ", "a b", "a\n", "a\r\nSet-Cookie: x", "ä", "a\x00", '"', "<b>", "{}", "[x]", "x" * 65]
)
def test_any_other_id_is_made_anew(offered: str | None) -> None:
    made = request_id(offered)
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert request_id(offered) != made


CHILD = """
import logging, warnings
from backend.observability.logs import about, configure
configure("INFO", "child", "json")
logging.getLogger("backend").info("hello")
with about(project="8.1"):
    logging.getLogger("backend").info("of another")
warnings.warn("old")
raise ValueError("Authorization: Token hush-hush-hush")
"""


def test_a_process_that_is_started_carries_the_ids_of_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it warns of, and ends with, is in its log as all else is."""
    (tmp_path / "child_of_a_test.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[3]}")
    monkeypatch.setenv(INHERITED, '{"job_id": "of an earlier one"}')
    with about(job_id="j1", project="7.1"):
        process = child.start("child_of_a_test", [], tmp_path / "log")
    assert process.wait(60) == 1
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["project"] for line in lines] == ["7.1", "8.1", "7.1", "7.1"]
    assert {line["job_id"] for line in lines} == {"j1"}
    hello, _, warned, ended = lines
    assert hello["message"] == "hello"
    assert "old" in warned["message"] and warned["logger"] == "py.warnings"
    assert ended["level"] == "CRITICAL" and ended["exception"].endswith("Token …")
    assert "hush" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("handed", ["", "{", "[]", '{"other": 1}', "null"])
def test_ids_that_cannot_be_read_are_none(said: Said, handed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INHERITED, handed)
    configure("INFO", "serve", "json")
    log.info("hello")
    assert said.objects()[0]["job_id"] is None


def test_a_thread_that_ends_with_an_error_says_so(said: Said) -> None:
    configure("INFO", "serve", "json")

    def fail() -> None:
        raise ValueError("in a thread")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    (line,) = said.objects()
    assert line["exception"].endswith("ValueError: in a thread")


def test_a_warning_is_a_line(said: Said) -> None:
    configure("INFO", "serve", "json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("something is old", stacklevel=1)
    (line,) = said.objects()
    assert "something is old" in line["message"]


def test_a_library_writes_as_we_do(said: Said) -> None:
    configure("INFO", "serve", "json")
    theirs = logging.getLogger("a_library")
    theirs.addHandler(logging.StreamHandler(sys.stderr))
    theirs.propagate = False
    adopt("a_library")
    with about(request_id="r1"):
        theirs.warning("mine")
    (line,) = said.objects()
    assert (line["message"], line["request_id"]) == ("mine", "r1")


def test_ids_travel_in_the_environment_only_as_they_are_now() -> None:
    with about(job_id="j1"):
        assert json.loads(inherited()[INHERITED]) == {"request_id": "", "job_id": "j1", "project": ""}
    assert re.fullmatch("sync-[0-9a-f]{8}", new_job("sync"))


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("", ""),
        ("a\nb\n\n", "b"),
        ('a\n{"message": "It ends\\nhere"}\n', "here"),
        ('{"message": "It ends", "exception": "Traceback\\n  x\\nValueError: so\\n"}', "ValueError: so"),
        ('{"message": ""}', '{"message": ""}'),
        ('{"other": 1}', '{"other": 1}'),
        ("17", "17"),
    ],
)
def test_the_last_words_of_a_log_are_found_in_both_forms(text: str, last: str) -> None:
    assert last_words(text) == last


def test_the_last_words_of_a_process_are_the_same_in_both_forms(tmp_path: Path) -> None:
    said = set()
    for form in ("text", "json"):
        program = (
            "from backend.observability.logs import configure\n"
            f'configure("INFO", "x", "{form}")\nraise ValueError("so it is")'
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        said.add(last_words(done.stderr))
    assert said == {"ValueError: so it is"}
