from __future__ import annotations

import pytest

from backend.images.allowed_hosts import AllowedHosts, is_public

RESERVED = [
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "168.63.129.16",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:a00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
]


@pytest.mark.parametrize("address", RESERVED)
def test_reserved_addresses(address: str) -> None:
    assert not is_public(address)
    assert not AllowedHosts().permits("a.example", address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_addresses_of_the_internet(address: str) -> None:
    assert is_public(address)
    assert AllowedHosts().permits("a.example", address)


@pytest.mark.parametrize(
    ("text", "host", "address", "permitted"),
    [
        ("nas.lan", "nas.lan", "192.168.1.5", True),
        ("nas.lan", "NAS.lan.", "fd00::5", True),
        ("NAS.LAN. , other", "nas.lan", "192.168.1.5", True),
        ("nas.lan", "evil.nas.lan", "192.168.1.5", False),
        ("nas.lan", "nas.lan.evil.example", "192.168.1.5", False),
        ("192.168.1.0/24", "nas.lan", "192.168.1.5", True),
        ("192.168.1.77/24", "nas.lan", "192.168.1.5", True),
        ("192.168.1.0/24", "nas.lan", "192.168.2.5", False),
        ("192.168.1.5", "192.168.1.5", "192.168.1.5", True),
        ("192.168.1.0/24", "nas.lan", "::ffff:192.168.1.5", True),
        ("fd00::/8", "nas.lan", "fd12::5", True),
        ("fd00::/8", "nas.lan", "192.168.1.5", False),
        ("[::1]", "[::1]", "::1", True),
        ("127.0.0.1", "localhost", "127.0.0.1", True),
        ("127.0.0.1", "localhost", "::1", False),
        ("", "localhost", "127.0.0.1", False),
        (" , ,", "localhost", "127.0.0.1", False),
    ],
)
def test_allowed_hosts(text: str, host: str, address: str, permitted: bool) -> None:
    assert AllowedHosts.read(text).permits(host, address) is permitted


@pytest.mark.parametrize("text", ["http://nas.lan", "nas.lan:8080", "nas.lan/24", "192.168.1.0/33", "*", "a b", "-a"])
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(ValueError, match="no host name, address or network"):
        AllowedHosts.read(f"fine.example, {text}")
