"""From the outbox to items: nothing lost, nothing twice, whatever was said and whoever is killed."""

import asyncio

import pytest

from shared.errors import Unavailable
from sql import queries
from tests.memory.conftest import HOUR_US, Memory
from tests.sql.shapes import CREATED_US
from workers.memory import writer as writing
from workers.memory.writer import MemoryWriter


async def test_a_turn_becomes_pieces_and_a_chunk(memory: Memory) -> None:
    await memory.say("My dog is called Rex.", "What a fine name!")
    await memory.write()

    pieces, chunks = await memory.items(), await memory.items("chunk")
    assert [(piece["role"], piece["text"]) for piece in pieces] == [
        ("user", "User: My dog is called Rex."),
        ("assistant", "support: What a fine name!"),
    ]
    assert [chunk["text"] for chunk in chunks] == ["User: My dog is called Rex.\nsupport: What a fine name!"]
    assert {piece["chunk_id"] for piece in pieces} == {chunks[0]["item_id"]}
    assert pieces[1]["previous_id"] == pieces[0]["item_id"]
    assert (pieces[0]["tenant_id"], pieces[0]["user_id"]) == ("acme", "ann")
    assert await memory.waiting() == 0


async def test_a_chunk_grows_until_it_is_full_and_the_next_one_is_led_in(memory: Memory) -> None:
    for turn in range(6):
        await memory.say(f"Message {turn} " + "about nothing in particular " * 5, f"Reply {turn}")
        await memory.write()

    chunks, pieces = await memory.items("chunk"), await memory.items()
    assert len(chunks) > 1
    assert all(chunk["tokens"] <= 150 for chunk in chunks)
    assert sum(chunk["tokens"] for chunk in chunks) == sum(piece["tokens"] for piece in pieces)
    first, second = chunks[:2]
    last_of_first = [piece for piece in pieces if piece["chunk_id"] == first["item_id"]][-1]
    assert second["text"].startswith(last_of_first["text"] + "\n")
    assert second["previous_id"] == first["item_id"]
    assert first["version"] > 1


async def test_what_is_said_after_an_hour_is_no_neighbour(memory: Memory) -> None:
    await memory.say("Good night.", "Sleep well.")
    await memory.say("Good morning.", "Hello.", at_us=CREATED_US + HOUR_US + 10)
    await memory.write()

    pieces = await memory.items()
    assert [piece["previous_id"] is None for piece in pieces] == [True, False, True, False]
    assert len(await memory.items("chunk")) == 2


async def test_a_long_reply_becomes_parts_that_know_where_they_stand(memory: Memory) -> None:
    reply = " ".join(f"Sentence number {n} has a few words in it." for n in range(80))
    await memory.say("Tell me everything?", reply)
    await memory.write()

    asked, *parts = await memory.items()
    assert len(parts) > 3
    assert [part["part"] for part in parts] == list(range(len(parts)))
    said = [reply[part["char_from"] - 1 : part["char_from"] - 1 + part["chars"]] for part in parts]
    assert " ".join(said) == reply
    assert [part["text"] for part in parts] == [f"support: {text}" for text in said]
    assert (asked["asks"], any(part["asks"] for part in parts)) == (True, False)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("😀😀🚀", 1),  # the speaker
        ("مرحبا بالعالم", 3),
        ("我昨天去了东京", 1 + 1 + 6),  # the run as a whole, and its pairs
        ("x" * 30_000, None),
        ("\x01\x02\x7f", None),
        ("a\\u0000b \ud83d", None),
    ],
    ids=["emoji", "right to left", "chinese", "unbroken", "control", "half an emoji"],
)
async def test_whatever_was_said_is_taken_in(memory: Memory, message: str, words: int | None) -> None:
    await memory.say(message)
    await memory.write()

    pieces = [piece for piece in await memory.items() if piece["role"] == "user"]
    assert pieces
    assert await memory.waiting() == 0
    if words is not None:
        assert pieces[0]["words"] == words


async def test_blanks_and_users_without_a_name_leave_no_trace(memory: Memory) -> None:
    await memory.say("   \n ", " ")
    await memory.say("Who am I?", user=None, conversation="c2")
    await memory.write()

    assert await memory.items() == []
    assert await memory.waiting() == 0


async def test_the_name_that_is_known_is_the_speakers(memory: Memory) -> None:
    await memory.know("Ann")
    await memory.say("I moved to Bern.")
    await memory.write()

    assert (await memory.items())[0]["text"] == "Ann: I moved to Bern."


