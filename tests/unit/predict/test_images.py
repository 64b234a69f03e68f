from __future__ import annotations

import base64
import socket
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from backend.errors import ImageError, ImageUnavailable, ImageUnreadable, LabelStudioError
from backend.predict.cache import ImageCache
from backend.predict.images import Images, Pixels, Source

SECRET = "Bearer s3cr3t"

Route = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """A web server on loopback whose pages are set by the test; it remembers what it was asked."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                route = server.routes.get(self.path) or server.routes.get(self.path.partition("?")[0])
                (route or answer(b"", 404))(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def credentials(self) -> list[str | None]:
        return [headers.get("authorization") for _, headers in self.asked]


def answer(body: bytes, status: int = 200, **headers: str) -> Route:
    def route(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        with suppress(ConnectionError):  # a client may leave as soon as it has seen enough
            handler.wfile.write(body)

    return route


def redirect(location: str) -> Route:
    return answer(b"", 302, Location=location)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """One byte at a time: every read is in time, the whole never."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(200):
        try:
            handler.wfile.write(b"x")
        except OSError:
            return
        time.sleep(0.02)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


RED = (200, 30, 10)
PNG = encoded(Image.new("RGB", (8, 6), RED))


@pytest.fixture
def studio() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def storage() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def make(folder: Path, **limits: Any) -> Images:
    options = {"timeout": 5.0, "max_bytes": 1 << 20, "max_pixels": 1_000_000, "workers": 4, **limits}
    return Images(ImageCache(folder, 1 << 24), **options)


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    made = make(tmp_path)
    yield made
    made.close()


def source(server: Server, ref: str, task_id: int | None = 7) -> Source:
    return Source(ref, task_id, server.url, lambda: {"Authorization": SECRET})


