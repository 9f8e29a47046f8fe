"""The candidates of a model call, best first: pure, called by the turn before every call and by tests.

An agent's `models` are in its author's (or the tenant's) order of preference. `routing`, the agent's or the tenant's,
says what is made of it:

    fixed   that order, always
    auto    a complex question: that order. A simple one, or a prompt of more than LARGE_PROMPT_TOKENS tokens: the
            cheapest first. With `prefer_quality` the size does not matter.

What is cheap is reckoned from the price list, never read from a name. A budget that is nearly
spent leaves only candidates flagged `cheap` (the script that reserves decides that, atomically); the others are asked
in order when one fails or is down (`workers.turn.calls`).
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from agents.api import Agent, Prompt
from shared.errors import AgentError, ConfigError
from shared.jobs import Usage
from workers.ledger import tokens
from workers.ledger.prices import PriceList
from workers.routing.complexity import is_complex

LARGE_PROMPT_TOKENS = 3_500
USUAL_TOKENS = (700, 300)
"""In and out, to tell which of two models is the cheaper one in general."""


class Candidate(NamedTuple):
    """`cheap`: may be used when the budget is nearly spent, because it costs less than the one preferred, or nothing
    does."""

    provider: str
    model: str
    cheap: bool

    @property
    def spec(self) -> str:
        return f"{self.provider}:{self.model}"


def route(
    agent: Agent, prompt: Prompt, available: Collection[str], prices: PriceList, at: datetime
) -> tuple[Candidate, ...]:
    """At least one. `available` are the providers that have a key.

    Raises ConfigError, a sentence fit for the job, when no provider is there, and AgentError `price_unknown` when no
    model has a price; one of several without a price is passed over, never called.
    """
    pairs = reachable(agent.models, available)
    if len(pairs) == 1:
        return (Candidate(*pairs[0], cheap=True),)
    costs = _costs(pairs, _shape(agent, prompt), prices, at)
    preferred = costs[next(iter(costs))]
    least = min(costs.values())
    order = sorted(costs, key=costs.__getitem__) if _saves(agent, prompt) else list(costs)
    return tuple(Candidate(*pair, cheap=costs[pair] < preferred or costs[pair] == least) for pair in order)


def reachable(models: Sequence[str], available: Collection[str]) -> list[tuple[str, str]]:
    """(provider, model) of those whose provider is there, each once. Raises ConfigError when there is none."""
    pairs = [(provider, name) for provider, _, name in (spec.partition(":") for spec in models)]
    if found := list(dict.fromkeys(pair for pair in pairs if pair[0] in available)):
        return found
    keys = " or ".join(sorted({f"{provider.upper()}_API_KEY" for provider, _ in pairs}))
    raise ConfigError(f"None of the models {', '.join(models)} can be reached: set {keys}.")


def _saves(agent: Agent, prompt: Prompt) -> bool:
    """Whether the cheapest is to go first."""
    if agent.routing == "fixed":
        return False
    if not is_complex(prompt):
        return True
    return not agent.prefer_quality and tokens.count_prompt(prompt) > LARGE_PROMPT_TOKENS


def _shape(agent: Agent, prompt: Prompt) -> tuple[int, int]:
    """Tokens in (by o200k_base) and out to compare prices with: this prompt's, where the order depends on it."""
    return USUAL_TOKENS if agent.routing == "fixed" else (tokens.count_prompt(prompt), prompt.max_tokens)


def _costs(
    pairs: Sequence[tuple[str, str]], shape: tuple[int, int], prices: PriceList, at: datetime
) -> dict[tuple[str, str], int]:
    """What such a call would cost (nano-USD) with each that has a price, in the given order."""
    costs, unknown = {}, None
    for provider, model in pairs:
        usage = Usage(*(tokens.as_counted_by(model, amount) for amount in shape))
        try:
            costs[provider, model] = prices.price(provider, model, usage, at).cost_nano_usd
        except AgentError as error:
            unknown = error
    if unknown is not None and not costs:
        raise unknown
    return costs
