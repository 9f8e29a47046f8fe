"""Messages that a turn took in before it was started: merged into it, or interrupted by it.

Admission decided which (shared/lua/admit.lua); they were accepted like any other, so they end in the books too, with
the turn that took them in and in its one transaction.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from shared.jobs import JobError
from shared.wire import Asked, TurnPayload, decode_turn

logger = logging.getLogger("switchboard.turn")

_INTERRUPTED = JobError("cancelled", "interrupted by a newer message")


@dataclass(frozen=True, slots=True)
class Survivor:
    """The end of the turn that took them in. `user_id` is whom the conversation belongs to."""

    job_id: str
    state: str
    error: JobError | None
    user_id: str | None
    finished_us: int


class TakenIn(msgspec.Struct, frozen=True):
    """`state` is `merged` or `cancelled`; times are Unix µs."""

    state: str
    created_us: int
    taken_us: int
    payload: TurnPayload


class TakenInEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The end of such a job as JSON for Postgres; the names are sql/migrations' own."""

    job_id: str
    state: str
    merged_into: str | None
    agent: str
    queue: str
    conversation_id: str
    user_id: str | None
    message: str
    metadata: dict[str, object]
    domain: str | None
    feature: str | None
    callback_url: str | None
    asked: Asked | None
    error: JobError | None
    created_us: int
    finished_us: int
    payload: TurnPayload | None
    """Kept for inspection and retry."""
    run: int = 1
    attempts: int = 0


def read(entries: Sequence[bytes], turn: TurnPayload) -> tuple[TakenIn, ...]:
    """Entries of `sb:taken:<id>`, for the job of `turn`.

    One whose payload cannot be read (another version wrote it) ends as well, but nobody will know what it said.
    """
    return tuple(_read(entry, turn) for entry in entries)


def _read(entry: bytes, turn: TurnPayload) -> TakenIn:
    state, job_id, created_us, taken_us, raw = entry.split(b" ", 4)
    try:
        payload = decode_turn(raw)
    except msgspec.MsgspecError:
        logger.exception("message %s cannot be read: it is lost to the turn that took it in", job_id.decode())
        payload = msgspec.structs.replace(turn, job_id=job_id.decode(), message="", metadata={})
    return TakenIn(state.decode(), int(created_us), int(taken_us), payload)


def merged_texts(taken: Sequence[TakenIn]) -> list[str]:
    """What was said in the messages that are answered with this one."""
    return [one.payload.message for one in taken if one.state == "merged" and one.payload.message]


def kept(turn: TurnPayload, taken: Sequence[TakenIn]) -> TurnPayload:
    """The payload as a later run needs it: its whole question."""
    texts = merged_texts(taken)
    if not texts:
        return turn
    changed = msgspec.structs.replace(turn, before=[*turn.before, *texts])
    given = [said for one in taken if one.state == "merged" and one.payload.asked for said in one.payload.asked.given]
    if given:
        asked = turn.asked or Asked()
        changed = msgspec.structs.replace(changed, asked=msgspec.structs.replace(asked, given=[*given, *asked.given]))
    return changed


def ends(taken: Sequence[TakenIn], end: Survivor) -> list[TakenInEnd]:
    """What becomes of them with their survivor.

    A rejected survivor was never part of the conversation. Merged ones were not to blame for it: each is rejected
    by itself, with its payload kept, so that it can be retried by itself.
    """
    return [_end(one, end) for one in taken]


def _end(one: TakenIn, end: Survivor) -> TakenInEnd:
    merged = one.state == "merged"
    refused = merged and end.state == "rejected"
    return TakenInEnd(
        job_id=one.payload.job_id,
        state="rejected" if refused else one.state,
        merged_into=end.job_id if merged and not refused else None,
        agent=one.payload.agent,
        queue=one.payload.queue,
        conversation_id=one.payload.conversation_id,
        user_id=one.payload.user_id or end.user_id,
        message=one.payload.message,
        metadata=one.payload.metadata,
        domain=one.payload.domain,
        feature=one.payload.feature,
        callback_url=one.payload.callback_url,
        asked=one.payload.asked and one.payload.asked.kept(),
        error=(end.error if refused else None) if merged else _INTERRUPTED,
        created_us=one.created_us,
        finished_us=end.finished_us if merged else one.taken_us,
        payload=one.payload if refused else None,
    )
