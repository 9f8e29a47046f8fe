"""A worker killed or frozen at any point of a turn: one reply, one set of rows, every call in the books."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from shared.config import Settings
from tests.conftest import START_S, Eventually
from tests.turn.deployment import TENANT, Deployment, environment_of
from tests.turn.doomed_worker import POINTS, TOGETHER

ROOT = Path(__file__).parents[2]
CALLED = {"booked", "streaming", "answered", "committed", "finishing", "finished"}
"""Points by which the doomed worker has opened a model call."""
DONE = {"committed", "finishing", "finished"}
"""Points by which the turn was committed: nobody may call a model again."""


@asynccontextmanager
async def doomed_worker(settings: Settings, point: str, signal_name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.turn.doomed_worker",
        point,
        signal_name,
        cwd=ROOT,
        env=environment_of(settings),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_frozen(frozen: asyncio.subprocess.Process, eventually: Eventually) -> None:
    await eventually(lambda: psutil.Process(frozen.pid).status() == psutil.STATUS_STOPPED, START_S)


async def check_books(deployment: Deployment, job_id: str, *, calls: int) -> None:
    """One job row, one question, one reply, and as many ledger rows as there were calls."""
    assert [row["state"] for row in await deployment.rows("jobs", job_id)] == ["succeeded"]
    assert [row["role"] for row in await deployment.rows("messages", job_id)] == ["user", "assistant"]
    ledger = await deployment.rows("llm_calls", job_id)
    assert len(ledger) == calls, ledger
    assert all(row["cost_nano_usd"] for row in ledger)
    assert [row["status"] for row in ledger].count("ok") >= 1


async def check_nothing_is_left(deployment: Deployment, eventually: Eventually) -> None:
    """No lease, hold, open call or place in the queue outlives the job."""

    async def clean() -> bool:
        names = {key.decode() for key in await deployment.commands.redis.keys("*")}
        kept = ("sb:job:", "sb:events:", "sb:owner:", "sb:spent:", "arq:queue:wake")
        left = {n for n in names if not n.startswith(kept)}
        return left <= {"arq:queue:leases", "arq:queue:slots", "arq:queue:health-check", "sb:deployment", "sb:money"}

    assert await eventually(clean)


@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_killed_at_any_point_gives_one_reply_and_one_set_of_rows(
    deployment: Deployment, settings: Settings, eventually: Eventually, point: str
) -> None:
    await deployment.behave({"tokens_per_s": 200, "output_tokens": 40})
    async with doomed_worker(settings, point, "SIGKILL") as doomed:
        job_id = await deployment.say("first")
        follower = await deployment.say("second")
        assert await doomed.wait() == -signal.SIGKILL
    await deployment.end_leases()
    async with deployment.worker():
        record = await deployment.ended(job_id)
        second = await deployment.ended(follower)
    assert (record.state, second.state) == ("succeeded", "succeeded")
    expected_attempts = 1 if point in DONE else 2
    assert record.attempts == expected_attempts
    await check_books(deployment, job_id, calls=2 if point in CALLED - DONE else 1)
    await check_books(deployment, follower, calls=1)
    bodies = await deployment.books.fetch("SELECT body FROM messages WHERE tenant_id = $1 ORDER BY seq", TENANT)
    assert [row["body"] for row in bodies[::2]] == ["first", "second"]
    await check_nothing_is_left(deployment, eventually)


@pytest.mark.parametrize("point", TOGETHER)
async def test_turns_that_were_being_committed_together_are_all_committed_or_all_made_again(
    deployment: Deployment, settings: Settings, eventually: Eventually, point: str
) -> None:
    await deployment.behave({"latency_ms": 300, "output_tokens": 5})
    job_ids = [await deployment.say(f"{n}", conversation=f"c{n}", user=f"u{n % 3}") for n in range(20)]
    async with doomed_worker(settings, point, "SIGKILL") as doomed:
        assert await doomed.wait() == -signal.SIGKILL
    await deployment.end_leases()
    committed = await deployment.books.fetch("SELECT job_id::text FROM jobs")
    async with deployment.worker():
        records = [await deployment.ended(job_id) for job_id in job_ids]
    assert {record.state for record in records} == {"succeeded"}
    before = {row["job_id"] for row in committed}
    for record in records:
        assert record.attempts == (1 if record.id in before else 2)
        calls = len(await deployment.rows("llm_calls", record.id))  # the first attempt may have got to none
        await check_books(deployment, record.id, calls=1 if record.attempts == 1 else min(calls, 2))
    if point == "committed together":
        assert len(before) > 1
    await check_nothing_is_left(deployment, eventually)


@pytest.mark.parametrize("point", ["claimed", "loaded", "booked", "streaming", "answered", "committed", "finishing"])
async def test_a_frozen_worker_that_wakes_after_its_job_was_taken_over_changes_nothing(
    deployment: Deployment, settings: Settings, eventually: Eventually, point: str
) -> None:
    async with doomed_worker(settings, point, "SIGSTOP") as frozen:
        job_id = await deployment.say("first")
        await until_frozen(frozen, eventually)
        await deployment.end_leases()
        async with deployment.worker():
            record = await deployment.ended(job_id)
            frozen.send_signal(signal.SIGCONT)
            calls = 2 if point not in DONE else 1

            async def settled() -> bool:
                return len(await deployment.rows("llm_calls", job_id)) >= 1

            await eventually(settled)
            frozen.send_signal(signal.SIGTERM)
            assert await frozen.wait() == 0
    assert record.state == "succeeded"
    assert [row["state"] for row in await deployment.rows("jobs", job_id)] == ["succeeded"]
    assert [row["role"] for row in await deployment.rows("messages", job_id)] == ["user", "assistant"]
    assert len(await deployment.rows("llm_calls", job_id)) <= calls
    stored = await deployment.books.fetchval("SELECT reply FROM jobs WHERE job_id = $1", job_id)
    assert stored == record.reply


async def test_a_frozen_worker_cannot_end_a_job_that_another_one_is_answering(
    deployment: Deployment, settings: Settings, eventually: Eventually
) -> None:
    await deployment.behave({"faults": [{"status": 400}], "tokens_per_s": 30, "output_tokens": 60})
    async with doomed_worker(settings, "answered", "SIGSTOP") as frozen:
        job_id = await deployment.say("first")
        await until_frozen(frozen, eventually)
        assert (await deployment.served())["calls"] == 1
        await deployment.end_leases()
        async with deployment.worker():

            async def answering() -> bool:
                return bool(await deployment.deltas(job_id))

            await eventually(answering)
            frozen.send_signal(signal.SIGCONT)  # it holds a «dead» for this very job
            record = await deployment.ended(job_id)
            frozen.send_signal(signal.SIGTERM)
            assert await frozen.wait() == 0
    assert (record.state, record.attempts) == ("succeeded", 2)
    assert [row["state"] for row in await deployment.rows("jobs", job_id)] == ["succeeded"]
    first, second = [row["status"] for row in await deployment.rows("llm_calls", job_id)]
    assert (first in {"error", "lost"}, second) == (True, "ok")  # lost: frozen before it could settle the refused call
    assert await deployment.books.fetchval("SELECT count(*) FROM job_claims") == 0