class TestWhereImagesLie:
    @pytest.mark.parametrize(
        ("ref", "path"),
        [
            ("/data/upload/1/a.png", "/data/upload/1/a.png"),
            ("upload/1/a.png", "/data/upload/1/a.png"),
            ("/data/local-files/?d=dir/a%20b.png", "/data/local-files/?d=dir/a%20b.png"),
            ("/some/where/a.png", "/some/where/a.png"),
            ("/data/upload/1/ä b.png", "/data/upload/1/%C3%A4%20b.png"),
        ],
    )
    def test_paths_on_label_studio(self, studio: Server, images: Images, ref: str, path: str) -> None:
        studio.routes[path] = answer(PNG)
        assert images.fetch(source(studio, ref)).read_bytes() == PNG
        assert studio.paths == [path]
        assert studio.credentials() == [SECRET]

    def test_a_label_studio_below_a_prefix(self, studio: Server, images: Images) -> None:
        studio.routes["/ls/data/a.png"] = studio.routes["/ls/b.png"] = answer(PNG)
        for ref in ("/ls/data/a.png", "/b.png"):
            images.fetch(Source(ref, 1, f"{studio.url}/ls/", lambda: {"Authorization": SECRET}))
        assert studio.paths == ["/ls/data/a.png", "/ls/b.png"]

    def test_an_absolute_address_on_label_studio(self, studio: Server, images: Images) -> None:
        studio.routes["/data/a.png"] = answer(PNG)
        images.fetch(source(studio, f"{studio.url}/data/a.png#top".replace("http:", "HTTP:")))
        assert studio.credentials() == [SECRET]

    def test_another_host_gets_no_credentials(self, studio: Server, storage: Server, images: Images) -> None:
        storage.routes["/a.png"] = answer(PNG)
        images.fetch(source(studio, f"{storage.url}/a.png"))
        assert storage.credentials() == [None]

    @pytest.mark.parametrize(
        "crafted",
        [
            "http://localhost:{studio}/a.png",
            "http://127.0.0.1:{studio}@127.0.0.1:{other}/a.png",
            "http://127.0.0.1:{studio}\\@127.0.0.1:{other}/a.png",
            "//127.0.0.1:{other}/a.png",
            "http://127.0.0.1:{other}/127.0.0.1:{studio}/a.png",
            "http://127.0.0.1:{other}?http://127.0.0.1:{studio}/a.png",
            "https://127.0.0.1:{studio}/a.png",
        ],
    )
    def test_crafted_addresses_carry_no_token_elsewhere(
        self, studio: Server, storage: Server, images: Images, crafted: str
    ) -> None:
        with pytest.raises(ImageUnavailable):
            images.fetch(source(studio, crafted.format(studio=studio.port, other=storage.port)))
        assert SECRET not in storage.credentials()
        assert all(
            headers["host"] == f"127.0.0.1:{studio.port}" for _, headers in studio.asked if "authorization" in headers
        )

    def test_netrc_and_cookies_stay_out(
        self, studio: Server, storage: Server, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        studio.routes["/a.png"] = answer(PNG, Set_Cookie="sessionid=abc; Path=/")
        storage.routes["/a.png"] = answer(PNG)
        images.fetch(source(studio, "/a.png"))
        images.fetch(source(studio, f"{storage.url}/a.png"))
        assert studio.credentials() == [SECRET]
        assert storage.credentials() == [None]
        assert "cookie" not in storage.asked[0][1]

    @pytest.mark.parametrize("uri", ["s3://bucket/ä/a.png", "gs://bucket/a.png", "azure-blob://c/a b.png"])
    def test_cloud_storages(self, studio: Server, storage: Server, images: Images, uri: str) -> None:
        studio.routes["/tasks/7/presign/"] = redirect(f"{storage.url}/a.png?X-Amz-Signature=abc")
        storage.routes["/a.png"] = answer(PNG)
        assert images.fetch(source(studio, uri)).read_bytes() == PNG
        (path,) = studio.paths
        assert base64.urlsafe_b64decode(path.partition("fileuri=")[2]).decode() == uri
        assert studio.credentials() == [SECRET]
        assert storage.credentials() == [None]

    def test_a_storage_that_label_studio_passes_through(self, studio: Server, images: Images) -> None:
        studio.routes["/tasks/7/presign/"] = answer(PNG)
        assert images.fetch(source(studio, "s3://bucket/a.png")).read_bytes() == PNG

    def test_a_redirect_back_to_label_studio_is_authorised_again(
        self, studio: Server, storage: Server, images: Images
    ) -> None:
        studio.routes["/a.png"] = redirect(f"{storage.url}/b.png")
        storage.routes["/b.png"] = redirect(f"{studio.url}/c.png")
        studio.routes["/c.png"] = redirect("d.png")
        studio.routes["/d.png"] = answer(PNG)
        images.fetch(source(studio, "/a.png"))
        assert studio.credentials() == [SECRET] * 3
        assert storage.credentials() == [None]

    @pytest.mark.parametrize(
        "ref",
        [
            "data:image/png;base64," + base64.b64encode(PNG).decode(),
            "data:image/png;base64," + base64.b64encode(PNG).decode().rstrip("="),
            "data:image/png;base64," + quote(base64.b64encode(PNG).decode(), safe=""),
            "DATA:," + quote(PNG, safe=""),
        ],
    )
    def test_embedded_images_need_neither_network_nor_disk(self, tmp_path: Path, ref: str) -> None:
        images = make(tmp_path / "cache")
        assert images.load(Source(ref, None, "", dict)).shape == (6, 8, 3)
        assert not (tmp_path / "cache").exists()
        assert images.fetch(Source(ref, None, "", dict)).read_bytes() == PNG

    @pytest.mark.parametrize("ref", ["data:", "data:image/png;base64", "data:image/png;base64,", "data:,%"])
    def test_malformed_embedded_images(self, images: Images, ref: str) -> None:
        with pytest.raises(ImageError):
            images.load(Source(ref, None, "", dict))

    @pytest.mark.parametrize(
        ("ref", "words"),
        [
            ("file:///etc/passwd", "file: addresses"),
            ("ftp://host/a.png", "ftp: addresses"),
            ("dir/a.png", "bare relative path"),
            ("", "names no image"),
            (None, "names no image"),
            (["a.png"], "names no image"),
            ("http://", "malformed"),
            ("http://[::1/a.png", "malformed"),
            ("http://127.0.0.1:notaport/a.png", "could not be fetched"),
        ],
    )
    def test_addresses_that_cannot_be_used(self, studio: Server, images: Images, ref: Any, words: str) -> None:
        with pytest.raises(ImageUnavailable, match=words) as error:
            images.fetch(source(studio, ref))
        assert error.value.hint

    @pytest.mark.parametrize("ref", ["/data/a.png", "s3://bucket/a.png"])
    def test_without_label_studios_address(self, images: Images, ref: str) -> None:
        with pytest.raises(ImageUnavailable, match="address is not known") as error:
            images.fetch(Source(ref, 1, "", dict))
        assert "LABEL_STUDIO_URL" in error.value.hint

    def test_a_cloud_storage_without_a_task(self, studio: Server, images: Images) -> None:
        with pytest.raises(ImageUnavailable, match="needs a task"):
            images.fetch(source(studio, "s3://bucket/a.png", task_id=None))

    def test_a_token_that_cannot_be_had(self, studio: Server, images: Images) -> None:
        def auth() -> dict[str, str]:
            raise LabelStudioError("No token.", "Make one.")

        with pytest.raises(ImageUnavailable, match=r"No token\. Make one\."):
            images.fetch(Source("/a.png", 1, studio.url, auth))
        assert studio.asked == []


class TestLimitsAndFailures:
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
    def test_statuses(self, studio: Server, images: Images, status: int, words: str) -> None:
        studio.routes["/a.png"] = answer(PNG, status)
        with pytest.raises(ImageUnavailable, match=words) as error:
            images.fetch(source(studio, "/a.png"))
        assert str(status) in error.value.message

    def test_a_login_page(self, studio: Server, images: Images) -> None:
        studio.routes["/a.png"] = redirect("/user/login/?next=/a.png")
        studio.routes["/user/login/"] = answer(b"\n<!DOCTYPE html><p>Log in", Content_Type="text/html; charset=utf-8")
        with pytest.raises(ImageUnavailable, match=r"login page.*LABEL_STUDIO_API_KEY"):
            images.fetch(source(studio, "/a.png"))
        studio.routes["/a.png"] = answer(PNG)
        assert images.fetch(source(studio, "/a.png")).read_bytes() == PNG

    def test_an_image_of_the_wrong_content_type(self, studio: Server, images: Images) -> None:
        studio.routes["/a.png"] = answer(PNG, Content_Type="text/html")
        assert images.fetch(source(studio, "/a.png")).read_bytes() == PNG

    def test_the_size_is_counted_not_believed(self, studio: Server, tmp_path: Path) -> None:
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

    def test_a_compressed_body_is_counted_unpacked(self, studio: Server, tmp_path: Path) -> None:
        studio.routes["/a.png"] = answer(zlib.compress(bytes(1 << 22)), Content_Encoding="deflate")
        with pytest.raises(ImageUnavailable, match="larger than"):
            make(tmp_path, max_bytes=1 << 20).fetch(source(studio, "/a.png"))

    def test_an_embedded_image_that_is_too_large(self, tmp_path: Path) -> None:
        for ref in ("data:," + "x" * 101, "data:;base64," + "QUFB" * 34, "data:;base64," + "QUFB" * 1000):
            with pytest.raises(ImageUnavailable, match="larger than"):
                make(tmp_path, max_bytes=100).load(Source(ref, None, "", dict))

    def test_a_body_cut_short_is_not_kept(self, studio: Server, images: Images) -> None:
        def cut(handler: BaseHTTPRequestHandler) -> None:
            answer(PNG[:20], Content_Length=str(len(PNG)))(handler)
            handler.close_connection = True

        studio.routes["/a.png"] = cut
        with pytest.raises(ImageUnavailable, match="could not be fetched"):
            images.fetch(source(studio, "/a.png"))
        studio.routes["/a.png"] = answer(PNG)
        assert images.fetch(source(studio, "/a.png")).read_bytes() == PNG

    def test_an_empty_body(self, studio: Server, images: Images) -> None:
        studio.routes["/a.png"] = answer(b"")
        with pytest.raises(ImageUnavailable, match="is empty"):
            images.fetch(source(studio, "/a.png"))

    def test_a_server_that_drips_is_left_in_time(self, studio: Server, tmp_path: Path) -> None:
        studio.routes["/a.png"] = drip
        started = time.monotonic()
        with pytest.raises(ImageUnavailable, match=r"did not arrive within 0\.3 s"):
            make(tmp_path, timeout=0.3).fetch(source(studio, "/a.png"))
        assert time.monotonic() - started < 1.5

    def test_a_silent_server_is_left_in_time(self, tmp_path: Path) -> None:
        started = time.monotonic()
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(ImageUnavailable, match="did not arrive"):
                make(tmp_path, timeout=0.3).fetch(Source(f"{address}/a.png", 1, "", dict))
        assert time.monotonic() - started < 1.5

    def test_nobody_listens(self, studio: Server, images: Images) -> None:
        studio.close()
        with pytest.raises(ImageUnavailable, match="could not be fetched"):
            images.fetch(source(studio, "/a.png"))

    def test_redirects_in_a_ring(self, studio: Server, images: Images) -> None:
        studio.routes["/a.png"] = redirect("/a.png")
        with pytest.raises(ImageUnavailable, match="redirects too often"):
            images.fetch(source(studio, "/a.png"))
        assert len(studio.asked) < 10

    @pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://[::1/a", "data:,x"])
    def test_redirects_off_the_web(self, studio: Server, images: Images, target: str) -> None:
        studio.routes["/a.png"] = redirect(target)
        with pytest.raises(ImageUnavailable):
            images.fetch(source(studio, "/a.png"))

    @pytest.mark.parametrize("status", [200, 403, 404, 500])
    def test_messages_hold_no_secrets(self, studio: Server, storage: Server, tmp_path: Path, status: int) -> None:
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
        self, studio: Server, storage: Server, images: Images
    ) -> None:
        storage.close()
        studio.routes["/b.png"] = redirect(f"{storage.url}/a.png?X-Amz-Signature=hush")
        for ref in (f"{storage.url}/a.png?Signature=hush", "/b.png"):
            with pytest.raises(ImageUnavailable, match="could not be fetched") as error:
                images.load(source(studio, ref))
            assert "hush" not in "".join(traceback.format_exception(error.value))

    def test_a_full_disk(self, studio: Server, tmp_path: Path) -> None:
        studio.routes["/a.png"] = answer(PNG)
        (tmp_path / "cache").write_text("a file where the folder should be")
        with pytest.raises(ImageUnavailable, match="could not be stored") as error:
            make(tmp_path / "cache").fetch(source(studio, "/a.png"))
        assert str(tmp_path) not in str(error.value)


