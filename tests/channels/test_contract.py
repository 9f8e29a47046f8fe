"""What every channel keeps, whoever the provider is. A new adapter needs its provider in `providers`."""

import asyncio
import json

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.channels import registry
from tests.channels.conftest import Connect, Line
from tests.channels.providers import PROVIDERS

every = pytest.mark.parametrize("kind", sorted(PROVIDERS))


def test_every_adapter_is_under_contract() -> None:
    assert set(registry.load()) == set(PROVIDERS)


@pytest.fixture
async def line(connect_line: Connect, kind: str) -> Line:
    return await connect_line(kind)


@every
async def test_a_message_is_queued_for_its_agent_before_the_answer(line: Line, queued, kind: str) -> None:
    response = await line.deliver(line.provider.message("café 😀 a/b", named="m.1"))
    assert response.status_code == 200, response.text
    [turn] = await queued()
    assert (turn.message, turn.agent, turn.tenant, turn.domain) == ("café 😀 a/b", "support", "a", "shop")
    assert turn.user_id.startswith(f"{kind}:")
    assert turn.conversation_id.startswith(f"{line.channel_id}:")
    assert turn.callback_url == f"channel://{line.channel_id}"
    assert turn.metadata["channel"]["kind"] == kind


@every
async def test_the_same_user_has_one_conversation_and_another_user_another(line: Line, queued, kind: str) -> None:
    for user in ("1", "1", "2"):
        await line.deliver(line.provider.message("hello", user=user))
    turns = await queued()
    assert len({turn.conversation_id for turn in turns}) == 2
    assert len({turn.user_id for turn in turns}) == 2


@every
async def test_what_comes_twice_is_one_job(line: Line, queued, kind: str) -> None:
    content = line.provider.message("hello")
    answers = await asyncio.gather(*(line.deliver(content) for _ in range(5)))
    answers.append(await line.deliver(content))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert len(await queued()) == 1


FAULTS = [(kind, fault) for kind in sorted(PROVIDERS) for fault in ("wrong secret", "no signature", "another body")]
FAULTS.remove(("telegram", "another body"))  # its secret token is not of the body: Telegram's own design


@pytest.mark.parametrize(("kind", "fault"), FAULTS)
async def test_what_the_provider_did_not_sign_is_refused_and_leaves_nothing(
    line: Line, queued, inbox, kind: str, fault: str
) -> None:
    request = line.provider.signed(line.provider.message("hello"), line.path)
    if fault == "wrong secret":
        request = line.provider.signed(line.provider.message("hello"), line.path, secret="not it")
    elif fault == "no signature":
        request.headers = {"content-type": request.headers["content-type"]}
    else:
        request.body = request.body.replace(b"hello", b"jello")
    response = await line.send(request)
    assert response.status_code == 403, response.text
    assert response.json()["type"] == "/problems/bad_signature"
    assert (await queued(), await inbox()) == ([], [])


@every
async def test_what_is_not_known_is_kept_and_acknowledged(line: Line, queued, inbox, kind: str) -> None:
    response = await line.deliver(line.provider.unknown())
    assert response.status_code == 200, response.text
    assert await queued() == []
    [kept] = await inbox()
    assert "hologram" in kept["reason"]
    assert "hologram" in str(kept["payload"])


@every
async def test_a_malformed_message_is_kept_and_acknowledged(line: Line, queued, inbox, kind: str) -> None:
    response = await line.deliver(line.provider.broken())
    assert response.status_code == 200, response.text
    [kept] = await inbox()
    assert kept["reason"] == "malformed"
    assert kept["payload"]["fault"]
    assert await queued() == []


@every
@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"7", b"\xff\xfe", b'{"a":' * 50_000], ids=range(6))
async def test_a_signed_body_of_nonsense_is_kept_and_acknowledged(line: Line, queued, inbox, kind: str, raw) -> None:
    response = await line.deliver(raw)
    assert response.status_code == 200, response.text
    assert [kept["reason"] for kept in await inbox()] == ["malformed"]
    assert await queued() == []


@every
async def test_a_body_beyond_the_bound_is_413(line: Line, queued, kind: str) -> None:
    limit = registry.load()[kind].max_body_bytes
    response = await line.deliver(b" " * (limit + 1))
    assert response.status_code == 413
    assert await queued() == []


@every
async def test_no_channel_of_another_kind_or_tenant_opens_for_it(
    connect_line: Connect, line: Line, queued, kind: str
) -> None:
    """A request is of the channel in its path, whatever else it says."""
    other = await connect_line(kind, tenant="b")
    request = line.provider.signed(line.provider.message("hello"), other.path)
    assert (await other.send(request)).status_code == 200
    assert [turn.tenant for turn in await queued()] == ["b"]


async def test_a_channel_that_is_none_is_404(whatsapp: Line) -> None:
    for channel_id in ("ch-0000000000000000", "nonsense", "ch-" + "x" * 500):
        response = await whatsapp.client.post(f"/v1/channels/{channel_id}/webhook", content=b"{}")
        assert response.status_code == 404
        assert response.json()["type"] == "/problems/not_found"


@every
async def test_a_message_too_long_for_the_deployment_is_a_rejected_job(
    line: Line, redis: Redis, queued, kind: str
) -> None:
    assert (await line.deliver(line.provider.message("x" * 32_001))).status_code == 200
    assert await queued() == []
    [end] = [entry for _, entry in await redis.xrange(keys.ENDED)]
    assert end[b"state"] == b"rejected"
    assert json.loads(end[b"error"])["code"] == "too_large"
