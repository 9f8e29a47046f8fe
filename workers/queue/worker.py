"""The worker: arq's `Worker` with claims, leases, group commit and wake-up of our own, on arq's keys.

Life: join (a lease) → claim ⇄ run → drain (signal) → leave. Errors from Redis, hooks and jobs never end the loop. A
subclass of pinned arq: what is not overridden here (cron, health, signals, hooks, `func`) is arq's own.
"""

import asyncio
import contextlib
import inspect
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from functools import partial
from signal import Signals
from typing import Any, ClassVar, Literal

from arq.connections import create_pool, log_redis_info
from arq.constants import abort_jobs_ss
from arq.worker import Worker
from redis.exceptions import RedisError

from shared.errors import Unavailable
from shared.redis import Commands
from workers.queue import attempt
from workers.queue.emitter import Emitter
from workers.queue.membership import Membership
from workers.queue.scripts import Claimed, Finish, QueueScripts
from workers.queue.stopping import raise_if_cancelled, stop
from workers.queue.taking import Taker
from workers.queue.verdicts import Ended
from workers.queue.wake import Waker
from workers.queue.watch import QueueWatch

logger = logging.getLogger("arq.worker")
_HEART_BEAT_S = 0.5  # arq's cron window is twice this
_BROKEN_DELAY_MS = 1_000
_SHORTEST_IDLE_S = 0.001


def _with_arqs_parameters(init: Callable[..., None]) -> inspect.Signature:
    own = [p for p in inspect.signature(init).parameters.values() if p.kind is not p.VAR_KEYWORD]
    names = {p.name for p in own}
    arqs = [p for p in inspect.signature(Worker).parameters.values() if p.name not in names]
    return inspect.Signature([*own[1:], *arqs])


