"""A tenant's settings: what it was given (a JSON document) over what its plan gives, as the programs use them.

Postgres keeps the document as it was written, without defaults: a plan that changes later changes its tenants. The
operators' tools check a document before it is stored (`ops.tenants.document`); here it is only read. The ingress gets
the part that admission needs with the key (`Terms`), the worker the whole with the turn. Amounts of money are
decimal strings in the document and integer nano-USD from here on; no limit is None here, "none" there.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from shared.wire import Policy

Plan: TypeAlias = Literal["free", "pro", "enterprise"]
Tier: TypeAlias = Literal["free", "pro", "enterprise"]
"""Of a tenant's user, as the tenant sets it."""
PLANS: tuple[Plan, ...] = get_args(Plan)
NONE = "none"
"""In the document: no limit, where the plan has one."""

Document: TypeAlias = Mapping[str, Any]

_NANO_PER_USD = 1_000_000_000
_AMOUNT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class TierLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Messages an hour of a user of that tier."""

    free: int = 10
    pro: int = 100
    enterprise: int = 1_000

    def of(self, tier: Tier) -> int:
        limit: int = getattr(self, tier)
        return limit


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Messages in a sliding window."""

    user_per_min: int = 30
    tenant_per_min: int = 60
    webhook_user_per_min: int = 50
    flows_user_per_min: int = 20
    tier_per_hour: TierLimits = TierLimits()


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """What may be spent; months and days are UTC. The shares are parts of a budget in thousandths."""

    user_month_nano_usd: int | None = 10 * _NANO_PER_USD
    tenant_month_nano_usd: int | None = None
    tenant_month_tokens: int | None = 1_000_000
    conversation_nano_usd: int | None = _NANO_PER_USD // 2
    day_nano_usd: int | None = None
    warn_permille: int = 800
    downgrade_permille: int = 800
    block_permille: int = 950


