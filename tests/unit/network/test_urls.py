from __future__ import annotations

import pytest

from backend.network.urls import is_below, plain_address, same_origin

LS = "https://host/ls"


@pytest.mark.parametrize(
    "url",
    [
        "https://host/ls",
        "https://host/ls/",
        "https://host/ls?x=1",
        "https://host/ls/data/a.png",
        "https://host:443/ls/data/a.png",
        "HTTPS://HOST/ls/a.png",
        "https://me:word@host/ls/a.png",
        "https://host/ls/a%20b/%C3%A4.png",
        "https://host/ls/data/local-files/?d=../a.png",
        "https://host/ls/./a.png",
    ],
)
def test_what_is_below_an_address(url: str) -> None:
    for base in (LS, f"{LS}/", "https://me:word@host:443/ls"):
        assert is_below(url, base)


@pytest.mark.parametrize(
    "url",
    [
        "http://host/ls/a.png",
        "https://host:8443/ls/a.png",
        "http://host:443/ls/a.png",
        "https://other/ls/a.png",
        "https://host@other/ls/a.png",
        "https://other\\@host/ls/a.png",
        "https://host.other/ls/a.png",
        "https://host/",
        "https://host/other/a.png",
        "https://host/lsx/a.png",
        "https://host/ls.x/a.png",
        "https://host/LS/a.png",
        "https://host//ls/a.png",
        "https://host/other/../ls/a.png",
        "https://host/ls/../other/a.png",
        "https://host/ls/..",
        "https://host/ls/%2e%2e/other/a.png",
        "https://host/ls/..%2fother/a.png",
        "https://host/ls/%252e%252e%252fother/a.png",
        "https://host/ls/%25252525252e./other/a.png",
        "https://host/ls/..;x/other/a.png",
        "https://host/ls\\..\\other\\a.png",
        "https://host/ls/.\t./other/a.png",
        "https://host/ls%2fa.png",
        "ftp://host/ls/a.png",
        "/ls/a.png",
        "https://[host/ls/a.png",
        "",
    ],
)
def test_what_is_not(url: str) -> None:
    assert not is_below(url, LS)


def test_an_address_without_a_path_has_all_of_its_host_below() -> None:
    for base in ("http://host:8080", "http://host:8080/"):
        assert is_below("http://host:8080/any/../thing", base)
        assert not is_below("https://host:8080/any", base)
        assert not is_below("http://host/any", base)


def test_a_path_with_letters_of_its_own() -> None:
    assert is_below("https://host/%C3%A9tiquettes/a%20b.png", "https://host/%C3%A9tiquettes")


def test_nothing_is_at_no_address() -> None:
    assert not same_origin("http://host/", "") and not is_below("http://host/", "")


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        (" http://me:hush@host:8080/ls/?token=hush#hush ", "http://host:8080/ls"),
        ("https://hush@host", "https://host"),
        ("http://me:hu@sh@host/", "http://host"),
        ("http://host", "http://host"),
        ("", ""),
    ],
)
def test_an_address_without_what_lets_somebody_in(url: str, plain: str) -> None:
    assert plain_address(url) == plain == plain_address(plain)
