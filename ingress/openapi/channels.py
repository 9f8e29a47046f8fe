"""The operations that providers call, described; `operations.py` lists them with the others.

Their bodies are the providers' own, so they are not described here; each provider's documents do.
"""

from collections.abc import Mapping
from typing import Any

from ingress.channels.directory import Channels
from ingress.openapi.describe import Answer, Operation, Parameter
from ingress.strangers import Attempt
from shared.channels.whatsapp import WhatsApp
from shared.errors import BadSignature, Unavailable

_ID = Parameter(
    name="channel_id",
    where="path",
    description="The channel's id; `switchboard channels create` prints the whole path.",
    schema={"type": "string", "pattern": "^ch-[a-z0-9]{16}$"},
    example="ch-4k2m9x0q7w1e5r8t",
)
_OUTAGE = Unavailable("", retry_after_s=1)


def _text(description: str) -> Answer:
    return Answer(description=description, schema={"type": "string"}, media_type="text/plain")


def _query(name: str, description: str) -> Parameter:
    return Parameter(name=name, where="query", description=description, schema={"type": "string"})


def _operation(name: str, summary: str, description: str, answers: Mapping[int, Answer], **more: Any) -> Operation:
    raises = more.pop("raises", (_OUTAGE,))
    raised_by = (*more.pop("raised_by", ()), Channels.find, Attempt.count)
    return Operation(
        id=name,
        tag="Channels",
        summary=summary,
        description=description,
        answers=answers,
        raises=raises,
        raised_by=raised_by,
        **more,
    )


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/v1/channels/{channel_id}/webhook"): _operation(
        "channel_webhook",
        "What a messenger's provider calls",
        "Called by WhatsApp, Twilio, Telegram or Slack with its own body, signed by it. 200 means that all of it is "
        "queued or kept; 5xx, that it should be sent again. A message is known again by the provider's id for 7 days. "
        "What is refused by a limit, a budget or a policy is a job that ended `rejected`, and acknowledged.",
        {200: _text("All of it is safe. Twilio gets an empty TwiML document instead.")},
        parameters=(_ID,),
        raises=(_OUTAGE, BadSignature("The signature is missing or not the provider's.")),
    ),
    ("GET", "/v1/channels/{channel_id}/webhook"): _operation(
        "verify_channel_webhook",
        "How Meta verifies the URL",
        "Answers `hub.challenge` when `hub.verify_token` is the channel's.",
        {200: _text("The challenge.")},
        parameters=(
            _ID,
            _query("hub.mode", "`subscribe`."),
            _query("hub.verify_token", "The channel's `verify_token`."),
            _query("hub.challenge", "What is to be answered."),
        ),
        raised_by=(WhatsApp.greet,),
    ),
    ("POST", "/v1/channels/{channel_id}/flows"): _operation(
        "channel_flows",
        "The screens of a WhatsApp Flow",
        "Called by WhatsApp while a person fills a form, encrypted both ways. The channel's agent says the screen.",
        {
            200: _text("The encrypted answer, in base64."),
            421: Answer(description="None of our keys opens it: fetch our public key anew."),
            427: _text("The form is over; the encrypted `error_msg` is shown to the person."),
            432: Answer(description="The signature is missing or not Meta's."),
        },
        parameters=(_ID,),
    ),
}
