"""A web server on loopback whose pages a test sets, and small images to put on it."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

from PIL import Image

Route = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """A web server on loopback whose pages are set by the test; it remembers what it was asked."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.otherwise: Route = answer(b"", 404)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                server.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
                route = server.routes.get(self.path) or server.routes.get(self.path.partition("?")[0])
                (route or server.otherwise)(self)

            do_POST = do_CONNECT = do_GET  # a proxy is asked by all of them

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def secure(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def credentials(self) -> list[str | None]:
        return [headers.get("authorization") for _, headers in self.asked]


def answer(body: bytes, status: int = 200, **headers: str) -> Route:
    def route(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        with suppress(ConnectionError):  # a client may leave as soon as it has seen enough
            handler.wfile.write(body)

    return route


def redirect(location: str) -> Route:
    return answer(b"", 302, Location=location)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """One byte at a time: every read is in time, the whole never."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(200):
        try:
            handler.wfile.write(b"x")
        except OSError:
            return
        time.sleep(0.02)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


RED = (200, 30, 10)
PNG = encoded(Image.new("RGB", (8, 6), RED))