async def test_a_writer_that_dies_before_its_commit_has_done_nothing(memory: Memory) -> None:
    await memory.say("Remember this.")
    async with memory.ops.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        batch = await connection.fetchval(queries["take_memory_outbox"], 10)
        found = writing.take(writing.msgspec.json.decode(batch, type=writing.Batch))
        await connection.execute(
            queries["write_memory"], writing.jsonb(found.pieces), writing.jsonb(found.chunks), found.outbox
        )
        await transaction.rollback()
    assert (await memory.items(), await memory.waiting()) == ([], 1)

    await memory.write()
    assert len(await memory.items()) == 2


async def test_what_is_in_memory_already_is_not_taken_in_again(memory: Memory) -> None:
    await memory.say("Once is enough.")
    kept = await memory.ops.fetch("SELECT * FROM memory_outbox")
    await memory.write()
    before = await memory.items()
    for row in kept:  # as if the delete had been lost
        await memory.ops.execute(
            "INSERT INTO memory_outbox (tenant_id, user_id, conversation_id, job_id, message_ids) "
            "VALUES ($1, $2, $3, $4, $5)",
            *(row[name] for name in ("tenant_id", "user_id", "conversation_id", "job_id", "message_ids")),
        )
    await memory.write()

    assert await memory.items() == before
    assert await memory.waiting() == 0


async def test_writers_side_by_side_share_conversations_and_keep_their_order(memory: Memory) -> None:
    for turn in range(4):
        for conversation in range(12):
            await memory.say(f"Turn {turn}", f"Reply {turn}", conversation=f"c{conversation:02}")
    writers = [MemoryWriter(memory.ops) for _ in range(3)]

    async def work(writer: MemoryWriter) -> None:
        while await memory.waiting():
            await writer.step()

    await asyncio.gather(*map(work, writers))

    pieces = await memory.items()
    assert len(pieces) == 4 * 12 * 2
    for conversation in range(12):
        own = [piece for piece in pieces if piece["conversation_id"] == f"c{conversation:02}"]
        assert [piece["previous_id"] for piece in own] == [None, *(piece["item_id"] for piece in own[:-1])]


async def test_a_conversation_that_another_writer_has_is_left_to_it(memory: Memory) -> None:
    await memory.say("Mine.", conversation="c1")
    await memory.say("Free.", conversation="c2")
    async with memory.ops.connection() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 20))", "acme\x1fc1")
        await memory.write()
        assert {piece["conversation_id"] for piece in await memory.items()} == {"c2"}
    await memory.write()

    assert {piece["conversation_id"] for piece in await memory.items()} == {"c1", "c2"}


async def test_a_turn_that_cannot_be_written_holds_up_no_other(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    await memory.say("poison", conversation="c1")
    await memory.say("fine", conversation="c2")
    real = writing.take

    def take(batch: writing.Batch) -> object:
        if any(said.body == "poison" for conversation in batch.conversations for said in conversation.said):
            raise ValueError("cannot be cut")
        return real(batch)

    monkeypatch.setattr(writing, "take", take)
    await memory.write()

    assert {piece["conversation_id"] for piece in await memory.items()} == {"c2"}
    row = await memory.ops.fetchrow("SELECT attempts, last_error, due_at > now() AS later FROM memory_outbox")
    assert dict(row or {}) == {"attempts": 1, "last_error": "ValueError('cannot be cut')", "later": True}

    monkeypatch.undo()
    await memory.say("after it", conversation="c1")
    await memory.write()
    assert {piece["conversation_id"] for piece in await memory.items()} == {"c2"}, "it goes on in its order"
    await memory.ops.execute("UPDATE memory_outbox SET due_at = now()")
    await memory.write()
    assert [piece["text"] for piece in await memory.items() if piece["role"] == "user"] == [
        "User: poison", "User: after it", "User: fine"
    ]  # fmt: skip


async def test_an_outage_changes_nothing(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    await memory.say("Wait for me.")

    def fail(_batch: object) -> object:
        raise Unavailable("Postgres cannot be reached")

    monkeypatch.setattr(writing, "take", fail)
    with pytest.raises(Unavailable):
        await memory.writer.step()
    monkeypatch.undo()
    await memory.write()

    assert len(await memory.items()) == 2


async def test_a_message_that_goes_takes_its_memory_with_it(memory: Memory) -> None:
    model = await memory.model()
    await memory.say("Forget me.")
    await memory.write()
    await memory.embed(model, {}, default=(1, 0, 0))
    await memory.say("And me.", conversation="c2")
    await memory.write()
    await memory.ops.execute("DELETE FROM conversations")

    for table in ("messages", "memory_items", "memory_embeddings", "memory_pending", "memory_outbox"):
        assert await memory.ops.fetchval(f"SELECT count(*) FROM {table}") == 0, table  # noqa: S608


async def test_the_loop_takes_in_what_comes_and_leaves(memory: Memory, eventually) -> None:
    async with writing.writing(memory.ops):
        await memory.say("Anybody there?")

        async def taken() -> bool:
            return len(await memory.items()) == 2

        await eventually(taken)
