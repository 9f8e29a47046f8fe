"""What a model call cost: exact, in integer nano-USD, with the unit prices it was reckoned with.

Called once per model call, before it (what to reserve) and after it (what to book). Prices come from our own
`overrides.json`, then from the data bundled with `genai-prices`, never from the network; an unknown price is an error,
never 0. The rates of a model are resolved once a minute and applied with integers; a test compares the result with
`genai-prices` on every model it knows.

An override is a list of dated prices, USD per million tokens, for a name the provider's API is called with:

    {"openai:llama-3.3-70b": [{"from": "2026-11-01", "input": "0.10", "output": "0.40", "cached": "0.05"}]}
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from genai_prices import data_snapshot
from genai_prices.types import ModelPrice, TieredPrices

from shared.errors import AgentError, ConfigError
from shared.jobs import Usage

OVERRIDES = Path(__file__).with_name("overrides.json")
BUNDLED_VERSION = f"genai-prices {version('genai-prices')}"

_NANO_USD_PER_TOKEN = 1_000
"""One USD per million tokens is 1,000 nano-USD per token."""
_DATED = re.compile(r"-(20\d\d-\d\d-\d\d|20\d{6})$")
"""The date a provider adds to the name it answers with: `gpt-5.4-mini-2026-03-17`, `claude-haiku-4-5-20251001`."""


class Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices of one model from a day on; USD per million tokens. What is not given costs as much as `input`."""

    from_date: date = msgspec.field(name="from")
    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    cache_write: Decimal | None = None


Overrides = Mapping[str, Sequence[Override]]
"""`provider:model` → its prices by date."""


class Charge(NamedTuple):
    """`unit_prices` are USD per million tokens by kind of token; with `version` they make a row reproducible."""

    cost_nano_usd: int
    unit_prices: Mapping[str, str]
    version: str


