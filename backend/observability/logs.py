"""One line a message, to standard error, the same in every process: for people, or as JSON for machines.

Each line carries the ids of what it was written for: the request that is answered, or the job that runs and its
project. They are set with `about`, found again in threads that run in a copied context, and handed to processes that
are started meanwhile (`inherited`).
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from backend.observability.full_disk import OneLine
from backend.observability.masking import Masked, masked

LogFormat = Literal["text", "json"]

INHERITED = "YOLOOP_LOG_IDS"
"""The environment variable that tells a process what it was started for."""

_SANE_ID = re.compile(r"[0-9A-Za-z._:+/=@~-]{1,64}")


@dataclass(frozen=True, slots=True)
class Ids:
    """What lines are written for; empty where it is not known."""

    request_id: str = ""
    job_id: str = ""
    project: str = ""

    def __str__(self) -> str:
        """As it stands in a line of text: `[request=… project=…] `."""
        known = (("request", self.request_id), ("job", self.job_id), ("project", self.project))
        said = " ".join(f"{name}={value}" for name, value in known if value)
        return f"[{said}] " if said else ""


_ids: ContextVar[Ids] = ContextVar("ids")


def configure(level: str, process: str, form: LogFormat = "text") -> None:
    """Set up logging for this process. Libraries speak only to warn; what nobody catches is logged, too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Identified(_handed_down()))
    handler.addFilter(OneLine())
    handler.setFormatter(formatter(process, form))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("backend", "model_registry"):
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def formatter(process: str, form: LogFormat) -> logging.Formatter:
    """How lines look, secrets masked: see `configure`."""
    if form == "json":
        return Json()
    line = f"%(asctime)s {process:<7} %(levelname)-7s %(ids)s%(message)s"
    return Masked(logging.Formatter(line, "%H:%M:%S", defaults={"ids": ""}))


class Json(logging.Formatter):
    """One JSON object per line: `time`, `level`, `logger`, `message`, the ids (null: none), and `exception`.

    Secrets are masked before the text is quoted, as quoting would hide what stands around them.
    """

    def format(self, record: logging.LogRecord) -> str:
        ids = record.__dict__.get("ids") or Ids()
        said: dict[str, str | None] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": masked(record.getMessage()),
            **{name: masked(value) or None for name, value in asdict(ids).items()},
        }
        if record.exc_info and record.exc_info[0] is not None:
            said["exception"] = masked(self.formatException(record.exc_info))
        return json.dumps(said)


@contextmanager
def about(*, request_id: str = "", job_id: str = "", project: str = "") -> Iterator[None]:
    """Lines written in here carry these ids, and those of around where one is left out."""
    token = enter(request_id=request_id, job_id=job_id, project=project)
    try:
        yield
    finally:
        leave(token)


def enter(**ids: str) -> Token[Ids]:
    """As `about`, until `leave` is given what this returns."""
    return _ids.set(replace(_ids.get(Ids()), **{name: value for name, value in ids.items() if value}))


def leave(token: Token[Ids]) -> None:
    _ids.reset(token)


def known() -> Ids:
    """What lines are written for just now."""
    return _ids.get(Ids())


def request_id(offered: str | None) -> str:
    """The id of a request: the one it brought, if that is short and plain, else a new one."""
    return offered if offered is not None and _SANE_ID.fullmatch(offered) else uuid.uuid4().hex


def new_job(kind: str) -> str:
    """An id for work that has no row of its own, such as `sync-1f0c93ab`."""
    return f"{kind}-{uuid.uuid4().hex[:8]}"


def inherited() -> dict[str, str]:
    """What to add to the environment of a process, so that its lines carry the ids of now."""
    return {INHERITED: json.dumps(asdict(known()))}


def adopt(name: str) -> None:
    """Let a library that has handlers of its own write through ours."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = True


def last_words(text: str) -> str:
    """The last line of a process' log, in words, whatever form it has; empty when there is none."""
    line = next(iter(reversed(text.strip().splitlines())), "")
    try:
        said = json.loads(line)
        return str(said.get("exception") or said["message"]).strip().splitlines()[-1]
    except (ValueError, KeyError, AttributeError, IndexError):
        return line


class _Identified(logging.Filter):
    """Gives records the ids of the context they were made in, else those that the process was started with."""

    def __init__(self, handed_down: Ids) -> None:
        super().__init__()
        self._handed_down = handed_down

    def filter(self, record: logging.LogRecord) -> bool:
        own = {name: value for name, value in asdict(known()).items() if value}
        record.ids = replace(self._handed_down, **own)
        return True


def _handed_down() -> Ids:
    try:
        return Ids(**json.loads(os.environ.get(INHERITED, "{}")))
    except (ValueError, TypeError):
        return Ids()


def _uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logging.getLogger("backend").critical("The process ends with an error", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        info = (args.exc_type, args.exc_value, args.exc_traceback)
        logging.getLogger("backend").critical("A thread ends with an error", exc_info=info)
