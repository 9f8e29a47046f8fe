"""Streams of responses: the order of events, their numbers, coming back, and what becomes of a second attempt."""

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import ResponseStreamEvent
from redis.asyncio import Redis

from shared import keys
from tests.conftest import Eventually
from tests.ingress.harness import Served, Worker
from tests.openai.harness import Product, begin_anew, ended, job_id_of

HEAD = ["response.created", "response.queued", "response.in_progress"]
ITEM = ["response.output_item.added", "response.content_part.added"]
TAIL = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
DELTA = "response.output_text.delta"


async def collected(stream: Any) -> list[Any]:
    return [event async for event in stream]


def text_of(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == DELTA)


def whole(events: list[Any]) -> None:
    """The order and the numbers of a stream that tells everything."""
    kinds = [event.type for event in events]
    deltas = kinds.count(DELTA)
    assert kinds == [*HEAD, *ITEM, *[DELTA] * deltas, *TAIL, "response.completed"]
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0


async def test_a_stream_tells_the_whole_response_in_the_order_of_openai(client: AsyncOpenAI, product: Product) -> None:
    await product.deployment.behave({"tokens_per_s": 200, "output_tokens": 40})
    events = await collected(await client.responses.create(model="support", input="hello", stream=True))
    whole(events)
    done = events[-1].response
    assert len([event for event in events if event.type == DELTA]) > 1
    assert text_of(events) == done.output_text == events[-4].text
    assert {event.response.id for event in events if event.type.startswith("response.c") and "part" not in event.type}
    assert await client.responses.retrieve(done.id) == done


async def test_the_sdks_own_stream_helper_reads_it(client: AsyncOpenAI, sync_client: OpenAI, product: Product) -> None:
    async with client.responses.stream(model="support", input="hello") as stream:
        response = await stream.get_final_response()
    assert "hello" in response.output_text

    def read() -> str:
        with sync_client.responses.stream(model="support", input="again") as stream:
            return stream.get_final_response().output_text

    assert "again" in await asyncio.to_thread(read)


async def test_a_background_response_is_followed_and_gone_on_with_behind_any_event(
    client: AsyncOpenAI, product: Product
) -> None:
    await product.deployment.behave({"tokens_per_s": 200, "output_tokens": 40})
    stream = await client.responses.create(model="support", input="hello", stream=True, background=True)
    events = await collected(stream)
    whole(events)
    response_id = events[0].response.id
    assert events[0].response.background is True
    for seen in (0, 2, 3, 5, 6, events[-2].sequence_number):
        again = await collected(await client.responses.retrieve(response_id, stream=True, starting_after=seen))
        assert again == [event for event in events if event.sequence_number > seen]
    last = events[-1].sequence_number
    assert await collected(await client.responses.retrieve(response_id, stream=True, starting_after=last)) == []
    assert await collected(await client.responses.retrieve(response_id, stream=True)) == events


async def test_the_stream_helper_of_a_running_response_starts_over_and_shows_what_is_new(
    client: AsyncOpenAI, server: Served, hands: Worker
) -> None:
    response = await client.responses.create(model="support", input="hello", background=True)
    (job_id,) = await hands.claim()
    await hands.say(job_id, "one ", "two ")
    shown: list[ResponseStreamEvent] = []
    async with client.responses.stream(response_id=response.id, starting_after=5) as stream:
        async for event in stream:
            shown.append(event)  # type: ignore[arg-type]
            if len(shown) == 1:
                await hands.say(job_id, "three")
                await hands.end(job_id, reply="one two three")
    assert [event.sequence_number for event in shown] == [6, 7, 9, 10, 11, 12]
    assert text_of(shown) == "two three"
    assert shown[-1].response.output_text == "one two three"  # type: ignore[union-attr]


async def test_a_stream_that_is_left_stops_nothing(client: AsyncOpenAI, product: Product) -> None:
    await product.deployment.behave({"tokens_per_s": 200, "output_tokens": 40})
    stream = await client.responses.create(model="support", input="hello", stream=True)
    first = await anext(aiter(stream))
    await stream.close()
    assert (await ended(client, first.response.id)).status == "completed"  # type: ignore[union-attr]


