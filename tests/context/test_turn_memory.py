"""What a turn is shown of memory, and what it does without it: the reply goes out, and the job says so."""

from dataclasses import dataclass
from typing import Any

import pytest

from shared.wire import Asked
from tests.context.conftest import Remembering
from tests.turn.deployment import TENANT
from workers import main
from workers.turn import recollect

BIKE = "My bike is a red Brompton with six gears."


@pytest.fixture(autouse=True)
async def shows_what_it_is_shown(deployment: Remembering) -> None:
    await deployment.behave({"match": "What", "reply": "{previous}."})


async def test_what_was_said_in_another_conversation_is_recalled_for_its_user_only(deployment: Remembering) -> None:
    async with deployment.worker():
        await deployment.talk(BIKE)
        await deployment.take_in()
        (seen,) = await deployment.talk("What bike do I have?", conversation="c2")
        (other,) = await deployment.talk("What bike do I have?", conversation="c3", user="u2")
        (nobody,) = await deployment.talk("What bike do I have?", conversation="c4", user=None)
    assert '<said by="user" at="20' in seen
    assert BIKE in seen
    assert '<said by="assistant"' in seen
    assert other == nobody == "."


async def test_what_is_in_sight_is_not_recalled_as_well(deployment: Remembering) -> None:
    async with deployment.worker():
        await deployment.talk(BIKE)
        await deployment.take_in()
        (seen,) = await deployment.talk("What bike do I have?")
    assert seen == f"{BIKE}."


async def test_a_later_attempt_remembers_like_the_first(deployment: Remembering) -> None:
    async with deployment.worker():
        await deployment.talk(BIKE)
        await deployment.take_in()
        await deployment.behave({"match": "What", "reply": "{previous}", "faults": [{"status": 500}]})
        record = await deployment.ended(await deployment.say("What bike do I have?", conversation="c2"))
    assert record.attempts == 2
    assert record.reply is not None
    assert BIKE in record.reply


@dataclass
class Why:
    reason: str


@dataclass
class Slow:
    """An embedder that has its reasons."""

    reason: str

    async def embed_query(self, *_args: object) -> Why:
        return Why(self.reason)


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("late", {"recall": "words_only", "why": "late"}),
        ("budget", {"recall": "words_only", "why": "budget"}),
        ("no_model", None),
    ],
)
async def test_without_a_vector_words_are_searched_and_the_job_says_so(
    deployment: Remembering, monkeypatch: pytest.MonkeyPatch, reason: str, told: dict[str, Any] | None
) -> None:
    made = main._Desk.__init__

    def with_embedder(self: main._Desk, *args: Any) -> None:
        made(self, *args)
        self.embedding = Slow(reason)

    monkeypatch.setattr(main._Desk, "__init__", with_embedder)
    async with deployment.worker():
        await deployment.talk(BIKE)
        await deployment.take_in()
        record = await deployment.ended(await deployment.say("What bike do I have?", conversation="c2"))
    assert record.context == told
    assert record.resource()["context"] == told
    assert record.reply is not None
    assert BIKE in record.reply


async def break_recall(deployment: Remembering, body: str) -> None:
    kind = "text, text, text, smallint, halfvec, integer, integer, text, bigint"
    await deployment.books.execute(f"DROP FUNCTION recall({kind})")
    await deployment.books.execute(
        f"CREATE FUNCTION recall({kind}) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN {body} END $$"
    )


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("RETURN to_jsonb(1 / 0);", "failed"),
        ("RETURN jsonb_build_object('hits', jsonb_build_array(1));", "failed"),
        ("PERFORM pg_sleep(60); RETURN NULL;", "late"),
    ],
)
async def test_a_recall_that_fails_or_takes_too_long_costs_no_reply(
    deployment: Remembering, monkeypatch: pytest.MonkeyPatch, body: str, why: str
) -> None:
    monkeypatch.setattr(recollect, "DEADLINE_S", 0.2)
    await break_recall(deployment, body)
    async with deployment.worker():
        await deployment.talk("Hello")
        record = await deployment.ended(await deployment.say("What did I say?"))
    assert (record.state.value, record.reply) == ("succeeded", "Hello.")
    assert record.context == {"recall": "none", "why": why}


