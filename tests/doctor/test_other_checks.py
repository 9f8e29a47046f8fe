"""Clocks, providers, queues, and that one broken check, or a secret in a message, harms nobody."""

import re
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ops.doctor import clocks, examination, providers
from ops.doctor.examination import Check, examine
from ops.doctor.findings import Finding, Level, ok
from ops.doctor.servers import Servers, opened
from shared import keys
from shared.config import Settings
from tests.doctor.conftest import Examine


@pytest.fixture
async def servers(settings: Settings) -> AsyncIterator[Servers]:
    async with opened(settings, frozenset()) as them:
        yield them


@pytest.mark.parametrize(("off_s", "level"), [(0.2, Level.OK), (-3, Level.WARNING), (60, Level.FAULT)])
async def test_a_host_whose_clock_is_off(servers: Servers, off_s: float, level: Level) -> None:
    found = await clocks.check_clocks(servers, now=lambda: time.time() + off_s)
    by_pair = {one.what.partition(" are ")[0]: one.level for one in found}
    assert by_pair == {
        "Redis and this host": level,
        "Postgres and this host": level,
        "Redis and Postgres": Level.OK,
    }


def test_two_servers_may_disagree_with_each_other_only() -> None:
    levels = [one.level for one in clocks.judged({"Redis": 0.9, "Postgres": -0.9})]
    assert levels == [Level.OK, Level.OK, Level.WARNING]


async def test_no_key_leaves_every_agent_without_a_model(examined: Examine) -> None:
    found = await examined(openai_api_key=None)
    assert found["providers.keys"].level is Level.FAULT
    assert found["agents.support"].level is Level.FAULT


async def test_what_summaries_and_facts_are_made_with(examined: Examine) -> None:
    assert (await examined())["memory.models"].what == "answers with openai:gpt-5.4-nano"
    assert (await examined(openai_api_key=None))["memory.models"].level is Level.FAULT
    nobody = (await examined(memory_models="openai:a-model-nobody-knows"))["memory.models"]
    assert (nobody.level, "is not known" in nobody.what) == (Level.FAULT, True)
    assert (await examined(openai_api_key=None, memory_tasks=0))["memory.models"].level is Level.OK


