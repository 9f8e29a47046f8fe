"""WhatsApp, through Meta's Cloud API.

Requests are batches at every level: entries, changes, messages. Meta signs the bytes it sends (its JSON escapes what is
not ASCII), repeats anything but a 200 for days, to every subscribed app, in no certain order. A user may have no phone
number: then `from_user_id` (a business-scoped id) names it, and where there are both that one does, because it stays.
"""

import hmac
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec

from shared.channels.api import (
    Answer,
    Call,
    Channel,
    Hook,
    Inbound,
    Outgoing,
    Reading,
    Refused,
    Sent,
    Status,
    elements,
    matches,
    retry_after_s,
)
from shared.channels.reading import Malformed, described, identifier, member, optional, read_object, unix_s
from shared.channels.splitting import split
from shared.channels.whatsapp_kinds import TEXTS, kind_of
from shared.errors import BadSignature

API = "https://graph.facebook.com"
MAX_TEXT_UNITS = 4_096
MAX_CHALLENGE_CHARS = 256
_STATES = frozenset({"sent", "delivered", "read", "played", "failed"})


class WhatsAppSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    phone_number_id: str
    """Meta's id of our number; what came for another one is not ours to answer."""
    graph_version: str = "v26.0"
    answer_reactions: bool = False
    """A reaction is a message to answer; else it is kept."""


class WhatsAppCredentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    app_secrets: list[str]
    """Sign what Meta sends."""
    verify_token: str
    """What Meta's app settings were given to verify this URL with."""
    access_token: str | None = None
    """Sends replies."""
    flow_keys: list[str] = []
    """Private RSA keys (PEM) of the Flows endpoint."""


class WhatsApp(Channel[WhatsAppSettings, WhatsAppCredentials]):
    kind, label = "whatsapp", "WhatsApp Cloud API"
    settings, credentials = WhatsAppSettings, WhatsAppCredentials
    max_body_bytes: ClassVar[int] = 4 << 20  # Meta sends up to 3 MB

    def verify(self, hook: Hook, settings: WhatsAppSettings, credentials: WhatsAppCredentials) -> None:
        check_hub_signature(hook, credentials)

    def greet(self, hook: Hook, credentials: WhatsAppCredentials) -> Answer:
        token = hook.query.get("hub.verify_token", "")
        challenge = hook.query.get("hub.challenge", "")
        if hook.query.get("hub.mode") != "subscribe" or not matches(token, [credentials.verify_token]):
            raise BadSignature("This is not the verify token of this channel.")
        return Answer(challenge[:MAX_CHALLENGE_CHARS].encode())

    def read(self, hook: Hook, settings: WhatsAppSettings) -> Reading:
        reading = Reading()
        try:
            body = read_object(hook.body)
        except Malformed as error:
            reading.malformed(error, hook.body.decode("utf-8", "replace"))
            return reading
        for entry in elements(body, "entry", reading):
            for change in elements(entry, "changes", reading):
                _read_change(change, settings, reading)
        return reading

    def render(
        self,
        outgoing: Outgoing,
        settings: WhatsAppSettings,
        credentials: WhatsAppCredentials,
        *,
        base_url: str | None = None,
    ) -> list[Call]:
        """The first part quotes the message it answers."""
        head = _head(outgoing)
        bodies: list[dict[str, Any]] = [
            {**head, "type": "text", "text": {"body": part, "preview_url": False}}
            for part in split(outgoing.text, MAX_TEXT_UNITS)
        ]
        if bodies and (quoted := outgoing.details.get("message_id")):
            bodies[0]["context"] = {"message_id": quoted}
        return [_call(body, settings, credentials, base_url) for body in bodies]

    def render_template(
        self,
        outgoing: Outgoing,
        settings: WhatsAppSettings,
        credentials: WhatsAppCredentials,
        *,
        name: str,
        language: str,
        base_url: str | None = None,
    ) -> Call:
        """For a user who last wrote more than 24 h ago. The text is the template's one parameter, which has no line
        breaks and no runs of spaces (Meta refuses them), and is left out when it is empty."""
        template: dict[str, Any] = {"name": name, "language": {"code": language}}
        if text := " ".join(outgoing.text.split()):
            parameter = {"type": "text", "text": split(text, 1_024)[0]}
            template["components"] = [{"type": "body", "parameters": [parameter]}]
        body = {**_head(outgoing), "type": "template", "template": template}
        return _call(body, settings, credentials, base_url)

    def render_reading(
        self,
        details: Mapping[str, Any],
        settings: WhatsAppSettings,
        credentials: WhatsAppCredentials,
        *,
        base_url: str | None = None,
    ) -> Call:
        """The message was read and an answer is being written; WhatsApp shows it for 25 s at most."""
        body = {
            "messaging_product": "whatsapp",
            "status": "read",
            "message_id": details["message_id"],
            "typing_indicator": {"type": "text"},
        }
        return _call(body, settings, credentials, base_url)

    def judge(self, status: int, headers: Mapping[str, str], body: bytes) -> Sent | Refused:
        try:
            answer = read_object(body)
        except Malformed:
            answer = {}
        if 200 <= status < 300:
            sent = next((each for each in answer.get("messages") or [] if isinstance(each, dict)), {})
            return Sent(message_id=sent.get("id"))
        error = answer.get("error")
        fault: dict[str, Any] = error if isinstance(error, dict) else {}
        code = fault.get("code")
        details = fault.get("error_data")
        words = details.get("details") if isinstance(details, dict) else None
        return Refused(
            verdict=_verdict(code if isinstance(code, int) else None, status),
            code=str(code or status),
            message=str(words or fault.get("message") or f"HTTP {status}"),
            after_s=retry_after_s(headers),
        )


