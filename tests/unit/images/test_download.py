from __future__ import annotations

import socket
import traceback
import zlib
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from support.sources import SECRET, make, source
from support.web import PNG, Server, answer, drip, redirect

from backend.errors import ImageError, ImageUnavailable
from backend.images.allowed_hosts import AllowedHosts
from backend.images.loader import Images, Source


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "LABEL_STUDIO_API_KEY"),
        (403, "LABEL_STUDIO_API_KEY"),
        (404, "storage"),
        (500, "later"),
        (206, "206"),
    ],
)
def test_statuses(studio: Server, images: Images, status: int, words: str) -> None:
    studio.routes["/a.png"] = answer(PNG, status)
    with pytest.raises(ImageUnavailable, match=words) as error:
        images.fetch(source(studio, "/a.png"))
    assert str(status) in error.value.message


def test_a_login_page(studio: Server, images: Images) -> None:
    studio.routes["/a.png"] = redirect("/user/login/?next=/a.png")
    studio.routes["/user/login/"] = answer(b"\n<!DOCTYPE html><p>Log in", Content_Type="text/html; charset=utf-8")
    with pytest.raises(ImageUnavailable, match=r"login page.*LABEL_STUDIO_API_KEY"):
        images.fetch(source(studio, "/a.png"))
    studio.routes["/a.png"] = answer(PNG)
    assert images.fetch(source(studio, "/a.png")).read_bytes() == PNG


def test_an_image_of_the_wrong_content_type(studio: Server, images: Images) -> None:
    studio.routes["/a.png"] = answer(PNG, Content_Type="text/html")
    assert images.fetch(source(studio, "/a.png")).read_bytes() == PNG


def test_the_size_is_counted_not_believed(studio: Server, tmp_path: Path) -> None:
    def chunked(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            for _ in range(1000):
                handler.wfile.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        except OSError:
            pass

    studio.routes["/a.png"] = chunked
    with pytest.raises(ImageUnavailable, match=r"larger than 0\.01"):
        make(tmp_path, max_bytes=10_486).fetch(source(studio, "/a.png"))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_compressed_body_is_counted_unpacked(studio: Server, tmp_path: Path) -> None:
    studio.routes["/a.png"] = answer(zlib.compress(bytes(1 << 22)), Content_Encoding="deflate")
    with pytest.raises(ImageUnavailable, match="larger than"):
        make(tmp_path, max_bytes=1 << 20).fetch(source(studio, "/a.png"))


def test_an_embedded_image_that_is_too_large(tmp_path: Path) -> None:
    for ref in ("data:," + "x" * 101, "data:;base64," + "QUFB" * 34, "data:;base64," + "QUFB" * 1000):
        with pytest.raises(ImageUnavailable, match="larger than"):
            make(tmp_path, max_bytes=100).load(Source(ref, None, "", dict))


def test_a_body_cut_short_is_not_kept(studio: Server, images: Images) -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        answer(PNG[:20], Content_Length=str(len(PNG)))(handler)
        handler.close_connection = True

    studio.routes["/a.png"] = cut
    with pytest.raises(ImageUnavailable, match="could not be fetched"):
        images.fetch(source(studio, "/a.png"))
    studio.routes["/a.png"] = answer(PNG)
    assert images.fetch(source(studio, "/a.png")).read_bytes() == PNG


def test_an_empty_body(studio: Server, images: Images) -> None:
    studio.routes["/a.png"] = answer(b"")
    with pytest.raises(ImageUnavailable, match="is empty"):
        images.fetch(source(studio, "/a.png"))


def test_a_server_that_drips_is_left_in_time(studio: Server, tmp_path: Path) -> None:
    studio.routes["/a.png"] = drip
    # The time for the whole is what ends it: the single bytes come in time, until the server hangs up.
    with pytest.raises(ImageUnavailable, match=r"did not arrive within 0\.3 s"):
        make(tmp_path, timeout=0.3).fetch(source(studio, "/a.png"))


def test_a_silent_server_is_left_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ImageUnavailable, match="did not arrive"):
            make(tmp_path, timeout=0.3).fetch(Source(f"{address}/a.png", 1, "", dict))


def test_nobody_listens(studio: Server, images: Images) -> None:
    studio.close()
    with pytest.raises(ImageUnavailable, match="could not be fetched"):
        images.fetch(source(studio, "/a.png"))


def test_redirects_in_a_ring(studio: Server, images: Images) -> None:
    studio.routes["/a.png"] = redirect("/a.png")
    with pytest.raises(ImageUnavailable, match="redirects too often"):
        images.fetch(source(studio, "/a.png"))
    assert len(studio.asked) < 10


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://[::1/a", "data:,x"])
def test_redirects_off_the_web(studio: Server, images: Images, target: str) -> None:
    studio.routes["/a.png"] = redirect(target)
    with pytest.raises(ImageUnavailable):
        images.fetch(source(studio, "/a.png"))


