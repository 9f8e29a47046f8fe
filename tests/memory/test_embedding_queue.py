"""Which texts need a vector: claimed by one at a time, given back by a crash, never filed for another one."""

import asyncio

import asyncpg
import pytest

from sql import queries
from tests.memory.conftest import Memory
from tests.sql.shapes import CREATED_US


async def claim(memory: Memory, model: int, limit: int = 10, lease_s: int = 60) -> list[asyncpg.Record]:
    return list(await memory.ops.fetch(queries["claim_embeddings"], model, limit, lease_s))


async def put(memory: Memory, model: int, rows: list[asyncpg.Record], vector: str = "[3,0,4]") -> int:
    ids, versions = [row["item_id"] for row in rows], [row["version"] for row in rows]
    written: int = await memory.ops.fetchval(queries["write_embeddings"], model, ids, versions, [vector] * len(rows))
    return written


async def pending(memory: Memory, model: int) -> int:
    found: int = await memory.ops.fetchval("SELECT count(*) FROM memory_pending WHERE model_id = $1", model)
    return found


async def waits_for_a_lock(memory: Memory) -> bool:
    """Whether anybody does, in this test's database."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(await memory.ops.fetchval(waiting))


async def test_pieces_wait_for_no_one_and_a_chunk_until_it_stops_growing(memory: Memory) -> None:
    model = await memory.model()
    await memory.say("Hello.", "Hi.")
    await memory.write()

    rows = await claim(memory, model)
    assert sorted(row["text"] for row in rows) == ["User: Hello.", "support: Hi."]
    assert {(row["tenant_id"], row["user_id"], row["conversation_id"]) for row in rows} == {("acme", "ann", "c1")}
    await memory.ops.execute("UPDATE memory_pending SET due_at = due_at - interval '60 seconds'")
    assert "User: Hello.\nsupport: Hi." in [row["text"] for row in await claim(memory, model)]


async def test_a_claimed_text_is_nobody_elses_until_its_lease_ends(memory: Memory) -> None:
    model = await memory.model()
    await memory.say("Hello.", "Hi.")
    await memory.write()

    both = await asyncio.gather(claim(memory, model, 1), claim(memory, model, 1))
    assert len({row["item_id"] for rows in both for row in rows}) == 2
    assert await claim(memory, model) == []
    await memory.ops.execute("UPDATE memory_pending SET due_at = due_at - interval '61 seconds'")
    assert len(await claim(memory, model)) == 3, "the chunk's wait is over as well"


async def test_a_vector_is_kept_at_unit_length_and_its_text_waits_no_more(memory: Memory) -> None:
    model = await memory.model()
    await memory.say("Hello.", "Hi.")
    await memory.write()
    rows = await claim(memory, model)

    assert await put(memory, model, rows) == 2
    assert await put(memory, model, rows) == 0, "said twice"
    kept = await memory.ops.fetch("SELECT embedding::real[] AS vector FROM memory_embeddings")
    assert [list(row["vector"]) for row in kept] == [pytest.approx([0.6, 0, 0.8], abs=1e-3)] * 2
    assert await pending(memory, model) == 1


async def test_a_chunk_that_grew_meanwhile_waits_for_its_next_vector(memory: Memory) -> None:
    model = await memory.model()
    await memory.say("Hello.", "Hi.")
    await memory.write()
    await memory.ops.execute("UPDATE memory_pending SET due_at = now() - interval '1 second'")
    rows = await claim(memory, model)
    await memory.say("How are you?", "Fine.", at_us=CREATED_US + 10)
    await memory.write()

    assert await put(memory, model, rows) == 3, "an old one is better than none"
    chunk = next(row for row in rows if "\n" in row["text"])
    (again,) = [row for row in await claim(memory, model) if row["item_id"] == chunk["item_id"]]
    assert again["text"].endswith("support: Fine.")
    assert again["version"] == chunk["version"] + 1


async def test_a_vector_of_the_wrong_dimension_changes_nothing(memory: Memory) -> None:
    model = await memory.model(dimensions=3)
    await memory.say("Hello.")
    await memory.write()
    rows = await claim(memory, model)

    with pytest.raises(asyncpg.PostgresError, match="3 dimensions") as raised:
        await put(memory, model, rows, "[1,0]")
    assert raised.value.sqlstate == "SB010"
    assert await memory.ops.fetchval("SELECT count(*) FROM memory_embeddings") == 0
    assert await pending(memory, model) == 3


async def test_an_item_that_went_meanwhile_is_skipped(memory: Memory) -> None:
    model = await memory.model()
    await memory.say("Erase me.", conversation="c1")
    await memory.say("Keep me.", conversation="c2")
    await memory.write()
    rows = await claim(memory, model)
    await memory.ops.execute("DELETE FROM conversations WHERE conversation_id = 'c1'")

    assert await put(memory, model, rows) == 2
    assert await memory.ops.fetchval("SELECT count(*) FROM memory_embeddings") == 2


async def test_a_vector_that_races_an_erasure_does_not_outlive_it(memory: Memory, eventually) -> None:
    model = await memory.model()
    await memory.say("Erase me.")
    await memory.write()
    rows = await claim(memory, model)
    async with memory.ops.connection() as connection, connection.transaction():
        await connection.execute("DELETE FROM memory_items")
        late = asyncio.create_task(put(memory, model, rows))

        async def blocked() -> bool:
            return await waits_for_a_lock(memory)

        await eventually(blocked)

    assert await late == 0
    assert await memory.ops.fetchval("SELECT count(*) FROM memory_embeddings") == 0


async def test_what_failed_comes_back_later_with_its_reason(memory: Memory) -> None:
    model = await memory.model()
    await memory.say("Hello.", "Hi.")
    await memory.write()
    ids = [row["item_id"] for row in await claim(memory, model)]
    await memory.ops.execute(queries["postpone_embeddings"], model, ids, 30, "timeout")

    assert await claim(memory, model) == []
    await memory.ops.execute("UPDATE memory_pending SET due_at = due_at - interval '31 seconds'")
    assert [row["attempts"] for row in await claim(memory, model)] == [1, 1]
    assert await memory.ops.fetchval("SELECT min(last_error) FROM memory_pending") == "timeout"


async def test_every_model_that_is_built_or_serves_gets_new_items(memory: Memory) -> None:
    serving, building = await memory.model(), await memory.model(8, state="building")
    retiring = await memory.model(8, state="retiring")
    await memory.say("Hello.")
    await memory.write()

    assert [await pending(memory, model) for model in (serving, building, retiring)] == [3, 3, 0]


async def test_a_new_model_is_filled_step_by_step_and_goes_on_after_a_crash(memory: Memory) -> None:
    for user in range(3):
        await memory.say("Hello.", user=f"user-{user}", conversation=f"c{user}")
    await memory.write()
    model = await memory.model(state="building")

    looked_at = [await memory.ops.fetchval(queries["fill_embeddings"], model, 4) for _ in range(4)]
    assert looked_at == [4, 4, 1, 0]
    assert await pending(memory, model) == 9
    await memory.embed(model, {}, default=(1, 0, 0))
    await memory.ops.execute("UPDATE embedding_models SET filled_tenant = '', filled_user = '', filled_item = 0")
    assert await memory.ops.fetchval(queries["fill_embeddings"], model, 100) == 9
    assert await pending(memory, model) == 0, "those that have a vector are not asked for again"


async def test_no_item_is_missed_between_a_writer_and_a_new_model(memory: Memory, eventually) -> None:
    """Who writes now does not know of the model yet: the model waits, so that filling it finds what was written."""
    await memory.say("Hello.")
    async with memory.ops.connection() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock_shared(memory_models_lock())")
        made = asyncio.create_task(memory.model(state="building"))

        async def blocked() -> bool:
            return await waits_for_a_lock(memory)

        await eventually(blocked)
        assert await connection.fetchval("SELECT count(*) FROM embedding_models") == 0
    assert await made > 0
