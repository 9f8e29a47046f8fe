"""A turn from an accepted message to its committed end."""

from tests.turn.deployment import Deployment


async def test_a_message_gets_an_accounted_reply(deployment: Deployment) -> None:
    async with deployment.worker():
        job_id = await deployment.say("How do I reset my password?")
        record = await deployment.ended(job_id)
    assert record.state == "succeeded", record
    assert record.reply
    assert "reset my password" in record.reply