class AgentOverride(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a tenant wants otherwise of one agent; None: as the agent has it."""

    system_prompt: str | None = None
    models: tuple[str, ...] | None = None
    """`provider:model`, best first."""
    max_tokens: int | None = None
    temperature: float | None = None
    policy: Policy | None = None
    merge_window_s: float | None = None
    routing: Literal["fixed", "auto"] | None = None
    prefer_quality: bool | None = None


class MemorySettings(msgspec.Struct, frozen=True, kw_only=True):
    """When what was said is worked up. Postgres reads it itself, where it decides what is due (`memory_task_due`)."""

    summary_after: int = 20
    """Messages that no summary has yet; more than these are summed up, all but the newest."""
    facts: bool = True
    """Whether facts about users are kept at all."""
    facts_after: int = 10
    """Messages in which nobody has looked for facts yet; then somebody does."""
    quiet_s: int = 60
    """So long after the last message somebody looks, however few there are."""


class TenantSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything, with the plan's defaults in place."""

    plan: Plan = "free"
    unlimited: bool = False
    """Neither rates nor budgets of this tenant hold: the development tenant, benchmarks."""
    agents: Mapping[str, AgentOverride] = {}
    max_tokens: int | None = None
    """Bound of a reply where the agent sets none; None takes the deployment's."""
    rates: Rates = Rates()
    default_user_tier: Tier | None = None
    """Of users that `user_tiers` does not name; None: no limit by tier."""
    user_tiers: Mapping[str, Tier] = {}
    budgets: Budgets = Budgets()
    allowed_tools: tuple[str, ...] = ()
    blocked_topics: tuple[str, ...] = ()
    escalation_email: str | None = None
    escalation_webhook: str | None = None
    greeting: str | None = None
    degraded_reply: str | None = None
    """What users are told when no model may or can answer; None: as the agent or the deployment has it."""
    retention_days: int = 90
    memory: MemorySettings = MemorySettings()
    cache_ttl_s: int | None = None
    """How long an answer is given again to the same question; 0: never, None: as the deployment has it."""
    cors_origins: tuple[str, ...] = ()

    def terms(self, version: int) -> "Terms":
        return Terms(
            version=version,
            unlimited=self.unlimited,
            rates=self.rates,
            budgets=self.budgets,
            default_user_tier=self.default_user_tier,
            user_tiers=self.user_tiers,
            policies={
                agent: Arrival(policy=given.policy, merge_window_s=given.merge_window_s)
                for agent, given in self.agents.items()
                if given.policy is not None or given.merge_window_s is not None
            },
            cors_origins=self.cors_origins,
        )


class Arrival(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What becomes of a message whose conversation is busy; None: as the agent has it."""

    policy: Policy | None = None
    merge_window_s: float | None = None


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part that the ingress needs; goes with the key through Redis."""

    version: int = 0
    unlimited: bool = False
    rates: Rates = Rates()
    budgets: Budgets = Budgets()
    default_user_tier: Tier | None = None
    user_tiers: Mapping[str, Tier] = {}
    policies: Mapping[str, Arrival] = {}
    cors_origins: tuple[str, ...] = ()

    def tier_of(self, user_id: str | None) -> Tier | None:
        """None: no limit by tier."""
        return None if user_id is None else self.user_tiers.get(user_id, self.default_user_tier)


_FREE: Document = {
    "plan": "free",
    "unlimited": False,
    "rates": {
        "user_per_min": 30,
        "tenant_per_min": 60,
        "webhook_user_per_min": 50,
        "flows_user_per_min": 20,
        "tier_per_hour": {"free": 10, "pro": 100, "enterprise": 1_000},
    },
    "budgets": {
        "user_month_usd": "10",
        "tenant_month_usd": NONE,
        "tenant_month_tokens": 1_000_000,
        "conversation_usd": "0.50",
        "day_usd": NONE,
        "warn": 0.8,
        "downgrade": 0.8,
        "block": 0.95,
    },
    "retention_days": 90,
    "memory": {"summary_after": 20, "facts": True, "facts_after": 10, "quiet_s": 60},
}


def merged(document: Document, patch: Document) -> dict[str, Any]:
    """JSON Merge Patch (RFC 7396): null removes, objects merge, anything else replaces. Neither argument changes."""
    result = dict(document)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            old = result.get(name)
            result[name] = merged(old if isinstance(old, Mapping) else {}, value)
        else:
            result[name] = value
    return result


PLAN_DOCUMENTS: Mapping[Plan, Document] = {
    "free": _FREE,
    "pro": merged(
        _FREE,
        {
            "plan": "pro",
            "rates": {"tenant_per_min": 300},
            "budgets": {"user_month_usd": "25", "tenant_month_tokens": 10_000_000, "conversation_usd": "1"},
            "retention_days": 180,
        },
    ),
    "enterprise": merged(
        _FREE,
        {
            "plan": "enterprise",
            "rates": {"user_per_min": 60, "tenant_per_min": 1_000},
            "budgets": {"user_month_usd": "100", "tenant_month_tokens": 100_000_000, "conversation_usd": "5"},
            "retention_days": 365,
        },
    ),
}
"""What a tenant of the plan has where its own document says nothing."""


def complete(document: Document) -> dict[str, Any]:
    """The document with its plan's defaults: what people are shown as in force."""
    plan: Plan = document.get("plan", "free")
    return merged(PLAN_DOCUMENTS[plan], document)


def settings_of(document: Document) -> TenantSettings:
    """The settings in force. Raises ValueError for a document that nobody has checked."""
    try:
        whole = complete(document)
        whole["budgets"] = _budgets(whole["budgets"])
        return msgspec.convert(whole, TenantSettings)
    except (KeyError, TypeError, AttributeError, ArithmeticError, msgspec.ValidationError) as error:
        raise ValueError(f"the settings cannot be read: {error!r}") from error


@lru_cache(maxsize=1_024)
def read_settings(document_json: str) -> TenantSettings:
    """`settings_of` the JSON text that Postgres gives; the same text is read once. Raises ValueError."""
    return settings_of(msgspec.json.decode(document_json, type=dict[str, Any]))


def nano_usd(amount: str) -> int:
    """`"0.50"` → 500_000_000, exactly. Raises ValueError for what is no amount, negative, or finer than a nano-USD."""
    if not _AMOUNT.fullmatch(amount):
        raise ValueError("an amount has digits, and at most 9 after the point")
    whole, _, rest = amount.partition(".")
    return int(whole) * _NANO_PER_USD + int(rest.ljust(9, "0"))


def _budgets(given: Document) -> dict[str, int | None]:
    budgets: dict[str, int | None] = {
        f"{name}_nano_usd": None if (amount := given[f"{name}_usd"]) == NONE else nano_usd(amount)
        for name in ("user_month", "tenant_month", "conversation", "day")
    }
    tokens = given["tenant_month_tokens"]
    budgets["tenant_month_tokens"] = None if tokens == NONE else tokens
    return budgets | {f"{name}_permille": round(given[name] * 1_000) for name in ("warn", "downgrade", "block")}
