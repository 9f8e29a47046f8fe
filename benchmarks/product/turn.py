"""Whole turns: the time added to the model's, how many a second the machine does, and what one costs each process.

A turn is a message over HTTP, its job, one streamed call through the openai SDK, and with us one committed transaction
in PostgreSQL (messages, ledger, job). The peer, Starlette and stock arq polling every 10 ms, keeps the reply in Redis.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from benchmarks.figure import Figure, Goal
from benchmarks.pickup import percentile
from benchmarks.product.accept import PATH
from benchmarks.product.deployment import MODEL_MS, Deployment, cpu_s, free_port, open_deployment
from benchmarks.product.http import Client, get, on_time, post
from benchmarks.rig import Rig
from benchmarks.subject import Subject
from ops.stack.process import Child, StackError

WORKERS = 2
LATENCY_TURNS_PER_S = 100
AT_ONCE = 64
"""Messages under way while a backlog is made."""
EXPRESS_TURNS_PER_S = 1_090
"""Measured once, elsewhere: it needs Node.js."""
STOCK, OURS = Subject.STOCK, Subject.TURNS
PEER = "peer: Starlette, stock arq at 10 ms polling, the openai SDK at its defaults, nothing stored but the reply"

_conversations = itertools.count()


@dataclass
class Cost:
    """Per turn: what each process used, and what the servers were asked."""

    turns_per_s: float
    cpu_ms: dict[str, float]
    redis_trips: float
    redis_commands: float
    transactions: float
    queued_bytes: float
    finished_bytes: float


@dataclass
class Running:
    deployment: Deployment
    port: int
    children: dict[str, list[Child]] = field(default_factory=dict)
    looks: int = 0
    """Commands of ours, which the subject did not send."""

    def cpu_s(self) -> dict[str, float]:
        """CPU time each kind of process has used so far; what measures and what it measures share the cores."""
        used_s = {name: cpu_s(children) for name, children in self.children.items()}
        return {**used_s, "the model server": cpu_s([self.deployment.model]), "the load": time.process_time()}

    async def say(self, client: Client) -> str:
        """Accept one message of a conversation of its own; its job's id."""
        body = {"message": "Where is my parcel?", "conversation_id": f"c{next(_conversations)}"}
        answer = await client.fetch(post(PATH, body, self.deployment.key))
        assert answer.status == 202, answer
        job_id: str = answer.json()["id"]
        return job_id

    async def turn(self, client: Client) -> None:
        """A message, and its reply by long poll."""
        job_id = await self.say(client)
        answer = await client.fetch(get(f"/v1/jobs/{job_id}", self.deployment.key, wait_s=30))
        assert b'"state":"succeeded"' in answer.body, answer


async def latency(rig: Rig) -> list[Figure]:
    """At a steady load, open loop: a turn that starts late counts from when it should have started."""
    samples: dict[Subject, list[list[float]]] = {STOCK: [], OURS: []}
    async with open_deployment(rig) as deployment:
        for _ in range(rig.scale.rounds):
            for subject, found in samples.items():
                found.append(await _added_ms(deployment, subject))
    return [
        Figure(
            name=f"time added to a model's {MODEL_MS} ms at {LATENCY_TURNS_PER_S} turns/s, {name}",
            subject=OURS,
            unit="ms",
            ours=[percentile(one, share) for one in samples[OURS]],
            stock=[percentile(one, share) for one in samples[STOCK]],
            goal=goal,
            note=PEER,
        )
        for name, share, goal in (("p50", 0.5, Goal("value", 5)), ("p99", 0.99, Goal("value", 15)))
    ]


async def _added_ms(deployment: Deployment, subject: Subject) -> list[float]:
    async with _running(deployment, subject, workers=1) as running:
        client = Client(running.port)

        async def once(_number: int) -> None:
            await running.turn(client)

        await on_time(once, per_s=LATENCY_TURNS_PER_S, seconds=deployment.rig.scale.warm_s)
        found = await on_time(once, per_s=LATENCY_TURNS_PER_S, seconds=deployment.rig.scale.load_s)
        client.close()
    return [total_ms - MODEL_MS for total_ms in found]


async def turns(rig: Rig) -> list[Figure]:
    """As many as go: two workers, one ingress, the servers, the model and the load on all cores there are."""
    samples: dict[Subject, list[Cost]] = {STOCK: [], OURS: []}
    async with open_deployment(rig) as deployment:
        for _ in range(rig.scale.rounds):
            for subject, found in samples.items():
                found.append(await _cost(deployment, subject))
    return _figures(samples)


