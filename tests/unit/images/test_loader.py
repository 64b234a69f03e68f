from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.sources import make, source
from support.web import PNG, RED, Server, answer, encoded

from backend.errors import ImageUnavailable, ImageUnreadable
from backend.images.decode import Decoded, decode
from backend.images.loader import Images, Source


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
        for query in (first, second):
            images.fetch(source(studio, f"{storage.url}/a.png{query}"))
        assert len(storage.asked) == (1 if same else 2)
        assert storage.paths[0] == f"/a.png{first.partition('#')[0]}"

    def test_two_label_studios_never_share(self, studio: Server, storage: Server, images: Images) -> None:
        for server, colour in ((studio, "red"), (storage, "blue")):
            server.routes["/data/upload/1/a.png"] = answer(encoded(Image.new("RGB", (1, 1), colour)))
        assert images.load(source(studio, "/data/upload/1/a.png")).pixels.tolist() == [[[0, 0, 255]]]
        assert images.load(source(storage, "/data/upload/1/a.png")).pixels.tolist() == [[[255, 0, 0]]]

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
        assert images.load(source(studio, "/a.png")).pixels.shape == (6, 8, 3)

    def test_a_file_that_left_the_cache(self, studio: Server, images: Images) -> None:
        studio.routes["/a.png"] = answer(PNG)
        path = images.fetch(source(studio, "/a.png"))
        path.unlink()
        assert images.load(source(studio, "/a.png")).pixels.shape == (6, 8, 3)


