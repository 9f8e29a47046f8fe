"""Showing that an answer is being written: once, while it is, and never in the way of the answer."""

import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from ops.stack.standin import Standin
from shared import keys
from shared.config import Settings
from shared.redis import Commands
from shared.redis import connect as open_redis
from shared.scripts import Intake
from shared.wire import TurnPayload
from tests.conftest import Database, Eventually
from tests.delivery.conftest import TENANT, Running
from tests.replies.conftest import DETAILS, Connect, Replies, now_us
from tests.turn.deployment import Deployment
from workers.replies.working import KEPT, LATE_US, Begun, Sign


@pytest.fixture
def whole(settings: Settings, standin: Standin) -> Settings:
    """With a model to answer."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    more = {"openai_api_key": "sk-test", "openai_base_url": f"{standin.url}/v1", "cache_ttl_s": 0}
    return Settings.read({**given, **more})


def sign_of(replies: Replies, *, age_us: int = 0, job: str = "job-1") -> Sign:
    at_us = now_us() - age_us
    return Sign(tenant=TENANT, channel=replies.channel_id, job=job, at_us=at_us, details=DETAILS[replies.kind])


async def shown(replies: Replies) -> list[str]:
    return [one["to"] for one in await replies.served() if one["kind"] == "working"]


async def push(redis: Redis, *signs: Sign) -> None:
    await redis.rpush(keys.WORKING, *(msgspec.json.encode(sign) for sign in signs))


@pytest.mark.parametrize(("kind", "whom"), [("whatsapp", "wamid.asked"), ("telegram", "771")])
async def test_a_worker_that_begins_has_it_shown_before_the_reply(
    whole: Settings,
    database: Database,
    standin: Standin,
    connect: Connect,
    running: Running,
    eventually: Eventually,
    kind: str,
    whom: str,
) -> None:
    replies = await connect(kind)
    async with httpx.AsyncClient(base_url=standin.url) as model:
        (await model.post("/_behaviour", json=[{"latency_ms": 600}])).raise_for_status()
    commands = Commands(open_redis(whole.redis_url))
    deployment = Deployment(whole, commands, Intake(commands, whole), replies.books, replies.provider)
    async with running(), deployment.worker():
        details = {"id": replies.channel_id, "kind": kind, **DETAILS[kind]}
        await deployment.say("hello", metadata={"channel": details}, callback_url=f"channel://{replies.channel_id}")
        await replies.become("delivered")
    await commands.aclose()
    kinds = [(one["kind"], one["to"]) for one in await replies.served()]
    assert [name for name, _ in kinds] == ["working", "message"]
    assert kinds[0] == ("working", whom)


async def test_what_is_late_over_or_paused_is_not_shown(
    whatsapp: Replies, running: Running, redis: Redis, eventually: Eventually
) -> None:
    await redis.hset(keys.job("job-1"), "state", "running")
    await redis.hset(keys.job("job-2"), "state", "succeeded")
    await push(redis, sign_of(whatsapp, age_us=LATE_US + 1), sign_of(whatsapp, job="job-2"), sign_of(whatsapp, job="x"))
    await redis.rpush(keys.WORKING, b"nonsense")
    await push(redis, sign_of(whatsapp))
    async with running():
        await eventually(lambda: shown(whatsapp))
        assert await shown(whatsapp) == ["wamid.asked"]
        await whatsapp.misbehave({"kind": "refuse", "status": 401, "code": 190})
        delivery = await whatsapp.owe("hello")
        await whatsapp.fault(delivery, "190")
        await push(redis, sign_of(whatsapp))

        async def is_empty() -> bool:
            return await redis.llen(keys.WORKING) == 0

        await eventually(is_empty)
    assert await shown(whatsapp) == ["wamid.asked"]


async def test_a_channel_without_such_a_sign_shows_none(
    connect: Connect, running: Running, redis: Redis, eventually: Eventually
) -> None:
    replies = await connect("slack")
    await redis.hset(keys.job("job-1"), "state", "running")
    await push(redis, sign_of(replies))
    await replies.owe("hello")
    async with running():
        await replies.become("delivered")
    assert await shown(replies) == []


async def test_the_list_is_short_however_long_nobody_takes_from_it(
    settings: Settings, redis: Redis, eventually: Eventually
) -> None:
    await push(redis, *(Sign(tenant="t", channel="c", job=str(n), at_us=0, details={}) for n in range(KEPT + 50)))
    commands = Commands(open_redis(settings.redis_url))
    begun = Begun(commands)
    message = {"agent": "support", "conversation_id": "c", "message": "m", "metadata": {"channel": {}}}
    begun.tell(TurnPayload(job_id="web", tenant="t", callback_url="https://example.org", **message))
    begun.tell(TurnPayload(job_id="last", tenant="t", callback_url="channel://ch", **message))
    await eventually(lambda: not begun._telling)
    await commands.aclose()
    assert await redis.llen(keys.WORKING) == KEPT
    newest = await redis.lindex(keys.WORKING, -1)
    assert msgspec.json.decode(newest, type=Sign).job == "last"


async def test_a_redis_that_is_away_is_no_fault_of_a_turn(eventually: Eventually) -> None:
    commands = Commands(open_redis("redis://127.0.0.1:1/0"))
    begun = Begun(commands)
    payload = TurnPayload(
        job_id="j",
        tenant="t",
        agent="a",
        conversation_id="c",
        message="m",
        metadata={"channel": {}},
        callback_url="channel://ch",
    )
    begun.tell(payload)
    await commands.aclose()
    await eventually(lambda: not begun._telling)  # an exception that nobody fetched would fail the test
