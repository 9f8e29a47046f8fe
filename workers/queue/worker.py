"""The worker: arq's `Worker` with claims, leases, group commit and wake-up of our own, on arq's keys.

Life: join (a lease) → claim ⇄ run → drain (signal) → leave. Errors from Redis, hooks and jobs never end the loop. A
subclass of pinned arq: what is not overridden here (cron, health, signals, hooks, `func`) is arq's own.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from signal import Signals
from typing import Any

from arq.connections import create_pool, log_redis_info
from arq.constants import abort_jobs_ss
from arq.worker import Worker
from redis.exceptions import RedisError

from shared.errors import Unavailable
from shared.redis import Commands
from workers.queue import attempt
from workers.queue.emitter import Emitter
from workers.queue.finisher import Finisher
from workers.queue.lease import LeaseThread, new_incarnation
from workers.queue.scripts import MAX_CLAIM, Claimed, Claims, Finish, QueueScripts
from workers.queue.verdicts import Ended
from workers.queue.wake import FALLBACK_S, Waker

logger = logging.getLogger("arq.worker")
_HEART_BEAT_S = 0.5  # arq's cron window is twice this


class LeaseWorker(Worker):
    """Drop-in for `arq.Worker`; the keyword arguments named here are added to arq's."""

    def __init__(
        self,
        functions: Any = (),
        *,
        lease_s: float = 4.0,
        wedged_s: float = 60.0,
        max_events: int = 2_000,
        result_ttl_s: int = 3_600,
        unrunnable: Callable[[Claimed, str], Awaitable[Ended]] | None = None,
        on_ends_waiting: Callable[[], Awaitable[None]] | None = None,
        log_args: bool = True,
        **arq: Any,
    ) -> None:
        super().__init__(functions, **arq)
        self.log_args = log_args
        """Whether a job's arguments are logged, as arq does; a chat message is not for the log."""
        self.lease_s, self.wedged_s = lease_s, wedged_s
        self.unrunnable = unrunnable
        """Ends, in Postgres, a job of ours whose payload or function is unknown."""
        self.on_ends_waiting = on_ends_waiting
        """Takes ends of never-started jobs to Postgres."""
        self._max_events, self._result_ttl_s = max_events, result_ttl_s
        self.incarnation = ""
        self.claimed_count = 0
        self.scripts: QueueScripts
        self.finisher: Finisher
        self.emitter: Emitter
        self._lease: LeaseThread | None = None
        self._waker: Waker
        self._jobs: dict[str, Claimed] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._claiming: asyncio.Task[None] | None = None
        self._ends: asyncio.Task[None] | None = None
        self._next_due_at: float | None = 0.0
        self._beaten_at = 0.0

    @property
    def draining(self) -> bool:
        """No new jobs are taken; running ones may finish within the grace period."""
        return not self.allow_pick_jobs

    @property
    def leaving(self) -> bool:
        """The grace period is over: what still runs is handed back."""
        return self.draining and (self.main_task is None or self.main_task.done() or self.main_task.cancelling() > 0)

    def free_slots(self) -> int:
        return 0 if self.draining else self.max_jobs - len(self.tasks)

    # --- life ---------------------------------------------------------------------------------------------------

    async def main(self) -> None:
        if self._pool is None:
            self._pool = await create_pool(
                self.redis_settings,
                job_deserializer=self.job_deserializer,
                job_serializer=self.job_serializer,
                default_queue_name=self.queue_name,
                expires_extra_ms=self.expires_extra_ms,
            )
        logger.info("Starting worker for %d functions: %s", len(self.functions), ", ".join(self.functions))
        await log_redis_info(self.pool, logger.info)
        self.ctx["redis"] = self.pool
        self._open()
        if self.on_startup:
            await self.on_startup(self.ctx)
        delay_s = 0.05
        while True:
            try:
                await self._poll_iteration()
                if self.burst and await self._burst_is_over():
                    return
                delay_s = 0.05
                await self._idle()
            except (Unavailable, RedisError, OSError) as error:
                logger.warning("queue out of reach, again in %.2f s: %s", delay_s, error)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, 1.0)

    def _open(self) -> None:
        """Everything that needs the pool; once."""
        if self.incarnation:
            return
        self.incarnation = new_incarnation()
        self.scripts = QueueScripts(
            Commands(self.pool),
            self.queue_name,
            in_progress_ms=int(self.in_progress_timeout_s * 1000),
            max_events=self._max_events,
            result_ttl_s=self._result_ttl_s,
        )
        self.finisher = Finisher(self.scripts, want=self._want_next, take=self._take)
        self.emitter = Emitter(self.scripts)
        self._waker = Waker(self.pool.connection_pool, self.queue_name, lambda: self.free_slots() > 0)
        if not self.burst:
            self._spawn(self._waker.run())

    async def _join(self) -> None:
        """Takes a lease and starts the thread that keeps it."""
        lease = LeaseThread(
            self.pool.connection_pool,
            self.queue_name,
            self.incarnation,
            lease_s=self.lease_s,
            wedged_s=self.wedged_s,
            loop=asyncio.get_running_loop(),
            on_cancel=self.cancel_jobs,
            on_lost=self._lost,
        )
        await self.scripts.beat(self.incarnation, int(self.lease_s * 1000), "join")
        lease.start()
        self._lease = lease

    def _lost(self) -> None:
        """The lease is gone: what runs here may be running elsewhere. Stop it, come back under a new name."""
        if self._lease is None:
            return
        logger.error("lease lost: stopping %d jobs", len(self.tasks))
        self._lease.stop()
        self._lease = None
        old, self.incarnation = self.incarnation, new_incarnation()
        for job in self._running_of(old):
            job.lost = True
            self.tasks[job.id].cancel()
        self._waker.nudge()

    def _running_of(self, incarnation: str) -> list[Claimed]:
        return [job for job in self._jobs.values() if job.worker == incarnation]

    async def close(self) -> None:
        if not self._handle_signals:
            self.handle_sig(Signals.SIGUSR1)
        if self._pool is None:
            return
        if self.incarnation:
            await self._leave()
        with contextlib.suppress(RedisError, OSError):  # it expires by itself
            await self.pool.delete(self.health_check_key)
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        await self.pool.aclose(close_connection_pool=True)
        self._pool = None

    async def _leave(self) -> None:
        """Hands back what is left and gives up the lease, so that others start it at once."""
        if self._claiming is not None:
            await asyncio.wait([self._claiming])
        while self.tasks:
            await asyncio.wait(list(self.tasks.values()))
        if self._lease is not None:
            self._lease.stop()
            await asyncio.to_thread(self._lease.join)
            self._lease = None
            with contextlib.suppress(Unavailable):  # it runs out by itself
                await self.scripts.beat(self.incarnation, 0, "leave")
        for task in (*self._background, *([self._ends] if self._ends else [])):
            task.cancel()
            await asyncio.wait([task])

    def handle_sig(self, signum: Signals) -> None:
        self.allow_pick_jobs = False
        super().handle_sig(signum)

    def handle_sig_wait_for_completion(self, signum: Signals) -> None:
        super().handle_sig_wait_for_completion(signum)
        self._waker.nudge()

    async def _sleep_until_tasks_complete(self) -> None:
        if self._claiming is not None:
            await asyncio.wait([self._claiming])
        while self.tasks:
            await asyncio.wait(list(self.tasks.values()))

    # --- taking jobs --------------------------------------------------------------------------------------------

    async def _poll_iteration(self) -> None:
        self._open()
        if self._lease is None:
            await self._join()
        n = self.free_slots()
        if self.burst and self.max_burst_jobs >= 0:
            n = min(n, self.max_burst_jobs - self._jobs_started())
        if n > 0:
            await self._claim(min(n, MAX_CLAIM))
        if self.allow_abort_jobs:
            await self._cancel_aborted_jobs()
        if self.burst or time.monotonic() - self._beaten_at >= _HEART_BEAT_S:
            self._beaten_at = time.monotonic()
            await self.heart_beat()

    async def _claim(self, n: int) -> None:
        """Shielded: a claim whose caller is cancelled must still learn which jobs it was given."""
        self._claiming = asyncio.ensure_future(self._claim_now(n))
        try:
            await asyncio.shield(self._claiming)
        finally:
            if self._claiming.done():
                self._claiming = None

    async def _claim_now(self, n: int) -> None:
        claims = await self.scripts.claim(self.incarnation, n)
        if claims is None:
            self._lost()
        else:
            self._take(claims)

    def _take(self, claims: Claims) -> None:
        self._next_due_at = None if claims.next_ms is None else time.monotonic() + claims.next_ms / 1000
        for job in claims.jobs:
            self._start(job)
        if claims.ends_waiting and self.on_ends_waiting is not None and self._ends is None and not self.draining:
            self._ends = asyncio.ensure_future(self.on_ends_waiting())
            self._ends.add_done_callback(self._ends_done)

    def _ends_done(self, task: "asyncio.Task[None]") -> None:
        self._ends = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("ends of unstarted jobs not yet in Postgres: %s", error, exc_info=error)

    def _start(self, job: Claimed) -> None:
        self.claimed_count += 1
        run = attempt.run(self, job) if not self.draining else self._hand_back(job)
        self.tasks[job.id] = self.job_tasks[job.id] = task = self.loop.create_task(run)
        self._jobs[job.id] = job
        task.add_done_callback(lambda done: self._done(job, done))

    async def _hand_back(self, job: Claimed) -> None:
        await self.finisher.finish(job.worker, Finish(job.id, job.attempt, "release", posted=False))

    def _done(self, job: Claimed, task: "asyncio.Task[Any]") -> None:
        if self.tasks.get(job.id) is task:
            del self.tasks[job.id], self.job_tasks[job.id], self._jobs[job.id]
        self.aborting_tasks.discard(job.id)
        if task.cancelled():
            if not job.lost:  # stopped before it could say how it ends
                self._spawn(self._hand_back(job))
        elif (error := task.exception()) is not None:
            logger.error("attempt at %s broke: its lease will hand it on", job.id, exc_info=error)
        self._waker.nudge()

    def _want_next(self, ending: int) -> int:
        """Jobs to claim along with `ending` finishes: their slots are about to be free."""
        if self.draining or self.burst or self._lease is None:
            return 0
        return min(self.free_slots() + ending, MAX_CLAIM)

    async def _idle(self) -> None:
        """Until there may be something to take: a token, a free slot, the next due time, or the fallback."""
        if self.free_slots() > 0 and self._next_due_at is not None and self._next_due_at <= time.monotonic():
            await asyncio.sleep(0)
            return
        due_in_s = FALLBACK_S if self._next_due_at is None else self._next_due_at - time.monotonic()
        if self.free_slots() <= 0:
            due_in_s = FALLBACK_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.001, min(due_in_s, FALLBACK_S))):
                await self._waker.event.wait()
        self._waker.event.clear()  # a look at the queue follows in any case

    # --- burst, aborts ------------------------------------------------------------------------------------------

    async def _burst_is_over(self) -> bool:
        if 0 <= self.max_burst_jobs <= self._jobs_started() or await self.pool.zcard(self.queue_name) == 0:
            await asyncio.gather(*self.tasks.values())
            return True
        return False

    def _jobs_started(self) -> int:
        return self.claimed_count

    async def take_abort(self, job_id: str) -> bool:
        """Whether an abort was asked for before the job started; forgets it."""
        return bool(await self.pool.zrem(abort_jobs_ss, job_id))

    def cancel_jobs(self, job_ids: list[str]) -> None:
        """Their callers want them ended: stop what they are doing; each ends in its own way."""
        for job_id in job_ids:
            job = self._jobs.get(job_id)
            if job is not None and not job.cancelled:
                job.cancelled = True
                self.job_tasks[job_id].cancel()

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
