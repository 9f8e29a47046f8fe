"""Dead jobs as one database role sees them: the books and the way back into the queue, wired."""

from collections.abc import Mapping
from dataclasses import dataclass

from agents.api import Agent
from ops.dead.books import DeadBooks
from ops.dead.edit import Editor
from ops.dead.requeue import Requeue
from ops.dead.retry import Retrier
from shared.config import Settings
from shared.db import Pool
from shared.redis import Commands


@dataclass(frozen=True, slots=True)
class Desk:
    books: DeadBooks
    retrier: Retrier

    @classmethod
    async def over(cls, pool: Pool, commands: Commands, settings: Settings, agents: Mapping[str, Agent]) -> "Desk":
        books = await DeadBooks.over(pool)
        return cls(books, Retrier(books, Requeue(commands, settings), Editor(settings, agents)))
