"""What one hanging endpoint in a hundred costs the others: from the row being there to the receiver having the request.

Events go to all endpoints in turn, at a steady rate, once with every endpoint answering at once and once with one that
takes requests and never answers. Receivers, and the clock, are the benchmark's own process.
"""

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import msgspec

from benchmarks.figure import Figure, Goal
from benchmarks.product.deployment import Deployment, open_deployment
from benchmarks.rig import Rig, until
from benchmarks.subject import Subject
from shared.ids import uuid7

TENANT = "dev"
ENDPOINTS = 100
PER_S = 40.0
ARRIVE_S = 20.0
"""After the last event; what has not arrived by then is an error."""
_RECORD = {
    "agent": "support",
    "user_id": None,
    "state": "succeeded",
    "created_us": 1,
    "finished_us": 2,
    "reply": "Hello!",
}
_OWE = """
INSERT INTO deliveries (tenant_id, conversation_id, job_id, run, url, endpoint_id, event_type, sequence, body)
VALUES ($1, $2, $3::uuid, 1, $4, $5, 'job.succeeded', 1, $6) RETURNING delivery_id::text
"""


@dataclass
class Receivers:
    """One port, a path for each endpoint. `hangs`: the path whose requests are taken and never answered."""

    hangs: str | None
    port: int = 0
    arrived_s: dict[str, float] = field(default_factory=dict)
    """By `webhook-id`; of the first time."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Who hangs lets go: a process that leaves waits for what it has under way."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
            await reader.readexactly(int(headers["content-length"]))
            self.arrived_s.setdefault(headers["webhook-id"], time.monotonic())
            if head.split(" ")[1] == self.hangs:
                await self.over.wait()
                return
            writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the sender was stopped
        finally:
            writer.close()


async def hanging(rig: Rig) -> list[Figure]:
    waits_ms: dict[bool, list[list[float]]] = {False: [], True: []}
    async with open_deployment(rig) as deployment:
        for _ in range(rig.scale.rounds):
            for hangs, found in waits_ms.items():
                found.append(await _measure(deployment, hangs=hangs))
    peer = "peer: the same with every endpoint answering"
    return [
        Figure(
            name=f"others' deliveries while one endpoint of {ENDPOINTS} hangs, {share}",
            subject=Subject.TURNS,
            unit="ms",
            ours=[_percentile(one, percent) for one in waits_ms[True]],
            stock=[_percentile(one, percent) for one in waits_ms[False]],
            goal=Goal("ratio", 1.2) if percent == 99 else None,
            note=peer,
        )
        for share, percent in (("p50", 50), ("p99", 99))
    ]


async def _measure(deployment: Deployment, *, hangs: bool) -> list[float]:
    """Milliseconds from row to request, of all endpoints but the one that may hang."""
    scale = deployment.rig.scale
    await deployment.clear()
    async with _receiving(hangs="/0" if hangs else None) as receivers, _books(deployment) as books:
        await books.execute("TRUNCATE deliveries, delivery_parts, endpoints, receivers, delivery_attempts")
        endpoints = await _endpoints(books, receivers.port)
        async with deployment.delivery().running():
            await _sent(books, receivers, endpoints, scale.warm_s)
            owed_s = await _sent(books, receivers, endpoints, scale.load_s)
            receivers.over.set()
        return [(receivers.arrived_s[each] - at_s) * 1_000 for each, at_s in owed_s.items()]


@asynccontextmanager
async def _books(deployment: Deployment) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(deployment.postgres.dsn("postgres"))
    try:
        yield connection
    finally:
        await connection.close()


async def _sent(
    books: asyncpg.Connection, receivers: Receivers, endpoints: Sequence[tuple[str, str]], seconds: float
) -> dict[str, float]:
    """Deliveries to others and when each was owed, once all of them have arrived."""
    owed_s: dict[str, float] = {}
    began_s, count = time.monotonic(), max(len(endpoints), round(PER_S * seconds))
    for n in range(count):
        await asyncio.sleep(began_s + n / PER_S - time.monotonic())
        job_id, (endpoint, url) = uuid7(), endpoints[n % len(endpoints)]
        conversation = f"c{random.getrandbits(64):x}"
        body = msgspec.json.encode({**_RECORD, "id": job_id, "tenant": TENANT, "conversation_id": conversation})
        args = (TENANT, conversation, job_id, url, endpoint, body.decode())
        at_s = time.monotonic()
        delivery = await books.fetchval(_OWE, *args)
        if endpoint != endpoints[0][0]:
            owed_s[delivery] = at_s
    await until(lambda: owed_s.keys() <= receivers.arrived_s.keys(), ARRIVE_S)
    return owed_s


async def _endpoints(books: asyncpg.Connection, port: int) -> list[tuple[str, str]]:
    """Id and URL of each; `/0` is the first."""
    made = []
    for n in range(ENDPOINTS):
        url = f"http://127.0.0.1:{port}/{n}"
        insert = (
            "INSERT INTO endpoints (tenant_id, url, created_by) VALUES ($1, $2, 'bench') RETURNING endpoint_id::text"
        )
        made.append((await books.fetchval(insert, TENANT, url), url))
    return made


@asynccontextmanager
async def _receiving(*, hangs: str | None) -> AsyncIterator[Receivers]:
    receivers = Receivers(hangs)
    server = await asyncio.start_server(receivers.serve, "127.0.0.1", 0)
    receivers.port = server.sockets[0].getsockname()[1]
    try:
        yield receivers
    finally:
        server.close()


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