class TestKeeping:
    def test_an_image_is_fetched_once(self, studio: Server, images: Images) -> None:
        studio.routes["/a.png"] = answer(PNG)
        assert images.fetch(source(studio, "/a.png")) == images.fetch(source(studio, "/a.png"))
        assert len(studio.asked) == 1

    def test_connections_are_kept(self, studio: Server, images: Images) -> None:
        ports = set()

        def route(handler: BaseHTTPRequestHandler) -> None:
            ports.add(handler.client_address[1])
            answer(PNG)(handler)

        for number in range(3):
            studio.routes[f"/{number}.png"] = route
            images.fetch(source(studio, f"/{number}.png"))
        assert len(ports) == 1

    @pytest.mark.parametrize(
        ("first", "second", "same"),
        [
            ("?X-Amz-Signature=a&X-Amz-Date=1", "?X-Amz-Signature=b&X-Amz-Date=2", True),
            ("?X-Goog-Signature=a", "?X-Goog-Signature=b", True),
            ("?AWSAccessKeyId=a&Signature=a&Expires=1", "?AWSAccessKeyId=a&Signature=b&Expires=2", True),
            ("?sv=1&sr=b&sp=r&se=1&sig=a", "?sv=1&sr=b&sp=r&se=2&sig=b", True),
            ("?v=1&X-Amz-Signature=a", "?v=2&X-Amz-Signature=a", False),
            ("?se=1", "?se=2", False),
            ("?Expires=1", "?Expires=2", False),
            ("#a", "#b", True),
            ("?a=1", "?a=2", False),
        ],
    )
    def test_signatures_do_not_make_another_image(
        self, studio: Server, storage: Server, images: Images, first: str, second: str, same: bool
    ) -> None:
        storage.routes["/a.png"] = answer(PNG)
        one = images.fetch(source(studio, f"{storage.url}/a.png{first}"))
        two = images.fetch(source(studio, f"{storage.url}/a.png{second}"))
        assert (one == two) is same
        assert len(storage.asked) == (1 if same else 2)
        assert storage.paths[0] == f"/a.png{first.partition('#')[0]}"

    def test_two_label_studios_never_share(self, studio: Server, storage: Server, images: Images) -> None:
        for server, colour in ((studio, "red"), (storage, "blue")):
            server.routes["/data/upload/1/a.png"] = answer(encoded(Image.new("RGB", (1, 1), colour)))
        assert images.load(source(studio, "/data/upload/1/a.png")).tolist() == [[[0, 0, 255]]]
        assert images.load(source(storage, "/data/upload/1/a.png")).tolist() == [[[255, 0, 0]]]

    def test_threads_share_one_request(self, studio: Server, images: Images) -> None:
        def slow(handler: BaseHTTPRequestHandler) -> None:
            time.sleep(0.2)
            answer(PNG)(handler)

        studio.routes["/a.png"] = slow
        threads = [threading.Thread(target=images.fetch, args=(source(studio, "/a.png"),)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(studio.asked) == 1

    def test_a_failure_is_not_kept(self, studio: Server, images: Images) -> None:
        for body in (b"junk", PNG):
            studio.routes["/a.png"] = answer(body)
            if body == b"junk":
                with pytest.raises(ImageUnreadable, match=r"Image /a\.png is not an image"):
                    images.load(source(studio, "/a.png"))
        assert images.load(source(studio, "/a.png")).shape == (6, 8, 3)

    def test_a_file_that_left_the_cache(self, studio: Server, images: Images) -> None:
        studio.routes["/a.png"] = answer(PNG)
        path = images.fetch(source(studio, "/a.png"))
        path.unlink()
        with pytest.raises(ImageUnavailable):
            images.decode(path)
        assert images.load(source(studio, "/a.png")).shape == (6, 8, 3)


class TestDecoding:
    def decode(self, folder: Path, data: bytes, **limits: Any) -> Pixels:
        path = folder / "file"
        path.write_bytes(data)
        return make(folder, **limits).decode(path)

    @pytest.mark.parametrize(
        ("format", "options", "tolerance"),
        [
            ("PNG", {}, 0),
            ("BMP", {}, 0),
            ("TIFF", {}, 0),
            ("WEBP", {"lossless": True}, 0),
            ("JPEG", {"quality": 95}, 4),
            ("JPEG", {"quality": 95, "progressive": True}, 4),
        ],
    )
    def test_plain_files(self, tmp_path: Path, format: str, options: dict[str, Any], tolerance: int) -> None:
        pixels = self.decode(tmp_path, encoded(Image.new("RGB", (9, 5), RED), format, **options))
        assert pixels.shape == (5, 9, 3)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        assert np.abs(pixels.astype(int) - RED[::-1]).max() <= tolerance

    @pytest.mark.parametrize(
        ("image", "format", "expected"),
        [
            (Image.new("L", (2, 2), 77), "PNG", (77, 77, 77)),
            (Image.new("1", (2, 2), 1), "PNG", (255, 255, 255)),
            (Image.new("LA", (2, 2), (0, 0)), "PNG", (255, 255, 255)),
            (Image.new("RGBA", (2, 2), (0, 0, 0, 0)), "PNG", (255, 255, 255)),
            (Image.new("RGBA", (2, 2), (255, 0, 0, 51)), "PNG", (204, 204, 255)),
            (Image.new("RGB", (2, 2), RED).convert("P", palette=Image.Palette.ADAPTIVE), "PNG", RED[::-1]),
            (Image.fromarray(np.full((2, 2), 0x80FF, np.uint16)), "PNG", (128, 128, 128)),
            (Image.fromarray(np.full((2, 2), 0x80FF, np.uint16)), "TIFF", (128, 128, 128)),
            (Image.new("L", (2, 2), 77), "JPEG", (77, 77, 77)),
        ],
    )
    def test_odd_modes(self, tmp_path: Path, image: Image.Image, format: str, expected: tuple[int, ...]) -> None:
        pixels = self.decode(tmp_path, encoded(image, format))
        assert pixels.shape == (2, 2, 3)
        assert np.abs(pixels.astype(int) - expected).max() <= 1

    def test_a_transparent_colour_is_the_page(self, tmp_path: Path) -> None:
        for image, key in ((Image.new("RGB", (2, 2), RED), RED), (Image.new("P", (2, 2), 0), 0)):
            assert (self.decode(tmp_path, encoded(image, transparency=key)) == 255).all()

    def test_cmyk_jpeg(self, tmp_path: Path) -> None:
        pixels = self.decode(tmp_path, encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
        assert np.abs(pixels.astype(int) - (0, 0, 255)).max() <= 10

    @pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
    def test_the_first_frame_of_an_animation(self, tmp_path: Path, format: str) -> None:
        first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
        data = encoded(first, format, save_all=True, append_images=[second], duration=100)
        assert np.abs(self.decode(tmp_path, data).astype(int) - (0, 0, 255)).max() <= 3

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize(
        ("format", "mode"),
        [("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGB")],
    )
    def test_orientation(self, tmp_path: Path, format: str, mode: str, orientation: int) -> None:
        # One white, one grey corner on black tell all eight apart.
        upright = Image.new("RGB", (48, 32))
        upright.paste((255, 255, 255), (0, 0, 16, 16))
        upright.paste((128, 128, 128), (32, 0, 48, 16))
        undo = {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270,
        }
        stored = upright.transpose(undo[orientation]) if orientation in undo else upright
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"lossless": True} if format == "WEBP" else {"quality": 95} if format == "JPEG" else {}
        pixels = self.decode(tmp_path, encoded(stored.convert(mode), format, exif=exif, **options))
        expected = np.asarray(upright)[:, :, ::-1].astype(int)
        assert pixels.shape == expected.shape
        assert np.abs(pixels - expected).max() <= 24

    @pytest.mark.parametrize("exif", [b"Exif\x00\x00junk", b"Exif\x00\x00" + bytes(40)])
    def test_broken_exif_harms_nothing(self, tmp_path: Path, exif: bytes) -> None:
        assert self.decode(tmp_path, encoded(Image.new("RGB", (4, 2)), "JPEG", exif=exif)).shape == (2, 4, 3)

    def test_xmp_turns_nothing_as_in_a_browser(self, tmp_path: Path) -> None:
        xmp = b'<rdf:Description tiff:Orientation="6"/>'
        image = Image.new("RGB", (4, 2))
        assert self.decode(tmp_path, encoded(image, "JPEG", xmp=xmp)).shape == (2, 4, 3)
        assert self.decode(tmp_path, encoded(image.convert("CMYK"), "JPEG", xmp=xmp)).shape == (2, 4, 3)

    def test_an_orientation_outside_the_standard_is_ignored(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 9
        assert self.decode(tmp_path, encoded(Image.new("RGB", (4, 2)), "JPEG", exif=exif)).shape == (2, 4, 3)

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP"])
    def test_cut_files_are_unreadable(self, tmp_path: Path, format: str) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        data = encoded(Image.fromarray(noise), format)
        with pytest.raises(ImageUnreadable) as error:
            self.decode(tmp_path, data[: len(data) // 2])
        assert error.value.hint

    @pytest.mark.parametrize(
        "data", [b"", b"junk", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
    )
    def test_what_is_no_image(self, tmp_path: Path, data: bytes) -> None:
        with pytest.raises(ImageUnreadable, match="The image is not an image that can be read"):
            self.decode(tmp_path, data)

    def test_a_jpeg_with_bytes_behind_its_end(self, tmp_path: Path) -> None:
        data = encoded(Image.new("RGB", (4, 2)), "JPEG") + b"a phone's extras"
        assert self.decode(tmp_path, data).shape == (2, 4, 3)

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    @pytest.mark.parametrize("side", [1100, 12_000, 60_000])
    def test_bombs_are_refused_from_their_header(self, tmp_path: Path, side: int) -> None:
        # The header claims side x side pixels and next to no data follows: decoding it would fail otherwise.
        small = encoded(Image.new("L", (1, 1)))
        header = small[12:16] + side.to_bytes(4, "big") * 2 + small[24:29]
        data = small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:]
        with pytest.raises(ImageUnreadable, match="pixels") as error:
            self.decode(tmp_path, data)
        assert "YOLOOP_MAX_IMAGE_MEGAPIXELS" in error.value.hint

    def test_the_limit_itself_is_allowed(self, tmp_path: Path) -> None:
        assert self.decode(tmp_path, PNG, max_pixels=48).shape == (6, 8, 3)
        with pytest.raises(ImageUnreadable, match="8 x 6 pixels"):
            self.decode(tmp_path, PNG, max_pixels=47)


class TestLoadMany:
    def test_every_source_is_answered_once(self, studio: Server, images: Images) -> None:
        refs = []
        for number in range(40):
            refs.append(f"/{number}.png")
            if number % 4:
                studio.routes[refs[-1]] = answer(encoded(Image.new("RGB", (number, 1), RED)))
        studio.routes["/5.png"] = answer(b"junk")
        refs += ["", "file:///a"]
        outcomes = list(images.load_many([source(studio, ref) for ref in refs], time.monotonic() + 30))
        assert sorted(index for index, _ in outcomes) == list(range(42))
        for index, outcome in outcomes:
            if index % 4 == 0 or index > 39:
                assert isinstance(outcome, ImageUnavailable)
            elif index == 5:
                assert isinstance(outcome, ImageUnreadable)
            else:
                assert isinstance(outcome, np.ndarray)
                assert outcome.shape == (1, index, 3)

    def test_images_come_as_they_are_ready(self, studio: Server, images: Images) -> None:
        gate = threading.Event()

        def late(handler: BaseHTTPRequestHandler) -> None:
            gate.wait(10)
            answer(PNG)(handler)

        studio.routes["/late.png"] = late
        studio.routes["/soon.png"] = answer(PNG)
        found = images.load_many([source(studio, "/late.png"), source(studio, "/soon.png")], time.monotonic() + 30)
        assert next(found)[0] == 1
        gate.set()
        assert next(found)[0] == 0

    def test_the_same_address_is_fetched_once_and_answered_each_time(self, studio: Server, images: Images) -> None:
        studio.routes["/a.png"] = answer(PNG)
        outcomes = dict(images.load_many([source(studio, "/a.png", task) for task in range(5)], time.monotonic() + 30))
        assert sorted(outcomes) == [0, 1, 2, 3, 4]
        assert all(isinstance(outcome, np.ndarray) for outcome in outcomes.values())
        assert len(studio.asked) == 1

    def test_the_deadline_gives_up_only_what_is_late(self, studio: Server, tmp_path: Path) -> None:
        gate = threading.Event()

        def stuck(handler: BaseHTTPRequestHandler) -> None:
            gate.wait(10)
            answer(PNG)(handler)

        images = make(tmp_path, workers=3)
        for number in range(20):
            studio.routes[f"/{number}.png"] = stuck if number in (0, 1) or number > 10 else answer(PNG)
        started = time.monotonic()
        outcomes = dict(images.load_many([source(studio, f"/{n}.png") for n in range(20)], started + 1.0))
        assert time.monotonic() - started < 2
        gate.set()
        images.close()
        late = {index for index, outcome in outcomes.items() if isinstance(outcome, ImageUnavailable)}
        assert late == {0, 1, *range(11, 20)}
        assert "did not fit the time budget" in str(outcomes[19])

    def test_a_deadline_in_the_past_asks_for_nothing(self, studio: Server, images: Images) -> None:
        ((index, outcome),) = images.load_many([source(studio, "/a.png")], time.monotonic() - 1)
        assert index == 0
        assert isinstance(outcome, ImageUnavailable)
        assert studio.asked == []

    def test_a_slow_consumer_holds_the_others_back(self, studio: Server, tmp_path: Path) -> None:
        images = make(tmp_path, workers=2)
        for number in range(50):
            studio.routes[f"/{number}.png"] = answer(PNG)
        found = images.load_many([source(studio, f"/{n}.png") for n in range(50)], time.monotonic() + 30)
        next(found)
        time.sleep(0.3)
        assert len(studio.asked) <= 6
        found.close()  # type: ignore[attr-defined]
        images.close()

    def test_an_unforeseen_failure_costs_one_image(self, studio: Server, images: Images) -> None:
        def broken() -> dict[str, str]:
            raise RuntimeError("surprise")

        studio.routes["/b.png"] = answer(PNG)
        sources = [Source("/a.png", 1, studio.url, broken), source(studio, "/b.png")]
        outcomes = dict(images.load_many(sources, time.monotonic() + 30))
        assert isinstance(outcomes[0], ImageUnreadable)
        assert isinstance(outcomes[1], np.ndarray)

    def test_after_close_everything_is_answered_as_unavailable(self, studio: Server, images: Images) -> None:
        images.close()
        ((_, outcome),) = images.load_many([source(studio, "/a.png")], time.monotonic() + 30)
        assert isinstance(outcome, ImageUnavailable)
