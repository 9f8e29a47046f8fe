"""What a rule says, and what was crossed, as the books have them. Figures are exact decimals."""

from decimal import Decimal
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from shared.budgets import ScopeKind
from shared.jobs import rfc3339

DEPLOYMENT = "*"
"""The tenant of rules about the deployment as a whole."""

Metric: TypeAlias = Literal[
    "budget",
    "daily_cost_usd",
    "monthly_cost_usd",
    "conversation_cost_usd",
    "error_rate",
    "p50_s",
    "p99_s",
    "dau_drop",
    "endpoint_disabled",
]
METRICS: tuple[Metric, ...] = get_args(Metric)
UNKNOWN_YET = {
    "tool_failures": "tools are not run yet",
    "resolution": "nobody says yet whether a conversation was resolved",
    "escalation": "conversations are not escalated yet",
    "csat": "satisfaction is not collected yet",
    "safety": "violations are not counted yet",
}
"""Metrics people will ask for, and why they cannot have them."""
DEFAULT_THRESHOLDS: dict[Metric, tuple[str, ...]] = {
    "budget": ("0.5", "0.8", "1"),
    "daily_cost_usd": ("5",),
    "monthly_cost_usd": ("100",),
    "conversation_cost_usd": ("0.5",),
    "error_rate": ("0.05",),
    "p50_s": ("5",),
    "p99_s": ("15",),
    "dau_drop": ("0.2",),
    "endpoint_disabled": (),
}
LEAST: dict[Metric, int] = {
    "conversation_cost_usd": 10,
    "error_rate": 20,
    "p50_s": 20,
    "p99_s": 100,
    "dau_drop": 20,
}
"""How much must have happened before a share or an average says anything: conversations, jobs, users."""


class Target(msgspec.Struct, frozen=True):
    """Who is told."""

    kind: Literal["slack", "email", "webhook"]
    to: str
    """A URL; for e-mail an address."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    metric: Metric
    targets: tuple[Target, ...]
    thresholds: tuple[Decimal, ...] = ()
    """Of budgets: shares of what may be spent. Dollars, seconds and shares otherwise."""
    scopes: tuple[ScopeKind, ...] = ()
    """Which budgets; none named: all there are."""
    least: int | None = None
    """Instead of `LEAST`."""

    @property
    def enough(self) -> int:
        return LEAST.get(self.metric, 1) if self.least is None else self.least


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """A rule with its name."""

    tenant: str
    name: str
    rule: Rule
    updated_us: int
    updated_by: str

    def resource(self) -> dict[str, Any]:
        rule = self.rule
        return {
            "id": self.name,
            "object": "alert",
            "tenant": _shown(self.tenant),
            "metric": rule.metric,
            "thresholds": [_plain(each) for each in rule.thresholds],
            "scopes": list(rule.scopes),
            "least": rule.enough if rule.metric in LEAST else None,
            "targets": [{"kind": target.kind, "to": target.to} for target in rule.targets],
            "updated_at": rfc3339(self.updated_us),
            "updated_by": self.updated_by,
        }


class AlertEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold that was crossed."""

    id: str
    tenant: str
    name: str
    metric: str
    scope: str
    period: str
    threshold: Decimal
    limit: Decimal
    """Of a budget: the whole of it, in dollars or tokens. 0 otherwise."""
    value: Decimal
    crossed_us: int
    over_us: int | None = None
    """Since when a rate or a latency is below its threshold again."""
    detail: dict[str, Any] = {}  # msgspec copies an empty default

    def resource(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "alert_event",
            "tenant": _shown(self.tenant),
            "alert": self.name,
            "metric": self.metric,
            "scope": self.scope,
            "period": self.period or None,
            "threshold": _plain(self.threshold),
            "limit": _plain(self.limit) if self.limit else None,
            "value": _plain(self.value),
            "crossed_at": rfc3339(self.crossed_us),
            "over_at": None if self.over_us is None else rfc3339(self.over_us),
            "detail": self.detail,
        }


def _shown(tenant: str) -> str | None:
    """The deployment is no tenant."""
    return None if tenant == DEPLOYMENT else tenant


def _plain(number: Decimal) -> str:
    """Without an exponent, and without zeros that say nothing."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
