"""How Label Studio is spoken to: the SDK's connection, tokens that are renewed in time, errors in our words."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from backend.errors import LabelStudioError
from backend.labelstudio.refusals import TOKEN_HINT, one_line, public_url, refusal
from backend.network.proxies import http_client, proxy_hint, proxy_variable
from backend.network.urls import plain_address

T = TypeVar("T")

ONCE = {"max_retries": 0}
_SPARE = timedelta(seconds=30)


class LabelStudioApi:
    """One Label Studio, as the owner of one token. Threads may share it.

    Args:
        url: Label Studio's address, with its path where it has one. A user name and password in it are left out: only
            the token lets yoloop in.
        api_key: a personal access token, or a legacy token.
        timeout: seconds that one request may take.

    Every method raises LabelStudioError. Nothing is sent, and the SDK is not imported, before the first call.
    """

    def __init__(self, url: str, api_key: str, *, timeout: float = 30) -> None:
        self.url = plain_address(url)
        self._key = api_key.strip()
        self._timeout = timeout
        self._lock = threading.Lock()
        self._sdk: Any = None
        self._fresh_until = math.inf
        self.clock: datetime | None = None
        """Label Studio's time, as it told with its last answer; None where it tells none."""

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        with self._lock:
            sdk, self._sdk = self._sdk, None
        if sdk is not None:
            sdk._client_wrapper.httpx_client.httpx_client.close()

    def _get(self, doing: str, path: str, params: dict[str, Any], read: Callable[[Any], T]) -> T:
        """What `read` makes of the plain JSON at `path`."""

        def ask(sdk: Any) -> T:
            answer = _request(sdk, "GET", path, (200,), params=params)
            self.clock = _time(answer.headers.get("date"))
            return read(answer.json())

        return self._call(doing, ask)

    def _send(self, doing: str, method: str, path: str, body: Any, read: Callable[[Any], T]) -> T:
        """Send JSON once, without a second try, and give what `read` makes of the answer."""
        options = {"json": body, "request_options": ONCE}
        return self._call(doing, lambda sdk: read(_request(sdk, method, path, (200, 201), **options).json()))

    def _delete(self, doing: str, path: str) -> None:
        self._call(doing, lambda sdk: _request(sdk, "DELETE", path, (200, 204, 404), request_options=ONCE))

    def _call(self, doing: str, call: Callable[[Any], T]) -> T:
        """What `call(sdk)` returns, its errors in our words. `doing` completes "Label Studio refused to"."""
        import httpx
        from label_studio_sdk.core.api_error import ApiError

        if not self.url:
            raise LabelStudioError("Label Studio's address is not set.", "Set LABEL_STUDIO_URL to it.")
        if not self._key:
            raise LabelStudioError("No token of Label Studio is set.", TOKEN_HINT)
        where = f"Label Studio at {public_url(self.url)}"
        try:
            sdk = self._connected()
            try:
                return call(sdk)
            except ApiError as error:
                if error.status_code != 401 or not self._renew(sdk, refused=True):
                    raise
                return call(sdk)
        except ApiError as error:
            raise refusal(doing, self.url, self._key, error) from None
        except httpx.TimeoutException:
            raise LabelStudioError(
                f"{where} did not {doing} within {self._timeout:g} s.",
                "Try again, or look into Label Studio's log.",
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise LabelStudioError(
                f"{where} cannot be reached.",
                proxy_hint(self.url)
                or "Check that Label Studio runs and that LABEL_STUDIO_URL is its address as seen from here.",
                reason=one_line(str(error), self._key),
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LabelStudioError(
                f"{where} gave an answer that is none of Label Studio's when asked to {doing}.",
                proxy_hint(self.url) or "Check that LABEL_STUDIO_URL is Label Studio's address.",
                reason=type(error).__name__,
            ) from None

    def _connected(self) -> Any:
        """The SDK's client, with a token that lives a little longer than the next request."""
        with self._lock:
            sdk = self._sdk
            if sdk is None:
                # The extended client imports pandas and more for methods that nobody here calls.
                from label_studio_sdk.base_client import LabelStudioBase

                sdk = self._sdk = LabelStudioBase(
                    base_url=f"{self.url}/",
                    api_key=self._key,
                    timeout=self._timeout,
                    httpx_client=self._http_client(),
                )
        self._renew(sdk)
        return sdk

    def _http_client(self) -> Any:
        try:
            return http_client(self.url, self._timeout)
        except (ImportError, ValueError):
            variable = proxy_variable(self.url)
            raise LabelStudioError(
                f"The proxy that {variable} names is of a kind that cannot be used, or its address is malformed.",
                f"Set {variable} to an address such as http://proxy:3128, or name Label Studio's host in NO_PROXY.",
            ) from None

    def _renew(self, sdk: Any, *, refused: bool = False) -> bool:
        """Replace a personal access token's access token that is about to end, or was `refused`; False: kept.

        The SDK itself renews one only after its end, by this machine's clock, which may have been set back since.
        """
        tokens = sdk._client_wrapper._tokens_client
        if tokens._use_legacy_token:
            return False
        with self._lock:
            ends = tokens._access_token_expiration
            lives = ends is not None and ends - datetime.now(UTC) > _SPARE and time.monotonic() < self._fresh_until
            if lives and not refused:
                return False
            tokens._set_access_token(tokens.refresh().access)
            told = tokens._decode_jwt_payload(tokens._access_token) or {}
            lifetime = told.get("exp", math.inf) - told.get("iat", 0)  # both by Label Studio's clock
            self._fresh_until = time.monotonic() + lifetime - _SPARE.total_seconds()
        return True


def _time(date: str | None) -> datetime | None:
    """The time in an answer's `Date` header, to the second; None where there is none that can be read."""
    try:
        found = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _request(sdk: Any, method: str, path: str, good: Sequence[int], **options: Any) -> Any:
    from label_studio_sdk.core.api_error import ApiError

    answer = sdk._client_wrapper.httpx_client.request(path, method=method, **options)
    if answer.status_code not in good:
        raise ApiError(status_code=answer.status_code, headers=dict(answer.headers), body=answer.text)
    return answer
