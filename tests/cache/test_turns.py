"""Turns that ask the same: real workers, a real provider on the other end, and the books of both."""

import asyncio
import itertools
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from agents.api import Agent, Context, Prompt, Reply, Turn
from agents.sales import Sales
from shared import keys
from shared.config import Settings
from shared.errors import UpstreamError
from shared.jobs import JobRecord
from tests.conftest import START_S, Eventually
from tests.turn.deployment import TENANT, Deployment, environment_of
from workers.ledger.purse import Purse
from workers.turn.answer import TurnContext

ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)


async def ask(deployment: Deployment, text: str = "Do you ship to Spain?", **fields: Any) -> JobRecord:
    """By somebody new, in a new conversation, unless said otherwise."""
    number = next(_numbers)
    fields = {"user": f"u{number}", "conversation": f"c{number}", **fields}
    return await deployment.ended(await deployment.say(text, **fields))


async def calls(deployment: Deployment) -> int:
    served: int = (await deployment.served())["calls"]
    return served


async def kept(deployment: Deployment) -> int:
    return len(await deployment.commands.redis.keys("sb:cache:*"))


async def test_the_second_asker_is_given_the_answer_and_pays_nothing(
    deployment: Deployment, eventually: Eventually
) -> None:
    async with deployment.worker():
        first = await ask(deployment, user="ada")
        await eventually(lambda: kept(deployment))
        second = await ask(deployment, "  Do you ship  to Spain?", user="bob")
    assert await calls(deployment) == 1
    assert second.state == first.state == "succeeded"
    assert second.reply == first.reply
    assert (second.cost_nano_usd, second.attempts) == (0, 1)
    (paid,) = await deployment.rows("llm_calls", first.id)
    (free,) = await deployment.rows("llm_calls", second.id)
    assert (paid["status"], free["status"], free["cost_nano_usd"], free["estimated"]) == ("ok", "cached", 0, False)
    assert [free[name] for name in ("input_tokens", "output_tokens", "cached_tokens")] == [0, 0, 0]
    assert [free[name] for name in ("provider", "model", "model_used")] == [
        paid[name] for name in ("provider", "model", "model_used")
    ]
    messages = await deployment.rows("messages", second.id)
    assert [(m["role"], m["body"]) for m in messages] == [
        ("user", "  Do you ship  to Spain?"),
        ("assistant", first.reply),
    ]


async def test_readers_are_given_a_kept_answer_as_one_piece(deployment: Deployment, eventually: Eventually) -> None:
    await deployment.behave({"tokens_per_s": 300, "output_tokens": 60})
    async with deployment.worker():
        first = await ask(deployment)
        await eventually(lambda: kept(deployment))
        second = await ask(deployment)
    assert len(await deployment.deltas(first.id)) > 1
    (piece,) = await deployment.deltas(second.id)
    assert msgspec.json.decode(piece) == {"delta": first.reply}


