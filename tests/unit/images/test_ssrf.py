"""Who is never asked, whatever a task says. The servers here would all answer."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.sources import SECRET, make, source
from support.web import PNG, Server, answer, redirect

from backend.errors import ImageUnavailable
from backend.images.allowed_hosts import AllowedHosts
from backend.images.loader import Images, Source

NOBODY = AllowedHosts()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Images]:
    """Nothing is allowed beyond the internet and Label Studio itself."""
    made = make(tmp_path, allowed=NOBODY)
    yield made
    made.close()


class Resolver:
    """Answers for names of the tests, in turn when there are several answers; it remembers what was asked."""

    def __init__(self, answers: dict[str, list[str]]) -> None:
        self._answers = answers
        self._real = socket.getaddrinfo
        self.asked: list[str] = []

    def __call__(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host not in self._answers:
            return self._real(host, port, *args, **options)
        self.asked.append(host)
        answers = self._answers[host]
        address = answers.pop(0) if len(answers) > 1 else answers[0]
        family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]


def refused(images: Images, ref: str, ls_url: str = "") -> ImageUnavailable:
    with pytest.raises(ImageUnavailable, match="reserved address") as error:
        images.fetch(Source(ref, 1, ls_url, lambda: {"Authorization": SECRET}))
    assert error.value.hint == "Add its host to YOLOOP_ALLOWED_HOSTS if yoloop may fetch from it."
    return error.value


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0x7f.1",
        "0",
        "localhost",
        "LocalHost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "user:pass@127.0.0.1",
    ],
)
def test_this_machine_is_not_asked(studio: Server, storage: Server, guarded: Images, host: str) -> None:
    storage.routes["/a.png"] = answer(PNG)
    refused(guarded, f"http://{host}:{storage.port}/a.png", studio.url)
    assert storage.asked == []


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "10.1.2.3",
        "192.168.0.1",
        "[fe80::1]",
        "224.0.0.1",
        "255.255.255.255",
    ],
)
def test_private_networks_and_metadata_are_not_asked(guarded: Images, host: str) -> None:
    said = refused(guarded, f"http://{host}/latest/meta-data/")
    assert "meta-data" in said.message


def test_label_studio_itself_is_asked_wherever_it_is(studio: Server, storage: Server, guarded: Images) -> None:
    studio.routes["/a.png"] = answer(PNG)
    assert guarded.fetch(source(studio, "/a.png")).read_bytes() == PNG
    assert guarded.fetch(source(studio, f"{studio.url}/a.png")).read_bytes() == PNG
    storage.routes["/a.png"] = answer(PNG)
    refused(guarded, f"{storage.url}/a.png", studio.url)
    assert storage.asked == []


def test_a_connection_of_label_studios_is_not_shared(studio: Server, guarded: Images) -> None:
    """Another project, whose Label Studio is another one, must not ride on it."""
    studio.routes["/a.png"] = studio.routes["/b.png"] = answer(PNG)
    guarded.fetch(source(studio, "/a.png"))
    refused(guarded, f"{studio.url}/b.png", "https://other.example")
    assert studio.paths == ["/a.png"]


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/meta-data/", "//127.0.0.1:{port}/a.png"])
def test_redirects_are_checked_again(studio: Server, storage: Server, guarded: Images, target: str) -> None:
    storage.routes["/a.png"] = answer(PNG)
    studio.routes["/a.png"] = redirect(target.format(port=storage.port))
    said = refused(guarded, "/a.png", studio.url)
    assert "leads to" in said.message
    assert storage.asked == []


@pytest.mark.parametrize("allowed", ["127.0.0.1", "127.0.0.0/8", "localhost,images.lan"])
def test_allowed_hosts_are_asked_without_credentials(
    studio: Server, storage: Server, tmp_path: Path, allowed: str
) -> None:
    images = make(tmp_path, allowed=AllowedHosts.read(allowed))
    host = "localhost" if "localhost" in allowed else "127.0.0.1"
    storage.routes["/a.png"] = answer(PNG)
    assert images.fetch(source(studio, f"http://{host}:{storage.port}/a.png")).read_bytes() == PNG
    assert storage.credentials() == [None]


def test_a_name_is_resolved_once_and_the_answer_is_kept(
    storage: Server, guarded: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner who answers with the internet first and with this machine next gains nothing."""
    resolver = Resolver({"rebind.example": ["192.0.2.1", "127.0.0.1"]})
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    storage.routes["/a.png"] = answer(PNG)
    refused(guarded, f"http://rebind.example:{storage.port}/a.png")
    assert resolver.asked == ["rebind.example"]
    refused(guarded, f"http://rebind.example:{storage.port}/a.png")
    assert storage.asked == []


def test_the_connection_goes_to_the_address_that_was_checked(
    storage: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checked once as allowed, the name's later answers do not matter to the connection."""
    images = make(tmp_path, allowed=AllowedHosts.read("127.0.0.1"))
    resolver = Resolver({"pinned.example": ["127.0.0.1", "127.0.0.9"]})
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    storage.routes["/a.png"] = answer(PNG)
    url = f"http://pinned.example:{storage.port}/a.png"
    assert images.fetch(Source(url, 1, "", dict)).read_bytes() == PNG
    assert resolver.asked == ["pinned.example"]
    assert storage.asked[0][1]["host"] == f"pinned.example:{storage.port}"


def test_of_several_addresses_only_the_good_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    from backend.images.ssrf import permitted

    def both(host: str, port: int, **_: Any) -> Any:
        return [(0, 0, 0, "", (address, port)) for address in ("10.0.0.1", "8.8.8.8", "10.0.0.2", "8.8.8.8")]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    assert permitted("mixed.example", 80, NOBODY) == ["8.8.8.8"]


def test_a_proxy_does_not_lead_around_the_check(
    storage: Server, guarded: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", storage.url)
    refused(guarded, "http://169.254.169.254/latest/meta-data/")
    assert storage.asked == []


def test_what_only_the_proxy_can_resolve_goes_through_it(
    storage: Server, guarded: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", storage.url)
    storage.routes["http://images.invalid/a.png"] = answer(PNG)
    assert guarded.fetch(Source("http://images.invalid/a.png", 1, "", dict)).read_bytes() == PNG


def certificate(folder: Path, name: str) -> Path:
    """A key and a certificate that signs itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "server.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def test_tls_still_checks_the_name(storage: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = certificate(tmp_path, "images.example")
    seen: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.sni_callback = lambda _socket, name, _context: seen.append(name)
    storage.secure(context)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    monkeypatch.setattr(
        socket, "getaddrinfo", Resolver({"images.example": ["127.0.0.1"], "evil.example": ["127.0.0.1"]})
    )
    images = make(tmp_path / "cache", allowed=AllowedHosts.read("127.0.0.1"))
    storage.routes["/a.png"] = answer(PNG)
    good = f"https://images.example:{storage.port}/a.png"
    assert images.fetch(Source(good, 1, "", dict)).read_bytes() == PNG
    assert seen == ["images.example"]
    with pytest.raises(ImageUnavailable, match="SSLError"):
        images.fetch(Source(good.replace("images", "evil"), 1, "", dict))
