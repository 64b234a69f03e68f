from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sources import SECRET, make, source
from support.web import PNG, Server, answer, redirect

from backend.errors import ImageError, ImageUnavailable, LabelStudioError
from backend.images.addresses import embedded, embedded_in, identity, locate, without_embedded, without_query
from backend.images.loader import Images, Source


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
def test_paths_on_label_studio(studio: Server, images: Images, ref: str, path: str) -> None:
    studio.routes[path] = answer(PNG)
    assert images.fetch(source(studio, ref)).read_bytes() == PNG
    assert studio.paths == [path]
    assert studio.credentials() == [SECRET]


def test_a_label_studio_below_a_prefix(studio: Server, images: Images) -> None:
    studio.routes["/ls/data/a.png"] = studio.routes["/ls/b.png"] = answer(PNG)
    for ref in ("/ls/data/a.png", "/b.png"):
        images.fetch(Source(ref, 1, f"{studio.url}/ls/", lambda: {"Authorization": SECRET}))
    assert studio.paths == ["/ls/data/a.png", "/ls/b.png"]


def test_an_absolute_address_on_label_studio(studio: Server, images: Images) -> None:
    studio.routes["/data/a.png"] = answer(PNG)
    images.fetch(source(studio, f"{studio.url}/data/a.png#top".replace("http:", "HTTP:")))
    assert studio.credentials() == [SECRET]


def test_another_host_gets_no_credentials(studio: Server, storage: Server, images: Images) -> None:
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
    studio: Server, storage: Server, images: Images, crafted: str
) -> None:
    with pytest.raises(ImageUnavailable):
        images.fetch(source(studio, crafted.format(studio=studio.port, other=storage.port)))
    assert SECRET not in storage.credentials()
    assert all(
        headers["host"] == f"127.0.0.1:{studio.port}" for _, headers in studio.asked if "authorization" in headers
    )


def test_netrc_and_cookies_stay_out(
    studio: Server, storage: Server, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
def test_cloud_storages(studio: Server, storage: Server, images: Images, uri: str) -> None:
    studio.routes["/tasks/7/presign/"] = redirect(f"{storage.url}/a.png?X-Amz-Signature=abc")
    storage.routes["/a.png"] = answer(PNG)
    assert images.fetch(source(studio, uri)).read_bytes() == PNG
    (path,) = studio.paths
    assert base64.urlsafe_b64decode(path.partition("fileuri=")[2]).decode() == uri
    assert studio.credentials() == [SECRET]
    assert storage.credentials() == [None]


def test_a_storage_that_label_studio_passes_through(studio: Server, images: Images) -> None:
    studio.routes["/tasks/7/presign/"] = answer(PNG)
    assert images.fetch(source(studio, "s3://bucket/a.png")).read_bytes() == PNG


def test_a_redirect_back_to_label_studio_is_authorised_again(studio: Server, storage: Server, images: Images) -> None:
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
def test_embedded_images_need_neither_network_nor_disk(tmp_path: Path, ref: str) -> None:
    images = make(tmp_path / "cache")
    assert images.load(Source(ref, None, "", dict)).pixels.shape == (6, 8, 3)
    assert not (tmp_path / "cache").exists()
    assert images.fetch(Source(ref, None, "", dict)).read_bytes() == PNG


@pytest.mark.parametrize("ref", ["data:", "data:image/png;base64", "data:image/png;base64,", "data:,%"])
def test_malformed_embedded_images(images: Images, ref: str) -> None:
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
        ("http://127.0.0.1:notaport/a.png", "malformed"),
    ],
)
def test_addresses_that_cannot_be_used(studio: Server, images: Images, ref: Any, words: str) -> None:
    with pytest.raises(ImageUnavailable, match=words) as error:
        images.fetch(source(studio, ref))
    assert error.value.hint


@pytest.mark.parametrize("ref", ["/data/a.png", "s3://bucket/a.png"])
def test_without_label_studios_address(images: Images, ref: str) -> None:
    with pytest.raises(ImageUnavailable, match="address is not known") as error:
        images.fetch(Source(ref, 1, "", dict))
    assert "LABEL_STUDIO_URL" in error.value.hint


def test_a_cloud_storage_without_a_task(studio: Server, images: Images) -> None:
    with pytest.raises(ImageUnavailable, match="needs a task"):
        images.fetch(source(studio, "s3://bucket/a.png", task_id=None))


