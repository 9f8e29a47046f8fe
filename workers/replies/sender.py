"""One attempt at one reply: cut into messages, each sent in its turn and noted before the next one.

A message is `sending` in Postgres before its request and `sent` with the provider's id after it. So whoever takes a
reply up again goes on where it stopped; only what was under way at a crash is in doubt (decisions/0026).
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from shared.channels.api import Outgoing, Refused, Sent
from shared.errors import Unavailable
from shared.jobs import JobRecord
from workers.replies import outcome
from workers.replies.books import Ended, Leave, PartBooks
from workers.replies.claimed import Form, Part, ReplyState
from workers.replies.opened import Channels, OpenChannel, Unusable
from workers.replies.outcome import ReplyEnd
from workers.replies.provider import Answered, Cut, Provider, Unreached
from workers.replies.words import words_of

log = structlog.get_logger("delivery")


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that is ours to send, and is a reply."""

    id: str
    tenant: str
    body: dict[str, Any]
    """The job's record."""
    attempt: int
    failures: int
    """Before this attempt."""
    reply: ReplyState


@dataclass(slots=True)
class _Attempt:
    """What an attempt knows."""

    claim: Claim
    channel: OpenChannel
    details: dict[str, Any]
    """Of the message that is answered: where the reply goes."""
    parts: list[Part]
    status: int | None = None
    """The last one heard."""
    resent: bool = False
    """By this attempt."""

    def left(self) -> list[Part]:
        return [part for part in self.parts if part.state != "sent"]


