"""Telegram's Bot API.

An update comes one at a time, with the secret token that the webhook was registered with; Telegram repeats it until it
is answered with a 2xx, and gives up after a while. A private chat belongs to its user; a group to itself, because
several people share its conversation.
"""

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from shared.channels.api import (
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
    matches,
    retry_after_s,
    whole_channel,
)
from shared.channels.reading import Malformed, described, identifier, member, optional, read_object, unix_s
from shared.channels.splitting import split
from shared.channels.telegram_kinds import told
from shared.errors import BadSignature

API = "https://api.telegram.org"
MAX_TEXT_UNITS = 4_096


class TelegramSettings(ReplySettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    edits: bool = False
    """An edited message is a message to answer; else it is kept."""


class TelegramCredentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    secret_tokens: list[str]
    """What `setWebhook` was given as `secret_token`."""
    bot_token: str | None = None
    """Sends replies."""


class Telegram(Channel[TelegramSettings, TelegramCredentials]):
    kind, label = "telegram", "Telegram"
    settings, credentials = TelegramSettings, TelegramCredentials
    max_body_bytes: ClassVar[int] = 1 << 20

    def verify(self, hook: Hook, settings: TelegramSettings, credentials: TelegramCredentials) -> None:
        if not matches(hook.headers.get("x-telegram-bot-api-secret-token", ""), credentials.secret_tokens):
            raise BadSignature("The secret token is missing or not this channel's.")

    def read(self, hook: Hook, settings: TelegramSettings) -> Reading:
        reading = Reading()
        try:
            update = read_object(hook.body)
        except Malformed as error:
            reading.malformed(error, hook.body.decode("utf-8", "replace"))
            return reading
        try:
            _read_update(update, settings, reading)
        except Malformed as error:
            reading.malformed(error, update)
        return reading

    def lacks(self, settings: TelegramSettings, credentials: TelegramCredentials) -> str | None:
        return None if credentials.bot_token else "bot_token"

    def paces(self, details: Mapping[str, Any], settings: TelegramSettings) -> list[Pace]:
        """A message a second to a person, 20 a minute to a group, whose id is negative; 30 a second in all."""
        chat = str(details["chat_id"])
        return [whole_channel(settings.per_second, self.per_second), Pace(chat, 3.0 if chat.startswith("-") else 1.0)]

    def cut(self, text: str, settings: TelegramSettings, *, template: bool = False) -> list[str]:
        return split(text, MAX_TEXT_UNITS)

    def render(
        self,
        outgoing: Outgoing,
        settings: TelegramSettings,
        credentials: TelegramCredentials,
        *,
        base_url: str | None = None,
    ) -> Call:
        """The first message quotes the one it answers, unless that one is gone."""
        body: dict[str, Any] = {**_chat(outgoing.details), "text": outgoing.text}
        if outgoing.first and (quoted := outgoing.details.get("message_id")):
            body["reply_parameters"] = {"message_id": int(quoted), "allow_sending_without_reply": True}
        return _call("sendMessage", body, credentials, base_url)

    def render_working(
        self,
        details: Mapping[str, Any],
        settings: TelegramSettings,
        credentials: TelegramCredentials,
        *,
        base_url: str | None = None,
    ) -> Call | None:
        """Telegram shows it for 5 s."""
        return _call("sendChatAction", {**_chat(details), "action": "typing"}, credentials, base_url)

    def judge(self, status: int, headers: Mapping[str, str], body: bytes) -> Sent | Refused:
        try:
            answer = read_object(body)
        except Malformed:
            answer = {}
        result, more = answer.get("result"), answer.get("parameters")
        if answer.get("ok") is True:
            sent = result.get("message_id") if isinstance(result, dict) else None
            return Sent(message_id=None if sent is None else str(sent))
        given = answer.get("error_code")
        code = given if isinstance(given, int) else status
        after = more.get("retry_after") if isinstance(more, dict) else None
        return Refused(
            verdict=_verdict(code, known=isinstance(given, int)),
            code=str(code),
            message=str(answer.get("description") or f"HTTP {status}"),
            after_s=float(after) if isinstance(after, int) else retry_after_s(headers),
        )


def _verdict(code: int, *, known: bool) -> Any:
    """`known`: Telegram's own answer, not that of something before it. 401 and 404 are of the token; 403: blocked."""
    if code in {502, 504} and not known:
        return "unknown"
    return "limited" if code == 429 else "retry" if code >= 500 else "pause" if code in {401, 404} else "permanent"


def _chat(details: Mapping[str, Any]) -> dict[str, Any]:
    return described(chat_id=details["chat_id"], message_thread_id=details.get("topic"))


def _call(method: str, body: Mapping[str, Any], credentials: TelegramCredentials, base_url: str | None) -> Call:
    url = f"{base_url or API}/bot{quote(credentials.bot_token or '', safe=':')}/{method}"
    return Call(method="POST", url=url, headers={}, body=body)


def _read_update(update: dict[str, Any], settings: TelegramSettings, reading: Reading) -> None:
    update_id = identifier(update, "update_id")
    kind = next((name for name in update if name != "update_id"), "empty")
    content = optional(update, kind, dict) or {}
    if kind == "callback_query":
        text, message = optional(content, "data", str) or "", member(content, "message", dict)
        more = {"callback_query_id": identifier(content, "id")}
    elif kind == "message" or (kind == "edited_message" and settings.edits):
        text, more = told(content)
        message = content
    else:
        reading.keep(kind[:64], update)
        return
    if not text.strip():
        reading.keep("empty", update)
        return
    chat, speaker = member(message, "chat", dict), optional(content, "from", dict) or {}
    if speaker.get("is_bot") is True:
        reading.ignored += 1
        return
    reading.messages.append(_inbound(update_id, text, message, chat, speaker, {"type": kind, **more}))


def _inbound(
    update_id: str,
    text: str,
    message: dict[str, Any],
    chat: dict[str, Any],
    speaker: dict[str, Any],
    more: dict[str, Any],
) -> Inbound:
    chat_id = identifier(chat, "id")
    topic = identifier(message, "message_thread_id") if message.get("is_topic_message") is True else None
    names = (optional(speaker, name, str) for name in ("first_name", "last_name"))
    details = described(
        message_id=identifier(message, "message_id"),
        chat_id=chat_id,
        topic=topic,
        sent_s=unix_s(message, "date"),
        user=identifier(speaker, "id") if speaker else None,
        name=" ".join(filter(None, names)),
        username=optional(speaker, "username", str),
        language=optional(speaker, "language_code", str),
        **more,
    )
    private = member(chat, "type", str) == "private"
    return Inbound(
        id=update_id,
        user=details["user"] if private and "user" in details else f"chat:{chat_id}",
        conversation=f"{chat_id}/{topic}" if topic else chat_id,
        text=text,
        details=details,
    )
