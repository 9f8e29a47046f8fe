"""What a model call is charged to, and how much each of those may spend: the scopes of a call.

Called by the worker before every call, and by the ingress, which refuses a message whose budget is spent. Each scope is
one counter in Redis (`keys.spent`), a hash of integers: `usd` and `tok` are settled (nano-USD, tokens), `usd_held` and
`tok_held` are reserved by calls under way. A call belongs to the month and the day (UTC) inside its UUIDv7 call id, as
it does in the ledger: a period that turns while it runs changes nothing.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from shared import keys
from shared.config import Settings
from shared.tenants import NONE, Budgets, nano_usd

ScopeKind = Literal["conversation", "user-month", "tenant-day", "tenant-month", "global-day", "global-month"]


KEPT_S = 3 * 86_400
"""How long a counter outlives its period."""
CONVERSATION_IDLE_S = 30 * 86_400
"""After that Redis forgets what a conversation has cost; its next call asks the ledger."""


class Scope(msgspec.Struct, frozen=True):
    """One counter, and the most that its settled and held amounts may come to together; None: any amount."""

    kind: ScopeKind
    key: str
    ends_at_s: int | None
    """Unix s at which its period is over; None: it has none."""
    budget_nano_usd: int | None = None
    budget_tokens: int | None = None
    downgrade_permille: int = 1_000
    block_permille: int = 1_000

    @property
    def most_nano_usd(self) -> int | None:
        """Beyond it nothing is reserved: the blocking share of the budget, rounded down."""
        return None if self.budget_nano_usd is None else self.budget_nano_usd * self.block_permille // 1_000

    @property
    def most_tokens(self) -> int | None:
        return None if self.budget_tokens is None else self.budget_tokens * self.block_permille // 1_000

    @property
    def downgrade_nano_usd(self) -> int | None:
        """Once so much is settled, cheaper models are taken where there are some."""
        return None if self.budget_nano_usd is None else self.budget_nano_usd * self.downgrade_permille // 1_000

    @property
    def downgrade_tokens(self) -> int | None:
        return None if self.budget_tokens is None else self.budget_tokens * self.downgrade_permille // 1_000

    @property
    def expires_at_s(self) -> int | None:
        """Unix s at which Redis may forget the counter; None: CONVERSATION_IDLE_S after its last call."""
        return None if self.ends_at_s is None else self.ends_at_s + KEPT_S


class DeploymentBudgets(msgspec.Struct, frozen=True, kw_only=True):
    """Of all tenants together; from `Settings`."""

    day_nano_usd: int | None = None
    month_nano_usd: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> "DeploymentBudgets":
        return cls(day_nano_usd=_limit(settings.global_day_usd), month_nano_usd=_limit(settings.global_month_usd))


def _limit(amount: str) -> int | None:
    return None if amount == NONE else nano_usd(amount)


def scopes_of(
    budgets: Budgets,
    deployment: DeploymentBudgets,
    *,
    tenant: str,
    user_id: str | None,
    conversation_id: str,
    at_ms: int,
    unlimited: bool = False,
) -> tuple[Scope, ...]:
    """The scopes of a call made at `at_ms` (Unix ms), the narrowest first.

    An unlimited tenant is counted everywhere and stopped nowhere, not by the deployment's budgets either.
    """
    p, b, shares = _periods(at_ms // 60_000), budgets, (budgets.downgrade_permille, budgets.block_permille)
    conversation = keys.spent("conv", tenant, conversation_id)
    scopes = [Scope("conversation", conversation, None, b.conversation_nano_usd, None, *shares)]
    if user_id is not None:
        user = counter_key("user-month", p.month, tenant, user_id)
        scopes.append(Scope("user-month", user, p.month_ends_s, b.user_month_nano_usd, None, *shares))
    tenant_day, tenant_month = counter_key("tenant-day", p.day, tenant), counter_key("tenant-month", p.month, tenant)
    global_day, global_month = counter_key("global-day", p.day), counter_key("global-month", p.month)
    scopes += [
        Scope("tenant-day", tenant_day, p.day_ends_s, b.day_nano_usd, None, *shares),
        Scope("tenant-month", tenant_month, p.month_ends_s, b.tenant_month_nano_usd, b.tenant_month_tokens, *shares),
        Scope("global-day", global_day, p.day_ends_s, deployment.day_nano_usd),
        Scope("global-month", global_month, p.month_ends_s, deployment.month_nano_usd),
    ]
    if unlimited:
        return tuple(Scope(scope.kind, scope.key, scope.ends_at_s) for scope in scopes)
    return tuple(scopes)


def counter_key(kind: ScopeKind, period: str, tenant: str | None = None, user_id: str | None = None) -> str:
    """Key of a counter that has a period: `202611` for a month, `20261121` for a day."""
    match kind:
        case "user-month" if tenant is not None and user_id is not None:
            return keys.spent("user", tenant, period, user_id)
        case "tenant-day" if tenant is not None:
            return keys.spent("day", tenant, period)
        case "tenant-month" if tenant is not None:
            return keys.spent("month", tenant, period)
        case "global-day":
            return keys.spent("all-day", period)
        case "global-month":
            return keys.spent("all-month", period)
    raise ValueError(f"a counter {kind} of {tenant}, {user_id} has no period")


def period_ends_s(period: str) -> int:
    """Unix s at which a period is over, as `counter_key` names them."""
    month = datetime.strptime(period[:6], "%Y%m").replace(tzinfo=UTC)
    if len(period) == len("YYYYMM"):
        return int((month + timedelta(days=32)).replace(day=1).timestamp())
    return int((month.replace(day=int(period[6:])) + timedelta(days=1)).timestamp())


def made_at_ms(call_id: str) -> int:
    """Unix ms inside a UUIDv7: the moment a call belongs to."""
    return int(call_id[:8] + call_id[9:13], 16)


class _Periods(NamedTuple):
    day: str
    month: str
    day_ends_s: int
    month_ends_s: int


@lru_cache(maxsize=4)
def _periods(minute: int) -> _Periods:
    """Of a minute since 1970."""
    at = datetime.fromtimestamp(minute * 60, UTC)
    day, month = at.strftime("%Y%m%d"), at.strftime("%Y%m")
    return _Periods(day, month, period_ends_s(day), period_ends_s(month))
