from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from backend import __version__
from backend.cli.main import app
from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.store.database import Store
from backend.store.jobs import Jobs
from backend.store.ledger import Ledger

FIRST, SECOND = "7.1795453273", "8.1795453299"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with two projects."""
    monkeypatch.setenv("YOLOOP_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    store = Store(f"sqlite:///{tmp_path / 'home' / 'yoloop.db'}")
    store.save_project(FIRST, title="Discs")
    store.save_project(SECOND, title="Squares")
    store.close()
    return tmp_path / "home"


def run(*words: str) -> tuple[int, str, str]:
    """Exit status and both outputs of a real command."""
    done = subprocess.run([sys.executable, "-m", "backend.cli.main", *words], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"yoloop {__version__}\n")


@pytest.mark.parametrize("words", [[], ["up"], ["connect"], ["status"]])
def test_help_by_one_letter(words: list[str]) -> None:
    done = CliRunner().invoke(app, [*words, "-h"])
    assert done.exit_code == 0 and "Usage:" in done.output


@pytest.mark.parametrize("command", ["up", "serve", "worker"])
def test_where_to_listen_and_the_home_are_options(command: str) -> None:
    options = {each for one in get_command(app).commands[command].params for each in one.opts}  # type: ignore[attr-defined]
    assert {"--home", "--host", "--port"} <= options


def test_every_command_that_has_a_project_takes_it_last_and_as_an_option() -> None:
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        if name in ("up", "serve", "worker"):
            continue
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        assert arguments[-1].metavar == "PROJECT", name
        assert ["--project"] in [each.opts for each in command.params], name


@pytest.mark.parametrize("words", [["8"], ["--project", "8"], ["8", "--project", "8"]])
def test_the_project_either_way(home: Path, words: list[str]) -> None:
    done = CliRunner().invoke(app, ["status", *words])
    assert done.exit_code == 0, done.output
    assert "Project 8  Squares" in done.output and "Discs" not in done.output


def test_two_projects_are_refused(home: Path) -> None:
    code, _, said = run("status", "7", "--project", "8")
    assert code == 1 and "Two projects are named: 7 and 8" in said


@pytest.mark.parametrize("words", [["status", "0"], ["versions", "one"]])
def test_what_is_no_number_is_refused(home: Path, words: list[str]) -> None:
    assert CliRunner().invoke(app, words).exit_code == 2


@pytest.mark.parametrize("words", [["status"], ["versions"], ["advice"], ["train"], ["doctor"], ["accept", "--yes"]])
def test_a_folder_without_a_home_stays_empty(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YOLOOP_HOME", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "machine"))
    (tmp_path / "machine").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    code, said, wrong = run(*words)
    assert (code == 1 and str(Path("here") / ".yoloop") in said + wrong) or "There is no .yoloop here" in said
    assert list((tmp_path / "here").iterdir()) == []
    assert "Traceback" not in wrong


def test_an_unknown_setting_is_named_and_the_command_goes_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOOP_TRAIN_MINUTE", "3")
    code, said, wrong = run("status")
    assert code == 0 and "Project 7  Discs" in said
    assert "YOLOOP_TRAIN_MINUTE is no setting" in wrong and "did you mean YOLOOP_TRAIN_MINUTES?" in wrong


@pytest.mark.parametrize(
    ("address", "why"), [("http://localhost:1", "refused"), ("localhost:8080", "missing an 'http://'")]
)
def test_nobody_is_quoted_who_did_not_answer(
    address: str, why: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", address)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0" * 40)
    code, _, wrong = run("connect", "1")
    assert code == 1 and f"Label Studio at {address} cannot be reached." in wrong
    assert "The reason: " in wrong and why in wrong and "Label Studio said" not in wrong


class TestAnnotations:
    CONFIG = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
        '<Label value="Disc"/><Label value="Dead"/></RectangleLabels></View>'
    )

    @pytest.fixture(autouse=True)
    def annotated(self, home: Path) -> None:
        noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
        store = Store(f"sqlite:///{home / 'yoloop.db'}")
        store.save_project(FIRST, label_config=self.CONFIG, url="http://localhost:8080", api_key="secret")
        tasks = []
        for number, label in enumerate(("Disc", "car", "Disc"), 1):
            value = {"x": 1, "y": 2, "width": 30, "height": 40, "rectanglelabels": [label]}
            region = {"from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}
            made = AnnotationRecord(10 + number, [region], False, False, noon, noon, 1, 2.0, None)
            tasks.append(TaskRecord(number, noon, noon, {"image": f"/data/{number}.jpg"}, (made,)))
        Ledger(store).update(FIRST, tasks)
        store.close()

    def test_status_counts_the_seconds_down(self, home: Path) -> None:
        with closing(Store(f"sqlite:///{home / 'yoloop.db'}")) as store:
            store.save_project(FIRST, waiting_for="the last training failed; next try in 41 s")
            job, _ = Jobs(store).request(FIRST, "why", time.time() - 100)
            Jobs(store).finish(job.id, "failed", "It broke.", time.time() - 40)
        said = CliRunner().invoke(app, ["status", "7"]).stdout
        assert "failed: It broke; waits: 2 of 10 new annotations" in said

    def test_status_counts_them_and_their_objects(self) -> None:
        said = CliRunner().invoke(app, ["status", "7"]).stdout
        assert "3 annotations: 2 used, 1 not understood: label `car` is not in the config (1); 2 new" in said
        assert "Disc 2, Dead: no example yet" in said

    def test_those_that_are_not_understood_are_listed(self) -> None:
        done = CliRunner().invoke(app, ["annotations", "7", "--not-understood"])
        link = "http://localhost:8080/projects/7/data?task=2"
        assert done.stdout == f"task 2: label `car` is not in the config  {link}\n"
        told = json.loads(CliRunner().invoke(app, ["annotations", "7", "--not-understood", "--json"]).stdout)
        reason = "label `car` is not in the config"
        assert told == [{"task_id": 2, "annotation_id": 12, "reason": reason, "in_part": False, "url": link}]

    def test_without_a_word_all_are_counted(self) -> None:
        assert "3 annotations: 2 used" in CliRunner().invoke(app, ["annotations", "7"]).stdout
        told = json.loads(CliRunner().invoke(app, ["annotations", "7", "--json"]).stdout)
        assert (told["not_understood"], told["objects"]) == (1, {"Disc": 2, "Dead": 0})

    def test_other_lists(self) -> None:
        assert CliRunner().invoke(app, ["annotations", "7", "--several"]).stdout == "There is none.\n"
        assert json.loads(CliRunner().invoke(app, ["annotations", "7", "--empty", "--json"]).stdout) == []
        assert CliRunner().invoke(app, ["annotations", "7", "--empty", "--several"]).exit_code == 1

    def test_what_differs_on_one_image_is_listed(self, home: Path) -> None:
        noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
        empty = AnnotationRecord(14, [], False, False, noon, noon, 1, 2.0, None)
        with closing(Store(f"sqlite:///{home / 'yoloop.db'}")) as store:
            Ledger(store).update(FIRST, [TaskRecord(4, noon, noon, {"image": "/data/3.jpg"}, (empty,))])
        link = "http://localhost:8080/projects/7/data?task="
        assert CliRunner().invoke(app, ["annotations", "7", "--contradicting"]).stdout == (
            f"task 3: Disc 1; otherwise task 4  {link}3\ntask 4: nothing is there; otherwise task 3  {link}4\n"
        )
        said = CliRunner().invoke(app, ["status", "7"]).stdout
        assert "2 say something else than that of nearly the same image, such as tasks 3 and 4" in said
        assert CliRunner().invoke(app, ["annotations", "7", "--contradicting", "--empty"]).exit_code == 1

    def test_how_much_annotators_agree_is_listed(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("YOLOOP_ANNOTATIONS", "consensus")
        noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
        both = tuple(AnnotationRecord(20 + by, [], False, False, noon, noon, by, 2.0, None) for by in (1, 2))
        with closing(Store(f"sqlite:///{home / 'yoloop.db'}")) as store:
            Ledger(store, "consensus").update(FIRST, [TaskRecord(5, noon, noon, {"image": "/data/5.jpg"}, both)])
        listed = CliRunner().invoke(app, ["annotations", "7", "--several"]).stdout
        assert listed.startswith("task 5: 2 annotations, which agree on 100%  http")
        said = CliRunner().invoke(app, ["annotations", "7"]).stdout
        assert "of 1 task with several, ground truth counts, else what most annotators say (they agree on 100%)" in said

    def test_none_is_said_in_words(self) -> None:
        done = CliRunner().invoke(app, ["annotations", "8", "--not-understood"])
        assert (done.exit_code, done.stdout) == (0, "All annotations are understood.\n")


SLOW = ("torch", "mlflow", "label_studio_sdk", "ultralytics", "cv2", "numpy", "requests", "alembic", "dbos", "flask")


def test_status_imports_nothing_that_takes_long(home: Path, empty_registry: Path) -> None:
    (home / "mlflow.db").write_bytes(empty_registry.read_bytes())
    program = (
        "import sys\n"
        "sys.argv = ['yoloop', 'status', '7']\n"
        "from backend.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert not ended.code, ended.code\n"
        "print('imported', *sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ))
    said, _, imported = done.stdout.partition("imported ")
    assert "Project 7  Discs" in said and "v0, nothing is trained yet" in said, done.stderr
    assert {name for name in imported.split() if name.partition(".")[0] in SLOW} == set()
    assert not [name for name in imported.split() if name.startswith("sqlalchemy.dialects.postgresql")]
