"""All of a request is in Redis before the answer: what it costs, what is refused, what is sent again."""

import asyncio
import json
from base64 import b64encode
from typing import Any

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from ingress.channels.intake import MAX_KEPT_BYTES, REPEATED_FOR_S
from shared import keys
from shared.config import Settings
from tests.channels.conftest import Connect, Line, give, through_another
from tests.channels.providers import WhatsApp
from tests.conftest import Database
from tests.ingress.harness import MESSAGES, Running, Worker

META = WhatsApp()


async def execute(dsn: str, statement: str, *args: Any) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement, *args)
    await connection.close()


async def test_a_whole_batch_is_one_round_trip(whatsapp: Line, running: Running, queued) -> None:
    await whatsapp.deliver(META.message("warm"))  # channel, script and connection are known from here on
    before = running.ingress.commands.round_trips
    body = META.batch([META.text(f"{n}", user=str(n % 7)) for n in range(60)], [META.text("last")])
    body["entry"].append({"changes": [META.change(statuses=[{"id": "w", "status": "sent"}], errors=[{"code": 1}])]})
    assert (await whatsapp.deliver(body)).status_code == 200
    assert running.ingress.commands.round_trips - before == 1
    assert len(await queued()) == 62


async def test_message_ids_are_remembered_for_seven_days(whatsapp: Line, redis: Redis) -> None:
    await whatsapp.deliver(META.message("hello"))
    [name] = await redis.keys("sb:idem:a:*")
    assert REPEATED_FOR_S - 60 < await redis.ttl(name) <= REPEATED_FOR_S == 604_800


async def test_the_same_id_through_another_channel_is_another_message(connect_line: Connect, queued) -> None:
    lines = [await connect_line("whatsapp"), await connect_line("whatsapp")]
    for line in lines:
        await line.deliver(META.message("hello", named="wamid.same"))
    assert len(await queued()) == 2


@pytest.fixture
async def rejecting(connect_line: Connect, with_keys: Database) -> Line:
    line = await connect_line("whatsapp")
    await give(with_keys, unlimited=True, agents={"support": {"policy": "reject"}})
    return line


async def test_what_a_policy_refuses_is_a_rejected_job_and_acknowledged(
    rejecting: Line, running: Running, redis: Redis, queued
) -> None:
    assert (await rejecting.deliver(META.message("first"))).status_code == 200
    before = running.ingress.commands.round_trips
    body = META.batch([META.text("second"), META.text("third"), META.text("of another", user="2")])
    assert (await rejecting.deliver(body)).status_code == 200
    assert [turn.message for turn in await queued()] == ["first", "of another"]
    ends = [entry for _, entry in await redis.xrange(keys.ENDED)]
    assert [json.loads(end[b"payload"])["k"]["payload"]["message"] for end in ends] == ["second", "third"]
    assert running.ingress.commands.round_trips - before <= 3  # the first refusal also brings its script
    async with running.client() as caller:
        job = (await caller.get(f"/v1/jobs/{ends[0][b'id'].decode()}")).json()
    assert (job["state"], job["error"]["code"]) == ("rejected", "conversation_busy")
    assert job["metadata"]["channel"]["message_id"].startswith("wamid.")


def codes(entries: list[Any]) -> list[str]:
    return [json.loads(entry[b"error"])["code"] for _, entry in entries]


async def test_a_users_own_limit_at_webhooks_is_kept_within_a_batch(
    whatsapp: Line, with_keys: Database, redis: Redis, queued
) -> None:
    await give(with_keys, rates={"webhook_user_per_min": 2})
    body = META.batch([META.text(f"{n}") for n in range(4)], [META.text("of another", user="2")])
    assert (await whatsapp.deliver(body)).status_code == 200
    assert [turn.message for turn in await queued()] == ["0", "1", "of another"]
    ends = await redis.xrange(keys.ENDED)
    assert codes(ends) == ["rate_limited"] * 2
    assert "through this endpoint" in ends[0][1][b"error"].decode()
    assert (await whatsapp.deliver(body)).status_code == 200
    assert await redis.xlen(keys.ENDED) == 2, "repeated, not refused once more"


async def test_at_a_webhook_its_limit_stands_in_place_of_the_users(
    whatsapp: Line, with_keys: Database, redis: Redis, queued
) -> None:
    """50 by default, where 30 are allowed over the API: a limit that is the larger of two would never be one."""
    await give(with_keys, rates={"user_per_min": 1, "webhook_user_per_min": 3})
    body = META.batch([META.text(f"{n}") for n in range(4)])
    assert (await whatsapp.deliver(body)).status_code == 200
    assert [turn.message for turn in await queued()] == ["0", "1", "2"]
    assert codes(await redis.xrange(keys.ENDED)) == ["rate_limited"]


