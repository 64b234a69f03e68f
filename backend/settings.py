"""Every knob: one frozen object, read from the environment, and from a file .env, with the prefix YOLOOP_."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from backend.errors import YoloopError
from backend.images.allowed_hosts import AllowedHosts
from backend.network.urls import plain_address
from backend.observability.logs import LogFormat

DOTENV = Path(".env")
"""A file of settings, `NAME=value` a line, in the folder that a command runs in; the environment goes before it."""

_TOLD = ("YOLOOP_", "LABEL_STUDIO_", "BASIC_AUTH_", "MLFLOW_")
"""What the names begin with that are taken from that file."""

_INNER = ("YOLOOP_SUPERVISED", "YOLOOP_LOG_IDS")
"""Variables that processes of ours set for one another."""

Sampling = Literal["least-confidence", "margin", "entropy", "mean", "diverse"]
Several = Literal["newest", "union", "consensus"]


Seconds = Annotated[float, Field(ge=0, le=3600)]


class ActionSeconds(BaseModel):
    """What a person's actions take, in seconds.

    Drawing a box: 7.0 by extreme clicking (Papadopoulos et al., 2017); 25.5 where it is drawn and checked with care (Su
    et al., 2012). A look at a suggestion: 1.8 (Papadopoulos et al., 2016, of verifying a box). What corrections take
    beyond that look is estimated by the keystroke-level model (Card, Moran and Newell, 1980).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    draw: Seconds = 7.0
    draw_outline: Seconds = 30.0
    draw_points: Seconds = 15.0
    look: Seconds = 1.8
    delete: Seconds = 2.0
    move: Seconds = 5.0
    relabel: Seconds = 2.5

    def drawing(self, task: str) -> float:
        """Seconds that drawing one object of a YOLO task takes."""
        return {"segment": self.draw_outline, "pose": self.draw_points}.get(task, self.draw)

    def __str__(self) -> str:
        return ",".join(f"{name}={value:g}" for name, value in self.model_dump().items())


