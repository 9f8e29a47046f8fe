"""One attempt at one job: decode → find the function → hooks → execute → judge → finish. arq's `run_job`, as a pipe.

Every stage keeps arq's meaning (tries, timeouts, Retry, abort, results); `Verdict`s and an uncounted release at
shutdown are ours. Nothing a job or a hook does escapes into the worker's loop.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import arq.worker as arq_worker
from arq.constants import retry_key_prefix
from arq.jobs import SerializationError, deserialize_job_raw, serialize_result
from arq.utils import args_to_string, ms_to_datetime, to_ms, truncate
from arq.worker import JobExecutionFailed, Retry, RetryJob
from msgspec import Struct, field, structs

from workers.queue.scripts import Claimed, Finish
from workers.queue.verdicts import Again, Ended

if TYPE_CHECKING:
    from workers.queue.worker import LeaseWorker

logger = logging.getLogger("arq.worker")
T = TypeVar("T")
_RETRY_TTL_S = 88_400  # arq's own
ENDLESS_S = 86_400
"""A function with this timeout bounds itself: no timer is set for it."""


class Attempt(Struct):
    """What is known of an attempt so far. `name` and the rest are set once the payload was read."""

    job: Claimed
    job_try: int
    name: str = "<unknown>"
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    enqueued_ms: int = 0
    started_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    function: Any = None

    @property
    def ref(self) -> str:
        return self.name if hasattr(self.function, "next_run") else f"{self.job.id}:{self.name}"


async def run(worker: "LeaseWorker", job: Claimed) -> None:
    """Runs the attempt and tells Redis its end; a lost one changes nothing.

    Unlike arq's, the hook `after_job_end` also hears of jobs that could not be run: their `ctx` has a `refusal`.
    """
    attempt = Attempt(job, job.attempt)
    refusal = await _prepare(worker, attempt)
    ctx = {
        **worker.ctx,
        "job_id": job.id,
        "job_try": attempt.job_try,
        "enqueue_time": ms_to_datetime(attempt.enqueued_ms),
        "score": int(float(job.score)),
        "claimed": job,
    }
    if refusal is not None:
        ctx["refusal"] = refusal
        end = await _refuse(worker, attempt, refusal)
    else:
        await _hook(worker.on_job_start, ctx)
        end = await _execute(worker, attempt, ctx)
    told = None
    try:
        if refusal is None:
            await _hook(worker.on_job_end, ctx)
    finally:  # what the job did is done, whatever stops us now
        rest = worker.emitter.rest(job)
        if (said := worker.emitter.under_way(job)) is not None:
            told = await _uninterrupted(_conclude(worker, attempt, end, rest, said))
        else:
            told = _tell(worker, attempt, end, rest)
    if told is not None and worker.after_job_end is not None and await asyncio.shield(told):
        await _hook(worker.after_job_end, ctx)


async def tell_of_unstarted(worker: "LeaseWorker", job_id: str, state: str) -> None:
    """The hook for a job that no worker ever took: `job_try` is 0, `state` says how it ended."""
    await _hook(worker.after_job_end, {**worker.ctx, "job_id": job_id, "job_try": 0, "state": state})


async def _conclude(
    worker: "LeaseWorker", attempt: Attempt, end: Finish | None, rest: str, said: "asyncio.Future[None]"
) -> "asyncio.Future[bool] | None":
    """After what was `said`, which Redis has not answered yet."""
    await asyncio.wait([said])
    return _tell(worker, attempt, end, rest)


def _tell(worker: "LeaseWorker", attempt: Attempt, end: Finish | None, rest: str) -> "asyncio.Future[bool] | None":
    """With the `rest` of its text. The task need not wait for Redis to answer: the worker does, and frees the slot
    then."""
    if end is not None and not attempt.job.lost:
        return worker.finish(attempt.job, structs.replace(end, text=rest) if rest else end)
    logger.warning("%s was no longer ours when it ended", attempt.ref)
    return None


async def _uninterrupted(coroutine: Coroutine[Any, Any, T]) -> T:
    """Sees it through; a cancellation that comes meanwhile takes effect afterwards."""
    task = asyncio.ensure_future(coroutine)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


async def _prepare(worker: "LeaseWorker", attempt: Attempt) -> BaseException | None:
    """Reads the payload; the reason why the job cannot be run, or None. Says it in arq's words."""
    job = attempt.job
    if not job.payload:
        logger.warning("job %s expired", job.id)
        return JobExecutionFailed("job expired")
    try:
        read = deserialize_job_raw(job.payload, deserializer=worker.job_deserializer)
    except SerializationError as error:
        logger.exception("deserializing job %s failed", job.id)
        return error
    attempt.name, attempt.args, attempt.kwargs, enqueued_try, attempt.enqueued_ms = read
    if worker.allow_abort_jobs and await worker.take_abort(job.id):
        logger.info("%6.2fs ⊘ %s:%s aborted before start", _waited_s(attempt), job.id, attempt.name)
        return asyncio.CancelledError()
    attempt.function = worker.functions.get(attempt.name)
    if attempt.function is None:
        logger.warning("job %s, function %r not found", job.id, attempt.name)
        return JobExecutionFailed(f"function {attempt.name!r} not found")
    if enqueued_try and enqueued_try > attempt.job_try:
        attempt.job_try = enqueued_try
        await worker.pool.setex(retry_key_prefix + job.id, _RETRY_TTL_S, str(enqueued_try))
    max_tries = worker.max_tries if attempt.function.max_tries is None else attempt.function.max_tries
    if attempt.job_try > max_tries:
        logger.warning("%6.2fs ! %s max retries %d exceeded", _waited_s(attempt), attempt.ref, max_tries)
        return JobExecutionFailed(f"max {max_tries} retries exceeded")
    return None


