"""What all workers heed together: the breaker, caps, and what a provider asks for. Two real workers, one stand-in."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared import keys
from shared.config import Settings
from shared.jobs import JobRecord
from tests.conftest import START_S, Eventually
from tests.routing.conftest import ANTHROPIC, OPENAI, calls_of
from tests.turn.deployment import TENANT, Deployment, environment_of

ROOT = Path(__file__).parents[2]
ALONE = {"anthropic_api_key": None}
"""With one provider only."""


@contextlib.asynccontextmanager
async def two_workers(deployment: Deployment, **overrides: Any) -> AsyncIterator[None]:
    async with deployment.worker(**overrides), deployment.worker(**overrides):
        yield


async def all_ended(deployment: Deployment, n: int, text: str = "hello") -> list[JobRecord]:
    jobs = [await deployment.say(text, conversation=f"{text}-{i}", user=None) for i in range(n)]
    return [await deployment.ended(job_id) for job_id in jobs]


async def test_an_open_breaker_keeps_every_worker_away_and_one_call_tries_after_the_cool_down(
    deployment: Deployment,
) -> None:
    await deployment.behave({"model": OPENAI, "faults": [{"status": 500, "times": 1_000}]})
    redis, key = deployment.commands.redis, keys.model(f"openai:{OPENAI}")
    async with two_workers(deployment, breaker_failures=3, breaker_cooldown_s=600.0):
        for i in range(12):  # one after the other: none is under way when it opens
            record = await deployment.ended(await deployment.say("hello", conversation=f"c{i}"))
            assert (record.state, record.attempts) == ("succeeded", 1)
        assert len(await calls_of(deployment, OPENAI)) == 3
        first_ms = int(await redis.hget(key, "open_until") or 0)
        await redis.hset(key, "open_until", 1)  # the cool-down is over
        records = await all_ended(deployment, 20, "after")
        assert {(record.state, record.attempts) for record in records} == {("succeeded", 1)}
        assert len(await calls_of(deployment, OPENAI)) == 4, "one probe, which failed"
        assert int(await redis.hget(key, "open_until") or 0) > first_ms, "for twice as long"


async def test_a_probe_that_succeeds_lets_everybody_back(deployment: Deployment, eventually: Eventually) -> None:
    await deployment.behave({"model": OPENAI, "faults": [{"status": 500, "times": 3}]})
    async with two_workers(deployment, breaker_failures=3, breaker_cooldown_s=0.2):
        for i in range(4):
            await deployment.ended(await deployment.say("hello", conversation=f"c{i}"))

        async def closed() -> bool:
            await deployment.ended(await deployment.say("hello", conversation="probe"))
            return not await deployment.commands.redis.hexists(keys.model(f"openai:{OPENAI}"), "open_until")

        await eventually(closed)
        records = await all_ended(deployment, 5, "back")
    assert {record.state for record in records} == {"succeeded"}
    rows = [row for record in records for row in await deployment.rows("llm_calls", record.id)]
    assert [row["model"] for row in rows] == [OPENAI] * 5


async def test_never_more_calls_at_once_than_allowed_and_waiting_is_no_attempt(deployment: Deployment) -> None:
    await deployment.behave({"latency_ms": 60})
    async with two_workers(deployment, openai_concurrency=5):
        records = await all_ended(deployment, 50)
    assert {(record.state, record.attempts) for record in records} == {("succeeded", 1)}
    served = await deployment.served()
    assert 1 < served["concurrency_peak"] <= 5
    assert served["calls"] == 50
    assert await calls_of(deployment, ANTHROPIC) == [], "busy is not down"
    assert await deployment.commands.redis.hlen(keys.provider_calls("openai")) == 0


async def test_slots_of_a_killed_worker_are_free_within_its_lease(
    deployment: Deployment, settings: Settings, eventually: Eventually
) -> None:
    await deployment.behave({"match": "long", "faults": [{"hang": True, "times": 5}]})
    full = settings.model_copy(update={"openai_concurrency": 5, "worker_concurrency": 5})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops", "worker", cwd=ROOT, env=environment_of(full), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        jobs = [await deployment.say("long", conversation=f"long-{i}") for i in range(5)]

        async def all_under_way() -> bool:
            return bool((await deployment.served())["concurrency"] == 5)

        await eventually(all_under_way, START_S)  # a process that starts on a busy machine
        async with deployment.worker(openai_concurrency=5, **ALONE):
            other = await deployment.say("short", conversation="short")

            async def started() -> bool:
                record = await deployment.intake.read(other)
                return record is not None and record.state == "running"

            await eventually(started)
            assert await deployment.commands.redis.hlen(keys.provider_calls("openai")) == 5
            process.send_signal(signal.SIGKILL)
            record = await deployment.ended(other)
            assert (record.state, record.attempts) == ("succeeded", 1)
            again = [await deployment.ended(job_id) for job_id in jobs]
        assert {record.state for record in again} == {"succeeded"}
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_tokens_are_reserved_so_that_calls_take_turns(deployment: Deployment) -> None:
    """One reservation (500 tokens of reply and the prompt) is most of the minute; what was used is much less."""
    await deployment.behave({"latency_ms": 20, "output_tokens": 5})
    async with two_workers(deployment, openai_tpm=3_000, **ALONE):
        records = await all_ended(deployment, 6)
    assert {(record.state, record.attempts) for record in records} == {("succeeded", 1)}
    assert 1 <= (await deployment.served())["concurrency_peak"] <= 3


async def test_a_call_that_never_fits_the_minute_is_said_in_a_sentence(deployment: Deployment) -> None:
    async with deployment.worker(openai_tpm=100, **ALONE):
        record = await deployment.ended(await deployment.say("hello"))
    assert (record.state, record.attempts) == ("dead", 1)
    assert record.error is not None
    assert record.error.code == "too_large"


async def test_calls_of_a_minute_are_bounded_over_processes(
    deployment: Deployment, settings: Settings, eventually: Eventually
) -> None:
    few = settings.model_copy(update={"openai_rpm": 4, "worker_concurrency": 5})
    command = (sys.executable, "-m", "ops", "worker")
    how: dict[str, Any] = {"cwd": ROOT, "env": environment_of(few), "stdout": asyncio.subprocess.DEVNULL}
    processes = [await asyncio.create_subprocess_exec(*command, **how) for _ in range(2)]
    try:
        jobs = [await deployment.say("hello", conversation=f"c{i}", user=None) for i in range(10)]

        async def all_started() -> bool:
            records = [await deployment.intake.read(job_id) for job_id in jobs]
            return all(record is not None and record.started_us is not None for record in records)

        await eventually(all_started, START_S)  # 5 by each: processes that start on a busy machine
        for served in (4, 8, 10):

            async def waited(served: int = served) -> bool:
                books = await deployment.served()
                assert books["calls"] <= served
                return bool(books["calls"] == served)

            await eventually(waited)
            await deployment.commands.redis.delete("sb:provider:openai:rpm")  # the minute is over
        records = [await deployment.ended(job_id) for job_id in jobs]
        assert {(record.state, record.attempts) for record in records} == {("succeeded", 1)}
    finally:
        for process in processes:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("fault", [{"status": 401}, {"status": 403}, {"status": 429, "code": "insufficient_quota"}])
async def test_a_refusal_of_our_account_keeps_every_worker_away(deployment: Deployment, fault: dict[str, Any]) -> None:
    await deployment.behave({"model": OPENAI, "faults": [{**fault, "times": 1_000}]})
    async with two_workers(deployment, breaker_failures=0):
        for i in range(8):  # one after the other: none is under way when it is refused
            record = await deployment.ended(await deployment.say("hello", conversation=f"c{i}"))
            assert (record.state, record.attempts, record.degraded) == ("succeeded", 1, None)
    assert len(await calls_of(deployment, OPENAI)) == 1


async def test_with_no_other_model_a_refused_account_is_told_at_once(deployment: Deployment) -> None:
    await deployment.behave({"faults": [{"status": 401, "times": 1_000}]})
    async with deployment.worker(degraded_reply="none", **ALONE):
        first = await deployment.ended(await deployment.say("hello"))
        second = await deployment.ended(await deployment.say("again", conversation="c2"))
    assert [(each.state, each.attempts) for each in (first, second)] == [("dead", 1)] * 2
    assert second.error is not None
    assert (second.error.code, "refuses our account" in second.error.message) == ("upstream_rejected", True)
    assert len(await calls_of(deployment, OPENAI)) == 1


async def test_retry_after_pauses_the_model_for_everybody(deployment: Deployment, eventually: Eventually) -> None:
    await deployment.behave({"match": "first", "faults": [{"status": 429, "retry_after_s": 1}]})
    async with two_workers(deployment, **ALONE):
        first = await deployment.say("first")
        heard = keys.model(f"openai:{OPENAI}"), "pause_until"
        await eventually(lambda: deployment.commands.redis.hexists(*heard))
        records = await all_ended(deployment, 10)
        assert (await deployment.ended(first)).state == "succeeded"
    assert {(record.state, record.attempts) for record in records} == {("succeeded", 1)}
    calls = [int(str(call["at_us"])) for call in await calls_of(deployment, OPENAI)]
    assert len(calls) == 12
    assert all(at_us - calls[0] >= 990_000 for at_us in calls[1:]), "nobody asked while it was paused"


async def test_what_the_provider_says_is_left_is_heeded_by_all(deployment: Deployment) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}
    await deployment.behave({"match": "first", "headers": headers}, {})
    async with two_workers(deployment, **ALONE):
        await deployment.ended(await deployment.say("first"))  # settled before its end was told
        records = await all_ended(deployment, 10)
    assert {(record.state, record.attempts) for record in records} == {("succeeded", 1)}
    calls = [int(str(call["at_us"])) for call in await calls_of(deployment, OPENAI)]
    assert min(calls[1:]) - calls[0] >= 990_000


async def test_a_long_pause_leaves_the_turn_to_the_next_model(deployment: Deployment) -> None:
    await deployment.behave({"model": OPENAI, "match": "first", "faults": [{"status": 429, "retry_after_s": 60}]})
    async with two_workers(deployment):
        await deployment.ended(await deployment.say("first"))
        records = await all_ended(deployment, 5)
    assert {(record.state, record.attempts) for record in records} == {("succeeded", 1)}
    assert len(await calls_of(deployment, OPENAI)) == 1
    assert len(await calls_of(deployment, ANTHROPIC)) == 6


@pytest.mark.parametrize("how", ["cancelled", "released"])
async def test_a_turn_that_waits_for_a_slot_can_be_stopped_at_once(
    deployment: Deployment, eventually: Eventually, how: str
) -> None:
    await deployment.behave({"match": "long", "tokens_per_s": 5, "output_tokens": 400}, {})
    async with deployment.worker(openai_concurrency=1, drain_s=0.2, **ALONE):
        long = await deployment.say("long")

        async def speaking() -> bool:
            return bool(await deployment.deltas(long))

        await eventually(speaking)
        waiting = [await deployment.say("short", conversation=f"w{i}") for i in range(3)]

        async def all_started() -> bool:
            records = [await deployment.intake.read(job_id) for job_id in waiting]
            return all(record is not None and record.state == "running" for record in records)

        await eventually(all_started)
        if how == "cancelled":
            for job_id in waiting:
                assert await deployment.intake.cancel(TENANT, job_id) == "requested"
                assert (await deployment.ended(job_id)).state == "cancelled"
                assert await deployment.rows("llm_calls", job_id) == []
    if how == "released":
        records = [await deployment.intake.read(job_id) for job_id in waiting]
        assert [record.attempts for record in records if record] == [0, 0, 0], "a wait is no attempt"
        await deployment.behave()
        async with deployment.worker(openai_concurrency=1, **ALONE):
            assert {(await deployment.ended(job_id)).state for job_id in waiting} == {"succeeded"}
    assert await deployment.commands.redis.hlen(keys.provider_calls("openai")) == 0
