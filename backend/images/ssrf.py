"""Connections that go to the very addresses that were checked.

A name is resolved once for each connection. Were it resolved for the check and again to connect, its owner could
answer twice: with an address of the internet first, with a reserved one then. TLS still checks the name.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

from backend.images.allowed_hosts import AllowedHosts


class ReservedAddress(Exception):
    """A host has reserved addresses only, and is not one of those that are allowed."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host


class PinnedAdapter(HTTPAdapter):
    """Raises ReservedAddress before anything is sent to a host that may not be asked.

    Behind a proxy it is the proxy that resolves names: then only what resolves here as well can be checked.
    """

    def __init__(self, allowed: AllowedHosts) -> None:
        self._allowed = allowed
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _pools(self._allowed)

    def get_connection_with_tls_context(
        self, request: PreparedRequest, verify: Any, proxies: Mapping[str, str] | None = None, cert: Any = None
    ) -> HTTPConnectionPool:
        host = urlsplit(request.url or "").hostname
        if host and select_proxy(request.url or "", proxies):
            with suppress(socket.gaierror):
                permitted(host, 0, self._allowed)
        return super().get_connection_with_tls_context(request, verify, proxies, cert)  # type: ignore[return-value]


def permitted(host: str, port: int, allowed: AllowedHosts) -> list[str]:
    """The addresses at which a host may be asked, in the resolver's order.

    Raises socket.gaierror, or ReservedAddress when there is none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    good = [address for address in dict.fromkeys(str(each[4][0]) for each in found) if allowed.permits(host, address)]
    if not good:
        raise ReservedAddress(host)
    return good


def _pools(allowed: AllowedHosts) -> dict[str, type[HTTPConnectionPool]]:
    class Http(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _connected(self, allowed)

    class Https(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _connected(self, allowed)

    class HttpPool(HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(HTTPSConnectionPool):
        ConnectionCls = Https

    return {"http": HttpPool, "https": HttpsPool}


def _connected(connection: HTTPConnection, allowed: AllowedHosts) -> socket.socket:
    """As urllib3's own, but for the check, and with one time limit for all addresses together."""
    limit = connection.timeout if isinstance(connection.timeout, int | float) else None
    deadline = None if limit is None else time.monotonic() + limit
    try:
        addresses = permitted(connection._dns_host, connection.port, allowed)
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    failure = "no address"
    for address in addresses:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            break
        try:
            return create_connection(
                (address, connection.port),
                left,
                source_address=connection.source_address,
                socket_options=connection.socket_options,
            )
        except TimeoutError:
            break
        except OSError as error:
            failure = str(error)
    else:
        raise NewConnectionError(connection, f"Failed to establish a new connection: {failure}")
    raise ConnectTimeoutError(connection, f"Connection to {connection.host} timed out.")
