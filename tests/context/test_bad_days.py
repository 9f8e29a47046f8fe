"""What goes wrong around memory, all the way: the reply goes out, nothing is lost, and the job says so."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from ops.stack.standin import Standin
from shared.config import Settings
from shared.db import Pool, open_pool
from sql import queries
from tests.conftest import Database, Eventually
from tests.context.conftest import Remembering
from tests.turn.deployment import TENANT
from workers.background import runner
from workers.embeddings import writer
from workers.embeddings.upkeep import embedding
from workers.erasure.subjects import Subjects

MODEL = "text-embedding-3-small"
BIKE = "My bike is a red Brompton with six gears."
LATE, FAILED = ({"recall": "words_only", "why": why} for why in ("late", "failed"))


@pytest.fixture
def settings(redis_url: str, database: Database, standin: Standin) -> Settings:
    return Settings.read(
        {
            "redis_url": redis_url,
            "database_url": database.app,
            "openai_api_key": "sk-test",
            "openai_base_url": f"{standin.url}/v1",
            "embedding_model": f"openai:{MODEL}",
            "embedding_deadline_ms": 2_000,
            "degraded_reply": "none",
            "lease_s": 1.0,
            "cache_ttl_s": 0,
        }
    )


@pytest.fixture
async def ops(database: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(database.ops, 4, environment="development")
    yield pool
    await pool.close()


@contextlib.asynccontextmanager
async def embedded(deployment: Remembering, ops: Pool) -> AsyncIterator[None]:
    async with embedding(deployment.settings, deployment.commands, ops, Subjects([b"k" * 32])):
        yield


async def late(ops: Pool, job_id: str) -> list[dict[str, Any]]:
    """What `switchboard memory late` shows."""
    return [dict(row) for row in await ops.fetch(queries["late_embeddings"], TENANT, job_id)]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"faults": [{"status": 500, "times": 1_000}]}, FAILED),
        ({"faults": [{"hang": True, "times": 1_000}]}, LATE),
        ({"dimensions": 768}, FAILED),
    ],
    ids=["fail", "hang", "other dimensions"],
)
async def test_whatever_becomes_of_embeddings_the_reply_goes_out_and_memory_is_made_up_for(
    deployment: Remembering,
    ops: Pool,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    rule: dict[str, Any],
    told: dict[str, str],
) -> None:
    monkeypatch.setattr(writer, "CALL_S", 0.3)
    await deployment.behave({"model": MODEL, **rule}, {"match": "What", "reply": "{previous}"}, {})
    deployment.settings = deployment.settings.model_copy(update={"embedding_deadline_ms": 300, "breaker_failures": 99})
    async with embedded(deployment, ops), deployment.worker():
        record = await deployment.ended(await deployment.say(BIKE))
        assert (record.state.value, record.context) == ("succeeded", told)
        assert [(each["item_id"], each["model"]) for each in await late(ops, record.id)] == [(None, None)]
        await deployment.take_in()

        async def says_why() -> bool:
            found = await late(ops, record.id)
            return len(found) == 2 and {each["last_error"] for each in found} == {"upstream_unavailable"}

        await eventually(says_why, timeout_s=30)
        (seen,) = await deployment.talk("What bike do I have?", conversation="c2")
        assert BIKE in seen, "by its words"

        await deployment.behave()

        async def made_up_for() -> bool:
            await ops.execute("UPDATE memory_pending SET due_at = now()")
            return await late(ops, record.id) == []

        await eventually(made_up_for, timeout_s=30)
    vectors = (
        "SELECT count(*) FROM memory_embeddings JOIN memory_items USING (tenant_id, user_id, item_id) WHERE seq < 3"
    )
    assert await ops.fetchval(vectors + " AND conversation_id = 'c1'") == 3, "two messages and their chunk"


TEXTS = {
    "blanks": " \n\t ",
    "enormous": "lorem ipsum dolor " * 15_000,
    "one word": "x" * 100_000,
    "binary": "\x01\x02\x7f\x1b[31m\ufffd\x00" + "".join(map(chr, range(1, 32))),
    "right to left": "\u202eمرحبا بالعالم \u200fשלום",
    "emoji": "😀👩‍👩‍👧‍👦🏳️‍🌈🚀",
}
CUT: dict[str, dict[str, Any]] = {"enormous": {"cut": True}, "one word": {"cut": True}}


async def test_any_text_is_answered_taken_in_and_embedded(
    deployment: Remembering, ops: Pool, eventually: Eventually
) -> None:
    await deployment.behave({"reply": "yes"})
    async with embedded(deployment, ops), deployment.worker():
        for name, text in TEXTS.items():
            record = await deployment.ended(await deployment.say(text, conversation=name))
            assert (record.state.value, record.context) == ("succeeded", CUT.get(name)), name
        await deployment.take_in()

        async def done() -> bool:
            await ops.execute("UPDATE memory_pending SET due_at = now()")
            return not await ops.fetchval("SELECT count(*) FROM memory_pending")

        await eventually(done, timeout_s=60)
    assert await ops.fetchval("SELECT count(*) FROM memory_outbox") == 0
    rows = await ops.fetch(
        "SELECT conversation_id, count(*) AS pieces, max(tokens) AS tokens, count(e.embedding) AS vectors "
        "FROM memory_items LEFT JOIN memory_embeddings AS e USING (tenant_id, user_id, item_id) "
        "WHERE kind = 'piece' AND role = 'user' GROUP BY 1"
    )
    found = {row["conversation_id"]: row for row in rows}
    assert set(found) == set(TEXTS) - {"blanks"}, "there is nothing to remember of blanks"
    assert all(row["pieces"] == row["vectors"] and row["tokens"] <= 150 for row in rows)
    assert found["enormous"]["pieces"] == 100


async def test_what_was_recalled_is_no_fact_again(
    deployment: Remembering, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The assistant repeats all that it is shown of memory, and the model that looks for facts believes it."""
    monkeypatch.setattr(runner, "POLL_S", 0.02)
    await deployment.behave({"match": "What", "reply": "You told me: {previous}"}, {})
    async with deployment.worker(), deployment.memory():
        await deployment.talk("I live in Lisbon.")
        await told_facts(deployment, eventually, "c1")
        (seen,) = await deployment.talk("What do you know of me?", conversation="c2")
        assert "Lives in Lisbon." in seen
        assert "<remembered>" in seen, "delimited"
        claimed = {"topic": "home", "text": "Lives in Lisbon.", "sources": [1, 2]}
        answer = msgspec.json.encode({"profile": [], "facts": [claimed]}).decode()
        await deployment.behave({"model": "gpt-5.4-nano", "reply": answer}, {})
        await told_facts(deployment, eventually, "c2")
    asked = [each["user_text"] for each in (await deployment.served())["requests"] if each["model"] == "gpt-5.4-nano"]
    (of_the_user,) = [each for each in msgspec.json.decode(asked[-1])["messages"] if each["by"] == "user"]
    assert of_the_user["text"] == "What do you know of me?", "what stood before it in the prompt was not said"
    (fact,) = await deployment.facts()
    assert (fact["topic"], fact["conversation_id"], fact["valid_to"]) == ("home_city", "c1", None)


async def told_facts(deployment: Remembering, eventually: Eventually, conversation: str) -> None:
    await deployment.take_in()
    await deployment.books.execute(
        "UPDATE memory_tasks SET due_at = now() WHERE conversation_id = $1 AND kind = 'facts'", conversation
    )

    async def looked() -> bool:
        return bool((await deployment.task("facts", conversation))["done_seq"])

    await eventually(looked, timeout_s=30)
