"""What a tenant's settings document may say. Every document is checked here, whole, before it is stored.

Called by `ops.tenants.books` with the document as a change would leave it. All faults are found at once, each with its
place as a JSON pointer (RFC 6901) without the leading slash. Nothing unknown passes: a misspelt field would do nothing.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError

from agents.api import Routing
from ingress.body import whole
from shared.errors import AgentError
from shared.jobs import Usage
from shared.tenants import NONE, Plan, Tier, complete, nano_usd
from shared.wire import MAX_MERGE_WINDOW_S, Policy
from workers.ledger.prices import PriceList

MAX_PER_MIN = 1_000
MAX_BUDGET_USD = 1_000_000
MAX_TOKENS_A_MONTH = 10**12

Fault = dict[str, str]
"""`{"field": "settings/rates/user_per_min", "message": "…"}`."""

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]+\.[^@\s]+")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Known:
    """What a document may name: agents by id, and models with a price."""

    agents: frozenset[str]
    prices: PriceList


def _fault(message: str) -> PydanticCustomError:
    return PydanticCustomError("setting", "{text}", {"text": message})


def _storable(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise _fault("must not contain NUL characters or lone surrogates")
    return text


def _matching(pattern: re.Pattern[str], words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise _fault(f"must be {words}")
        return text

    return check


def _web_address(text: str) -> str:
    """Structure only: whether it may be called is decided when it is."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for one that is no number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme != "https" or not parts.hostname or any(c.isspace() for c in text):
        raise _fault("must be an https URL with a host")
    return text


def _amount(value: object) -> object:
    if value == NONE:
        return value
    try:
        exact = nano_usd(value) if isinstance(value, str) else None
    except ValueError:
        exact = None
    if exact is None or not 0 < exact <= MAX_BUDGET_USD * 1_000_000_000:
        raise _fault(f'must be US dollars as a decimal string, more than 0 and at most {MAX_BUDGET_USD}, or "{NONE}"')
    return value


def _tokens(value: object) -> object:
    value = whole(value)
    if value == NONE or (type(value) is int and 0 < value <= MAX_TOKENS_A_MONTH):
        return value
    raise _fault(f'must be a whole number from 1 to {MAX_TOKENS_A_MONTH}, or "{NONE}"')


def _share(value: float) -> float:
    if not 0 < value <= 1 or round(value, 3) != value:
        raise _fault("must be more than 0 and at most 1, with at most 3 decimals")
    return value


def _known_model(spec: str, info: ValidationInfo) -> str:
    provider, _, name = spec.partition(":")
    try:
        _known(info).prices.price(provider, name, Usage(), datetime.now(UTC))
    except AgentError:
        raise _fault(f"there is no model {spec!r} whose price is known; write provider:model") from None
    return spec


def _known_agent(agent: str, info: ValidationInfo) -> str:
    if agent not in _known(info).agents:
        raise _fault(f"there is no agent {agent!r}; there are {', '.join(sorted(_known(info).agents))}")
    return agent


def _known(info: ValidationInfo) -> Known:
    assert isinstance(info.context, Known)  # noqa: S101 - `faults_of` is the only caller
    return info.context


_STORABLE = AfterValidator(_storable)
_WHOLE = BeforeValidator(whole)

_PerMin = Annotated[int, Field(ge=1, le=MAX_PER_MIN), _WHOLE]
_PerHour = Annotated[int, Field(ge=1, le=1_000_000), _WHOLE]
_Tokens = Annotated[int, Field(ge=1, le=100_000), _WHOLE]
_Usd = Annotated[str, BeforeValidator(_amount)]
_Share = Annotated[float, AfterValidator(_share)]
_UserId = Annotated[str, Field(min_length=1, max_length=128), _STORABLE]
_Topic = Annotated[str, Field(min_length=1, max_length=200), _STORABLE]
_Model = Annotated[str, AfterValidator(_known_model)]
_Agent = Annotated[str, AfterValidator(_known_agent)]
_Email = Annotated[str, Field(max_length=254), AfterValidator(_matching(_EMAIL, "an e-mail address"))]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
_Origin = Annotated[str, AfterValidator(_matching(_ORIGIN, "an origin: http(s)://host, with a port where it has one"))]


