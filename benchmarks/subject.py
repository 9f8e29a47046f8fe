"""What is measured: the three ways a job can go through the queue, and one worker process of each.

Driver and worker process both import this; a `WorkerSpec` travels between them as one JSON argument.
"""

from collections.abc import Iterable
from enum import StrEnum

import msgspec
from redis.asyncio import Connection, ConnectionPool

from shared.redis.link import Link, Reply

PLAIN_FUNCTION = "work"
"""Name of the job function for arq's own client."""


class Subject(StrEnum):
    """Who accepts the job and who runs it."""

    STOCK = "stock"
    """arq's `enqueue_job`, arq's `Worker`."""
    PLAIN = "plain"
    """arq's `enqueue_job`, our worker: like for like."""
    TURNS = "turns"
    """Our admission and our worker, as chat turns go: with order, TTL, record and events."""


OURS = (Subject.TURNS, Subject.PLAIN)


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process."""

    subject: Subject
    url: str
    slots: int = 10
    poll_s: float = 0.5
    """Stock arq's pause between looks at the queue; 0.5 is its default. Ours looks as seldom as in production."""
    lease_s: float = 4.0
    job_timeout_s: float = 300.0
    """Stock arq's locks live 10 s longer than this."""
    grace_s: int = 0
    profile: str = ""
    """File for a cProfile of the whole process; its figures are then worthless as such."""


_link_send = Link.send


def _counted_send(link: Link, packed: Iterable[bytes], replies: Iterable[Reply]) -> None:
    CountingConnection.sends += 1
    _link_send(link, packed, replies)


class CountingConnection(Connection):
    """Counts what this process sends, by `Commands` too: one send is one round trip, whatever it carries."""

    sends = 0

    @staticmethod
    def count(pool: ConnectionPool) -> None:
        """From now on `pool`'s connections, of whatever class, are counted too."""
        pool.connection_class = type("Counted", (CountingConnection, pool.connection_class), {})
        Link.send = _counted_send  # type: ignore[method-assign, assignment]

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        CountingConnection.sends += 1
        await super().send_packed_command(command, check_health)
