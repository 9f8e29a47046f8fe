"""Slack: events, slash commands and buttons of an app, all at one URL.

Slack signs the time with the body; older than five minutes is a replay. It wants an answer within 3 s and repeats an
event at once, after a minute and after five. In a direct message everything is answered; elsewhere what mentions the
app, unless `all_messages` is set. A thread is a conversation: its first message starts it.

One message may come as two events (`message` and `app_mention`), so it is known by where and when it was said (channel
and `ts`), which also finds the repeats that Slack marks by `event_id`.
"""

import hmac
import html
import re
from collections.abc import Mapping
from typing import Any, ClassVar

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
    matches,
    retry_after_s,
    whole_channel,
)
from shared.channels.attached import kind_of_file, unseen
from shared.channels.reading import (
    Malformed,
    described,
    identifier,
    member,
    objects,
    optional,
    read_form,
    read_object,
    unix_s,
)
from shared.channels.splitting import split, units
from shared.errors import BadSignature

API = "https://slack.com/api"
MAX_TEXT_UNITS = 4_000
MAX_AGE_S = 300
_SUBTYPES = frozenset({None, "file_share", "thread_broadcast", "me_message"})
"""Of messages by people; the others are edits, joins, bots and the like."""
_MENTION = re.compile(r"\s*<@[UW][A-Z0-9]+(\|[^>]*)?>\s*")
LIMITED = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
RETRY = frozenset({"internal_error", "fatal_error", "request_timeout", "service_unavailable"})
PAUSE = frozenset({"invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "missing_scope"})


class SlackSettings(ReplySettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    app_id: str | None = None
    """What comes for another app is kept, not answered."""
    bot_user_id: str | None = None
    """Ours: what it says itself is never answered."""
    all_messages: bool = False
    """In channels, answer what mentions nobody, too."""


class SlackCredentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    signing_secrets: list[str]
    bot_token: str | None = None
    """Sends replies."""


class Slack(Channel[SlackSettings, SlackCredentials]):
    kind, label = "slack", "Slack"
    settings, credentials = SlackSettings, SlackCredentials
    max_body_bytes: ClassVar[int] = 1 << 20

    def verify(self, hook: Hook, settings: SlackSettings, credentials: SlackCredentials) -> None:
        at = hook.headers.get("x-slack-request-timestamp", "")
        if not re.fullmatch(r"[0-9]{1,11}", at) or abs(hook.at_s - int(at)) > MAX_AGE_S:
            raise BadSignature("The request's time is missing, or more than five minutes from now.")
        signed = b"v0:" + at.encode() + b":" + hook.body
        genuine = [
            "v0=" + hmac.digest(secret.encode(), signed, "sha256").hex() for secret in credentials.signing_secrets
        ]
        if not matches(hook.headers.get("x-slack-signature", ""), genuine):
            raise BadSignature("The signature is missing or not Slack's.")

    def read(self, hook: Hook, settings: SlackSettings) -> Reading:
        reading = Reading()
        try:
            if hook.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
                _read_form(dict(read_form(hook.body)), settings, reading)
            else:
                _read_event(read_object(hook.body), settings, reading)
        except Malformed as error:
            reading.malformed(error, hook.body.decode("utf-8", "replace"))
        return reading

    def lacks(self, settings: SlackSettings, credentials: SlackCredentials) -> str | None:
        return None if credentials.bot_token else "bot_token"

    def paces(self, details: Mapping[str, Any], settings: SlackSettings) -> list[Pace]:
        """A message a second into a Slack channel, whatever the thread."""
        return [whole_channel(settings.per_second, self.per_second), Pace(str(details["channel"]), 1.0)]

    def cut(self, text: str, settings: SlackSettings, *, template: bool = False) -> list[str]:
        """`&`, `<` and `>` are sent as entities of up to five characters, which count."""
        return [
            short
            for part in split(text, MAX_TEXT_UNITS)
            for short in (split(part, MAX_TEXT_UNITS // 5) if units(_escaped(part)) > MAX_TEXT_UNITS else [part])
        ]

    def render(
        self,
        outgoing: Outgoing,
        settings: SlackSettings,
        credentials: SlackCredentials,
        *,
        base_url: str | None = None,
    ) -> Call:
        """Into the thread that was answered; `&`, `<` and `>` would be markup."""
        body = {
            **described(channel=outgoing.details["channel"], thread_ts=outgoing.details.get("thread")),
            "text": _escaped(outgoing.text),
        }
        headers = {"authorization": f"Bearer {credentials.bot_token}"}
        return Call(method="POST", url=f"{base_url or API}/chat.postMessage", headers=headers, body=body)

    def judge(self, status: int, headers: Mapping[str, str], body: bytes) -> Sent | Refused:
        try:
            answer = read_object(body)
        except Malformed:
            answer = {}
        if status == 200 and answer.get("ok") is True:
            sent = answer.get("ts")
            return Sent(message_id=sent if isinstance(sent, str) else None)
        code = str(answer.get("error") or status)
        return Refused(
            verdict=_verdict(code, status),
            code=code,
            message=f"Slack answered {code}",
            after_s=retry_after_s(headers),
        )


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def _verdict(code: str, status: int) -> Any:
    """What is of one Slack channel alone (`not_in_channel`, `is_archived`, …) is permanent."""
    if status in {502, 504} and code == str(status):
        return "unknown"
    if code in LIMITED or status == 429:
        return "limited"
    if code in PAUSE:
        return "pause"
    return "retry" if code in RETRY or status >= 500 else "permanent"


def _read_event(body: dict[str, Any], settings: SlackSettings, reading: Reading) -> None:
    kind = member(body, "type", str)
    if kind == "url_verification":
        reading.answer = Answer(member(body, "challenge", str).encode("utf-8", "replace"))
        return
    if kind != "event_callback":
        reading.keep(kind[:64], body)
        return
    if settings.app_id not in (None, body.get("api_app_id")):
        reading.keep("foreign", body)
        return
    event = member(body, "event", dict)
    name = member(event, "type", str)
    if name not in {"message", "app_mention"}:
        reading.keep(name[:64], body)
    elif _is_echo(event, settings) or not _is_for_us(name, event, settings):
        reading.ignored += 1
    else:
        _read_message(name, event, optional(body, "team_id", str), reading)


def _is_echo(event: dict[str, Any], settings: SlackSettings) -> bool:
    """Said by a bot, ourselves above all, or no saying: an edit, a join …"""
    own = settings.bot_user_id is not None and event.get("user") == settings.bot_user_id
    return own or "bot_id" in event or optional(event, "subtype", str) not in _SUBTYPES


def _is_for_us(name: str, event: dict[str, Any], settings: SlackSettings) -> bool:
    return name == "app_mention" or event.get("channel_type") == "im" or settings.all_messages


def _read_message(name: str, event: dict[str, Any], team: str | None, reading: Reading) -> None:
    channel, user, at = (identifier(event, key) for key in ("channel", "user", "ts"))
    text = html.unescape(_MENTION.sub(" ", optional(event, "text", str) or "").strip())
    files = [
        described(
            kind="file",
            id=optional(each, "id", str),
            mime_type=optional(each, "mimetype", str),
            filename=optional(each, "name", str),
        )
        for each in objects(event, "files")
    ]
    shown = (unseen(kind_of_file(each.get("mime_type")), each.get("filename")) for each in files)
    said = "\n".join(filter(None, [*shown, text]))
    if not said:
        reading.keep("empty", event)
        return
    direct = event.get("channel_type") == "im"
    thread = optional(event, "thread_ts", str) or (None if direct else at)
    details = described(
        type=name,
        message_id=at,
        channel=channel,
        thread=thread,
        user=user,
        team=team,
        sent_s=unix_s(event, "ts"),
        media=files,
    )
    reading.messages.append(
        Inbound(
            id=f"{channel}/{at}",
            user=user if direct else f"room:{channel}",
            conversation=f"{channel}/{thread}" if thread else channel,
            text=said,
            details=details,
        )
    )


def _read_form(form: dict[str, Any], settings: SlackSettings, reading: Reading) -> None:
    """A slash command, or what was clicked."""
    if form.get("ssl_check") == "1":
        reading.ignored += 1
        return
    content = read_object(form["payload"].encode("utf-8", "replace")) if "payload" in form else form
    if settings.app_id not in (None, content.get("api_app_id")):
        reading.keep("foreign", content)
    elif "command" in content:
        _read_command(content, reading)
    elif content.get("type") == "block_actions":
        for action in member(content, "actions", list):
            _read_action(content, action, reading)
    else:
        reading.keep(str(content.get("type") or "form")[:64], content)


def _read_command(form: dict[str, Any], reading: Reading) -> None:
    channel, user = identifier(form, "channel_id"), identifier(form, "user_id")
    text = " ".join(filter(None, [member(form, "command", str), optional(form, "text", str)]))
    details = described(type="command", channel=channel, user=user, team=optional(form, "team_id", str))
    reading.messages.append(
        Inbound(
            id=f"trigger/{identifier(form, 'trigger_id')}",
            user=user,
            conversation=f"{channel}/{user}",
            text=text,
            details=details,
        )
    )


def _read_action(content: dict[str, Any], action: Any, reading: Reading) -> None:
    """A click continues the thread it stands in."""
    if not isinstance(action, dict):
        raise Malformed("`actions` must hold objects")
    channel, user = identifier(member(content, "channel", dict), "id"), identifier(member(content, "user", dict), "id")
    words = (optional(optional(action, "text", dict) or {}, "text", str) or "").strip()
    chosen = optional(action, "selected_option", dict) or action
    value = (optional(chosen, "value", str) or "").strip()
    message = optional(content, "message", dict) or {}
    thread = optional(message, "thread_ts", str) or optional(message, "ts", str)
    direct = channel.startswith("D")
    details = described(
        type="action",
        channel=channel,
        thread=optional(message, "thread_ts", str) if direct else thread,
        user=user,
        choice=described(id=optional(action, "action_id", str), value=value),
    )
    thread = details.get("thread")
    reading.messages.append(
        Inbound(
            id=f"trigger/{identifier(content, 'trigger_id')}/{identifier(action, 'action_id')}",
            user=user if direct else f"room:{channel}",
            conversation=f"{channel}/{thread}" if thread else channel,
            text=words or value or "[button]",
            details=details,
        )
    )