async def test_a_hit_books_nothing_in_redis_before_its_end(
    deployment: Deployment, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deployment.worker():
        await ask(deployment)
        await eventually(lambda: kept(deployment))

        async def reserve(*args: Any, **how: Any) -> None:
            raise AssertionError("a kept answer is no call")

        monkeypatch.setattr(Purse, "reserve", reserve)
        assert (await ask(deployment)).cost_nano_usd == 0


async def test_what_was_said_before_makes_it_another_question(deployment: Deployment, eventually: Eventually) -> None:
    async with deployment.worker():
        for _ in range(2):
            assert (await ask(deployment, "Hello", user="ada", conversation="c")).cost_nano_usd
        await eventually(lambda: kept(deployment))
        assert (await ask(deployment, "Hello", user="eve", conversation="d")).cost_nano_usd == 0
        assert (await ask(deployment, "Hello", user="eve", conversation="d")).cost_nano_usd
    assert await calls(deployment) == 3
    assert await kept(deployment) == 1, "nothing of a conversation under way is kept"


async def test_a_stateless_agent_has_no_conversation_under_way(deployment: Deployment, eventually: Eventually) -> None:
    async with deployment.worker():
        await ask(deployment, agent="sales", user="ada", conversation="c")
        await eventually(lambda: kept(deployment))
        assert (await ask(deployment, agent="sales", user="ada", conversation="c")).cost_nano_usd == 0


async def test_another_agent_or_tenant_is_not_given_it(deployment: Deployment, eventually: Eventually) -> None:
    await deployment.books.execute("INSERT INTO tenants (tenant_id, name) VALUES ('other', 'Other')")
    async with deployment.worker():
        await ask(deployment, agent="support")
        await eventually(lambda: kept(deployment))
        assert (await ask(deployment, agent="sales")).cost_nano_usd
        assert (await ask(deployment, agent="support", tenant="other")).cost_nano_usd
        assert (await ask(deployment, agent="support")).cost_nano_usd == 0
    assert await calls(deployment) == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"agents": {"sales": {"system_prompt": "Be brief."}}},
        {"agents": {"sales": {"models": ["openai:gpt-5.4-nano"]}}},
        {"agents": {"sales": {"temperature": 0.5}}},
        {"agents": {"sales": {"max_tokens": 77}}},
        {"max_tokens": 77},
        {"cache_ttl_s": 0},
    ],
    ids=str,
)
async def test_a_tenant_that_changes_its_settings_is_not_given_what_was_kept_before(
    deployment: Deployment, eventually: Eventually, changed: dict[str, Any]
) -> None:
    async with deployment.worker():
        await ask(deployment, agent="sales")
        await eventually(lambda: kept(deployment))
        text = msgspec.json.encode(changed).decode()
        await deployment.books.execute("UPDATE tenants SET settings = $1 WHERE tenant_id = $2", text, TENANT)
        assert (await ask(deployment, agent="sales")).cost_nano_usd
    assert await calls(deployment) == 2


async def test_a_tenant_can_keep_answers_for_a_time_of_its_own(deployment: Deployment, eventually: Eventually) -> None:
    await deployment.books.execute("""UPDATE tenants SET settings = '{"cache_ttl_s": 20}'""")
    async with deployment.worker():
        await ask(deployment)
        await eventually(lambda: kept(deployment))
    (name,) = await deployment.commands.redis.keys("sb:cache:*")
    assert 3_600 < await deployment.commands.redis.pttl(name) / 1000 <= 3_620


async def test_a_deployment_without_cache_has_none_for_anybody(deployment: Deployment) -> None:
    await deployment.books.execute("""UPDATE tenants SET settings = '{"cache_ttl_s": 20}'""")
    async with deployment.worker(cache_ttl_s=0):
        assert (await ask(deployment)).cost_nano_usd
        assert (await ask(deployment)).cost_nano_usd
    assert await kept(deployment) == 0


@pytest.mark.parametrize("finish", ["refusal", "content_filter", "length"])
async def test_a_refusal_or_half_an_answer_is_never_given_again(deployment: Deployment, finish: str) -> None:
    await deployment.behave({"faults": [{"finish": finish, "times": 9}]})
    async with deployment.worker():
        await ask(deployment)
        await ask(deployment)
    assert await calls(deployment) == 2
    assert await kept(deployment) == 0


async def test_an_agent_that_says_who_asks_is_asked_every_time(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sales, "prompt", _personal)
    async with deployment.worker():
        for _ in range(2):
            assert (await ask(deployment, agent="sales", user="ada")).cost_nano_usd
    assert await kept(deployment) == 0


def _personal(self: Agent, turn: Turn, ctx: Context) -> Prompt:
    return replace(Agent.prompt(self, turn, ctx), system=f"{self.system_prompt} You talk to {turn.user_id}.")


