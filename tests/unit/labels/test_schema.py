from __future__ import annotations

import pytest
from label_studio_sdk.label_interface import LabelInterface

from backend.errors import LabelConfigError
from backend.labels.schema import Control, LabelSchema, parse_label_config

PLAIN = """
<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image">
    <Label value="Car" background="green"/>
    <Label value="Plane" background="blue"/>
  </RectangleLabels>
</View>
"""


def config(control: str, image: str = '<Image name="image" value="$image"/>') -> str:
    return f"<View>{image}{control}</View>"


def only(xml: str) -> Control:
    (control,) = parse_label_config(xml).controls
    return control


def test_plain_config() -> None:
    assert only(PLAIN) == Control("label", "image", "RectangleLabels", "image", ("Car", "Plane"), {}, None)
    assert parse_label_config(PLAIN).classes == ("Car", "Plane")


def test_the_same_text_is_parsed_once() -> None:
    assert parse_label_config(PLAIN) is parse_label_config(PLAIN)


def test_a_schema_is_hashable() -> None:
    xml = config('<RectangleLabels name="l" toName="image"><Label value="a" predicted_values="b"/></RectangleLabels>')
    assert hash(parse_label_config(xml)) == hash(parse_label_config(xml + " "))


def test_other_tags_do_not_disturb() -> None:
    noisy = """<?xml version="1.0" encoding="utf-8"?>
    <!-- <RectangleLabels name="old" toName="image"><Label value="Old"/></RectangleLabels> -->
    <View className="a">
      <Style>.a > .b { color: red }</Style>
      <Header value="$title"/>
      <View><View style="display: flex"><Image name="image" value="$image" zoom="true"/></View></View>
      <Text name="text" value="$text"/>
      <RectangleLabels name="label" toName="image">
        <View><Label value="Car"/></View>
        <!-- a comment among labels -->
        <Label value="Plane"/>
      </RectangleLabels>
      <PolygonLabels name="poly" toName="image"><Label value="Roof"/></PolygonLabels>
      <RectangleLabels name="astray" toName="text"><Label value="Word"/></RectangleLabels>
      <RectangleLabels name="lost" toName="nowhere"><Label value="Lost"/></RectangleLabels>
      <Choices name="choice" toName="image"><Choice value="Yes"/></Choices>
      <TextArea name="note" toName="image"/>
    </View>"""
    assert parse_label_config(noisy) == parse_label_config(PLAIN)


def test_a_control_on_several_images_is_one_per_image() -> None:
    xml = config(
        '<RectangleLabels name="l" toName="a, t ,b"><Label value="x"/></RectangleLabels>',
        '<Image name="a" value="$left"/><Image name="b" value="$right"/><Text name="t" value="$t"/>',
    )
    assert [(c.from_name, c.to_name, c.data_key) for c in parse_label_config(xml).controls] == [
        ("l", "a", "left"),
        ("l", "b", "right"),
    ]


def test_classes_of_several_controls_have_no_repeats_and_keep_their_order() -> None:
    xml = config(
        '<RectangleLabels name="l" toName="image"><Label value="b"/><Label value="a"/></RectangleLabels>'
        '<RectangleLabels name="m" toName="image"><Label value="c"/><Label value="b"/></RectangleLabels>'
    )
    assert parse_label_config(xml).classes == ("b", "a", "c")


def test_label_values_keep_quotes_unicode_and_escapes() -> None:
    xml = config(
        '<RectangleLabels name="l" toName="image">'
        '<Label value=\'a "b"\'/><Label value="it\'s"/><Label value="R&amp;D &lt;1&gt;"/>'
        '<Label value="Äpfel 🍎 車"/>'
        "</RectangleLabels>"
    )
    assert only(xml).labels == ('a "b"', "it's", "R&D <1>", "Äpfel 🍎 車")


def test_an_alias_is_what_results_carry() -> None:
    xml = config('<RectangleLabels name="l" toName="image"><Label value="Shown" alias="stored"/></RectangleLabels>')
    assert only(xml).labels == ("stored",)
    assert only(xml).labels == tuple(LabelInterface(xml).get_control("l").labels)


def test_predicted_values_are_stripped() -> None:
    xml = config(
        '<RectangleLabels name="l" toName="image">'
        '<Label value="Vehicle" predicted_values=" car, ,bus "/><Label value="x"/></RectangleLabels>'
    )
    assert only(xml).predicted_values == {"Vehicle": ("car", "bus")}


@pytest.mark.parametrize(
    ("attributes", "threshold"),
    [
        ("", None),
        ('model_score_threshold="0.4"', 0.4),
        ('score_threshold="1"', 1.0),
        ('score_threshold="0.9" model_score_threshold="0"', 0.0),
    ],
)
def test_thresholds(attributes: str, threshold: float | None) -> None:
    xml = config(f'<RectangleLabels name="l" toName="image" {attributes}><Label value="x"/></RectangleLabels>')
    assert only(xml).score_threshold == threshold


@pytest.mark.parametrize("text", ["", "many", "-0.1", "1.01", "nan", "inf", "0,5"])
def test_a_threshold_that_is_no_share_is_named(text: str) -> None:
    xml = config(
        f'<RectangleLabels name="l" toName="image" score_threshold="{text}"><Label value="x"/></RectangleLabels>'
    )
    with pytest.raises(LabelConfigError, match=r"score_threshold of the control 'l'") as error:
        parse_label_config(xml)
    assert "0 to 1" in error.value.hint


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", "not XML"),
        ("no xml", "not XML"),
        ("<View>", "not XML"),
        ("<View>\ud800</View>", "not XML"),
        ("<View/>", "no RectangleLabels"),
        (config('<Choices name="c" toName="image"><Choice value="x"/></Choices>'), "no RectangleLabels"),
        (
            config('<RectangleLabels toName="image"><Label value="x"/></RectangleLabels>'),
            "no RectangleLabels",
        ),
        (config('<RectangleLabels name="l" toName="image"/>'), "has no labels"),
        (
            config('<RectangleLabels name="l" toName="image"><Label value=""/></RectangleLabels>'),
            "has no labels",
        ),
        (
            config(
                '<RectangleLabels name="l" toName="image"><Label value="x"/></RectangleLabels>',
                '<Image name="image" value="$meta.url"/>',
            ),
            "not one plain field",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_hint(xml: str, message: str) -> None:
    with pytest.raises(LabelConfigError, match=message) as error:
        parse_label_config(xml)
    assert error.value.hint


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE View [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE View [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE View SYSTEM "http://127.0.0.1:9/x.dtd">',
    ],
)
def test_document_types_and_entities_are_refused(doctype: str) -> None:
    with pytest.raises(LabelConfigError, match="document type"):
        parse_label_config(doctype + PLAIN.replace("Car", "&a;" if "ENTITY a" in doctype else "Car"))


def test_a_comment_may_speak_of_doctypes() -> None:
    assert isinstance(parse_label_config(f"<!-- <!DOCTYPE x> -->{PLAIN}"), LabelSchema)
