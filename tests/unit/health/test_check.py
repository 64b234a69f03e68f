from __future__ import annotations

import pytest

from backend.errors import LabelStudioError, YoloopError
from backend.health.check import Check, asked, by_error, counted, guarded, ill, left_out, masked, well

CHECKS = [well("disk", "9 GiB are free."), ill("worker", "None runs.", "`yoloop up`"), left_out("token", "as it rains")]


def test_a_line_has_a_mark_and_what_mends_stands_below() -> None:
    assert [str(check) for check in CHECKS] == [
        "✓ disk: 9 GiB are free.",
        "✗ worker: None runs.\n  → `yoloop up`",
        "– token: left out, as it rains.",
    ]


def test_the_last_line_counts() -> None:
    assert counted(CHECKS) == "1 well, 1 to mend, 1 left out."
    assert counted(CHECKS[:1]) == "1 well, 0 to mend."
    assert counted([]) == "0 well, 0 to mend."


def test_an_error_is_told_with_its_hint_and_label_studios_words() -> None:
    error = LabelStudioError("It refused.", "Use another.", reason="Nobody may.")
    assert by_error("token", error) == ill("token", "It refused. It said: Nobody may.", "Use another.")
    assert by_error("token", error, "Run it.").mend == "Run it."
    assert by_error("token", LabelStudioError("It said no.", reason="said no")).told == "It said no."


def test_every_fault_names_what_to_do() -> None:
    assert by_error("x", YoloopError("Something happened.")).mend
    assert guarded("x", lambda: 1 // 0).mend  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("error", [ZeroDivisionError("line\nand line"), OSError(28, "No space"), KeyError("token")])
def test_a_check_that_fails_itself_is_not_well_and_one_line(error: Exception) -> None:
    def check() -> Check:
        raise error

    found = guarded("disk", check)
    assert (found.name, found.ok) == ("disk", False)
    assert type(error).__name__ in found.told and "\n" not in found.told


def test_what_a_check_brings_is_none_when_it_fails() -> None:
    assert asked("x", lambda: (CHECKS[0], 7)) == (CHECKS[0], 7)

    def fails() -> tuple[Check, int]:
        raise YoloopError("No.", "Try again.")

    assert asked("x", fails) == (ill("x", "No.", "Try again."), None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("the token hush-hush is", "the token … is"),
        ("http://me:word@host:1/a and https://x@y", "http://…@host:1/a and https://…@y"),
        ("Bearer eyJhbGci.eyJleHAi.c2ln-_9 was", "Bearer … was"),
        ("abc is short, hush-hush-hush is whole", "abc is short, … is whole"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
    ],
)
def test_secrets_are_masked_wherever_they_stand(text: str, shown: str) -> None:
    found = masked(ill("x", text, text), ["hush-hush", "hush-hush-hush", "abc", ""])
    assert (found.told, found.mend) == (shown, shown)


def test_secrets_that_nobody_named_are_masked_in_what_is_told() -> None:
    found = masked(ill("x", "It said: Token 0123456789abcdef0123456789abcdef01234567", "KEY=<token>"), [])
    assert "0123456789" not in found.told
    assert found.mend == "KEY=<token>"
