"""One worker process under measurement. Run: `python -m benchmarks.worker <WorkerSpec as JSON>`.

Its standard output is its journal, one line per event, with times of the machine's monotonic clock:
`ready` · `first <ns>` · `start <ns> <job id> <try>` · `left <jobs completed> <sends> <CPU ns>`, both since `first`.
A job is told what to do by its message: `<milliseconds to sleep> <note | quiet>`; `note` journals its start.
"""

import asyncio
import contextlib
import cProfile
import logging
import sys
import time
from typing import Any

import msgspec
import uvloop
from arq.connections import ArqRedis
from arq.worker import Worker, func
from redis.asyncio import ConnectionPool

from benchmarks.subject import PLAIN_FUNCTION, CountingConnection, Subject, WorkerSpec
from shared.heap import settle_heap
from shared.redis import connect
from shared.wire import TURN_FUNCTION
from workers.queue import codec
from workers.queue.attempt import ENDLESS_S
from workers.queue.start import POLL_S
from workers.queue.verdicts import Ended
from workers.queue.worker import LeaseWorker


class Journal:
    """What this process says to the driver."""

    def __init__(self) -> None:
        self._before_first: tuple[int, int] | None = None

    def say(self, *words: object) -> None:
        print(*words, flush=True)

    def start(self, now_ns: int, ctx: dict[Any, Any], *, note: bool) -> None:
        if self._before_first is None:
            self._before_first = CountingConnection.sends, time.process_time_ns()
            self.say("first", now_ns)
        if note:
            self.say("start", now_ns, ctx["job_id"], ctx["job_try"])

    def left(self, worker: Worker) -> None:
        sends, cpu_ns = self._before_first or (0, 0)
        self.say("left", worker.jobs_complete, CountingConnection.sends - sends, time.process_time_ns() - cpu_ns)


journal = Journal()


async def perform(ctx: dict[Any, Any], message: str) -> None:
    now_ns = time.monotonic_ns()
    sleep_ms, voice = message.split()
    journal.start(now_ns, ctx, note=voice == "note")
    if sleep_ms != "0":
        await asyncio.sleep(int(sleep_ms) / 1000)


async def work(ctx: dict[Any, Any], message: str) -> str:
    await perform(ctx, message)
    return "done"


async def turn(ctx: dict[Any, Any], payload: dict[str, Any]) -> Ended:
    """What the queue sees of a chat turn: its end, without the turn."""
    await perform(ctx, payload["message"])
    return Ended({"state": "succeeded", "reply": "done", "finished_us": time.time_ns() // 1000})


def build(spec: WorkerSpec) -> Worker:
    """The worker; signal handlers are its own."""
    turns = spec.subject is Subject.TURNS
    json: dict[str, Any] = {"job_serializer": codec.encode, "job_deserializer": codec.decode} if turns else {}
    stock = spec.subject is Subject.STOCK
    pool = ConnectionPool.from_url(spec.url) if stock else connect(spec.url, max_connections=64).connection_pool
    CountingConnection.count(pool)
    options: dict[str, Any] = {
        "functions": [func(turn, name=TURN_FUNCTION, timeout=ENDLESS_S) if turns else func(work, name=PLAIN_FUNCTION)],
        "redis_pool": ArqRedis(pool_or_conn=pool, **json),
        "max_jobs": spec.slots,
        "job_timeout": spec.job_timeout_s,
        "job_completion_wait": spec.grace_s,
        "poll_delay": spec.poll_s if stock else POLL_S,
        "on_startup": _ready,
        **json,
    }
    if stock:
        return Worker(**options)
    settle_heap()
    return LeaseWorker(**options, lease_s=spec.lease_s, log_args=False)


async def _ready(_ctx: dict[Any, Any]) -> None:
    journal.say("ready")


async def serve(spec: WorkerSpec) -> Worker:
    """Until SIGTERM."""
    worker = build(spec)
    with contextlib.suppress(asyncio.CancelledError):
        await worker.async_run()
    # stock arq's close() fails when the signal meets a job that is just being finished; ours has no such excuse
    with contextlib.suppress(*([asyncio.CancelledError] if spec.subject is Subject.STOCK else [])):
        await worker.close()
    return worker


def main(argument: str) -> None:
    spec = msgspec.json.decode(argument, type=WorkerSpec)
    logging.basicConfig(level=logging.WARNING)  # a line per job would cost either worker more than the job
    if spec.profile:
        profiler = cProfile.Profile()
        worker = profiler.runcall(uvloop.run, serve(spec))
        profiler.dump_stats(spec.profile)
    else:
        worker = uvloop.run(serve(spec))
    journal.left(worker)


if __name__ == "__main__":
    main(sys.argv[1])
