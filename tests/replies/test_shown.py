"""What people are shown of replies: by the books that console and command line share, and by the command line."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from agents import registry
from ops.channels.books import ChannelBooks
from ops.channels.document import checked, spelled
from ops.deliveries.books import DeliveryBooks
from ops.deliveries.gate import Gate
from ops.deliveries.terminal import _why
from shared.channels.registry import load
from shared.config import Settings
from shared.db import Pool, open_pool
from shared.redis import Commands
from shared.redis import connect as open_redis
from shared.sealing import Sealer
from tests.conftest import Database
from tests.delivery.conftest import TENANT, Running
from tests.replies.conftest import SEALING_KEY, Replies


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    opened = await open_pool(database.ops, 2, environment="development")
    yield opened
    await opened.close()


async def test_a_delivery_shows_its_messages_and_a_channel_why_it_waits_until_it_is_resumed(
    settings: Settings, pool: Pool, books: asyncpg.Connection, whatsapp: Replies, running: Running
) -> None:
    gate = Gate(settings)
    deliveries = await DeliveryBooks.over(pool, settings, gate)
    commands = Commands(open_redis(settings.redis_url))
    channel_books = ChannelBooks(pool, pool, commands, Sealer(SEALING_KEY), registry.load())
    await whatsapp.misbehave({"kind": "refuse", "status": 401, "code": 190})
    delivery = await whatsapp.owe("hello")
    async with running():
        await whatsapp.fault(delivery, "190")
        [row] = await deliveries.page({"tenant": TENANT}, None, 10)
        assert (row.kind, row.state, _why(row)) == ("channel", "pending", "paused: 190")
        shown = (await channel_books.find(TENANT, whatsapp.channel_id)).resource()
        assert (shown["paused"]["code"], shown["paused"]["status"]) == ("190", 401)
        assert shown["paused"]["until_at"] > shown["paused"]["since_at"]
        resumed = await channel_books.resume(None, whatsapp.channel_id, "ada")
        assert resumed.paused is None
        await whatsapp.become("delivered")
    [taken] = await whatsapp.taken()
    await whatsapp.told(taken["id"], "read", at_us=1_000_000)
    found = (await deliveries.find(TENANT, delivery)).resource()
    [part] = found["parts"]
    assert (part["message_id"], part["status"], part["state"]) == (taken["id"], "read", "sent")
    assert part["statuses"] == [{"state": "read", "at": "1970-01-01T00:00:01.000000Z", "error": None}]
    assert [entry["outcome"] for entry in found["log"]] == ["put_off", "delivered"]
    changes = await books.fetch("SELECT action, changed_by FROM tenant_changes WHERE action = 'channel_resumed'")
    assert [tuple(row) for row in changes] == [("channel_resumed", "ada")]
    gate.close()
    await commands.aclose()


def test_ids_of_digits_are_text_where_text_is_wanted() -> None:
    adapter = load()["whatsapp"]
    given = spelled(adapter, {"phone_number_id": 106540352242922, "per_second": 20, "answer_reactions": True})
    assert given == {"phone_number_id": "106540352242922", "per_second": 20, "answer_reactions": True}
    credentials = {"app_secrets": ["x"], "verify_token": "x"}
    assert checked(adapter, given, credentials) == []
    assert [fault["field"] for fault in checked(adapter, {**given, "per_second": 0}, credentials)] == [
        "settings/per_second"
    ]
    assert [fault["field"] for fault in checked(adapter, {**given, "in_doubt": "guess"}, credentials)] == [
        "settings/in_doubt"
    ]


def test_production_refuses_to_send_replies_in_the_clear() -> None:
    safe = {"environment": "production", "secret": "x" * 20}
    faults = Settings.examine({**safe, "channel_urls": "whatsapp=http://127.0.0.1:9,slack=https://proxy.example"})[1]
    assert [fault.name for fault in faults] == ["SWITCHBOARD_CHANNEL_URLS"]
    assert Settings.examine({**safe, "channel_urls": "slack=https://proxy.example/api/"})[1] == []
    assert Settings.examine({"channel_urls": "slack"})[1][0].name == "SWITCHBOARD_CHANNEL_URLS"