def check_hub_signature(hook: Hook, credentials: WhatsAppCredentials) -> None:
    """Meta's signature of the raw body. Raises BadSignature."""
    given = hook.headers.get("x-hub-signature-256", "")
    genuine = [
        "sha256=" + hmac.digest(secret.encode(), hook.body, "sha256").hex() for secret in credentials.app_secrets
    ]
    if not matches(given, genuine):
        raise BadSignature("The signature is missing or not Meta's.")


# -- errors of the API (Graph error codes) ----------------------------------------------------------------------------

RETRY = frozenset({1, 2, 4, 80007, 130429, 131000, 131016, 131056, 131057, 133004})
"""131056: too many to this one user; Meta asks for 4^n seconds between tries."""
PAUSE = frozenset({0, 10, 190, 368, 131005, 131031, 131042, 131048, 131064, *range(200, 300)})
"""The number or the account: token, rights, payment, spam."""
TEMPLATE = 131047
"""The user last wrote more than 24 h ago."""


def _verdict(code: int | None, status: int) -> Any:
    if code is None:
        return "retry" if status >= 500 or status in {408, 429} else "permanent"
    if code in RETRY:
        return "retry"
    if code in PAUSE:
        return "pause"
    return "template" if code == TEMPLATE else "permanent"


# -- reading ----------------------------------------------------------------------------------------------------------


def _read_change(change: dict[str, Any], settings: WhatsAppSettings, reading: Reading) -> None:
    try:
        name = member(change, "field", str)
        if name != "messages":
            reading.keep(f"field:{name[:64]}", change)
            return
        value = member(change, "value", dict)
        number = identifier(member(value, "metadata", dict), "phone_number_id")
        people = list(elements(value, "contacts", reading))
    except Malformed as error:
        reading.malformed(error, change)
        return
    if number != settings.phone_number_id:
        reading.keep("foreign", change)
        return
    messages = list(elements(value, "messages", reading))
    for message in messages:
        try:
            _read_message(message, _contact(message, people, alone=len(messages) == 1), settings, reading)
        except Malformed as error:
            reading.malformed(error, message)
    for status in elements(value, "statuses", reading):
        try:
            _read_status(status, reading)
        except Malformed as error:
            reading.malformed(error, status)
    for fault in elements(value, "errors", reading):
        reading.keep("errors", fault)


