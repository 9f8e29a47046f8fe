"""What a settings document may say, what it means, and what a tenant may change itself."""

from typing import Any

import msgspec
import pytest

from ops.tenants.document import Known, checked
from ops.tenants.reach import beyond_plan
from shared.tenants import (
    PLAN_DOCUMENTS,
    PLANS,
    AgentOverride,
    TenantSettings,
    complete,
    merged,
    nano_usd,
    read_settings,
    settings_of,
)
from workers.ledger import prices

KNOWN = Known(frozenset({"support", "sales"}), prices.shipped())
EVERYTHING: dict[str, Any] = {
    "plan": "pro",
    "unlimited": False,
    "agents": {
        "support": {
            "system_prompt": "Be brief.",
            "models": ["anthropic:claude-haiku-4-5", "openai:gpt-5.4-mini"],
            "max_tokens": 200,
            "temperature": 0.2,
            "policy": "merge",
            "merge_window_s": 1.5,
            "routing": "auto",
            "prefer_quality": True,
        }
    },
    "max_tokens": 300,
    "rates": {"user_per_min": 20.0, "tier_per_hour": {"pro": 50}},
    "default_user_tier": "free",
    "user_tiers": {"ada": "enterprise"},
    "budgets": {"user_month_usd": "5", "tenant_month_usd": "none", "tenant_month_tokens": "none", "warn": 0.5},
    "allowed_tools": ["search"],
    "blocked_topics": ["politics"],
    "escalation_email": "help@example.org",
    "escalation_webhook": "https://example.org/hook",
    "greeting": "Hello!",
    "degraded_reply": "Later, please.",
    "retention_days": 30,
    "cache_ttl_s": 60,
    "cors_origins": ["https://example.org", "http://localhost:3000"],
}


def fields(document: dict[str, Any]) -> list[str]:
    return [fault["field"] for fault in checked(document, KNOWN)[1]]


def test_no_document_is_the_plan_free() -> None:
    assert settings_of({}) == TenantSettings()


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_is_itself_a_document_without_faults(plan: Any) -> None:
    assert checked(PLAN_DOCUMENTS[plan], KNOWN) == (PLAN_DOCUMENTS[plan], [])
    assert settings_of({"plan": plan}).plan == plan


def test_every_setting_can_be_given_and_is_read() -> None:
    document, faults = checked(EVERYTHING, KNOWN)
    assert faults == []
    read = read_settings(msgspec.json.encode(document).decode())
    assert read.rates.user_per_min == 20
    assert (read.rates.tenant_per_min, read.rates.tier_per_hour.of("pro"), read.rates.tier_per_hour.of("free")) == (
        300,
        50,
        10,
    )
    assert read.agents["support"] == AgentOverride(
        system_prompt="Be brief.",
        models=("anthropic:claude-haiku-4-5", "openai:gpt-5.4-mini"),
        max_tokens=200,
        temperature=0.2,
        policy="merge",
        merge_window_s=1.5,
        routing="auto",
        prefer_quality=True,
    )
    assert read.degraded_reply == "Later, please."
    budgets = read.budgets
    assert (budgets.user_month_nano_usd, budgets.tenant_month_nano_usd, budgets.tenant_month_tokens) == (
        5_000_000_000,
        None,
        None,
    )
    assert (budgets.conversation_nano_usd, budgets.warn_permille, budgets.block_permille) == (1_000_000_000, 500, 950)


def test_the_ingress_gets_what_admission_needs_and_no_prompt() -> None:
    terms = settings_of(checked(EVERYTHING, KNOWN)[0]).terms(7)
    assert (terms.version, terms.tier_of("ada"), terms.tier_of("bob"), terms.tier_of(None)) == (
        7,
        "enterprise",
        "free",
        None,
    )
    assert (terms.policies["support"].policy, terms.policies["support"].merge_window_s) == ("merge", 1.5)
    assert b"Be brief" not in msgspec.json.encode(terms)
    assert msgspec.json.decode(msgspec.json.encode(terms), type=type(terms)) == terms


