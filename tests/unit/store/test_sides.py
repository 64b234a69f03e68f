from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backend.store.database import Store
from backend.store.sides import BOTH, TRAINING, VALIDATION, Given, Gives, Sides, copy_sides

UID = "1.100"


def keep(sides: Sides, new: dict[str, Given], uid: str = UID) -> None:
    sides.give(uid, new.keys(), lambda known: (Gives({name: new[name] for name in new if name not in known}), None))


def test_a_side_stays_and_survives_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'yoloop.db'}"
    store = Store(url)
    keep(Sides(store), {"a": Given("a", TRAINING), "b": Given("b", VALIDATION)})
    Sides(store).give(UID, {"a"}, lambda _: (Gives({"a": Given("other", VALIDATION)}), None))
    store.close()
    store = Store(url)
    assert Sides(store).known(UID, {"a", "b", "c"}) == {"a": Given("a", TRAINING), "b": Given("b", VALIDATION)}
    store.close()


def test_what_is_decided_on_is_what_is_known_then(store: Store) -> None:
    sides = Sides(store)
    seen: list[Mapping[str, Given]] = []

    def decide(known: Mapping[str, Given]) -> tuple[Gives, int]:
        seen.append(known)
        return Gives({} if "a" in known else {"a": Given(str(len(seen)), TRAINING)}), len(known)

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: Sides(store).give(UID, {"a", "b"}, decide), range(8)))
    assert sorted(outcomes) == [0, *[1] * 7]
    assert sides.known(UID, {"a"}) == seen[-1]


def test_many_names_are_asked_for_at_once(store: Store) -> None:
    sides = Sides(store)
    new = {str(number): Given("g", TRAINING) for number in range(3000)}
    keep(sides, new)
    assert sides.known(UID, new.keys()) == new
    assert sides.known(UID, {"7", "x"}) == {"7": Given("g", TRAINING)}


def test_what_kept_images_of_both_sides_together_is_noted(store: Store) -> None:
    sides = Sides(store)
    keep(sides, {"patient": Given("g", TRAINING), "other": Given("h", TRAINING)})
    sides.give(UID, {"patient"}, lambda _: (Gives({}, {"patient"}), None))
    assert sides.known(UID, {"patient", "other"}) == {"patient": Given("g", BOTH), "other": Given("h", TRAINING)}


def test_projects_have_sides_of_their_own(store: Store, tmp_path: Path) -> None:
    sides = Sides(store)
    keep(sides, {"a": Given("a", TRAINING)})
    keep(sides, {"a": Given("a", VALIDATION)}, "2.200")
    other = Store(f"sqlite:///{tmp_path / 'other.db'}")
    for _ in range(2):
        copy_sides(store, other, UID)
    assert Sides(other).known(UID, {"a"}) == {"a": Given("a", TRAINING)}
    assert not Sides(other).known("2.200", {"a"})
    other.close()
    store.forget(UID)
    assert not sides.known(UID, {"a"})
    assert sides.known("2.200", {"a"})
