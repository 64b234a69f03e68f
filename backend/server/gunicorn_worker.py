"""gunicorn's worker that hands whole requests to threads, and takes whole answers from them.

gunicorn's own threaded worker lets a thread wait for each byte of a request: a few dozen clients that send one every
few seconds hold all threads, without ever having said who they are. Here one loop reads all connections and writes
all answers, within deadlines, and a thread is taken once a request is there. Threads of their own answer the probes,
for Label Studio hides stored predictions while /health fails.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import resource
import selectors
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

from gunicorn.http import wsgi
from gunicorn.workers.base import Worker

from backend.server.incoming import HeadTooLong, Incoming
from backend.server.outgoing import Gone, Outgoing, plain

HEAD_SECONDS = 10.0
"""For a request's line and headers, from the first byte on or from connecting."""

BODY_SECONDS = 20.0
ANSWER_SECONDS = 20.0
LEAST_PACE = 256 * 1024
"""Bytes a second: what was taken in, or sent, lengthens the time for a body or an answer by its share of this."""

LINGER_SECONDS = 2.0
"""What is still sent after a refusal is read for so long: a closed connection would take the refusal away."""

STOPPING_SECONDS = 5.0
"""For the rest of a request, once the process is told to stop."""

MOST_CONNECTIONS = 1000
"""Of more, the one that has been sending the head of its request for the longest gives way."""

SMALL = 64 * 1024
"""Bytes that a request may always hold."""

MOST_HELD = 192 * 2**20
"""Bytes of larger requests that all connections hold together, from their first byte to the answer."""

MOST_ANSWERS = 128 * 2**20
"""Bytes of answers that wait for their clients; of more, the client that has been taking its answer longest gets no
more."""

READ = 64 * 1024
READ_BODY = 2**20

BUSY, TOO_LARGE = "busy", "too large"
REFUSED = "yoloop.refused"
"""Where the environment says why a request's body was not read: `BUSY` or `TOO_LARGE`."""

SWITCH_SECONDS = 0.0005
"""For which a thread computes before another one may: the loop and a probe wait for it behind all that compute."""

PROBES = frozenset({"/health", "/"})


class _Connection:
    """A client's connection. The loop's alone, but for `out` while a thread answers."""

    def __init__(self, sock: socket.socket, peer: Any, server: Any, incoming: Incoming) -> None:
        self.sock, self.peer, self.server = sock, peer, server
        self.incoming = incoming
        self.out: Outgoing | None = None
        self.began = self.until = 0.0
        self.taken = self.held = 0
        self.admitted = self.answering = self.closing = self.lingering = self.keeps = False
        self.rest = b""
        self.events = 0