def test_all_faults_are_said_at_once_each_with_its_place() -> None:
    wrong = {
        "plan": "gold",
        "spelling": 1,
        "rates": {"user_per_min": -1, "tenant_per_min": 1_001, "tier_per_hour": {"silver": 1}},
        "budgets": {"user_month_usd": 5, "tenant_month_tokens": 0, "day_usd": "-1", "warn": 2},
        "agents": {"nobody": {}, "support": {"models": ["openai:gpt-9"], "temperature": 3, "system_prompt": "\0"}},
        "user_tiers": {"a/b~c": "silver"},
        "cors_origins": ["*"],
        "escalation_email": "nobody",
        "escalation_webhook": "http://example.org",
        "retention_days": 0,
        "cache_ttl_s": -1,
        "unlimited": 1,
    }
    assert sorted(fields(wrong)) == sorted(
        [
            "settings/plan",
            "settings/spelling",
            "settings/rates/user_per_min",
            "settings/rates/tenant_per_min",
            "settings/rates/tier_per_hour/silver",
            "settings/budgets/user_month_usd",
            "settings/budgets/tenant_month_tokens",
            "settings/budgets/day_usd",
            "settings/budgets/warn",
            "settings/agents/nobody",
            "settings/agents/support/models/0",
            "settings/agents/support/temperature",
            "settings/agents/support/system_prompt",
            "settings/user_tiers/a~1b~0c",
            "settings/cors_origins/0",
            "settings/escalation_email",
            "settings/escalation_webhook",
            "settings/retention_days",
            "settings/cache_ttl_s",
            "settings/unlimited",
        ]
    )


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ({"routing": "cheapest"}, "routing"),
        ({"prefer_quality": "yes"}, "prefer_quality"),
        ({"models": ["gpt-5"]}, "models"),
    ],
)
def test_a_wish_for_models_that_means_nothing_is_refused(wanted: dict[str, object], name: str) -> None:
    (field,) = fields({"agents": {"support": wanted}})
    assert field.startswith(f"settings/agents/support/{name}")


@pytest.mark.parametrize("amount", [0.5, "0", "-1", "1e3", "NaN", "1000001", "0.0000000001", " 1", "", "١"])
def test_an_amount_that_is_none_is_refused(amount: object) -> None:
    assert fields({"budgets": {"day_usd": amount}}) == ["settings/budgets/day_usd"]


@pytest.mark.parametrize("limit", [0, -1, 1_001, 10**20, 1.5, "60", True, float("inf")])
def test_an_absurd_rate_is_refused(limit: object) -> None:
    assert fields({"rates": {"tenant_per_min": limit}}) == ["settings/rates/tenant_per_min"]


def test_a_warning_above_the_block_is_refused() -> None:
    assert fields({"budgets": {"block": 0.5}}) == ["settings/budgets/warn", "settings/budgets/downgrade"]


@pytest.mark.parametrize(
    ("amount", "nano"), [("0.50", 500_000_000), ("10", 10_000_000_000), ("0.000000001", 1), ("1.1", 1_100_000_000)]
)
def test_money_is_exact(amount: str, nano: int) -> None:
    assert nano_usd(amount) == nano


@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [  # the examples of RFC 7396, appendix A, for objects
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_patch_is_merged_as_the_rfc_says(
    document: dict[str, Any], patch: dict[str, Any], result: dict[str, Any]
) -> None:
    assert merged(document, patch) == result


@pytest.mark.parametrize(
    "document", [{"plan": "gold"}, {"rates": 3}, {"budgets": {"day_usd": 5}}, {"budgets": 1}, {"agents": []}]
)
def test_a_document_that_nobody_checked_is_a_fault_not_a_guess(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        settings_of(document)


@pytest.mark.parametrize(
    ("before", "patch", "refused"),
    [
        ({}, {"rates": {"user_per_min": 10}, "budgets": {"day_usd": "1"}, "greeting": "hi"}, []),
        ({}, {"plan": "pro"}, ["settings/plan"]),
        ({}, {"unlimited": True}, ["settings/unlimited"]),
        ({}, {"rates": {"user_per_min": 31}}, ["settings/rates/user_per_min"]),
        ({}, {"rates": {"tier_per_hour": {"free": 11}}}, ["settings/rates/tier_per_hour/free"]),
        ({}, {"budgets": {"user_month_usd": "10.000000001"}}, ["settings/budgets/user_month_usd"]),
        ({}, {"budgets": {"user_month_usd": "none"}}, ["settings/budgets/user_month_usd"]),
        ({}, {"budgets": {"tenant_month_tokens": "none"}}, ["settings/budgets/tenant_month_tokens"]),
        ({}, {"budgets": {"block": 1.0, "warn": 0.9}}, ["settings/budgets/block"]),
        ({"rates": {"user_per_min": 500}}, {"greeting": "hi"}, []),  # an operator gave more: that stands
        ({"rates": {"user_per_min": 500}}, {"rates": {"user_per_min": 400}}, ["settings/rates/user_per_min"]),
        ({"rates": {"user_per_min": 500}}, {"rates": {"user_per_min": None}}, []),
    ],
)
def test_a_tenant_changes_its_own_settings_within_its_plan(
    before: dict[str, Any], patch: dict[str, Any], refused: list[str]
) -> None:
    after = merged(before, patch)
    assert checked(after, KNOWN)[1] == []
    assert [fault["field"] for fault in beyond_plan(before, after)] == refused


def test_what_is_shown_as_in_force_is_the_document_over_its_plan() -> None:
    whole = complete({"plan": "pro", "rates": {"user_per_min": 5}})
    assert (whole["rates"]["user_per_min"], whole["rates"]["tenant_per_min"]) == (5, 300)
