"""The one value a turn's stages share, and what may come out of answering it."""

import time
import traceback
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from agents.api import NOTHING, Agent, Message, Remembered, Reply
from shared.errors import SwitchboardError
from shared.jobs import Degraded, JobError, JobRecord
from shared.tenants import TenantSettings
from shared.wire import TurnPayload
from workers.ledger.book import Amount, LedgerRow
from workers.queue.scripts import Claimed
from workers.turn import taken_in
from workers.turn.taken_in import TakenIn

MAX_TRACEBACK_CHARS = 16_000


class AttemptError(msgspec.Struct, frozen=True):
    """Why one attempt failed, as kept with the job."""

    attempt: int
    code: str
    message: str
    at_us: int | None = None
    """None for an attempt whose worker vanished."""


@dataclass(slots=True)
class Work:
    """One attempt at one turn. `rows` are the ledger rows of its calls."""

    job: Claimed
    payload: TurnPayload
    agent: Agent | None
    user_id: str | None = None
    history: tuple[Message, ...] = ()
    rows: dict[str, LedgerRow] = field(default_factory=dict)
    errors: list[AttemptError] = field(default_factory=list)
    taken_in: tuple[TakenIn, ...] = ()
    """Earlier messages that this turn answers, or knows of because it interrupted them; oldest first."""
    settings: TenantSettings = field(default_factory=TenantSettings)
    """The tenant's, from load on."""
    spent: Amount | None = None
    """By the conversation before this turn; None: not known here."""
    remembered: Remembered = NOTHING
    """What is known beyond the recent messages, for an agent with memory."""
    greeting: str | None = None
    """Stands before this turn's reply."""
    context: dict[str, Any] = field(default_factory=dict)
    """What the turn was answered without, of what it should have seen; empty when it saw everything."""
    record: JobRecord | None = None
    """How this attempt ended its job."""
    retried: JobError | None = None
    """Why another attempt follows."""
    raw_payload: str | None = None
    """The payload as it stands in Redis, where it could not be read."""

    @property
    def question(self) -> str:
        """All that is to be answered."""
        return "\n\n".join([*self.payload.before, *taken_in.merged_texts(self.taken_in), self.payload.message])

    @property
    def bounded(self) -> bool:
        """Whether the caller bounds the reply: reasoning is then part of it, as with OpenAI."""
        return self.payload.asked is not None and self.payload.asked.max_output_tokens is not None

    @property
    def merged(self) -> list[TakenIn]:
        """Earlier messages that are answered with this one."""
        return [earlier for earlier in self.taken_in if earlier.state == "merged"]

    @property
    def interrupted(self) -> tuple[Message, ...]:
        """What was said just before and is not answered any more."""
        return tuple(
            Message("user", earlier.payload.message) for earlier in self.taken_in if earlier.state == "cancelled"
        )

    def note_left_out(self, messages: int, *, cut: bool) -> None:
        """Earlier messages that the prompt had no room for, and whether it had none for all of the newest one."""
        if messages:
            self.context["left_out"] = messages
        if cut:
            self.context["cut"] = True

    def postable(self) -> list[LedgerRow]:
        """Rows for the books: all but those of calls that were never sent."""
        return [row for row in self.rows.values() if row.status != "unsent"]

    def earlier_errors(self) -> list[AttemptError]:
        """One for every attempt before this one; those that said nothing were killed with their worker."""
        told = msgspec.json.decode(self.job.errors, type=list[AttemptError]) if self.job.errors else []
        by_attempt = {error.attempt: error for error in told}
        lost = "its worker stopped without a word"
        return [
            by_attempt.get(attempt, AttemptError(attempt, "worker_lost", lost))
            for attempt in range(1, self.job.attempt)
        ]


@dataclass(frozen=True, slots=True)
class Done:
    reply: Reply
    degraded: Degraded | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    after_s: float
    error: JobError


@dataclass(frozen=True, slots=True)
class Failed:
    """Over without a reply: `state` is dead, cancelled or rejected."""

    state: str
    error: JobError
    traceback: str | None = None


Outcome: TypeAlias = Done | Retry | Failed


def job_error(error: BaseException) -> JobError:
    """An exception as its job shows it: our own say what happened, others only that something did."""
    if isinstance(error, SwitchboardError):
        return JobError(error.code, str(error), error.retryable)
    return JobError("internal_error", f"the agent failed ({type(error).__name__})", retryable=True)


def traceback_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-MAX_TRACEBACK_CHARS:]


def now_us() -> int:
    return time.time_ns() // 1_000
