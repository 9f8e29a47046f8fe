"""Sends a stream at the pace a rule asks for, and keeps the count of what has left.

Frames that are due at the same moment leave together: without a pace, a whole stream is one write. Tokens are counted
as they leave, so that a stream that ends early is booked with what the caller was sent.
"""

import asyncio
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ops.standin.behaviour import Rule
from ops.standin.books import OpenCall
from ops.standin.caller import Caller


class Frame(NamedTuple):
    """One server-sent event, or several that are never apart."""

    data: bytes
    tokens: int = 0
    final: bool = False
    """The caller has the whole answer with this one."""


def until(frames: Iterable[Frame], limit_tokens: int) -> Iterator[Frame]:
    """The frames up to and with the one that reaches `limit_tokens`; never the final one."""
    sent = 0
    for frame in frames:
        if sent >= limit_tokens or frame.final:
            return
        yield frame
        sent += frame.tokens


class _Pace:
    """When frames are due: the head at once, the first token after `ttft_ms`, then `tokens_per_s`.

    Times are counted from the first token, not from frame to frame, so that lateness does not add up.
    """

    def __init__(self, rule: Rule) -> None:
        self._clock = asyncio.get_running_loop().time
        self._ttft_s = rule.ttft_ms / 1000
        self._token_s = 0.0 if rule.tokens_per_s is None else 1 / rule.tokens_per_s
        self._first_due: float | None = None
        self._tokens = 0

    def wait_s(self, frame: Frame) -> float:
        """How long to wait before `frame`, which must be the next one; not positive when it is due."""
        now = self._clock()
        if self._first_due is None:
            if not frame.tokens:
                return 0
            self._first_due = now + self._ttft_s
        due = self._first_due + self._tokens * self._token_s
        self._tokens += frame.tokens
        return due - now


async def deliver(frames: Iterable[Frame], rule: Rule, caller: Caller, call: OpenCall) -> bool:
    """Send the frames; closes the books with the final one. False when the caller left before the end."""
    pace = _Pace(rule) if rule.ttft_ms or rule.tokens_per_s else None
    batch: list[Frame] = []
    for frame in frames:
        if pace is not None and (wait_s := pace.wait_s(frame)) > 0:
            await _flush(batch, caller, call)
            if await caller.gone_within(wait_s):
                return False
        batch.append(frame)
    await _flush(batch, caller, call)
    return True


async def _flush(batch: list[Frame], caller: Caller, call: OpenCall) -> None:
    if not batch:
        return
    call.sent_tokens += sum(frame.tokens for frame in batch)
    final = batch[-1].final
    if final:
        call.close("served")
    data = b"".join(frame.data for frame in batch)
    batch.clear()
    await caller.send(data, more=not final)