class Settings(BaseSettings):
    """One process' settings. Each field's description is its line in the README's table."""

    model_config = SettingsConfigDict(
        env_prefix="YOLOOP_", env_file=DOTENV, frozen=True, extra="ignore", populate_by_name=True
    )

    home: Path = Field(Path(".yoloop"), description="Folder of the database, the registry, images and logs.")
    host: str = Field("127.0.0.1", description="Address that the serving process listens on.")
    port: int = Field(9090, ge=1, le=65535, description="Port that the serving process listens on.")
    threads: int = Field(32, ge=2, le=256, description="Requests that are answered at the same time.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    log_format: LogFormat = Field(
        "text", description="Lines for people (text), or one JSON object a line for machines (json)."
    )

    label_studio_url: str = Field(
        "",
        validation_alias=AliasChoices("LABEL_STUDIO_URL", "YOLOOP_LABEL_STUDIO_URL"),
        description="Label Studio's address, as yoloop reaches it.",
    )
    label_studio_api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("LABEL_STUDIO_API_KEY", "YOLOOP_LABEL_STUDIO_API_KEY"),
        description="A personal access token of Label Studio, or a legacy token.",
    )
    basic_auth_user: str = Field(
        "",
        validation_alias=AliasChoices("YOLOOP_BASIC_AUTH_USER", "BASIC_AUTH_USER"),
        description="User name that requests must carry; empty: no basic auth. Also `BASIC_AUTH_USER`.",
    )
    basic_auth_pass: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("YOLOOP_BASIC_AUTH_PASS", "BASIC_AUTH_PASS"),
        description="Password that requests must carry. Also `BASIC_AUTH_PASS`.",
    )

    trusted_hosts: str = Field(
        "",
        description="Names by which yoloop is called without a user name and password, with commas, such as "
        "`yoloop.lan, .example.com`, which stands for all below it. Addresses, localhost, this machine's name and that "
        "of `yoloop connect --url` need not be named.",
    )

    score_threshold: float = Field(0.25, ge=0.0, le=1.0, description="Least score of a suggestion (0 to 1).")
    thresholds: Literal["auto", "fixed"] = Field(
        "auto",
        description="How suggestions are chosen. auto: each version suggests a label from the score on that saves a "
        "person work on its held-out images, at least `YOLOOP_SCORE_THRESHOLD` where that is set; fixed: from "
        "`YOLOOP_SCORE_THRESHOLD` on.",
    )
    action_seconds: Annotated[ActionSeconds, NoDecode] = Field(
        ActionSeconds(),
        description="What a person's actions take, in seconds, by which those scores are found; some of them may be "
        "named, such as `draw=25.5,delete=1`.",
    )
    max_regions: int = Field(
        300, ge=1, description="Most suggestions for one image; more where its annotations hold more."
    )
    predict_budget: float = Field(
        80.0, gt=0, description="Seconds one /predict may take; tasks left then are answered as failed."
    )
    batch_size: int = Field(8, ge=1, le=256, description="Most images in one pass through the model.")
    device: str = Field("auto", description="Torch device of serving and training: auto, cpu, cuda, cuda:0 …")
    engine: Literal["auto", "torch", "openvino", "tensorrt"] = Field(
        "auto",
        description="What serves: openvino, the faster one on a CPU, for every model, trained or pretrained, whose "
        "export finds what torch finds; or torch. auto: openvino unless there is a GPU. tensorrt, on an NVIDIA GPU, "
        "needs the packages tensorrt and onnx and minutes for each new version; torch serves what it cannot.",
    )

    max_models: int = Field(
        8, ge=1, description="Models in memory: of more projects than that, the least recently used wait on the disk."
    )

    sampling: Sampling = Field(
        "least-confidence",
        description="What the score of a task says, and with it the order of uncertainty sampling: "
        "least-confidence, margin, entropy, mean or diverse.",
    )
    keep_versions: int = Field(
        2, ge=1, description="Versions whose suggestions stay in Label Studio on tasks that nobody labelled yet."
    )
    keep_minutes: float = Field(
        60.0,
        ge=0,
        description="Minutes that an outdated suggestion stays although it could go: somebody may have it open, and "
        "Label Studio refuses what is submitted from a removed one.",
    )

    base_model: str = Field(
        "yolo11n.pt",
        description="Pretrained weights to start from: a file in YOLOOP_MODELS, or a name that ultralytics publishes.",
    )
    models: Path | None = Field(None, description="Folder of pretrained weights; default YOLOOP_HOME/models.")
    offline: bool = Field(False, description="Never download the base model.")

    allowed_hosts: str = Field(
        "",
        description="Hosts at reserved addresses (this machine's, a private network's) that images may be fetched "
        "from: names, addresses or networks with commas, such as `nas.lan, 192.168.1.0/24`. Label Studio's own is "
        "always allowed.",
    )
    fetch_timeout: float = Field(20.0, gt=0, description="Seconds one image may take to arrive.")
    fetch_workers: int = Field(8, ge=1, le=64, description="Images fetched at the same time.")
    max_image_mb: float = Field(64.0, gt=0, description="Largest image file, in MiB.")
    max_image_megapixels: float = Field(100.0, gt=0, description="Largest decoded image, in millions of pixels.")
    cache_gb: float = Field(5.0, gt=0, description="Disk that cached images may take, in GiB.")
    min_free_gb: float = Field(
        2.0, ge=0, description="Room that must be free on the disk of YOLOOP_HOME before a training begins, in GiB."
    )

    min_new_annotations: int = Field(
        10,
        ge=1,
        description="New annotations before the first training; later 20 % of what is known, at least this. While "
        "nobody sets it, pretrained weights start with 5, or with 3 that show 20 objects, and go on at 8, 12, 18 and "
        "so on.",
    )
    min_per_class: int = Field(
        3,
        ge=0,
        description="Objects of each label in use before the first training; it waits for them until there are three "
        "times as many annotations as it needs. While nobody sets it, pretrained weights wait for none.",
    )
    annotations: Several = Field(
        "newest",
        description="What is learned from a task with several annotations, ground truth first: the newest; the union "
        "of all by the newest one's author, without what overlaps with a newer one; or the consensus of annotators: "
        "what more than half of them say, where a tie is not understood.",
    )
    cooldown: float = Field(30.0, ge=0, description="Seconds after a training before the next begins by itself.")
    max_trainings_per_hour: int = Field(12, ge=1, description="Trainings of one project that begin by themselves.")
    max_class_drop: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Most that a new version may lose on one label (mAP50-95, or share of right choices).",
    )
    debounce: float = Field(2.0, ge=0, description="Seconds without an event before the worker looks.")
    debounce_max: float = Field(30.0, ge=0, description="Seconds after which the worker looks although events go on.")
    sync_interval: float = Field(60.0, gt=0, description="Seconds between looks at Label Studio without any event.")
    train_minutes: float = Field(10.0, gt=0, description="Most minutes of one training.")
    train_threads: int = Field(0, ge=0, description="CPU threads of a training; 0: one per core.")
    image_size: int = Field(640, ge=32, le=4096, description="Most pixels of the network input's longer side.")
    holdout: float = Field(0.2, gt=0, lt=1, description="Share of the annotated images that only validate.")
    group_by: str = Field(
        "",
        description="Field of the tasks' data, such as `patient` or `meta.camera`: images of one value all train or "
        "all validate. Several with commas: those that agree in one of them.",
    )
    split_by: str = Field(
        "",
        description="Field of the tasks' data that says where a new image goes: `train`, or `val`, `validation`, "
        "`test` or `holdout`; anything else is as if it were empty.",
    )
    refresh_interval: float = Field(0.5, gt=0, description="Seconds between looks for a newly promoted version.")

    @classmethod
    def variable(cls, name: str) -> str:
        """The environment variable of a field."""
        alias = cls.model_fields[name].validation_alias
        return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"YOLOOP_{name.upper()}"

    @classmethod
    def variables(cls) -> frozenset[str]:
        """Every environment variable that is read, other names of the same setting too."""
        found = {cls.variable(name) for name in cls.model_fields}
        for field in cls.model_fields.values():
            if isinstance(field.validation_alias, AliasChoices):
                found |= {str(each) for each in field.validation_alias.choices}
        return frozenset(found)

    @field_validator("device")
    @classmethod
    def _device_is_known(cls, value: str) -> str:
        if value in ("auto", "cpu", "mps", "cuda") or value.startswith("cuda:"):
            return value
        raise ValueError("must be auto, cpu, mps, cuda or cuda:N")

    @field_validator("label_studio_url")
    @classmethod
    def _only_an_address(cls, value: str) -> str:
        return plain_address(value)  # a user name and password would take the token's place, and be shown

    @field_validator("trusted_hosts")
    @classmethod
    def _names_are_names(cls, value: str) -> str:
        for name in value.split(","):
            AllowedHosts.read(name.strip().removeprefix("."))
        return value

    @field_validator("home", "models")
    @classmethod
    def _tilde_is_known(cls, value: Path | None) -> Path | None:
        try:
            if value is not None:
                value.expanduser()
        except RuntimeError:
            raise ValueError("~ means the user's home, and this user has none; write the whole path") from None
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts_are_hosts(cls, value: str) -> str:
        AllowedHosts.read(value)
        return value

    @field_validator("action_seconds", mode="before")
    @classmethod
    def _actions_are_named(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        named = [each.partition("=") for each in value.split(",") if each.strip()]
        return {name.strip(): seconds.strip() for name, _, seconds in named}

    @property
    def exposed(self) -> bool:
        """Whether others than this machine's users may ask without any credentials."""
        return not (self.basic_auth_user or self.basic_auth_pass.get_secret_value() or _is_loopback(self.host))

    @property
    def place(self) -> Path:
        """The home folder, absolute; it need not be there."""
        return self.home.expanduser().absolute()

    @cached_property
    def root(self) -> Path:
        """The home folder, absolute, made when it is missing (only its owner may enter)."""
        path = self.place
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                return path
        except OSError as error:
            raise YoloopError(
                f"YOLOOP_HOME cannot be written: {error.strerror}.", "Set it to a folder that yoloop may write to."
            ) from None

    @cached_property
    def models_dir(self) -> Path:
        return (self.models or self.root / "models").expanduser().absolute()

    @property
    def database_url(self) -> str:
        return sqlite_url(self.root / "yoloop.db")

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry server: `MLFLOW_TRACKING_URI`, or SQLite in the home folder."""
        return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_url(self.root / "mlflow.db")


def sqlite_url(path: Path) -> str:
    """A file's address for SQLAlchemy, which decodes `%20`, and takes what follows a `?` for no part of the name."""
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host.strip("[]")).is_loopback
    return host.lower() == "localhost"


def load_dotenv(path: Path = DOTENV) -> None:
    """Put what the file says into the environment, where processes that are started and libraries find it too.

    What the environment says itself stays. Raises YoloopError for a file that cannot be read.
    """
    from dotenv import dotenv_values

    if not path.is_file():
        return
    try:
        told = dotenv_values(path)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise YoloopError(f"The file .env cannot be read: {why}.", "Mend it, or take it away.") from None
    for name, value in told.items():
        if value is not None and name.upper().startswith(_TOLD):
            os.environ.setdefault(name, value)


def unknown_variables(names: Iterable[str]) -> dict[str, str]:
    """Variables that begin with YOLOOP_ and that nobody reads → the known one that is most like it; empty: none is.

    The case of letters does not matter, as it does not to pydantic.
    """
    known = Settings.variables()
    wrong = (
        name
        for name in sorted(names)
        if name.upper().startswith("YOLOOP_")
        and name.upper() not in (*known, *_INNER)
        and not name.upper().startswith("YOLOOP_TEST_")
    )
    return {name: next(iter(difflib.get_close_matches(name.upper(), known, n=1)), "") for name in wrong}