class TestShrunk:
    """Large images, of which the reduced pixels stay beside the file."""

    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The `cover` of every image that is decoded."""
        covers: list[int] = []

        def noted(data: bytes, max_pixels: int, name: str, *, cover: int = 0) -> Decoded:
            covers.append(cover)
            return decode(data, max_pixels, name, cover=cover)

        monkeypatch.setattr("backend.images.loader.decode", noted)
        return covers

    @pytest.fixture
    def large(self, studio: Server) -> Source:
        picture = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
        studio.routes["/a.jpg"] = answer(encoded(Image.fromarray(picture), "JPEG"))
        return source(studio, "/a.jpg")

    def test_they_are_decoded_once(self, images: Images, large: Source, decoded: list[int]) -> None:
        first, second = images.load(large, 100), images.load(large, 100)
        assert decoded == [100]
        assert first.size == second.size
        assert first.pixels.shape == (75, 100, 3)
        assert np.array_equal(first.pixels, second.pixels)

    def test_other_needs_are_decoded_by_themselves(self, images: Images, large: Source, decoded: list[int]) -> None:
        shapes = [images.load(large, cover).pixels.shape for cover in (100, 200, 0, 0, 100, 200)]
        assert decoded == [100, 200, 0, 0]
        assert shapes == [(75, 100, 3), (150, 200, 3), (600, 800, 3), (600, 800, 3), (75, 100, 3), (150, 200, 3)]

    def test_small_images_take_no_room_twice(self, images: Images, large: Source, tmp_path: Path) -> None:
        def size() -> int:
            return sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())

        images.fetch(large)
        before = size()
        images.load(large, 700)
        assert size() == before
        images.load(large, 100)
        assert size() > before

    def test_pixels_that_take_more_room_than_the_image_are_not_kept(
        self, images: Images, studio: Server, decoded: list[int]
    ) -> None:
        studio.routes["/plain.jpg"] = answer(encoded(Image.new("RGB", (800, 600)), "JPEG"))
        plain = source(studio, "/plain.jpg")
        assert images.load(plain, 100).shrunk
        images.load(plain, 100)
        assert decoded == [100, 100]

    def test_spoiled_pixels_are_made_again(
        self, images: Images, large: Source, decoded: list[int], tmp_path: Path
    ) -> None:
        original = images.fetch(large)
        images.load(large, 100)
        (kept,) = (path for path in tmp_path.rglob("*") if path.is_file() and b'"shape"' in path.read_bytes())
        for spoiled in (b"junk", bytes(kept.stat().st_size)):
            kept.write_bytes(spoiled)
            assert images.load(large, 100).pixels.shape == (75, 100, 3)
        assert decoded == [100, 100, 100]
        assert images.fetch(large) == original

    def test_the_limit_of_pixels_holds_for_what_was_kept(self, images: Images, large: Source, tmp_path: Path) -> None:
        images.load(large, 100)
        stricter = make(tmp_path, max_pixels=479_999)
        with pytest.raises(ImageUnreadable, match="800 x 600"):
            stricter.load(large, 100)
        stricter.close()


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
                assert isinstance(outcome, Decoded)
                assert outcome.pixels.shape == (1, index, 3)

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
        assert all(isinstance(outcome, Decoded) for outcome in outcomes.values())
        assert len(studio.asked) == 1

    def test_the_deadline_gives_up_only_what_is_late(self, studio: Server, tmp_path: Path) -> None:
        gate = threading.Event()

        def stuck(handler: BaseHTTPRequestHandler) -> None:
            released.append(gate.wait(60))
            answer(PNG)(handler)

        released: list[bool] = []
        images = make(tmp_path, workers=3, timeout=90.0)
        for number in range(20):
            studio.routes[f"/{number}.png"] = stuck if number in (0, 1) or number > 10 else answer(PNG)
        until = time.monotonic() + 5.0
        outcomes = dict(images.load_many([source(studio, f"/{n}.png") for n in range(20)], until))
        assert not released, "nobody waited for what is stuck"
        assert time.monotonic() < until + 10  # with room for a busy machine
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

    def test_an_urgent_image_that_is_here_waits_for_no_thread(self, studio: Server, tmp_path: Path) -> None:
        studio.routes["/a.png"] = answer(PNG)
        studio.routes["/bad.png"] = answer(b"no image")
        images = make(tmp_path)
        good, bad = source(studio, "/a.png"), source(studio, "/bad.png")
        images.fetch(good)
        images.fetch(bad)
        images.close()  # its threads take nothing any more
        later = time.monotonic() + 5
        assert [index for index, found in images.load_many([good, good], later, urgent=True)] == [0, 1]
        ((_, found),) = images.load_many([good], later, urgent=True)
        assert isinstance(found, Decoded)
        ((_, found),) = images.load_many([bad], later, urgent=True)
        assert isinstance(found, ImageUnreadable)
        for sources, until, urgent in (([good], later, False), ([good], time.monotonic() - 1, True)):
            ((_, found),) = images.load_many(sources, until, urgent=urgent)
            assert isinstance(found, ImageUnavailable)

    def test_an_urgent_image_does_not_queue_behind_others(self, studio: Server, tmp_path: Path) -> None:
        gate = threading.Event()

        def stuck(handler: BaseHTTPRequestHandler) -> None:
            gate.wait(10)
            answer(PNG)(handler)

        images = make(tmp_path, workers=2)
        for number in range(4):
            studio.routes[f"/{number}.png"] = stuck
        studio.routes["/urgent.png"] = answer(PNG)
        sources = [source(studio, f"/{number}.png") for number in range(4)]
        others: list[object] = []
        bulk = threading.Thread(target=lambda: others.extend(images.load_many(sources, time.monotonic() + 30)))
        bulk.start()
        ((_, outcome),) = images.load_many([source(studio, "/urgent.png")], time.monotonic() + 5, urgent=True)
        assert isinstance(outcome, Decoded)
        assert others == []
        gate.set()
        bulk.join(10)
        assert len(others) == 4
        images.close()

    def test_an_unforeseen_failure_costs_one_image(self, studio: Server, images: Images) -> None:
        def broken() -> dict[str, str]:
            raise RuntimeError("surprise")

        studio.routes["/b.png"] = answer(PNG)
        sources = [Source("/a.png", 1, studio.url, broken), source(studio, "/b.png")]
        outcomes = dict(images.load_many(sources, time.monotonic() + 30))
        assert isinstance(outcomes[0], ImageUnreadable)
        assert isinstance(outcomes[1], Decoded)

    def test_after_close_everything_is_answered_as_unavailable(self, studio: Server, images: Images) -> None:
        images.close()
        ((_, outcome),) = images.load_many([source(studio, "/a.png")], time.monotonic() + 30)
        assert isinstance(outcome, ImageUnavailable)