async def test_a_spent_budget_makes_rejected_jobs(whatsapp: Line, with_keys: Database, redis: Redis, queued) -> None:
    await give(with_keys, budgets={"conversation_usd": "0.50"})
    user = "16505551"
    await redis.hset(keys.spent("conv", "a", f"{whatsapp.channel_id}:{user}"), "usd", 500_000_000)
    body = META.batch([META.text("mine"), META.text("of another", user="2")])
    assert (await whatsapp.deliver(body)).status_code == 200
    assert [turn.message for turn in await queued()] == ["of another"]
    assert codes(await redis.xrange(keys.ENDED)) == ["budget_exhausted"]


async def test_an_address_that_guesses_is_stopped_and_a_genuine_provider_behind_it_is_not(
    whatsapp: Line, settings: Settings, queued
) -> None:
    async with through_another(whatsapp, settings, unauthorized_per_min=3) as line:
        statuses = [(await line.deliver(META.message("x"), secret="guess")).status_code for _ in range(5)]
        assert statuses == [403, 403, 403, 429, 429]
        unknown = await line.client.post("/v1/channels/ch-0000000000000000/webhook", content=b"{}")
        assert unknown.status_code == 429
        assert (await line.deliver(META.message("genuine"))).status_code == 200
    assert [turn.message for turn in await queued()] == ["genuine"]


async def test_a_sender_is_told_of_one_refusal_in_a_while(rejecting: Line, redis: Redis) -> None:
    await rejecting.deliver(META.message("first"))
    for n in range(3):
        await rejecting.deliver(META.message(f"again {n}"))
    assert [entry[b"notice"] for _, entry in await redis.xrange(keys.ENDED)] == [b"1", b"0", b"0"]


async def test_a_refused_message_that_comes_again_is_refused_once(rejecting: Line, redis: Redis, queued) -> None:
    await rejecting.deliver(META.message("first"))
    refused = META.message("second")
    for _ in range(3):
        assert (await rejecting.deliver(refused)).status_code == 200
    await asyncio.gather(*(rejecting.deliver(META.message("third", named="wamid.3")) for _ in range(4)))
    assert await redis.xlen(keys.ENDED) == 2
    assert len(await queued()) == 1


async def test_a_refusal_stays_one_when_the_conversation_is_free_again(
    rejecting: Line, redis: Redis, worker: Worker, queued
) -> None:
    """The provider repeats what it was not sure of; an answer to something refused would surprise."""
    await rejecting.deliver(META.message("first"))
    refused = META.message("second")
    await rejecting.deliver(refused)
    [job_id] = await worker.claim()
    await worker.end(job_id)
    assert (await rejecting.deliver(refused)).status_code == 200
    assert await queued() == []


async def test_an_agent_that_is_gone_makes_rejected_jobs(whatsapp: Line, with_keys: Database, redis: Redis) -> None:
    await execute(with_keys.ops, "UPDATE channels SET agent = 'gone'")
    assert (await whatsapp.deliver(META.message("hello"))).status_code == 200
    [(_, end)] = await redis.xrange(keys.ENDED)
    assert json.loads(end[b"error"])["code"] == "unknown_agent"


async def test_a_full_queue_is_5xx_and_the_repeat_makes_no_duplicates(
    whatsapp: Line, settings: Settings, queued
) -> None:
    batch = META.batch([META.text(f"{n}") for n in range(3)])
    async with through_another(whatsapp, settings, max_queue_depth=2) as crowded:
        response = await crowded.deliver(batch)
    assert response.status_code == 503
    assert response.json()["type"] == "/problems/queue_full"
    assert (await whatsapp.deliver(batch)).status_code == 200
    assert [turn.message for turn in await queued()] == ["0", "1", "2"]


async def test_a_large_unknown_thing_is_kept_by_its_beginning(whatsapp: Line, inbox) -> None:
    body = META.batch([{"from": "1", "id": "w", "type": "hologram", "hologram": "x" * 100_000}])
    assert (await whatsapp.deliver(body)).status_code == 200
    [kept] = await inbox()
    assert kept["payload"]["cut"] is True
    assert len(kept["payload"]["start"]) == MAX_KEPT_BYTES


async def test_what_cannot_be_stored_is_changed_not_lost(whatsapp: Line, inbox) -> None:
    """Postgres has no NUL."""
    await whatsapp.deliver(META.batch([{"from": "1", "id": "w", "type": "holo\0gram"}]))
    [kept] = await inbox()
    assert "\0" not in json.dumps(kept)
    assert kept["reason"] == "holo\ufffdgram"


@pytest.mark.parametrize("lost", ["", b64encode(b"n" * 32).decode()], ids=["none", "another"])
async def test_a_deployment_that_lost_its_key_answers_503(
    whatsapp: Line, settings: Settings, queued, lost: str
) -> None:
    async with through_another(whatsapp, settings, credentials_key=SecretStr(lost)) as locked:
        assert (await locked.deliver(META.message("hello"))).status_code == 503
    assert await queued() == []


async def test_the_native_way_does_not_take_a_channel_for_a_callback(running: Running) -> None:
    async with running.client() as caller:
        refused: httpx.Response = await caller.post(MESSAGES, json={"message": "x", "callback_url": "channel://ch-1"})
    assert refused.status_code == 422
