"""Where a request with `previous_response_id` belongs: in that response's conversation, or in a branch of it.

The newest response of a conversation is gone on with. From any other one a new conversation branches off: it begins
with what had been said until then, as messages given along. Two requests at once that name the same response make one
of each: a mark in Redis says who goes on, until its job stands behind the response, where the next one sees it.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from msgspec.structs import replace

from ingress.openai.parsing import Question
from ingress.state import Ingress
from shared import keys
from shared.errors import Conflict, Unavailable
from shared.ids import uuid7
from shared.jobs import JobRecord
from shared.responses import response_id
from shared.scripts import Idempotency
from shared.wire import Said

MARK_MS = 30_000
"""Longer than an admission takes. Of a process that is killed in one; else the mark goes with it."""
MOST_MESSAGES = 40
MOST_CHARS = 100_000
"""What a branch takes along at most, the newest first; a turn shows its model fewer."""


class Place(NamedTuple):
    conversation_id: str
    brought: list[Said] = []  # noqa: RUF012 - nothing changes it
    """What a branch begins with; of a request that goes on, nothing."""
    user_id: str | None = None
    """Whose the branch is: its conversation has no owner yet."""


@asynccontextmanager
async def place_of(
    ingress: Ingress, previous: JobRecord, user_id: str | None, repeat: Idempotency
) -> AsyncIterator[Place]:
    """The request's place, ours while the block lasts, in which it is admitted.

    Raises Conflict for a user who is not the conversation's, and when there is a branch to be made of a response that
    is not over; Unavailable when Postgres is needed and away.
    """
    answered = previous.merged_into or previous.id
    run, mark = ingress.commands.run, keys.following(previous.tenant, answered)
    seen, ours, tail = await asyncio.gather(  # one write, run in this order
        run("GET", keys.idempotency(previous.tenant, repeat.digest)),
        run("SET", mark, "1", "NX", "PX", MARK_MS),
        run("LINDEX", keys.conversation(previous.tenant, previous.conversation_id), -1),
    )
    try:
        if seen is not None and repeat.mode in ("key", "sdk-retry"):
            yield Place(previous.conversation_id)  # the first try has its place
        elif ours and tail == answered.encode():
            yield Place(previous.conversation_id)
        else:
            yield await _by_the_books(ingress, previous, answered, user_id, newest=bool(ours) and tail is None)
    finally:
        if ours:
            await run("DEL", mark)


async def _by_the_books(
    ingress: Ingress, previous: JobRecord, answered: str, user_id: str | None, *, newest: bool
) -> Place:
    """`newest`: nothing in Redis stands behind it."""
    if not previous.over:
        raise Conflict(
            f"'{response_id(previous.id)}' was gone on from already; a branch can be made once it is over.",
            code="previous_response_not_over",
        )
    point = await ingress.archive.branch_point(previous.tenant, answered, branch=not newest, most=MOST_MESSAGES)
    if point is None:
        raise Unavailable("the previous response is still on its way to Postgres")
    if newest and point.newest:
        return Place(previous.conversation_id)
    if user_id is not None and previous.user_id is not None and user_id != previous.user_id:
        raise Conflict("This conversation belongs to another user.", code="conversation_owner", status=422)
    return Place(uuid7(), _bounded(point.said), previous.user_id)


def at_place(question: Question, place: Place) -> Question:
    """The question as it is asked there."""
    asked = replace(question.asked, given=[*place.brought, *question.asked.given], branched=len(place.brought))
    return dataclasses.replace(question, asked=asked, user_id=question.user_id or place.user_id)


def _bounded(said: Sequence[Said]) -> list[Said]:
    """The newest that fit, from a message of the user on."""
    left, kept = MOST_CHARS, list[Said]()
    for each in reversed(said):
        left -= len(each.content)
        if left < 0:
            break
        kept.append(each)
    while kept and kept[-1].role != "user":
        kept.pop()
    return kept[::-1]
