"""Who is asked, in which order, and who counts as cheap: pure, from the agent, the prompt and the price list."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from agents.api import Agent, Message, Prompt
from shared.errors import AgentError, ConfigError
from shared.tenants import AgentOverride, TenantSettings
from workers.ledger.prices import Override, PriceList
from workers.routing.complexity import COMPLEX, points
from workers.routing.route import LARGE_PROMPT_TOKENS, Candidate, reachable, route
from workers.turn.tuned import tuned

AT = datetime(2026, 11, 21, tzinfo=UTC)
BOTH = ("openai", "anthropic")


def price(dollars: str) -> list[Override]:
    return [Override(date(2026, 1, 1), Decimal(dollars), Decimal(dollars))]


PRICES = PriceList({"openai:best": price("10"), "openai:small": price("1"), "anthropic:claude-mid": price("2")})


class Two(Agent):
    id, label, system_prompt = "two", "Two", "You are brief."
    models = ("openai:best", "anthropic:claude-mid", "openai:small")


class Auto(Two):
    routing = "auto"


class Careful(Auto):
    prefer_quality = True


SIMPLE = "What time is it in Rome?"
COMPLEX_QUESTION = "Explain step by step why this fails:\n```\nfor x in y: z(x)\n```"
LARGE = "word " * (LARGE_PROMPT_TOKENS + 100)


def ask(text: str) -> Prompt:
    return Prompt("You are brief.", (Message("user", text),), max_tokens=500)


def models(agent: Agent, text: str, available: tuple[str, ...] = BOTH) -> list[str]:
    return [candidate.model for candidate in route(agent, ask(text), available, PRICES, AT)]


@pytest.mark.parametrize("text", [SIMPLE, COMPLEX_QUESTION, LARGE])
def test_a_fixed_agent_keeps_its_order_whatever_is_asked(text: str) -> None:
    assert models(Two(), text) == ["best", "claude-mid", "small"]


def test_an_auto_agent_asks_the_cheapest_first_about_what_is_simple_and_the_best_about_what_is_not() -> None:
    assert models(Auto(), SIMPLE) == ["small", "claude-mid", "best"]
    assert models(Auto(), COMPLEX_QUESTION) == ["best", "claude-mid", "small"]


def test_a_large_prompt_goes_to_the_cheapest_unless_quality_is_preferred() -> None:
    large = COMPLEX_QUESTION + LARGE
    assert models(Auto(), large) == ["small", "claude-mid", "best"]
    assert models(Careful(), large) == ["best", "claude-mid", "small"]


def test_cheap_is_what_costs_less_than_the_preferred_one() -> None:
    assert [c.cheap for c in route(Two(), ask(SIMPLE), BOTH, PRICES, AT)] == [False, True, True]

    class Thrifty(Two):
        models = ("openai:small", "openai:best")

    assert [c.cheap for c in route(Thrifty(), ask(SIMPLE), BOTH, PRICES, AT)] == [True, False]


def test_a_model_that_makes_more_tokens_of_a_text_is_dearer_by_as_much() -> None:
    prices = PriceList({"openai:a": price("1"), "anthropic:claude-b": price("0.9")})

    class Close(Auto):
        models = ("anthropic:claude-b", "openai:a")

    order = [c.model for c in route(Close(), ask(SIMPLE), BOTH, prices, AT)]
    assert order == ["a", "claude-b"], "0.90 a token, but one and a half times as many tokens"


def test_providers_without_a_key_are_passed_over_and_none_is_said_in_a_sentence() -> None:
    assert models(Two(), SIMPLE, ("anthropic",)) == ["claude-mid"]
    assert route(Two(), ask(SIMPLE), ("anthropic",), PRICES, AT) == (Candidate("anthropic", "claude-mid", True),)
    with pytest.raises(ConfigError, match="set ANTHROPIC_API_KEY or OPENAI_API_KEY") as raised:
        models(Two(), SIMPLE, ())
    assert not raised.value.retryable
    assert reachable(("openai:ft:gpt-4o:acme",), BOTH) == [("openai", "ft:gpt-4o:acme")]


def test_a_model_named_twice_is_one_candidate() -> None:
    class Twice(Two):
        models = ("openai:best", "openai:best", "openai:small")

    assert models(Twice(), SIMPLE) == ["best", "small"]


def test_a_model_without_a_price_is_never_a_candidate() -> None:
    class Unknown(Two):
        models = ("openai:of-the-future", "openai:small", "openai:best")

    class Nothing(Two):
        models = ("openai:of-the-future", "openai:of-the-past")

    assert models(Unknown(), SIMPLE) == ["small", "best"]
    with pytest.raises(AgentError) as caught:
        models(Nothing(), SIMPLE)
    assert caught.value.code == "price_unknown"


def test_a_tenant_may_have_it_otherwise() -> None:
    wanted = AgentOverride(models=("openai:small", "openai:best"), routing="auto", prefer_quality=True)
    agent = tuned(Two(), TenantSettings(agents={"two": wanted}))
    assert models(agent, COMPLEX_QUESTION) == ["small", "best"]
    assert agent.prefer_quality is True
    assert Two().routing == "fixed"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi", 0),
        (SIMPLE, 0),
        ("When do you open tomorrow? Thanks!", 0),
        ("Why?", 1),
        ("Is it open? Is it free?", 1),
        ("word " * 41, 1),
        ("word " * 121, 2),
        ("- one\n- two", 1),
        ("1 2 3 4", 1),
        ("x = 3 + 4", 1),
        ("def f():\n    return 1", 2),
        ("```py\n```", 2),
        ("compare a and b.\n1. price\n2. size", 2),
    ],
)
def test_points_of_a_question(text: str, expected: int) -> None:
    assert points(ask(text)) == expected


def test_a_long_conversation_is_a_point() -> None:
    history = tuple(Message("user", "hi") for _ in range(7))
    assert points(Prompt("", (*history, Message("user", "ok")), 10)) == 1
    assert COMPLEX > 1, "by itself it does not make a question complex"


def test_a_prompt_without_messages_is_simple() -> None:
    assert points(Prompt("", (), 10)) == 0


def test_a_very_long_text_is_measured_in_no_time() -> None:
    """No pattern may take time that grows faster than the text."""
    for text in ("a" * 200_000, "( " * 100_000, "1 " * 100_000, " " * 200_000, "x(" * 100_000, "\n- " * 60_000):
        points(ask(text))
