"""How much of each budget is used: the budgets that `shared.budgets` holds calls to, judged by the ledger."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from shared.budgets import DeploymentBudgets, ScopeKind
from shared.tenants import Budgets, TenantSettings
from workers.alerts.figures import Figures
from workers.alerts.periods import day_of, month_of, recent
from workers.alerts.records import DEFAULT_THRESHOLDS, DEPLOYMENT, Rule

ACTIVE = timedelta(days=1)
"""A conversation that has not cost anything for so long has crossed nothing since, if all were judged meanwhile."""
LONGEST_OUTAGE = timedelta(days=35)
"""What was crossed earlier, while nobody judged, is news to nobody; and it is a limit to what is read at once."""


class Use(NamedTuple):
    """In dollars, or in tokens."""

    scope: str
    period: str
    used: Decimal
    limit: Decimal
    unit: str = "usd"


async def budget_uses(
    tenant: str,
    rule: Rule,
    settings: TenantSettings | None,
    deployment: DeploymentBudgets,
    figures: Figures,
    now: datetime,
    judged_to: datetime,
) -> AsyncIterator[Use]:
    """Of those the rule is about. An unlimited tenant has none. People below the lowest threshold are left out.

    `judged_to`: the last time that all rules were judged.
    """
    active_since = max(min(now, judged_to) - ACTIVE, now - LONGEST_OUTAGE)
    wanted = _Wanted(tenant, rule, figures, now, active_since)
    if tenant == DEPLOYMENT:
        parts = [
            wanted.spent("global-day", deployment.day_nano_usd),
            wanted.spent("global-month", deployment.month_nano_usd),
        ]
    elif settings is None or settings.unlimited:
        parts = []
    else:
        parts = wanted.of_tenant(settings.budgets)
    for part in parts:
        async for use in part:
            yield use


def thresholds_of(rule: Rule, settings: TenantSettings | None) -> tuple[Decimal, ...]:
    """Of a rule about a tenant's budgets that has none of its own: half, the share to warn at (`budgets.warn`), all."""
    usual = tuple(map(Decimal, DEFAULT_THRESHOLDS["budget"]))
    if rule.metric != "budget" or rule.thresholds != usual or settings is None:
        return rule.thresholds
    warn = Decimal(settings.budgets.warn_permille).scaleb(-3)
    return tuple(sorted({usual[0], warn, usual[-1]}))


class _Wanted:
    def __init__(self, tenant: str, rule: Rule, figures: Figures, now: datetime, active_since: datetime) -> None:
        self._tenant, self._rule, self._figures, self._now = tenant, rule, figures, now
        self._active_since = active_since

    def of_tenant(self, budgets: Budgets) -> list[AsyncIterator[Use]]:
        return [
            self.spent("tenant-day", budgets.day_nano_usd),
            self.spent("tenant-month", budgets.tenant_month_nano_usd),
            self._tokens(budgets.tenant_month_tokens),
            self._users(budgets.user_month_nano_usd),
            self._conversations(budgets.conversation_nano_usd),
        ]

    async def spent(self, kind: ScopeKind, limit_nano_usd: int | None) -> AsyncIterator[Use]:
        """Of a whole tenant, or of all."""
        if limit_nano_usd is None or not self._wants(kind):
            return
        for label, span in recent(self._now, day_of if kind.endswith("day") else month_of):
            spent = await self._figures.spent(self._tenant, span)
            yield Use(kind, label, _usd(spent.cost_nano_usd), _usd(limit_nano_usd))

    async def _tokens(self, limit: int | None) -> AsyncIterator[Use]:
        if limit is None or not self._wants("tenant-month"):
            return
        for label, span in recent(self._now, month_of):
            spent = await self._figures.spent(self._tenant, span)
            yield Use("tenant-month:tokens", label, Decimal(spent.tokens), Decimal(limit), "tokens")

    async def _users(self, limit_nano_usd: int | None) -> AsyncIterator[Use]:
        if limit_nano_usd is None or not self._wants("user-month"):
            return
        for label, span in recent(self._now, month_of):
            found = await self._figures.spending_users(self._tenant, span, self._least(limit_nano_usd))
            for who, cost in found:
                yield Use(f"user-month:{who}", label, _usd(cost), _usd(limit_nano_usd))

    async def _conversations(self, limit_nano_usd: int | None) -> AsyncIterator[Use]:
        if limit_nano_usd is None or not self._wants("conversation"):
            return
        least = self._least(limit_nano_usd)
        for who, cost in await self._figures.spending_conversations(self._tenant, self._active_since, least):
            yield Use(f"conversation:{who}", "", _usd(cost), _usd(limit_nano_usd))

    def _wants(self, kind: ScopeKind) -> bool:
        return not self._rule.scopes or kind in self._rule.scopes

    def _least(self, limit_nano_usd: int) -> int:
        """Nobody below it has crossed anything. Rounded down: one too many is judged exactly later."""
        return int(min(self._rule.thresholds, default=Decimal(1)) * limit_nano_usd)


def _usd(nano_usd: int) -> Decimal:
    return Decimal(nano_usd).scaleb(-9)
