"""A turn's dealings with Postgres: one statement before it, one after it, each safe to repeat.

Turns that need theirs at the same moment share one statement (`joined.py`).

While Postgres is away a turn waits here with what it has: its calls are paid for. It gives up only when its worker
is leaving or its lease is gone; then another worker starts over.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from agents.api import Message
from shared.budgets import made_at_ms
from shared.db import Pool, Row, jsonb
from shared.errors import LeaseLost, Unavailable
from shared.jobs import Degraded, JobError, JobRecord
from shared.telemetry import tracing
from shared.tenants import TenantSettings, read_settings
from shared.wire import Asked, TurnPayload
from sql import queries
from workers.erasure.subjects import Subjects
from workers.joined import Joined
from workers.ledger.book import Amount, LedgerRow
from workers.queue.scripts import Claimed
from workers.turn.taken_in import TakenInEnd
from workers.turn.work import AttemptError

logger = logging.getLogger("switchboard.turn")
T = TypeVar("T")

RECALL_TOKENS = 1_500
RECALL_HITS = 20
"""At most so much of what was said before comes back; the model is shown what fits of it."""


class Sought(NamedTuple):
    """What is recalled for: whose memory, what is said, and that as a vector (text of a halfvec) of a model."""

    user_id: str | None
    text: str
    model_id: int | None = None
    vector: str | None = None

    @property
    def args(self) -> tuple[object, ...]:
        return self.text, self.model_id, self.vector, RECALL_TOKENS, RECALL_HITS


class LoadedContext(msgspec.Struct, frozen=True):
    """What Postgres knew before the turn. `ended` is the record when this run is over already."""

    ended: JobRecord | None
    conversation_user: str | None
    history: tuple[Message, ...]
    tenant_known: bool
    settings: TenantSettings
    spent: Amount | None = None
    """By this conversation so far; None: ask, should Redis not know it."""
    memory: str | None = None
    """What is remembered (JSON), where that was asked."""


class TurnEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON that `commit_turn` and `end_job` take; the names are sql/migrations' own."""

    job_id: str
    run: int
    state: str
    agent: str
    queue: str
    conversation_id: str
    user_id: str | None
    message: str
    metadata: dict[str, Any]
    domain: str | None
    feature: str | None
    callback_url: str | None
    asked: Asked | None
    memory: bool
    attempts: int
    claim: int | None
    """The claim this attempt runs under; None is not fenced."""
    attempt_errors: list[AttemptError]
    created_us: int
    started_us: int | None
    finished_us: int
    reply: str | None = None
    incomplete: str | None = None
    degraded: Degraded | None = None
    cache: str | None = None
    context: dict[str, Any] | None = None
    error: JobError | None = None
    payload: TurnPayload | str | None = None
    """Kept for inspection; as text where it could not be read."""
    traceback: str | None = None
    calls: list[LedgerRow] = []
    taken_in: list[TakenInEnd] = []
    subjects: list[str] = []
    """By which Postgres knows whether its user was erased meanwhile; `TurnStore.end` fills them in."""

    @property
    def plain(self) -> bool:
        """Whether `commit_turns` takes it: see sql/migrations/0020_joined_commits.sql."""
        first = self.run == 1 and self.claim == self.started_us
        return first and self.state == "succeeded" and self.callback_url is None and not self.taken_in


class _Ended(NamedTuple):
    tenant: str
    end: TurnEnd


class _Asks(msgspec.Struct, frozen=True):
    """What `turn_context` is asked; the names are those of `contexts_together`."""

    tenant: str
    job: str
    run: int
    conversation: str
    history: int
    """Messages of it."""
    said: str | None = None
    """What to remember for; None: for nothing."""

    @property
    def head(self) -> tuple[str, str, int, str, int]:
        return self.tenant, self.job, self.run, self.conversation, self.history


MOST_TOGETHER = 32
"""Turns in one statement: more would save little more, and the first of them waits for the last."""


