"""What memory finds: exactly what a plain ranking finds, by words at once, within the user, within the budget."""

import random
from typing import Any

import asyncpg
import pytest

from benchmarks.memory import reference
from tests.memory.conftest import HOUR_US, Memory
from tests.sql.shapes import CREATED_US

SUBJECTS = ("dog", "cat", "bicycle", "piano", "garden", "office", "sister", "holiday", "kitchen", "exam")
VERBS = ("bought", "lost", "painted", "visited", "sold", "repaired", "dreamt of", "talked about")
PLACES = ("in Bern", "at home", "last week", "on Monday", "with Jo", "before lunch", "again")


def sentence(draw: random.Random) -> str:
    words = f"I {draw.choice(VERBS)} the {draw.choice(SUBJECTS)} {draw.choice(PLACES)}"
    return words + draw.choice((".", "?", f" and the {draw.choice(SUBJECTS)} {draw.choice(PLACES)}."))


async def fill(memory: Memory, seed: int, turns: int, *, user: str = "ann", embedded: bool = True) -> int:
    """A user's conversations, two sittings in each; the model."""
    draw = random.Random(seed)  # noqa: S311
    model = await memory.model(8)
    for turn in range(turns):
        conversation, late = turn % 3, turn > turns // 2
        at_us = CREATED_US + turn * 1_000 + late * 2 * HOUR_US
        await memory.say(sentence(draw), sentence(draw), user=user, conversation=f"{user}-{conversation}", at_us=at_us)
    await memory.write()
    if embedded:
        vectors = {subject: [draw.gauss(0, 1) for _ in range(8)] for subject in SUBJECTS}
        await memory.embed(model, vectors)
    return model


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "words"])
async def test_the_ranking_is_that_of_the_plain_reference(memory: Memory, seed: int, embedded: bool) -> None:
    model = await fill(memory, seed, 45, embedded=embedded)
    draw = random.Random(seed + 100)  # noqa: S311
    for question in (sentence(draw), "What about Jo's piano in Bern?", "nothing of the kind", "Where did User go?"):
        vector = [draw.gauss(0, 1) for _ in range(8)] if embedded else None
        expected = await reference.ranked(memory.ops, "acme", "ann", question, model, vector)
        found = await memory.ops.fetch(
            "SELECT item_id, score FROM rank_memory('acme', 'ann', $1, $2::smallint, $3::real[]::halfvec, 200)",
            question, model, vector,
        )  # fmt: skip

        assert len(found) == len(expected)
        assert [row["score"] for row in found] == pytest.approx([score for _, score in expected], abs=0.02)
        scores = dict(expected)
        assert [scores[row["item_id"]] for row in found] == pytest.approx([row["score"] for row in found], abs=0.02)


async def test_of_a_user_with_very_many_messages_the_likely_chunks_are_looked_at(memory: Memory) -> None:
    """With bounds of 3 and 2 instead of 1,000 and 200: what stands out by words or meaning is found all the same."""
    model = await fill(memory, 5, 45)
    await memory.say("The harpsichordist arrived.", "Good.", conversation="music")
    await memory.say("Rex barks at the postman.", "Oh dear.", conversation="pets")
    await memory.write()
    await memory.embed(model, {"Rex": [0, 0, 0, 0, 0, 0, 0, 1]}, default=[1, 0, 0, 0, 0, 0, 0, 0])
    async with memory.superuser() as connection:
        source = await connection.fetchval("SELECT pg_get_functiondef('shortlist_memory'::regproc)")
        assert [source.count(bound) for bound in ("<= 1000", "LIMIT 1001", "LIMIT 200")] == [1, 1, 2]
        few = source.replace("<= 1000", "<= 3").replace("LIMIT 1001", "LIMIT 4").replace("LIMIT 200", "LIMIT 2")
        await connection.execute(few)

    vector = [0, 0, 0, 0, 0, 0, 0.1, 1]
    found = await memory.recall("Which harpsichordist?", model=model, vector=vector, limit=100)
    assert {"The harpsichordist arrived.", "Rex barks at the postman."} <= {hit["text"] for hit in found["hits"][:4]}
    assert 4 <= found["items"] < len(await memory.items())
    assert (await memory.recall("harpsichordist"))["hits"][0]["text"] == "The harpsichordist arrived."


