"""What the workers have heard of the models lately: whose circuit breaker is open, who asked for a pause; and how many
calls are under way at providers where their number is bounded. Read from Redis, for `switchboard doctor` and the
console's `/metrics`.
"""

from collections.abc import Sequence

from msgspec import Struct
from prometheus_client import CollectorRegistry, Gauge

from shared import keys
from shared.redis import Commands
from workers.routing.terms import PROVIDERS


class ModelState(Struct, frozen=True):
    """`spec` is `provider:model`. Both numbers are 0 while nothing stands in its way."""

    spec: str
    open_s: float
    """Until one call may try whether it is back. While it is tried, and no answer has come, a little more than 0."""
    paused_s: float
    """Until the end of the pause that its provider asked for."""
    account: bool = False
    """It is not called because it refused our key or our money, not because it fails."""


class ModelsState(Struct, frozen=True):
    models: Sequence[ModelState]
    calls: dict[str, int]
    """Provider → calls under way, where a number is set; those of a worker just killed included."""


async def read_models(commands: Commands) -> ModelsState:
    """Raises Unavailable."""
    seconds, micros = await commands.run("TIME")
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    specs = sorted(spec.decode() for spec in await commands.run("SMEMBERS", keys.MODELS))
    models = [await _state(commands, spec, now_ms) for spec in specs]
    calls = {provider: int(await commands.run("HLEN", keys.provider_calls(provider))) for provider in PROVIDERS}
    return ModelsState(models, calls)


async def _state(commands: Commands, spec: str, now_ms: int) -> ModelState:
    names = ("open_until", "pause_until", "account")
    open_until, pause_until, account = await commands.run("HMGET", keys.model(spec), *names)
    open_s = 0.0 if open_until is None else max(0.001, (int(open_until) - now_ms) / 1000)
    return ModelState(spec, open_s, max(0.0, (int(pause_until or 0) - now_ms) / 1000), account=account is not None)


def declare_models(state: ModelsState, registry: CollectorRegistry) -> None:
    labels = ["provider", "model"]
    is_open = Gauge("switchboard_model_open", "1 while its circuit breaker is open.", labels, registry=registry)
    paused = Gauge("switchboard_model_paused", "1 while its provider wants no calls.", labels, registry=registry)
    calls = Gauge("switchboard_provider_slots_used", "Calls under way where bounded.", ["provider"], registry=registry)
    for model in state.models:
        provider, _, name = model.spec.partition(":")
        is_open.labels(provider, name).set(model.open_s > 0)
        paused.labels(provider, name).set(model.paused_s > 0)
    for provider, count in state.calls.items():
        calls.labels(provider).set(count)
