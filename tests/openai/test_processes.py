"""The unmodified SDK, blocking and async, against the product's own processes: everything it can do, once each.

The other files look closer at each of these, from within one process.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from ops.stack.standin import Standin
from shared.config import Settings
from tests.openai.harness import KEY, deaf_proxy
from tests.replies.fleet import Fleet, fleet_of
from tests.turn.deployment import Deployment

pytestmark = pytest.mark.timeout(300)  # processes start, on a machine that may be busy
AnyClient = OpenAI | AsyncOpenAI
PATIENCE_S = 60.0


@pytest.fixture
async def fleet(settings: Settings, deployment: Deployment, standin: Standin, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with httpx.AsyncClient(base_url=standin.url) as model:
        rules = [{"match": "a long one", "tokens_per_s": 5, "output_tokens": 400}, {"reply": "{count} {previous}"}]
        (await model.post("/_behaviour", json=rules)).raise_for_status()
    patient = settings.model_copy(update={"openai_wait_max_s": 60, "cache_ttl_s": 0})
    async with fleet_of(patient, tmp_path, workers=1, couriers=0) as started:
        yield started


async def settled(value: Any) -> Any:
    """What the blocking client returns, and the async one promises."""
    return await value if inspect.isawaitable(value) else value


async def listed(stream: Any) -> list[Any]:
    return [one async for one in stream] if hasattr(stream, "__aiter__") else list(stream)


async def finished(client: AnyClient, response_id: str) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            response = await settled(client.responses.retrieve(response_id))
            if response.status not in ("queued", "in_progress"):
                return response
            await asyncio.sleep(0.05)


async def followed(client: AnyClient, response_id: str, starting_after: int) -> list[Any]:
    """By the SDK's own helper, which drops what it has seen."""
    if isinstance(client, OpenAI):
        with client.responses.stream(response_id=response_id, starting_after=starting_after) as stream:
            return list(stream)
    async with client.responses.stream(response_id=response_id, starting_after=starting_after) as streaming:
        return [event async for event in streaming]


async def test_the_sdk_finds_its_api(fleet: Fleet, deployment: Deployment) -> None:
    """One test, as the processes are what takes the time."""
    how: dict[str, Any] = {"api_key": KEY, "base_url": f"{fleet.url}/v1", "max_retries": 0}
    async with AsyncOpenAI(**how, _strict_response_validation=True) as client:
        await _all_that_there_is(client, "async")
    with OpenAI(**how, _strict_response_validation=True) as blocking:
        await _all_that_there_is(blocking, "blocking")
    await _repeats(fleet, deployment)


async def _all_that_there_is(client: AnyClient, name: str) -> None:
    assert {model.id for model in await listed(await settled(client.models.list()))} >= {"support", "sales"}
    await _conversations(client, name)
    await _streams(client)
    await _looking_after(client)
    await _chats(client)
    with pytest.raises(openai.NotFoundError) as refused:
        await settled(client.responses.create(model="gpt-5", input="x"))
    assert (refused.value.code, refused.value.type) == ("model_not_found", "invalid_request_error")


async def _conversations(client: AnyClient, name: str) -> None:
    """Going on, branching off, and by name."""
    one = await settled(client.responses.create(model="support", input="one", metadata={"order": "7"}, user="u-7"))
    assert (one.status, one.output_text, one.metadata, one.user) == ("completed", "1 ", {"order": "7"}, "u-7")
    two = await settled(
        client.responses.create(model="support", input="two", previous_response_id=one.id, background=True)
    )
    assert two.status in ("queued", "in_progress", "completed")
    two = await finished(client, two.id)
    branch = await settled(client.responses.create(model="support", input="other", previous_response_id=one.id))
    assert [two.output_text, branch.output_text] == ["2 one", "2 one"]
    assert two.conversation == one.conversation != branch.conversation
    for place in ("first", "second"):
        named = await settled(client.responses.create(model="support", input=place, conversation=f"order of {name}"))
    assert named.output_text == "2 first"


async def _streams(client: AnyClient) -> None:
    """Live, and again from any event on."""
    plain = await listed(await settled(client.responses.create(model="support", input="hello", stream=True)))
    assert plain[-1].type == "response.completed"
    stream = await settled(client.responses.create(model="support", input="hello", stream=True, background=True))
    events = await listed(stream)
    assert [event.sequence_number for event in events][:3] == [0, 1, 2]
    response_id = events[0].response.id
    for seen in (0, 4, events[-2].sequence_number):
        rest = [event for event in events if event.sequence_number > seen]
        again = await settled(client.responses.retrieve(response_id, stream=True, starting_after=seen))
        assert await listed(again) == rest
    # The helper puts a snapshot into some of its events: the numbers are what it was sent.
    shown = await followed(client, response_id, 4)
    assert [event.sequence_number for event in shown] == [
        event.sequence_number for event in events if event.sequence_number > 4
    ]
    assert shown[-1].response.output_text == events[-1].response.output_text


async def _looking_after(client: AnyClient) -> None:
    """Cancel, list what was asked, delete."""
    asked: Any = [{"role": "user", "content": "one"}, {"role": "user", "content": "a long one"}]
    response = await settled(client.responses.create(model="support", input=asked, background=True))
    cancelled = await settled(client.responses.cancel(response.id))
    assert cancelled.status == "cancelled"
    assert (await settled(client.responses.cancel(response.id))).status == "cancelled"
    done = await settled(client.responses.create(model="support", input=[{"role": "user", "content": "hello"}]))
    page = await settled(client.responses.input_items.list(done.id, order="asc"))
    assert [item.content[0].text for item in await listed(page)] == ["hello"]
    await settled(client.responses.delete(done.id))
    with pytest.raises(openai.NotFoundError):
        await settled(client.responses.retrieve(done.id))


async def _chats(client: AnyClient) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    plain = await settled(client.chat.completions.create(model="sales", messages=messages))
    assert (plain.choices[0].message.content, plain.choices[0].finish_reason) == ("1 ", "stop")
    assert plain.usage.total_tokens == plain.usage.prompt_tokens + plain.usage.completion_tokens > 0
    options: Any = {"include_usage": True}
    chunks = await listed(
        await settled(
            client.chat.completions.create(model="sales", messages=messages, stream=True, stream_options=options)
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "1 "
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens > 0) == ([], True)


async def _repeats(fleet: Fleet, deployment: Deployment) -> None:
    """A POST that the SDK repeats by itself is one job, two honest ones are two."""

    def ask(url: str) -> None:
        with OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=2) as client:
            client.responses.create(model="support", input="again: blocking")

    async with deaf_proxy(fleet.url) as url:
        await asyncio.to_thread(ask, url)
    async with deaf_proxy(fleet.url) as url, AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=2) as client:
        await client.responses.create(model="support", input="again: async")
    async with AsyncOpenAI(api_key=KEY, base_url=f"{fleet.url}/v1", max_retries=2) as client:
        await asyncio.gather(*(client.responses.create(model="support", input="again: same") for _ in range(2)))
    query = "SELECT body FROM messages WHERE role = 'user' AND body LIKE 'again: %' ORDER BY body"
    said = [row["body"] for row in await deployment.books.fetch(query)]
    assert said == ["again: async", "again: blocking", "again: same", "again: same"]
