"""What limits a message: the windows and budgets it must pass, and what its sender is told of them.

`limits_of` is asked with the caller's terms before admission; a channel names its `endpoint`. `rate_headers` goes on
every answer that comes after admission. Of the deployment's window a tenant learns nothing while it has room: how full
it is, is what others send.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from shared import keys
from shared.budgets import DeploymentBudgets, Scope, scopes_of
from shared.jobs import rfc3339
from shared.rates import UNLIMITED, Limits, Standing, Window
from shared.tenants import Terms

Endpoint = Literal["webhook", "flows"]
"""A way in with a limit of its own for each user, in place of the one for messages over the API."""

MINUTE_S, HOUR_S = 60, 3_600
MINUTE_MS = 60_000
_WHOSE = {
    "user": "messages of this user",
    "tier": "messages of this user, for its tier",
    "endpoint": "messages of this user through this endpoint",
    "tenant": "messages of this tenant",
    "global": "messages of the whole deployment",
}
_BUDGETS = {
    "conversation": "The budget of this conversation is spent.",
    "user-month": "The user's budget of this month is spent.",
    "tenant-day": "The tenant's budget of this day is spent.",
    "tenant-month": "The tenant's budget of this month is spent.",
    "global-day": "The deployment's budget of this day is spent.",
    "global-month": "The deployment's budget of this month is spent.",
}


def limits_of(
    terms: Terms,
    deployment: DeploymentBudgets,
    *,
    tenant: str,
    user_id: str | None,
    conversation_id: str,
    at_ms: int,
    global_per_min: int,
    endpoint: Endpoint | None = None,
) -> Limits:
    """Those of one message, the narrowest first. A tenant without limits has none and is not counted either.

    `at_ms` is our own clock: around the turn of a month it says whose budget is asked. The worker decides once more, by
    the id of each call.
    """
    if terms.unlimited:
        return UNLIMITED
    shared = _shared(terms, deployment, tenant, at_ms // MINUTE_MS, global_per_min)
    windows, budgets = shared.windows, shared.budgets
    if user_id is not None:
        windows = (*_of_user(terms, tenant, user_id, endpoint), *windows)
        if shared.user_month is not None:
            budgets = (_of(shared.user_month, user_id), *budgets)
    if shared.conversation is not None:
        budgets = (_of(shared.conversation, conversation_id), *budgets)
    return Limits(windows, budgets)


def _of_user(terms: Terms, tenant: str, user_id: str, endpoint: Endpoint | None) -> Iterable[Window]:
    rates = terms.rates
    if endpoint is None:
        yield Window("user", keys.rate("user", tenant, user_id), rates.user_per_min, MINUTE_S)
    else:
        limit = rates.webhook_user_per_min if endpoint == "webhook" else rates.flows_user_per_min
        yield Window("endpoint", keys.rate("endpoint", endpoint, tenant, user_id), limit, MINUTE_S)
    tier = terms.tier_of(user_id)
    if tier is not None:
        yield Window("tier", keys.rate("tier", tenant, user_id), rates.tier_per_hour.of(tier), HOUR_S)


class _Shared(NamedTuple):
    """What is the same for all messages of a tenant within a minute; made once, it is most of the price of a list."""

    of: tuple[Terms, DeploymentBudgets]
    windows: tuple[Window, ...]
    conversation: Scope | None
    """Without the name in its key; None: it has no limit."""
    user_month: Scope | None
    budgets: tuple[Scope, ...]


_made: dict[tuple[int, str, int, int], _Shared] = {}
MAX_MADE = 4_096


def _shared(terms: Terms, deployment: DeploymentBudgets, tenant: str, minute: int, global_per_min: int) -> _Shared:
    """Found by the very object that the terms are, which the key's cache keeps: comparing them would cost too much."""
    name = (id(terms), tenant, minute, global_per_min)
    found = _made.get(name)
    if found is None or found.of[0] is not terms or found.of[1] is not deployment:
        if len(_made) >= MAX_MADE:
            _made.clear()
        found = _made[name] = _make_shared(terms, deployment, tenant, minute, global_per_min)
    return found


def _make_shared(terms: Terms, deployment: DeploymentBudgets, tenant: str, minute: int, global_per_min: int) -> _Shared:
    of_tenant = Window("tenant", keys.rate("tenant", tenant), terms.rates.tenant_per_min, MINUTE_S)
    of_all = Window("global", keys.rate("global"), global_per_min, MINUTE_S)
    conversation, user_month, *scopes = (  # both keys end in a name, which is left out here
        scope if scope.budget_nano_usd is not None or scope.budget_tokens is not None else None
        for scope in scopes_of(
            terms.budgets, deployment, tenant=tenant, user_id="", conversation_id="", at_ms=minute * MINUTE_MS
        )
    )
    limited = tuple(scope for scope in scopes if scope is not None)
    return _Shared((terms, deployment), (of_tenant, of_all), conversation, user_month, limited)


def _of(scope: Scope, name: str) -> Scope:
    return msgspec.structs.replace(scope, key=scope.key + name)


def rate_headers(windows: Sequence[Standing]) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11), and `X-RateLimit-*`, whose reset
    is in seconds too. Empty without windows."""
    shown = [each for each in windows if each.window.level != "global" or each.remaining == 0]
    if not shown:
        return {}
    tightest = min(shown, key=lambda each: (each.remaining, -each.left_us))
    window, reset_s = tightest.window, str(tightest.left_s)
    return {
        "ratelimit-policy": _policy(
            tuple((each.window.level, each.window.limit, each.window.length_s) for each in shown)
        ),
        "ratelimit": f'"{window.level}";r={tightest.remaining};t={reset_s}',
        "x-ratelimit-limit": str(window.limit),
        "x-ratelimit-remaining": str(tightest.remaining),
        "x-ratelimit-reset": reset_s,
    }


@lru_cache(maxsize=1_024)
def _policy(windows: tuple[tuple[str, int, int], ...]) -> str:
    return ", ".join(f'"{level}";q={max(limit, 0)};w={length_s}' for level, limit, length_s in windows)


def too_many(full: Standing) -> str:
    """Why, for a person."""
    window = full.window
    return f"Too many {_WHOSE[window.level]}: at most {window.limit} in {window.length_s} s."


def spent(scope: Scope) -> str:
    """Why, for a person; no amount, which may be that of others."""
    until = "" if scope.ends_at_s is None else f" It is renewed at {rfc3339(scope.ends_at_s * 1_000_000)}."
    return _BUDGETS[scope.kind] + until
