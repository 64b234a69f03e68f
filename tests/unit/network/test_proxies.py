"""Which requests go through a proxy, seen at a real one that writes down what it is asked."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import requests
from support.web import Server, answer

from backend.network.proxies import DIRECT, http_client, is_near, proxies_of, proxy_hint, proxy_variable

FAR = "http://labels.example.com/api"


@pytest.fixture
def near() -> Iterator[Server]:
    server = Server()
    server.otherwise = answer(b"near")
    yield server
    server.close()


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "127.0.0.1",
        "127.9.9.9",
        "127.1",
        "::1",
        "[::1]",
        "::ffff:10.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.10",
        "169.254.1.1",
        "100.64.0.1",
        "fd00::1",
        "fe80::1%eth0",
        "0.0.0.0",
        "label-studio",
        "host.docker.internal",
        "nas.local",
    ],
)
def test_hosts_of_this_machine_and_network(host: str) -> None:
    assert is_near(host)


@pytest.mark.parametrize("host", ["8.8.8.8", "2606:4700::1111", "no-such-host.invalid", "labels.example.com", ""])
def test_hosts_elsewhere(host: str) -> None:
    assert not is_near(host)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_near_server_is_asked_without_the_proxy_that_asks_for_others(
    proxy: Server, near: Server, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"http://me:hush@127.0.0.1:{proxy.port}")
    for url in (near.url, f"http://localhost:{near.port}", f"http://127.1:{near.port}"):
        assert requests.get(url, proxies=proxies_of(url), timeout=5).text == "near"
        with http_client(url, 5) as client:
            assert client.get(url).text == "near"
        assert proxy_variable(url) == proxy_hint(url) == ""
    assert requests.get(near.url, proxies=DIRECT, timeout=5).text == "near"
    assert proxy.asked == []

    assert requests.get(FAR, proxies=proxies_of(FAR), timeout=5).status_code == 503
    with http_client(FAR, 5) as client:
        assert client.get(FAR).status_code == 503
    assert proxy.paths == [FAR, FAR]
    assert proxy_variable(FAR) == variable
    assert f"{variable} names" in proxy_hint(FAR) and "labels.example.com to NO_PROXY" in proxy_hint(FAR)
    assert "hush" not in proxy_hint(FAR)


def test_each_scheme_has_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.lan:3128")
    assert proxy_variable(FAR) == ""
    assert proxy_variable("https://labels.example.com") == "HTTPS_PROXY"
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert (proxy_variable(FAR), proxy_variable("https://labels.example.com")) == ("ALL_PROXY", "HTTPS_PROXY")


def test_no_proxy_counts_for_both_libraries(proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "example.invalid")
    url = "http://labels.example.invalid/"
    with pytest.raises(requests.ConnectionError):
        requests.get(url, proxies=proxies_of(url), timeout=5)
    with http_client(url, 5) as client, pytest.raises(httpx.ConnectError):
        client.get(url)
    assert proxy.asked == [] and proxy_variable(url) == ""


@pytest.mark.parametrize("kind", ["socks5://127.0.0.1:1", "gopher://127.0.0.1:1"])
def test_a_proxy_of_a_kind_that_cannot_be_used(kind: str, near: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", kind)
    with pytest.raises((ImportError, ValueError)):
        http_client(FAR, 5)
    with http_client(near.url, 5) as client:
        assert client.get(near.url).text == "near"


def test_certificates_are_still_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    with pytest.raises(OSError):
        http_client("https://127.0.0.1", 5)