async def test_an_agent_that_fails_on_a_kept_answer_gets_another_one(
    deployment: Deployment, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def picky(self: Agent, turn: Turn, ctx: Context) -> Reply:
        completion = await ctx.complete(self.prompt(turn, ctx))
        if turn.attempt == 1 and turn.user_id == "picky":
            raise ValueError("this is not what I wanted")
        return Reply(completion.text)

    monkeypatch.setattr(Sales, "answer", picky)
    async with deployment.worker():
        await ask(deployment, agent="sales")
        await eventually(lambda: kept(deployment))
        record = await ask(deployment, agent="sales", user="picky")
    assert (record.state, record.attempts) == ("succeeded", 2)
    assert [row["status"] for row in await deployment.rows("llm_calls", record.id)] == ["cached", "ok"]


async def test_without_the_caches_server_every_turn_is_answered(deployment: Deployment, unused_tcp_port: int) -> None:
    async with deployment.worker(cache_redis_url=f"redis://127.0.0.1:{unused_tcp_port}/0"):
        records = [await ask(deployment) for _ in range(3)]
    assert [record.state for record in records] == ["succeeded"] * 3
    assert await calls(deployment) == 3


async def test_answers_can_be_kept_on_a_server_of_their_own(
    deployment: Deployment, redis_url: str, eventually: Eventually
) -> None:
    elsewhere = redis_url.rpartition("/")[0] + "/0"
    async with deployment.worker(cache_redis_url=elsewhere):
        await ask(deployment, "Only once")
        async with Redis.from_url(elsewhere) as client:
            await eventually(lambda: client.keys("sb:cache:acme:*"))
            assert (await ask(deployment, "Only once")).cost_nano_usd == 0
            await client.flushdb()
    assert await kept(deployment) == 0


# --- at once --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def worker_process(
    settings: Settings, *, doomed_at: str | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    program = ["-m", "ops", "worker"] if doomed_at is None else ["-m", "tests.turn.doomed_worker", doomed_at, "SIGKILL"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *program, cwd=ROOT, env=environment_of(settings), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def leases(deployment: Deployment) -> int:
    return int(await deployment.commands.redis.zcard("arq:queue:leases"))


async def test_fifty_who_ask_two_processes_at_once_are_one_call(
    deployment: Deployment, settings: Settings, eventually: Eventually
) -> None:
    await deployment.behave({"held": True})
    async with AsyncExitStack() as processes:
        for _ in range(2):
            await processes.enter_async_context(worker_process(settings.model_copy(update={"worker_concurrency": 25})))

        async def both() -> bool:
            return await leases(deployment) == 2

        await eventually(both, START_S)
        jobs = [await deployment.say("Do you ship?", conversation=f"c{n}", user=f"u{n}") for n in range(50)]

        async def all_asked() -> bool:
            return all([(await read(deployment, job_id)).state == "running" for job_id in jobs])

        await eventually(all_asked)
        await deployment.behave()
        records = [await deployment.ended(job_id) for job_id in jobs]
    assert {record.state for record in records} == {"succeeded"}
    assert len({record.reply for record in records}) == 1
    assert await calls(deployment) == 1
    rows = [row for job_id in jobs for row in await deployment.rows("llm_calls", job_id)]
    assert [row["status"] for row in rows].count("ok") == 1
    assert [row["status"] for row in rows].count("cached") == 49
    (paid,) = [row for row in rows if row["status"] == "ok"]
    assert sum(record.cost_nano_usd or 0 for record in records) == paid["cost_nano_usd"]
    assert not await deployment.commands.redis.keys("sb:flight:*")


@pytest.mark.parametrize("point", ["booked", "streaming"])
async def test_when_the_worker_that_asks_is_killed_another_one_asks(
    deployment: Deployment, settings: Settings, eventually: Eventually, point: str
) -> None:
    await deployment.behave({"tokens_per_s": 200, "output_tokens": 40})
    async with worker_process(settings, doomed_at=point) as doomed:
        jobs = [await deployment.say("Do you ship?", conversation=f"c{n}", user=f"u{n}") for n in range(5)]
        assert await doomed.wait() == -signal.SIGKILL
    await deployment.end_leases()
    assert await deployment.commands.redis.keys("sb:flight:*")
    async with deployment.worker():
        records = [await deployment.ended(job_id) for job_id in jobs]
    assert {record.state for record in records} == {"succeeded"}
    assert await calls(deployment) <= 2
    rows = [row for job_id in jobs for row in await deployment.rows("llm_calls", job_id)]
    assert sorted(row["status"] for row in rows) == ["cached"] * 4 + ["lost", "ok"]


async def test_when_the_provider_fails_the_one_who_asks_the_others_do_not_fail_with_him(
    deployment: Deployment,
) -> None:
    await deployment.behave({"faults": [{"status": 500}], "latency_ms": 200})
    async with deployment.worker():
        jobs = [await deployment.say("Do you ship?", conversation=f"c{n}", user=f"u{n}") for n in range(20)]
        records = [await deployment.ended(job_id) for job_id in jobs]
    assert {record.state for record in records} == {"succeeded"}
    assert sorted(record.attempts for record in records) == [1] * 19 + [2]
    assert await calls(deployment) == 2


async def test_a_cancel_ends_only_the_turn_it_is_for(deployment: Deployment, eventually: Eventually) -> None:
    await deployment.behave({"faults": ["hang"]})
    async with deployment.worker():
        jobs = [await deployment.say("Do you ship?", conversation=f"c{n}", user=f"u{n}") for n in range(4)]

        async def asking() -> list[str]:
            return [job for job in jobs if await deployment.commands.redis.exists(keys.calls(job))]

        async def running() -> bool:
            return all([(await read(deployment, job_id)).state == "running" for job_id in jobs])

        await eventually(running)
        leader = await eventually(asking)
        follower = next(job for job in jobs if job not in leader)
        for job_id in (*leader, follower):
            assert await deployment.intake.cancel(TENANT, job_id) == "requested"
        states = [(await deployment.ended(job_id)).state for job_id in jobs]
    assert len(leader) == 1
    assert sorted(states) == ["cancelled", "cancelled", "succeeded", "succeeded"]
    assert await calls(deployment) == 2


async def read(deployment: Deployment, job_id: str) -> JobRecord:
    record = await deployment.intake.read(job_id)
    assert record is not None
    return record


async def test_nobody_waits_longer_than_his_own_time(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    await deployment.behave({"held": True})
    redis = deployment.commands.redis
    async with deployment.worker(max_attempts=10):
        first = await deployment.say("Do you ship?", agent="sales", conversation="c1", user="u1")
        (flight,) = await eventually(lambda: redis.keys("sb:flight:*"))
        await deployment.behave()
        await deployment.ended(first)
        (answer,) = await eventually(lambda: redis.keys("sb:cache:*"))
        await redis.delete(answer)
        await redis.set(flight, "somebody.0", px=60_000)
        monkeypatch.setattr(Sales, "timeout_s", 0.4)
        job_id = await deployment.say("Do you ship?", agent="sales", conversation="c2", user="u2")

        async def gave_up() -> bool:
            return (await read(deployment, job_id)).attempts == 2

        await eventually(gave_up)
        monkeypatch.undo()
        await redis.delete(flight)
        record = await deployment.ended(job_id)
    assert record.state == "succeeded"
    assert await calls(deployment) == 2


async def test_when_no_model_can_be_asked_an_answer_whose_time_is_over_is_still_there(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    async def degrading(self: Agent, turn: Turn, ctx: TurnContext) -> Reply:
        try:
            completion = await ctx.complete(self.prompt(turn, ctx))
        except UpstreamError:
            kept = await ctx.stale()
            return Reply("nothing kept" if kept is None else f"kept: {kept.text}")
        return Reply(completion.text)

    monkeypatch.setattr(Sales, "answer", degrading)
    redis = deployment.commands.redis
    async with deployment.worker():
        first = await ask(deployment, agent="sales")
        (name,) = await eventually(lambda: redis.keys("sb:cache:*"))
        at, _, answer = (await redis.get(name)).partition(b" ")
        await redis.set(name, b"%d %s" % (int(at) - 301_000, answer), keepttl=True)
        await deployment.behave({"faults": [{"status": 500, "times": 100}]})
        second = await ask(deployment, agent="sales")
        other = await ask(deployment, "Something else?", agent="sales")
    assert second.reply == f"kept: {first.reply}"
    assert other.reply == "nothing kept"
