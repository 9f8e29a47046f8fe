"""A change is in force everywhere: in two ingress processes, with Redis away, and in the turn."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from agents import registry
from agents.api import NOTHING, Agent, Turn
from ops.tenants.books import TenantBooks, Wish
from shared import keys
from shared.config import Settings
from shared.db import open_pool
from shared.redis import Commands, connect
from shared.tenants import settings_of
from tests.conftest import START_S, Database, Eventually
from tests.ingress.harness import MESSAGES, sha256, started
from tests.stack.dev_process import REPOSITORY, free_base_port
from tests.turn.deployment import Deployment, environment_of
from workers.turn.tuned import tuned


@pytest.fixture
async def two_ingresses(
    settings: Settings, with_keys: None, tmp_path: Path, eventually: Eventually
) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Clients of two processes, with the key of `acme`."""
    async with AsyncExitStack() as closing:
        clients = []
        for n in range(2):
            port = free_base_port()
            with (tmp_path / f"ingress-{n}.log").open("wb") as output:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "ops", "ingress", "--port", str(port)),
                    cwd=REPOSITORY,
                    env=environment_of(settings),
                    stdout=output,
                    stderr=output,
                )
            closing.push_async_callback(_ended, process)
            client = httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                headers={"authorization": "Bearer sk-chat-only"},
                timeout=90,
                trust_env=False,
            )
            clients.append(await closing.enter_async_context(client))
            await eventually(partial(_status, client), START_S)  # before the next one looks for a free port
        yield clients


async def _ended(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    await process.wait()


async def _status(client: httpx.AsyncClient) -> int:
    """0 while nobody listens."""
    try:
        return (await client.get("/v1/agents")).status_code
    except httpx.TransportError:
        return 0


async def test_a_revoked_key_is_refused_by_every_process(
    two_ingresses: list[httpx.AsyncClient], books: TenantBooks, eventually: Eventually
) -> None:
    assert [await _status(client) for client in two_ingresses] == [200, 200]
    await books.revoke_key("acme", sha256("sk-chat-only")[:12], "test")

    async def refused() -> bool:
        return [await _status(client) for client in two_ingresses] == [401, 401]

    await eventually(refused)


async def test_a_disabled_tenant_is_refused_by_every_process(
    two_ingresses: list[httpx.AsyncClient], books: TenantBooks, eventually: Eventually
) -> None:
    assert [await _status(client) for client in two_ingresses] == [200, 200]
    await books.switch("acme", "test", disabled=True)

    async def refused() -> bool:
        return [await _status(client) for client in two_ingresses] == [401, 401]

    await eventually(refused)


async def test_a_changed_setting_is_in_force_in_every_process(
    two_ingresses: list[httpx.AsyncClient], books: TenantBooks, eventually: Eventually
) -> None:
    async def say(client: httpx.AsyncClient) -> int:
        body = {"message": "hello", "conversation_id": "held"}
        return (await client.post(MESSAGES, json=body)).status_code

    assert [await say(client) for client in two_ingresses] == [202, 202]
    await books.change("acme", Wish({"agents": {"support": {"policy": "reject"}}}), "test", within_plan=True)

    async def in_force() -> bool:
        return [await say(client) for client in two_ingresses] == [409, 409]

    await eventually(in_force)


async def test_a_key_revoked_while_redis_is_away_is_refused_all_the_same(
    settings: Settings, database: Database, with_keys: None, eventually: Eventually
) -> None:
    """Who revokes cannot reach Redis; those who serve can, and it still has the old answer."""
    pool = await open_pool(
        database.ops, 2, environment="development", prepared_statements=settings.db_prepared_statements
    )
    nowhere = Commands(connect("redis://127.0.0.1:1/0"))
    books = TenantBooks(pool, pool, nowhere, registry.load())
    async with (
        started(settings) as one,
        started(settings) as two,
        one.client("sk-chat-only") as first,
        two.client("sk-chat-only") as second,
    ):
        assert [await _status(client) for client in (first, second)] == [200, 200]
        await books.revoke_key("acme", sha256("sk-chat-only")[:12], "test")
        assert await one.ingress.commands.run("EXISTS", keys.api_key(sha256("sk-chat-only"))) == 1

        async def refused() -> bool:
            return [await _status(client) for client in (first, second)] == [401, 401]

        await eventually(refused)
    await nowhere.aclose()
    await pool.close()


async def test_a_revoked_key_is_not_kept_for_when_postgres_is_down(
    settings: Settings, with_keys: None, books: TenantBooks
) -> None:
    async with started(settings) as one, one.client("sk-chat-only") as client:
        assert await _status(client) == 200
        await books.revoke_key("acme", sha256("sk-chat-only")[:12], "test")
        assert await one.ingress.commands.run("EXISTS", keys.api_key(sha256("sk-chat-only"))) == 0


# --- the turn -------------------------------------------------------------------------------------------------------


async def give(deployment: Deployment, settings: dict[str, Any]) -> None:
    text = msgspec.json.encode(settings).decode()
    await deployment.books.execute("UPDATE tenants SET settings = $1 WHERE tenant_id = 'acme'", text)


async def test_a_tenants_model_and_bound_reach_the_provider(deployment: Deployment) -> None:
    await give(deployment, {"agents": {"support": {"models": ["openai:gpt-5.4-nano"], "max_tokens": 5}}})
    async with deployment.worker():
        job_id = await deployment.say("Tell me a long story about a fox, please.")
        record = await deployment.ended(job_id)
    (call,) = (await deployment.served())["requests"]
    assert call["model"] == "gpt-5.4-nano"
    assert call["output_tokens"] <= 5
    assert record.incomplete == "max_output_tokens"


async def test_a_tenants_bound_is_used_where_the_agent_has_none(deployment: Deployment) -> None:
    await give(deployment, {"max_tokens": 4})
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("Tell me a long story about a fox, please."))
    assert record.usage is not None
    assert record.usage.output_tokens <= 4


async def test_a_tenants_prompt_reaches_the_provider(deployment: Deployment) -> None:
    await deployment.behave({"reply": "{system}"})
    await give(deployment, {"agents": {"support": {"system_prompt": "Speak of foxes only."}}})
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello"))
    assert record.reply == "Speak of foxes only."


async def test_another_tenants_agents_are_not_touched() -> None:
    support = registry.load()["support"]
    settings = settings_of({"agents": {"support": {"system_prompt": "Be rude.", "temperature": 0.3}}})
    theirs = tuned(support, settings)
    prompt = theirs.prompt(Turn("hi", "c", None, "acme", {}), _Context())
    assert (prompt.system, prompt.temperature) == ("Be rude.", 0.3)
    assert support.system_prompt == type(support).system_prompt != "Be rude."
    assert tuned(support, settings_of({})) is support


async def test_agents_with_a_prompt_of_their_own_are_tuned_too() -> None:
    class Own(Agent):
        id, label, system_prompt = "own", "Own", "Hello."

        def greeting(self) -> str:
            return f"{self.system_prompt} {self.max_tokens}"

    mine = tuned(Own(), settings_of({"agents": {"own": {"system_prompt": "Hi.", "max_tokens": 9}}}))
    assert isinstance(mine, Own)
    assert mine.greeting() == "Hi. 9"


class _Context:
    history = ()
    remembered = NOTHING
    max_tokens = 500

    async def complete(self, prompt: Any) -> Any:
        raise NotImplementedError
