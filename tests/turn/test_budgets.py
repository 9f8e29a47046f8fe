"""Budgets hold: what is spent never goes over, whatever happens meanwhile, and afterwards every cent is accounted for.

After each test here, and everywhere in this folder, the counters are compared with the ledger (`conftest.py`).
"""

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agents import registry
from ops.stack.directory import DataDirectory
from ops.stack.standin import Standin
from ops.stack.valkey import start_valkey
from shared import keys
from shared.config import Settings
from shared.errors import Unavailable
from shared.jobs import JobRecord
from sql import queries
from tests.conftest import PATIENCE_S, Database, Eventually
from tests.ledger.agreement import Peaks, read_counters, watched
from tests.turn.deployment import TENANT, Deployment, environment_of
from tests.turn.test_killed_worker import doomed_worker
from workers.ledger.book import read_row
from workers.ledger.purse import Purse

TURNS = 500
BLOCK = Decimal("0.95")
REPLY_TOKENS = 40
MAX_TOKENS = 60
"""So that a hold is not much more than what a call costs: nearly all of the budget is spent."""


async def price_of_one(deployment: Deployment) -> int:
    """Nano-dollars of a turn like those that follow; it is in the books like any other."""
    async with deployment.worker():
        await deployment.ended(await deployment.say("a question", conversation="first", user="u0"))
    (row,) = await deployment.ledger()
    assert row["cost_nano_usd"] > 0
    cost: int = row["cost_nano_usd"]
    return cost


async def budget_for(deployment: Deployment, turns: int) -> int:
    """Gives the tenant what so many turns cost; the most that may be spent of it, in nano-dollars."""
    budget = await price_of_one(deployment) * turns
    await deployment.give(max_tokens=MAX_TOKENS, tenant_month_usd=f"{Decimal(budget).scaleb(-9):f}", block=0.95)
    return int(budget * BLOCK)


async def ask_all(deployment: Deployment, turns: int, text: str = "a question") -> list[str]:
    """As many conversations and users as turns."""
    return [await deployment.say(f"{text}", conversation=f"c{n}", user=f"u{n}") for n in range(turns)]


async def end_all(deployment: Deployment, jobs: list[str], timeout_s: float = 120.0) -> Counter[str]:
    """How many ended how: a state, or the code of the error."""
    records: list[JobRecord] = await asyncio.gather(*(deployment.ended_after_outage(job, timeout_s) for job in jobs))
    return Counter(record.error.code if record.error else record.state.value for record in records)


def check_limit(peaks: Peaks, rows: list[dict[str, Any]], most: int) -> None:
    """Not one nano-dollar over, at no moment that was looked at, nor in the end."""
    assert peaks.looks > 3
    month = max(usd for name, usd in peaks.usd.items() if name.startswith("month:"))
    assert month <= most
    assert sum(row["cost_nano_usd"] for row in rows) <= most


async def check_the_providers_books(deployment: Deployment, rows: list[dict[str, Any]]) -> None:
    """Every call the provider served to its end is an exact row."""
    served = {e["request_id"]: e for e in (await deployment.served())["requests"] if e["status"] == "served"}
    exact = {row["request_id"]: row for row in rows if row["status"] == "ok"}
    assert exact.keys() <= served.keys()
    for request_id, row in exact.items():
        entry = served[request_id]
        assert (row["input_tokens"], row["output_tokens"]) == (entry["input_tokens"], entry["output_tokens"])


