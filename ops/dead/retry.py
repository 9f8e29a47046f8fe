"""Retrying a dead job: the same id and bills, one run more.

The order is: lock its row, put the job into Redis, mark the row, commit. A crash after the second step leaves a job
that runs and a row that still says `open`; asking again changes nothing in Redis and marks it, and once the new run has
ended the row counts as retried by itself. A job is marked and does not run only if Redis loses it; it may be retried
again then.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import assert_never

import msgspec

from ops.dead.books import DeadBooks, DeadFilter, LockedDead, Position
from ops.dead.edit import Edit, Editor
from ops.dead.requeue import Requeue, Requeued
from shared.db import jsonb
from shared.errors import Conflict, NotFound, QueueFull, SwitchboardError
from shared.wire import TurnPayload

FULL_RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """`repeated`: this retry was asked for before, and nothing was changed now."""

    job_id: str
    tenant: str
    run: int
    place: int
    repeated: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """One job of a bulk retry that was left as it is."""

    job_id: str
    tenant: str
    error: SwitchboardError


class Retrier:
    def __init__(self, books: DeadBooks, requeue: Requeue, editor: Editor) -> None:
        self._books, self._requeue, self._editor = books, requeue, editor

    async def retry(self, tenant: str | None, job_id: str, *, position: Position, by: str, edit: Edit) -> Retried:
        """Raises NotFound, Conflict (live, discarded, a later run exists, unreadable), InvalidRequest (the edit),
        QueueFull or Unavailable; the job is then as before."""
        async with self._books.locked(tenant, job_id) as lock:
            dead = lock.dead
            _check(dead)
            original = _payload(dead)
            payload = self._editor.apply(edit, original)
            requeued = await self._requeue(
                payload, run=dead.run + 1, user_id=dead.user_id, created_us=dead.created_us, position=position
            )
            repeated = _repeated(requeued)
            if not (repeated and dead.disposition == "retried"):
                await lock.mark_retried(by, position, None if payload == original else jsonb(payload))
            return Retried(job_id=job_id, tenant=dead.tenant, run=dead.run + 1, place=requeued.place, repeated=repeated)

    async def retry_next(
        self, wanted: DeadFilter, after: str | None, limit: int, *, position: Position, by: str
    ) -> AsyncIterator[Retried | Refusal]:
        """Up to `limit` open jobs after the job `after`, as they were accepted. Stops, raising, only when nothing more
        can be retried now (QueueFull, Unavailable)."""
        for tenant, job_id in await self._books.open_after(wanted, after, limit):
            try:
                yield await self.retry(tenant, job_id, position=position, by=by, edit=Edit())
            except (Conflict, NotFound) as error:
                yield Refusal(job_id, tenant, error)


def _check(dead: LockedDead) -> None:
    if dead.disposition == "discarded":
        raise Conflict("The job was discarded.", code="dead_job_discarded")
    if dead.superseded:
        raise _newer()


def _payload(dead: LockedDead) -> TurnPayload:
    try:
        return msgspec.json.decode(dead.payload or "null", type=TurnPayload)
    except msgspec.MsgspecError as error:
        raise Conflict("The payload of this job cannot be read.", code="payload_unreadable") from error


def _repeated(requeued: Requeued) -> bool:
    match requeued.outcome:
        case "queued":
            return False
        case "repeated":
            return True
        case "live":
            raise Conflict("The job is on its way: it waits or runs.", code="job_live")
        case "newer":
            raise _newer()
        case "full":
            raise QueueFull("The queue is full; try again later.", retry_after_s=FULL_RETRY_AFTER_S)
        case _:
            assert_never(requeued.outcome)


def _newer() -> Conflict:
    return Conflict("A later run of the job has ended; look at it first.", code="job_has_newer_run")