async def test_what_was_said_is_found_by_its_words_before_it_has_a_vector(memory: Memory) -> None:
    await memory.model()
    await memory.say("My dog is called Rex.", "Noted.")
    await memory.write()

    found = await memory.recall("What is the name of my dog?")
    assert (found["mode"], found["items"]) == ("words", 2)
    first = found["hits"][0]
    assert first["said_us"] == CREATED_US
    assert first["words"] > 0
    del first["score"], first["said_us"], first["words"]
    assert first == {
        "conversation_id": "c1", "seq": 1, "part": 0, "role": "user", "speaker": "User", "tokens": 6,
        "text": "My dog is called Rex.", "meaning": None,
    }  # fmt: skip


async def test_meaning_finds_what_words_do_not(memory: Memory) -> None:
    model = await memory.model()
    for number in range(20):
        await memory.say(f"Unrelated matter {number}.", "Yes.", conversation=f"c{number}")
    await memory.say("Rex barks at the postman.", "Oh dear.", conversation="dog")
    await memory.write()
    await memory.embed(model, {"Rex": (1, 0, 0)}, default=(0, 1, 0.1))

    found = await memory.recall("hound", model=model, vector=(1, 0.1, 0))
    assert found["mode"] == "both"
    assert found["hits"][0]["text"] == "Rex barks at the postman."
    assert found["hits"][0]["meaning"] == pytest.approx(0.995, abs=0.01)
    assert (await memory.recall("hound"))["hits"] == [], "no word of it was said"


async def test_what_is_below_the_models_floor_is_not_alike(memory: Memory) -> None:
    for floor, expected in ((0.9, 0), (0.5, 42)):
        model = await memory.model(floor=floor, state="building")
        for number in range(21):
            await memory.say(f"Matter {number}.", "Yes.", conversation=f"{floor}-{number}", user=f"user {floor}")
        await memory.write()
        await memory.embed(model, {}, default=(1, 1, 0))

        found = await memory.recall("hound", user=f"user {floor}", model=model, vector=(1, 0, 0), limit=100)
        assert len(found["hits"]) == expected, floor


async def test_of_little_everything_is_found(memory: Memory) -> None:
    await memory.say("The sky is blue.", "It is.")
    await memory.write()

    assert len((await memory.recall("hound"))["hits"]) == 2


async def test_an_answer_is_found_by_its_question(memory: Memory) -> None:
    for number in range(15):
        await memory.say(f"Something else {number}.", "Go on.", conversation=f"c{number}")
    await memory.say("Hello.", "What is your favourite instrument?", conversation="music")
    await memory.say("The one with strings, I would say.", "I see.", conversation="music", at_us=CREATED_US + 10)
    await memory.write()

    texts = [hit["text"] for hit in (await memory.recall("favourite instrument"))["hits"]]
    assert texts[:2] == ["What is your favourite instrument?", "The one with strings, I would say."]


async def test_who_is_named_in_the_question_is_preferred(memory: Memory) -> None:
    await memory.know("Ann")
    for number in range(10):
        await memory.say(f"Matter {number}.", "Go on.", conversation=f"c{number}")
    await memory.say("She plays the piano.", "She plays the piano.", conversation="music")
    await memory.write()

    for question in ("Does Ann play the piano?", "Who plays the piano?"):
        first, second = (await memory.recall(question))["hits"][:2]
        assert (first["speaker"], second["speaker"]) == ("Ann", "support"), question
        assert first["score"] - second["score"] > 0.5


