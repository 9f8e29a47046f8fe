"""Twilio: SMS, and WhatsApp through Twilio.

A message is a form, signed together with the URL as Twilio called it: behind a proxy that is the public one. What is
sent as JSON is signed by a hash of the body in the URL's query. The answer is an empty TwiML document: replies go
through the REST API, when they are there. The signature has no time in it; a replay is found by its message id.
"""

import hashlib
import hmac
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import msgspec

from shared.channels.api import (
    Answer,
    Call,
    Channel,
    Hook,
    Inbound,
    Outgoing,
    Pace,
    Reading,
    Refused,
    ReplySettings,
    Sent,
    Status,
    matches,
    retry_after_s,
    whole_channel,
)
from shared.channels.attached import kind_of_file, unseen
from shared.channels.reading import Malformed, described, identifier, read_form, read_object
from shared.channels.splitting import split
from shared.channels.whatsapp_sending import WINDOW_S
from shared.errors import BadSignature

API = "https://api.twilio.com"
MAX_TEXT_UNITS = 1_600
MAX_PARAMETER_UNITS = 1_024
REFERENCE = "reference"
"""Our own reference, in the query of the URL that Twilio tells statuses."""
MAX_MEDIA = 10
TWIML = Answer(b'<?xml version="1.0" encoding="UTF-8"?><Response/>', "text/xml")
_DIGESTS = {"HMAC_SHA1": "sha1", "HMAC_SHA256": "sha256"}
_STATES: Mapping[str, Any] = {
    "sent": "sent",
    "delivered": "delivered",
    "read": "read",
    "undelivered": "failed",
    "failed": "failed",
}
_ON_THE_WAY = frozenset({"accepted", "scheduled", "queued", "sending", "canceled", "receiving", "received"})
"""Statuses that tell a sender nothing."""
PAUSE = frozenset({20003, 20005, 21606, 30002, 63038})
"""Credentials, a suspended account, a number that cannot send, a day's limit."""
LIMITED = frozenset({14107, 20429, 30001, 63018})
"""Too many requests, or a queue at Twilio's that is full."""
RETRY = frozenset({20500, 20503})
TEMPLATE = 63016
"""WhatsApp: the user last wrote more than 24 h ago."""


