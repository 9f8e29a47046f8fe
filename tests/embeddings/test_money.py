"""Every token of a batch is somebody's, to the nano-USD, whoever is killed when."""

import asyncio
from decimal import Decimal

import pytest

from shared import keys
from shared.errors import Unavailable
from tests.conftest import Eventually
from tests.embeddings.harness import SMALL, Memory, Process
from workers.embeddings.batch import Item
from workers.embeddings.money import Bill

PRICE = 20
"""Nano-USD per token of text-embedding-3-small."""


async def test_a_batch_is_divided_among_those_it_was_made_for(memory: Memory, process: Process) -> None:
    await memory.tenant("other")
    await memory.said("acme", "ann", "my dog is called Rex", "I live in Oslo and I work in Bergen")
    await memory.said("acme", "bob", "I like to play the piano")
    await memory.said("other", "eve", "hi")
    await process.round(await memory.model())
    rows = await memory.ledger()
    assert sorted((row["tenant_id"], row["user_id"]) for row in rows) == [
        ("acme", "ann"),
        ("acme", "bob"),
        ("other", "eve"),
    ]
    served = (await memory.served())["by_model"]["text-embedding-3-small"]
    assert sum(row["input_tokens"] for row in rows) == served["input_tokens"]
    assert sum(row["cost_nano_usd"] for row in rows) == served["input_tokens"] * PRICE
    assert all(row["cost_nano_usd"] == row["input_tokens"] * PRICE for row in rows)
    assert {(row["kind"], row["status"], row["agent"], row["estimated"]) for row in rows} == {
        ("embedding", "ok", "memory", False)
    }
    assert all(row["usd"] == Decimal(row["cost_nano_usd"]) / 10**9 for row in rows)
    assert len({row["request_id"] for row in rows}) == 1
    assert len({row["job_id"] for row in rows if row["tenant_id"] == "acme"}) == 1


async def test_a_spent_budget_stops_its_own_texts_only(memory: Memory, process: Process) -> None:
    await memory.tenant("poor", tenant_month_usd="0.000000100")
    mine = await memory.said("acme", "ann", "my dog is called Rex")
    await memory.said("poor", "pia", "I live in Oslo")
    await process.round(await memory.model())
    assert await memory.embedded() == mine
    (left,) = await memory.pending()
    assert (left["last_error"], left["waits"]) == ("budget", True)
    await memory.tenant("poor", tenant_month_usd="1")
    await memory.due()
    await process.round(await memory.model())
    assert len(await memory.embedded()) == 2


async def test_a_disabled_tenant_pays_nothing(memory: Memory, process: Process) -> None:
    await memory.tenant("gone")
    await memory.said("gone", "g", "my dog is called Rex")
    await memory.admin.execute("UPDATE tenants SET disabled_at = now() WHERE tenant_id = 'gone'")
    await process.round(await memory.model())
    assert [each["last_error"] for each in await memory.pending()] == ["tenant_disabled"]
    assert (await memory.served())["calls"] == 0


async def test_a_price_that_is_not_known_stops_the_call(memory: Memory, process: Process) -> None:
    name = "openai:somebodys-model@64"
    await memory.admin.execute("INSERT INTO embedding_models (name, dimensions) VALUES ($1, 64)", name)
    await memory.said("acme", "ann", "my dog is called Rex")
    await process.round(await memory.model(name))
    assert [each["last_error"] for each in await memory.pending(name)] == ["price_unknown"]
    assert (await memory.served())["calls"] == 0


async def test_nothing_is_bought_while_redis_does_not_know_what_was_spent(memory: Memory, process: Process) -> None:
    await memory.said("acme", "ann", "my dog is called Rex")
    await memory.commands.run("DEL", keys.MONEY)
    await process.round(await memory.model())
    assert [each["last_error"] for each in await memory.pending()] == ["money_closed"]
    assert (await memory.served())["calls"] == 0
    await memory.commands.run("HSET", keys.MONEY, "epoch", "second")


async def test_a_refused_call_costs_nothing_and_a_silent_one_what_was_sent(memory: Memory, process: Process) -> None:
    await memory.said("acme", "ann", "my dog is called Rex")
    await memory.behave({"faults": [{"status": 500}, "cut_stream"]})
    await process.round(await memory.model())
    assert await memory.ledger() == []
    await memory.due()
    await process.round(await memory.model())
    (row,) = await memory.ledger()
    assert (row["status"], row["estimated"], row["cost_nano_usd"]) == ("cut", True, row["input_tokens"] * PRICE)


async def test_a_call_we_stop_is_booked(memory: Memory, process: Process, eventually: Eventually) -> None:
    await memory.said("acme", "ann", "my dog is called Rex")
    await memory.behave({"faults": ["hang"]})
    embedding = asyncio.create_task(process.round(await memory.model()))

    async def under_way() -> bool:
        return bool((await memory.served())["concurrency"])

    await eventually(under_way)
    embedding.cancel()
    await asyncio.wait([embedding])
    await process.cashier.aclose()
    (row,) = await memory.ledger()
    assert (row["status"], row["estimated"]) == ("aborted", True)