@contextlib.asynccontextmanager
async def worker_process(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops", "worker", env=environment_of(settings), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_five_hundred_turns_at_once_do_not_overspend_a_budget_worth_a_hundred(deployment: Deployment) -> None:
    await deployment.behave({"output_tokens": REPLY_TOKENS, "latency_ms": 20})
    most = await budget_for(deployment, 100)
    jobs = await ask_all(deployment, TURNS)
    async with (
        watched(deployment.commands.redis, TENANT) as peaks,
        deployment.worker(worker_concurrency=TURNS, lease_s=30.0),
    ):
        ended = await end_all(deployment, jobs)
    rows = await deployment.ledger()
    check_limit(peaks, rows, most)
    assert ended.keys() == {"succeeded", "budget_exhausted"}
    assert len(rows) == ended["succeeded"] + 1, "a turn that was refused called nobody"
    assert 30 <= ended["succeeded"] <= 95
    served = await deployment.served()
    by_model = served["by_model"]["gpt-5.4-mini"]
    assert by_model["input_tokens"] == sum(row["input_tokens"] for row in rows)
    assert by_model["output_tokens"] == sum(row["output_tokens"] for row in rows)
    await check_the_providers_books(deployment, rows)


async def test_the_same_while_workers_are_killed(deployment: Deployment, settings: Settings) -> None:
    await deployment.behave({"output_tokens": REPLY_TOKENS, "tokens_per_s": 100})
    most = await budget_for(deployment, 100)
    jobs = await ask_all(deployment, 200)
    redis = deployment.commands.redis

    async def kill_and_start_again() -> None:
        for _ in range(3):
            async with worker_process(settings) as process:
                while not await redis.hlen(f"{keys.queue('default')}:slots"):
                    await asyncio.sleep(0.02)
                while not await redis.keys("sb:calls:*"):
                    await asyncio.sleep(0.005)
                process.send_signal(signal.SIGKILL)
                await process.wait()
                await deployment.end_leases()

    async with watched(redis, TENANT) as peaks:
        await kill_and_start_again()
        async with deployment.worker():
            ended = await end_all(deployment, jobs)
    rows = await deployment.ledger()
    check_limit(peaks, rows, most)
    assert ended.keys() == {"succeeded", "budget_exhausted"}
    assert any(row["status"] == "lost" for row in rows), "a worker was killed during a call"
    await check_the_providers_books(deployment, rows)


async def test_the_same_with_a_provider_that_fails_half_its_calls(deployment: Deployment) -> None:
    faults = [{"status": 500, "times": 60}, {"cut_stream": True, "times": 60}]
    plain = {"output_tokens": REPLY_TOKENS}
    await deployment.behave(plain)
    most = await budget_for(deployment, 100)
    await deployment.behave({"match": "failing", "faults": faults, **plain}, plain)
    jobs = [
        await deployment.say("failing" if n % 2 else "a question", conversation=f"c{n}", user=f"u{n}")
        for n in range(200)
    ]
    stubborn = deployment.worker(breaker_failures=0)  # else the failing half would soon not be asked any more
    async with watched(deployment.commands.redis, TENANT) as peaks, stubborn:
        ended = await end_all(deployment, jobs)
    rows = await deployment.ledger()
    check_limit(peaks, rows, most)
    assert ended["succeeded"] > 0
    assert {"ok", "error", "cut"} <= {row["status"] for row in rows}
    assert all(row["cost_nano_usd"] == 0 for row in rows if row["status"] == "error")
    await check_the_providers_books(deployment, rows)


async def test_after_redis_lost_its_memory_nothing_is_spent_for_a_lease_and_then_no_more_than_there_is(
    deployment: Deployment,
) -> None:
    plain = {"output_tokens": REPLY_TOKENS}
    await deployment.behave({"match": "slow", "tokens_per_s": 1, **plain}, plain)
    most = await budget_for(deployment, 60)
    redis = deployment.commands.redis
    lease_s = 2.0
    async with deployment.worker(lease_s=lease_s), deployment.worker(lease_s=lease_s):
        before = await ask_all(deployment, 30, "slow")
        while len(await redis.keys("sb:calls:*")) < 10:
            await asyncio.sleep(0.005)
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


async def test_an_unlimited_tenant_is_counted_and_not_stopped(deployment: Deployment) -> None:
    await deployment.give(tenant_month_usd="0.000000001")
    await deployment.books.execute("UPDATE tenants SET settings = settings || '{\"unlimited\": true}'")
    async with deployment.worker():
        assert (await deployment.ended(await deployment.say("hello"))).state == "succeeded"
    (row,) = await deployment.ledger()
    counters = await read_counters(deployment.commands.redis)
    assert {counter["usd"] for counter in counters.values()} == {row["cost_nano_usd"]}
    assert len(counters) == 6


async def test_a_budget_that_is_raised_is_in_force_at_once(deployment: Deployment) -> None:
    await deployment.give(conversation_usd="0.000001")
    async with deployment.worker():
        poor = await deployment.ended(await deployment.say("hello"))
        await deployment.give(conversation_usd="1")
        rich = await deployment.ended(await deployment.say("hello"))
    assert (poor.state, rich.state) == ("dead", "succeeded")
    assert poor.error is not None
    assert (poor.error.code, poor.attempts, poor.error.retryable) == ("budget_exhausted", 1, False)
    assert "conversation" in poor.error.message
    assert await deployment.books.fetchval("SELECT traceback FROM dead_jobs") is None


@pytest.mark.parametrize(
    ("budgets", "scope"),
    [
        ({"conversation_usd": "0.000001"}, "conversation"),
        ({"user_month_usd": "0.000001"}, "user-month"),
        ({"day_usd": "0.000001"}, "tenant-day"),
        ({"tenant_month_usd": "0.000001"}, "tenant-month"),
        ({"tenant_month_tokens": 100}, "tenant-month"),
    ],
)
async def test_each_budget_stops_a_call_that_does_not_fit(
    deployment: Deployment, budgets: dict[str, Any], scope: str
) -> None:
    await deployment.give(**budgets)
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello"))
    assert record.error is not None
    assert f"this {scope} " in record.error.message
    assert (await deployment.served())["calls"] == 0
    assert await deployment.ledger() == []
    assert not await deployment.commands.redis.keys("sb:spent:*"), "nothing is held, and nothing left behind"


@pytest.mark.parametrize("name", ["global_day_usd", "global_month_usd"])
async def test_the_deployments_budgets_stop_everybody(deployment: Deployment, name: str) -> None:
    await deployment.give()
    async with deployment.worker(**{name: "0.000001"}):
        record = await deployment.ended(await deployment.say("hello"))
    assert record.error is not None
    assert record.error.message.startswith("the deployment's budget of this")


async def test_a_price_nobody_knows_stops_the_call_and_holds_nothing(deployment: Deployment) -> None:
    settings = '{"agents": {"support": {"models": ["openai:gpt-of-tomorrow"]}}}'
    await deployment.books.execute("UPDATE tenants SET settings = $1", settings)
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello"))
    assert record.error is not None
    assert (record.state, record.error.code) == ("dead", "price_unknown")
    assert not await deployment.commands.redis.keys("sb:spent:*")
    assert (await deployment.served())["calls"] == 0


async def test_a_settlement_whose_answer_was_lost_counts_once(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = Purse.settle
    lost: list[object] = []

    async def lose_two_answers(self: Purse, *args: Any) -> bool:
        settled = await settle(self, *args)
        if len(lost) < 2:
            lost.append(args)
            raise Unavailable("Redis cannot be reached")
        return settled

    monkeypatch.setattr(Purse, "settle", lose_two_answers)
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello"))
    assert (record.state, record.attempts, len(lost)) == ("succeeded", 1, 2)
    counters = await read_counters(deployment.commands.redis)
    assert {counter["usd"] for counter in counters.values()} == {record.cost_nano_usd}


async def test_an_end_is_not_told_before_its_calls_are_settled(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    settle = Purse.settle
    may_settle = asyncio.Event()

    async def wait(self: Purse, *args: Any) -> bool:
        await may_settle.wait()
        return await settle(self, *args)

    monkeypatch.setattr(Purse, "settle", wait)
    async with deployment.worker():
        job_id = await deployment.say("hello")

        async def committed() -> bool:
            return bool(await deployment.rows("jobs", job_id))

        await eventually(committed)
        record = await deployment.intake.read(job_id)
        assert record is not None
        assert record.state == "running"
        may_settle.set()
        assert (await deployment.ended(job_id)).state == "succeeded"


async def test_a_conversation_that_redis_forgot_is_counted_from_the_ledger(deployment: Deployment) -> None:
    async with deployment.worker():
        first = await deployment.ended(await deployment.say("hello"))
        await deployment.commands.redis.delete(keys.spent("conv", TENANT, "c1"))
        second = await deployment.ended(await deployment.say("hello"))
    counters = await read_counters(deployment.commands.redis)
    assert first.cost_nano_usd
    assert second.cost_nano_usd
    assert counters[f"conv:{TENANT}:c1"]["usd"] == first.cost_nano_usd + second.cost_nano_usd


async def test_a_worker_killed_between_two_calls_of_a_turn_leaves_the_first_in_the_books(
    deployment: Deployment, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "load", partial(registry.load, ("agents", "tests.turn.agents")))
    async with doomed_worker(settings, "settled", "SIGKILL") as doomed:
        job_id = await deployment.say("hello", agent="thinker")
        assert await doomed.wait() == -signal.SIGKILL
    await deployment.end_leases()
    counters = await read_counters(deployment.commands.redis)
    assert all(counter["usd"] > 0 for counter in counters.values()), "the first call is settled"
    async with deployment.worker():
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts) == ("succeeded", 2)
    statuses = [row["status"] for row in await deployment.rows("llm_calls", job_id)]
    assert statuses in (["ok", "ok", "ok"], ["ok", "lost", "ok", "ok"]), "the second may have been reserved"
    assert record.cost_nano_usd == sum(row["cost_nano_usd"] for row in await deployment.ledger())


async def test_a_second_call_that_does_not_fit_ends_the_turn_and_the_first_is_paid(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "load", partial(registry.load, ("agents", "tests.turn.agents")))
    await deployment.give(conversation_usd="0.0025")
    await deployment.behave({"output_tokens": 400})
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello", agent="thinker"))
    assert record.error is not None
    assert (record.state, record.error.code) == ("dead", "budget_exhausted")
    (row,) = await deployment.ledger()
    assert row["cost_nano_usd"] == record.cost_nano_usd


async def test_a_call_of_a_killed_attempt_costs_what_the_ledger_says_whoever_told_it(
    deployment: Deployment, settings: Settings
) -> None:
    """The worker that was given up on knew better than its successor, and had posted its row before it died."""
    async with doomed_worker(settings, "booked", "SIGKILL") as doomed:
        job_id = await deployment.say("hello")
        assert await doomed.wait() == -signal.SIGKILL
    await deployment.end_leases()
    (raw,) = [
        row
        for name, row in (await deployment.commands.redis.hgetall(keys.calls(job_id))).items()  # type: ignore[misc]
        if not name.endswith(keys.HOLD.encode())
    ]
    exact = msgspec.structs.replace(read_row(raw), status="ok", cost_nano_usd=123_456, output_tokens=77)
    text = msgspec.json.encode([exact]).decode()
    await deployment.books.fetchrow(queries["end_attempt"], TENANT, text)
    async with deployment.worker():
        record = await deployment.ended(job_id)
    assert record.state == "succeeded"
    rows = await deployment.rows("llm_calls", job_id)
    assert rows[0]["cost_nano_usd"] == 123_456
    counters = await read_counters(deployment.commands.redis)
    assert counters[f"conv:{TENANT}:c1"]["usd"] == 123_456 + rows[1]["cost_nano_usd"]


async def test_a_provider_that_bills_nothing_is_taken_at_its_word(deployment: Deployment) -> None:
    """An explicit 0 is an account, not one that is missing: it is neither estimated nor counted."""
    await deployment.give()
    await deployment.behave({"billed": [0, 0], "reply": "for nothing"})
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello"))
    assert (record.state, record.reply, record.cost_nano_usd) == ("succeeded", "for nothing", 0)
    (row,) = await deployment.ledger()
    assert (row["status"], row["estimated"], row["input_tokens"], row["output_tokens"]) == ("ok", False, 0, 0)
    counters = await read_counters(deployment.commands.redis)
    assert len(counters) == 6
    assert {value for counter in counters.values() for value in counter.values()} == {0}, "nothing is held either"


async def test_a_provider_that_bills_more_than_was_asked_for_is_booked_in_full_and_said(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, Any]] = []
    heard = SimpleNamespace(warning=lambda event, **fields: lines.append({"event": event, **fields}))
    monkeypatch.setattr("workers.turn.spending.log", heard)
    await deployment.give(conversation_usd="0.01")
    await deployment.behave({"match": "dear", "billed": [10, 50_000]}, {})
    async with deployment.worker():
        dear = await deployment.ended(await deployment.say("dear"))
        after = await deployment.ended(await deployment.say("again"))
    assert (dear.state, after.state) == ("succeeded", "dead"), "the budget is over-spent by that call and by no other"
    (row,) = await deployment.ledger()
    assert (row["output_tokens"], row["cost_nano_usd"] > 10_000_000) == (50_000, True)
    counters = await read_counters(deployment.commands.redis)
    assert {(c["usd"], c["usd_held"], c["tok_held"]) for c in counters.values()} == {(row["cost_nano_usd"], 0, 0)}
    (said,) = lines
    known = ("hold_exceeded", str(row["call_id"]), row["cost_nano_usd"])
    assert (said["event"], said["call_id"], said["cost_nano_usd"]) == known
    assert said["held_nano_usd"] < said["cost_nano_usd"]


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
