"""What limits cost an admission: without any, under three windows, and under every window and every budget.

The ways take turns message by message, one message after the other, so that whatever the machine does hits all of them.
Windows are a second long and have room for all: once a second has passed, each message lets an older one go.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.client import AT_ONCE, TTL_S, open_client
from benchmarks.figure import Figure, Goal
from benchmarks.rig import Rig
from benchmarks.subject import CountingConnection, Subject
from shared import keys
from shared.budgets import DeploymentBudgets, scopes_of
from shared.config import Settings
from shared.ids import uuid7
from shared.rates import UNLIMITED, Level, Limits, Window
from shared.redis import Commands, connect
from shared.scripts import Intake
from shared.tenants import Budgets
from shared.wire import TurnPayload

WINDOW_S = 1
ROOM = 1_000_000
PEER = "peer: the same admission without limits"

Send = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Cost:
    p50_us: float
    server_cpu_us: float
    round_trips: float


async def limits(rig: Rig) -> list[Figure]:
    return _figures([await _round(rig) for _ in range(rig.scale.rounds)])


async def _round(rig: Rig) -> Mapping[str, Cost]:
    await rig.clear()
    async with _ways(rig.valkey.url()) as ways:
        for send in ways.values():
            await send()  # connection and script are there
        latencies = await _latencies(ways, rig.scale.backlog_jobs)
        cpu_us = await _server_cpu_us(rig, ways, rig.scale.backlog_jobs)
        trips = {name: await _round_trips(send, rig.scale.trip_jobs) for name, send in ways.items()}
    return {name: Cost(statistics.median(latencies[name]), cpu_us[name], trips[name]) for name in ways}


@asynccontextmanager
async def _ways(url: str) -> AsyncIterator[dict[str, Send]]:
    every = _every_limit()
    commands = Commands(connect(url))
    intake = Intake(commands, Settings.read({"REDIS_URL": url, "max_queue_depth": 10_000_000}))
    async with open_client(Subject.STOCK, url) as stock:
        yield {
            "bare": lambda: _admit(intake, UNLIMITED),
            "three windows": lambda: _admit(intake, Limits(every.windows[:3])),
            "all": lambda: _admit(intake, every),
            "stock": lambda: stock.send("hello", "c"),
            "push": lambda: commands.run("LPUSH", "benchmark", "hello"),
        }
    await commands.aclose()


def _every_limit() -> Limits:
    """Five windows and six budgets, as a tenant has them that sets everything."""
    levels: tuple[Level, ...] = ("user", "endpoint", "tier", "tenant", "global")
    scopes = scopes_of(
        Budgets(tenant_month_nano_usd=10**15, day_nano_usd=10**15),
        DeploymentBudgets(day_nano_usd=10**15, month_nano_usd=10**15),
        tenant="bench",
        user_id="u1",
        conversation_id="c",
        at_ms=time.time_ns() // 1_000_000,
    )
    return Limits(tuple(Window(level, keys.rate(level, "bench"), ROOM, WINDOW_S) for level in levels), scopes)


async def _admit(intake: Intake, of: Limits) -> None:
    job_id = uuid7()
    payload = TurnPayload(job_id=job_id, tenant="bench", agent="support", conversation_id=job_id, message="hello")
    admission = await intake.admit(payload, ttl_s=TTL_S, enqueued_ms=time.time_ns() // 1_000_000, limits=of)
    assert admission.outcome == "accepted", admission


def _in_turn(ways: Mapping[str, Send], turn: int) -> list[tuple[str, Send]]:
    """All of them, each time another one first: who comes after whom makes a difference too."""
    order = list(ways.items())
    shift = turn % len(order)
    return order[shift:] + order[:shift]


async def _latencies(ways: Mapping[str, Send], messages: int) -> dict[str, list[float]]:
    """µs of each way's messages."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(messages):
        for name, send in _in_turn(ways, turn):
            began_ns = time.perf_counter_ns()
            await send()
            found[name].append((time.perf_counter_ns() - began_ns) / 1_000)
    return found


async def _server_cpu_us(rig: Rig, ways: Mapping[str, Send], messages: int) -> dict[str, float]:
    """Of a message of each way, many at once."""
    used_s, turns = dict.fromkeys(ways, 0.0), messages // AT_ONCE + 1
    for turn in range(turns):
        for name, send in _in_turn(ways, turn):
            before_s = await rig.server_cpu_s()
            await asyncio.gather(*(send() for _ in range(AT_ONCE)))
            used_s[name] += await rig.server_cpu_s() - before_s
    return {name: seconds / (turns * AT_ONCE) * 1e6 for name, seconds in used_s.items()}


async def _round_trips(send: Send, messages: int) -> float:
    before = CountingConnection.sends
    for _ in range(messages):
        await send()
    return (CountingConnection.sends - before) / messages


def _figures(rounds: list[Mapping[str, Cost]]) -> list[Figure]:
    def figure(name: str, unit: str, way: str, peer: str, goal: Goal | None = None, note: str = "") -> Figure:
        attribute = {"µs": "p50_us", "CPU µs": "server_cpu_us", "round trips": "round_trips"}[unit]
        ours, theirs = ([getattr(costs[each], attribute) for costs in rounds] for each in (way, peer))
        return Figure(name=name, subject=Subject.TURNS, unit=unit, ours=ours, stock=theirs, goal=goal, note=note)

    return [
        figure("admission, 5 windows and 6 budgets, p50", "µs", "all", "bare", Goal("ratio", 1.3), PEER),
        figure("admission, 3 windows, p50", "µs", "three windows", "bare", note=PEER),
        figure("admission, all limits, beside enqueue_job, p50", "µs", "all", "stock"),
        figure("admission, all limits, beside one LPUSH, p50", "µs", "all", "push", note="peer: one LPUSH"),
        figure("admission, 5 windows and 6 budgets, Valkey", "CPU µs", "all", "bare", note=PEER),
        figure("admission, 3 windows, Valkey", "CPU µs", "three windows", "bare", note=PEER),
        figure("admission, all limits", "round trips", "all", "bare", Goal("value", 1), PEER),
    ]