async def reserved(memory: Memory, process: Process) -> tuple[list[Item], Bill]:
    """As a process has it that was killed before its call was over."""
    await memory.tenant("other")
    await memory.said("acme", "ann", "my dog is called Rex")
    await memory.said("other", "eve", "I live in Oslo")
    items = await process.books.claim(await memory.model(), 64)
    embedder = process.writer._shelf.get(SMALL)
    assert embedder is not None
    return items, await process.cashier.reserve(items, embedder)


async def overdue(memory: Memory) -> None:
    for member in await memory.commands.redis.zrange(keys.EMBEDDING_OPEN, 0, -1):
        await memory.commands.run("ZADD", keys.EMBEDDING_OPEN, 1, member)


async def test_what_a_killed_process_held_is_posted_by_another(memory: Memory, process: Process) -> None:
    items, _ = await reserved(memory, process)
    async with memory.process() as another:
        assert await another.cashier.settle_left() == 0, "still its own"
        await overdue(memory)
        assert await another.cashier.settle_left() == 2
        assert await another.cashier.settle_left() == 0
    rows = await memory.ledger()
    assert [(row["status"], row["estimated"]) for row in rows] == [("lost", True)] * 2
    assert len(items) == 2
    await memory.money_agrees()


async def test_one_that_was_only_frozen_changes_nothing_any_more(memory: Memory, process: Process) -> None:
    items, bill = await reserved(memory, process)
    await overdue(memory)
    async with memory.process() as another:
        await another.cashier.settle_left()
    embedder = process.writer._shelf.get(SMALL)
    assert embedder is not None
    embedded = await embedder.embed([item.text for item in items], "document", timeout_s=60)
    await process.cashier.settle(bill, process.cashier.exact(bill, items, embedder, embedded))
    assert [row["status"] for row in await memory.ledger()] == ["lost", "lost"]
    await memory.money_agrees()


async def test_killed_between_the_ledger_and_the_counters_it_is_the_ledger_that_counts(
    memory: Memory, process: Process
) -> None:
    items, bill = await reserved(memory, process)
    embedder = process.writer._shelf.get(SMALL)
    assert embedder is not None
    embedded = await embedder.embed([item.text for item in items], "document", timeout_s=60)
    exact = process.cashier.exact(bill, items, embedder, embedded._replace(tokens=[1_000, 2_000]))
    for row, item in zip(exact, items, strict=True):
        await process.cashier._store.book(item.payer.tenant, [row], lambda: True)
    await overdue(memory)
    async with memory.process() as another:
        await another.cashier.settle_left()
    assert sorted(row["input_tokens"] for row in await memory.ledger()) == [1_000, 2_000]
    await memory.money_agrees()


async def test_two_that_take_over_at_once_count_once(memory: Memory, process: Process) -> None:
    await reserved(memory, process)
    await overdue(memory)
    async with memory.process() as one, memory.process() as two:
        await asyncio.gather(one.cashier.settle_left(), two.cashier.settle_left())
        await one.cashier.settle_left()
    assert len(await memory.ledger()) == 2
    await memory.money_agrees()


async def test_a_batch_that_had_only_begun_leaves_nothing(memory: Memory, process: Process) -> None:
    holder = await process.cashier._begin("acme")
    await memory.commands.run("HDEL", keys.held(keys.EMBEDDING, holder.worker), holder.id)
    await overdue(memory)
    await process.cashier.settle_left()
    await memory.money_agrees()


async def test_what_postgres_will_not_take_stands_exact_in_redis(
    memory: Memory, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, bill = await reserved(memory, process)
    embedder = process.writer._shelf.get(SMALL)
    assert embedder is not None
    embedded = await embedder.embed([item.text for item in items], "document", timeout_s=60)
    rows = process.cashier.exact(bill, items, embedder, embedded)

    async def away(*_: object) -> dict[str, object]:
        raise Unavailable("Postgres cannot be reached")

    monkeypatch.setattr(process.cashier._store, "book", away)
    with pytest.raises(Unavailable):
        await process.cashier.settle(bill, rows)
    monkeypatch.undo()
    await overdue(memory)
    await process.cashier.settle_left()
    assert [row["status"] for row in await memory.ledger()] == ["ok", "ok"]


async def test_a_model_that_is_down_is_left_alone(memory: Memory) -> None:
    memory.settings = memory.settings.model_copy(update={"breaker_failures": 2, "breaker_cooldown_s": 60.0})
    await memory.said("acme", "ann", "my dog is called Rex")
    await memory.behave({"faults": [{"status": 500, "times": 9}]})
    async with memory.process() as process:
        for _ in range(4):
            await process.round(await memory.model())
            await memory.due()
    assert (await memory.served())["calls"] == 2
    assert [each["last_error"] for each in await memory.pending()] == ["provider_paused"]
