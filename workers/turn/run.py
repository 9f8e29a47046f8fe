"""A turn as a pipe: load → guard → answer → end. Called by the queue's worker for every claimed chat job.

Whatever happens, a job that was claimed ends through Postgres, once: `commit_turn` or `end_job` keyed by (job, run).
Killed between any two lines, the next attempt finds either the committed end, and only announces it, or nothing, and
starts over with the same ledger rows in Redis.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, assert_never

import msgspec
import structlog

from agents.api import Agent, ChatModel
from shared import keys
from shared.config import Settings
from shared.errors import Conflict, LeaseLost, Unavailable
from shared.jobs import JobError, JobRecord
from shared.redis import Argument, Commands
from shared.wire import EventType, TurnPayload, decode_turn
from workers import metrics
from workers.ledger.book import Amount, lost_row, read_row
from workers.ledger.purse import Settlement
from workers.queue.scripts import Claimed
from workers.queue.verdicts import Again, Ended, Verdict
from workers.turn import taken_in
from workers.turn.answer import Desk, TurnContext, answer
from workers.turn.asked import given, instructed
from workers.turn.calling import Providers
from workers.turn.kept import cache_of
from workers.turn.recollect import Recollection
from workers.turn.retry import RetryPolicy
from workers.turn.spending import Money, Spending
from workers.turn.store import TurnEnd, TurnStore, persist
from workers.turn.tuned import tuned
from workers.turn.witness import witnessed
from workers.turn.work import AttemptError, Done, Failed, Retry, Work, job_error, now_us, traceback_of

log = structlog.get_logger("turn")
T = TypeVar("T")


class TurnRunner:
    """`await runner(ctx, payload=…)` is the arq function `turn`."""

    def __init__(
        self,
        settings: Settings,
        *,
        agents: Mapping[str, Agent],
        models: Mapping[str, ChatModel],
        money: Money,
        store: TurnStore,
        desk: Desk,
        commands: Commands,
        leaving: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._agents = agents
        self._providers = Providers.of(settings, models)
        self._money = money
        self._store = store
        self._recollection = Recollection(store, money, desk.embedding)
        self._desk = desk
        self._commands = commands
        self._leaving = leaving
        self._policy = RetryPolicy.of(settings)

    async def __call__(self, ctx: dict[Any, Any], *, payload: dict[str, Any]) -> Verdict:
        job: Claimed = ctx["claimed"]
        try:
            turn = msgspec.convert(payload, TurnPayload)
        except msgspec.ValidationError as error:  # written by another version
            return await self.unrunnable(job, f"its payload cannot be read: {error}")
        work = Work(job, turn, self._agents.get(turn.agent), turn.user_id or job.user_id)
        work.taken_in = taken_in.read(job.taken_in, turn)
        with witnessed(work):
            try:
                return await self._run(work)
            except Unavailable:  # we are leaving and Postgres is away: another worker starts over
                raise asyncio.CancelledError from None
            except LeaseLost as error:
                log.warning("turn.lost", fault=str(error))
                job.lost = True
                raise asyncio.CancelledError from None
            except Exception as error:  # noqa: BLE001 - a fault of ours must not leave a job without an end
                return await self._broke(work, error)
            finally:
                if job.lost:
                    self._money.late.post(turn.tenant, work.postable(), admitted_us=job.created_us)

    async def unrunnable(self, job: Claimed, reason: str) -> Ended:
        """The end of a job of ours that cannot be run at all: it goes to the dead store with its payload as it is."""
        raw = job.payload or b""
        try:
            turn = decode_turn(raw)
        except msgspec.MsgspecError:
            turn = await self._unreadable(job)
        work = Work(job, turn, None, turn.user_id or job.user_id, raw_payload=raw.decode(errors="replace"))
        work.taken_in = taken_in.read(job.taken_in, turn)
        # Without its text it never was part of the conversation.
        state = "dead" if turn.message else "rejected"
        with witnessed(work):
            await self._take_over_calls(work)
            return await self._end(work, Failed(state, JobError("unrunnable", reason)))

    async def _unreadable(self, job: Claimed) -> TurnPayload:
        """What the job's record knows of a payload that cannot be read."""
        command = ("HMGET", keys.job(job.id), "tenant", "agent", "conv")
        known = await persist(lambda: self._commands.run(*command), lambda: job.lost or self._leaving())
        tenant, agent, conversation = (value.decode() for value in known)
        return TurnPayload(job_id=job.id, tenant=tenant, agent=agent, conversation_id=conversation, message="")

    async def _run(self, work: Work) -> Verdict:
        """The pipe."""
        return await self._load(work) or await self._guard(work) or await self._answer(work)

    async def _broke(self, work: Work, error: Exception) -> Verdict:
        """A fault in the pipe itself. Tried again like any surprise; the last attempt ends the job as dead.

        When even that fails the job stays, to be tried every `retry_cap_s`: it cannot end outside Postgres.
        """
        log.error("turn.broke", attempt=work.job.attempt, exc_info=error)
        running_s = (now_us() - work.job.started_us) / 1_000_000
        delay_s = self._policy.delay_s(error, attempt=work.job.attempt, running_s=running_s)
        if delay_s is None and work.job.attempt <= self._settings.max_attempts + 1:
            try:
                return await self._end(work, Failed("dead", job_error(error), traceback_of(error)))
            except Exception as again:
                log.error("turn.cannot_end", exc_info=again)  # noqa: TRY400 - structlog's form of it
        delay_s = self._settings.retry_cap_s if delay_s is None else delay_s
        work.retried = job_error(error)
        return Again(int(delay_s * 1000), {"state": "retrying"}, posted=False)

    # --- load ---------------------------------------------------------------------------------------------------

    async def _load(self, work: Work) -> Verdict | None:
        """What was said before, and whether this run is over already: then only its announcement is missing."""
        history = work.agent.history_messages if work.agent else 0
        give_up = self._give_up(work)
        remembers = work.agent is not None and work.agent.memory
        if remembers and work.job.first:
            loaded = await self._recollection.load(work, history, give_up)
        else:
            loaded = await self._store.load(work.payload, work.job, history, give_up)
        await self._take_over_calls(work)
        if loaded.ended is not None:
            return _announce(loaded.ended)
        work.history = (*loaded.history, *work.interrupted) if history else ()
        work.history += given([*(one.payload.asked for one in work.merged), work.payload.asked])
        work.errors = work.earlier_errors()
        work.settings, work.spent = loaded.settings, loaded.spent
        if work.agent is not None:
            default_max_tokens = loaded.settings.max_tokens or self._settings.max_tokens
            work.agent = instructed(tuned(work.agent, loaded.settings), work.payload.asked, default_max_tokens)
        if not loaded.tenant_known:
            return await self._end(work, Failed("rejected", JobError("tenant_disabled", "the tenant is not active")))
        owner = loaded.conversation_user
        if owner is not None and work.user_id is not None and owner != work.user_id:
            return await self._end(work, _other_user())
        work.user_id = work.user_id or owner
        if remembers and not work.job.first:
            await self._recollection.recall(work, history, give_up)
        work.greeting = await self._greeting(work, new=loaded.spent is not None)
        return None

    async def _greeting(self, work: Work, *, new: bool) -> str | None:
        """On first contact: of a user once, of a conversation without a user when it begins (`new`). Programs that
        speak OpenAI's form are not greeted: they asked for a model's answer and nothing else."""
        text = work.settings.greeting or (work.agent.greeting if work.agent else None)
        if text is None or work.payload.asked is not None or any(said.role == "assistant" for said in work.history):
            return None
        if work.user_id is None:
            return text if new else None
        greets = await self._store.claim_greeting(
            work.payload, work.user_id, self._give_up(work), admitted_us=work.job.created_us
        )
        return text if greets else None

    async def _take_over_calls(self, work: Work) -> None:
        """Calls of earlier attempts: posted, with what their readers saw of those whose worker vanished, and settled.

        What they cost is what the ledger says then: the worker that was given up on may have posted them before us.
        """
        job, tenant = work.job, work.payload.tenant
        if not job.open_calls:
            return
        seen = await self._texts_by_attempt(job.id)
        rows = [read_row(raw) for raw in job.open_calls.values()]
        sent = [lost_row(row, seen.get(row.attempt, ""), self._money.prices) for row in rows if row.status != "unsent"]
        booked = await self._store.book(tenant, sent, self._give_up(work), admitted_us=job.created_us)
        settlements = [Settlement(call_id, booked.get(call_id, Amount(0, 0))) for call_id in job.open_calls]
        if not await persist(lambda: self._money.till.settle(job, settlements), self._give_up(work)):
            raise LeaseLost("the job was taken over while its calls were settled")
        for row in sent:
            if row.status == "lost":  # whoever settled it has counted it
                metrics.count_call(row, work.agent.id if work.agent else metrics.UNKNOWN)

    async def _texts_by_attempt(self, job_id: str) -> dict[int, str]:
        texts: dict[int, str] = {}
        attempt = 1
        events = await persist(lambda: self._commands.run("XRANGE", keys.events(job_id), "-", "+"), self._leaving)
        for _, event in events:
            kind = event[b"t"].decode()
            if kind == EventType.STARTED:
                attempt = msgspec.json.decode(event[b"d"])["attempt"]
            elif kind == EventType.DELTA:
                texts[attempt] = texts.get(attempt, "") + msgspec.json.decode(event[b"d"])["delta"]
        return texts

    # --- guard --------------------------------------------------------------------------------------------------

    async def _guard(self, work: Work) -> Verdict | None:
        """Attempts that must not be made."""
        if work.job.cancelled:
            return await self._end(work, _cancelled())
        if work.job.attempt > self._settings.max_attempts:
            last = work.errors[-1]
            message = f"given up after {self._settings.max_attempts} attempts: {last.message}"
            return await self._end(work, Failed("dead", JobError(last.code, message)))
        return None

    # --- answer -------------------------------------------------------------------------------------------------

    async def _answer(self, work: Work) -> Verdict:
        self._desk.begun(work.payload)
        spending = Spending(work, self._money, self._store, self._give_up(work))
        context = TurnContext(
            work,
            providers=self._providers,
            prices=self._money.prices,
            spending=spending,
            desk=self._desk,
            max_tokens=work.settings.max_tokens or self._settings.max_tokens,
        )
        try:
            outcome = await answer(work, context, self._policy, self._settings.degraded_reply)
        except asyncio.CancelledError:
            if not work.job.cancelled or work.job.lost:
                with contextlib.suppress(Unavailable):
                    await spending.settled()
                raise  # handed back, or no longer ours; the rows stand in Redis
            _task().uncancel()
            outcome = _cancelled()
        match outcome:
            case Done() | Failed():
                verdict: Verdict = await self._end(work, outcome)
            case Retry():
                verdict = await self._retry(work, outcome)
            case _:
                assert_never(outcome)
        await spending.settled()  # else Redis would forget what it has not counted
        return verdict

    async def _retry(self, work: Work, outcome: Retry) -> Again:
        error = outcome.error
        work.errors.append(AttemptError(work.job.attempt, error.code, error.message, now_us()))
        await _undisturbed(
            self._store.post(work.payload.tenant, work.postable(), self._give_up(work), admitted_us=work.job.created_us)
        )
        fields: dict[str, Argument] = {
            "state": "retrying",
            "error": msgspec.json.encode(error),
            "errors": msgspec.json.encode(work.errors),
        }
        work.retried = error
        return Again(int(outcome.after_s * 1000), fields)

    # --- end ----------------------------------------------------------------------------------------------------

    async def _end(self, work: Work, outcome: Done | Failed) -> Ended:
        """Commits the one end of this run and tells what it became, which may be another attempt's end."""
        end = self._turn_end(work, outcome)
        try:
            record = await _undisturbed(self._store.end(work.payload.tenant, end, self._give_up(work)))
        except Conflict:  # the conversation got another owner while we answered
            end = self._turn_end(work, _other_user())
            record = await _undisturbed(self._store.end(work.payload.tenant, end, self._give_up(work)))
        if record.finished_us == end.finished_us:  # else another attempt came first, and told of it
            work.record = record
        return _announce(record, work.context)

    def _turn_end(self, work: Work, outcome: Done | Failed) -> TurnEnd:
        job, payload = work.job, work.payload
        failed = outcome if isinstance(outcome, Failed) else None
        errors = work.errors
        if failed is not None and failed.state == "dead" and len(errors) < job.attempt:
            errors = [*errors, AttemptError(job.attempt, failed.error.code, failed.error.message, now_us())]
        state, error = (failed.state, failed.error) if failed else ("succeeded", None)
        survivor = taken_in.Survivor(payload.job_id, state, error, work.user_id, now_us())
        return TurnEnd(
            job_id=payload.job_id,
            run=job.run,
            state=state,
            agent=payload.agent,
            queue=payload.queue,
            conversation_id=payload.conversation_id,
            user_id=work.user_id,
            message=payload.message,
            metadata=payload.metadata,
            domain=payload.domain,
            feature=payload.feature,
            callback_url=payload.callback_url,
            asked=payload.asked and payload.asked.kept(),
            memory=bool(work.agent and work.agent.memory),
            attempts=min(job.attempt, self._settings.max_attempts),
            claim=int(job.claim),
            attempt_errors=errors,
            created_us=job.created_us or job.started_us,
            started_us=job.started_us,
            finished_us=survivor.finished_us,
            reply=outcome.reply.text if isinstance(outcome, Done) else None,
            incomplete=outcome.reply.incomplete if isinstance(outcome, Done) else None,
            degraded=outcome.degraded if isinstance(outcome, Done) else None,
            cache=cache_of(work) if isinstance(outcome, Done) else None,
            context=work.context or None,
            error=error,
            payload=(work.raw_payload or taken_in.kept(payload, work.taken_in)) if failed else None,
            traceback=failed.traceback if failed else None,
            calls=work.postable(),
            taken_in=taken_in.ends(work.taken_in, survivor),
        )

    def _give_up(self, work: Work) -> Callable[[], bool]:
        return lambda: work.job.lost or self._leaving()


