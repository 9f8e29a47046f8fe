"""One attempt at one delivery: signed and posted, mailed, or said through a messenger. What comes back is a value."""

import time

import msgspec
import structlog

from workers.delivery import events
from workers.delivery.books import Claimed
from workers.delivery.mail import Mailer
from workers.delivery.outcome import Failed, Outcome
from workers.delivery.post import Poster
from workers.delivery.signing import DEFAULT_OWNER, Signer
from workers.replies.outcome import ReplyEnd
from workers.replies.sender import Claim, ReplySender

log = structlog.get_logger("delivery")


class Sender:
    def __init__(self, poster: Poster, mailer: Mailer, signer: Signer, replies: ReplySender) -> None:
        self._poster, self._mailer, self._signer, self._replies = poster, mailer, signer, replies

    async def __call__(self, one: Claimed) -> Outcome | ReplyEnd:
        """Raises Unavailable for a reply whose note Postgres would not take: its lease lapses."""
        if one.closed:
            return Failed(code="endpoint_disabled", message="the endpoint is disabled", final=True, blame=False)
        try:
            return await self._sent(one)
        except (msgspec.ValidationError, ValueError):  # written by another version, or a header it cannot be
            log.exception("delivery.unsendable", delivery=one.id)
            return Failed(code="unsendable", message="it cannot be put into words", final=True, blame=False)

    async def _sent(self, one: Claimed) -> Outcome | ReplyEnd:
        if one.reply is not None:
            claim = Claim(
                id=one.id,
                tenant=one.tenant,
                body=one.body,
                attempt=one.attempt,
                failures=one.failures,
                reply=one.reply,
            )
            return await self._replies(claim)
        if one.kind == "email":
            subject, text = events.mail_text(one)
            return await self._mailer.send(one.url, subject, text, message_id=one.id)
        if one.kind == "slack":
            outcome = await self._poster.post(one.url, {"content-type": "application/json"}, events.slack_body(one))
            refused = isinstance(outcome, Failed) and outcome.status in events.PERMANENT_FOR_SLACK
            return msgspec.structs.replace(outcome, final=True, gone=False) if refused else outcome
        body = events.webhook_body(one)
        signed = self._signer.headers(
            one.tenant,
            one.endpoint or DEFAULT_OWNER,
            one.secrets,
            message_id=one.id,
            at_s=int(time.time()),
            body=body,
        )
        return await self._poster.post(one.url, {"content-type": "application/json", **signed}, body)