class TurnStore:
    """`give_up` says whether waiting for Postgres has become pointless."""

    def __init__(self, pool: Pool, subjects: Subjects) -> None:
        self._pool, self._subjects = pool, subjects
        self._contexts: Joined[_Asks, Row] = Joined(self._load_all, self._load_one, most=MOST_TOGETHER)
        self._commits: Joined[_Ended, str | None] = Joined(self._commit_all, self._commit_one, most=MOST_TOGETHER)

    async def load(
        self, payload: TurnPayload, job: Claimed, history: int, give_up: Callable[[], bool]
    ) -> LoadedContext:
        """A claim that is not the job's first takes it over: from here on no earlier one can end it."""
        asks = _Asks(payload.tenant, payload.job_id, job.run, payload.conversation_id, history)
        if job.first:
            with tracing.span("db.query", "turn_context"):
                row = await persist(lambda: self._contexts(asks), give_up)
        else:
            with tracing.span("db.query", "turn_takeover"):
                row = await persist(lambda: self._row("turn_takeover", *asks.head, int(job.claim)), give_up)
        return _loaded(row)

    async def load_remembering(self, payload: TurnPayload, job: Claimed, history: int, sought: Sought) -> LoadedContext:
        """`load` for a job's first claim, with what is remembered. Tried once. Raises Unavailable.

        Nothing is searched for somebody unknown, so such turns share a statement. A search may take tens of
        milliseconds: nobody waits for another's.
        """
        asks = _Asks(payload.tenant, payload.job_id, job.run, payload.conversation_id, history, sought.text)
        with tracing.span("db.query", "turn_context_memory"):
            if sought.user_id is None:
                return _loaded(await self._contexts(asks))
            return _loaded(await self._row("turn_context_memory", *asks.head, sought.user_id, *sought.args))

    async def memory(self, payload: TurnPayload, history: int, sought: Sought) -> str:
        """What is remembered (JSON). Tried once. Raises Unavailable."""
        head = (payload.tenant, payload.conversation_id, sought.user_id, history)
        with tracing.span("db.query", "turn_memory"):
            memory: str = await self._pool.fetchval(queries["turn_memory"], *head, *sought.args)
        return memory

    async def claim_greeting(
        self, payload: TurnPayload, user_id: str, give_up: Callable[[], bool], *, admitted_us: int | None
    ) -> bool:
        """Whether this turn is the one that greets the user, who was not erased since it was admitted."""
        subjects = self._subjects.of_turn(payload.tenant, user_id, payload.conversation_id)
        admitted_us = _admitted_us(payload.job_id, admitted_us)
        args = (payload.tenant, user_id, payload.job_id, jsonb(subjects), admitted_us)
        return bool(await persist(lambda: self._pool.fetchval(queries["claim_greeting"], *args), give_up))

    async def end(self, tenant: str, end: TurnEnd, give_up: Callable[[], bool]) -> JobRecord:
        """The job's one end: this one, or that of whoever came first; or none, when its user was erased meanwhile: then
        the record says so, and nobody's words. Raises LeaseLost when it was taken over."""
        name = "commit_turn" if end.state == "succeeded" else "end_job"
        subjects = self._subjects.of_turn(tenant, end.user_id, end.conversation_id)
        ended = _Ended(tenant, msgspec.structs.replace(end, subjects=subjects))
        with tracing.span("db.query", name):
            if end.plain:
                key = (tenant, end.conversation_id)
                record = await persist(lambda: self._commits(ended, key), give_up)
            else:
                record = await persist(lambda: self._end_one(name, ended), give_up)
        if record is None:
            raise LeaseLost("the job was taken over by a later claim")
        return msgspec.json.decode(record, type=JobRecord)

    async def post(
        self, tenant: str, rows: list[LedgerRow], give_up: Callable[[], bool], *, admitted_us: int | None = None
    ) -> None:
        """Ledger rows of an attempt that did not end its job, which was admitted then; None: when its id was made."""
        if rows:
            text = jsonb([self.fenced(tenant, row, admitted_us) for row in rows])
            await persist(lambda: self._pool.fetchrow(queries["end_attempt"], tenant, text), give_up)

    async def book(
        self, tenant: str, rows: list[LedgerRow], give_up: Callable[[], bool], *, admitted_us: int | None = None
    ) -> dict[str, Amount]:
        """Adds rows of earlier attempts and says what the ledger has for them: theirs, where they came first."""
        text = jsonb([self.fenced(tenant, row, admitted_us) for row in rows])
        booked = await persist(lambda: self._pool.fetch(queries["book_calls"], tenant, text), give_up)
        return {row["call_id"]: Amount(row["cost_nano_usd"], row["tokens"]) for row in booked}

    def fenced(self, tenant: str, row: LedgerRow, admitted_us: int | None) -> dict[str, Any]:
        """A row as the books take it, with what tells whether its user was erased meanwhile: then they get the money
        alone."""
        subjects = self._subjects.of_turn(tenant, row.user_id, row.conversation_id)
        admitted_us = _admitted_us(row.job_id, admitted_us)
        return {**msgspec.structs.asdict(row), "subjects": subjects, "admitted_us": admitted_us}

    async def spent(self, tenant: str, conversation_id: str, give_up: Callable[[], bool]) -> Amount:
        """All that a conversation has ever cost."""
        query = queries["conversation_spent"]
        row = await persist(lambda: self._pool.fetchrow(query, tenant, conversation_id), give_up)
        if row is None:
            raise RuntimeError("conversation_spent returns one row")
        return Amount(row["cost_nano_usd"], row["tokens"])

    async def _row(self, query: str, *args: object) -> Row:
        row = await self._pool.fetchrow(queries[query], *args)
        if row is None:
            raise RuntimeError(f"{query} returns one row")
        return row

    async def _load_one(self, asks: _Asks) -> Row:
        (row,) = await self._load_all([asks])
        return row

    async def _load_all(self, asked: Sequence[_Asks]) -> list[Row]:
        rows = await self._pool.fetch(queries["turn_contexts"], jsonb(asked), RECALL_TOKENS, RECALL_HITS)
        return sorted(rows, key=lambda row: row["place"])

    async def _end_one(self, query: str, ended: _Ended) -> str | None:
        """The record as JSON; None when the job was taken over and has not ended yet."""
        record: str | None = (await self._row(query, ended.tenant, jsonb(ended.end)))["record"]
        return record

    async def _commit_one(self, ended: _Ended) -> str | None:
        return await self._end_one("commit_turn", ended)

    async def _commit_all(self, ended: Sequence[_Ended]) -> list[str | None]:
        by_tenant: defaultdict[str, list[TurnEnd]] = defaultdict(list)
        for tenant, end in sorted(ended, key=lambda each: each.tenant):  # one order for all: no two can deadlock
            by_tenant[tenant].append(end)
        rows = await self._pool.fetch(queries["commit_turns"], list(by_tenant), [*map(jsonb, by_tenant.values())])
        records: dict[str, str | None] = {row["job_id"]: row["record"] for row in rows}
        return [records[end.job_id] for _, end in ended]


def _loaded(row: Row | None) -> LoadedContext:
    if row is None:
        raise RuntimeError("a context is one row")
    ended = msgspec.json.decode(row["ended"], type=JobRecord) if row["ended"] else None
    messages = tuple(msgspec.json.decode(row["history"], type=list[Message]))
    settings = read_settings(row["settings"])
    known = row["spent_nano_usd"] is not None
    spent = Amount(row["spent_nano_usd"], row["spent_tokens"]) if known else None
    memory = row.get("memory")
    return LoadedContext(ended, row["conversation_user"], messages, row["tenant_known"], settings, spent, memory)


def _admitted_us(job_id: str, known_us: int | None) -> int:
    """When a job was admitted; where nobody knows, when its id was made."""
    return made_at_ms(job_id) * 1_000 if known_us is None else known_us


async def persist(statement: Callable[[], Awaitable[T]], give_up: Callable[[], bool]) -> T:
    """The statement's result, however long its server is away; Unavailable once `give_up()` says so."""
    delay_s = 0.05
    while True:
        try:
            return await statement()
        except Unavailable as error:
            if give_up():
                raise
            logger.warning("waiting: %s", error)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 2.0)
