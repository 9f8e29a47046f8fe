"""The body of each kind of delivery, made from what its row holds: the same bytes at every attempt.

A webhook is `{"type", "timestamp", "sequence", "data"}` (Standard Webhooks, and a place in the conversation's events);
`data` of a job's event is the resource of `GET /v1/jobs/{id}`. An endpoint may have the ends of jobs in the form of
OpenAI's webhooks instead, which hold a response's id only. A Slack message has the format of incoming webhooks, which
Discord takes at `…/slack` too.
"""

from typing import Any, Protocol

import msgspec

from shared.jobs import JobRecord, rfc3339
from shared.responses import openai_event
from workers.alerts.records import AlertEvent
from workers.alerts.words import headline, lines
from workers.delivery.books import Claimed, Format

PERMANENT_FOR_SLACK = frozenset({400, 403, 404, 410})
"""A hook that was removed, a channel that was archived, a message it will never take."""


class Row(Protocol):
    """Of the table `deliveries`: what an event is made of."""

    @property
    def id(self) -> str: ...
    @property
    def format(self) -> Format: ...
    @property
    def event_type(self) -> str: ...
    @property
    def sequence(self) -> int: ...
    @property
    def created_us(self) -> int: ...
    @property
    def body(self) -> dict[str, Any]: ...


def webhook_body(one: Claimed) -> bytes:
    return msgspec.json.encode(event_of(one))


def event_of(row: Row) -> dict[str, Any]:
    """What receivers are sent, from what the row holds."""
    if row.event_type.startswith("alert."):
        at_us, data = _of_alert(row.body)
    elif row.format == "openai":
        return openai_event(msgspec.convert(row.body, JobRecord), event_id=row.id)
    else:
        at_us, data = _of_job(row.body, row.created_us)
    return {"type": row.event_type, "timestamp": rfc3339(at_us), "sequence": row.sequence, "data": data}


def slack_body(one: Claimed) -> bytes:
    event = msgspec.convert(one.body, AlertEvent)
    text = "\n".join(_escaped(line) for line in lines(event))
    blocks = [
        {"type": "section", "text": {"type": "mrkdwn", "text": f"*{_escaped(headline(event))}*"}},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": text}]},
    ]
    return msgspec.json.encode({"text": _escaped(headline(event)), "blocks": blocks})


def mail_text(one: Claimed) -> tuple[str, str]:
    """Subject and text."""
    event = msgspec.convert(one.body, AlertEvent)
    return f"[Switchboard] {headline(event)}", "\n".join([headline(event), "", *lines(event), ""])


def _of_job(body: dict[str, Any], created_us: int) -> tuple[int, dict[str, Any]]:
    record = msgspec.convert(body, JobRecord)
    return record.finished_us or created_us, record.resource()


def _of_alert(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    event = msgspec.convert(body, AlertEvent)
    return event.crossed_us, event.resource()


def _escaped(text: str) -> str:
    """Slack's three control characters: a user's id must not mention a channel or make a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