class TwilioSettings(ReplySettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    account_sid: str
    number: str
    """Ours, as Twilio writes it: `+15551234567` or `whatsapp:+15551234567`."""
    public_url: str | None = None
    """Scheme and host by which Twilio calls this channel; else SWITCHBOARD_PUBLIC_URL."""
    content_sid: str | None = None
    """Content template for WhatsApp users who last wrote more than 24 h ago; its variable 1 is the reply. Without one
    such a reply waits for them."""


class TwilioCredentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    auth_tokens: list[str]
    """Sign what Twilio sends (or a shared key's secret); the newest one sends replies."""


class Twilio(Channel[TwilioSettings, TwilioCredentials]):
    kind, label = "twilio", "Twilio"
    settings, credentials = TwilioSettings, TwilioCredentials
    max_body_bytes: ClassVar[int] = 256 << 10
    echoes: ClassVar[bool] = True
    per_second: ClassVar[float] = 80.0

    def verify(self, hook: Hook, settings: TwilioSettings, credentials: TwilioCredentials) -> None:
        digest = _DIGESTS.get(_algorithm(hook.headers.get("x-twilio-webhooks-signature-settings", "")))
        if digest is None:
            raise BadSignature("The signature's algorithm is not known.")
        if not matches(hook.headers.get("x-twilio-signature", ""), _genuine(hook, credentials, digest)):
            raise BadSignature("The signature is missing or not Twilio's; is the public URL set as Twilio calls it?")

    def read(self, hook: Hook, settings: TwilioSettings) -> Reading:
        reading = Reading(answer=TWIML)
        try:
            form = read_object(hook.body) if _is_json(hook) else dict(read_form(hook.body))
        except Malformed as error:
            reading.malformed(error, hook.body.decode("utf-8", "replace"))
            return reading
        try:
            _read_form(form, settings, reading, hook.query.get(REFERENCE))
        except Malformed as error:
            reading.malformed(error, form)
        return reading

    def lacks(self, settings: TwilioSettings, credentials: TwilioCredentials) -> str | None:
        return None  # what checks requests sends replies, too

    def paces(self, details: Mapping[str, Any], settings: TwilioSettings) -> list[Pace]:
        """Of the number: 80 a second on WhatsApp, one by SMS from an ordinary number."""
        return [whole_channel(settings.per_second, self.per_second if _is_whatsapp(settings) else 1.0)]

    def window_s(self, settings: TwilioSettings) -> int | None:
        """WhatsApp's. Twilio may take a text that comes too late, and tell only afterwards that it failed."""
        return WINDOW_S if _is_whatsapp(settings) else None

    def has_template(self, settings: TwilioSettings) -> bool:
        return settings.content_sid is not None

    def cut(self, text: str, settings: TwilioSettings, *, template: bool = False) -> list[str]:
        """A template's text has no line breaks."""
        return split(" ".join(text.split()) if template else text, MAX_PARAMETER_UNITS if template else MAX_TEXT_UNITS)

    def render(
        self,
        outgoing: Outgoing,
        settings: TwilioSettings,
        credentials: TwilioCredentials,
        *,
        base_url: str | None = None,
    ) -> Call:
        """Twilio echoes no reference of ours, but calls the URL it was given: the reference is in there."""
        account = quote(settings.account_sid, safe="")
        login = b64encode(f"{settings.account_sid}:{credentials.auth_tokens[0]}".encode()).decode()
        form = {"From": settings.number, "To": outgoing.details["from"]}
        if outgoing.template:
            form |= {"ContentSid": settings.content_sid or "", "ContentVariables": json.dumps({"1": outgoing.text})}
        else:
            form["Body"] = outgoing.text
        if outgoing.status_url is not None:
            form["StatusCallback"] = f"{outgoing.status_url}?{urlencode({REFERENCE: outgoing.reference})}"
        return Call(
            method="POST",
            url=f"{base_url or API}/2010-04-01/Accounts/{account}/Messages.json",
            headers={"authorization": f"Basic {login}"},
            form=form,
        )

    def judge(self, status: int, headers: Mapping[str, str], body: bytes) -> Sent | Refused:
        try:
            answer = read_object(body)
        except Malformed:
            answer = {}
        if 200 <= status < 300:
            return Sent(message_id=answer.get("sid"))
        code = answer.get("code") if isinstance(answer.get("code"), int) else None
        return Refused(
            verdict=_verdict(code, status),
            code=str(code or status),
            message=str(answer.get("message") or f"HTTP {status}"),
            after_s=retry_after_s(headers),
            everyone=True,
        )


def _verdict(code: int | None, status: int) -> Any:
    if code is None and status in {502, 504}:
        return "unknown"
    if code in LIMITED or status == 429:
        return "limited"
    if code in RETRY or status == 408 or status >= 500:
        return "retry"
    if code in PAUSE or status in {401, 403}:
        return "pause"
    return "template" if code == TEMPLATE else "permanent"


def _is_whatsapp(settings: TwilioSettings) -> bool:
    return settings.number.startswith("whatsapp:")


def _algorithm(settings: str) -> str:
    """`key=…,algorithm=HMAC_SHA256`; without one the older HMAC_SHA1."""
    named = (part.partition("=") for part in settings.split(","))
    return next((value.strip().upper() for name, _, value in named if name.strip() == "algorithm"), "HMAC_SHA1")


def _is_json(hook: Hook) -> bool:
    return "bodySHA256" in hook.query


def _genuine(hook: Hook, credentials: TwilioCredentials, digest: str) -> Iterator[str]:
    """Every signature that would be right: of each token, of the URL with its port and without."""
    if _is_json(hook):
        if not matches(hook.query["bodySHA256"], [hashlib.sha256(hook.body).hexdigest()]):
            return
        signed = ""
    else:
        try:
            signed = "".join(name + value for name, value in sorted(set(read_form(hook.body))))
        except Malformed:
            return
    for token in credentials.auth_tokens:
        for url in _urls(hook.url):
            mac = hmac.digest(token.encode(), (url + signed).encode("utf-8", "replace"), digest)
            yield b64encode(mac).decode()


def _urls(url: str) -> Iterator[str]:
    """Twilio is not consistent about the port."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    default = 443 if parts.scheme == "https" else 80
    yield urlunsplit(parts._replace(netloc=host))
    yield urlunsplit(parts._replace(netloc=f"{host}:{parts.port or default}"))


def _read_form(form: dict[str, Any], settings: TwilioSettings, reading: Reading, reference: str | None) -> None:
    message_id = identifier(form, "MessageSid" if "MessageSid" in form else "SmsSid")
    state = form.get("MessageStatus") or form.get("SmsStatus")
    if "Body" not in form and state != "received" and isinstance(state, str):
        _read_status(message_id, state, form, reading, reference)
        return
    if form.get("To") != settings.number or form.get("AccountSid") != settings.account_sid:
        reading.keep("foreign", form)
        return
    text, media = _told(form)
    if not text.strip():
        reading.keep("empty", form)
        return
    sender = identifier(form, "From")
    details = described(
        type="message",
        message_id=message_id,
        **{"from": sender},
        to=form.get("To"),
        name=form.get("ProfileName"),
        wa_id=form.get("WaId"),
        choice=described(id=form.get("ButtonPayload"), title=form.get("ButtonText")),
        media=media,
    )
    reading.messages.append(Inbound(id=message_id, user=sender, conversation=sender, text=text, details=details))


def _told(form: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    body = form.get("Body")
    text = body if isinstance(body, str) else ""
    count = form.get("NumMedia")
    shown = min(int(count), MAX_MEDIA) if isinstance(count, str) and count.isascii() and count.isdecimal() else 0
    media = [described(url=form.get(f"MediaUrl{n}"), mime_type=form.get(f"MediaContentType{n}")) for n in range(shown)]
    if (latitude := form.get("Latitude")) is not None:
        text = " ".join(filter(None, [text, f"[location] {latitude}, {form.get('Longitude')}"]))
    return " ".join(filter(None, [*(unseen(kind_of_file(each.get("mime_type"))) for each in media), text])), media


def _read_status(message_id: str, state: str, form: dict[str, Any], reading: Reading, reference: str | None) -> None:
    if state in _ON_THE_WAY:
        reading.ignored += 1
    elif state not in _STATES:
        reading.keep(f"status:{state[:64]}", form)
    else:
        code = form.get("ErrorCode")
        fault = {"code": code, "message": form.get("ErrorMessage")} if code else None
        recipient = form.get("To")
        reading.statuses.append(
            Status(
                message_id=message_id,
                state=_STATES[state],
                recipient=recipient if isinstance(recipient, str) else None,
                error=fault,
                reference=reference,
            )
        )
