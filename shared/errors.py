"""Every error Switchboard raises on purpose.

SwitchboardError
├── CallerError            the caller's fault: becomes problem+json, is never retried
│   ├── InvalidRequest     400 not readable, 422 faults in the body (all of them at once)
│   ├── Unauthorized       401
│   ├── Forbidden          403
│   ├── NotFound           404 unknown agent, unknown or foreign job
│   ├── Conflict           409 / 422 idempotency key reused with another body, conversation of another user
│   │   └── Busy              409 the conversation's policy is `reject`
│   ├── TooLarge           413
│   ├── BadSignature       403 a provider's request that the provider did not sign, or signed too long ago
│   ├── RateLimited        429 a window is full, for `retry_after_s`
│   └── BudgetExhausted    402 what may be spent is spent; a call that would not fit is not made
├── UpstreamError          a model provider's fault: `retryable` decides
│   ├── UpstreamUnavailable   5xx, overload, connection, timeout, a stream cut short, an unreadable answer: retry
│   ├── UpstreamRateLimited   429: retry after `retry_after_s`
│   └── UpstreamRejected      our request was refused: final
│       └── AccountRejected      our key, quota or right to a model was: final there, another provider may answer
├── AgentError             an agent's or a model's answer cannot be used (refusal, content filter): final
├── Unanswered             who waits for an answer gets none: not yet (504), or its job failed
├── Unavailable            Redis or Postgres cannot be reached: 503, retry
├── QueueFull              admission is closed for now: 503, retry
├── LeaseLost              this attempt no longer owns its job: stop, change nothing
└── ConfigError            a setting is missing or wrong: said at start, all faults at once

Three translators only: SDK → ours (workers.models), ours → job state (workers.turn), ours → problem+json
(ingress.problems).
"""

from collections.abc import Mapping
from typing import ClassVar


class SwitchboardError(Exception):
    """Root. `code` is stable and goes on the wire; the message is one sentence for a person."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False


class CallerError(SwitchboardError):
    code = "caller_error"
    status: int = 400
    headers: ClassVar[Mapping[str, str]] = {}
    """What a client must be told beside the body."""
    param: str | None = None
    """The one parameter of the request that is at fault."""


class InvalidRequest(CallerError):
    """A request that cannot be read (400) or whose body has faults (422)."""

    code = "invalid_request"

    def __init__(self, message: str, *, faults: list[dict[str, str]] | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.faults = faults or []
        """`[{"field": "user_id", "message": "…"}, …]`: every fault of the body."""
        self.status = status if status is not None else (422 if faults else 400)


class Unauthorized(CallerError):
    code, status = "unauthorized", 401
    headers = {"www-authenticate": 'Bearer realm="switchboard"'}  # noqa: RUF012 - a Mapping, as declared above


class Forbidden(CallerError):
    code, status = "forbidden", 403


class NotFound(CallerError):
    """`code` says which, where a client is to tell several apart."""

    status = 404

    def __init__(self, message: str, *, code: str = "not_found", param: str | None = None) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # an instance may be more precise than its class
        self.param = param


class Conflict(CallerError):
    """`code` says which: `idempotency_mismatch` or `conversation_owner` (both 422), or a plain 409."""

    def __init__(self, message: str, *, code: str = "conflict", status: int = 409) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # an instance may be more precise than its class
        self.status = status


class Busy(Conflict):
    """409: the conversation has unfinished messages."""

    headers = {"x-should-retry": "false"}  # noqa: RUF012 - the OpenAI SDKs would try a 409 again by themselves

    def __init__(self, message: str) -> None:
        super().__init__(message, code="conversation_busy")


class TooLarge(CallerError):
    code, status = "too_large", 413


class BadSignature(CallerError):
    code, status = "bad_signature", 403


class RateLimited(CallerError):
    """`level` names the window that is full: `user`, `tenant`, `global`, `endpoint`, `tier` or `address`."""

    code, status = "rate_limited", 429

    def __init__(
        self, message: str, *, level: str, retry_after_s: int, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.level = level
        self.retry_after_s = retry_after_s
        self.headers = {"retry-after": str(retry_after_s), **(headers or {})}  # type: ignore[misc]  # told per refusal


class BudgetExhausted(CallerError):
    """`scope` names the budget (`shared.budgets.ScopeKind`): it is spent, or in a turn, the call does not fit."""

    code, status = "budget_exhausted", 402

    def __init__(self, message: str, *, scope: str, resets_at_s: int | None = None) -> None:
        super().__init__(message)
        self.scope = scope
        self.resets_at_s = resets_at_s
        """Unix s of the period's end; None for a budget that has no period."""


class UpstreamError(SwitchboardError):
    """`provider` is `openai` or `anthropic`; `status` the HTTP status when there was one."""

    code = "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        status: int | None = None,
        retry_after_s: float | None = None,
        billed: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.status = status
        self.retry_after_s = retry_after_s
        self.billed = status is None if billed is None else billed
        """Whether the provider may have worked on the request: no, once it answered with an error status."""


class UpstreamUnavailable(UpstreamError):
    code, retryable = "upstream_unavailable", True


class UpstreamRateLimited(UpstreamError):
    code, retryable = "upstream_rate_limited", True


class UpstreamRejected(UpstreamError):
    code = "upstream_rejected"


class AccountRejected(UpstreamRejected):
    """The same request may be fine elsewhere."""


class AgentError(SwitchboardError):
    """`code` says which: `refused`, `content_filter`, `empty_reply`, `price_unknown`, `agent_failed`."""

    def __init__(self, message: str, *, code: str = "agent_failed") -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # an instance may be more precise than its class


class Unanswered(SwitchboardError):
    """A request that waits for its job's answer, and gets none. `code` is the job's, `status` how HTTP says it."""

    def __init__(self, message: str, *, code: str, status: int, again: bool, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # the job's
        self.status = status
        self.headers = {**headers, "x-should-retry": "true" if again else "false"}
        """A repeat finds the same job: it is worth while as long as that one has not ended."""


class Unavailable(SwitchboardError):
    code, retryable = "unavailable", True

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(Unavailable):
    code = "queue_full"


class LeaseLost(SwitchboardError):
    code = "lease_lost"


class ConfigError(SwitchboardError):
    code = "config_error"
