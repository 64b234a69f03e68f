"""A real Label Studio (LS) for tests: its own folder, its own port, and nothing left behind.

A fresh database takes LS half a minute to migrate. `make_template` does that once; servers given the template
copy it and start in seconds. Everything an instance writes lies under `folder`; LS's output is
`folder/label-studio.log`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import requests
from filelock import FileLock
from support.ports import free_port
from support.results import evidence

EMAIL = "admin@example.com"
PASSWORD = "yoloop-tests"
LEGACY_TOKEN = "0123456789abcdef0123456789abcdef01234567"

START_SECONDS = 180.0
STOP_SECONDS = 10.0

ALLOW_LOCAL = {"ML_BLOCK_LOCAL_IP": "false", "SSRF_PROTECTION_ENABLED": "false"}
"""What an LS must be told before it talks to a backend on this machine; pass `true` to take it back."""

_QUIET = {
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
}
"""Legacy tokens are allowed by LS's very first start only, so a template has them allowed for good."""

# Runs LS as its child and reads its own input, which only this process can write: the end of that input
# means that the tests are gone, however they went, and takes the whole process group along.
_KEEPER = """
import os, signal, subprocess, sys, threading
def watch():
    while sys.stdin.buffer.read(1):
        pass
    os.killpg(0, signal.SIGKILL)
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
threading.Thread(target=watch, daemon=True).start()
os._exit(child.wait())
"""


def executable() -> Path | None:
    """LS's command: `YOLOOP_TEST_LABEL_STUDIO`, or the one in the repository's `.venv-ls`; None: neither."""
    named = os.environ.get("YOLOOP_TEST_LABEL_STUDIO")
    path = Path(named) if named else Path(__file__).parents[2] / ".venv-ls" / "bin" / "label-studio"
    return path if path.exists() else None


class LabelStudioServer:
    """One LS on loopback.

    Args:
        folder: where it lives; a second start on the same folder keeps its data.
        port: where it listens; None: a free one.
        env: more environment for LS, over the defaults above.
        local_files: folder that LS serves under `/data/local-files/?d=`.
        template: folder made by `make_template`, copied when `folder` has no database yet.
    """

    email = EMAIL
    password = PASSWORD
    token = LEGACY_TOKEN

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        *,
        env: dict[str, str] | None = None,
        local_files: Path | None = None,
        template: Path | None = None,
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.template = template
        self._env = dict(env or {})
        self._local_files = local_files
        self._process: subprocess.Popen[bytes] | None = None
        self._pat: str | None = None
        self._browser: requests.Session | None = None
        self._evidence = contextlib.ExitStack()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "label-studio.log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> LabelStudioServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until `/health` answers; RuntimeError with the log's end when it does not."""
        if self.running:
            return
        data = self.folder / "data"
        if self.template is not None and not data.exists():
            shutil.copytree(self.template, data)
        data.mkdir(parents=True, exist_ok=True)
        self._evidence.enter_context(evidence("label-studio", lambda _: [self.log]))
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _KEEPER, *self._command()],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment(data),
                cwd=self.folder,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it as an administrator would; whatever is left after ten seconds is killed."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self, env: dict[str, str] | None = None) -> None:
        """Stop and start on the same folder and port; `env` replaces the one given first."""
        self.stop()
        if env is not None:
            self._env = dict(env)
        self.start()

    def login(self) -> requests.Session:
        """A browser's session: logged in, with the CSRF header that LS wants for writing."""
        session = requests.Session()
        address = f"{self.url}/user/login/"
        page = session.get(address, timeout=30)
        field = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        form = {
            "email": self.email,
            "password": self.password,
            "csrfmiddlewaretoken": field[1] if field else "-",
        }
        answer = session.post(address, data=form, headers={"Referer": address}, timeout=30, allow_redirects=False)
        if answer.status_code != 302 or "csrftoken" not in session.cookies:
            raise RuntimeError(f"Login to Label Studio failed: {answer.status_code}")
        session.headers.update({"X-CSRFToken": session.cookies["csrftoken"], "Referer": self.url})
        return session

    def pat(self) -> str:
        """A personal access token of the administrator; LS shows one only once, so it is kept here."""
        if self._pat is None:
            self._pat = str(self.api("POST", "/api/token/", json={})["token"])
        return self._pat

    def new_pat(self) -> str:
        """Revoke the personal access token, and make another; LS lets nobody have two."""
        self.api("POST", "/api/token/blacklist/", json={"refresh": self.pat()})
        self._pat = None
        return self.pat()

    def allow_legacy_tokens(self, allowed: bool) -> None:
        """The switch of Organization → Access Token Settings; personal access tokens stay on."""
        tokens = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": allowed}
        self.api("POST", "/api/jwt/settings", json=tokens)

    def api(self, method: str, path: str, **options: Any) -> Any:
        """One request as the administrator, the answer's JSON (None: an empty body); an error raises."""
        if self._browser is None:
            self._browser = self.login()
        answer = self._browser.request(method, f"{self.url}{path}", timeout=60, **options)
        if not answer.ok:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:2000]}")
        return answer.json() if answer.content else None

    def _command(self) -> list[str]:
        path = executable()
        if path is None:
            raise RuntimeError("No Label Studio in .venv-ls, and YOLOOP_TEST_LABEL_STUDIO names none")
        where = ["--internal-host", "127.0.0.1", "--port", str(self.port)]
        who = ["--username", self.email, "--password", self.password, "--user-token", self.token]
        return [str(path.absolute()), "start", "--no-browser", *where, *who]

    def _environment(self, data: Path) -> dict[str, str]:
        foreign = ("LABEL_STUDIO", "DJANGO", "YOLOOP")
        env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        env |= {**_QUIET, **ALLOW_LOCAL, "LABEL_STUDIO_BASE_DATA_DIR": str(data.absolute())}
        if self._local_files is not None:
            env["LOCAL_FILES_SERVING_ENABLED"] = "true"
            env["LOCAL_FILES_DOCUMENT_ROOT"] = str(self._local_files.absolute())
        return env | self._env

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.running:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.url}/health", timeout=2).ok:
                    return
            time.sleep(0.2)
        tail = self.log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"Label Studio did not start on port {self.port}:\n{tail}")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        self._evidence.close()
        if self._browser is not None:
            self._browser.close()
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def make_template(folder: Path) -> Path:
    """The data folder of an LS that was started once, made under `folder` when it is not there yet.

    One process makes it, others that ask meanwhile wait for it.
    """
    template = folder / "template"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "template.lock"):
        if not template.exists():
            making = folder / "making"
            shutil.rmtree(making, ignore_errors=True)  # of one that was killed
            making.mkdir()
            try:
                with LabelStudioServer(making):
                    pass
                (making / "data").rename(template)
            finally:
                shutil.rmtree(making, ignore_errors=True)
    return template
