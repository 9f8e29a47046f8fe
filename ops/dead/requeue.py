"""Typed stub of shared/lua/retry_dead.lua: an ended job becomes its own next run, in one round trip."""

import hashlib
import time
from dataclasses import dataclass
from typing import Literal

import msgspec

from ops.dead.books import Position
from shared import keys
from shared.config import Settings
from shared.redis import Argument, Commands
from shared.scripts import Script
from shared.wire import TurnPayload, encode_turn

_retry_dead = Script("retry_dead")

Outcome = Literal["queued", "repeated", "live", "newer", "full"]
"""`repeated`: this very retry has put it there before. `newer`: the run to start has ended already."""


@dataclass(frozen=True, slots=True)
class Requeued:
    outcome: Outcome
    place: int
    """In its conversation; 0 is the head."""


class Requeue:
    def __init__(self, commands: Commands, settings: Settings) -> None:
        self._commands, self._settings = commands, settings

    async def __call__(
        self, payload: TurnPayload, *, run: int, user_id: str | None, created_us: int, position: Position
    ) -> Requeued:
        """Start run `run` of the job. Repeating the call is safe. Raises Unavailable."""
        names = [
            keys.queue(payload.queue),
            keys.job(payload.job_id),
            keys.arq_job(payload.job_id),
            keys.conversation(payload.tenant, payload.conversation_id),
        ]
        argv: list[Argument] = [
            payload.job_id,
            run,
            encode_turn(payload, enqueued_ms=time.time_ns() // 1_000_000),
            self._settings.ttl_s * 1000,
            self._settings.max_queue_depth,
            position,
            _mark(payload, position),
            created_us,
            *_record_fields(payload, user_id),
        ]
        outcome, place = await _retry_dead(self._commands, names, argv)
        return Requeued(outcome.decode(), place)


def _mark(payload: TurnPayload, position: Position) -> str:
    """The same for the same retry, whoever asks for it and when."""
    return hashlib.sha256(msgspec.json.encode((payload, position), order="deterministic")).hexdigest()


def _record_fields(payload: TurnPayload, user_id: str | None) -> list[Argument]:
    fields: list[Argument] = ["tenant", payload.tenant, "agent", payload.agent, "conv", payload.conversation_id]
    fields += ["user", payload.user_id or user_id or ""]
    if payload.metadata:
        fields += ["metadata", msgspec.json.encode(payload.metadata)]
    if payload.asked is not None:
        fields += ["asked", msgspec.json.encode(payload.asked.shown())]
    return fields