class LeaseWorker(Worker):
    """Drop-in for `arq.Worker`; the keyword arguments named here are added to arq's.

    A burst worker is a finite run that somebody waits for: there, an unreachable Redis is raised, as in arq.
    """

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
        self.claimed_count = self.leases_lost = 0
        self.scripts: QueueScripts
        self.emitter: Emitter
        self._taker: Taker
        self._membership: Membership
        self._waker: Waker
        self._opened = self._closing = False
        self._jobs: dict[str, Claimed] = {}
        """Jobs whose attempts run here, until Redis was told how they ended."""
        self._waking: tuple[asyncio.Task[None], ...] = ()
        self._ends: asyncio.Task[None] | None = None
        self._beaten_at = 0.0

    __signature__: ClassVar[inspect.Signature] = _with_arqs_parameters(__init__)
    """arq's command line passes on those settings that it finds here."""

    @property
    def draining(self) -> bool:
        """No new jobs are taken; running ones may finish within the grace period."""
        return self._closing or not self.allow_pick_jobs

    @property
    def commands(self) -> list[Commands]:
        """What it talks to Redis with, once it does."""
        return [self.scripts.commands] if self._opened else []

    @property
    def has_lease(self) -> bool:
        return self._opened and self._membership.standing

    @property
    def leaving(self) -> bool:
        """The grace period is over: what still runs is handed back."""
        return self.draining and (self.main_task is None or self.main_task.done() or self.main_task.cancelling() > 0)

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
        with contextlib.suppress(*(() if self.burst else (RedisError, OSError))):  # the loop waits it out
            await log_redis_info(self.pool, logger.info)
        self.ctx["redis"] = self.pool
        self._open()
        if self.on_startup:
            await self.on_startup(self.ctx)
        await (self._run_burst() if self.burst else self._run_until_cancelled())

    async def _run_until_cancelled(self) -> None:
        delay_s = 0.05
        while True:
            raise_if_cancelled()
            try:
                await self._poll_iteration()
                delay_s = 0.05
                raise_if_cancelled()  # else it would sleep over it
                self._listen()
                await self._idle()
            except Exception as error:
                known = isinstance(error, (Unavailable, RedisError, OSError))
                logger.warning("queue out of reach, again in %.2f s: %s", delay_s, error, exc_info=not known)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, 1.0)

    def _listen(self) -> None:
        """From its first lease on, without which no claim can stand."""
        if not self._waking:
            watch = QueueWatch(self.pool.connection_pool, self.queue_name, self._waker)
            self._waking = (asyncio.ensure_future(self._waker.run()), asyncio.ensure_future(watch.run()))

    async def _run_burst(self) -> None:
        """Until the queue is empty or `max_burst_jobs` were taken. Nothing of ours but results stays in Redis."""
        await self._poll_iteration()
        while not await self._burst_is_over():
            await self._idle()
            await self._poll_iteration()
        await self._quiet()
        await self._membership.leave()

    async def _burst_is_over(self) -> bool:
        return 0 <= self.max_burst_jobs <= self._jobs_started() or await self.pool.zcard(self.queue_name) == 0

    def _open(self) -> None:
        """Everything that needs the pool; once."""
        if self._opened:
            return
        self.scripts = QueueScripts(
            Commands(self.pool),
            self.queue_name,
            in_progress_ms=int(self.in_progress_timeout_s * 1000),
            max_events=self._max_events,
            result_ttl_s=self._result_ttl_s,
            poll_as_arq=self.burst,
        )
        self.emitter = Emitter(self.scripts)
        self._membership = Membership(
            self.scripts,
            self.pool.connection_pool,
            lease_s=self.lease_s,
            wedged_s=self.wedged_s,
            slots=self.max_jobs,
            on_cancel=self.cancel_jobs,
            on_lost=self._stop_all_of,
        )
        self._taker = Taker(
            self.scripts,
            self._membership,
            running=self._jobs,
            open_slots=lambda: 0 if self.draining else self.max_jobs - len(self.tasks),
            merge_limit=lambda: 0 if self.draining or self.burst else self.queue_read_limit,
            start=self._start,
            on_ends_waiting=self._take_ends,
            patience_s=lambda: self.lease_s if self.leaving else math.inf,
        )
        taker = self._taker
        self._waker = Waker(
            self.pool.connection_pool, self.queue_name, taker.hungry, stand=taker.stand, stood=taker.stood
        )
        self._opened = True

    def _stop_all_of(self, incarnation: str) -> None:
        """Its lease is gone: what it runs may be running elsewhere."""
        jobs = [job for job in self._jobs.values() if job.worker == incarnation]
        logger.error("lease lost: stopping %d jobs", len(jobs))
        self.leases_lost += 1
        for job in jobs:
            job.lost = True
            self.tasks[job.id].cancel()
        self._waker.nudge()

    async def close(self) -> None:
        if not self._handle_signals:
            self.handle_sig(Signals.SIGUSR1)
        if self._pool is None:
            return
        self._closing = True
        if self._opened:
            await self._leave()
        with contextlib.suppress(RedisError, OSError):  # it expires by itself
            await self.pool.delete(self.health_check_key)
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        if self._opened:
            await self.scripts.commands.aclose()
        await self.pool.aclose(close_connection_pool=True)
        self._pool = None
        self._opened = self._closing = False

    async def _leave(self) -> None:
        """Hands back what is left and gives up the lease, so that others start it at once."""
        for task in self._waking:
            await stop(task)
        self._waking = ()
        await self._quiet()
        with contextlib.suppress(Unavailable, RedisError, OSError):  # their lease runs out by itself
            await self._taker.return_strays()
        await self._membership.leave()
        if self._ends is not None:
            await stop(self._ends)

    async def _quiet(self) -> None:
        """Returns when nothing runs here and Redis was told of every end."""
        await self._taker.settled()
        while self.tasks:
            await asyncio.wait(list(self.tasks.values()))
            await self._taker.finisher.settled()
            await asyncio.sleep(0)  # the slots are freed in the next tick
        await self._taker.finisher.settled()

    def handle_sig(self, signum: Signals) -> None:
        self.allow_pick_jobs = False
        super().handle_sig(signum)

    def handle_sig_wait_for_completion(self, signum: Signals) -> None:
        super().handle_sig_wait_for_completion(signum)
        self._nudge()

    async def _sleep_until_tasks_complete(self) -> None:
        if self._opened:
            await self._quiet()

    # --- taking jobs --------------------------------------------------------------------------------------------

    async def _poll_iteration(self) -> None:
        self._open()
        limit = self.queue_read_limit
        if self.burst and self.max_burst_jobs >= 0:
            limit = min(limit, self.max_burst_jobs - self._jobs_started())
        await self._taker.claim(limit)
        if self.allow_abort_jobs:
            await self._cancel_aborted_jobs()
        if self.burst or time.monotonic() - self._beaten_at >= _HEART_BEAT_S:
            self._beaten_at = time.monotonic()
            await self.heart_beat()

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Claims those of `job_ids` that are due and that nobody runs."""
        self._open()
        await self._taker.claim(len(job_ids), [job_id.decode() for job_id in job_ids])

    async def run_cron(self, n: datetime, delay: float, num_windows: int = 2) -> None:
        planned = [job.next_run for job in self.cron_jobs]
        await super().run_cron(n, delay, num_windows)
        if planned != [job.next_run for job in self.cron_jobs]:
            self._nudge()  # arq's own enqueue pushes no wake token

    def _start(self, job: Claimed) -> None:
        self.claimed_count += 1
        self._jobs[job.id] = job
        self._run(job, self._put_back(job, "release") if self.draining else attempt.run(self, job))

    def _run(self, job: Claimed, coroutine: Coroutine[Any, Any, None]) -> None:
        self.tasks[job.id] = task = self.loop.create_task(coroutine)
        self.job_counter = len(self.tasks)
        task.add_done_callback(partial(self._done, job))

    def _done(self, job: Claimed, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("attempt at %s broke: %s", job.id, error, exc_info=error)
        if job.concluded or job.lost:
            self._free(job)
        else:  # stopped before it could say how it ends
            self._run(job, self._put_back(job, "retry" if error else "release"))

    def _told(self, job: Claimed, told: "asyncio.Future[bool]") -> None:
        job.told = True
        error = None if told.cancelled() else told.exception()
        if error is not None:
            logger.error("the end of %s could not be told: %s", job.id, error, exc_info=error)
        elif not told.cancelled() and not told.result():
            logger.warning("%s was no longer ours when it ended", job.id)
        self._free(job)

    def _free(self, job: Claimed) -> None:
        """Its slot, once its task is over and Redis was told, unless nobody is to be told."""
        task = self.tasks.get(job.id)
        if task is None or not task.done() or self._jobs[job.id] is not job or job.concluded > job.told:
            return
        was_full = not self._taker.hungry()
        del self.tasks[job.id], self._jobs[job.id]
        self.job_counter = len(self.tasks)
        self.aborting_tasks.discard(job.id)
        if was_full or self.burst:  # else nothing stood in the way of a token or of the next poll
            self._nudge()

    async def _put_back(self, job: Claimed, verb: Literal["retry", "release"]) -> None:
        delay_ms = _BROKEN_DELAY_MS if verb == "retry" else 0
        self.finish(job, Finish(job.id, job.claim, verb, delay_ms=delay_ms, posted=False))

    def finish(self, job: Claimed, end: Finish) -> "asyncio.Future[bool]":
        """Tells Redis how an attempt ended, once; whether it was still ours. Nobody's cancellation stops it."""
        job.concluded = True
        told = self._taker.finisher.finish(job.worker, end)
        told.add_done_callback(partial(self._told, job))
        return told

    async def tell_of_unstarted(self, job_id: str, state: str) -> None:
        """Called for each end of a never-started job that reached Postgres here: hooks hear of every end."""
        await attempt.tell_of_unstarted(self, job_id, state)

    def _take_ends(self) -> None:
        if self.on_ends_waiting is not None and self._ends is None and not self.draining:
            self._ends = asyncio.ensure_future(self.on_ends_waiting())
            self._ends.add_done_callback(self._ends_taken)

    def _ends_taken(self, task: "asyncio.Task[None]") -> None:
        self._ends = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("ends of unstarted jobs not yet in Postgres: %s", error, exc_info=error)

    async def _idle(self) -> None:
        """Until there may be something to take: a token, a free slot, the next due time, or the next poll."""
        due_in_s = self.poll_delay_s
        if self._taker.free_slots() > 0 and self._taker.next_due_at is not None:
            due_in_s = min(due_in_s, self._taker.next_due_at - time.monotonic())
        self._taker.looks_at = time.monotonic() + due_in_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(_SHORTEST_IDLE_S, due_in_s)):
                await self._waker.event.wait()
        self._waker.event.clear()  # a look at the queue follows in any case

    def _nudge(self) -> None:
        if self._opened:
            self._waker.nudge()

    # --- aborts -------------------------------------------------------------------------------------------------

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
                if job_id in self.job_tasks:
                    self.job_tasks[job_id].cancel()
