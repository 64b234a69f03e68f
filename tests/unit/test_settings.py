from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from backend.errors import YoloopError
from backend.settings import Settings, load_dotenv, unknown_variables
from backend.store.database import Store
from model_registry.sqlite_file import path_of

FOREIGN = {"label_studio_url": "LABEL_STUDIO_URL", "label_studio_api_key": "LABEL_STUDIO_API_KEY"}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_field_is_described(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description is not None
    assert description[0].isupper()
    assert description.endswith((".", "…"))


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_field_is_read_from_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = FOREIGN.get(name, f"YOLOOP_{name.upper()}")
    assert Settings.variable(name) == expected
    default = Settings().model_dump()[name]
    other = {
        "log_level": "DEBUG",
        "device": "cuda:1",
        "offline": "0",
        "sampling": "margin",
        "annotations": "union",
        "engine": "torch",
        "log_format": "json",
        "thresholds": "fixed",
        "action_seconds": "look=2",
    }
    other |= dict.fromkeys(("holdout", "score_threshold", "max_class_drop"), "0.3")
    monkeypatch.setenv(expected, other.get(name, "33"))
    assert Settings().model_dump()[name] != default


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("BASIC_AUTH_USER", "basic_auth_user"),
        ("BASIC_AUTH_PASS", "basic_auth_pass"),
        ("YOLOOP_LABEL_STUDIO_URL", "label_studio_url"),
    ],
)
def test_other_names_that_are_in_use(variable: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "given")
    value = getattr(Settings(), name)
    assert (value if isinstance(value, str) else value.get_secret_value()) == "given"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "0"),
        ("port", "70000"),
        ("port", "http"),
        ("threads", "1"),
        ("log_level", "LOUD"),
        ("log_format", "xml"),
        ("score_threshold", "1.5"),
        ("score_threshold", "-0.1"),
        ("sampling", "best"),
        ("engine", "onnx"),
        ("keep_versions", "0"),
        ("max_class_drop", "1.5"),
        ("holdout", "0"),
        ("holdout", "1"),
        ("predict_budget", "0"),
        ("device", "gpu"),
        ("image_size", "16"),
        ("min_new_annotations", "0"),
        ("train_minutes", "-1"),
        ("offline", "perhaps"),
        ("cache_gb", ""),
        ("allowed_hosts", "http://nas.lan"),
        ("allowed_hosts", "10.0.0.0/99"),
    ],
)
def test_bad_values_are_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"YOLOOP_{name.upper()}", value)
    with pytest.raises(ValidationError) as error:
        Settings()
    (found,) = error.value.errors()
    assert found["loc"] == (name,)
    assert found["msg"]


def test_it_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "hush-key")
    monkeypatch.setenv("YOLOOP_BASIC_AUTH_PASS", "hush-pass")
    settings = Settings()
    for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
        assert "hush" not in shown
    assert settings.label_studio_api_key.get_secret_value() == "hush-key"


def test_the_home_is_its_owners(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "a" / "home")
    assert not (tmp_path / "a").exists()  # nothing is made before it is needed
    assert settings.root == tmp_path / "a" / "home"
    assert stat.S_IMODE(settings.root.stat().st_mode) == 0o700
    assert settings.database_url == f"sqlite:///{tmp_path}/a/home/yoloop.db"
    assert settings.models_dir == tmp_path / "a" / "home" / "models"
    assert Settings(home=tmp_path, models=tmp_path / "weights").models_dir == tmp_path / "weights"


@pytest.mark.parametrize("name", ["a b", "a%20b", "a%25b", "a?b", "a#b", "a?mode=ro", "ä:@b"])
def test_the_databases_lie_in_the_home_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    settings = Settings(home=tmp_path / name)
    assert make_url(settings.database_url).database == str(tmp_path / name / "yoloop.db")
    assert make_url(settings.tracking_uri).database == str(tmp_path / name / "mlflow.db")
    assert path_of(settings.tracking_uri) == tmp_path / name / "mlflow.db"
    Store(settings.database_url).close()
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(YoloopError, match="YOLOOP_HOME cannot be written") as error:
        _ = Settings(home=tmp_path / "file" / "home").root
    assert str(tmp_path) not in str(error.value)


