"""What `yoloop doctor` asks Label Studio beside what the other commands ask. Nothing here changes anything there."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from backend.errors import LabelStudioError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.refusals import public_url
from backend.network.proxies import proxies_of, proxy_hint

LARGEST = 2**20
"""Bytes of an answer that are read."""

_RESERVED = "reserved network address"
_NO_EVENT = "NO_SUCH_EVENT"


@dataclass(frozen=True, slots=True)
class Greeting:
    """What Label Studio tells a stranger: its release, and by how many seconds its clock is ahead of ours (None: it
    does not say)."""

    release: str
    ahead: float | None


def greet(url: str, timeout: float = 10.0) -> Greeting:
    """Ask for the release without any token. Raises LabelStudioError.

    Args:
        timeout: seconds for the whole answer.
    """
    where = f"Label Studio at {public_url(url)}"
    proxy = proxy_hint(url)
    began = time.time()
    try:
        with requests.get(
            f"{url}/api/version",
            timeout=timeout,
            stream=True,
            allow_redirects=False,
            auth=_unchanged,
            proxies=proxies_of(url),
        ) as answer:
            body = _read(answer, began + timeout)
            told = time.time()
    except requests.Timeout:
        hint = proxy or "Restart Label Studio."
        raise LabelStudioError(f"{where} does not answer within {timeout:g} s.", hint) from None
    except requests.exceptions.SSLError:
        raise LabelStudioError(
            f"The certificate of {where} is not accepted.",
            "Name its authority in REQUESTS_CA_BUNDLE and SSL_CERT_FILE.",
        ) from None
    except (requests.RequestException, OSError, ValueError) as error:
        raise LabelStudioError(f"{where} cannot be reached: {_cause(error)}.", proxy or "Start Label Studio.") from None
    code = answer.status_code
    if code in (401, 403, 407):
        raise LabelStudioError(
            f"Something before {where} lets nobody in (HTTP {code}).",
            proxy or "Let requests of yoloop pass the proxy in front of Label Studio.",
        )
    if 300 <= code < 400:
        target = public_url(answer.headers.get("Location", "")) or "another address"
        raise LabelStudioError(f"{where} sends its callers on to {target}.", "Use the address that it names.")
    if code == 429 or code >= 500:
        raise LabelStudioError(f"{where} answers HTTP {code}.", proxy or "Look into Label Studio's log.")
    release = _release(body)
    if code != 200 or not release:
        hint = proxy or "Use Label Studio's address."
        raise LabelStudioError(f"{public_url(url)} does not answer like Label Studio.", hint)
    return Greeting(release, _ahead(answer.headers.get("Date", ""), (began + told) / 2))


class Probe(LabelStudioClient):
    """Label Studio's API, with what only `yoloop doctor` asks."""

    def reserved(self, project_id: int, url: str) -> tuple[bool, bool]:
        """Whether Label Studio refuses to talk to an address as an ML backend, and as a webhook's.

        It looks at the address first, so it is asked for rows that it cannot make: one without a project, one for an
        event that there is not. Raises LabelStudioError, also when the token may not make such rows.
        """
        hook = {"project": project_id, "url": f"{url.rstrip('/')}/webhook", "actions": [_NO_EVENT]}
        return (
            self._refused("check an ML backend's address", "api/ml/", {"url": url, "title": "yoloop"}),
            self._refused("check a webhook's address", "api/webhooks/", hook),
        )

    def any_task(self, project_id: int) -> tuple[int, dict[str, Any]] | None:
        """Id and data of a task, one without annotations where there is one; None: the project has no task."""
        unlabelled = {
            "filter": "filter:tasks:total_annotations",
            "operator": "equal",
            "type": "Number",
            "value": 0,
        }
        for filters in ([unlabelled], []):
            page, _ = self._tasks(project_id, filters, "id", 1, "id,data", lambda row: (int(row["id"]), row["data"]))
            if page:
                return page[0]
        return None

    def _refused(self, doing: str, path: str, body: dict[str, Any]) -> bool:
        try:
            self._send(doing, "POST", path, body, lambda answer: answer)
        except LabelStudioError as error:
            if error.code == 403 and _RESERVED in error.reason:
                return True
            if error.code != 400:
                raise
        return False


def _read(answer: requests.Response, until: float) -> bytes:
    body = bytearray()
    while chunk := answer.raw.read1(65536, decode_content=True):
        body += chunk
        if len(body) > LARGEST:
            break
        if time.time() > until:
            raise requests.Timeout
    return bytes(body)


def _release(body: bytes) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    return str(found.get("release") or "") if isinstance(found, dict) else ""


def _ahead(date: str, now: float) -> float | None:
    try:
        told = parsedate_to_datetime(date)
    except ValueError:
        return None
    # The header has whole seconds: on average half of one has passed.
    return told.replace(tzinfo=told.tzinfo or UTC).timestamp() + 0.5 - now


def _cause(error: Exception) -> str:
    words = str(error)
    for sign, cause in (
        ("NameResolutionError", "its host is not known"),
        ("refused", "nothing listens there"),
        ("unreachable", "there is no way to it"),
    ):
        if sign in words:
            return cause
    return type(error).__name__


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps ~/.netrc out."""
    return request
