"""What a channel brings reaches Postgres: replies owed, refusals and notices, statuses, and what is kept."""

import asyncio
import json
import time
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from ops.channels.books import ChannelBooks
from ops.stack.standin import Standin
from shared import keys
from shared.config import Settings
from shared.db import Pool, jsonb, open_pool
from shared.redis import Commands, connect
from sql import queries
from tests.channels.conftest import Connect, Line
from tests.channels.providers import WhatsApp
from tests.channels.test_intake import execute
from tests.conftest import Database, Eventually
from tests.ingress.harness import Running
from workers.erasure.subjects import Subjects
from workers.main import open_worker
from workers.maintenance.inbox import UNREADABLE, InboxWriter

META = WhatsApp()


def now_us() -> int:
    return time.time_ns() // 1_000


@pytest.fixture
def worker_settings(settings: Settings, standin: Standin) -> Settings:
    changes = {"openai_api_key": "sk-test", "openai_base_url": f"{standin.url}/v1", "drain_s": 1.0}
    return Settings.read(
        {
            "REDIS_URL": settings.redis_url,
            "DATABASE_URL": settings.database_url,
            "secret": settings.secret.get_secret_value(),
            **{name.upper() if name.startswith("openai") else name: value for name, value in changes.items()},
        }
    )


async def rows(database: Database, query: str, *args: Any) -> list[Any]:
    connection = await asyncpg.connect(database.superuser)
    try:
        return await connection.fetch(query, *args)
    finally:
        await connection.close()


async def test_a_message_is_answered_and_its_reply_is_owed_to_its_channel(
    whatsapp: Line, worker_settings: Settings, with_keys: Database, eventually: Eventually
) -> None:
    await whatsapp.deliver(META.message("hello"))
    async with open_worker(worker_settings) as worker:
        task = asyncio.create_task(worker.async_run())
        owed = await eventually(lambda: rows(with_keys, "SELECT * FROM deliveries"))
        task.cancel()
    [delivery] = owed
    assert (delivery["url"], delivery["event_type"]) == (f"channel://{whatsapp.channel_id}", "job.succeeded")
    record = json.loads(delivery["body"])
    assert record["metadata"]["channel"]["to"] == "16505551"
    assert record["reply"]


async def test_refusals_and_one_notice_and_statuses_reach_the_books(
    connect_line: Connect, worker_settings: Settings, with_keys: Database, eventually: Eventually, redis: Redis
) -> None:
    line = await connect_line("whatsapp")
    await execute(with_keys.ops, "UPDATE channels SET agent = 'gone'")
    await line.deliver(META.batch([META.text("one"), META.text("two"), META.text("three", user="2")]))
    status = {"id": "wamid.9", "status": "delivered", "timestamp": "1603086313"}
    await line.deliver({"entry": [{"changes": [META.change(statuses=[status, status])]}]})
    await line.deliver(line.provider.unknown())
    async with open_worker(worker_settings) as worker:
        task = asyncio.create_task(worker.async_run())
        await eventually(lambda: rows(with_keys, "SELECT 1 FROM inbound_kept"))
        await eventually(lambda: rows(with_keys, "SELECT 1 FROM jobs HAVING count(*) = 3"))
        task.cancel()
    jobs = await rows(with_keys, "SELECT state, error->>'code' AS code FROM jobs")
    assert {(job["state"], job["code"]) for job in jobs} == {("rejected", "unknown_agent")}
    notices = await rows(with_keys, "SELECT conversation_id FROM deliveries WHERE event_type = 'job.rejected'")
    assert sorted(row["conversation_id"].rpartition(":")[2] for row in notices) == ["16505551", "16505552"]
    [known] = await rows(with_keys, "SELECT message_id, state FROM channel_statuses")
    assert (known["message_id"], known["state"]) == ("wamid.9", "delivered")
    assert await redis.xlen(keys.INBOX) == 0


@pytest.fixture
async def app(with_keys: Database) -> Any:
    pool = await open_pool(with_keys.app, 2, environment="production")
    yield pool
    await pool.close()


async def test_a_message_shows_the_furthest_of_its_states_whatever_their_order(with_keys: Database, app: Pool) -> None:
    def told(state: str, at_us: int) -> dict[str, Any]:
        return {"channel": "ch-1", "message_id": "wamid.1", "state": state, "at_us": at_us, "received_us": now_us()}

    async def shown() -> Any:
        [row] = await rows(with_keys, "SELECT known_of_message('a', 'ch-1', 'wamid.1') AS known")
        return json.loads(row["known"])

    await app.fetchval(queries["note_inbound"], "a", jsonb([told("read", 3), told("sent", 1)]))
    assert (await shown())["state"] == "read"
    await app.fetchval(queries["note_inbound"], "a", jsonb([told("delivered", 2), told("read", 9)]))
    found = await shown()
    assert found["state"] == "read"
    assert [(one["state"], one["at_us"]) for one in found["states"]] == [("sent", 1), ("delivered", 2), ("read", 3)]


async def test_the_same_thing_is_kept_once_and_counted(
    whatsapp: Line, running: Running, app: Pool, books: ChannelBooks
) -> None:
    strange = META.unknown()
    for _ in range(3):
        await whatsapp.deliver(strange)
    commands = Commands(connect(running.settings.redis_url))
    await InboxWriter(commands, app, Subjects([b"k" * 32])).drain()
    await commands.aclose()
    [kept] = await books.kept("a", whatsapp.channel_id, 10)
    assert (kept.reason, kept.times, kept.payload["type"]) == ("hologram", 3, "hologram")


async def test_what_is_kept_is_bounded_in_time_and_number(app: Pool, with_keys: Database) -> None:
    def kept(n: int, channel: str = "ch-1") -> dict[str, Any]:
        return {
            "channel": channel,
            "digest": f"{n}",
            "reason": "r",
            "payload": {},
            "received_us": now_us() + n,
        }

    many = [kept(n) for n in range(10_050)]
    old = {**kept(-1), "received_us": now_us() - 31 * 86_400_000_000}
    await app.fetchval(queries["note_inbound"], "a", jsonb([*many, old]))
    await app.fetchval(queries["note_inbound"], "a", jsonb([kept(1, "ch-2")]))
    [[left]] = await rows(with_keys, "SELECT count(*) FROM inbound_kept WHERE channel_id = 'ch-1'")
    assert left == 10_001
    assert await rows(with_keys, "SELECT 1 FROM inbound_kept WHERE digest = '-1'") == []
    assert len(await rows(with_keys, "SELECT 1 FROM inbound_kept WHERE channel_id = 'ch-2'")) == 1


async def test_one_that_cannot_be_written_holds_up_nobody(running: Running, redis: Redis, app: Pool) -> None:
    await redis.xadd(
        keys.INBOX, {"tenant": "a", "rows": '[{"message_id": "w", "state": "evaporated", "channel": "c"}]'}
    )
    await redis.xadd(keys.INBOX, {"nonsense": "x"})
    good = [{"channel": "ch-1", "digest": "d", "reason": "r", "payload": {}, "received_us": now_us()}]
    await redis.xadd(keys.INBOX, {"tenant": "a", "rows": json.dumps(good)})
    commands = Commands(connect(running.settings.redis_url))
    await InboxWriter(commands, app, Subjects([b"k" * 32])).drain()
    await commands.aclose()
    assert await redis.xlen(keys.INBOX) == 0
    assert await redis.xlen(UNREADABLE) == 2
    assert len(await app.fetch(queries["list_inbound_kept"], "a", "ch-1", 10)) == 1