def test_the_home_may_be_relative_or_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert Settings(home=Path("x")).root == tmp_path / "x"
    assert Settings(home=Path("~/x")).root == tmp_path / "me" / "x"


@pytest.mark.parametrize("name", ["home", "models"])
def test_a_tilde_without_a_users_home_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(path: Path) -> Path:
        if str(path).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(ValidationError, match="this user has none; write the whole path"):
        Settings(**{name: Path("~/x")})


def test_the_tracking_server_is_the_teams_own_when_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(home=tmp_path).tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert Settings(home=tmp_path).tracking_uri == "http://mlflow:5000"


def test_nothing_is_read_from_the_environment_at_import() -> None:
    assert "YOLOOP_PORT" not in os.environ
    assert Settings().port == 9090


@pytest.mark.parametrize(
    ("host", "user", "password", "exposed"),
    [
        ("127.0.0.1", "", "", False),
        ("127.0.0.9", "", "", False),
        ("localhost", "", "", False),
        ("::1", "", "", False),
        ("[::1]", "", "", False),
        ("0.0.0.0", "", "", True),
        ("::", "", "", True),
        ("192.168.1.7", "", "", True),
        ("yoloop.internal", "", "", True),
        ("0.0.0.0", "me", "mine", False),
        ("0.0.0.0", "", "mine", False),
    ],
)
def test_whether_anybody_may_ask(host: str, user: str, password: str, exposed: bool) -> None:
    assert Settings(host=host, basic_auth_user=user, basic_auth_pass=password).exposed is exposed


class TestDotenv:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(os, "environ", dict(os.environ))
        return tmp_path

    def test_it_is_read_and_the_environment_goes_before_it(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / ".env").write_text(
            "YOLOOP_PORT=9191\nexport LABEL_STUDIO_URL='http://studio:8080'\nYOLOOP_TRAIN_MINUTES=3\n# a remark\n"
        )
        monkeypatch.setenv("YOLOOP_TRAIN_MINUTES", "7")
        settings = Settings()
        assert (settings.port, settings.label_studio_url, settings.train_minutes) == (9191, "http://studio:8080", 7)

    def test_what_libraries_and_other_processes_read_is_put_into_the_environment(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("YOLOOP_PORT", "9292")
        (folder / ".env").write_text("MLFLOW_TRACKING_URI=http://mlflow:5000\nYOLOOP_PORT=9191\nPATH=/nowhere\n")
        path = os.environ["PATH"]
        load_dotenv()
        assert Settings().tracking_uri == "http://mlflow:5000"
        assert (os.environ["YOLOOP_PORT"], os.environ["PATH"]) == ("9292", path)

    def test_a_bad_value_is_named(self, folder: Path) -> None:
        (folder / ".env").write_text("YOLOOP_PORT=http")
        with pytest.raises(ValidationError) as error:
            Settings()
        assert error.value.errors()[0]["loc"] == ("port",)

    def test_one_that_cannot_be_read_is_an_error_in_words(self, folder: Path) -> None:
        (folder / ".env").write_bytes(b"YOLOOP_PORT=\xff\xfe9191")
        with pytest.raises(YoloopError, match=r"\.env cannot be read: it is not UTF-8"):
            load_dotenv()

    def test_none_is_no_error(self) -> None:
        load_dotenv()
        assert Settings().port == 9090


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("YOLOOP_TRAIN_MINUTE", "YOLOOP_TRAIN_MINUTES"),
        ("YOLOOP_MIN_NEW_ANOTATIONS", "YOLOOP_MIN_NEW_ANNOTATIONS"),
        ("yoloop_prot", "YOLOOP_PORT"),
        ("YOLOOP_LABELSTUDIO_URL", "YOLOOP_LABEL_STUDIO_URL"),
        ("YOLOOP_QQQQQQQQQQQQQQQQQQQQ", ""),
    ],
)
def test_a_mistyped_variable_is_found_with_the_nearest_right_one(name: str, meant: str) -> None:
    assert unknown_variables(["PATH", "YOLOOP_PORT", "yoloop_home", "BASIC_AUTH_USER", name]) == {name: meant}


def test_what_our_own_processes_tell_one_another_is_known() -> None:
    from backend.observability.logs import INHERITED
    from backend.processes.child import SUPERVISED

    assert unknown_variables([INHERITED, SUPERVISED]) == {}
