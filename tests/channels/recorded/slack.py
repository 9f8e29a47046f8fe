"""Slack's, as its Events API, slash commands and buttons call."""

import json
from typing import Any

from tests.channels.recorded.post import SLOW, Post


def _event(n: int, **event: Any) -> dict[str, Any]:
    at = f"17952000{n:02}.000{n:03}"
    return {
        "token": "Jhj5dZrVaK7ZwHHjRyZWjbDl",
        "team_id": "T1",
        "api_app_id": "A1",
        "event": {"user": "U1", "ts": at, "event_ts": at, "team": "T1", **event},
        "type": "event_callback",
        "event_id": f"Ev0{n:03}",
        "event_time": 1_795_200_000 + n,
        "authorizations": [{"team_id": "T1", "user_id": "UBOT", "is_bot": True}],
    }


def posts() -> list[Post]:
    direct = {"type": "message", "channel": "D1", "channel_type": "im"}
    mention = {"type": "app_mention", "channel": "C1", "text": "<@UBOT> where is it?"}
    file = {"id": "F1", "name": "photo.png", "mimetype": "image/png", "url_private": "https://files.slack.com/1"}
    thread = "1795200004.000004"
    clicked = {
        "type": "block_actions",
        "api_app_id": "A1",
        "user": {"id": "U1", "username": "zoe", "team_id": "T1"},
        "channel": {"id": "C2", "name": "help"},
        "trigger_id": "13345224609.738474920.8088930838d88f008e0",
        "message": {"type": "message", "ts": "1795100000.000001", "thread_ts": "1795100000.000000"},
        "actions": [{"action_id": "ok", "block_id": "b", "text": {"type": "plain_text", "text": "OK"}, "value": "1"}],
    }
    command = {
        "token": "Jhj5dZrVaK7ZwHHjRyZWjbDl",
        "team_id": "T1",
        "channel_id": "C3",
        "user_id": "U1",
        "command": "/ask",
        "text": "why",
        "api_app_id": "A1",
        "trigger_id": "13345224609.738474920.8088930838d88f008e1",
        "response_url": "https://hooks.slack.com/commands/1234/5678",
    }
    edited = {"type": "message", "subtype": "message_changed", "channel": "D1", "channel_type": "im", "message": {}}
    return [
        Post(_event(1, **direct, text=f"Hi 😀, {SLOW}", client_msg_id="1"), (("D1", f"Hi 😀, {SLOW}"),)),
        Post(
            _event(2, **direct, text="Is this it?", subtype="file_share", files=[file]),
            (("D1", "[image that you cannot see: photo.png]\nIs this it?"),),
        ),
        Post(_event(3, **edited)),
        Post(_event(4, **mention), (("C1", "where is it?"),)),
        Post(_event(4, **{**mention, "type": "message", "channel_type": "channel"})),  # the same, as another event
        Post(
            _event(5, **mention | {"text": "<@UBOT> and mine?", "user": "U2", "thread_ts": thread}),
            (("C1", "and mine?"),),
        ),
        Post({"payload": json.dumps(clicked)}, (("C2", "OK"),)),
        Post(command, (("C3", "/ask why"),)),
        Post(_event(6, type="reaction_added", reaction="thumbsup", item={"type": "message", "channel": "D1"})),
    ]
