"""The one translation of what the provider SDKs raise into our errors: whose fault it is, and whether to retry.

Called by the adapters, which raise the result `from` the original. Each says what its SDK's errors are (`Faults`), so
that no process loads an SDK it has no key for. The message is one sentence with the provider, the status, the
provider's name for the fault and the request id; never a key, never a word of the prompt or the reply.
"""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import msgspec

from shared.errors import (
    AccountRejected,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from workers.models import headroom
from workers.models.sse import StreamTooLarge

_READING_FAILED = (
    httpx2.HTTPError,
    httpx2.InvalidURL,
    httpx2.StreamError,
    msgspec.MsgspecError,
    StreamTooLarge,
    UnicodeError,
    OSError,  # TimeoutError is one
)
"""What a call can raise beneath an SDK."""

_SPENT = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached",
        "ramp_limit_exceeded",
    }
)
"""429s that waiting does not cure: the account's money or ramp is used up."""
_RETRYABLE_STATUSES = frozenset({408, 409, 425, 429})
_REJECTED_TYPES = frozenset(
    {
        "authentication_error",
        "billing_error",
        "invalid_request_error",
        "not_found_error",
        "permission_error",
        "request_too_large",
    }
)
"""Names of faults of ours in an error that came inside a stream, where there is no status."""
_ACCOUNT_TYPES = frozenset(
    {
        "authentication_error",
        "billing_error",
        "invalid_api_key",
        "model_not_found",
        "not_found_error",
        "permission_error",
    }
)
_ACCOUNT_STATUSES = frozenset({401, 402, 403, 404})
"""What is refused is our key, our money or our right to the model, not what we asked."""
_RATE_LIMIT_TYPES = frozenset({"rate_limit_error", "rate_limit_exceeded", "tokens", "requests"})
_SAFE_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_MAX_RETRY_AFTER_S = 3_600.0


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong with calls through one provider's SDK."""

    provider: str
    sdk: type[Exception]
    """The root of what it raises."""
    refused: type[Any]
    """The provider's answer is no success; with its `response` and that one's `body`."""
    unconnected: type[Any]
    """There is no answer, or not all of it; takes the `request`."""

    @property
    def known(self) -> tuple[type[Exception], ...]:
        """Everything a call can raise that `translate` understands."""
        return (self.sdk, *_READING_FAILED)

    def translate(self, error: Exception) -> UpstreamError:
        """Our error for anything that is `known`; one of our own passes unchanged."""
        if isinstance(error, UpstreamError):
            return error
        if isinstance(error, self.refused):
            return _of_response(self.provider, error.response, _fault_names(error.body))
        cause = error.__cause__ if isinstance(error.__cause__, httpx2.HTTPError) else error
        never_sent = isinstance(cause, httpx2.ConnectTimeout | httpx2.ConnectError | httpx2.PoolTimeout)
        message = f"{self.provider} {self._what_failed(cause)}."
        return UpstreamUnavailable(message, provider=self.provider, billed=not never_sent)

    def _what_failed(self, error: BaseException) -> str:
        match error:
            case httpx2.ConnectTimeout() | httpx2.ConnectError():
                return "could not be reached"
            case httpx2.TimeoutException():
                return "sent nothing for too long"
            case TimeoutError():
                return "did not finish in time"
            case httpx2.HTTPError() | OSError():
                return "broke the connection"
            case _ if isinstance(error, self.unconnected):
                return "broke the connection"
            case _:
                return "answered with something that cannot be read"


def of_stream(provider: str, fault: object, request_id: str | None) -> UpstreamError:
    """Our error for an error object that came inside a stream; its status was 200, so its type decides."""
    return _by_name(provider, _fault_names(fault), request_id)


def _by_name(provider: str, names: set[str], request_id: str | None) -> UpstreamError:
    message = f"{provider} broke off its answer{_details(names, request_id)}."
    if names & _SPENT or names & _REJECTED_TYPES:
        return _rejected(names, None)(message, provider=provider)
    if names & _RATE_LIMIT_TYPES:
        return UpstreamRateLimited(message, provider=provider)
    return UpstreamUnavailable(message, provider=provider)


def cut_short(provider: str, request_id: str | None) -> UpstreamUnavailable:
    """A stream that ended without its terminal event."""
    return UpstreamUnavailable(f"{provider} ended its answer early{_details(set(), request_id)}.", provider=provider)


def unexpected_end(provider: str, reason: str, request_id: str | None) -> UpstreamUnavailable:
    """A reply that ended for a reason no request of ours can lead to, such as a tool call."""
    names = {reason} if _SAFE_NAME.fullmatch(reason) else set()
    message = f"{provider} ended its answer in a way that was not asked for{_details(names, request_id)}."
    return UpstreamUnavailable(message, provider=provider)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait from `retry-after-ms` or `retry-after` (seconds or a date); never negative, an hour at most."""
    for name, divisor in (("retry-after-ms", 1_000.0), ("retry-after", 1.0)):
        if (value := headers.get(name)) is not None and (seconds := _seconds(value)) is not None:
            return min(max(seconds / divisor, 0.0), _MAX_RETRY_AFTER_S)
    return None


def _seconds(value: str) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return None if math.isnan(seconds) else seconds
    try:
        return parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return None


def _of_response(provider: str, response: httpx2.Response, names: set[str]) -> UpstreamError:
    status, headers = response.status_code, response.headers
    if response.is_success:  # an error event that the SDK itself met inside a stream
        return _by_name(provider, names, request_id(headers))
    message = f"{provider} answered {status}{_details(names, request_id(headers))}."
    wait_s = retry_after_s(headers)
    retry = {"true": True, "false": False}.get(
        headers.get("x-should-retry", ""), status in _RETRYABLE_STATUSES or status >= 500
    )
    if not retry or names & _SPENT:
        return _rejected(names, status)(message, provider=provider, status=status)
    if status != 429:
        return UpstreamUnavailable(message, provider=provider, status=status, retry_after_s=wait_s)
    if wait_s is None:
        wait_s = headroom.until_reset_s(headers)
    return UpstreamRateLimited(message, provider=provider, status=status, retry_after_s=wait_s)


def _rejected(names: set[str], status: int | None) -> type[UpstreamRejected]:
    ours = status in _ACCOUNT_STATUSES or bool(names & (_ACCOUNT_TYPES | _SPENT))
    return AccountRejected if ours else UpstreamRejected


def request_id(headers: Mapping[str, str]) -> str | None:
    """What the provider's support asks for: `x-request-id` (OpenAI) or `request-id` (Anthropic)."""
    return headers.get("x-request-id") or headers.get("request-id")


def _fault_names(body: object) -> set[str]:
    """The provider's own names for a fault: its type, its code, its detailed code. Its prose is left behind."""
    body = body if isinstance(body, dict) else {}
    fault: dict[str, Any] = body["error"] if isinstance(body.get("error"), dict) else body
    details = fault.get("details")
    found = [fault.get("type"), fault.get("code"), details.get("error_code") if isinstance(details, dict) else None]
    return {name for name in found if isinstance(name, str) and _SAFE_NAME.fullmatch(name)}


def _details(names: set[str], request: str | None) -> str:
    parts = sorted(names - {"error"})
    if request is not None and _SAFE_NAME.fullmatch(request):
        parts.append(f"request {request}")
    return f" ({', '.join(parts)})" if parts else ""
