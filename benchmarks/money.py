"""What accounting adds to a turn: one call reserved on six budgets and settled, and the look-up of its price.

The stub and the scripts alone, on a job that is claimed for good, one call after the other; a PING in turn with each
says what the way to the server costs by itself.
"""

import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from agents.api import Message, Prompt
from benchmarks.figure import Figure, Goal
from benchmarks.rig import Rig
from benchmarks.subject import Subject
from shared import keys
from shared.budgets import DeploymentBudgets, Scope, made_at_ms, scopes_of
from shared.ids import uuid7
from shared.jobs import Usage
from shared.redis import Commands, connect
from shared.tenants import Budgets
from shared.wire import TurnPayload
from workers.ledger import prices, tokens
from workers.ledger.book import Amount, Call, open_call
from workers.ledger.purse import Held, Offer, Purse, Settlement
from workers.queue.scripts import Claimed

PAYLOAD = TurnPayload(
    job_id=uuid7(), tenant="bench", agent="support", conversation_id="c1", user_id="u1", message="Where is my order?"
)
PROMPT = Prompt("You are a friendly customer support agent.", (Message("user", PAYLOAD.message),), 500)
JOB = Claimed(PAYLOAD.job_id, "", 1, None, 0, 1, 0, False, None, None, {}, {}, claim="1", worker="bench")
NOTHING = Amount(0, 0)
GOAL = Goal("value", 1_000)


async def money(rig: Rig) -> list[Figure]:
    tokens.load()
    prices.shipped()
    rounds = [await _round(rig) for _ in range(rig.scale.rounds)]
    lookups_us = [_price_lookup_us(rig.scale.turns) for _ in range(rig.scale.rounds)]
    reserved, pinged, ours, server = (list(column) for column in zip(*rounds, strict=True))
    both = [sum(pair) for pair in zip(ours, server, strict=True)]
    return [
        _figure("a turn waits for its reservation, p50, beside a PING", "µs", reserved, stock=pinged, goal=GOAL),
        _figure("accounting of a turn, CPU of both", "µs of CPU", both, goal=GOAL),
        _figure("accounting, CPU of the worker", "µs of CPU", ours),
        _figure("accounting, CPU of the server", "µs of CPU", server),
        _figure("price of a call", "µs a look-up", lookups_us, goal=Goal("value", 10)),
    ]


def _figure(
    name: str, unit: str, ours: Sequence[float], *, stock: Sequence[float] = (), goal: Goal | None = None
) -> Figure:
    return Figure(name=name, subject=Subject.TURNS, unit=unit, ours=ours, stock=stock, goal=goal)


async def _round(rig: Rig) -> tuple[float, float, float, float]:
    """In µs: reserve and PING (p50), CPU of the worker and of the server."""
    await rig.clear()
    commands = Commands(connect(rig.valkey.url()))
    try:
        await commands.run("HSET", keys.MONEY, "epoch", "bench")
        await commands.run("HSET", f"{keys.DEFAULT_QUEUE}:held:{JOB.worker}", JOB.id, JOB.claim)
        purse = Purse(commands, keys.DEFAULT_QUEUE)
        await _account(purse)
        reserves, pings, turns = [], [], rig.scale.trip_jobs
        for _ in range(turns):
            began = time.perf_counter_ns()
            await commands.run("PING")
            pings.append(time.perf_counter_ns() - began)
            reserves.append(await _account(purse))
        before, cpu_ns = await rig.server_cpu_s(), time.process_time_ns()
        for _ in range(turns):
            await _account(purse)
        ours_us = (time.process_time_ns() - cpu_ns) / turns / 1_000
        server_us = (await rig.server_cpu_s() - before) * 1e6 / turns
        return statistics.median(reserves) / 1_000, statistics.median(pings) / 1_000, ours_us, server_us
    finally:
        await commands.aclose()


async def _account(purse: Purse) -> int:
    """All there is to it, as `workers.turn.spending` does it; how many ns the turn waited for it."""
    call = _open()
    began = time.perf_counter_ns()
    assert await purse.reserve(JOB, [Offer(call.row, call.most)], _scopes(call), seed=NOTHING) == Held(0)
    waited_ns = time.perf_counter_ns() - began
    row = call.aborted()
    assert await purse.settle(JOB, [Settlement(row.call_id, row.amount)])
    return waited_ns


def _open() -> Call:
    return open_call(
        PAYLOAD, "u1", JOB, prompt=PROMPT, provider="openai", model="gpt-5.4-mini", prices=prices.shipped()
    )


def _scopes(call: Call) -> tuple[Scope, ...]:
    """Six, wide enough for a whole run."""
    return scopes_of(
        Budgets(tenant_month_tokens=10**12, conversation_nano_usd=10**15, user_month_nano_usd=10**15),
        DeploymentBudgets(day_nano_usd=10**15),
        tenant=PAYLOAD.tenant,
        user_id=PAYLOAD.user_id,
        conversation_id=PAYLOAD.conversation_id,
        at_ms=made_at_ms(call.row.call_id),
    )


def _price_lookup_us(lookups: int) -> float:
    usage, at, list_ = Usage(1_200, 300, 400), datetime.now(UTC), prices.shipped()
    list_.price("openai", "gpt-5.4-mini", usage, at)
    began = time.perf_counter_ns()
    for _ in range(lookups):
        list_.price("openai", "gpt-5.4-mini", usage, at)
    return (time.perf_counter_ns() - began) / lookups / 1_000