class _Rates(msgspec.Struct, frozen=True):
    """Prices of one model for prompts longer than `above` tokens, scaled to integers by `scale`."""

    above: int
    input: int
    output: int | None
    cached: int
    cache_write: int
    scale: int
    unit_prices: Mapping[str, str]

    def cost_nano_usd(self, usage: Usage) -> int | None:
        """Rounded up to a nano-USD; None when output was used and has no price."""
        if self.output is None and usage.output_tokens:
            return None
        plain = max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens)
        scaled = (
            plain * self.input
            + usage.cached_tokens * self.cached
            + usage.cache_write_tokens * self.cache_write
            + usage.output_tokens * (self.output or 0)
        )
        return -(-scaled * _NANO_USD_PER_TOKEN // self.scale)

    def most_nano_usd(self, input_tokens: int, output_tokens: int) -> int | None:
        """For at most so many tokens, whatever part of the input is read from a cache or written to it."""
        if self.output is None and output_tokens:
            return None
        dearest = max(self.input, self.cached, self.cache_write)
        return -(-(input_tokens * dearest + output_tokens * (self.output or 0)) * _NANO_USD_PER_TOKEN // self.scale)


class PriceList:
    """Our overrides in front of the bundled prices."""

    def __init__(self, overrides: Overrides) -> None:
        self._overrides = overrides
        self._rates = lru_cache(maxsize=4_096)(self._resolve)

    def price(self, provider: str, model: str, usage: Usage, at: datetime) -> Charge:
        """Charge for one call made `at` (an aware moment). Raises AgentError `price_unknown`."""
        tiers, source = self._rates(provider, model, int(at.timestamp()) // 60)
        rates = tiers[-1]
        for tier in tiers:
            if usage.input_tokens > tier.above:
                rates = tier
                break
        cost_nano_usd = rates.cost_nano_usd(usage)
        if cost_nano_usd is None:
            raise _unknown(provider, model)
        return Charge(cost_nano_usd, rates.unit_prices, source)

    def most_nano_usd(self, provider: str, model: str, *, input_tokens: int, output_tokens: int, at: datetime) -> int:
        """No call made `at` with at most so many tokens costs more. Raises AgentError `price_unknown`."""
        tiers, _ = self._rates(provider, model, int(at.timestamp()) // 60)
        costs = [tier.most_nano_usd(input_tokens, output_tokens) for tier in tiers if input_tokens > tier.above]
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs):
            raise _unknown(provider, model)
        return max(known)

    def _resolve(self, provider: str, model: str, minute_number: int) -> tuple[tuple[_Rates, ...], str]:
        """Tiers, the highest first, and where they come from, in a minute since 1970."""
        minute = datetime.fromtimestamp(minute_number * 60, UTC)
        names = dict.fromkeys((model, _DATED.sub("", model)))
        for name in names:
            if override := self._override(f"{provider}:{name}", minute.date()):
                return (_override_rates(override),), f"override {override.from_date.isoformat()}"
        for name in names:
            if prices := _bundled_prices(provider, name, minute):
                return _tiers(prices), BUNDLED_VERSION
        raise _unknown(provider, model)

    def _override(self, key: str, day: date) -> Override | None:
        begun = [override for override in self._overrides.get(key, ()) if override.from_date <= day]
        return max(begun, key=lambda override: override.from_date, default=None)


def read_overrides(path: Path = OVERRIDES) -> Overrides:
    """The override table. Raises ConfigError naming the file and the fault."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, list[Override]])
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"price overrides {path.name}: {error}") from error


def price(provider: str, model: str, usage: Usage, at: datetime) -> Charge:
    """`PriceList.price` with the overrides that are shipped."""
    return shipped().price(provider, model, usage, at)


@cache
def shipped() -> PriceList:
    """The price list of this release; made once. Loads the bundled data (0.2 s): call it at start-up."""
    data_snapshot.get_snapshot()
    return PriceList(read_overrides())


def _unknown(provider: str, model: str) -> AgentError:
    return AgentError(
        f"The price of {provider}:{model} is not known; add it to {OVERRIDES.name} before using it.",
        code="price_unknown",
    )


def _bundled_prices(provider: str, model: str, minute: datetime) -> ModelPrice | None:
    """None when the model is unknown or not priced per token."""
    try:
        _, found = data_snapshot.get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    prices = found.get_prices(minute)
    return None if prices.input_mtok is None else prices


def _tiers(prices: ModelPrice) -> tuple[_Rates, ...]:
    """One `_Rates` per threshold: crossing one moves the whole call, not the tokens beyond it, to the new price."""
    kinds = (prices.input_mtok, prices.output_mtok, prices.cache_read_mtok, prices.cache_write_mtok)
    starts = {tier.start for kind in kinds if isinstance(kind, TieredPrices) for tier in kind.tiers}
    lowest_first = [_rates(-1, *(_price_above(kind, 0) for kind in kinds))]
    lowest_first += [_rates(start, *(_price_above(kind, start + 1) for kind in kinds)) for start in sorted(starts)]
    return tuple(reversed(lowest_first))


def _price_above(kind: Any, input_tokens: int) -> Decimal | None:
    if not isinstance(kind, TieredPrices):
        return kind if isinstance(kind, Decimal) else None
    reached = [tier.price for tier in kind.tiers if input_tokens > tier.start]
    return reached[-1] if reached else kind.base


def _override_rates(override: Override) -> _Rates:
    return _rates(-1, override.input, override.output, override.cached, override.cache_write)


def _rates(
    above: int, plain: Decimal | None, output: Decimal | None, cached: Decimal | None, cache_write: Decimal | None
) -> _Rates:
    """Tokens of a kind without a price of its own cost what plain input costs."""
    plain = Decimal(0) if plain is None else plain
    given = {"input": plain, "output": output, "cached": cached, "cache_write": cache_write}
    shown = {name: value for name, value in given.items() if value is not None}
    scale = 10 ** max(0, *(-int(value.as_tuple().exponent) for value in shown.values()))

    def scaled(name: str) -> int:
        return int(shown.get(name, plain) * scale)

    return _Rates(
        above=above,
        input=scaled("input"),
        output=None if output is None else scaled("output"),
        cached=scaled("cached"),
        cache_write=scaled("cache_write"),
        scale=scale,
        unit_prices={name: f"{value:f}" for name, value in shown.items()},
    )