async def test_text_that_was_shown_and_is_void_fails_the_stream_and_not_the_response(
    client: AsyncOpenAI, server: Served, hands: Worker, redis: Redis
) -> None:
    stream = await client.responses.create(model="support", input="hello", stream=True)
    reading = aiter(stream)
    first = await anext(reading)
    response_id = first.response.id  # type: ignore[union-attr]
    (job_id,) = await hands.claim()
    await hands.say(job_id, "void")
    events = [first]
    while events[-1].type != DELTA:
        events.append(await anext(reading))
    await begin_anew(hands, job_id)
    events += [event async for event in reading]
    assert [event.type for event in events] == [*HEAD, *ITEM, DELTA, "response.failed"]
    failed = events[-1].response  # type: ignore[union-attr]
    assert (failed.status, failed.error.code) == ("failed", "server_error")  # type: ignore[union-attr]

    await hands.say(job_id, "good")
    await hands.end(job_id, reply="good")
    assert (await client.responses.retrieve(response_id)).output_text == "good"
    late = await collected(await client.responses.retrieve(response_id, stream=True))
    whole(late)
    assert text_of(late) == "good", "a client that saw none of the void text is not shown it"
    seen = events[-2].sequence_number
    back = await collected(await client.responses.retrieve(response_id, stream=True, starting_after=seen))
    assert back == events[-1:], "one that saw some is told that it is void"


async def test_an_attempt_that_showed_nothing_is_no_matter(client: AsyncOpenAI, product: Product) -> None:
    await product.deployment.behave({"faults": [{"status": 500}]})
    events = await collected(await client.responses.create(model="support", input="hello", stream=True))
    whole(events)


async def test_pieces_lost_on_the_way_are_made_good(client: AsyncOpenAI, server: Served, hands: Worker) -> None:
    response = await client.responses.create(model="support", input="hello", background=True)
    (job_id,) = await hands.claim()
    await hands.say(job_id, "one ")
    await hands.end(job_id, reply="one two")
    events = await collected(await client.responses.retrieve(response.id, stream=True))
    whole(events)
    assert text_of(events) == events[-1].response.output_text == "one two"


async def test_a_response_that_only_postgres_knows_can_be_streamed(
    client: AsyncOpenAI, product: Product, redis: Redis
) -> None:
    response = await client.responses.create(model="support", input="hello")
    await redis.delete(keys.job(job_id_of(response)), keys.events(job_id_of(response)))
    events = await collected(await client.responses.retrieve(response.id, stream=True))
    whole(events)
    assert text_of(events) == response.output_text
    assert events[-1].response == response
    back = await collected(await client.responses.retrieve(response.id, stream=True, starting_after=40))
    assert [event.type for event in back] == [*TAIL, "response.completed"]


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        ({"faults": [{"status": 400, "times": 4}]}, "failed", "server_error"),
        ({"faults": [{"status": 429, "times": 1_000}]}, "failed", "rate_limit_exceeded"),
        ({"faults": [{"finish": "refusal"}]}, "failed", "invalid_prompt"),
    ],
)
async def test_a_stream_ends_as_its_job_does(
    client: AsyncOpenAI, product: Product, behaviour: dict[str, Any], status: str, code: str
) -> None:
    await product.deployment.behave(behaviour)
    events = await collected(await client.responses.create(model="support", input="hello", stream=True))
    assert events[-1].type == f"response.{status}"
    assert events[-1].response.error.code == code
    found = await client.responses.retrieve(events[0].response.id)
    assert found == events[-1].response


async def test_a_cut_answer_ends_incomplete(client: AsyncOpenAI, product: Product) -> None:
    await product.deployment.behave({"output_tokens": 400})
    stream = await client.responses.create(model="support", input="hello", stream=True, max_output_tokens=20)
    events = await collected(stream)
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output[0].status == "incomplete"


async def test_a_cancelled_response_ends_its_stream(
    client: AsyncOpenAI, server: Served, eventually: Eventually
) -> None:
    stream = await client.responses.create(model="support", input="hello", stream=True, background=True)
    reading = aiter(stream)
    first = await anext(reading)
    await client.responses.cancel(first.response.id)  # type: ignore[union-attr]
    events = [event async for event in reading]
    assert events[-1].type == "response.failed"
    assert events[-1].response.status == "cancelled"


@pytest.mark.parametrize("query", [{"starting_after": -1}, {"starting_after": "x"}])
async def test_an_unusable_place_to_go_on_from_is_400(
    client: AsyncOpenAI, server: Served, query: dict[str, Any]
) -> None:
    response = await client.responses.create(model="support", input="hello", background=True)
    with pytest.raises(openai.BadRequestError) as error:
        await client.responses.retrieve(response.id, stream=True, **query)
    assert error.value.param == "starting_after"