async def _refuse(worker: "LeaseWorker", attempt: Attempt, reason: BaseException) -> Finish | None:
    """The end of a job that cannot be run. One that came through admission ends in Postgres first."""
    job = attempt.job
    worker.jobs_failed += 1
    if worker.unrunnable is not None and job.created_us is not None:
        verdict = await worker.unrunnable(job, str(reason))
        return Finish(job.id, job.claim, "end", posted=verdict.posted, fields=verdict.fields)
    keep_s = 0.0 if worker.keep_result_forever else worker.keep_result_s
    result = _serialize(worker, attempt, False, reason) if worker.keep_result_forever or keep_s > 0 else None
    return Finish(job.id, job.claim, "end", result=result or b"", result_ms=to_ms(keep_s) or 0)


async def _execute(worker: "LeaseWorker", attempt: Attempt, ctx: dict[Any, Any]) -> Finish | None:
    function = attempt.function
    timeout_s = worker.job_timeout_s if function.timeout_s is None else function.timeout_s
    _log_start(attempt, with_args=worker.log_args)
    try:
        result = await _call(worker, attempt, ctx, timeout_s)
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever a job raises is judged, as in arq
        return _judge_error(worker, attempt, error)
    if isinstance(result, Again):
        worker.jobs_retried += 1
        fields = result.fields
        return _end(attempt, "retry", delay_ms=result.delay_ms, posted=result.posted, fields=fields)
    worker.jobs_complete += 1
    if logger.isEnabledFor(logging.INFO):
        shown = truncate(repr(result)) if worker.log_results and result is not None else ""
        logger.info("%6.2fs ← %s ● %s", _elapsed_s(attempt), attempt.ref, shown)
    if isinstance(result, Ended):
        return _end(attempt, "end", posted=result.posted, fields=result.fields)
    return _with_result(worker, attempt, True, result)


async def _call(worker: "LeaseWorker", attempt: Attempt, ctx: dict[Any, Any], timeout_s: float | None) -> object:
    """The function itself: the only part of an attempt that an abort or a caller's cancellation stops."""
    task = asyncio.current_task()
    if task is not None:
        worker.job_tasks[attempt.job.id] = task
    try:
        if timeout_s == ENDLESS_S:
            return await attempt.function.coroutine(ctx, *attempt.args, **attempt.kwargs)
        async with asyncio.timeout(timeout_s):
            return await attempt.function.coroutine(ctx, *attempt.args, **attempt.kwargs)
    finally:
        worker.job_tasks.pop(attempt.job.id, None)


