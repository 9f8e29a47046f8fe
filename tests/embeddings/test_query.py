"""A question's meaning on a turn's way: in time, paid for and booked, or not at all, and the turn goes on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from shared.budgets import DeploymentBudgets
from shared.db import open_pool
from shared.tenants import read_settings
from shared.wire import TurnPayload
from tests.conftest import Database, _eventually
from tests.embeddings.harness import SHORT, SMALL, SUBJECTS, Memory
from tests.queue.harness import QUEUE, Bench
from workers.embeddings import query
from workers.embeddings.query import Late, QueryEmbedder, QueryVector
from workers.ledger import prices
from workers.ledger.book import Amount
from workers.ledger.purse import Purse, Settlement
from workers.turn.late import LateRows
from workers.turn.spending import Money, Spending
from workers.turn.store import TurnStore
from workers.turn.work import Work


@dataclass
class Asking:
    """A turn that has been claimed, and what a worker process has for its question."""

    embedder: QueryEmbedder
    work: Work
    spending: Spending
    store: TurnStore
    purse: Purse

    async def ask(self, text: str) -> QueryVector | Late:
        return await self.embedder.embed_query(self.work, self.spending, text)

    async def commit(self) -> None:
        """What the end of a turn does with its rows: Postgres has them, Redis forgets them."""
        await self.spending.settled()
        await self.store.post("acme", self.work.postable(), lambda: True)
        settled = [Settlement(row.call_id, row.amount) for row in self.work.rows.values()]
        await self.purse.settle(self.work.job, settled)


@asynccontextmanager
async def asking(memory: Memory, database: Database) -> AsyncIterator[Asking]:
    pool = await open_pool(database.app, 2, environment="development")
    async with Bench.open(memory.settings.redis_url) as bench:
        await bench.join("w1")
        job_id = await bench.accept("c1")
        (claimed,) = await bench.claim("w1")
        store = TurnStore(pool, SUBJECTS)
        purse, late = Purse(bench.commands, QUEUE), LateRows(bench.commands, store, lease_s=1.0)
        money = Money(prices.shipped(), DeploymentBudgets.of(memory.settings), purse, _never, late)
        payload = TurnPayload(job_id=job_id, tenant="acme", agent="support", conversation_id="c1", message="?")
        document = await memory.admin.fetchval("SELECT settings FROM tenants WHERE tenant_id = 'acme'")
        work = Work(claimed, payload, None, "ann", settings=read_settings(document), spent=Amount(0, 0))
        embedder = QueryEmbedder(memory.settings, pool, prices.shipped())
        try:
            yield Asking(embedder, work, Spending(work, money, store, lambda: False), store, purse)
        finally:
            await embedder.aclose()
            await late.aclose()
            await pool.close()
            await bench.redis.aclose(close_connection_pool=True)


async def _never() -> None:
    raise AssertionError("money is open")


@pytest.fixture
async def asked(memory: Memory, database: Database) -> AsyncIterator[Asking]:
    """Its rows are committed at the end, as a turn's are, before the money is checked."""
    async with asking(memory, database) as opened:
        await opened.embedder.prepare()
        yield opened
        await opened.commit()


async def test_a_question_has_the_vector_of_the_active_model(asked: Asking, memory: Memory) -> None:
    meaning = await asked.ask("what is my dog called?")
    assert isinstance(meaning, QueryVector)
    assert meaning.model_id == (await memory.model()).model_id
    assert meaning.literal.count(",") == 1535
    await asked.commit()
    (row,) = await memory.ledger()
    served = (await memory.served())["by_model"]["text-embedding-3-small"]
    assert (row["kind"], row["status"], row["input_tokens"]) == ("embedding", "ok", served["input_tokens"])
    assert row["cost_nano_usd"] == served["input_tokens"] * 20
    assert str(row["job_id"]) == asked.work.payload.job_id


async def test_the_same_question_costs_once(asked: Asking, memory: Memory) -> None:
    first, second = await asked.ask("hello"), await asked.ask("hello")
    assert first == second
    assert (await memory.served())["calls"] == 1
    assert len(asked.work.rows) == 1


async def test_a_late_answer_is_not_waited_for_and_is_paid(memory: Memory, database: Database) -> None:
    memory.settings = memory.settings.model_copy(update={"embedding_deadline_ms": 1_500})
    async with asking(memory, database) as asked:
        await asked.embedder.prepare()
        await memory.behave({"faults": ["hang"]})
        assert await asked.ask("what is my dog called?") == Late("late")
        await asked.commit()
    rows = await memory.ledger()
    assert [(row["status"], row["estimated"]) for row in rows] == [("aborted", True)]


@pytest.mark.parametrize(
    "rule", [{"faults": [{"status": 500}]}, {"dimensions": 3}, {"nan_for": "dog"}, {"faults": ["malformed"]}]
)
async def test_what_fails_is_no_vector_and_no_error(asked: Asking, memory: Memory, rule: dict[str, object]) -> None:
    await memory.behave(rule)
    assert await asked.ask("what is my dog called?") == Late("failed")
    await memory.behave()
    assert isinstance(await asked.ask("what is my dog called?"), QueryVector)


async def test_a_spent_budget_buys_no_vector(memory: Memory, database: Database) -> None:
    await memory.tenant("acme", conversation_usd="0.000000001")
    async with asking(memory, database) as asked:
        assert await asked.ask("what is my dog called?") == Late("budget")
        await asked.commit()
    assert (await memory.served())["calls"] == 0


async def test_without_a_model_there_are_words(memory: Memory, database: Database) -> None:
    await memory.admin.execute("DELETE FROM embedding_models")
    async with asking(memory, database) as asked:
        assert await asked.ask("what is my dog called?") == Late("no_model")


async def test_a_new_active_model_is_used_within_seconds(
    asked: Asking, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(await asked.ask("hello"), QueryVector)
    await memory.admin.execute("INSERT INTO embedding_models (name, dimensions) VALUES ($1, 256)", SHORT)
    assert await memory.admin.fetchval("SELECT activate_embedding_model($1, true)", SHORT) is None
    before = await asked.ask("hello, again")
    assert isinstance(before, QueryVector)
    assert before.model_id == (await memory.model(SMALL)).model_id, "not yet: it is still kept up to date"
    monkeypatch.setattr(query, "KNOWN_S", 0.0)

    async def switched() -> bool:
        meaning = await asked.ask("hello")
        return isinstance(meaning, QueryVector) and meaning.literal.count(",") == 255

    await _eventually(switched)


async def test_the_local_model_is_free(memory: Memory, database: Database) -> None:
    name = "local:all-minilm-l6-v2"
    await memory.admin.execute("INSERT INTO embedding_models (name, dimensions) VALUES ($1, 384)", name)
    await memory.admin.fetchval("SELECT activate_embedding_model($1, true)", name)
    async with asking(memory, database) as asked:
        meaning = await asked.ask("what is my dog called?")
        assert isinstance(meaning, QueryVector)
        assert meaning.literal.count(",") == 383
        assert asked.work.rows == {}
