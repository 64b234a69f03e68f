"""Which requests go through a proxy: those to the internet, where the environment names one.

A proxy reads whatever goes over http, tokens included, and cannot even reach this machine's own addresses. So none is
asked for a host of this machine or of a private network, as if `NO_PROXY` named it. The SDK speaks through httpx and
the rest through requests, which read `NO_PROXY` differently: what is decided here goes for both.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

if TYPE_CHECKING:
    import httpx

DIRECT: dict[str, Any] = {"http": None, "https": None, "all": None}
"""For the `proxies` of requests: none is asked, whatever the environment says. Certificates are still read from it."""

REMEMBERED = 60.0
"""Seconds for which it is remembered what a name stands for."""

_PRIVATE_NAMES = ("localhost", "local", "internal", "home.arpa")
"""Endings of names that are nobody's on the internet."""

_found: dict[str, tuple[float, bool]] = {}


def proxies_of(url: str) -> dict[str, Any]:
    """The `proxies` of requests for an address: that of the environment, or none."""
    proxy = proxy_of(url)
    return {"http": proxy, "https": proxy, "all": None} if proxy else DIRECT


def http_client(url: str, timeout: float) -> httpx.Client:
    """A client of httpx for one server, which follows no redirect.

    Raises ImportError or ValueError where the proxy that the environment names is of a kind that cannot be used.
    """
    import httpx

    try:
        proxy = proxy_of(url)
        # A transport of our own keeps httpx from reading the environment's proxies, and not from its certificates.
        transport = httpx.HTTPTransport(proxy=proxy or None)
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from None
    return httpx.Client(timeout=timeout, follow_redirects=False, transport=transport)


def proxy_of(url: str) -> str:
    """The proxy that is asked for an address; empty: none."""
    proxy = str(select_proxy(url, get_environ_proxies(url, None)) or "")
    if not proxy or is_near(urlsplit(url).hostname or ""):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def go_direct(url: str) -> None:
    """Keep others in this process and its children, such as MLflow's client, from asking a proxy for a near host.

    They read the environment for themselves, so `NO_PROXY` names the host from now on.
    """
    host = (urlsplit(url).hostname or "").rstrip(".")
    if not select_proxy(url, get_environ_proxies(url, None)) or not is_near(host):
        return
    name = "no_proxy" if os.environ.get("no_proxy") else "NO_PROXY"  # the one that libraries read first
    known = os.environ.get(name, "")
    os.environ[name] = f"{known},{host}" if known else host


def proxy_variable(url: str) -> str:
    """The environment variable that names the proxy for an address; empty: none is asked."""
    if not proxy_of(url):
        return ""
    for name in (f"{urlsplit(url).scheme.lower()}_proxy", "all_proxy"):
        for spelled in (name, name.upper()):
            if os.environ.get(spelled):
                return spelled
    return "the system's settings"


def proxy_hint(url: str) -> str:
    """What to do where an address is asked through a proxy and something goes wrong; empty: it is not."""
    variable = proxy_variable(url)
    if not variable:
        return ""
    host = urlsplit(url).hostname
    return f"It is asked through the proxy that {variable} names: correct {variable}, or add {host} to NO_PROXY."


def is_near(host: str) -> bool:
    """Whether a host is this machine, or in a private network. A name that nobody here knows is not."""
    host = host.strip("[]").rstrip(".").lower()
    if not host:
        return False
    with suppress(ValueError):
        return _is_private(host)
    if "." not in host or host.endswith(tuple(f".{name}" for name in _PRIVATE_NAMES)):
        return True
    now = time.monotonic()
    told, near = _found.get(host, (-REMEMBERED, False))
    if now - told >= REMEMBERED:
        near = _stands_for_private(host)
        if len(_found) >= 1000:
            _found.clear()
        _found[host] = (now, near)
    return near


def _stands_for_private(name: str) -> bool:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(_is_private(str(each[4][0])) for each in found)


def _is_private(address: str) -> bool:
    """Raises ValueError for what is no IP address."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip
    return not ip.is_global