def _judge_error(worker: "LeaseWorker", attempt: Attempt, error: BaseException) -> Finish | None:
    job, elapsed_s = attempt.job, _elapsed_s(attempt)
    if job.lost:
        return None
    if isinstance(error, Retry) and worker.retry_jobs:
        logger.info("%6.2fs ↻ %s retrying job in %0.2fs", elapsed_s, attempt.ref, (error.defer_score or 0) / 1000)
        worker.jobs_retried += 1
        return _end(attempt, "retry", delay_ms=error.defer_score or 0)
    if isinstance(error, asyncio.CancelledError) and job.id in worker.aborting_tasks:
        logger.info("%6.2fs ⊘ %s aborted", elapsed_s, attempt.ref)
        worker.aborting_tasks.discard(job.id)
        worker.jobs_failed += 1
        return _with_result(worker, attempt, False, error)
    if isinstance(error, (asyncio.CancelledError, RetryJob)) and worker.retry_jobs:
        logger.info("%6.2fs ↻ %s cancelled, will be run again", elapsed_s, attempt.ref)
        worker.jobs_retried += 1
        return _end(attempt, "release" if worker.draining else "retry", posted=False)
    name, extra = type(error).__name__, {"extra": _extra_of(error)}
    logger.error("%6.2fs ! %s failed, %s: %s", elapsed_s, attempt.ref, name, error, exc_info=error, extra=extra)
    worker.jobs_failed += 1
    return _with_result(worker, attempt, False, error)


def _extra_of(error: BaseException) -> object:
    """arq's way for an exception to add to its log record."""
    extra = getattr(error, "extra", None)
    try:
        return extra() if callable(extra) else extra
    except Exception as failure:  # noqa: BLE001 - a deployment's code; its job has failed already
        return f"{type(failure).__name__}: {failure}"


def _with_result(worker: "LeaseWorker", attempt: Attempt, success: bool, result: object) -> Finish:
    function = attempt.function
    forever = worker.keep_result_forever if function.keep_result_forever is None else function.keep_result_forever
    keep_s = worker.keep_result_s if function.keep_result_s is None else function.keep_result_s
    data = _serialize(worker, attempt, success, result) if forever or keep_s > 0 else None
    return _end(attempt, "end", result=data or b"", result_ms=0 if forever else to_ms(keep_s) or 0)


def _end(attempt: Attempt, verb: Any, **how: Any) -> Finish:
    # a cron job's in-progress key outlives it, so that the workers' clocks need not agree on when it was due
    keep_s = arq_worker.keep_cronjob_progress  # type: ignore[attr-defined]  # read where arq reads it
    keep_ms = to_ms(keep_s) if hasattr(attempt.function, "next_run") else -1
    return Finish(attempt.job.id, attempt.job.claim, verb, keep_ms=keep_ms, **how)


def _serialize(worker: "LeaseWorker", attempt: Attempt, success: bool, result: object) -> bytes | None:
    return serialize_result(
        function=attempt.name,
        args=attempt.args,
        kwargs=attempt.kwargs,
        job_try=attempt.job_try,
        enqueue_time_ms=attempt.enqueued_ms,
        success=success,
        result=result,
        start_ms=attempt.started_ms,
        finished_ms=time.time_ns() // 1_000_000,
        ref=attempt.ref,
        queue_name=worker.queue_name,
        job_id=attempt.job.id,
        serializer=worker.job_serializer,
    )


async def _hook(hook: Any, ctx: dict[Any, Any]) -> None:
    """Hooks belong to the deployment: one that fails is reported and costs nobody a job."""
    if hook is None:
        return
    try:
        await hook(ctx)
    except Exception:
        logger.exception("hook %s failed", getattr(hook, "__qualname__", hook))


def _waited_s(attempt: Attempt) -> float:
    return time.time_ns() / 1e9 - attempt.enqueued_ms / 1000


def _elapsed_s(attempt: Attempt) -> float:
    return time.time_ns() / 1e9 - attempt.started_ms / 1000


def _log_start(attempt: Attempt, *, with_args: bool) -> None:
    if logger.isEnabledFor(logging.INFO):
        waited_s = (attempt.started_ms - attempt.enqueued_ms) / 1000
        extra = f" try={attempt.job_try}" if attempt.job_try > 1 else ""
        if (delayed_s := attempt.started_ms / 1000 - float(attempt.job.score) / 1000) > 1.2:
            extra += f" delayed={delayed_s:0.2f}s"
        args = args_to_string(attempt.args, attempt.kwargs) if with_args else ""
        logger.info("%6.2fs → %s(%s)%s", waited_s, attempt.ref, args, extra)