async def test_hits_fit_into_the_budget_best_first(memory: Memory) -> None:
    for number in range(12):
        await memory.say(f"The piano number {number} " + "is out of tune " * number, "Oh.", conversation=f"c{number}")
    await memory.write()
    everything = (await memory.recall("piano", tokens=10_000, limit=100))["hits"]
    assert [hit["score"] for hit in everything] == sorted((hit["score"] for hit in everything), reverse=True)

    for budget in (0, 5, 40, 100, 300):
        hits = (await memory.recall("piano", tokens=budget, limit=100))["hits"]
        assert sum(hit["tokens"] for hit in hits) <= budget
        expected, left = [], budget
        for hit in everything:
            if hit["tokens"] <= left:
                expected.append(hit["text"])
                left -= hit["tokens"]
        assert [hit["text"] for hit in hits] == expected
    assert len((await memory.recall("piano", tokens=10_000, limit=3))["hits"]) == 3


async def test_what_stands_in_the_prompt_already_is_left_out(memory: Memory) -> None:
    await memory.say("My dog is Rex.", "Nice dog.")
    await memory.say("The dog is old.", "How old is the dog?", at_us=CREATED_US + 10)
    await memory.say("Another dog.", "Whose dog?", conversation="c2")
    await memory.write()

    hits = (await memory.recall("dog", window=("c1", 3)))["hits"]
    assert {(hit["conversation_id"], hit["seq"]) for hit in hits} == {("c1", 1), ("c1", 2), ("c2", 1), ("c2", 2)}


async def test_what_has_expired_is_forgotten(memory: Memory) -> None:
    await memory.say("My dog is Rex.", "Nice.")
    await memory.write()
    await memory.ops.execute("UPDATE memory_items SET expires_at = now() WHERE role = 'user'")

    found = await memory.recall("dog")
    assert (found["items"], [hit["role"] for hit in found["hits"]]) == (1, ["assistant"])


@pytest.mark.parametrize(
    "question",
    ["", "   ", "the of and", "😀", "مرحبا", "'; DROP TABLE memory_items; --", "a" * 30_000, "& | ! <-> :* ( '"],
    ids=["empty", "blank", "stop words", "emoji", "arabic", "sql", "unbroken", "operators"],
)
async def test_any_question_may_be_asked(memory: Memory, question: str) -> None:
    model = await fill(memory, 1, 15)

    assert (await memory.recall(question))["mode"] == "words"
    found = await memory.recall(question, model=model, vector=[1.0] * 8)
    assert (found["mode"], len(found["hits"])) == ("both", 10)


async def test_of_a_very_long_question_its_longest_words_are_searched(memory: Memory) -> None:
    await fill(memory, 1, 15)
    await memory.say("The harpsichordist arrived.", "Good.", conversation="music")
    await memory.write()
    question = " ".join(f"w{number}" for number in range(400)) + " harpsichordist"

    assert (await memory.recall(question))["hits"][0]["text"] == "The harpsichordist arrived."


@pytest.mark.parametrize("words", [24, 25, 48], ids=str)
async def test_every_word_of_a_question_counts(memory: Memory, words: int) -> None:
    """Words are bits: the last of the first half, the first and the last of the second."""
    names = [f"q{number}x" for number in range(words)]
    for name in names:
        await memory.say(f"{name} {name}.", None, conversation=name)
    await memory.write()

    hits = (await memory.recall(" ".join(names), limit=100))["hits"]
    assert {hit["conversation_id"] for hit in hits} == set(names)
    assert len({hit["words"] for hit in hits}) == 1, "all are equally rare"
    assert hits[0]["words"] > 0


async def test_a_vector_of_no_serving_model_is_not_used(memory: Memory) -> None:
    model, retiring = await memory.model(), await memory.model(state="retiring")
    await memory.say("My dog is Rex.", "Nice.")
    await memory.write()
    await memory.embed(model, {}, default=(1, 0, 0))

    for wrong_model, vector in ((model, (1, 0)), (retiring, (1, 0, 0)), (999, (1, 0, 0)), (None, (1, 0, 0))):
        assert (await memory.recall("dog", model=wrong_model, vector=vector))["mode"] == "words"
    assert (await memory.recall("dog", model=model, vector=(0, 0, 0)))["mode"] == "both", "no length, no harm"
    assert (await memory.recall("dog", model=model, vector=(1, 0, 0)))["mode"] == "both"