def _announce(record: JobRecord, context: dict[str, Any] | None = None) -> Ended:
    """Fields of the Redis record that say how the job ended."""
    fields: dict[str, Argument] = {
        "state": record.state.value,
        "attempts": record.attempts,
        "finished_us": record.finished_us or now_us(),
        "user": record.user_id or "",
        "incomplete": record.incomplete or "",
        "cache": record.cache or "",
        "error": msgspec.json.encode(record.error) if record.error else b"",
        "usage": msgspec.json.encode(record.usage) if record.usage else b"",
        "cost_nano_usd": record.cost_nano_usd or 0,
    }
    if record.reply is not None:
        fields["reply"] = record.reply
    if record.degraded is not None:
        fields["degraded"] = record.degraded
    if context := record.context or context:
        fields["context"] = msgspec.json.encode(context)
    return Ended(fields)


def _cancelled() -> Failed:
    return Failed("cancelled", JobError("cancelled", "cancelled on request"))


def _other_user() -> Failed:
    return Failed("rejected", JobError("conversation_owner", "the conversation belongs to another user"))


def _task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a turn runs in a task")
    return task


async def _undisturbed(statement: Awaitable[T]) -> T:
    """The result of a statement under way, whatever is asked of us meanwhile: Postgres has decided by then.

    A cancel that arrives too late is forgotten: the end that was committed stands.
    """
    running = asyncio.ensure_future(statement)
    while True:
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            if running.cancelled():
                raise
            _task().uncancel()