def _read_message(
    message: dict[str, Any], contact: dict[str, Any], settings: WhatsAppSettings, reading: Reading
) -> None:
    kind = kind_of(message)
    if kind not in TEXTS or (kind == "reaction" and not settings.answer_reactions):
        reading.keep(kind[:64], message)
        return
    person = _person(message, contact)
    text, more = TEXTS[kind](message)
    if not text.strip():
        reading.keep("empty", message)
        return
    details = described(
        type=kind,
        message_id=identifier(message, "id"),
        sent_s=unix_s(message, "timestamp"),
        **person,
        **_context(message),
        **more,
    )
    user = person["user"]
    reading.messages.append(Inbound(id=details["message_id"], user=user, conversation=user, text=text, details=details))


def _contact(message: dict[str, Any], people: list[dict[str, Any]], *, alone: bool) -> dict[str, Any]:
    """What is told of who wrote. In some countries `from` and `wa_id` are written differently: then the one contact of
    the one message is it."""
    for ours, theirs in (("from", "wa_id"), ("from_user_id", "user_id")):
        for each in people:
            if message.get(ours) is not None and each.get(theirs) == message[ours]:
                return each
    return people[0] if alone and len(people) == 1 else {}


def _person(message: dict[str, Any], contact: dict[str, Any]) -> dict[str, Any]:
    """Who wrote, and how to reach it: by phone number, else by its business-scoped id."""
    phone = identifier(message, "from") if message.get("from") is not None else None
    scoped = identifier(message, "from_user_id") if message.get("from_user_id") is not None else None
    if scoped is None and contact.get("user_id") is not None:
        scoped = identifier(contact, "user_id")
    user = scoped or phone
    if user is None:
        raise Malformed("the message has neither `from` nor `from_user_id`")
    profile = contact.get("profile")
    named = profile if isinstance(profile, dict) else {}
    return {
        "user": user,
        "to": phone,
        "recipient": None if phone else scoped,
        "name": optional(named, "name", str),
        "username": optional(named, "username", str),
    }


def _context(message: dict[str, Any]) -> dict[str, Any]:
    context, referral = optional(message, "context", dict) or {}, optional(message, "referral", dict) or {}
    product = optional(context, "referred_product", dict) or {}
    return {
        "quoted": optional(context, "id", str),
        "forwarded": optional(context, "forwarded", bool) or optional(context, "frequently_forwarded", bool),
        "product": described(**{name: optional(product, name, str) for name in ("catalog_id", "product_retailer_id")}),
        "referral": described(**{name: optional(referral, name, str) for name in _REFERRAL}),
    }


_REFERRAL = ("source_url", "source_id", "source_type", "headline", "body")


def _read_status(status: dict[str, Any], reading: Reading) -> None:
    state = member(status, "status", str)
    if state in _STATES:
        reading.statuses.append(_status(status, state))
    else:  # of a payment, or of something newer
        reading.keep(f"status:{state[:64]}", status)


def _status(status: dict[str, Any], state: Any) -> Status:
    errors = [each for each in status.get("errors") or [] if isinstance(each, dict)]
    at_s = unix_s(status, "timestamp")
    return Status(
        message_id=identifier(status, "id"),
        state=state,
        at_us=None if at_s is None else at_s * 1_000_000,
        recipient=_recipient(status),
        error=errors[0] if errors else None,
        details={name: status[name] for name in _STATUS_DETAILS if status.get(name) is not None},
    )


_STATUS_DETAILS = ("biz_opaque_callback_data", "conversation", "pricing")


def _recipient(status: dict[str, Any]) -> str | None:
    names: Iterator[str] = (name for name in ("recipient_id", "recipient_user_id") if status.get(name) is not None)
    return next((identifier(status, name) for name in names), None)


# -- sending ----------------------------------------------------------------------------------------------------------


def _head(outgoing: Outgoing) -> dict[str, Any]:
    phone = outgoing.details.get("to")
    address = {"to": phone} if phone else {"recipient": outgoing.details["recipient"]}
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        **address,
        "biz_opaque_callback_data": outgoing.reference,
    }


def _call(
    body: Mapping[str, Any], settings: WhatsAppSettings, credentials: WhatsAppCredentials, base_url: str | None
) -> Call:
    url = f"{base_url or API}/{settings.graph_version}/{settings.phone_number_id}/messages"
    return Call(method="POST", url=url, headers={"authorization": f"Bearer {credentials.access_token}"}, body=body)