async def test_no_call_is_longer_than_a_prompt_may_be_and_the_job_says_what_was_left_out(
    deployment: Remembering,
) -> None:
    await deployment.behave({"reply": "yes"})
    async with deployment.worker():
        long = [await deployment.ended(await deployment.say("lorem ipsum " * 1_500)) for _ in range(5)]
        huge = await deployment.ended(await deployment.say("lorem ipsum " * 6_000, conversation="c2"))
    requests = (await deployment.served())["requests"]
    assert all(request["input_tokens"] <= 8_000 for request in requests)
    assert [record.context for record in long[:2]] == [None, None]
    assert long[-1].context == {"left_out": 6}
    assert huge.context == {"cut": True}


async def test_an_answer_that_memory_helped_with_is_not_kept_for_others(deployment: Remembering) -> None:
    cached = {"cache_ttl_s": 300}
    async with deployment.worker(**cached):
        await deployment.talk(BIKE)
        await deployment.take_in()
        (mine,) = await deployment.talk("What bike do I have?", conversation="c2")
        asked = await deployment.ended(await deployment.say("What bike do I have?", conversation="c3", user="u2"))
    assert BIKE in mine
    assert (asked.reply, asked.cache) == (".", None)


# --- the greeting ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def greeting(deployment: Remembering) -> str:
    text = "Welcome to Acme!"
    await deployment.behave({"match": "fails", "faults": [{"status": 400}]}, {"reply": "yes"})
    await deployment.books.execute(
        "UPDATE tenants SET settings = jsonb_build_object('greeting', $2::text) WHERE tenant_id = $1", TENANT, text
    )
    return f"{text}\n\nyes"


async def test_a_user_is_greeted_once(deployment: Remembering, greeting: str) -> None:
    async with deployment.worker():
        first = await deployment.say("hello")
        assert (await deployment.ended(first)).reply == greeting
        shown = b"".join(await deployment.deltas(first)).decode()
        assert "Welcome to Acme!" in shown
        assert await deployment.talk("again") == ["yes"]
        assert await deployment.talk("elsewhere", conversation="c2") == ["yes"]
        assert await deployment.talk("hello", conversation="c3", user="u2") == [greeting]
        assert await deployment.talk("stateless", agent="sales", conversation="c4") == ["yes"]


async def test_two_first_messages_at_once_are_greeted_once(deployment: Remembering, greeting: str) -> None:
    ids = [await deployment.say("hello", conversation=f"c{n}") for n in range(5)]
    async with deployment.worker():
        replies = sorted([(await deployment.ended(each)).reply or "" for each in ids])
    assert replies == [greeting, *["yes"] * 4]


async def test_an_attempt_that_failed_leaves_the_greeting_to_the_next(deployment: Remembering, greeting: str) -> None:
    await deployment.behave({"faults": [{"cut_stream": True, "after_tokens": 1}], "reply": "yes"})
    async with deployment.worker():
        record = await deployment.ended(await deployment.say("hello"))
    assert (record.attempts, record.reply) == (2, greeting)


async def test_a_job_that_died_leaves_the_greeting_to_the_next(deployment: Remembering, greeting: str) -> None:
    async with deployment.worker():
        assert (await deployment.ended(await deployment.say("fails"))).state == "dead"
        assert await deployment.talk("hello") == [greeting]
        assert await deployment.talk("hello") == ["yes"]


async def test_who_was_answered_before_there_was_a_greeting_is_not_greeted(deployment: Remembering) -> None:
    await deployment.behave({"reply": "yes"})
    async with deployment.worker():
        await deployment.talk("hello")
        await deployment.books.execute('UPDATE tenants SET settings = \'{"greeting": "Welcome!"}\'')
        assert await deployment.talk("hello", conversation="c2") == ["yes"]


async def test_a_conversation_without_a_user_is_greeted_when_it_begins(deployment: Remembering, greeting: str) -> None:
    async with deployment.worker():
        assert await deployment.talk("hello", "again", user=None) == [greeting, "yes"]
        assert await deployment.talk("hello", conversation="c2", user=None) == [greeting]


async def test_programs_are_not_greeted(deployment: Remembering, greeting: str) -> None:
    async with deployment.worker():
        assert await deployment.talk("hello", asked=Asked()) == ["yes"]


async def test_a_kept_answer_is_kept_without_the_greeting(deployment: Remembering, greeting: str) -> None:
    async with deployment.worker(cache_ttl_s=300):
        assert await deployment.talk("hello") == [greeting]
        record = await deployment.ended(await deployment.say("hello", conversation="c2", user="u2"))
        again = await deployment.ended(await deployment.say("hello", conversation="c3", user="u2"))
    assert (record.reply, record.cache) == (greeting, "exact")
    assert (again.reply, again.cache) == ("yes", "exact")
