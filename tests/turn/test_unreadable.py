"""Jobs of ours whose payload cannot be used: they end in Postgres all the same, and hold up nobody."""

import msgspec
import pytest

from shared import keys
from tests.turn.deployment import Deployment

WRONG_SHAPE = b'{"t":null,"f":"turn","a":[],"k":{"payload":{"job_id":"x","words":"of a later version"}},"et":0}'
UNKNOWN_FUNCTION = b'{"t":null,"f":"unheard_of","a":[],"k":{},"et":0}'


@pytest.mark.parametrize("payload", [WRONG_SHAPE, UNKNOWN_FUNCTION, b"\x80\x04not json", b"{}"])
async def test_a_payload_that_cannot_be_read_goes_to_the_dead_store_and_the_next_job_goes_on(
    deployment: Deployment, payload: bytes
) -> None:
    broken = await deployment.say("broken")
    follower = await deployment.say("fine")
    await deployment.commands.redis.set(keys.arq_job(broken), payload)
    async with deployment.worker():
        record, after = await deployment.ended(broken), await deployment.ended(follower)
    assert (record.state, after.state) == ("rejected", "succeeded")
    assert record.error is not None
    assert record.error.code == "unrunnable"
    (dead,) = await deployment.rows("dead_jobs", broken)
    assert msgspec.json.decode(dead["payload"]) == payload.decode(errors="replace")
    assert [row["state"] for row in await deployment.rows("jobs", broken)] == ["rejected"]


async def test_a_function_that_is_unknown_keeps_the_message_it_came_with(deployment: Deployment) -> None:
    job_id = await deployment.say("hello")
    payload = await deployment.commands.redis.get(keys.arq_job(job_id))
    await deployment.commands.redis.set(keys.arq_job(job_id), payload.replace(b'"f":"turn"', b'"f":"unheard_of"'))
    async with deployment.worker():
        record = await deployment.ended(job_id)
    assert record.state == "dead"
    assert [m["body"] for m in await deployment.rows("messages", job_id)] == ["hello"]
