"""The embedding loop on real servers: many jobs' texts in one call, and nothing lost whatever the provider does."""

import asyncio

import pytest

from shared.errors import Unavailable
from tests.conftest import Eventually
from tests.embeddings.harness import SMALL, Memory, Process
from workers.embeddings.writer import BATCH


async def test_one_call_serves_many_jobs(memory: Memory, process: Process) -> None:
    await memory.tenant("other")
    items = await memory.said("acme", "ann", "my dog is called Rex", "I live in Oslo")
    items += await memory.said("acme", "bob", "I like to play the piano")
    items += await memory.said("other", "eve", "my dog is called Rex, too")
    assert await process.round(await memory.model()) == 4
    assert await memory.embedded() == sorted(items)
    assert await memory.pending() == []
    assert (await memory.served())["calls"] == 1


async def test_no_more_than_a_batch_goes_into_one_call(memory: Memory, process: Process) -> None:
    await memory.said("acme", "ann", *(f"note number {number}" for number in range(BATCH + 5)))
    model = await memory.model()
    assert (await process.round(model), await process.round(model), await process.round(model)) == (BATCH, 5, 0)
    assert (await memory.served())["calls"] == 2


async def test_the_same_text_is_asked_for_once(memory: Memory, process: Process) -> None:
    await memory.said("acme", "ann", "hello", "hello")
    await memory.said("acme", "bob", "hello")
    model = await memory.model()
    await process.round(model)
    books = await memory.served()
    alone = books["by_model"]["text-embedding-3-small"]["input_tokens"]
    await memory.said("acme", "cat", "hello")
    await process.round(model)
    assert (await memory.served())["calls"] == 1
    assert len(await memory.embedded()) == 4
    assert alone < 10  # "User: hello" once


async def test_a_text_that_is_refused_ends_up_alone(memory: Memory, process: Process) -> None:
    await memory.behave({"match": "poison", "faults": [{"status": 400, "times": 50}]})
    good = await memory.said("acme", "ann", *(f"note number {number}" for number in range(10)))
    (bad,) = await memory.said("acme", "ann", "poison")
    good += await memory.said("acme", "bob", "a last one")
    await process.round(await memory.model())
    assert await memory.embedded() == sorted(good)
    (left,) = await memory.pending()
    assert (left["item_id"], left["attempts"], left["last_error"]) == (bad, 1, "upstream_rejected")
    assert left["wait_s"] > 3_600


async def test_a_text_that_breaks_the_provider_ends_up_alone_after_a_while(memory: Memory, process: Process) -> None:
    await memory.behave({"match": "poison", "faults": [{"status": 500, "times": 100}]})
    good = await memory.said("acme", "ann", *(f"note number {number}" for number in range(5)))
    await memory.said("acme", "ann", "poison")
    model = await memory.model()
    for _ in range(4):
        await process.round(model)
        await memory.due()
    assert await memory.embedded() == good
    assert len(await memory.pending()) == 1


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"faults": [{"status": 500}]}, "upstream_unavailable"),
        ({"faults": [{"status": 429}]}, "upstream_rate_limited"),
        ({"faults": [{"status": 401}]}, "upstream_rejected"),  # our key is to blame: no text is tried by itself
        ({"faults": ["malformed"]}, "upstream_unavailable"),
        ({"dimensions": 768}, "upstream_unavailable"),
        ({"nan_for": "note"}, "upstream_unavailable"),
    ],
)
async def test_what_fails_waits_with_its_reason(
    memory: Memory, process: Process, rule: dict[str, object], why: str
) -> None:
    items = await memory.said("acme", "ann", "note one", "note two")
    await memory.behave(rule)
    await process.round(await memory.model())
    left = await memory.pending()
    assert [(each["item_id"], each["attempts"], each["last_error"]) for each in left] == [(n, 1, why) for n in items]
    assert all(each["waits"] for each in left)
    assert (await memory.served())["calls"] == 1
    await memory.behave()
    await memory.due()
    await memory.forgive()
    await process.round(await memory.model())
    assert await memory.embedded() == items


async def test_a_provider_that_says_when_is_asked_then(memory: Memory, process: Process) -> None:
    await memory.said("acme", "ann", "note one")
    await memory.behave({"faults": [{"status": 429, "retry_after_s": 300}]})
    await process.round(await memory.model())
    (left,) = await memory.pending()
    assert 200 < left["wait_s"] <= 300


async def test_waits_grow(memory: Memory, process: Process) -> None:
    await memory.said("acme", "ann", "note one")
    await memory.behave({"faults": [{"status": 503, "times": 10}]})
    waits = []
    for _ in range(4):
        await process.round(await memory.model())
        waits.append((await memory.pending())[0]["wait_s"])
        await memory.due()
    assert waits == sorted(waits)
    assert waits[-1] > 4 * waits[0]


async def test_one_vector_that_is_none_holds_up_no_other(memory: Memory, process: Process) -> None:
    await memory.behave({"nan_for": "poison"})
    good, bad, more = await memory.said("acme", "ann", "note one", "poison", "note two")
    await process.round(await memory.model())
    assert await memory.embedded() == [good, more]
    assert [(each["item_id"], each["last_error"]) for each in await memory.pending()] == [(bad, "unusable_vector")]


async def test_what_was_deleted_meanwhile_comes_back_no_more(
    memory: Memory, process: Process, eventually: Eventually
) -> None:
    await memory.behave({"latency_ms": 300})
    gone, kept = await memory.said("acme", "ann", "forget me"), await memory.said("acme", "bob", "keep me")
    embedding = asyncio.create_task(process.round(await memory.model()))

    async def under_way() -> bool:
        return bool((await memory.served())["concurrency"])

    await eventually(under_way)
    await memory.admin.execute("DELETE FROM memory_items WHERE user_id = 'ann'")
    await embedding
    assert gone
    assert await memory.embedded() == kept
    assert await memory.pending() == []


async def test_several_processes_share_the_work(memory: Memory) -> None:
    items = await memory.said("acme", "ann", *(f"note number {number}" for number in range(150)))
    model = await memory.model()
    async with memory.process() as one, memory.process() as two:
        while sum(await asyncio.gather(one.round(model), two.round(model), one.round(model))):
            pass
    assert await memory.embedded() == sorted(items)
    assert (await memory.served())["calls"] == 3


async def test_a_model_without_its_key_leaves_everything_waiting(memory: Memory) -> None:
    items = await memory.said("acme", "ann", "note one")
    memory.settings = memory.settings.model_copy(update={"openai_api_key": None})
    async with memory.process() as process:
        assert await process.round(await memory.model()) == 0
    assert [each["item_id"] for each in await memory.pending()] == items


async def test_redis_away_means_later(memory: Memory, process: Process) -> None:
    await memory.said("acme", "ann", "note one")
    await process.commands.aclose()
    with pytest.raises(Unavailable):
        await process.round(await memory.model())
    assert (await memory.served())["calls"] == 0
    await memory.due()
    async with memory.process() as another:
        await another.round(await memory.model())
    assert len(await memory.embedded(SMALL)) == 1


async def test_a_model_that_is_retired_meanwhile_takes_nothing(
    memory: Memory, process: Process, eventually: Eventually
) -> None:
    await memory.said("acme", "ann", "note one")
    await memory.behave({"latency_ms": 300})
    embedding = asyncio.create_task(process.round(await memory.model()))

    async def under_way() -> bool:
        return bool((await memory.served())["concurrency"])

    await eventually(under_way)
    await memory.admin.execute("UPDATE embedding_models SET state = 'retiring'")
    await embedding
    assert await memory.embedded() == []
