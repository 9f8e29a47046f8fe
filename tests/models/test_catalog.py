"""Which provider answers for an agent."""

import pytest
from pydantic import SecretStr

from agents.api import Agent
from ops.stack.standin import Standin
from shared.config import Settings
from shared.errors import ConfigError
from tests.models.conftest import collect
from workers.models.catalog import choose, close_models, open_models

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
        model, name = choose((spec,), models)
        assert f"{model.provider}:{name}" == spec
        assert len(await collect(model, name)) > 1
    await close_models(models)


def test_first_model_whose_provider_is_there_is_chosen() -> None:
    wanted = ("openai:gpt-5.4-mini", "anthropic:claude-haiku-4-5")
    assert choose(wanted, {"openai": "O", "anthropic": "A"}) == ("O", "gpt-5.4-mini")
    assert choose(wanted, {"anthropic": "A"}) == ("A", "claude-haiku-4-5")
    assert choose(("openai:ft:gpt-4o:acme",), {"openai": "O"}) == ("O", "ft:gpt-4o:acme")


def test_agent_without_any_provider_is_told_which_key_is_missing() -> None:
    with pytest.raises(ConfigError, match="set ANTHROPIC_API_KEY or OPENAI_API_KEY") as raised:
        choose(("openai:gpt-5.4-mini", "anthropic:claude-haiku-4-5"), {})
    assert not raised.value.retryable