@pytest.mark.parametrize("status", [200, 403, 404, 500])
def test_messages_hold_no_secrets(studio: Server, storage: Server, tmp_path: Path, status: int) -> None:
    images = make(tmp_path / "cache")
    storage.routes["/a.png"] = answer(b"junk" * status, status)
    studio.routes["/b.png"] = redirect(f"{storage.url}/a.png?X-Amz-Signature=hush")
    there = f"{storage.url}/a.png?Signature=hush&Expires=1".replace("http://", "http://me:hush@")
    for ref in (there, "/b.png", "/data/local-files/?d=/home/hush/a.png"):
        with pytest.raises(ImageError) as error:
            images.load(source(studio, ref))
        logged = "".join(traceback.format_exception(error.value))
        assert "hush" not in logged
        assert "s3cr3t" not in logged
        assert str(tmp_path / "cache") not in logged


def test_unreachable_addresses_are_not_quoted_with_their_signature(
    studio: Server, storage: Server, images: Images
) -> None:
    storage.close()
    studio.routes["/b.png"] = redirect(f"{storage.url}/a.png?X-Amz-Signature=hush")
    for ref in (f"{storage.url}/a.png?Signature=hush", "/b.png"):
        with pytest.raises(ImageUnavailable, match="could not be fetched") as error:
            images.load(source(studio, ref))
        assert "hush" not in "".join(traceback.format_exception(error.value))


def test_a_full_disk(studio: Server, tmp_path: Path) -> None:
    studio.routes["/a.png"] = answer(PNG)
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(ImageUnavailable, match="could not be stored") as error:
        make(tmp_path / "cache").fetch(source(studio, "/a.png"))
    assert str(tmp_path) not in str(error.value)


class TestLabelStudioBelowAPath:
    """At `/ls` of a host that has other things beside it: the token is for `/ls` alone."""

    def get(self, studio: Server, images: Images, ref: str) -> bytes:
        ls = Source(ref, 7, f"{studio.url}/ls", lambda: {"Authorization": SECRET})
        return images.fetch(ls).read_bytes()

    @pytest.mark.parametrize("ref", ["{ls}/ls/a.png", "/ls/a.png", "/a.png", "{ls}/ls/a.png?x=1"])
    def test_its_own_images(self, studio: Server, images: Images, ref: str) -> None:
        studio.routes["/ls/a.png"] = answer(PNG)
        assert self.get(studio, images, ref.format(ls=studio.url)) == PNG
        assert studio.credentials() == [SECRET]

    @pytest.mark.parametrize(
        "ref",
        [
            "{ls}/other/a.png",
            "{ls}/lsx/a.png",
            "{ls}/ls/../other/a.png",
            "{ls}/ls/%2e%2e/other/a.png",
            "{ls}/ls/..%2fother/a.png",
            "/../other/a.png",
            "//me:word@{place}/other/a.png",
        ],
    )
    def test_images_beside_it(self, studio: Server, storage: Server, tmp_path: Path, ref: str) -> None:
        """They come without the token, from a host that Label Studio's address allows."""
        studio.otherwise = answer(PNG)
        images = make(tmp_path, allowed=AllowedHosts())
        place = studio.url.removeprefix("http://")
        assert self.get(studio, images, ref.format(ls=studio.url, place=place)) == PNG
        assert studio.credentials() == [None]
        with pytest.raises(ImageUnavailable, match="reserved"):
            self.get(studio, images, f"{storage.url}/a.png")
        images.close()

    def test_a_redirect_beside_it_and_back(self, studio: Server, storage: Server, images: Images) -> None:
        studio.routes["/ls/a.png"] = redirect("/other/b.png")
        studio.routes["/other/b.png"] = redirect(f"{storage.url}/c.png")
        storage.routes["/c.png"] = redirect(f"{studio.url}/ls/d.png")
        studio.routes["/ls/d.png"] = answer(PNG)
        assert self.get(studio, images, "/ls/a.png") == PNG
        assert studio.credentials() == [SECRET, None, SECRET]
        assert storage.credentials() == [None]


def test_only_images_from_elsewhere_come_through_a_proxy(
    studio: Server, storage: Server, proxy: Server, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://me:hush@127.0.0.1:{proxy.port}")
    studio.routes["/a.png"] = storage.routes["/b.png"] = answer(PNG)
    images.fetch(source(studio, "/a.png"))
    images.fetch(source(studio, f"{storage.url}/b.png"))
    assert proxy.asked == []
    with pytest.raises(ImageUnavailable, match=r"HTTP 503.*HTTP_PROXY names") as error:
        images.fetch(source(studio, "http://pictures.example.com/a.png?sig=hush"))
    assert proxy.paths == ["http://pictures.example.com/a.png?sig=hush"]
    assert SECRET not in str(proxy.asked) and "hush" not in str(error.value)
    proxy.close()
    with pytest.raises(ImageUnavailable, match="HTTP_PROXY names"):
        images.fetch(source(studio, "http://pictures.example.com/b.png"))
