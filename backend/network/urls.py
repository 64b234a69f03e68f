"""Web addresses: whether one is part of another, and how one is shown and kept without what lets somebody in."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit, urlunsplit

import urllib3

PORTS = {"http": 80, "https": 443}

_MOST_DECODINGS = 4
"""How often a path is decoded: each proxy on the way may do it once more."""


def same_origin(url: str, base: str) -> bool:
    """Whether a request would go to the scheme, host and port of `base`.

    Asked of the parser that makes the connection: another might read a crafted address differently.
    """
    try:
        here, there = urllib3.util.parse_url(url), urllib3.util.parse_url(base)
    except ValueError:
        return False
    if not here.host or not there.host or here.scheme not in PORTS:
        return False
    return (here.scheme, here.host.lower(), here.port or PORTS[here.scheme]) == (
        there.scheme,
        there.host.lower(),
        there.port or PORTS.get(there.scheme or ""),
    )


def is_below(url: str, base: str) -> bool:
    """Whether a request would go to `base`, or to a path below it, however the path is read on its way.

    `https://host/ls/..%2fother` is not below `https://host/ls`: whoever decodes it sees another place.
    """
    if not same_origin(url, base):
        return False
    prefix = _path(base).rstrip("/")
    if not prefix:
        return True
    path = _path(url)
    for _ in range(_MOST_DECODINGS):
        if path != prefix and not path.startswith(f"{prefix}/"):
            return False
        if any(part.partition(";")[0] == ".." for part in path.replace("\\", "/").split("/")):
            return False
        decoded = unquote(path)
        if decoded == path:
            return True
        path, prefix = decoded, unquote(prefix)
    return False


def plain_address(url: str) -> str:
    """A server's address without user name, password, query and a slash at its end."""
    url = url.strip()
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", "")).rstrip("/")


def _path(url: str) -> str:
    """As it stands in the address, dots included: not everybody on the way resolves them."""
    return urlsplit(url).path
