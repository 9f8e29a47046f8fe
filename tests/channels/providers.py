"""The messengers' side: each provider's requests, signed as it signs them, for the contract that all channels keep.

Written after the providers' documents and, where there are some, their published vectors; not with our own adapters.
"""

import hashlib
import hmac
import itertools
import json
import time
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol
from urllib.parse import urlencode

_numbers = itertools.count(1)
PUBLIC = "https://chat.example.com"


@dataclass
class Request:
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    query: str = ""


class Provider(Protocol):
    kind: str
    settings: ClassVar[dict[str, Any]]
    credentials: ClassVar[dict[str, Any]]

    def message(self, text: str, *, named: str | None = None, user: str = "1") -> Any:
        """What the provider sends for one message."""

    def unknown(self) -> Any:
        """Something that a newer version of it might send."""

    def broken(self) -> Any:
        """A message in which something is not as it must be."""

    def signed(self, content: Any, path: str, *, age_s: int = 0, secret: str | None = None) -> Request: ...


def fresh() -> str:
    return f"{next(_numbers)}-{time.time_ns()}"


class WhatsApp:
    kind = "whatsapp"
    settings: ClassVar[dict[str, Any]] = {"phone_number_id": "106540352242922"}
    credentials: ClassVar[dict[str, Any]] = {
        "app_secrets": ["meta-secret"],
        "verify_token": "let me in",
        "access_token": "EAAG-token",
    }

    def message(self, text: str, *, named: str | None = None, user: str = "1") -> Any:
        return self.batch([self.text(text, named=named, user=user)])

    def text(self, text: str, *, named: str | None = None, user: str = "1", **more: Any) -> dict[str, Any]:
        message_id = named or f"wamid.{fresh()}"
        common = {"from": f"1650555{user}", "id": message_id, "timestamp": "1749416383"}
        return {**common, "type": "text", "text": {"body": text}, **more}

    def batch(self, *changes: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """A change for each list of messages, each in an entry of its own."""
        entries = [{"id": "WABA", "changes": [self.change(messages=messages, **more)]} for messages in changes]
        return {"object": "whatsapp_business_account", "entry": entries}

    def change(self, *, number: str = "106540352242922", **value: Any) -> dict[str, Any]:
        head = {"messaging_product": "whatsapp", "metadata": {"display_phone_number": "1", "phone_number_id": number}}
        return {"field": "messages", "value": {**head, **value}}

    def unknown(self) -> Any:
        return self.batch([{"from": "16505551", "id": f"wamid.{fresh()}", "type": "hologram", "hologram": {"id": "1"}}])

    def broken(self) -> Any:
        return self.batch([{"from": "16505551", "id": f"wamid.{fresh()}", "type": "text", "text": {"body": 7}}])

    def signed(self, content: Any, path: str, *, age_s: int = 0, secret: str | None = None) -> Request:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()  # escapes what is not ASCII
        mac = hmac.new((secret or "meta-secret").encode(), body, hashlib.sha256).hexdigest()
        return Request(body, {"x-hub-signature-256": f"sha256={mac}", "content-type": "application/json"})


class Telegram:
    kind = "telegram"
    settings: ClassVar[dict[str, Any]] = {}
    credentials: ClassVar[dict[str, Any]] = {"secret_tokens": ["telegram-secret"], "bot_token": "123:bot"}

    def message(self, text: str, *, named: str | None = None, user: str = "1") -> Any:
        return {"update_id": named or fresh(), "message": self.said(text, user=user)}

    def said(self, text: str, *, user: str = "1", **more: Any) -> dict[str, Any]:
        person = {"id": int(f"77{user}"), "is_bot": False, "first_name": "Zoë", "language_code": "en"}
        chat = {"id": int(f"77{user}"), "type": "private", "first_name": "Zoë"}
        return {"message_id": 5, "date": 1749416383, "chat": chat, "from": person, "text": text, **more}

    def unknown(self) -> Any:
        return {"update_id": fresh(), "hologram": {"id": 1}}

    def broken(self) -> Any:
        return {"update_id": fresh(), "message": {**self.said("x"), "chat": "nowhere"}}

    def signed(self, content: Any, path: str, *, age_s: int = 0, secret: str | None = None) -> Request:
        headers = {"x-telegram-bot-api-secret-token": secret or "telegram-secret", "content-type": "application/json"}
        return Request(content if isinstance(content, bytes) else json.dumps(content).encode(), headers)


class Twilio:
    kind = "twilio"
    settings: ClassVar[dict[str, Any]] = {"account_sid": "AC1", "number": "whatsapp:+15550001", "public_url": PUBLIC}
    credentials: ClassVar[dict[str, Any]] = {"auth_tokens": ["twilio-token"]}

    def message(self, text: str, *, named: str | None = None, user: str = "1") -> Any:
        sid = named or f"SM{fresh()}"
        people = {"From": f"whatsapp:+1650555{user}", "To": "whatsapp:+15550001"}
        return {"MessageSid": sid, "AccountSid": "AC1", **people, "Body": text, "NumMedia": "0", "ProfileName": "Zoë"}

    def unknown(self) -> Any:
        return {"MessageSid": f"SM{fresh()}", "AccountSid": "AC1", "MessageStatus": "hologram", "To": "+1"}

    def broken(self) -> Any:
        form = self.message("x")
        del form["MessageSid"]
        return form

    def signed(self, content: Any, path: str, *, age_s: int = 0, secret: str | None = None) -> Request:
        if isinstance(content, bytes):
            query = f"?bodySHA256={hashlib.sha256(content).hexdigest()}"
            text, body, media = f"{PUBLIC}{path}{query}", content, "application/json"
        else:
            pairs = "".join(name + content[name] for name in sorted(content))
            text, query, media = f"{PUBLIC}{path}{pairs}", "", "application/x-www-form-urlencoded"
            body = urlencode(content).encode()
        mac = hmac.new((secret or "twilio-token").encode(), text.encode(), hashlib.sha1).digest()
        return Request(body, {"x-twilio-signature": b64encode(mac).decode(), "content-type": media}, query)


class Slack:
    kind = "slack"
    settings: ClassVar[dict[str, Any]] = {"app_id": "A1", "bot_user_id": "UBOT"}
    credentials: ClassVar[dict[str, Any]] = {"signing_secrets": ["slack-secret"], "bot_token": "xoxb-token"}

    def message(self, text: str, *, named: str | None = None, user: str = "1") -> Any:
        return self.event(type="message", channel_type="im", channel=f"D{user}", user=f"U{user}", text=text, ts=named)

    def event(self, *, ts: str | None = None, **event: Any) -> Any:
        at = ts or f"17494163{next(_numbers):02}.{next(_numbers):06}"
        return {
            "type": "event_callback",
            "team_id": "T1",
            "api_app_id": "A1",
            "event_id": f"Ev{fresh()}",
            "event": {"ts": at, **event},
        }

    def unknown(self) -> Any:
        return self.event(type="hologram", user="U1")

    def broken(self) -> Any:
        return self.event(type="message", channel_type="im", channel=7.5, user="U1", text="x")

    def signed(self, content: Any, path: str, *, age_s: int = 0, secret: str | None = None) -> Request:
        is_form = isinstance(content, dict) and "type" not in content
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        if is_form:
            body = urlencode(content).encode()
        at = str(int(time.time()) - age_s)
        mac = hmac.new((secret or "slack-secret").encode(), f"v0:{at}:".encode() + body, hashlib.sha256).hexdigest()
        media = "application/x-www-form-urlencoded" if is_form else "application/json"
        headers = {"x-slack-request-timestamp": at, "x-slack-signature": f"v0={mac}", "content-type": media}
        return Request(body, headers)


PROVIDERS: dict[str, Provider] = {made.kind: made for made in (WhatsApp(), Telegram(), Twilio(), Slack())}
