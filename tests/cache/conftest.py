"""The cache on a real server: one in a process, several as if in several; and the deployment of the turn's tests."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from shared.config import Settings
from shared.redis import Commands, connect
from tests.turn.conftest import deployment
from tests.turn.conftest import settings as settings_without_cache
from workers.cache.flight import Cache
from workers.cache.question import Question
from workers.cache.store import Answer, AnswerStore

__all__ = ["deployment", "settings_without_cache"]

LEASE_S = 2.0
Stores = Callable[..., AnswerStore]
Caches = Callable[[], Cache]


@pytest.fixture
def settings(settings_without_cache: Settings) -> Settings:
    """Those of the turn's tests, with the cache as in production."""
    return settings_without_cache.model_copy(update={"cache_ttl_s": 300})


@pytest.fixture
async def commands(redis_url: str) -> AsyncIterator[Commands]:
    opened = Commands(connect(redis_url))
    yield opened
    await opened.aclose()


@pytest.fixture
def stores(commands: Commands) -> Stores:
    def store(**how: Any) -> AnswerStore:
        return AnswerStore(commands, **{"stale_s": 3_600, "max_bytes": 1 << 26, "lease_s": LEASE_S, **how})

    return store


@pytest.fixture
async def caches(stores: Stores) -> AsyncIterator[Caches]:
    """As many as wanted, each as in a process of its own."""
    async with AsyncExitStack() as closing:

        def cache() -> Cache:
            opened = Cache(stores(), deployment="d", ttl_s=300)
            closing.push_async_callback(opened.aclose)
            return opened

        yield cache


def a_question(digest: str = "q", *, tenant: str = "acme", ttl_s: int = 300) -> Question:
    return Question(tenant, digest, "support", ttl_s)


def an_answer(text: str = "Yes.", cost_nano_usd: int = 123) -> Answer:
    return Answer(text, "openai", "gpt-5.4-mini", "gpt-5.4-mini-2026", cost_nano_usd)
