"""Leaving: what can finish finishes, the rest goes back to the front and costs no attempt."""

import asyncio
import signal
import sys

from shared import keys
from shared.config import Settings
from tests.conftest import START_S, Eventually
from tests.turn.deployment import Deployment, environment_of


async def test_a_worker_told_to_stop_finishes_what_it_can_and_hands_back_the_rest(
    deployment: Deployment, settings: Settings, eventually: Eventually
) -> None:
    await deployment.behave(
        {"match": "short", "held": True}, {"match": "long", "tokens_per_s": 1, "output_tokens": 400}
    )
    short = await deployment.say("short", conversation="short")
    long = await deployment.say("long", conversation="long")
    environment = environment_of(settings.model_copy(update={"drain_s": 3.0}))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops", "worker", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    await eventually(lambda: deployment.under_way(2), START_S)
    queued = await deployment.say("queued", conversation="queued-after")
    process.send_signal(signal.SIGTERM)
    await deployment.behave({"match": "queued"}, {"tokens_per_s": 1, "output_tokens": 400})
    assert await process.wait() == 0
    assert (await deployment.ended(short)).state == "succeeded"
    assert await deployment.commands.redis.zcard(f"{keys.queue('default')}:leases") == 0
    score = await deployment.commands.redis.zscore(keys.queue("default"), long)
    assert score is not None
    assert score > 0, "it is not running and not locked"

    await deployment.behave({})
    async with deployment.worker():
        record = await deployment.ended(long)
        assert (await deployment.ended(queued)).state == "succeeded"
    assert (record.state, record.attempts) == ("succeeded", 1), "being handed back is no attempt"
    statuses = [row["status"] for row in await deployment.rows("llm_calls", long)]
    assert statuses == ["aborted", "ok"], "the call that was stopped is in the books"
