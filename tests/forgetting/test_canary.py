"""A user goes through everything there is, is erased, and is looked for everywhere: tables, Redis, lines, numbers."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import generate_latest

from agents import registry
from ops.channels.books import ChannelBooks, NewChannel
from ops.stack.standin import Standin
from ops.users.erasing import Eraser
from shared import telemetry
from shared.config import Settings
from shared.db import Pool
from shared.sealing import Sealer
from shared.telemetry.metrics import REGISTRY
from tests.channels.providers import PROVIDERS
from tests.conftest import Database, Eventually
from tests.delivery.receiver import receiving
from tests.forgetting.searching import Everywhere
from tests.forgetting.test_erasing import a_user, erase, state_of
from tests.ingress.harness import Running, started
from tests.telemetry.conftest import Lines
from tests.turn.deployment import TENANT, Deployment
from workers.delivery.main import open_courier

CANARY, USER, CONVERSATION = "zorblax-quench-7719", "u-canary-55aa", "talk-of-canary-55aa"
PHONE = "16505559917734"
SEALING_KEY = b64encode(b"k" * 32).decode()
WHATSAPP = PROVIDERS["whatsapp"]


@pytest.fixture
def settings(redis_url: str, database: Database, standin: Standin) -> Settings:
    return Settings.read(
        {
            "redis_url": redis_url,
            "database_url": database.app,
            "ops_database_url": database.ops,
            "openai_api_key": "sk-test",
            "openai_base_url": f"{standin.url}/v1",
            "secret": "a secret of tests, long enough",
            "credentials_key": SEALING_KEY,
            "degraded_reply": "none",
            "drain_s": 1.0,
            "delivery_allow_private": True,
            "log_level": "DEBUG",
        }
    )


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str], settings: Settings) -> Lines:
    telemetry.configure(settings)
    return Lines(capsys)


@pytest.fixture
async def ingress(settings: Settings, with_keys: None, lines: Lines) -> AsyncIterator[Running]:
    async with started(settings) as running:
        yield running


@pytest.fixture
async def channel(ops_pool: Pool, deployment: Deployment) -> str:
    books = ChannelBooks(ops_pool, ops_pool, deployment.commands, Sealer(SEALING_KEY), registry.load())
    new = NewChannel("whatsapp", "whatsapp", "support", "shop", None, WHATSAPP.settings, WHATSAPP.credentials)
    return (await books.create(TENANT, new, "tests")).id


async def deliver(client: httpx.AsyncClient, channel: str, content: object) -> None:
    path = f"/v1/channels/{channel}/webhook"
    request = WHATSAPP.signed(content, path)
    (await client.post(path, content=request.body, headers=request.headers)).raise_for_status()


def a_status(state: str) -> object:
    status = {"id": "wamid.sent", "status": state, "timestamp": "1749416383", "recipient_id": PHONE}
    return {
        "object": "whatsapp_business_account",
        "entry": [{"id": "WABA", "changes": [WHATSAPP.change(statuses=[status])]}],
    }


def unknown() -> object:
    return WHATSAPP.batch([{"from": PHONE, "id": "wamid.odd", "type": "hologram", "hologram": {"says": CANARY}}])


async def live_a_life(client: httpx.AsyncClient, hook: str) -> None:
    """Everything that leaves something behind and ends."""
    path = "/v1/agents/sales/messages"
    body = {"user_id": USER, "message": f"What is {CANARY}?"}
    asked_thrice: list[dict[str, object]] = [
        {"conversation_id": CONVERSATION, "callback_url": hook, "metadata": {"note": CANARY}, "feature": "chat"},
        {"conversation_id": CONVERSATION},  # with a history now
        {},  # asked before: a kept answer
    ]
    for number, extra in enumerate(asked_thrice):
        said = await client.post(path, json={**body, **extra}, headers={"idempotency-key": f"key-{number}"})
        job_id = said.raise_for_status().json()["id"]
        (await client.get(f"/v1/jobs/{job_id}?wait=20")).raise_for_status()
        async with client.stream("GET", f"/v1/jobs/{job_id}/events") as events:
            assert CANARY in "".join([line async for line in events.aiter_lines()])
    asked = {"model": "support", "input": [{"role": "user", "content": CANARY}], "user": USER, "instructions": CANARY}
    answered = (await client.post("/v1/responses", json=asked, timeout=90)).raise_for_status()
    assert answered.json()["status"] == "completed"
    for text in ("one", "two"):
        merged = {"message": f"{text} {CANARY}", "user_id": USER, "conversation_id": "merging", "policy": "merge"}
        last = (await client.post("/v1/agents/support/messages", json=merged)).raise_for_status().json()["id"]
    (await client.get(f"/v1/jobs/{last}?wait=20")).raise_for_status()


async def write_from_a_messenger(client: httpx.AsyncClient, channel: str) -> None:
    await deliver(client, channel, WHATSAPP.message(CANARY, user=PHONE.removeprefix("1650555")))
    await deliver(client, channel, a_status("delivered"))
    await deliver(client, channel, unknown())


async def be_in_trouble(deployment: Deployment, eventually: Eventually) -> None:
    """A dead job, one that waits for its retry, and one behind it."""
    await deployment.behave(
        {"match": "doomed", "faults": [{"status": 400, "times": 100}]},
        {"match": "later", "faults": [{"status": 429, "retry_after_s": 60, "times": 100}]},
    )
    dead = await deployment.say(f"doomed {CANARY}", user=USER, conversation="doomed-of-canary-55aa")
    assert (await deployment.ended(dead)).state == "dead"
    waiting = await deployment.say(f"later {CANARY}", user=USER, conversation="later-of-canary-55aa")
    await deployment.say(f"behind {CANARY}", user=USER, conversation="later-of-canary-55aa")

    async def retrying() -> bool:
        return await state_of(deployment, waiting) == "retrying"

    await eventually(retrying)


async def be_known_to_operators(deployment: Deployment) -> None:
    """Settings that name the user, and an alert about them."""
    document = json.dumps({"user_tiers": {USER: "pro"}, "unlimited": True})
    await deployment.books.execute("UPDATE tenants SET settings = $2 WHERE tenant_id = $1", TENANT, document)
    changed = json.dumps({"settings": {"user_tiers": {USER: "pro"}}})
    await deployment.books.execute(
        "INSERT INTO tenant_changes (tenant_id, changed_by, action, after) VALUES ($1, 'tests', 'changed', $2)",
        TENANT,
        changed,
    )
    await deployment.books.execute(
        "INSERT INTO alert_events (tenant_id, name, metric, scope, period, threshold, threshold_limit, value) "
        "VALUES ($1, 'budgets', 'budget', 'user-month:' || $2, '2026-11', 1, 1, 1)",
        TENANT,
        USER,
    )
    await deployment.books.execute(
        "SELECT set_config('switchboard.tenant', $1, false), "
        """tell_alert(e, $1, '[{"kind": "email", "to": "ops@example.org"}]') FROM alert_events AS e""",
        TENANT,
    )


async def test_after_erasure_nothing_anywhere_holds_the_user(
    ingress: Running,
    deployment: Deployment,
    eraser: Eraser,
    everywhere: Everywhere,
    channel: str,
    settings: Settings,
    lines: Lines,
    eventually: Eventually,
) -> None:
    async with (
        ingress.client("sk-chat-only") as client,
        receiving() as receiver,
        open_courier(settings) as courier,
        deployment.worker(),
    ):
        delivering = asyncio.create_task(courier.run())
        await be_known_to_operators(deployment)
        await live_a_life(client, receiver.url)
        await eventually(lambda: receiver.posts)
        courier.leave()
        await delivering
        await write_from_a_messenger(client, channel)
        await be_in_trouble(deployment, eventually)

        async def drained() -> bool:
            return not await deployment.commands.redis.xlen("sb:inbox")

        await eventually(drained)
        await eventually(lambda: deployment.books.fetchval("SELECT count(*) FROM inbound_kept"))
        found = {place.split(":")[0].split(".")[0] for place in await everywhere.find(CANARY, USER, PHONE)}
        assert found >= {
            "messages", "jobs", "dead_jobs", "deliveries", "users", "conversations", "llm_calls", "tenants",
            "tenant_changes", "alert_events", "channel_statuses", "inbound_kept", "sb",
        }  # fmt: skip
        spent = sum(row["cost_nano_usd"] for row in await deployment.ledger())

        await erase(eraser, a_user(USER))
        assert await everywhere.find(CANARY, USER, "canary-55aa") != [], "the messenger knows them by another name"
        await erase(eraser, a_user(f"whatsapp:{PHONE}"))
        assert await everywhere.find(CANARY, USER, "canary-55aa", PHONE) == []

        await deliver(client, channel, a_status("read"))  # of a message that was sent before
        await deliver(client, channel, WHATSAPP.message(CANARY, named="wamid.x", user="7"))  # of somebody else
        await eventually(drained)
        assert await everywhere.find(PHONE) == []
    assert sum(row["cost_nano_usd"] for row in await deployment.ledger()) >= spent > 0
    await deployment.check_money()
    for text in (CANARY, USER, "canary-55aa", PHONE):
        assert text not in lines.text
        assert text not in generate_latest(REGISTRY).decode()


async def test_a_message_that_its_messenger_repeats_does_not_bring_the_user_back(
    ingress: Running,
    deployment: Deployment,
    eraser: Eraser,
    everywhere: Everywhere,
    channel: str,
    eventually: Eventually,
) -> None:
    content = WHATSAPP.message(CANARY, user=PHONE.removeprefix("1650555"))
    async with ingress.client("sk-chat-only") as client, deployment.worker():
        await deliver(client, channel, content)
        await eventually(lambda: deployment.books.fetchval("SELECT count(*) FROM jobs"))
        await erase(eraser, a_user(f"whatsapp:{PHONE}"))
        await deliver(client, channel, content)
        assert await deployment.commands.redis.keys("arq:job:*") == []
    assert await everywhere.find(CANARY, PHONE) == []
