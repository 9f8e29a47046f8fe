"""Prices: equal to genai-prices on every model, exact, rounded up, and an error where nothing is known."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot

from shared.errors import AgentError, ConfigError
from shared.jobs import Usage
from workers.ledger.prices import BUNDLED_VERSION, PriceList, price, read_overrides

AT = datetime(2026, 11, 20, 12, 30, 15, tzinfo=UTC)
MOMENTS = (AT, datetime(2025, 3, 1, 3, 0, tzinfo=UTC), datetime(2026, 7, 30, 0, 0, tzinfo=UTC))


def priced_models() -> Iterator[tuple[str, str]]:
    """Every model of genai-prices that charges per input token and answers to its own id."""
    for provider in get_snapshot().providers:
        for model in provider.models:
            if model.is_match(model.id) and model.get_prices(AT).input_mtok is not None:
                yield provider.id, model.id


def random_usage(random: Random) -> Usage:
    total = random.choice([0, 1, 7, 19, 1_234, 99_999, 100_001, 200_000, 200_001, 272_001, 999_999])
    cached = random.randint(0, total)
    written = random.choice([0, random.randint(0, total - cached)])
    return Usage(total, random.choice([0, 1, 500, 33_333]), cached, written)


def expected_nano_usd(provider: str, model: str, usage: Usage, at: datetime) -> int:
    bundled = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        ),
        model,
        provider_id=provider,
        genai_request_timestamp=at,
    )
    return int((bundled.total_price * 10**9).to_integral_value(ROUND_CEILING))


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_every_model_of_our_providers_costs_what_genai_prices_says(provider: str) -> None:
    random = Random(7)  # noqa: S311 - a repeatable sample
    models = [model for of, model in priced_models() if of == provider]
    assert len(models) > 25
    for model in models:
        for at in MOMENTS:
            for _ in range(8):
                usage = random_usage(random)
                try:
                    charge = price(provider, model, usage, at)
                except AgentError:  # embeddings have no price for output
                    assert usage.output_tokens > 0
                    continue
                assert charge.cost_nano_usd == expected_nano_usd(provider, model, usage, at), (model, usage, at)


def test_most_specific_tier_and_cache_prices_are_applied() -> None:
    """Haiku 5.5 above 100,000 tokens: the whole prompt costs 0.50 $/M, cached 0.05, output 2.50."""
    usage = Usage(input_tokens=150_000, output_tokens=1_000, cached_tokens=50_000)
    charge = price("anthropic", "claude-haiku-5-5", usage, AT)
    assert charge.cost_nano_usd == 100_000 * 500 + 50_000 * 50 + 1_000 * 2_500
    assert charge.unit_prices["input"] == "0.5"
    assert price("anthropic", "claude-haiku-5-5", Usage(1_000), AT).unit_prices["input"] == "0.1"
    assert charge.version == BUNDLED_VERSION


def test_smallest_call_is_not_rounded_away() -> None:
    assert price("openai", "text-embedding-3-small", Usage(input_tokens=19), AT).cost_nano_usd == 380
    assert price("openai", "gpt-6-luna", Usage(input_tokens=1, cached_tokens=1), AT).cost_nano_usd == 10


def test_fraction_of_a_nano_usd_is_rounded_up() -> None:
    prices = overrides({"openai:tiny": [{"from": "2026-01-01", "input": "0.0001", "output": "0"}]})
    assert prices.price("openai", "tiny", Usage(input_tokens=1), AT).cost_nano_usd == 1
    assert prices.price("openai", "tiny", Usage(input_tokens=11), AT).cost_nano_usd == 2
    assert prices.price("openai", "tiny", Usage(), AT).cost_nano_usd == 0


@pytest.mark.parametrize(
    ("provider", "answered", "asked"),
    [
        ("openai", "gpt-5.4-mini-2026-03-17", "gpt-5.4-mini"),
        ("openai", "gpt-5.4-mini-20260317", "gpt-5.4-mini"),
        ("anthropic", "claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("anthropic", "claude-haiku-5-5-20260901", "claude-haiku-5-5"),
    ],
)
def test_dated_name_costs_what_its_model_costs(provider: str, answered: str, asked: str) -> None:
    usage = Usage(1_000, 1_000, 100, 100)
    assert price(provider, answered, usage, AT) == price(provider, asked, usage, AT)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "my-llama"),
        ("openai", "gpt-5.4-minix"),
        ("nobody", "gpt-5.4-mini"),
        ("openai", "moderation"),  # known, but without any price
        ("openai", "whisper-1"),  # priced by the hour
        ("github-copilot", "gpt-4o-mini"),
    ],
)
def test_unknown_price_is_an_error_and_never_zero(provider: str, model: str) -> None:
    with pytest.raises(AgentError, match=f"{provider}:{model}") as raised:
        price(provider, model, Usage(10, 10), AT)
    assert raised.value.code == "price_unknown"
    assert not raised.value.retryable


def test_output_without_a_price_is_an_error() -> None:
    with pytest.raises(AgentError, match="not known"):
        price("openai", "text-embedding-3-small", Usage(10, 1), AT)


def overrides(table: dict[str, list[dict[str, str]]]) -> PriceList:
    with TemporaryDirectory() as folder:
        path = Path(folder, "overrides.json")
        path.write_text(json.dumps(table))
        return PriceList(read_overrides(path))


def test_override_wins_by_its_date() -> None:
    prices = overrides(
        {
            "openai:gpt-5.4-mini": [
                {"from": "2026-11-20", "input": "2", "output": "4", "cached": "1"},
                {"from": "2026-06-01", "input": "1", "output": "3"},
            ]
        }
    )
    usage = Usage(input_tokens=10, output_tokens=10, cached_tokens=4)
    june, november = datetime(2026, 6, 1, tzinfo=UTC), AT
    before = datetime(2026, 5, 31, 23, 59, tzinfo=UTC)
    assert prices.price("openai", "gpt-5.4-mini", usage, november).cost_nano_usd == 6 * 2_000 + 4 * 1_000 + 10 * 4_000
    assert prices.price("openai", "gpt-5.4-mini", usage, june).cost_nano_usd == 10 * 1_000 + 10 * 3_000
    assert prices.price("openai", "gpt-5.4-mini", usage, november).version == "override 2026-11-20"
    assert prices.price("openai", "gpt-5.4-mini", usage, before) == price("openai", "gpt-5.4-mini", usage, before)
    assert prices.price("openai", "gpt-5.4-mini-2026-03-17", usage, june).version == "override 2026-06-01"


@pytest.mark.parametrize(
    "text",
    ["{", '{"openai:x": [{"from": "2026-01-01"}]}', '{"openai:x": [{"from": "soon", "input": "1", "output": "1"}]}'],
)
def test_broken_override_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.json"):
        read_overrides(path)


def test_pricing_costs_microseconds() -> None:
    usage = Usage(1_000, 200, 500)
    price("openai", "gpt-5.4-mini", usage, AT)

    def cpu_s() -> float:
        started_s = time.process_time()
        for _ in range(200):
            price("openai", "gpt-5.4-mini", usage, AT)
        return (time.process_time() - started_s) / 200

    assert min(cpu_s() for _ in range(20)) < 50e-6  # 3 µs of CPU measured; some of the goes are left in peace


def test_unit_prices_reproduce_the_charge() -> None:
    usage = Usage(input_tokens=1_000, output_tokens=300, cached_tokens=250)
    charge = price("openai", "gpt-5.4-mini", usage, AT)
    unit = {name: Decimal(value) for name, value in charge.unit_prices.items()}
    usd_per_million = 750 * unit["input"] + 250 * unit["cached"] + 300 * unit["output"]
    assert charge.cost_nano_usd == (usd_per_million * 1_000).to_integral_value(ROUND_CEILING)
