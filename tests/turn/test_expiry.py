"""Messages that nobody started in time."""

import msgspec
import pytest

from shared import keys
from tests.conftest import Eventually
from tests.turn.deployment import Deployment
from tests.turn.test_policies import A_MINUTE
from workers.turn.retry import RetryPolicy


async def test_a_message_not_started_in_time_expires_with_its_followers_and_is_kept_for_inspection(
    deployment: Deployment, eventually: Eventually
) -> None:
    jobs = [await deployment.say(f"message {n}", ttl_s=1) for n in range(2)]
    late = await deployment.say("still wanted", ttl_s=600)
    expiry = f"{keys.queue('default')}:expiry"
    await deployment.commands.redis.zadd(expiry, dict.fromkeys(jobs, 1.0))  # their time is over
    async with deployment.worker():
        records = [await deployment.ended(job_id) for job_id in jobs]
        assert (await deployment.ended(late)).state == "succeeded"

        async def booked() -> bool:
            return all([await deployment.rows("jobs", job_id) for job_id in jobs])

        await eventually(booked)
    for n, (job_id, record) in enumerate(zip(jobs, records, strict=True)):
        assert (record.state, record.attempts) == ("expired", 0)
        assert record.error is not None
        assert record.error.code == "expired"
        (dead,) = await deployment.rows("dead_jobs", job_id)
        assert msgspec.json.decode(dead["payload"])["message"] == f"message {n}"
    assert (await deployment.served())["calls"] == 1
    assert await deployment.commands.redis.zcard(expiry) == 0


async def test_once_started_a_turn_does_not_expire(
    deployment: Deployment, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RetryPolicy, "of", lambda _settings: A_MINUTE)
    await deployment.behave({"faults": [{"status": 500}]})
    expiry = f"{keys.queue('default')}:expiry"

    async def retrying() -> bool:
        record = await deployment.intake.read(job_id)
        return record is not None and record.state == "retrying"

    job_id = await deployment.say("hello", ttl_s=60)
    assert await deployment.commands.redis.zscore(expiry, job_id) is not None
    async with deployment.worker():
        await eventually(retrying)
        assert await deployment.commands.redis.zcard(expiry) == 0, "nothing ends it while it waits"
        await deployment.hurry(job_id)
        record = await deployment.ended(job_id)
    assert (record.state, record.attempts) == ("succeeded", 2)
