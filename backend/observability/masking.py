"""Text without what lets somebody in: for logs, answers and messages, whatever brought it there.

Nothing here relies on knowing the secrets. It finds them by what stands around them and by the forms that Label
Studio's have, so it can be asked about any text; that a 40-digit commit is taken for a token harms nothing.
"""

from __future__ import annotations

import logging
import re

MASK = "…"

_SCHEME = r"(?:basic|bearer|token)"
_NAMED = (
    r"x-yoloop-secret|(?:proxy-)?authorization|cookie|csrftoken|sessionid|api[-_]?key|access[-_]?token|refresh(?:[-_]token)?"
    r"|token|secret|password|passwd|basic_auth_pass|label_studio_api_key"
)
_SIGNED = (
    r"x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|signature|sig|awsaccesskeyid"
    r"|googleaccessid|key-pair-id|policy"
)
_IN_QUERY = (
    r"(?:auth|id|session|security|sas|api|bearer)[-_]?token|(?:auth|access|subscription)[-_]?key|key|pwd|pass|jwt|sas"
    r"|auth|code|client[-_]?secret"
)
_PATTERNS = (
    # https://user:password@host, https://token@host
    (re.compile(r"(?<=://)[^/\s?#'\"@:]*:[^/\s?#'\"]*(?=@)|(?<=://)[^/\s?#'\"@:]+(?=@)"), MASK),
    # ?X-Amz-Signature=…
    (re.compile(rf"([?&;](?:{_SIGNED}|{_NAMED}|{_IN_QUERY})=)[^&#\s'\"<>]+", re.I), rf"\1{MASK}"),
    # "Authorization": "Token …", api_key='…'
    (
        re.compile(
            rf"((?<![\w-])(?:yoloop_)?(?:{_NAMED})['\"]?\s*[:=]\s*['\"]?(?:{_SCHEME}\s+)?)[^\s'\",;}})&]+", re.I
        ),
        rf"\1{MASK}",
    ),
    (re.compile(rf"(\b{_SCHEME}\s+)[\w.~+/=-]{{16,}}", re.I), rf"\1{MASK}"),
    # A personal access token, and a legacy one.
    (re.compile(r"\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?"), MASK),
    (re.compile(r"(?<![0-9a-zA-Z])[0-9a-f]{40}(?![0-9a-zA-Z])"), MASK),
)


def masked(text: str) -> str:
    """The text with an ellipsis in place of tokens, passwords, secrets and signatures."""
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


class Masked(logging.Formatter):
    """Another formatter, tracebacks included, without secrets."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return masked(self._inner.format(record))
