"""Anything at all in any place of what providers send: nothing raises, and all that is read can be written.

What raised here was answered 500, and came again, with its whole batch, for days.
"""

import copy
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from ingress.channels.intake import kept_row
from shared.channels import registry
from shared.channels.api import Hook, Reading
from shared.channels.registry import AnyChannel
from shared.db import jsonb
from shared.ids import uuid7
from shared.wire import TurnPayload, encode_turn
from tests.channels.providers import PROVIDERS, WhatsApp
from tests.channels.recorded import posts

NONSENSE: list[Any] = [None, 7, 1.5, True, " ", "\0", [], [7], {}, {"a": []}, 10**30]
GOOD = "still here, behind it"
Path = tuple[str | int, ...]


def places(value: Any, so_far: Path = ()) -> Iterator[Path]:
    yield so_far
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield from places(each, (*so_far, name))


def replaced(value: Any, place: Path, new: Any) -> Any:
    """A copy; what is not on the way is shared."""
    if not place:
        return new
    changed = copy.copy(value)
    changed[place[0]] = replaced(value[place[0]], place[1:], new)
    return changed


def contents(kind: str) -> Iterator[Any]:
    for post in posts(kind):
        clicked = kind == "slack" and "payload" in post.content
        yield json.loads(post.content["payload"]) if clicked else post.content


def read(adapter: AnyChannel, content: Any, **settings: Any) -> Reading:
    """As JSON, which all take; a click on Slack comes in a form."""
    known = msgspec.convert({**PROVIDERS[adapter.kind].settings, **settings}, adapter.settings)
    body, media_type = json.dumps(content).encode(), "application/json"
    if isinstance(content, dict) and "actions" in content:
        body, media_type = urlencode({"payload": body}).encode(), "application/x-www-form-urlencoded"
    query = {"bodySHA256": "x"} if adapter.kind == "twilio" else {}
    headers = {"content-type": media_type}
    return adapter.read(Hook(method="POST", url="", headers=headers, query=query, body=body, at_s=0), known)


def write(reading: Reading) -> None:
    """As the ingress does."""
    for message in reading.messages:
        assert message.text.strip()
        payload = TurnPayload(
            job_id=uuid7(),
            tenant="a",
            agent="support",
            conversation_id=message.conversation,
            message=message.text,
            user_id=message.user,
            metadata={"channel": message.details},
        )
        assert encode_turn(payload, enqueued_ms=1)
        assert message.id.encode()
    jsonb([msgspec.to_builtins(status) for status in reading.statuses])
    jsonb([kept_row(kept) for kept in reading.kept])


@pytest.mark.parametrize("kind", sorted(PROVIDERS))
def test_whatever_stands_anywhere_nothing_raises(kind: str) -> None:
    adapter = registry.load()[kind]
    wanting_more = {"whatsapp": "answer_reactions", "telegram": "edits", "slack": "all_messages"}.get(kind)
    settings = {wanting_more: True} if wanting_more else {}
    for content in contents(kind):
        for place in places(content):
            for nonsense in NONSENSE:
                broken = replaced(content, place, nonsense)
                try:
                    write(read(adapter, broken, **settings))
                except Exception as error:
                    error.add_note(f"{nonsense!r} at {place}")
                    raise


def test_a_batch_goes_on_behind_whatever_it_is() -> None:
    """An entry of Meta's that is broken anywhere, and a good one behind it."""
    meta, adapter = WhatsApp(), registry.load()["whatsapp"]
    behind = meta.batch([meta.text(GOOD)])["entry"]
    for content in contents("whatsapp"):
        for place in places(content["entry"]):
            if not place:
                continue
            for nonsense in (None, 7, [7], {"a": []}):
                entries = replaced(content["entry"], place, nonsense)
                found = read(adapter, {**content, "entry": [*entries, *behind]})
                assert GOOD in [message.text for message in found.messages], f"{nonsense!r} at {place}"
