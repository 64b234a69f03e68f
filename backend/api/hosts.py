"""By which names yoloop may be called without credentials.

A web page can let its own name stand for an address of this machine or network (DNS rebinding). To the browser what
answers there is then the page's own server, and the page may send and read anything. Only the name in the header
`Host` tells such requests from others, and a page has no password to send.
"""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from backend.settings import Settings
from backend.store.database import Store

_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?")


def is_known(host: str, settings: Settings, store: Store) -> bool:
    """Whether a request's `Host` is no name of a stranger's.

    Args:
        host: the header, with a port or without; empty: there was none, which browsers never leave out.
    """
    found = _HOST.fullmatch(host.strip())
    if found is None:
        return False
    name = found[1].strip("[]").rstrip(".").lower()
    if not name or name == "localhost" or name.endswith(".localhost") or name == settings.host.lower():
        return True
    with suppress(ValueError):
        return bool(ip_address(name))
    return (
        any(_covers(each, name) for each in settings.trusted_hosts.split(","))
        or name in {_host_of(url) for url in store.backend_urls()}
        or name in _names_of_this_machine()
    )


def _covers(named: str, name: str) -> bool:
    """Whether a name is the one in the settings or, where that begins with a dot, ends with it."""
    named = named.strip().rstrip(".").lower()
    return name == named or (named.startswith(".") and name.endswith(named))


@lru_cache(maxsize=1)
def _names_of_this_machine() -> frozenset[str]:
    names = {socket.gethostname().lower(), socket.getfqdn().lower()}
    names |= {name.partition(".")[0] for name in names}
    return frozenset(names | {f"{name}.local" for name in names if name and "." not in name})


def _host_of(url: str) -> str:
    with suppress(ValueError):
        return (urlsplit(url).hostname or "").rstrip(".").lower()
    return ""
