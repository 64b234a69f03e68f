"""Label Studio's refusals in words for a person: what happened, and the one thing to change."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from backend.errors import LabelStudioError
from backend.network.proxies import proxy_hint

TOKEN_HINT = (
    "In Label Studio open Account & Settings → Personal Access Token, create one, and set LABEL_STUDIO_API_KEY to it."
)


def public_url(url: str) -> str:
    """The address without user name, password and query: fit for messages."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def refusal(doing: str, url: str, key: str, error: Any) -> LabelStudioError:
    """The SDK's error in our words.

    Args:
        doing: completes "Label Studio refused to".
        url: Label Studio's address.
        key: the token, which no message may hold.
        error: the SDK's `ApiError`.
    """
    code = error.status_code
    reason = one_line(_words(error.body), key)
    if code == 401 and _asks_for_password(error.headers):
        return LabelStudioError(
            f"Something before Label Studio at {public_url(url)} asks for a user name and password.",
            "yoloop sends Label Studio's token and nothing else: let its requests pass.",
            code=code,
        )
    if code == 401:
        return LabelStudioError(_unknown(reason, key), TOKEN_HINT, reason=reason, code=code)
    if code is not None and 300 <= code < 400:
        target = public_url(str((error.headers or {}).get("location", "")))
        return LabelStudioError(
            f"Label Studio at {public_url(url)} sends its callers on to {target}.",
            "Set LABEL_STUDIO_URL to the address that it names.",
            code=code,
        )
    if code is None or code < 400 or (code == 404 and not isinstance(_parsed(error.body), dict)):
        return LabelStudioError(
            f"{public_url(url)} does not answer like Label Studio.",
            proxy_hint(url) or "Set LABEL_STUDIO_URL to Label Studio's address.",
            code=code,
        )
    hint = "Look into Label Studio's log." if code >= 500 else ""
    if code == 407 or code >= 500:
        hint = f"{hint} {proxy_hint(url)}".strip()
    if code == 403:
        hint = "Use a token of somebody who may administer the project."
    message = f"Label Studio refused to {doing} (HTTP {code})" + (f": {reason}" if reason else ".")
    return LabelStudioError(message, hint, reason=reason, code=code)


def _asks_for_password(headers: Mapping[str, str] | None) -> bool:
    """Whether a proxy with basic auth answers in Label Studio's place."""
    return any(
        name.lower() == "www-authenticate" and value.lower().startswith("basic")
        for name, value in (headers or {}).items()
    )


def _unknown(reason: str, key: str) -> str:
    """What is wrong with a token that Label Studio answers with 401."""
    if key.count(".") == 2:
        return (
            "Label Studio does not accept this personal access token: "
            "it is expired, revoked, incomplete or from another Label Studio."
        )
    if "legacy" in reason:
        return "This is a legacy token, and legacy tokens are switched off in this Label Studio."
    return "Label Studio does not know this token."


def one_line(words: str, key: str) -> str:
    """Label Studio's words as one line of plain text, without the token."""
    text = " ".join(re.sub(r"<[^>]*>", "", words).split())[:600]
    return text.replace(key, "…") if key else text


def _parsed(body: Any) -> Any:
    if not isinstance(body, str):
        return body
    try:
        return json.loads(body)
    except ValueError:
        return None


def _words(body: Any) -> str:
    """The reason in an error's body: the validation errors where there are some, else `detail`."""
    parsed = _parsed(body)
    if not isinstance(parsed, dict):
        return ""
    errors = parsed.get("validation_errors")
    if isinstance(errors, dict) and errors:
        return " ".join(
            str(text) if name == "non_field_errors" else f"{name}: {text}"
            for name, texts in errors.items()
            for text in (texts if isinstance(texts, list) else [texts])
        )
    return str(parsed.get("detail") or "")
