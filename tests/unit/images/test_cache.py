from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from backend.images.cache import ImageCache, content_of


def files(folder: Path) -> list[Path]:
    """The images' files, without the notes of which key stands for which."""
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".at"]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in files(folder))


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_what_was_put_is_there_for_another_process(tmp_path: Path) -> None:
    put = ImageCache(tmp_path, 1000).put("http://host/a?b=c", b"bytes")
    assert put.read_bytes() == b"bytes"
    assert ImageCache(tmp_path, 1000).get("http://host/a?b=c") == put
    assert ImageCache(tmp_path, 1000).get("http://host/a") is None


def test_nothing_is_made_before_something_is_put(tmp_path: Path) -> None:
    assert ImageCache(tmp_path / "cache", 10).get("a") is None
    assert not (tmp_path / "cache").exists()


def test_names_tell_nothing_of_the_key(tmp_path: Path) -> None:
    path = ImageCache(tmp_path, 1000).put("../../etc/secret?token=abc", b"x")
    assert path.parent.parent == tmp_path
    assert len(path.parent.name) == 2
    assert set(path.name) <= set("0123456789abcdef")
    assert all(b"secret" not in each.read_bytes() and "secret" not in each.name for each in path.parent.iterdir())


def test_putting_again_replaces(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, 1000)
    cache.put("a", b"old")
    assert cache.put("a", b"new").read_bytes() == b"new"
    found = cache.get("a")
    assert found is not None
    assert found.read_bytes() == b"new"


@pytest.mark.parametrize("left", [0, 1, 99])
def test_a_file_that_lost_bytes_is_no_file_and_is_written_anew(tmp_path: Path, left: int) -> None:
    data = bytes(range(100))
    path = ImageCache(tmp_path, 1000).put("a", data)
    path.write_bytes(data[:left])
    assert ImageCache(tmp_path, 1000).put("b", data).read_bytes() == data
    path.write_bytes(data[:left])
    assert ImageCache(tmp_path, 1000).get("a") is None
    assert ImageCache(tmp_path, 1000).put("a", data).read_bytes() == data


def test_notes_of_an_earlier_release_name_a_file_without_its_size(tmp_path: Path) -> None:
    path = ImageCache(tmp_path, 1000).put("a", b"bytes")
    (note,) = tmp_path.rglob("*.at")
    note.write_text(hashlib.sha256(b"bytes").hexdigest())
    assert ImageCache(tmp_path, 1000).get("a") == path


def test_keys_of_the_same_bytes_share_a_file(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, 1000)
    one, two = cache.put("a", b"same"), cache.put("b", b"same")
    assert one == two
    assert content_of(one) == hashlib.sha256(b"same").hexdigest()
    assert len(files(tmp_path)) == 1
    cache.put("b", b"other")
    found = cache.get("a")
    assert found is not None
    assert found.read_bytes() == b"same"


def test_keys_leave_with_their_files(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, 1000)
    for number in range(300):
        cache.put(f"key {number}", f"{number:03}".encode() * 20)
    notes = list(tmp_path.rglob("*.at"))
    assert len(notes) <= len(files(tmp_path)) + 2
    assert size(tmp_path) <= 1000 + 60


@pytest.mark.parametrize("note", [b"", b"junk", b"../../../etc/passwd", b"\xff" * 64, b"0" * 64])
def test_a_damaged_note_is_no_file(tmp_path: Path, note: bytes) -> None:
    cache = ImageCache(tmp_path, 1000)
    cache.put("a", b"x")
    (path,) = tmp_path.rglob("*.at")
    path.write_bytes(note)
    assert cache.get("a") is None
    assert cache.put("a", b"x").read_bytes() == b"x"
    assert cache.get("a") is not None


def test_the_least_recently_used_leaves(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, 300)
    for position, key in enumerate("abc"):
        age(cache.put(key, key.encode() * 100), 100 - position)
    assert cache.get("a") is not None  # now b is the oldest
    cache.put("d", b"d" * 60)
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.get("d") is not None
    assert size(tmp_path) <= 300


