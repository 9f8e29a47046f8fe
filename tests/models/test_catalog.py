"""Which providers a deployment has."""

from pydantic import SecretStr

from agents.api import Agent
from ops.stack.standin import Standin
from shared.config import Settings
from tests.models.conftest import collect
from workers.models.catalog import close_models, open_models

NO_KEYS = {"openai_api_key": None, "anthropic_api_key": None, "openai_base_url": None, "anthropic_base_url": None}


def settings(**overrides: object) -> Settings:
    """Field names are not accepted where an alias exists: platforms' names are given as such."""
    return Settings.read({}).model_copy(update={**NO_KEYS, **overrides})


async def test_only_providers_with_a_key_are_opened() -> None:
    assert open_models(settings()) == {}
    models = open_models(settings(anthropic_api_key=SecretStr("k")))
    assert list(models) == ["anthropic"]
    await close_models(models)


async def test_opened_models_reach_the_base_urls_of_the_settings(standin: Standin) -> None:
    models = open_models(
        settings(
            openai_api_key=SecretStr("k"),
            openai_base_url=standin.openai_base_url,
            anthropic_api_key=SecretStr("k"),
            anthropic_base_url=standin.anthropic_base_url,
        )
    )
    for spec in Agent.models:
        provider, _, name = spec.partition(":")
        assert models[provider].provider == provider
        assert len(await collect(models[provider], name)) > 1
    await close_models(models)