async def _cost(deployment: Deployment, subject: Subject) -> Cost:
    count, warm = deployment.rig.scale.turns, min(deployment.rig.scale.turns, 200)
    transactions = await deployment.transactions()
    async with _running(deployment, subject, workers=WORKERS) as running:
        client = Client(running.port)
        await _turn_all(running, client, warm)
        before, used_s, began_s = await _counts(running), running.cpu_s(), time.monotonic()
        await _turn_all(running, client, count)
        elapsed_s = time.monotonic() - began_s
        cpu_ms = {name: (now_s - used_s[name]) / count * 1e3 for name, now_s in running.cpu_s().items()}
        trips, commands, finished = (
            (after - earlier) / count for after, earlier in zip(await _counts(running), before, strict=True)
        )
        client.close()
    transactions = await deployment.transactions() - transactions  # PostgreSQL counts for certain when backends end
    return Cost(
        count / elapsed_s,
        cpu_ms,
        trips,
        commands,
        transactions / (warm + count),
        await _queued_bytes(deployment, subject),
        finished,
    )


async def _turn_all(running: Running, client: Client, count: int) -> None:
    await _backlog(running, client, count)
    await _all_ended(running)


async def _queued_bytes(deployment: Deployment, subject: Subject) -> float:
    count = min(deployment.rig.scale.turns, 1_000)
    async with _running(deployment, subject, workers=0) as running:
        client = Client(running.port)
        await running.say(client)
        *_, before = await _counts(running)
        await _backlog(running, client, count)
        *_, after = await _counts(running)
        client.close()
    return (after - before) / count


@asynccontextmanager
async def _running(deployment: Deployment, subject: Subject, *, workers: int) -> AsyncIterator[Running]:
    await deployment.clear()
    port = free_port()
    async with AsyncExitStack() as stack:
        ours = subject is OURS
        ingress = deployment.ingress(port) if ours else deployment.peer("ingress", port)
        children = {"ingress": [await stack.enter_async_context(ingress.running())], "workers": []}
        for number in range(workers):
            worker = deployment.worker(number) if ours else deployment.peer("worker")
            children["workers"].append(await stack.enter_async_context(worker.running()))
        children["Valkey"] = [deployment.rig.valkey.child]
        if ours:
            children["PostgreSQL"] = [deployment.postgres.child]
        yield Running(deployment, port, children)


async def _backlog(running: Running, client: Client, count: int) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def say() -> None:
        async with gate:
            await running.say(client)

    await asyncio.gather(*(say() for _ in range(count)))


async def _all_ended(running: Running, timeout_s: float = 600.0) -> None:
    """No job waits, runs or is parked: each stands in the queue until it has ended, or is one of a tenant's parked."""
    redis, deadline_s = running.deployment.rig.redis, time.monotonic() + timeout_s
    while await redis.zcard("arq:queue") or await redis.exists("arq:queue:parked"):
        running.looks += 1
        if time.monotonic() > deadline_s:
            raise StackError(f"turns are left after {timeout_s:.0f} s")
        await asyncio.sleep(0.01)
    running.looks += 2


async def _counts(running: Running) -> tuple[int, int, int]:
    """So far: requests Redis has read, commands it has executed, those inside scripts too, and bytes of its data."""
    redis = running.deployment.rig.redis
    stats, per_command, memory = [await redis.info(section) for section in ("stats", "commandstats", "memory")]
    read = stats["total_reads_processed"] - running.looks
    executed = sum(stat["calls"] for stat in per_command.values()) - running.looks
    running.looks += 3
    return read, executed, memory["used_memory"] - memory["mem_clients_normal"] - memory["mem_aof_buffer"]


def _figures(samples: dict[Subject, list[Cost]]) -> list[Figure]:
    ours, stock = samples[OURS], samples[STOCK]

    def figure(name: str, unit: str, of: "list[float]", peer: "list[float]") -> Figure:
        return Figure(name=name, subject=OURS, unit=unit, ours=of, stock=peer)

    rate = Figure(
        name=f"turns of {MODEL_MS} ms, {WORKERS} workers",
        subject=OURS,
        unit="turns/s",
        ours=[one.turns_per_s for one in ours],
        stock=[one.turns_per_s for one in stock],
        goal=Goal("value", 0.8 * EXPRESS_TURNS_PER_S, lower_is_better=False),
        note=f"{PEER}; to reach: 0.8 of Express, BullMQ and openai-node, {EXPRESS_TURNS_PER_S:,} with nothing stored",
    )
    cpu = [
        figure(
            f"a turn, {name}",
            "CPU ms",
            [one.cpu_ms[name] for one in ours],
            [one.cpu_ms[name] for one in stock if name in one.cpu_ms],
        )
        for name in ours[0].cpu_ms
    ]
    others = [
        figure(name, unit, [getattr(one, attribute) for one in ours], [getattr(one, attribute) for one in stock])
        for name, unit, attribute in (
            ("asked of Redis for a turn", "round trips", "redis_trips"),
            ("done by Redis for a turn", "commands", "redis_commands"),
            ("asked of PostgreSQL for a turn", "transactions", "transactions"),
            ("a queued job in Redis", "bytes", "queued_bytes"),
            ("a finished job in Redis", "bytes", "finished_bytes"),
        )
    ]
    return [rate, *cpu, *others]
