from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.fit.dataset.split import (
    FEWEST,
    Member,
    Present,
    alike_name,
    decide,
    field_name,
    image_name,
    other_image_name,
    split_key,
    task_name,
)
from backend.store.sides import BOTH, NEITHER, TRAINING, VALIDATION, Given


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://h/a.jpg?sig=1&se=2", "https://h/a.jpg?sig=3&se=4"),
        ("https://bob:hush@h/a.jpg?id=1", "http://h:80/a.jpg?id=1&token=5"),
        ("s3://b/a.jpg", "s3://b/a.jpg"),
    ],
)
def test_one_image_has_one_key(one: str, other: str) -> None:
    assert split_key(one) == split_key(other)
    assert image_name(one) == image_name(other)
    assert "hush" not in split_key(one)


@pytest.mark.parametrize(
    "form",
    [
        "https://h/img?id={}",
        "https://h/img?id={}&sig=5&se=7",
        "http://h:8080/data/local-files/?d=a/{}.jpg",
        "/data/local-files/?d=a/{}.jpg",
        "/data/upload/1/{}.jpg",
        "s3://bucket/{}.jpg?versionId=1",
        "s3://bucket/a.jpg?versionId={}",
        "https://h/img?key=0123456789abcdef0123{}",
        "https://h/a%2F{}.jpg",
        "https://h:80{}/a.jpg",
        "data:image/png;base64,{}",
    ],
)
def test_other_images_have_other_keys(form: str) -> None:
    assert len({image_name(form.format(number)) for number in range(40)}) == 40


def test_another_image_at_an_address_has_its_own_name() -> None:
    names = [image_name("/a.jpg"), *(other_image_name(image_name("/a.jpg"), bytes([n]) * 256) for n in range(3))]
    assert len(set(names)) == 4


def members(count: int, first: int = 0, **fields: object) -> list[Member]:
    """Images that nothing keeps together."""
    found = []
    for number in range(first, first + count):
        name = image_name(f"/{number}.jpg")
        found.append(Member(name, (alike_name(name),), "", (task_name(number),), frozenset(["Disc"])))
    return [replace(each, **fields) for each in found]  # type: ignore[arg-type]


def on(sides: Iterable[Given]) -> Counter[str]:
    return Counter(each.side for each in sides)


@pytest.mark.parametrize(
    ("count", "share", "held"),
    [(1, 0.2, 0), (2, 0.2, 0), (5, 0.2, 1), (9, 0.1, 0), (10, 0.05, 1), (10, 0.2, 2), (100, 0.2, 20), (500, 0.1, 50)],
)
def test_the_share_is_filled(count: int, share: float, held: int) -> None:
    assert on(decide(members(count), {}, [], share)[1])[VALIDATION] == held


def test_one_group_cannot_be_on_both_sides() -> None:
    alike = [replace(each, alike=(alike_name("a"),)) for each in members(15)]
    assert on(decide(alike, {}, [], 0.2)[1]) == {TRAINING: 15}


