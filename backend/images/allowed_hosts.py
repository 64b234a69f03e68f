"""Which hosts images may be fetched from: those of the internet, and those that the owner names.

Reserved addresses are the machine's own, those of private networks, and those at which clouds hand out credentials:
whoever may write a task's data could otherwise make yoloop ask them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")

# Routed like others, yet special: the protocols' own block, and Azure's host to its guests.
_SPECIAL = (IPv4Network("192.0.0.0/24"), IPv4Network("168.63.129.16/32"))
_UNICAST = IPv6Network("2000::/3")
_TRANSLATED = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The hosts at reserved addresses that may be asked all the same: by their name, or by their address."""

    names: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def read(cls, text: str) -> AllowedHosts:
        """From names, addresses and networks with commas. Raises ValueError, which names what is none of these."""
        names: set[str] = set()
        networks: list[IPv4Network | IPv6Network] = []
        for entry in filter(None, (part.strip() for part in text.split(","))):
            try:
                networks.append(ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                name = _plain(entry)
                if not _NAME.fullmatch(name):
                    raise ValueError(f"{entry!r} is no host name, address or network such as 192.168.1.0/24") from None
                names.add(name)
        return cls(frozenset(names), tuple(networks))

    def permits(self, host: str, address: str) -> bool:
        """Whether a host may be asked at one of the addresses that its name stands for."""
        if _plain(host) in self.names or is_public(address):
            return True
        ip = _reached(address)
        return any(ip in network for network in self.networks)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the internet; one inside another (mapped, translated, 6to4) counts too."""
    ip = _reached(address)
    if isinstance(ip, IPv6Address):
        return ip in _UNICAST and ip.is_global
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL)


def _reached(address: str) -> IPv4Address | IPv6Address:
    """The address that is really reached."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _TRANSLATED:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def _plain(host: str) -> str:
    return host.strip().lower().rstrip(".")
