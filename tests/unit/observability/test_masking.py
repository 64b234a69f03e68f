from __future__ import annotations

import logging
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.observability.logs import LogFormat, about, configure
from backend.observability.masking import MASK, masked

LEGACY = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.Zm9v_-YmFy"
SECRET = "hush-Hush_hush.~+/=HUSH"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Token {LEGACY}",
        f"{{'Authorization': 'Bearer {PERSONAL}'}}",
        '{"authorization": "Basic aHVzaDpodXNo"}',
        "Basic aHVzaDpodXNoaHVzaA==",
        f"token {PERSONAL[:-9]} is expired",
        f"the key {LEGACY} was refused",
        f"{PERSONAL}",
        "X-Yoloop-Secret: hushhush",
        "headers={'X-Yoloop-Secret': 'hush-hush_hush'}",
        "http://me:hush@nas.lan/a.png",
        "https://:hush@nas.lan:8080",
        "https://hush@nas.lan/a.png",
        "/img?auth=hush&id-token=hush#x",
        "postgresql://me:hu:sh@db/mlflow",
        "/bucket/a.png?X-Amz-Credential=hush%2Fs3&X-Amz-Signature=hush&x=1",
        "/a.png?Expires=1&Signature=hu%2Bsh&AWSAccessKeyId=hush",
        "https://blob/a.png?sv=2024&sig=hush%3D",
        "/a?access_token=hush#x",
        f"YOLOOP_BASIC_AUTH_PASS={SECRET}",
        f"LABEL_STUDIO_API_KEY={SECRET}",
        f"api_key='{SECRET}'",
        f'"password": "{SECRET}"',
        "Cookie: sessionid=hush; csrftoken=hush",
    ],
)
def test_what_lets_somebody_in_is_hidden(text: str) -> None:
    shown = masked(text)
    assert MASK in shown
    assert "hush" not in shown.lower()
    for secret in (LEGACY, PERSONAL, "aHVz", "eyJ"):
        assert secret not in shown
    assert masked(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Label Studio does not know this token.",
        "Check LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY.",
        "The header X-Yoloop-Secret is wrong. Run `yoloop connect` again to set it.",
        "This is a legacy token, and legacy tokens are switched off in this Label Studio.",
        "In Label Studio open Account & Settings → Personal Access Token, create one, and set it.",
        "http://localhost:8080/data/upload/1/a.png?x=1&task=5",
        "Image http://nas.lan:8080/@home/a.png is at a reserved address.",
        "Project 7.1795453273 asked for job 0f8fad5bd9cb469fa16570867728950e",
        "sha256 " + "0" * 64,
        "User name or password is wrong. Set basic auth in the backend's settings in Label Studio.",
        "Basic auth is asked for",
    ],
)
def test_the_rest_is_left_as_it_is(text: str) -> None:
    assert masked(text) == text


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize(
    "part", ["://", "a:", "token ", "?sig", "eyJ", "eyJ.", "authorization:", "password= ", "a" * 9]
)
def test_long_texts_take_no_time(part: str) -> None:
    began = time.thread_time()
    masked(part * 20_000)
    assert time.thread_time() - began < 2


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_with_a_traceback_holds_none(
    form: LogFormat, own_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = logging.getLogger("backend")
    configure("INFO", "test", form)
    with about(request_id=LEGACY):
        try:
            raise ValueError(f'GET /a.png?X-Amz-Signature=hush with Token {LEGACY} and {{"password": "hush"}}')
        except ValueError:
            backend.exception("Asked http://me:%s@host with %s and %s", "hush", PERSONAL, '{"secret": "hush"}')
    told = capsys.readouterr().err
    assert "ValueError" in told
    assert "hush" not in told
    for secret in (LEGACY, PERSONAL):
        assert secret not in told
