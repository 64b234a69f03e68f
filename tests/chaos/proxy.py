"""What stands between yoloop and Label Studio, and does to the requests what a bad day does."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from support.ports import free_port

Kind = Literal["pass", "down", "slow", "401", "429", "500", "html", "cut"]

SLOW = 30.0
"""Seconds that an answer takes on a slow day: as long as yoloop waits for one."""

_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "server", "date")
_PAGE = b"<!DOCTYPE html><html><body><h1>Sign in</h1><form method='post'></form></body></html>"
_REFUSALS: dict[str, tuple[int, str, bytes]] = {
    "401": (401, "application/json", b'{"detail": "Invalid token."}'),
    "429": (429, "application/json", b'{"detail": "Request was throttled."}'),
    "500": (500, "application/json", b'{"detail": "Internal Server Error"}'),
    "html": (200, "text/html", _PAGE),
}


@dataclass(frozen=True, slots=True)
class Mode:
    """What happens to a request. `done`: Label Studio gets it all the same, and only its answer is lost."""

    kind: Kind = "pass"
    done: bool = False


class Proxy:
    """A proxy for one Label Studio on this machine; `harmed` counts the requests that it did not just pass on."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.mode = Mode()
        self.harmed = 0
        self._server: ThreadingHTTPServer | None = None
        self._open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set(self, mode: Mode) -> None:
        self.mode = mode
        if mode.kind == "down":
            self.close()
        elif self._server is None:
            self._open()

    def close(self) -> None:
        """Refuse connections."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def _open(self) -> None:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        ThreadingHTTPServer.daemon_threads = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    owner: Proxy

    def _answer(self) -> None:
        mode = self.owner.mode
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if mode.kind == "pass":
            self._tell(*self._passed_on(body))
            return
        self.owner.harmed += 1
        if mode.kind == "slow":
            found = self._passed_on(body) if mode.done else None
            until = time.monotonic() + SLOW
            while time.monotonic() < until and self.owner.mode.kind == "slow":
                time.sleep(0.1)
            self._tell(*(found or self._passed_on(body)))
        elif mode.kind == "cut":
            status, headers, data = self._passed_on(body)
            self._tell(status, headers, data[: len(data) // 2], promised=len(data) + 1)
        else:
            if mode.done:
                self._passed_on(body)
            status, content_type, data = _REFUSALS[mode.kind]
            self._tell(status, [("Content-Type", content_type)], data)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do_HEAD = _answer

    def _passed_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.owner.target, timeout=90)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        except (OSError, http.client.HTTPException):
            return 502, [("Content-Type", "text/plain")], b"Label Studio itself is gone"
        finally:
            connection.close()

    def _tell(self, status: int, headers: list[tuple[str, str]], data: bytes, promised: int | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) if promised is None else promised))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)
        except OSError:
            pass  # whoever asked has lost patience

    def log_message(self, format: str, *args: object) -> None: ...
