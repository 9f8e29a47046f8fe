"""What each provider takes, and how it says yes and no. Written after their documents, not after our adapters."""

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

import msgspec

from ops.messengers.books import ProviderName


@dataclass(frozen=True, slots=True)
class Wire:
    """A request as it came."""

    path: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise Refusal(400, 100, "the body is not a JSON object") from None

    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for."""

    to: str
    text: str
    working: bool = False
    reference: str | None = None
    quoted: str | None = None
    template: str | None = None
    thread: str | None = None
    status_url: str | None = None
    secret: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]


class Refusal(Exception):
    def __init__(self, status: int, code: int | str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after_s = status, code, retry_after_s


class Api(Protocol):
    name: ProviderName
    pace: tuple[float, int]
    """Seconds between messages to one peer, and how many may come at once."""
    too_fast: tuple[int, int | str]
    """Status and code of the refusal."""

    def read(self, wire: Wire) -> Wish:
        """Raises Refusal."""

    def yes(self, wish: Wish, number: int) -> tuple[str | None, Reply]:
        """The message's id, and the answer."""

    def no(self, refusal: Refusal) -> Reply: ...


class WhatsApp:
    name: ProviderName = "whatsapp"
    pace = (6.0, 45)
    too_fast: tuple[int, int | str] = (400, 131056)

    def read(self, wire: Wire) -> Wish:
        if not re.fullmatch(r"Bearer EAA\w[-\w]*", wire.headers.get("authorization", "")):
            raise Refusal(401, 190, "Invalid OAuth access token.")
        body = wire.json()
        if not re.fullmatch(r"v\d+\.0", wire.path["version"]) or body.get("messaging_product") != "whatsapp":
            raise Refusal(400, 100, "Invalid parameter")
        if body.get("status") == "read":
            if body.get("typing_indicator") not in (None, {"type": "text"}) or not body.get("message_id"):
                raise Refusal(400, 100, "Invalid parameter")
            return Wish(str(body["message_id"]), "", working=True)
        to = body.get("to") or body.get("recipient")
        reference = body.get("biz_opaque_callback_data", "")
        if not isinstance(to, str) or body.get("recipient_type") != "individual" or len(reference) > 512:
            raise Refusal(400, 100, "Invalid parameter")
        text, template = self._content(body)
        return Wish(to, text, False, reference or None, (body.get("context") or {}).get("message_id"), template)

    def _content(self, body: dict[str, Any]) -> tuple[str, str | None]:
        if body.get("type") == "text":
            text = body["text"].get("body")
            if not isinstance(text, str) or not text or _utf16(text) > 4_096:
                raise Refusal(400, 100, "(#100) Param text['body'] must be at most 4096 characters long.")
            return text, None
        template = body.get("template") or {}
        if body.get("type") != "template" or not template.get("name") or not template["language"].get("code"):
            raise Refusal(400, 100, "Invalid parameter")
        texts = [one["text"] for part in template.get("components", []) for one in part["parameters"]]
        if any(_utf16(text) > 1_024 or re.search(r"[\n\t]| {4}", text) for text in texts):
            raise Refusal(400, 132018, "There is an issue with the parameters in the template")
        return "".join(texts), template["name"]

    def yes(self, wish: Wish, number: int) -> tuple[str | None, Reply]:
        if wish.working:
            return None, Reply(200, {"success": True}, {})
        made = f"wamid.standin{number:08}"
        contact = {"input": wish.to, "wa_id": wish.to}
        return made, Reply(
            200, {"messaging_product": "whatsapp", "contacts": [contact], "messages": [{"id": made}]}, {}
        )

    def no(self, refusal: Refusal) -> Reply:
        error = {"message": f"(#{refusal.code}) {refusal}", "type": "OAuthException", "code": refusal.code}
        return Reply(refusal.status, {"error": {**error, "error_data": {"details": str(refusal)}}}, _after(refusal))


