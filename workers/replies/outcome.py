"""What becomes of a reply after an attempt, and when the next one is made.

A failure is the message's or the provider's, and counted: seven more tries over six hours, as a chat is no mailbox.
Being too fast, or a channel that has to be mended, is neither: the reply is put off, in its place, for up to 28 hours.
"""

import random
import time
from typing import Literal

import msgspec

from shared.channels.api import Refused
from workers.delivery.outcome import JITTER, MOST_FAILURES, RETRY_AFTER_S
from workers.replies.claimed import ReplyState

ECHO_S = 30
"""For how long a status is waited for that tells whether a message arrived, before it is sent again."""
DOUBT_PAUSE_S = 5
"""The same where no status carries our reference."""
LONGEST_PAUSE_S = 3_600
PUT_OFF_FOR_S = sum(RETRY_AFTER_S)
PAUSE_LOOK_S = 60
"""A paused channel is tried again by a message after this; see `note_pause`."""

State = Literal["delivered", "pending", "retrying", "unknown", "parked", "failed"]


class ReplyEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON that `end_reply_attempt` takes; `latency_ms` is added to it."""

    state: State
    code: str | None = None
    """Stable, or the provider's own."""
    message: str | None = None
    """For people; holds no secret of ours."""
    status: int | None = None
    due_us: int | None = None
    counted: bool = False
    """As a failure of this reply."""
    put_off: bool = False
    logged: Literal["delivered", "failed", "unknown", "put_off"] | None = None
    """None: no request was made, there is nothing to log."""
    blame: bool = False
    """Whether it counts against the provider: for the breaker."""
    pause: bool = False
    slow_us: int = 0
    """Nothing at all through the channel for so long."""
    peer: str | None = None
    peer_us: int = 0
    """Nothing to that peer for so long."""


def delivered(*, resent: bool, status: int | None) -> ReplyEnd:
    if resent:
        words = "a message that may have arrived was sent again"
        return ReplyEnd(state="delivered", code="resent", message=words, status=status, logged="delivered")
    return ReplyEnd(state="delivered", status=status, logged="delivered")


def silent() -> ReplyEnd:
    return ReplyEnd(state="delivered", code="nothing_to_say", message="no message was needed", logged="delivered")


def waiting(wait_us: int) -> ReplyEnd:
    """For a pace of our own."""
    words = "the channel or the conversation is as fast as its provider allows"
    return ReplyEnd(state="pending", code="paced", message=words, due_us=_now_us() + wait_us, put_off=True)


def failed(code: str, message: str, *, status: int | None = None) -> ReplyEnd:
    """For good."""
    return ReplyEnd(state="failed", code=code, message=message, status=status, counted=True, logged="failed")


def held() -> ReplyEnd:
    return failed("held", "it may have arrived; `switchboard deliveries replay` sends it again")


def window_closed(failures: int) -> ReplyEnd:
    """Those behind it pass; it is tried again in case the user writes, by the schedule of webhooks."""
    words = "the user last wrote more than 24 h ago, and the channel has no template; it waits for the user to write"
    if failures >= len(RETRY_AFTER_S):
        return failed("window_closed", words)
    due_us = _now_us() + RETRY_AFTER_S[failures] * 1_000_000
    return ReplyEnd(state="parked", code="window_closed", message=words, due_us=due_us, counted=True, logged="failed")


def unusable(state: ReplyState, code: str, message: str) -> ReplyEnd:
    """The channel itself has to be mended: it is paused."""
    return _paused(state, code, message[:200], None)


def lost_postgres() -> ReplyEnd:
    due_us = _now_us() + 1_000_000
    return ReplyEnd(state="retrying", code="postgres", message="Postgres was away", due_us=due_us)


def unreached(failures: int, message: str) -> ReplyEnd:
    return _retried(failures, "no_connection", message)


def in_doubt(failures: int, code: str, message: str, *, status: int | None, echoes: bool) -> ReplyEnd:
    """Whether it was taken nobody can tell now."""
    pause_s = ECHO_S if echoes else DOUBT_PAUSE_S
    ended = failures >= MOST_FAILURES - 1
    return ReplyEnd(
        state="failed" if ended else "unknown",
        code=code,
        message=f"{message}; it may have arrived",
        status=status,
        due_us=None if ended else _now_us() + pause_s * 1_000_000,
        counted=True,
        logged="unknown",
        blame=True,
    )


def refused(refusal: Refused, state: ReplyState, *, failures: int, status: int, peer: str) -> ReplyEnd:
    """By its verdict; `template` and `unknown` are for the caller to see to."""
    if refusal.verdict == "limited":
        return _limited(refusal, state, status, peer)
    if refusal.verdict == "pause":
        return _paused(state, refusal.code, refusal.message[:200], status)
    if refusal.verdict == "retry":
        return _retried(failures, refusal.code, refusal.message[:200], status=status, after_s=refusal.after_s)
    return failed(refusal.code, refusal.message[:200], status=status)


def _limited(refusal: Refused, state: ReplyState, status: int, peer: str) -> ReplyEnd:
    """As long as the provider says, else 4^n s, which Meta asks for. Nobody's fault, and nothing is dropped for it."""
    pause_s = min(refusal.after_s or 4.0 ** min(state.put_off + 1, 6), LONGEST_PAUSE_S)
    if (over := _given_up(state, refusal.code, refusal.message[:200], status)) is not None:
        return over
    pause_us = round(pause_s * 1_000_000)
    return ReplyEnd(
        state="pending",
        code=refusal.code,
        message=refusal.message[:200],
        status=status,
        due_us=_now_us() + pause_us,
        put_off=True,
        logged="put_off",
        slow_us=pause_us if refusal.everyone else 0,
        peer=None if refusal.everyone else peer,
        peer_us=pause_us,
    )


def _paused(state: ReplyState, code: str, message: str, status: int | None) -> ReplyEnd:
    return _given_up(state, code, message, status) or ReplyEnd(
        state="pending",
        code=code,
        message=message,
        status=status,
        due_us=_now_us() + PAUSE_LOOK_S * 1_000_000,
        put_off=True,
        logged="put_off",
        pause=True,
    )


def _given_up(state: ReplyState, code: str, message: str, status: int | None) -> ReplyEnd | None:
    since_us = state.put_off_since_us
    if since_us is None or _now_us() - since_us < PUT_OFF_FOR_S * 1_000_000:
        return None
    return failed(code, message, status=status)


def _retried(
    failures: int, code: str, message: str, *, status: int | None = None, after_s: float | None = None
) -> ReplyEnd:
    """After 4^n s, and not before the provider wants it."""
    ended = failures >= MOST_FAILURES - 1
    pause_s = 4.0 ** (failures + 1) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load
    pause_s = max(pause_s, min(after_s or 0.0, LONGEST_PAUSE_S))
    return ReplyEnd(
        state="failed" if ended else "retrying",
        code=code,
        message=message,
        status=status,
        due_us=None if ended else _now_us() + round(pause_s * 1_000_000),
        counted=True,
        logged="failed",
        blame=True,
    )


def _now_us() -> int:
    return time.time_ns() // 1_000
