"""Model providers: keys, agents whose models can be reached and priced, token tables; with `--online` the keys too."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import httpx

from ops.doctor.findings import Finding, fault, ok, warning
from ops.doctor.servers import Servers
from shared.config import Settings
from shared.errors import AgentError, ConfigError
from shared.jobs import Usage
from workers.ledger import prices, tokens
from workers.routing.route import reachable

ONLINE_TIMEOUT_S = 10.0
ANTHROPIC_VERSION = "2023-06-01"


async def check_keys(servers: Servers) -> list[Finding]:
    settings = servers.settings
    given = {"openai": settings.openai_api_key, "anthropic": settings.anthropic_api_key}
    found = [name for name, key in given.items() if key is not None]
    if not found:
        mend = "set OPENAI_API_KEY or ANTHROPIC_API_KEY"
        return [fault("providers.keys", "no provider has a key: `switchboard dev` answers from its stand-in", mend)]
    return [ok("providers.keys", f"keys for {' and '.join(found)}")]


async def check_agents(servers: Servers) -> list[Finding]:
    """Each agent finds a model, and that model has a price: a call without one is refused."""
    try:
        agents = servers.agents()
    except ConfigError as error:
        return [fault("agents", str(error), "mend the file it names")]
    return [_asks(f"agents.{agent.id}", agent.models, servers.settings) for agent in agents.values()]


async def check_memory_models(servers: Servers) -> list[Finding]:
    """The same for summaries and facts, where they are made."""
    settings = servers.settings
    if not settings.memory_tasks:
        return [ok("memory.models", "SWITCHBOARD_MEMORY_TASKS=0: this process makes no summaries and facts")]
    return [_asks("memory.models", settings.memory_models.split(","), settings)]


def _asks(name: str, models: Sequence[str], settings: Settings) -> Finding:
    given = {"openai": settings.openai_api_key, "anthropic": settings.anthropic_api_key}
    available = {provider: provider for provider, key in given.items() if key is not None}
    try:
        provider, model = reachable(models, available)[0]
    except ConfigError as error:
        return fault(name, str(error), "set one of these keys")
    try:
        prices.shipped().price(provider, model, Usage(input_tokens=1, output_tokens=1), datetime.now(UTC))
    except AgentError as error:
        return fault(name, str(error), f"add {provider}:{model} to {prices.OVERRIDES.name}")
    return ok(name, f"answers with {provider}:{model}")


async def check_token_tables(_servers: Servers) -> list[Finding]:
    try:
        tokens.load()
    except ConfigError as error:
        return [fault("providers.token_tables", str(error), "install the package again")]
    return [ok("providers.token_tables", "tokens are counted offline")]


async def check_keys_online(servers: Servers) -> list[Finding]:
    """One listing of models with each key: it costs nothing."""
    async with httpx.AsyncClient(timeout=ONLINE_TIMEOUT_S) as client:
        return [await _asked(client, *question) for question in _questions(servers.settings)]


def _questions(settings: Settings) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Provider, address, headers."""
    if settings.openai_api_key is not None:
        base = (settings.openai_base_url or "https://api.openai.com/v1").rstrip("/")
        yield "openai", f"{base}/models", {"authorization": f"Bearer {settings.openai_api_key.get_secret_value()}"}
    if settings.anthropic_api_key is not None:
        base = (settings.anthropic_base_url or "https://api.anthropic.com").rstrip("/")
        key = settings.anthropic_api_key.get_secret_value()
        yield "anthropic", f"{base}/v1/models?limit=1", {"x-api-key": key, "anthropic-version": ANTHROPIC_VERSION}


async def _asked(client: httpx.AsyncClient, provider: str, url: str, headers: dict[str, str]) -> Finding:
    name, variable = f"providers.{provider}.online", f"{provider.upper()}_API_KEY"
    try:
        status = (await client.get(url, headers=headers)).status_code
    except httpx.HTTPError as error:
        mend = f"open the way out, or mend {provider.upper()}_BASE_URL"
        return fault(name, f"{provider} cannot be reached: {type(error).__name__}", mend)
    if status in (401, 403):
        return fault(name, f"{provider} refuses the key ({status})", f"set a valid {variable}")
    if status == 404:
        what = f"{provider} answers 404: nothing is known about the key, and the address may be another server's"
        return warning(name, what, f"compare {provider.upper()}_BASE_URL with what the provider says")
    if status >= 400:
        return warning(name, f"{provider} answers {status}: nothing is known about the key", "ask again later")
    return ok(name, f"{provider} takes the key")
