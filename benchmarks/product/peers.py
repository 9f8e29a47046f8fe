"""What the product is compared with: `python -m benchmarks.product.peers bare | ingress | worker`.

`bare` is Starlette and uvicorn as our ingress runs them, answering a 202 of the same size and doing nothing else.
`ingress` and `worker` are the obvious chat backend: Starlette, stock arq, the openai SDK at its defaults, no database.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import openai
import uvloop
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.jobs import Job
from arq.worker import Worker
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agents.support import Support
from benchmarks.product.model import MODEL
from ops.serve import serve
from shared.config import Settings
from shared.ids import uuid7
from shared.jobs import JobRecord, JobState

POLL_S = 0.01
"""Kind to its latency; stock arq's default is 0.5."""
SLOTS = 1_000


def _json(body: Any, status: int) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def bare() -> Starlette:
    """A message in, a job resource out, as long as the ones of our ingress."""
    path = f"/v1/jobs/{uuid7()}"
    record = JobRecord(
        id=uuid7(),
        tenant="dev",
        agent="support",
        conversation_id=uuid7(),
        user_id="u1",
        state=JobState.QUEUED,
        created_us=1_795_256_949_891_000,
        position=0,
    )
    answer = msgspec.json.encode({**record.resource(), "events_url": f"{path}/events?token=dev.{'x' * 22}"})
    headers = {"location": path, "retry-after": "1", "cache-control": "no-store", "x-request-id": uuid7()}

    async def accept(request: Request) -> Response:
        await request.body()
        return Response(answer, 202, headers, "application/json")

    return Starlette(routes=[Route("/v1/agents/{agent_id}/messages", accept, methods=["POST"])])


def ingress(settings: Settings) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.arq = await create_pool(RedisSettings.from_dsn(settings.redis_url))
        yield
        await app.state.arq.aclose(close_connection_pool=True)

    async def accept(request: Request) -> Response:
        arq: ArqRedis = request.app.state.arq
        body = msgspec.json.decode(await request.body())
        job = await arq.enqueue_job("answer", body["message"])
        assert job is not None, "the job id was taken"
        return _json({"id": job.job_id, "state": "queued"}, 202)

    async def read(request: Request) -> Response:
        job = Job(request.path_params["job_id"], request.app.state.arq)
        reply = await job.result(timeout=300, poll_delay=POLL_S)
        return _json({"id": job.job_id, "state": "succeeded", "reply": reply}, 200)

    routes = [
        Route("/v1/agents/{agent_id}/messages", accept, methods=["POST"]),
        Route("/v1/jobs/{job_id}", read),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def answer(ctx: dict[str, Any], message: str) -> str | None:
    client: openai.AsyncOpenAI = ctx["openai"]
    completion = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": Support.system_prompt}, {"role": "user", "content": message}],
    )
    return completion.choices[0].message.content


async def run_worker(settings: Settings) -> None:
    async def startup(ctx: dict[str, Any]) -> None:
        ctx["openai"] = openai.AsyncOpenAI()  # key and address from the environment, all else as it comes

    worker = Worker(
        [answer],
        redis_settings=RedisSettings.from_dsn(settings.redis_url),
        max_jobs=SLOTS,
        poll_delay=POLL_S,
        on_startup=startup,
    )
    await worker.async_run()


def main(part: str) -> None:
    settings = Settings.read({})
    match part:
        case "bare":
            serve(bare(), settings)
        case "ingress":
            serve(ingress(settings), settings)
        case "worker":
            with suppress(asyncio.CancelledError):  # how arq's worker ends on a signal
                uvloop.run(run_worker(settings))


if __name__ == "__main__":
    main(sys.argv[1])