class Twilio:
    name: ProviderName = "twilio"
    pace = (0.0, 1)
    too_fast: tuple[int, int | str] = (429, 20429)

    def read(self, wire: Wire) -> Wish:
        kind, _, login = wire.headers.get("authorization", "").partition(" ")
        account, _, secret = b64decode(login).decode().partition(":") if kind == "Basic" else ("", "", "")
        if account != wire.path["account"] or not secret:
            raise Refusal(401, 20003, "Authenticate")
        form = wire.form()
        if not form.get("To") or not form.get("From"):
            raise Refusal(400, 21604, "A 'To' phone number is required.")
        text = form.get("Body", form.get("ContentVariables", ""))
        if _utf16(text) > 1_600:
            raise Refusal(400, 21617, "The concatenated message body exceeds the 1600 character limit")
        if not text and not form.get("ContentSid"):
            raise Refusal(400, 21602, "Message body is required.")
        template, url = form.get("ContentSid"), form.get("StatusCallback")
        return Wish(form["To"], text, template=template, status_url=url, secret=secret)

    def yes(self, wish: Wish, number: int) -> tuple[str | None, Reply]:
        made = f"SM{number:032x}"
        return made, Reply(201, {"sid": made, "status": "queued", "to": wish.to, "body": wish.text}, {})

    def no(self, refusal: Refusal) -> Reply:
        body = {"code": refusal.code, "message": str(refusal), "status": refusal.status}
        return Reply(refusal.status, body, _after(refusal))


class Telegram:
    name: ProviderName = "telegram"
    pace = (1.0, 3)
    too_fast: tuple[int, int | str] = (429, 429)

    def read(self, wire: Wire) -> Wish:
        if not re.fullmatch(r"\d+:[-\w]+", wire.path["token"]):
            raise Refusal(404, 404, "Not Found")
        body = wire.json()
        if not body.get("chat_id"):
            raise Refusal(400, 400, "Bad Request: chat_id is empty")
        chat = str(body["chat_id"])
        if wire.path["method"] == "sendChatAction":
            return Wish(chat, "", working=True)
        text = body.get("text")
        if wire.path["method"] != "sendMessage" or not isinstance(text, str) or not text:
            raise Refusal(400, 400, "Bad Request: message text is empty")
        if _utf16(text) > 4_096:
            raise Refusal(400, 400, "Bad Request: message is too long")
        quoted = (body.get("reply_parameters") or {}).get("message_id")
        thread = body.get("message_thread_id")
        return Wish(chat, text, quoted=quoted and str(quoted), thread=thread and str(thread))

    def yes(self, wish: Wish, number: int) -> tuple[str | None, Reply]:
        if wish.working:
            return None, Reply(200, {"ok": True, "result": True}, {})
        return str(number), Reply(200, {"ok": True, "result": {"message_id": number, "text": wish.text}}, {})

    def no(self, refusal: Refusal) -> Reply:
        after = {} if refusal.retry_after_s is None else {"parameters": {"retry_after": round(refusal.retry_after_s)}}
        body = {"ok": False, "error_code": refusal.status, "description": str(refusal), **after}
        return Reply(refusal.status, body, {})


class Slack:
    name: ProviderName = "slack"
    pace = (1.0, 3)
    too_fast: tuple[int, int | str] = (429, "ratelimited")

    def read(self, wire: Wire) -> Wish:
        if not re.fullmatch(r"Bearer xoxb-[-\w]+", wire.headers.get("authorization", "")):
            raise Refusal(200, "invalid_auth", "invalid_auth")
        body = wire.json()
        if not body.get("channel"):
            raise Refusal(200, "channel_not_found", "channel_not_found")
        text = body.get("text")
        if not isinstance(text, str) or not text:
            raise Refusal(200, "no_text", "no_text")
        if len(text) > 40_000:
            raise Refusal(200, "msg_too_long", "msg_too_long")
        return Wish(str(body["channel"]), text, thread=body.get("thread_ts"))

    def yes(self, wish: Wish, number: int) -> tuple[str | None, Reply]:
        made = f"1749416383.{number:06}"
        return made, Reply(200, {"ok": True, "channel": wish.to, "ts": made}, {})

    def no(self, refusal: Refusal) -> Reply:
        return Reply(refusal.status, {"ok": False, "error": refusal.code}, _after(refusal))


def _after(refusal: Refusal) -> dict[str, str]:
    return {} if refusal.retry_after_s is None else {"retry-after": str(round(refusal.retry_after_s))}


def _utf16(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2
