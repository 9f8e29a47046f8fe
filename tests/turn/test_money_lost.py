"""Redis forgets what was spent: money closes, what was under way is booked, and the ledger says where to go on."""

import asyncio
import signal

from ops.stack.directory import DataDirectory
from ops.stack.standin import Standin
from ops.stack.valkey import start_valkey
from shared import keys
from shared.config import Settings
from tests.conftest import PATIENCE_S, Database, Eventually
from tests.ledger.agreement import read_counters
from tests.turn.deployment import TENANT, Deployment
from tests.turn.spending import REPLY_TOKENS, ask_all, budget_for, end_all


async def test_after_redis_lost_its_memory_nothing_is_spent_for_a_lease_and_then_no_more_than_there_is(
    deployment: Deployment, eventually: Eventually
) -> None:
    plain = {"output_tokens": REPLY_TOKENS}
    await deployment.behave({"match": "slow", "tokens_per_s": 1, **plain}, plain)
    most = await budget_for(deployment, 60)
    redis = deployment.commands.redis
    lease_s = 2.0
    async with deployment.worker(lease_s=lease_s), deployment.worker(lease_s=lease_s):
        before = await ask_all(deployment, 30, "slow")

        async def ten_are_calling() -> bool:
            return len(await redis.keys("sb:calls:*")) >= 10

        await eventually(ten_are_calling, timeout_s=60)
        seconds, us = await redis.time()
        await redis.flushdb()
        deployment.forgetful = True
        after = await ask_all(deployment, 100, "again")
        ended = await end_all(deployment, after)
    assert (ended["succeeded"] > 0, ended["budget_exhausted"] > 0) == (True, True)
    rows = await deployment.ledger()
    assert sum(row["cost_nano_usd"] for row in rows) <= most
    later = [e["at_us"] for e in (await deployment.served())["requests"] if e["user_text"] == "again"]
    assert min(later) >= (seconds + lease_s) * 1_000_000 + us, "it failed closed for one lease"
    aborted = [row for row in rows if row["status"] == "aborted" and str(row["job_id"]) in before]
    assert aborted, "what was under way is in the books, though Redis forgot it"


async def test_a_closed_till_opens_only_when_the_rows_of_every_worker_are_in_the_ledger(
    deployment: Deployment, settings: Settings, eventually: Eventually
) -> None:
    """Somebody deletes the mark alone: the leases stand, calls go on, and what they cost must not be forgotten."""
    await deployment.give()
    await deployment.behave({"match": "long", "held": True})
    redis = deployment.commands.redis
    async with deployment.worker():
        long = await deployment.say("long", conversation="long")

        async def calling() -> bool:
            return bool(await redis.exists(keys.calls(long)))

        await eventually(calling)
        await redis.delete(keys.MONEY)
        deployment.forgetful = True
        waiting = await deployment.say("short", conversation="short")
        await eventually(lambda: _started(deployment, waiting))
        await deployment.behave()
        first, second = await deployment.ended(long), await deployment.ended(waiting)
        assert await redis.exists(keys.MONEY)
    assert (first.state, second.state) == ("succeeded", "succeeded")
    assert second.attempts == 1, "waiting for money is no attempt"
    served = {entry["user_text"]: entry for entry in (await deployment.served())["requests"]}
    (row,) = await deployment.rows("llm_calls", long)
    assert served["short"]["at_us"] > served["long"]["at_us"] + row["latency_ms"] * 1000


async def _started(deployment: Deployment, job_id: str) -> bool:
    record = await deployment.intake.read(job_id)
    return record is not None and record.state == "running"


async def test_a_redis_that_restarts_without_its_file_forgets_and_overspends_nothing(
    private_directory: DataDirectory, settings: Settings, database: Database, standin: Standin, eventually: Eventually
) -> None:
    """The process is killed and another one stands in its place, empty; no file was written."""
    empty = {"appendonly": "no", "save": ""}
    server = start_valkey(private_directory, settings=empty)
    private = settings.model_copy(update={"redis_url": server.url()})
    async with Deployment.open(private, database, standin) as deployment:
        plain = {"output_tokens": REPLY_TOKENS}
        await deployment.behave({"match": "slow", "tokens_per_s": 1, **plain}, plain)
        most = await budget_for(deployment, 30)
        async with deployment.worker():
            before = await ask_all(deployment, 10, "slow")

            await eventually(lambda: deployment.under_way(10))
            server.child.signal(signal.SIGKILL)
            await asyncio.to_thread(server.child.join, PATIENCE_S)
            server = await asyncio.to_thread(start_valkey, private_directory, port=server.port, settings=empty)
            deployment.forgetful = True
            ended = await end_all(deployment, await ask_all(deployment, 60, "again"))
        assert (ended["succeeded"] > 0, ended["budget_exhausted"] > 0) == (True, True)
        rows = await deployment.ledger()
        assert sum(row["cost_nano_usd"] for row in rows) <= most
        booked = {str(row["job_id"]) for row in rows if row["status"] == "aborted"}
        assert booked >= set(before), "each that was under way is in the books"
        await deployment.check_money()
    server.child.stop()


async def test_a_conversation_that_redis_forgot_is_counted_from_the_ledger(deployment: Deployment) -> None:
    async with deployment.worker():
        first = await deployment.ended(await deployment.say("hello"))
        await deployment.commands.redis.delete(keys.spent("conv", TENANT, "c1"))
        second = await deployment.ended(await deployment.say("hello"))
    counters = await read_counters(deployment.commands.redis)
    assert first.cost_nano_usd
    assert second.cost_nano_usd
    assert counters[f"conv:{TENANT}:c1"]["usd"] == first.cost_nano_usd + second.cost_nano_usd


async def test_an_idle_worker_opens_money_again(deployment: Deployment, eventually: Eventually) -> None:
    """Nobody has to want to spend first, and to wait for it."""
    async with deployment.worker():
        await deployment.ended(await deployment.say("hello"))
        await deployment.commands.redis.flushdb()
        deployment.forgetful = True
        await eventually(lambda: deployment.commands.redis.exists(keys.MONEY), timeout_s=60)