class BufferingWorker(Worker):  # type: ignore[misc]
    """See the module. `admits` and `limit` are for subclasses to say."""

    def admits(self, environ: dict[str, Any]) -> bool:
        """Whether who sends this may send a body; a request that may not is answered without having been read."""
        return True

    def limit(self, path: str) -> int:
        """Most bytes of a body that is sent there."""
        return 2**20

    def run(self) -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        self._poller = selectors.DefaultSelector()
        self._done: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._connections: set[_Connection] = set()
        self._held = 0
        self._most = min(MOST_CONNECTIONS, max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))
        self._threads = ThreadPoolExecutor(self.cfg.threads, thread_name_prefix="request")
        self._probes = ThreadPoolExecutor(2, thread_name_prefix="probe")
        self._poller.register(self.PIPE[0], selectors.EVENT_READ, self._wake)
        for listener in self.sockets:
            listener.setblocking(False)
            self._poller.register(listener.fileno(), selectors.EVENT_READ, lambda each=listener: self._accept(each))
        while self.alive and self.ppid == os.getppid():
            self._turn()
        self._stop()

    def _turn(self) -> None:
        self.notify()
        until = min((each.until for each in self._connections if each.until), default=float("inf"))
        for key, _ in self._poller.select(max(0.0, min(1.0, until - time.monotonic()))):
            key.data()
        now = time.monotonic()
        for late in [each for each in self._connections if each.until and each.until <= now]:
            self._late(late)

    def _stop(self) -> None:
        """Answer what has come; take nothing more."""
        for listener in self.sockets:
            self._poller.unregister(listener.fileno())
            listener.close()
        now = time.monotonic()
        for each in self._connections:
            if each.out is None:  # a request may be on its way already
                each.until = min(each.until, now + (STOPPING_SECONDS if each.incoming.begun else 1.0))
        while self._connections and time.monotonic() < now + self.cfg.graceful_timeout:
            self._turn()
        for each in list(self._connections):
            self._close(each)
        for pool in (self._threads, self._probes):
            pool.shutdown(wait=False, cancel_futures=True)
        self._poller.close()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.PIPE[0], 4096)
        with contextlib.suppress(Empty):
            while True:
                self._done.get_nowait()()

    def _call(self, what: Callable[[], None]) -> None:
        """Let the loop do it; for threads."""
        self._done.put(what)
        with contextlib.suppress(OSError):  # full, so the loop is being woken; or closed
            os.write(self.PIPE[1], b".")

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, peer = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE) and not self._give_way():
                time.sleep(0.05)  # it stays acceptable, and this loop would do nothing else
            return
        sock.setblocking(False)
        connection = _Connection(sock, peer, listener.getsockname(), self._expected(peer))
        if len(self._connections) >= self._most and not self._give_way():
            sock.close()
            return
        self._connections.add(connection)
        connection.until = time.monotonic() + HEAD_SECONDS
        self._watch(connection, selectors.EVENT_READ)

    def _give_way(self) -> bool:
        idle = [each for each in self._connections if each.incoming.request is None and each.out is None]
        if not idle:
            return False
        self._close(min(idle, key=lambda each: each.until))
        return True

    def _expected(self, peer: Any) -> Incoming:
        return Incoming(self.cfg, peer, self.limit)

    def _watch(self, connection: _Connection, events: int) -> None:
        if events == connection.events:
            return
        if not events:
            self._poller.unregister(connection.sock)
        elif connection.events:
            self._poller.modify(connection.sock, events, lambda: self._ready(connection))
        else:
            self._poller.register(connection.sock, events, lambda: self._ready(connection))
        connection.events = events

    def _ready(self, connection: _Connection) -> None:
        if connection not in self._connections:
            return  # closed in this very turn
        try:
            self._read_or_send(connection)
        except Exception:
            self.log.exception("A connection failed")
            self._close(connection)

    def _read_or_send(self, connection: _Connection) -> None:
        if connection.out is not None and not connection.lingering:
            self._send(connection)
            return
        try:
            data = connection.sock.recv(READ_BODY if connection.incoming.request or connection.lingering else READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
        elif not connection.lingering:
            self._feed(connection, data)

    def _feed(self, connection: _Connection, data: bytes) -> None:
        incoming = connection.incoming
        now = time.monotonic()
        if not incoming.begun:
            connection.until = now + HEAD_SECONDS
        headless = incoming.request is None
        try:
            incoming.feed(data)
        except HeadTooLong:
            self._refuse(connection, 431, "Request line and headers are too long.", "Send at most 64 KiB of them.")
            return
        except Exception as error:
            self._broken(connection, error)
            return
        if incoming.request is None:
            return
        if headless:
            connection.began, connection.taken = now, 0
        connection.taken += len(data)
        connection.until = connection.began + BODY_SECONDS + connection.taken / LEAST_PACE
        self._hold(connection)
        if incoming.too_large:
            self._answer(connection, refused=TOO_LARGE)
        elif self._held > MOST_HELD and connection.held:
            self._answer(connection, refused=BUSY)
        elif incoming.whole:
            self._answer(connection)
        elif not connection.admitted and (connection.held or incoming.request._expected_100_continue):
            connection.admitted = self.admits(self._environ(connection)[1])
            if not connection.admitted:
                self._answer(connection, refused=BUSY)  # the application tells it to say who it is
            elif incoming.request._expected_100_continue:
                with contextlib.suppress(OSError):
                    connection.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _hold(self, connection: _Connection) -> None:
        held = max(0, connection.incoming.held - SMALL)
        self._held += held - connection.held
        connection.held = held

    def _environ(self, connection: _Connection, out: Outgoing | None = None) -> tuple[Any, dict[str, Any]]:
        request = connection.incoming.request
        awaits, request._expected_100_continue = request._expected_100_continue, False
        try:
            response, environ = wsgi.create(request, out, connection.peer, connection.server, self.cfg)
        finally:
            request._expected_100_continue = awaits
        environ["wsgi.multithread"] = True
        return response, environ

    def _answer(self, connection: _Connection, refused: str = "") -> None:
        self._watch(connection, 0)
        connection.answering, connection.until = True, 0.0
        request = connection.incoming.request
        body, connection.rest = (b"", b"") if refused else connection.incoming.take()
        request.body = io.BytesIO(body)
        out = connection.out = Outgoing(connection.sock, ANSWER_SECONDS, LEAST_PACE)
        probe = request.path in PROBES and request.method in ("GET", "HEAD")
        pool = self._probes if probe else self._threads
        if refused:
            request.force_close()
        connection.closing = bool(refused)
        try:
            response, environ = self._environ(connection, out)
        except Exception as error:
            self._broken(connection, error)
            return
        if refused:
            environ[REFUSED] = refused
        connection.incoming = self._expected(connection.peer)
        pool.submit(self._run, connection, response, environ, out)

    def _run(self, connection: _Connection, response: Any, environ: dict[str, Any], out: Outgoing) -> None:
        """In a thread: let the application answer."""
        keeps = False
        try:
            if not self.alive:
                response.force_close()
            pieces = self.wsgi(environ, response.start_response)
            try:
                for piece in pieces:
                    response.write(piece)
                    out.flush()
                response.close()
            finally:
                if hasattr(pieces, "close"):
                    pieces.close()
            keeps = not response.should_close()
        except Gone:
            out.lost = True
        except BaseException:
            self.log.exception("A request could not be answered")
            if response.headers_sent:
                out.lost = True
            else:
                out.sendall(plain(500, "yoloop failed to answer.", "Its log says why."))
        environ.clear()
        self._call(lambda: self._answered(connection, keeps))

    def _answered(self, connection: _Connection, keeps: bool) -> None:
        connection.answering, connection.keeps = False, keeps
        self._held -= connection.held
        connection.held = 0
        if connection in self._connections:
            self._send(connection)

    def _send(self, connection: _Connection) -> None:
        out = connection.out
        assert out is not None
        with contextlib.suppress(Gone):
            out.flush(wait=False)
        if out.lost:
            self._close(connection)
        elif out.waiting:
            connection.until = out.until
            self._watch(connection, selectors.EVENT_WRITE)
            self._shed()
        elif connection.closing:
            connection.lingering, connection.until = True, time.monotonic() + LINGER_SECONDS
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_WR)
            self._watch(connection, selectors.EVENT_READ)
        elif not connection.keeps:
            self._close(connection)
        else:
            connection.out, connection.admitted = None, False
            connection.until = time.monotonic() + (self.cfg.keepalive if self.alive else 1.0)
            self._watch(connection, selectors.EVENT_READ)
            if rest := connection.rest:
                connection.rest = b""
                self._feed(connection, rest)

    def _shed(self) -> None:
        slow = [each for each in self._connections if each.out is not None and not each.answering]
        while sum(each.out.waiting for each in slow if each.out) > MOST_ANSWERS:
            slow.sort(key=lambda each: each.until)
            self._close(slow.pop(0))

    def _late(self, connection: _Connection) -> None:
        if connection.out is None and connection.incoming.begun:
            self._refuse(connection, 408, "The request took too long to arrive.", "Send it at once.")
        else:
            self._close(connection)

    def _refuse(self, connection: _Connection, status: int, message: str, hint: str) -> None:
        connection.out = Outgoing(connection.sock, ANSWER_SECONDS, LEAST_PACE)
        connection.out.sendall(plain(status, message, hint))
        connection.closing = True
        self._send(connection)

    def _broken(self, connection: _Connection, error: Exception) -> None:
        """What came is no HTTP: gunicorn knows what to say."""
        connection.out = out = Outgoing(connection.sock, ANSWER_SECONDS, LEAST_PACE)
        self.handle_error(connection.incoming.request, out, connection.peer, error)
        connection.closing, connection.answering = True, False
        self._send(connection)

    def _close(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._watch(connection, 0)
        if not connection.answering:
            self._held -= connection.held
            connection.held = 0
        with contextlib.suppress(OSError):
            connection.sock.close()