async def test_an_agent_whose_model_has_no_price(examined: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    from agents.support import Support  # noqa: PLC0415 - the class that is changed

    monkeypatch.setattr(Support, "models", ("openai:a-model-nobody-knows",))
    finding = (await examined())["agents.support"]
    assert (finding.level, "is not known" in finding.what) == (Level.FAULT, True)


@pytest.mark.parametrize(
    ("status", "level", "said"),
    [
        (200, Level.OK, "takes the key"),
        (401, Level.FAULT, "refuses the key"),
        (404, Level.WARNING, "the address may be another server's"),
        (500, Level.WARNING, "answers 500"),
    ],
)
async def test_online_asks_each_provider_with_its_key(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, status: int, level: Level, said: str
) -> None:
    asked: list[tuple[str, str | None]] = []

    async def models(request: Request) -> Response:
        asked.append((request.url.path, request.headers.get("authorization") or request.headers.get("x-api-key")))
        return Response("{}", status)

    app = Starlette(routes=[Route("/v1/models", models)])
    both = settings.model_copy(update={"anthropic_api_key": settings.openai_api_key})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        found = [await providers._asked(client, *question) for question in providers._questions(both)]
    key = "sk-canary-of-the-key"
    assert asked == [("/v1/models", f"Bearer {key}"), ("/v1/models", key)]
    assert [(one.level, said in one.what) for one in found] == [(level, True)] * 2


async def test_a_provider_out_of_reach(examined: Examine) -> None:
    found = await examined(online=True, openai_base_url="http://127.0.0.1:1/v1")
    assert "cannot be reached" in found["providers.openai.online"].what


async def test_work_without_a_worker_is_a_fault(examined: Examine, server: Redis) -> None:
    assert (await examined())["queue.default.workers"].level is Level.WARNING
    await server.zadd(keys.queue("default"), {"job": 1_000})
    found = await examined()
    assert found["queue.default.workers"].level is Level.FAULT
    assert found["queue.default.waiting"].level is Level.WARNING


async def test_jobs_of_a_worker_that_is_gone(examined: Examine, server: Redis) -> None:
    await server.zadd(keys.leases("default"), {"gone": (time.time() - 60) * 1000})
    assert (await examined())["queue.default.leases"].level is Level.FAULT


async def test_what_was_left_behind(examined: Examine, server: Redis) -> None:
    await server.hset(keys.calls("a-lost-job"), "call", "{}")
    await server.hset(keys.calls("a-job"), "call", "{}")
    await server.hset(keys.job("a-job"), "state", "running")
    await server.xadd("sb:ended:unreadable", {"id": "x"})
    found = await examined()
    assert found["jobs.calls"].what.startswith("1 jobs left model calls")
    assert found["jobs.ends_unreadable"].level is Level.WARNING


async def test_many_ends_on_their_way(examined: Examine, server: Redis) -> None:
    async with server.pipeline(transaction=False) as pipe:
        for _ in range(1_001):
            pipe.xadd(keys.ENDED, {"id": "x"})
        await pipe.execute()
    assert (await examined())["jobs.ends"].level is Level.WARNING


async def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(_servers: Servers) -> list[Finding]:
        raise LookupError("canary")

    async def goes_on(_servers: Servers) -> list[Finding]:
        return [ok("second", "looked at")]

    monkeypatch.setattr(examination, "CHECKS", (Check("first", breaks), Check("second", goes_on)))
    found = {one.check: one for one in await examine(settings, [], [])}
    assert (found["first"].level, found["second"].level) == (Level.FAULT, Level.OK)


async def test_no_secret_leaves_even_when_a_server_repeats_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def repeats(servers: Servers) -> list[Finding]:
        key = servers.settings.openai_api_key
        assert key is not None
        return [ok("one", f"{key.get_secret_value()} and {servers.settings.redis_url}")]

    monkeypatch.setattr(examination, "CHECKS", (Check("one", repeats),))
    changed = settings.model_copy(update={"redis_url": "redis://:pass%2Fword@127.0.0.1:1/0"})
    (finding,) = (one for one in await examine(changed, [], []) if one.check == "one")
    assert finding.what == "*** and redis://:***@127.0.0.1:1/0"


def seconds_in(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, text
    return int(found[1])


async def test_a_model_that_is_down_or_paused_is_told_with_its_time(examined: Examine, server: Redis) -> None:
    assert (await examined())["models"].level is Level.OK
    now_ms = int(time.time() * 1000)
    await server.sadd(keys.MODELS, "openai:gpt-5.4-mini", "anthropic:claude-haiku-4-5", "openai:well-again")
    await server.hset(keys.model("openai:gpt-5.4-mini"), "open_until", now_ms + 300_000)
    await server.hset(keys.model("anthropic:claude-haiku-4-5"), "pause_until", now_ms + 600_000)
    await server.hset(keys.model("openai:well-again"), "pause_until", now_ms - 1)
    found = await examined()
    down, paused = found["models.openai:gpt-5.4-mini"], found["models.anthropic:claude-haiku-4-5"]
    assert (down.level, paused.level) == (Level.WARNING, Level.WARNING)
    assert 200 < seconds_in(r"next try in (\d+) s", down.what) <= 300
    assert 500 < seconds_in(r"not called for (\d+) s", paused.what) <= 600
    assert "models.openai:well-again" not in found
    await server.hset(keys.model("openai:gpt-5.4-mini"), "account", 1)
    refused = (await examined())["models.openai:gpt-5.4-mini"]
    assert (refused.level, "refuses our account" in refused.what) == (Level.FAULT, True)