class ReplySender:
    def __init__(self, channels: Channels, books: PartBooks, provider: Provider) -> None:
        self._channels, self._books, self._provider = channels, books, provider

    async def __call__(self, claim: Claim) -> ReplyEnd:
        """What became of it. Raises Unavailable when Postgres is away for longer than the lease."""
        if claim.reply.channel is None:
            return outcome.failed("channel_removed", "the channel was removed")
        try:
            channel = self._channels.open(claim.tenant, claim.reply.channel)
        except Unusable as error:
            log.error("channel_unusable", channel=claim.reply.channel.id, code=error.code, fault=str(error))  # noqa: TRY400 - no fault of this code
            return outcome.unusable(claim.reply, error.code, str(error))
        record = msgspec.convert(claim.body, JobRecord)
        details = record.metadata.get("channel")
        if not isinstance(details, dict):
            return outcome.failed("unsendable", "the job does not say where its reply goes")
        attempt = _Attempt(claim, channel, details, [*claim.reply.parts])
        try:
            return await self._sent(attempt, record)
        except (KeyError, ValueError, TypeError) as error:  # details of another kind, or what no request can carry
            log.exception("delivery.unsendable", delivery=claim.id)
            return outcome.failed("unsendable", f"it cannot be put into a request: {type(error).__name__}")

    async def _sent(self, attempt: _Attempt, record: JobRecord) -> ReplyEnd:
        try:
            end = await self._planned(attempt, record)
        except Unavailable:
            return outcome.lost_postgres()
        while end is None and (left := attempt.left()):
            end = await self._part(attempt, left[0])
        if end is not None:
            return end
        resent = attempt.resent or any(part.resent for part in attempt.claim.reply.parts)
        return outcome.delivered(resent=resent, status=attempt.status)

    # --- cutting ------------------------------------------------------------------------------------------------

    async def _planned(self, attempt: _Attempt, record: JobRecord) -> ReplyEnd | None:
        """Cut as an earlier attempt has cut it; anew what is left of it when only a template may be sent now."""
        closed = _window_is_closed(attempt, record)
        if not attempt.parts:
            text = words_of(record, attempt.channel.settings)
            if not text.strip():
                return outcome.silent()
            if not closed:
                return await self._cut(attempt, "text", text)
            return await self._as_template(attempt, text)
        left = attempt.left()
        if closed and left and left[0].form == "text" and left[0].state == "waiting":
            return await self._as_template(attempt, "\n\n".join(part.text for part in left))
        return None

    async def _as_template(self, attempt: _Attempt, text: str) -> ReplyEnd | None:
        if not attempt.channel.adapter.has_template(attempt.channel.settings):
            return outcome.window_closed(attempt.claim.failures)
        return await self._cut(attempt, "template", text)

    async def _cut(self, attempt: _Attempt, form: Form, text: str) -> ReplyEnd | None:
        channel, claim = attempt.channel, attempt.claim
        texts = channel.adapter.cut(text, channel.settings, template=form == "template")
        sent = [part for part in attempt.parts if part.state == "sent"]
        first = len(sent) + 1
        if not await self._books.plan(claim.tenant, claim.id, claim.attempt, first, form, texts):
            return _lost()
        new = [Part(part=number, form=form, text=each) for number, each in enumerate(texts, first)]
        attempt.parts = [*sent, *new]
        return None

    # --- sending ------------------------------------------------------------------------------------------------

    async def _part(self, attempt: _Attempt, part: Part) -> ReplyEnd | None:
        """None: it is sent, or what is left was cut anew; on with the next."""
        channel = attempt.channel
        outgoing = _outgoing(attempt, part)
        call = channel.adapter.render(outgoing, channel.settings, channel.credentials, base_url=channel.base_url)
        try:
            leave = await self._asked(attempt, part)
        except Unavailable:  # it may be `sending` now, though nothing was sent
            await self._ended(attempt, part, "waiting" if part.state == "waiting" else "unknown")
            return outcome.lost_postgres()
        if leave.outcome == "sent":
            _settle(attempt, part)
            return None
        if leave.outcome != "go":
            return _kept_back(leave)
        await asyncio.sleep(leave.wait_us / 1_000_000)
        heard = await self._provider.send(call)
        if isinstance(heard, Answered):
            return await self._judged(attempt, part, heard)
        return await self._unheard(attempt, part, heard)

    async def _asked(self, attempt: _Attempt, part: Part) -> Leave:
        claim, channel = attempt.claim, attempt.channel
        return await self._books.begin(
            claim.tenant,
            claim.id,
            claim.attempt,
            part.part,
            channel=channel.id,
            hold=channel.settings.in_doubt == "hold",
            paces=channel.adapter.paces(attempt.details, channel.settings),
        )

    async def _ended(self, attempt: _Attempt, part: Part, state: Ended, message_id: str | None = None) -> None:
        claim = attempt.claim
        await self._books.end(claim.tenant, claim.id, claim.attempt, part.part, state, message_id)

    async def _judged(self, attempt: _Attempt, part: Part, heard: Answered) -> ReplyEnd | None:
        claim, adapter = attempt.claim, attempt.channel.adapter
        attempt.status = heard.status
        verdict = adapter.judge(heard.status, heard.headers, heard.body)
        if isinstance(verdict, Sent):
            await self._ended(attempt, part, "sent", verdict.message_id)
            attempt.resent |= part.state != "waiting"
            _settle(attempt, part)
            return None
        if verdict.verdict == "unknown":
            await self._ended(attempt, part, "unknown")
            said = f"answered {heard.status}"
            return outcome.in_doubt(claim.failures, verdict.code, said, status=heard.status, echoes=adapter.echoes)
        await self._ended(attempt, part, "waiting")
        return await self._refused(attempt, part, verdict, heard.status)

    async def _refused(self, attempt: _Attempt, part: Part, verdict: Refused, status: int) -> ReplyEnd | None:
        if verdict.verdict == "template" and part.form == "text":
            try:
                return await self._as_template(attempt, "\n\n".join(each.text for each in attempt.left()))
            except Unavailable:
                return outcome.lost_postgres()
        claim, channel = attempt.claim, attempt.channel
        peer = channel.adapter.paces(attempt.details, channel.settings)[-1].peer
        return outcome.refused(verdict, claim.reply, failures=claim.failures, status=status, peer=peer)

    async def _unheard(self, attempt: _Attempt, part: Part, heard: Unreached | Cut) -> ReplyEnd:
        failures = attempt.claim.failures
        if isinstance(heard, Unreached):
            await self._ended(attempt, part, "waiting")
            return outcome.unreached(failures, heard.message)
        await self._ended(attempt, part, "unknown")
        return outcome.in_doubt(failures, "cut", heard.message, status=None, echoes=attempt.channel.adapter.echoes)


def _kept_back(leave: Leave) -> ReplyEnd:
    if leave.outcome == "wait":
        return outcome.waiting(leave.wait_us)
    return outcome.held() if leave.outcome == "held" else _lost()


def _outgoing(attempt: _Attempt, part: Part) -> Outgoing:
    """The reference is `part_reference` in SQL."""
    return Outgoing(
        text=part.text,
        details=attempt.details,
        reference=f"{attempt.claim.id}:{part.part}:{attempt.claim.attempt}",
        first=part.part == 1,
        template=part.form == "template",
        status_url=attempt.channel.status_url,
    )


def _settle(attempt: _Attempt, part: Part) -> None:
    sent = msgspec.structs.replace(part, state="sent")
    attempt.parts = [sent if each.part == part.part else each for each in attempt.parts]


def _window_is_closed(attempt: _Attempt, record: JobRecord) -> bool:
    """Whether the user last wrote too long ago; the message that is answered counts, too."""
    window_s = attempt.channel.adapter.window_s(attempt.channel.settings)
    heard_us = max(record.created_us, attempt.claim.reply.heard_us or 0)
    return window_s is not None and time.time_ns() // 1_000 - heard_us > window_s * 1_000_000


def _lost() -> ReplyEnd:
    """Another process has it; what is said of this attempt changes nothing."""
    return ReplyEnd(state="retrying", code="lost", message="another process has taken it up")
