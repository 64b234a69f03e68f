"""What the chaos program makes of answers: harm that it could not see would look like a promise that was kept."""

from __future__ import annotations

import pytest
from chaos.checks import answers_good, tracebacks
from chaos.prober import Answer, longest_silence


def good(asked: float, number: int, took: float = 0.1) -> Answer:
    return Answer(asked, asked + took, number, "")


def silent(asked: float) -> Answer:
    return Answer(asked, asked + 0.1, 0, "ConnectionError", silent=True)


def test_good_answers_are_good() -> None:
    assert list(answers_good([good(0, 2), silent(1), good(2, 2), good(3, 4)], floor=2)) == []


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([good(0, 1)], "v1 answered after v2"),
        ([good(0, 4), good(1, 3)], "v3 answered after v4"),
        ([good(0, 2), Answer(1, 2, 0, "HTTP 500 oops")], "1 answers: HTTP 500 oops"),
        ([Answer(1, 2, 0, "v0: no trained version")] * 2, "2 answers: v0: no trained version"),
    ],
)
def test_wrong_answers_are_told(answers: list[Answer], said: str) -> None:
    assert list(answers_good(answers, floor=2)) == [said]


def test_silence_lasts_from_the_last_answer_to_the_next() -> None:
    assert longest_silence([good(0, 1), silent(1), silent(2), good(7, 1, took=0.5), good(8, 1)]) == pytest.approx(7.4)
    assert longest_silence([good(0, 1), good(5, 1), good(9, 1)]) == pytest.approx(0.1), "nobody asked in between"
    assert longest_silence([good(0, 1), good(1, 1, took=12), good(14, 1)]) == pytest.approx(12)
    assert longest_silence([silent(0), silent(1)]) == 0


def test_the_ends_of_tracebacks() -> None:
    log = "fine\nTraceback (most recent call last):\n  File x\n    y\nValueError: no\nfine\n"
    assert tracebacks(log * 2) == {"ValueError: no": 2}
    assert not tracebacks("Error: none\n")