async def test_nothing_is_ever_found_of_another_user_or_tenant(memory: Memory) -> None:
    """Same words, same conversation names, same vectors: only the own marks may come back."""
    model = await memory.model()
    people = [(tenant, user) for tenant in ("acme", "beta") for user in ("ann", "bob")]
    for tenant, user in people:
        for number in range(8):
            await memory.say(
                f"The piano {number} is marked {tenant}{user}.", f"The {tenant}{user} piano!",
                tenant=tenant, user=user, conversation=f"{user}-{number}",
            )  # fmt: skip
    await memory.write()
    await memory.embed(model, {}, default=(1, 0, 0))

    for tenant, user in (*people, ("acme", "nobody"), ("gamma", "ann"), ("", "")):
        for vector in ((1, 0, 0), None):
            found = await memory.recall("piano", tenant=tenant, user=user, model=model, vector=vector, limit=100)
            assert len(found["hits"]) == (16 if (tenant, user) in people else 0)
            assert all(f"{tenant}{user}" in hit["text"] for hit in found["hits"])


@pytest.mark.parametrize("table", ["memory_items", "memory_embeddings", "memory_pending"])
async def test_the_role_of_the_workers_sees_its_tenant_and_changes_nothing(memory: Memory, table: str) -> None:
    model = await memory.model()
    await memory.say("My dog is Rex.")
    await memory.write()
    await memory.embed(model, {}, default=(1, 0, 0))
    await memory.say("And Tom.", conversation="c2")
    await memory.write()
    counted = f"SELECT count(*) FROM {table}"  # noqa: S608

    assert await memory.ops.fetchval(counted) > 0
    assert await memory.app.fetchval(counted) == 0
    for statement in (
        "DELETE FROM {}",
        "UPDATE {} SET tenant_id = 'beta'",
        "INSERT INTO {} DEFAULT VALUES",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await memory.app.execute(statement.format(table))


async def test_recall_reads_the_users_rows_by_their_key_and_no_others(memory: Memory) -> None:
    """Of a large table no sequential scan, and no index of vectors, which would lose rows."""
    for tenant in range(8):
        await fill_bulk(memory, f"t{tenant}", 400)
    await memory.ops.execute("ANALYZE memory_items; ANALYZE memory_embeddings")
    async with memory.ops.connection() as connection:
        await connection.execute("SET enable_nestloop = off")
        for table in ("memory_items", "memory_embeddings"):
            plan = await connection.fetch(
                f"EXPLAIN SELECT * FROM {table} WHERE tenant_id = 't3' AND user_id = 'u'"  # noqa: S608
            )
            text = "\n".join(row[0] for row in plan)
            assert "Seq Scan" not in text
            assert f"{table}_pkey" in text
    methods = await memory.ops.fetch(
        "SELECT DISTINCT amname FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid "
        "JOIN pg_am AS a ON a.oid = c.relam "
        "WHERE indrelid IN ('memory_items'::regclass, 'memory_embeddings'::regclass)"
    )
    assert [row["amname"] for row in methods] == ["btree"]


async def fill_bulk(memory: Memory, tenant: str, messages: int) -> None:
    for number in range(messages // 40):
        reply = " ".join(f"Part {part} of it is here, and it is long enough to be cut. " * 9 for part in range(8))
        await memory.say("Tell me more?", reply, tenant=tenant, user="u", conversation=f"c{number}")
    await memory.write()


async def test_a_seat_in_the_books_is_all_that_is_kept_of_a_text(memory: Memory) -> None:
    """The canary: text stands in `messages` alone."""
    await memory.say("canary-7f3a sings", "canary-7f3a, really?")
    await memory.write()
    rows: list[Any] = await memory.ops.fetch(
        "SELECT to_jsonb(i)::text AS row FROM memory_items AS i "
        "UNION ALL SELECT to_jsonb(p)::text FROM memory_pending AS p"
    )

    assert rows
    assert not any("canary" in row["row"] for row in rows)
