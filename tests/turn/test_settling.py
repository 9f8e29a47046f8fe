"""What is held becomes what it cost: once, whoever dies in between, and whatever the provider bills."""

import asyncio
import signal
from functools import partial
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agents import registry
from shared import keys
from shared.config import Settings
from shared.errors import Unavailable
from sql import queries
from tests.conftest import Eventually
from tests.ledger.agreement import read_counters
from tests.turn.deployment import TENANT, Deployment
from tests.turn.test_killed_worker import doomed_worker
from workers.ledger.book import read_row
from workers.ledger.purse import Purse


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
