from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backend.health.connection import backend, order, ours, stale_webhooks, webhook
from backend.labelstudio.connect import UNCERTAINTY
from backend.labelstudio.records import BackendInfo, ProjectInfo, WebhookInfo
from backend.labelstudio.webhook import EVENTS, HEADER
from backend.settings import Settings

URL = "http://yoloop.lan:9090"
ROW = BackendInfo(1, URL, "yoloop", True, "", "v2", "")
HOOK = WebhookInfo(1, 7, f"{URL}/webhook", EVENTS, False, True, True, {HEADER: "secret"})
CONNECT = f"yoloop connect --project 7 --url {URL}"


def settings(tmp_path: Path, user: str = "") -> Settings:
    return Settings(home=tmp_path, basic_auth_user=user)


def test_a_backend_that_is_well(tmp_path: Path) -> None:
    found = backend("backend", [ROW], [HOOK], URL, settings(tmp_path), CONNECT)
    assert found.ok and "v2" in found.told
    other = replace(ROW, id=2, url="http://other:1", title="theirs")
    assert backend("backend", [other, ROW], [HOOK], URL, settings(tmp_path), CONNECT).ok
    # Added by hand in Label Studio, so nobody told where.
    assert backend("backend", [ROW], [HOOK], "", settings(tmp_path), CONNECT).ok


@pytest.mark.parametrize(
    ("rows", "user", "told"),
    [
        ([], "", "no ML backend"),
        ([replace(ROW, title="theirs", url="http://other:1")], "", "no ML backend"),
        ([ROW, replace(ROW, id=2)], "", "2 times"),
        ([replace(ROW, url="http://old:9090")], "", "It is at http://old:9090, and was connected at"),
        ([ROW], "me", "no user name"),
        ([replace(ROW, basic_auth_user="you")], "me", "the user name you"),
        ([replace(ROW, connected=False, error_message="503\n busy")], "", "503 busy"),
    ],
)
def test_a_backend_that_is_not_well(tmp_path: Path, rows: list[BackendInfo], user: str, told: str) -> None:
    found = backend("backend", rows, [], URL, settings(tmp_path, user), CONNECT)
    assert found.ok is False and told in found.told and f"`{CONNECT}`" in found.mend


def test_a_webhook_that_is_well() -> None:
    assert webhook("webhook", [HOOK], URL, "secret", CONNECT).ok
    assert webhook("webhook", [replace(HOOK, headers={HEADER.lower(): "secret"})], URL, "secret", CONNECT).ok
    assert webhook("webhook", [replace(HOOK, actions=frozenset(), send_for_all_actions=True)], URL, "secret", "").ok


def test_all_that_is_wrong_with_a_webhook_is_told_at_once() -> None:
    hook = replace(
        HOOK, is_active=False, headers={HEADER: "old"}, send_payload=False, actions=EVENTS - {"TASKS_CREATED"}
    )
    found = webhook("webhook", [hook], URL, "secret", CONNECT)
    assert found.told == (
        "It is switched off, carries another secret, does not tell of TASKS_CREATED, sends no payload."
    )
    assert found.mend == f"`{CONNECT}`"
    assert "old" not in found.told and "secret" not in found.mend


def test_webhooks_that_lead_elsewhere_are_stale() -> None:
    old = replace(HOOK, id=2, url="http://me:word@old:9090/webhook")
    found = stale_webhooks("stale", [HOOK, old], URL, CONNECT)
    assert found.ok is False and "http://old:9090/webhook" in found.told and "word" not in found.told
    assert stale_webhooks("stale", [HOOK], URL, CONNECT).ok


def test_webhooks_of_others_are_not_ours() -> None:
    theirs = replace(HOOK, id=3, url="http://other/hook", headers={})
    assert ours([ROW], [theirs, HOOK], URL) == [HOOK]


def test_the_order() -> None:
    info = ProjectInfo(7, "Shapes", datetime(2026, 1, 1, tzinfo=UTC), "<View/>", "v2", UNCERTAINTY)
    row = replace(ROW, title="v2")
    assert order("order", info, row, False, CONNECT).ok
    assert "sequential" in order("order", replace(info, sampling="Sequential sampling"), row, False, CONNECT).told
    behind = replace(info, model_version="v1"), replace(ROW, title="v1")
    assert order("order", *behind, False, CONNECT).ok is False
    waits = order("order", *behind, True, CONNECT)
    assert waits.ok and "by v1 until v2" in waits.told
