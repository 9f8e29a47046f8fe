"""The load stage of an agent with memory: what is remembered comes with the context, in the same statement.

The message is turned into a vector first, where there is an embedder. None of it may cost the reply: an embedder that
is late leaves the search by words, a recall that fails or takes too long leaves the recent messages; the job says so.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar, runtime_checkable

import asyncpg
import msgspec
import structlog

from shared.errors import Unavailable
from shared.tenants import TenantSettings
from workers.context.remembered import read_memory
from workers.turn.spending import Money, Spending
from workers.turn.store import LoadedContext, Sought, TurnStore
from workers.turn.work import Work

log = structlog.get_logger("turn")
T = TypeVar("T")

DEADLINE_S = 1.0
"""Of the statement that recalls; then the turn goes on without."""
_TENANTS = 1_024


@runtime_checkable
class Vector(Protocol):
    """What is said, as a point among what was said; `literal` is the text of a halfvec."""

    @property
    def model_id(self) -> int: ...

    @property
    def literal(self) -> str: ...


class NoVector(Protocol):
    """Why there is none: `late`, `failed`, `budget`; `no_model` where nobody wants one."""

    @property
    def reason(self) -> str: ...


class Embedding(Protocol):
    """Makes vectors of questions, within a deadline of its own, and books what that costs. Never raises a failure."""

    async def embed_query(self, work: Work, spending: Spending, text: str) -> Vector | NoVector: ...


class Recollection:
    """One per worker."""

    def __init__(self, store: TurnStore, money: Money, embedding: Embedding | None) -> None:
        self._store, self._money, self._embedding = store, money, embedding
        self._settings: dict[str, TenantSettings] = {}
        """Of tenants, as their last turn here found them: the vector's budget is asked before the statement tells."""

    async def load(self, work: Work, history: int, give_up: Callable[[], bool]) -> LoadedContext:
        """The context of a job's first claim, and into `work` what is remembered."""
        sought = await self._sought(work, give_up)
        loaded = await self._bounded(
            work, lambda: self._store.load_remembering(work.payload, work.job, history, sought)
        )
        if loaded is None:
            loaded = await self._store.load(work.payload, work.job, history, give_up)
        self._note(work.payload.tenant, loaded.settings)
        self._keep(work, loaded.memory)
        return loaded

    async def recall(self, work: Work, history: int, give_up: Callable[[], bool]) -> None:
        """The same for a later claim, whose context is there: only then is it known that the job goes on."""
        sought = await self._sought(work, give_up)
        memory = await self._bounded(work, lambda: self._store.memory(work.payload, history, sought))
        self._keep(work, memory)

    async def _sought(self, work: Work, give_up: Callable[[], bool]) -> Sought:
        question = work.question.replace("\0", " ")  # Postgres takes no such sign
        if self._embedding is None or work.user_id is None:
            return Sought(work.user_id, question)
        known, work.settings = work.settings, self._settings.get(work.payload.tenant, work.settings)
        spending = Spending(work, self._money, self._store, give_up)
        vector = await self._embedding.embed_query(work, spending, question)
        await spending.settled()
        work.settings = known
        if isinstance(vector, Vector):
            return Sought(work.user_id, question, vector.model_id, vector.literal)
        if vector.reason != "no_model":
            work.context |= {"recall": "words_only", "why": vector.reason}
        return Sought(work.user_id, question)

    async def _bounded(self, work: Work, statement: Callable[[], Awaitable[T]]) -> T | None:
        """None where the turn must do without; a server that is away is left to the statement it cannot do without."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await statement()
        except (TimeoutError, Unavailable):
            work.context |= {"recall": "none", "why": "late"}
        except asyncpg.PostgresError as error:
            log.error("turn.not_recalled", fault=str(error))  # noqa: TRY400 - the turn goes on
            work.context |= {"recall": "none", "why": "failed"}
        return None

    def _keep(self, work: Work, memory: str | None) -> None:
        """`memory` None: there is none, or not in time."""
        if memory is None:
            return
        try:
            work.remembered = read_memory(memory)
        except msgspec.MsgspecError as error:
            log.error("turn.not_recalled", fault=str(error))  # noqa: TRY400 - the turn goes on
            work.context |= {"recall": "none", "why": "failed"}

    def _note(self, tenant: str, settings: TenantSettings) -> None:
        if tenant not in self._settings and len(self._settings) >= _TENANTS:
            self._settings.pop(next(iter(self._settings)))
        self._settings[tenant] = settings
