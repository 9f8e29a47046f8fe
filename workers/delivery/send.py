"""One attempt at one delivery: signed and posted, or mailed. What comes back is an `Outcome`, never an exception."""

import time

import msgspec
import structlog

from shared.channels.api import ADDRESS
from workers.delivery import events
from workers.delivery.books import Claimed
from workers.delivery.mail import Mailer
from workers.delivery.outcome import Failed, Outcome
from workers.delivery.post import Poster
from workers.delivery.signing import DEFAULT_OWNER, Signer

log = structlog.get_logger("delivery")


class Sender:
    def __init__(self, poster: Poster, mailer: Mailer, signer: Signer) -> None:
        self._poster, self._mailer, self._signer = poster, mailer, signer

    async def __call__(self, one: Claimed) -> Outcome:
        if one.closed:
            return Failed(code="endpoint_disabled", message="the endpoint is disabled", final=True, blame=False)
        try:
            return await self._sent(one)
        except (msgspec.ValidationError, ValueError):  # written by another version, or a header it cannot be
            log.exception("delivery.unsendable", delivery=one.id)
            return Failed(code="unsendable", message="it cannot be put into words", final=True, blame=False)

    async def _sent(self, one: Claimed) -> Outcome:
        if one.kind == "email":
            subject, text = events.mail_text(one)
            return await self._mailer.send(one.url, subject, text, message_id=one.id)
        if one.url.startswith(ADDRESS):  # it waits and loses nothing; nobody is to blame
            return Failed(code="no_sender", message="replies through channels are not sent yet", blame=False)
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
