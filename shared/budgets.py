"""What a model call is charged to, and how much each of those may spend: the scopes of a call.

Called by the worker before every call, and by the ingress, which refuses a message whose budget is spent. Each scope is
one counter in Redis (`keys.spent`), a hash of integers: `usd` and `tok` are settled (nano-USD, tokens), `usd_held` and
`tok_held` are reserved by calls under way. A call belongs to the month and the day (UTC) inside its UUIDv7 call id, as
it does in the ledger: a period that turns while it runs changes nothing.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from shared import keys
from shared.config import Settings
from shared.tenants import NONE, Budgets, nano_usd

ScopeKind = Literal["conversation", "user-month", "tenant-day", "tenant-month", "global-day", "global-month"]


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
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    day, month = at.strftime("%Y%m%d"), at.strftime("%Y%m")
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    day_ends_s = int((midnight + timedelta(days=1)).timestamp())
    month_ends_s = int((midnight.replace(day=1) + timedelta(days=32)).replace(day=1).timestamp())
    b, shares = budgets, (budgets.downgrade_permille, budgets.block_permille)
    scopes = [
        Scope("conversation", keys.spent("conv", tenant, conversation_id), None, b.conversation_nano_usd, None, *shares)
    ]
    if user_id is not None:
        key = keys.spent("user", tenant, month, user_id)
        scopes.append(Scope("user-month", key, month_ends_s, b.user_month_nano_usd, None, *shares))
    scopes += [
        Scope("tenant-day", keys.spent("day", tenant, day), day_ends_s, b.day_nano_usd, None, *shares),
        Scope(
            "tenant-month",
            keys.spent("month", tenant, month),
            month_ends_s,
            b.tenant_month_nano_usd,
            b.tenant_month_tokens,
            *shares,
        ),
        Scope("global-day", keys.spent("all-day", day), day_ends_s, deployment.day_nano_usd),
        Scope("global-month", keys.spent("all-month", month), month_ends_s, deployment.month_nano_usd),
    ]
    if unlimited:
        return tuple(Scope(scope.kind, scope.key, scope.ends_at_s) for scope in scopes)
    return tuple(scopes)
