"""WhatsApp, through Meta's Cloud API.

Requests are batches at every level: entries, changes, messages. Meta signs the bytes it sends (its JSON escapes what is
not ASCII), repeats anything but a 200 for days, to every subscribed app, in no certain order. A user may have no phone
number: then `from_user_id` (a business-scoped id) names it, and where there are both that one does, because it stays.
"""

import hmac
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import quote

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
    elements,
    matches,
    whole_channel,
)
from shared.channels.reading import Malformed, described, identifier, member, objects, optional, read_object, unix_s
from shared.channels.splitting import split
from shared.channels.whatsapp_kinds import TEXTS, kind_of
from shared.channels.whatsapp_sending import (
    MAX_PARAMETER_UNITS,
    MAX_TEXT_UNITS,
    PAIR_BURST,
    PAIR_INTERVAL_S,
    WINDOW_S,
    address_of,
    judged,
    reading_of,
    template_of,
    text_of,
)
from shared.errors import BadSignature

API = "https://graph.facebook.com"
MAX_CHALLENGE_CHARS = 256
_STATES = frozenset({"sent", "delivered", "read", "played", "failed"})


class WhatsAppSettings(ReplySettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    phone_number_id: str
    """Meta's id of our number; what came for another one is not ours to answer."""
    graph_version: str = "v26.0"
    answer_reactions: bool = False
    """A reaction is a message to answer; else it is kept."""
    template_name: str | None = None
    """Sent in place of a text to users who last wrote more than 24 h ago; without one such a reply waits for them."""
    template_language: str = "en_US"
    template_text: bool = True
    """The template's body has one parameter, and it is the reply; else it has none and only calls the user back."""


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
    echoes: ClassVar[bool] = True
    per_second: ClassVar[float] = 80.0

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

    def lacks(self, settings: WhatsAppSettings, credentials: WhatsAppCredentials) -> str | None:
        return None if credentials.access_token else "access_token"

    def paces(self, details: Mapping[str, Any], settings: WhatsAppSettings) -> list[Pace]:
        return [
            whole_channel(settings.per_second, self.per_second),
            Pace(address_of(details), PAIR_INTERVAL_S, PAIR_BURST),
        ]

    def window_s(self, settings: WhatsAppSettings) -> int | None:
        return WINDOW_S

    def has_template(self, settings: WhatsAppSettings) -> bool:
        return settings.template_name is not None

    def cut(self, text: str, settings: WhatsAppSettings, *, template: bool = False) -> list[str]:
        """A template's text has no line breaks and no runs of spaces: Meta refuses them."""
        if not template:
            return split(text, MAX_TEXT_UNITS)
        one_line = " ".join(text.split())
        return split(one_line, MAX_PARAMETER_UNITS) if settings.template_text else [one_line] if one_line else []

    def render(
        self,
        outgoing: Outgoing,
        settings: WhatsAppSettings,
        credentials: WhatsAppCredentials,
        *,
        base_url: str | None = None,
    ) -> Call:
        """The first message quotes the one it answers."""
        body = template_of(outgoing, settings) if outgoing.template else text_of(outgoing)
        return self._call(body, settings, credentials, base_url)

    def render_working(
        self,
        details: Mapping[str, Any],
        settings: WhatsAppSettings,
        credentials: WhatsAppCredentials,
        *,
        base_url: str | None = None,
    ) -> Call | None:
        """The message was read and an answer is being written; WhatsApp shows it for 25 s at most."""
        return self._call(reading_of(details["message_id"]), settings, credentials, base_url)

    def judge(self, status: int, headers: Mapping[str, str], body: bytes) -> Sent | Refused:
        return judged(status, headers, body)

    def _call(
        self,
        body: Mapping[str, Any],
        settings: WhatsAppSettings,
        credentials: WhatsAppCredentials,
        base_url: str | None,
    ) -> Call:
        place = f"{quote(settings.graph_version, safe='')}/{quote(settings.phone_number_id, safe='')}"
        headers = {"authorization": f"Bearer {credentials.access_token}"}
        return Call(method="POST", url=f"{base_url or API}/{place}/messages", headers=headers, body=body)


def check_hub_signature(hook: Hook, credentials: WhatsAppCredentials) -> None:
    """Meta's signature of the raw body. Raises BadSignature."""
    given = hook.headers.get("x-hub-signature-256", "")
    genuine = [
        "sha256=" + hmac.digest(secret.encode(), hook.body, "sha256").hex() for secret in credentials.app_secrets
    ]
    if not matches(given, genuine):
        raise BadSignature("The signature is missing or not Meta's.")


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
    """A payment's has the id of the message that asked for it, which has not failed when the payment has."""
    state = member(status, "status", str)
    of = optional(status, "type", str) or "message"
    if of != "message":
        reading.keep(f"status:{of[:32]}:{state[:32]}", status)
    elif state in _STATES:
        reading.statuses.append(_status(status, state))
    else:  # of something newer
        reading.keep(f"status:{state[:64]}", status)


def _status(status: dict[str, Any], state: Any) -> Status:
    errors = objects(status, "errors")
    at_s, echo = unix_s(status, "timestamp"), status.get("biz_opaque_callback_data")
    return Status(
        reference=echo if isinstance(echo, str) else None,
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
