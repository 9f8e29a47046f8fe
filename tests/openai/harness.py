"""What the tests of OpenAI's surface are made of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI
from openai.types.responses import Response

from shared import keys
from shared.scripts import Script
from tests.conftest import PATIENCE_S
from tests.ingress.harness import Served, Worker
from tests.turn.deployment import Deployment

KEY, STRANGER = "sk-of-acme-tests", "sk-of-another-tenant"


@dataclass
class Product:
    server: Served
    deployment: Deployment


def job_id_of(response: Response | str) -> str:
    name = response if isinstance(response, str) else response.id
    return name.removeprefix("resp_")


async def ended(client: AsyncOpenAI, response_id: str, timeout_s: float = PATIENCE_S) -> Response:
    """The response once it is over, asked for again and again as a program does."""
    async with asyncio.timeout(timeout_s):
        while True:
            response = await client.responses.retrieve(response_id)
            if response.status not in ("queued", "in_progress"):
                return response
            await asyncio.sleep(0.02)


@asynccontextmanager
async def deaf_proxy(target: str, *, deaf_to: int = 1) -> AsyncIterator[str]:
    """A way to the server on which the first answers never arrive: the connection is cut when they come."""
    host, port = target.removeprefix("http://").split(":")
    left, carrying = deaf_to, set[asyncio.Task[Any]]()

    async def answers(there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        while data := await there.read(65_536):
            if left > 0:
                left -= 1
                writer.transport.abort()
                return
            writer.write(data)
            await writer.drain()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        carrying.add(task)
        there_reader, there = await asyncio.open_connection(host, int(port))
        try:
            ways = [asyncio.ensure_future(way) for way in (_pump(reader, there), answers(there_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            there.transport.abort()
            writer.transport.abort()
            carrying.discard(task)

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)
        await sink.drain()


async def begin_anew(hands: Worker, job_id: str) -> None:
    """Handed back and taken again, as by a worker that leaves."""
    argv: list[Any] = [hands.name, 2_000, 3_600, 0, 60_000]
    argv += [job_id, hands.claims.pop(job_id), "release", 0, -1, 0, "", 0, "", 0]
    verdicts, _ = await Script("finish")(hands.commands, [keys.queue("default")], argv)
    assert verdicts == [b"OK"]
    assert await hands.claim() == [job_id]