class _Part(BaseModel):
    """Every field may be left out; then the plan decides."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class AgentPart(_Part):
    system_prompt: Annotated[str, Field(min_length=1, max_length=32_000), _STORABLE] | None = None
    models: Annotated[list[_Model], Field(min_length=1, max_length=8)] | None = None
    max_tokens: _Tokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    policy: Policy | None = None
    merge_window_s: Annotated[float, Field(ge=0, le=MAX_MERGE_WINDOW_S, allow_inf_nan=False)] | None = None
    routing: Routing | None = None
    prefer_quality: bool | None = None


class TierPart(_Part):
    free: _PerHour | None = None
    pro: _PerHour | None = None
    enterprise: _PerHour | None = None


class RatesPart(_Part):
    user_per_min: _PerMin | None = None
    tenant_per_min: _PerMin | None = None
    webhook_user_per_min: _PerMin | None = None
    flows_user_per_min: _PerMin | None = None
    tier_per_hour: TierPart | None = None


class BudgetsPart(_Part):
    user_month_usd: _Usd | None = None
    tenant_month_usd: _Usd | None = None
    tenant_month_tokens: Annotated[Any, BeforeValidator(_tokens)] = None
    conversation_usd: _Usd | None = None
    day_usd: _Usd | None = None
    warn: _Share | None = None
    downgrade: _Share | None = None
    block: _Share | None = None


class MemoryPart(_Part):
    summary_after: Annotated[int, Field(ge=10, le=1_000), _WHOLE] | None = None
    facts: bool | None = None
    facts_after: Annotated[int, Field(ge=1, le=1_000), _WHOLE] | None = None
    quiet_s: Annotated[int, Field(ge=0, le=86_400), _WHOLE] | None = None


class SettingsDocument(_Part):
    plan: Plan | None = None
    unlimited: bool | None = None
    agents: Annotated[dict[_Agent, AgentPart], Field(max_length=100)] | None = None
    max_tokens: _Tokens | None = None
    rates: RatesPart | None = None
    default_user_tier: Tier | None = None
    user_tiers: Annotated[dict[_UserId, Tier], Field(max_length=1_000)] | None = None
    budgets: BudgetsPart | None = None
    allowed_tools: Annotated[list[_Name], Field(max_length=100)] | None = None
    blocked_topics: Annotated[list[_Topic], Field(max_length=100)] | None = None
    escalation_email: _Email | None = None
    escalation_webhook: Annotated[str, Field(max_length=2_048), AfterValidator(_web_address)] | None = None
    greeting: Annotated[str, Field(min_length=1, max_length=2_000), _STORABLE] | None = None
    degraded_reply: Annotated[str, Field(min_length=1, max_length=2_000), _STORABLE] | None = None
    retention_days: Annotated[int, Field(ge=1, le=3_650), _WHOLE] | None = None
    memory: MemoryPart | None = None
    cache_ttl_s: Annotated[int, Field(ge=0, le=86_400), _WHOLE] | None = None
    cors_origins: Annotated[list[_Origin], Field(max_length=100)] | None = None


def checked(document: Mapping[str, Any], known: Known) -> tuple[dict[str, Any], list[Fault]]:
    """The document as it is to be stored (a whole number as one: `20.0` is 20), and all that is wrong with it."""
    try:
        sound = SettingsDocument.model_validate(document, context=known).model_dump(mode="json", exclude_none=True)
    except ValidationError as error:
        return {}, [
            {"field": pointer("settings", *item["loc"]), "message": item["msg"]}
            for item in error.errors(include_url=False, include_input=False)
        ]
    return sound, _contradictions(complete(sound)["budgets"])


def _contradictions(budgets: Mapping[str, Any]) -> list[Fault]:
    """Settings that are each allowed, but not together."""
    return [
        {"field": pointer("settings", "budgets", name), "message": f"must be at most `block`, {budgets['block']}"}
        for name in ("warn", "downgrade")
        if budgets[name] > budgets["block"]
    ]


def pointer(*path: object) -> str:
    return "/".join(
        str(part).replace("~", "~0").replace("/", "~1").encode("utf-8", "backslashreplace").decode()
        for part in path
        if part != "[key]"
    )