def test_a_fixed_camera_has_a_hold_out() -> None:
    """Groups of twenty look-alikes, of one family."""
    camera = [replace(each, alike=(alike_name(str(n // 20)),)) for n, each in enumerate(members(100))]
    assert on(decide(camera, {}, [], 0.2)[1]) == {VALIDATION: 20, TRAINING: 80}
    assert on(decide(camera[:40], {}, [], 0.2)[1]) == {VALIDATION: 20, TRAINING: 20}


def test_each_label_validates_and_trains() -> None:
    labels = ["Disc", "Square", "Triangle", "Rare"]
    shown = [replace(each, labels=frozenset([labels[min(n % 20, 3)]])) for n, each in enumerate(members(100))]
    seen = defaultdict(set)
    for member, given_side in zip(shown, decide(shown, {}, [], 0.2)[1], strict=True):
        seen[given_side.side] |= member.labels
    assert seen[VALIDATION] == seen[TRAINING] == set(labels)


def test_a_label_that_one_group_shows_trains() -> None:
    shown = [replace(each, labels=frozenset([str(n)])) for n, each in enumerate(members(9))]
    assert on(decide(shown, {}, [], 0.2)[1]) == {TRAINING: 9}
    few = [*shown, *members(1, 9)]
    assert on(decide(few, {}, [], 0.2)[1]) == {TRAINING: 9, VALIDATION: 1}, "one group does from ten images on"


def test_a_large_group_is_not_held_out_where_others_are_there() -> None:
    patients = members(80, together=(field_name("patient", "big"),)) + members(20, 80)
    given_sides = decide(patients, {}, [], 0.2)[1]
    assert {each.side for each in given_sides[:80]} == {TRAINING}
    assert on(given_sides[80:]) == {VALIDATION: 20}


def test_what_was_missed_is_made_up_for_step_by_step() -> None:
    present = [Present(str(number), TRAINING, frozenset(["Disc"]), 1) for number in range(100)]
    assert on(decide(members(10), {}, present, 0.2)[1]) == {TRAINING: 5, VALIDATION: 5}
    held = [Present(str(number), VALIDATION, frozenset(["Disc"]), 1) for number in range(100)]
    assert on(decide(members(10), {}, held, 0.2)[1]) == {TRAINING: 10}


class TestTies:
    def test_a_new_image_goes_where_its_group_is(self) -> None:
        for side in (TRAINING, VALIDATION):
            for names in (("alike",), ("together",)):
                (new,) = members(1)
                known = {getattr(new, names[0])[0]: Given("g", side)}
                gives, (found,) = decide([new], known, [], 0.2)
                assert found == Given("g", side)
                assert gives.new[new.name] == Given("g", side)

    @pytest.mark.parametrize("tie", [alike_name("right"), field_name("patient", "7")])
    def test_an_image_between_both_sides_is_left_out(self, tie: str) -> None:
        (new,) = members(1, alike=(alike_name("left"),), together=(tie,))
        known = {alike_name("left"): Given("l", TRAINING), tie: Given("r", VALIDATION)}
        gives, (found,) = decide([new], known, [], 0.2)
        assert found.side == NEITHER and new.name not in gives.new
        _, (again,) = decide([new], known | gives.new, [], 0.2)
        assert again.side == NEITHER

    def test_only_the_images_between_are_left_out(self) -> None:
        patient = field_name("patient", "7")
        new = members(10, together=(patient,))
        new[3] = replace(new[3], alike=(alike_name("a"),))
        for side, other in ((TRAINING, VALIDATION), (VALIDATION, TRAINING)):
            known = {patient: Given("p", side), alike_name("a"): Given("a", other)}
            found = decide(new, known, [], 0.2)[1]
            assert [each.side for each in found] == [NEITHER if number == 3 else side for number in range(10)]

    def test_groups_that_are_new_become_one(self) -> None:
        new = members(20)
        new[19] = replace(new[19], alike=tuple(each.alike[0] for each in new[::2]))
        found = decide(new, {}, [], 0.5)[1]
        assert len({each.group for each in found[::2]} | {found[19].group}) == 1
        assert len({each.side for each in found[::2]} | {found[19].side}) == 1

    def test_what_is_on_both_sides_since_before_trains_on(self) -> None:
        """A field that was named later than its images got their sides."""
        patient = field_name("patient", "7")
        old = members(2, together=(patient,))
        known = {old[0].name: Given("a", TRAINING), old[1].name: Given("b", VALIDATION)}
        gives, found = decide(old, known, [], 0.2)
        assert [each.side for each in found] == [TRAINING, VALIDATION]
        known |= gives.new
        known |= {name: replace_side(known[name]) for name in gives.both}
        assert known[patient].side == BOTH
        (new,) = members(1, 5, together=(patient,))
        assert decide([new], known, [], 0.9)[1][0].side == TRAINING

    def test_a_field_may_fix_the_side(self) -> None:
        new = [*members(5, wanted=VALIDATION), *members(5, 5, wanted=TRAINING), *members(10, 10)]
        found = decide(new, {}, [], 0.5)[1]
        assert {each.side for each in found[:5]} == {VALIDATION}
        assert {each.side for each in found[5:10]} == {TRAINING}
        assert on(found)[VALIDATION] == 10

    def test_a_field_does_not_move_an_image(self) -> None:
        new = members(1, wanted=VALIDATION)
        known = {new[0].name: Given("g", TRAINING)}
        assert decide(new, known, [], 0.5)[1][0].side == TRAINING

    def test_an_image_that_was_never_read_gets_no_side(self) -> None:
        new = members(1, alike=())
        gives, (found,) = decide(new, {}, [], 0.5)
        assert found.side == TRAINING and not gives.new

    def test_sides_of_earlier_releases_stay(self) -> None:
        old = members(40)
        old = [replace(each, before=VALIDATION if n % 4 == 0 else TRAINING) for n, each in enumerate(old)]
        gives, found = decide([*old, *members(20, 40)], {}, [], 0.9)
        assert [each.side for each in found[:40]] == [each.before for each in old]
        assert all(gives.new[each.alike[0]].side == each.before for each in old)

    def test_what_is_like_the_other_side_since_its_address_shows_another_image(self) -> None:
        (one,) = members(1)
        known = {one.name: Given("a", TRAINING), alike_name("b"): Given("b", VALIDATION)}
        assert decide([replace(one, alike=(alike_name("b"),))], known, [], 0.2)[1][0].side == NEITHER


def replace_side(given_side: Given) -> Given:
    return given_side._replace(side=BOTH)


numbers = st.integers(0, 5)
images = st.lists(
    st.builds(
        lambda number, task, group, also, patient, labels: Member(
            image_name(f"/{number}.jpg"),
            tuple(dict.fromkeys(alike_name(str(each)) for each in (group, *also))),
            "",
            (*((field_name("patient", str(patient)),) if patient else ()), task_name(task)),
            frozenset(labels),
        ),
        st.integers(0, 60),
        st.integers(0, 60),
        st.integers(0, 30),
        st.lists(st.integers(0, 30), max_size=1),
        st.integers(0, 10),
        st.lists(st.sampled_from("abc"), max_size=2),
    ),
    max_size=40,
)


@dataclass
class Home:
    """What a database remembers, batch after batch."""

    known: dict[str, Given] = field(default_factory=dict)
    there: dict[str, Present] = field(default_factory=dict)

    def take(self, new: Sequence[Member], share: float) -> list[Given]:
        asked = {name for each in new for name in each.names}
        known = {name: given_side for name, given_side in self.known.items() if name in asked}
        names = {each.name for each in new}
        others = [each for name, each in self.there.items() if name not in names]
        gives, found = decide(new, known, others, share)
        assert not gives.new.keys() & self.known.keys()
        self.known |= gives.new
        self.known |= {name: replace_side(self.known[name]) for name in gives.both}
        for member, own in zip(new, found, strict=True):
            if own.side != NEITHER:
                self.there[member.name] = Present(own.group, own.side, member.labels, 1)
        return found


@given(
    batches=st.lists(images, max_size=5),
    shares=st.lists(st.floats(0.05, 0.95), min_size=5, max_size=5),
    gone=st.sets(st.integers(0, 60)),
)
def test_a_side_never_changes_and_no_tie_is_torn(
    batches: list[list[Member]], shares: list[float], gone: set[int]
) -> None:
    """Whatever arrives, goes, and comes again, at any share."""
    home = Home()
    first: dict[str, str] = {}
    sides: dict[str, set[str]] = defaultdict(set)
    for batch, share in zip([*batches, *batches], [*shares, *shares], strict=False):
        for member, own in zip(batch, home.take(batch, share), strict=True):
            if own.side == NEITHER:  # the first time, or since its image is another one
                continue
            if member.name not in first:
                first[member.name] = own.side
                for name in (*member.alike, *member.together):
                    sides[name].add(own.side)
            assert own.side == first[member.name]
        for number in gone:
            home.there.pop(image_name(f"/{number}.jpg"), None)
    both = {name for name, own in home.known.items() if own.side == BOTH}
    assert all(len(found) == 1 for name, found in sides.items() if name not in both)


@given(batch=images, seed=st.integers(), share=st.floats(0.05, 0.95))
def test_the_order_within_a_batch_is_nothing(batch: list[Member], seed: int, share: float) -> None:
    mixed = list(range(len(batch)))
    random.Random(seed).shuffle(mixed)
    found = decide(batch, {}, [], share)[1]
    other = decide([batch[number] for number in mixed], {}, [], share)[1]
    assert [found[number] for number in mixed] == other


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=40), share=st.floats(0.05, 0.5), cut=st.integers(0, 40))
def test_the_share_is_kept_within_one_group(sizes: list[int], share: float, cut: int) -> None:
    """Of groups that come at once or in two batches."""
    home = Home()
    batch = [
        replace(each, together=(field_name("patient", str(patient)),), labels=frozenset())
        for patient, size in enumerate(sizes)
        for each in members(size, 100 * patient)
    ]
    at = sum(sizes[:cut])
    found = [*home.take(batch[:at], share), *home.take(batch[at:], share)]
    held = on(found)[VALIDATION]
    assert abs(held - share * len(batch)) <= max(sizes) + 1
    for patient in range(len(sizes)):
        start = sum(sizes[:patient])
        assert len({each.side for each in found[start : start + sizes[patient]]}) == 1
    if len(batch) >= FEWEST and len(sizes) > 1 and cut == 0:
        assert 0 < held < len(batch)
