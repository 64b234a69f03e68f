from __future__ import annotations

import pytest

from backend.errors import LabelConfigError
from backend.labels import attributes as given
from backend.labels.attributes import Attribute

ONE = Attribute(("model_x", "x"), "every control", "1", "What it does.")


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({}, None),
        ({"y": "1"}, None),
        ({"x": "1"}, "1"),
        ({"x": "1", "model_x": " 2 "}, " 2 "),
        ({"x": "1", "model_x": ""}, ""),
    ],
)
def test_the_first_name_goes_before_its_aliases(attributes: dict[str, str], text: str | None) -> None:
    assert given.text(ONE, attributes) == text


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, ()),
        ("", ()),
        (" , ,", ()),
        ("car", ("car",)),
        (" fire engine , bus,,car,car ", ("fire engine", "bus", "car", "car")),
    ],
)
def test_names(text: str | None, names: tuple[str, ...]) -> None:
    assert given.names(ONE, {} if text is None else {"x": text}) == names


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, None),
        ("true", True),
        (" TRUE ", True),
        ("1", True),
        ("Yes", True),
        ("false", False),
        ("0", False),
        ("no", False),
        ("", False),
        ("on", False),
    ],
)
def test_flags(text: str | None, value: bool | None) -> None:
    assert given.flag(ONE, {} if text is None else {"x": text}) is value


@pytest.mark.parametrize(("text", "value"), [(None, None), ("0", 0.0), ("1", 1.0), (" .25 ", 0.25), ("1e-3", 0.001)])
def test_shares(text: str | None, value: float | None) -> None:
    assert given.share(ONE, {} if text is None else {"x": text}, "label") == value


@pytest.mark.parametrize(("text", "value"), [(None, None), ("1", 1.0), ("0.5", 0.5), ("1e6", 1e6)])
def test_sizes(text: str | None, value: float | None) -> None:
    assert given.size(ONE, {} if text is None else {"x": text}, "label") == value


@pytest.mark.parametrize(("text", "value"), [(None, None), ("3", 3), (" 17 ", 17), ("4.0", 4), ("10000", 10_000)])
def test_counts(text: str | None, value: int | None) -> None:
    found = given.count(ONE, {} if text is None else {"x": text}, "label", 3)
    assert found == value
    assert found is None or isinstance(found, int)


NOT_NUMBERS = ["", "many", "0,5", "nan", "inf", "-inf", "true", "50%"]


@pytest.mark.parametrize("text", [*NOT_NUMBERS, "-0.01", "1.01"])
def test_what_is_no_share_is_named(text: str) -> None:
    with pytest.raises(LabelConfigError) as error:
        given.share(ONE, {"x": text}, "label")
    assert error.value.message == f"x of the control 'label' is {text!r}."
    assert error.value.hint == "It must be a number from 0 to 1, such as 0.25."


@pytest.mark.parametrize("text", [*NOT_NUMBERS, "0", "-1", "1e7"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(LabelConfigError) as error:
        given.size(ONE, {"model_x": text, "x": "4"}, "points")
    assert error.value.message == f"model_x of the control 'points' is {text!r}."
    assert error.value.hint == "It must be a positive number of pixels, such as 4."


@pytest.mark.parametrize("text", [*NOT_NUMBERS, "2", "-3", "3.5", "10001"])
def test_what_is_no_count_is_named(text: str) -> None:
    with pytest.raises(LabelConfigError) as error:
        given.count(ONE, {"x": text}, "label", 3)
    assert error.value.message == f"x of the control 'label' is {text!r}."
    assert error.value.hint == "It must be a whole number from 3 to 10000."


def test_the_table_holds_every_attribute_once() -> None:
    defined = [value for value in vars(given).values() if isinstance(value, Attribute)]
    assert sorted(defined, key=given.ATTRIBUTES.index) == list(given.ATTRIBUTES)
    names = [name for attribute in given.ATTRIBUTES for name in attribute.names]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("attribute", given.ATTRIBUTES, ids=lambda attribute: attribute.names[0])
def test_every_attribute_tells_what_it_is(attribute: Attribute) -> None:
    assert attribute.tags
    assert attribute.default
    assert attribute.meaning.endswith(".")
    # They stand in cells of a table.
    assert not any(sign in text for text in (attribute.tags, attribute.default, attribute.meaning) for sign in "|\n")


def test_the_names_of_the_public_example() -> None:
    names = {name for attribute in given.ATTRIBUTES for name in attribute.names}
    assert names >= {
        "model_skip",
        "model_score_threshold",
        "score_threshold",
        "model_path",
        "model_obb",
        "model_add_bboxes",
        "model_point_size",
        "model_point_threshold",
        "model_index",
        "predicted_values",
    }
