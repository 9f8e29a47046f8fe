"""From what a user says to what a question finds by its meaning: every real part, the local model, no network."""

import msgspec

from ops.stack.standin import Standin
from shared.config import Settings
from shared.db import open_pool
from tests.conftest import Database, Eventually
from tests.embeddings.harness import SUBJECTS
from tests.turn.deployment import Deployment
from workers.embeddings.api import halfvec
from workers.embeddings.local import NAME, LocalEmbedder
from workers.embeddings.upkeep import embedding
from workers.memory.writer import writing

PUPPY = "Last week we adopted a puppy, and now our floor is never dry."
OTHERS = ("The invoice of March is still open.", "My train leaves at nine.", "I work at a bakery in Bergen.")


async def test_what_was_said_is_found_by_its_meaning(
    redis_url: str, database: Database, standin: Standin, eventually: Eventually
) -> None:
    settings = Settings.read(
        {
            "redis_url": redis_url,
            "database_url": database.app,
            "ops_database_url": database.ops,
            "openai_api_key": "sk-test",
            "openai_base_url": f"{standin.url}/v1",
            "embedding_model": NAME,
        }
    )
    ops = await open_pool(database.ops, 4, environment="development")
    async with Deployment.open(settings, database, standin) as deployment:
        async with writing(ops), embedding(settings, deployment.commands, ops, SUBJECTS):
            async with deployment.worker():
                for text in (PUPPY, *OTHERS):
                    record = await deployment.ended(await deployment.say(text))
                    assert record.reply

            async def said_and_embedded() -> bool:
                pieces = "SELECT count(*) FROM memory_items JOIN memory_embeddings USING (tenant_id, user_id, item_id)"
                found: int = await deployment.books.fetchval(f"{pieces} WHERE kind = 'piece' AND role = 'user'")
                return found == 1 + len(OTHERS)

            await eventually(said_and_embedded)

        embedder = LocalEmbedder()
        (vector,) = (await embedder.embed(["Do I have a pet?"], "query", timeout_s=300)).vectors
        assert vector is not None
        model_id = await ops.fetchval("SELECT model_id FROM embedding_models WHERE state = 'active'")
        answer = await ops.fetchval(
            "SELECT recall('acme', 'u1', 'Do I have a pet?', $1, $2::text::halfvec, 500, 3, NULL, NULL)",
            model_id,
            halfvec(vector),
        )
        recalled = msgspec.json.decode(answer)
        assert recalled["mode"] == "both"
        assert recalled["hits"][0]["text"] == PUPPY
        assert (await deployment.served())["by_model"].keys() == {"gpt-5.4-mini"}, "nothing was asked for vectors"
        await embedder.aclose()
        await deployment.check_money()
    await ops.close()