def test_a_token_that_cannot_be_had(studio: Server, images: Images) -> None:
    def auth() -> dict[str, str]:
        raise LabelStudioError("No token.", "Make one.")

    with pytest.raises(ImageUnavailable, match=r"No token\. Make one\."):
        images.fetch(Source("/a.png", 1, studio.url, auth))
    assert studio.asked == []


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("http://bob:hush@host/a.jpg", "host/a.jpg"),
        ("https://hush@host:8/a.jpg?x=1&token=hush", "host:8/a.jpg?x=1"),
        (" HTTP://bob:hu@sh@Host:80/a.jpg#hush", "host/a.jpg"),
        ("https://host:443/a.jpg?", "host/a.jpg"),
        ("http://host:443/a.jpg", "host:443/a.jpg"),
        ("//bob:hush@host/a.jpg?token=hush&x=1", "host/a.jpg?x=1"),
        ("bob:hush@host/a.jpg", "host/a.jpg"),
        ("s3://key:hush@bucket/a b.jpg?X-Amz-Signature=hush&X-Amz-Credential=hush", "s3://bucket/a b.jpg"),
        ("s3://bucket/a#1.jpg", "s3://bucket/a#1.jpg"),
        ("azure-blob://box/a.jpg?sv=1&sp=r&sig=hush&x=1", "azure-blob://box/a.jpg?x=1"),
        ("/data/local-files/?d=a/b.jpg&token=hush#hush", "/data/local-files/?d=a/b.jpg"),
        ("http://ls:8080/data/local-files/?d=a/b.jpg", "ls:8080/data/local-files/?d=a/b.jpg"),
        ("/data/upload/1/a.jpg?access_token=hush&Password=hush&api-key=hush&n=2", "/data/upload/1/a.jpg?n=2"),
        ("/img?key=folder/a.jpg&key=hush-hush-hush-hush", "/img?key=folder/a.jpg&key=f3e7ace8e84e2d44"),
        ("/img?id=1&anything=eyJhdXNo.hush.hush", "/img?id=1"),
        ("https://host/img?id=1&expires=1790000000&md5=hush", "host/img?id=1"),
        ("https://host/img?id=1&exp=2", "host/img?id=1&exp=2"),
        ("https://host/img?id=1&q-signature=hush&q-ak=hush&q-key-time=hush", "host/img?id=1"),
        ("https://host/img?id=1&x-oss-signature=hush&x-oss-date=20260101T000000Z", "host/img?id=1"),
        ("https://host/img?OSSAccessKeyId=hush&Expires=1790000000&Signature=hush&id=1", "host/img?id=1"),
        ("s3://bucket/me@home.jpg", "s3://bucket/me@home.jpg"),
        ("/data/upload/1/me@home.jpg", "/data/upload/1/me@home.jpg"),
        ("data:image/png;base64,AAAA", embedded("data:image/png;base64,AAAA")),
        (embedded("data:image/png;base64,AAAA"), embedded("data:image/png;base64,AAAA")),
    ],
)
def test_what_names_an_image_lets_nobody_in(ref: str, name: str) -> None:
    assert identity(ref) == name
    assert "hush" not in without_query(ref) and "bob:hu" not in without_query(ref)
    try:
        shown = locate(ref, 7, "http://ls").name
    except ImageUnavailable as error:
        shown = str(error)
    assert "hush" not in shown and "bob:hu" not in shown


def test_what_is_shown_of_an_address_is_without_its_query() -> None:
    assert without_query("https://bob:hush@host:8/a.jpg?x=1&token=hush") == "host:8/a.jpg"
    assert without_query("/data/local-files/?d=a/b.jpg&token=hush") == "/data/local-files/?d=a/b.jpg"


parameters = st.lists(
    st.tuples(st.sampled_from(["id", "d", "file", "page", "v", "exp", "key"]), st.text("ab/ .1é%&=#?@:+", max_size=6)),
    min_size=1,
    max_size=3,
)
hosts = st.sampled_from(["host", "host:8080", "[::1]", "bücher.de"])
SIGNATURES = (
    "X-Amz-Algorithm=AWS4&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-Signature={}",
    "Expires=179{:07}&Signature={}%3D&Key-Pair-Id=K",
    "sv=1&se=2026-01-01T00:00:00Z&sr=b&sp=r&sig={}",
    "GoogleAccessId=a@b&Expires=1790000000&Signature={}",
    "token={}",
    "access_token={}&expires=179{:07}",
)


@given(host=hosts, one=parameters, other=parameters, signature=st.sampled_from(SIGNATURES), at=st.integers(0, 3))
def test_a_query_tells_images_apart_and_a_signature_does_not(
    host: str, one: list[tuple[str, str]], other: list[tuple[str, str]], signature: str, at: int
) -> None:
    def signed(parameters: list[tuple[str, str]], number: int, user: str = "") -> str:
        pairs = urlencode(parameters).split("&")
        pairs[at:at] = signature.format(number, number).split("&")
        return f"https://{user}{host}/get?{'&'.join(pairs)}"

    assert identity(signed(one, 1)) == identity(signed(one, 2, "bob:hush@"))
    assert "hush" not in identity(signed(one, 1, "bob:hush@"))
    assert (identity(signed(one, 1)) == identity(signed(other, 1))) == (one == other)


def test_a_password_with_a_slash_in_it_is_not_told() -> None:
    ref = "http://bob:hu/sh@host/a.jpg"
    assert "sh@" not in identity(ref) and identity(ref) != identity(ref.replace("a.jpg", "b.jpg"))
    with pytest.raises(ImageUnavailable, match="malformed") as error:
        locate(ref, 7, "")
    assert "sh@" not in str(error.value)


def test_the_cache_tells_tokens_apart_and_signatures_not() -> None:
    one, other = (locate(f"https://h/a.jpg?token={token}", 7, "").key for token in ("hush", "shush"))
    assert one != other and "hush" not in one + other
    one, other = (locate(f"https://h/a.jpg?x=1&sig={signature}&se=1", 7, "").key for signature in ("hush", "shush"))
    assert one == other


def test_embedded_images_are_told_from_all_else() -> None:
    one, other = "data:image/png;base64,AAAA", " DATA:,x"
    data = {"image": one, "more": [{"deep": other}, 3, None], "text": "data: one, two", "data:": "x"}
    assert list(embedded_in(data)) == [one, other]
    short = without_embedded(data)
    assert short == {**data, "image": embedded(one), "more": [{"deep": embedded(other)}, 3, None]}
    assert without_embedded(short) == short and list(embedded_in(short)) == []
    assert locate(embedded(one), 7, "").key == embedded(one)
    with pytest.raises(ImageUnavailable):
        locate("yoloop-embedded:no hash", 7, "")
