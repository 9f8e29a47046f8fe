"""What providers really send, at the ingress: who is heard saying what, what is kept, and nothing twice."""

from collections import Counter

import pytest
from redis.asyncio import Redis

from shared import keys
from tests.channels.conftest import Connect
from tests.channels.providers import PROVIDERS
from tests.channels.recorded import heard, posts

KEPT = {
    "whatsapp": {
        "status:payment:failed": 1,
        "unsupported": 1,
        "unknown": 1,
        "reaction": 1,
        "system": 2,
        "edit": 1,
        "revoke": 1,
        "request_welcome": 1,
        "malformed": 1,
        "foreign": 1,
        "field:smb_message_echoes": 1,
        "field:account_update": 1,
    },
    "twilio": {},
    "telegram": {"empty": 1, "my_chat_member": 1},
    "slack": {"reaction_added": 1},
}
STATUSES = {"whatsapp": ["read", "sent", "delivered", "failed"], "twilio": ["delivered"], "telegram": [], "slack": []}


@pytest.mark.parametrize("kind", sorted(PROVIDERS))
async def test_everything_is_heard_kept_and_known_again(
    connect_line: Connect, queued, inbox, redis: Redis, kind: str
) -> None:
    line = await connect_line(kind)
    for post in posts(kind):
        response = await line.deliver(post.content)
        assert response.status_code == 200, response.text
    rows = await inbox()
    assert Counter(row["reason"] for row in rows if "reason" in row) == KEPT[kind]
    assert [row["state"] for row in rows if "state" in row] == STATUSES[kind]
    for post in posts(kind):
        assert (await line.deliver(post.content)).status_code == 200
    turns = await queued()
    assert [turn.message for turn in turns] == [text for post in posts(kind) for _, text in post.said]
    assert len({turn.conversation_id for turn in turns}) == len(heard(kind))
    assert await redis.xlen(keys.ENDED) == 0, "nothing was refused"