def test_what_was_made_leaves_before_any_image(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, 300)
    age(cache.put("a", b"a" * 140), 90)
    age(cache.put("of a", b"A" * 50, made=True), 30)
    age(cache.put("of b", b"B" * 50, made=True), 20)
    cache.put("b", b"b" * 140)
    assert [cache.get(key) is not None for key in ("a", "b", "of a", "of b")] == [True, True, False, False]
    cache.put("of b", b"B" * 50, made=True)  # would be too much
    assert [cache.get(key) is not None for key in ("a", "b", "of b")] == [True, True, False]
    cache.put("of b", b"B" * 15, made=True)
    assert [cache.get(key) is not None for key in ("a", "b", "of b")] == [True, True, True]
    cache.put("c", b"c" * 120)
    assert [cache.get(key) is not None for key in ("a", "b", "c", "of b")] == [False, True, True, False]


def test_the_oldest_of_what_was_made_leaves_first(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, 300)
    age(cache.put("a", b"a" * 100), 90)
    age(cache.put("of a", b"A" * 80, made=True), 20)
    age(cache.put("of b", b"B" * 80, made=True), 30)
    cache.put("of c", b"C" * 80, made=True)
    assert [cache.get(key) is not None for key in ("a", "of a", "of b", "of c")] == [True, True, False, True]


def test_a_file_larger_than_the_cache_stays_until_the_next(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, 10)
    assert cache.put("a", b"a" * 50).exists()
    assert cache.put("b", b"b" * 50).exists()
    assert cache.get("a") is None


def test_what_other_processes_wrote_counts(tmp_path: Path) -> None:
    ours, theirs = ImageCache(tmp_path, 1600), ImageCache(tmp_path, 1600)
    for number in range(40):
        ours.put(f"ours {number}", f"{number:02}a".encode() * 17)
        theirs.put(f"theirs {number}", f"{number:02}b".encode() * 17)
        assert size(tmp_path) <= 1600 + 2 * (100 + 51)


def test_an_empty_file_is_never_served(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, 1000)
    path = cache.put("a", b"x")
    path.write_bytes(b"")
    assert cache.get("a") is None
    assert not path.exists()
    with pytest.raises(ValueError, match="empty"):
        cache.put("a", b"")


def test_leftovers_of_killed_writers_are_removed_and_living_ones_kept(tmp_path: Path) -> None:
    shelf = ImageCache(tmp_path, 1000).put("a", b"x").parent
    dead, living = shelf / "tmp1.part", shelf / "tmp2.part"
    for part in (dead, living):
        part.write_bytes(b"half")
    age(dead, 3600)
    ImageCache(tmp_path, 1000).put("b", b"x")
    assert not dead.exists()
    assert living.exists()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, 1000)
    cache.put("a", b"x").unlink()
    with pytest.raises(TypeError):
        cache.put("a", "not bytes")  # type: ignore[arg-type]
    assert files(tmp_path) == []


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ImageCache(tmp_path, 1000)
    cache.put("a", b"old")

    def full(part: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        cache.put("a", b"new")
    found = cache.get("a")
    assert found is not None
    assert found.read_bytes() == b"old"
    assert not list(tmp_path.rglob("*.part"))


def test_discard(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, 1000)
    cache.put("a", b"x")
    cache.discard("a")
    cache.discard("a")
    assert cache.get("a") is None


def hammer(folder: Path, seed: int) -> int:
    """Puts and gets until done; returns how many wrong bytes were seen."""
    cache = ImageCache(folder, 4000)

    def one(number: int) -> int:
        key = str((number * 7 + seed) % 20)
        path = cache.put(key, key.encode() * 100) if number % 3 == 0 else cache.get(key)
        try:
            return int(path is not None and path.read_bytes() != key.encode() * 100)
        except FileNotFoundError:
            return 0

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(one, range(300)))


def test_threads_and_processes_never_see_half_a_file(tmp_path: Path) -> None:
    with get_context("spawn").Pool(2) as processes:
        assert processes.starmap(hammer, [(tmp_path, 1), (tmp_path, 2)]) == [0, 0]
    assert not list(tmp_path.rglob("*.part"))
