"""Both running applications keep what their documents say, whatever they are sent."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import asyncpg
import httpx
import pytest

from ops.stack.standin import Standin
from shared.config import Settings
from shared.sealing import Sealer, credentials_about
from sql import queries
from tests.conftest import Database
from tests.dead.graveyard import bury
from tests.keys import give_key
from tests.openapi.fuzzing import Stack, running, schemathesis
from tests.sql.shapes import a_turn

KEY = "sk-fuzzing"
HOUSE, TENANT, CODE = "house-of-the-fuzzer", "acme", "upstream_unavailable"
KEPT = f"""
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE TG_OP WHEN 'UPDATE' THEN old END;
END $$;
CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON tenants FOR EACH ROW WHEN (old.tenant_id = '{HOUSE}')
    EXECUTE FUNCTION keep();
CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON api_keys FOR EACH ROW WHEN (old.tenant_id = '{HOUSE}')
    EXECUTE FUNCTION keep();
"""
"""Nobody disables the tenant whose key is used: all that came afterwards would be refused, and nothing looked at."""
CHANNEL = "ch-0123456789abcdef"
SEALING_KEY = b64encode(b"k" * 32).decode()


@pytest.fixture
async def stack(redis_url: str, database: Database, standin: Standin, tmp_path: Path) -> AsyncIterator[Stack]:
    """With a key that opens everything, and no limits."""
    owner = await asyncpg.connect(database.owner)
    for tenant, key in ((HOUSE, KEY), (TENANT, "sk-of-the-examples-tenant")):
        await give_key(owner, tenant, key, ["chat", "admin", "operator"])
    await owner.execute("UPDATE tenants SET settings = '{\"unlimited\": true}'")
    await owner.execute(KEPT)
    await owner.close()
    settings = Settings.read(
        {
            "redis_url": redis_url,
            "database_url": database.app,
            "ops_database_url": database.ops,
            "openai_api_key": "sk-test",
            "openai_base_url": f"{standin.url}/v1",
            "secret": "a secret of tests, long enough",
            "credentials_key": SEALING_KEY,
            "long_poll_max_s": 1,
            "sse_keepalive_s": 0.5,
            "log_level": "ERROR",
            "unauthorized_per_min": 1_000_000,  # it tries keys that are none, and expects 401
        }
    )
    async with running(settings, KEY, tmp_path) as started:
        yield started


async def test_the_ingress_keeps_its_document(stack: Stack, tmp_path: Path) -> None:
    await expect_clean(stack.ingress, "/v1/agents", tmp_path)


async def test_the_console_keeps_its_document(stack: Stack, database: Database, tmp_path: Path) -> None:
    found = await there(database)
    buried = [
        await bury(database.app, tenant=TENANT, state=state, code=CODE) for state in ("dead", "expired", "rejected") * 5
    ]
    known = {
        "query.tenant": [TENANT],
        "query.agent": ["support"],
        "query.error_code": [CODE],
        "path.job_id": buried,
    } | found
    await expect_clean(stack.console, "/v1/queues", tmp_path, examples=8, known=known)


async def there(database: Database) -> dict[str, list[str]]:
    """One of everything that has an id, so that not every path leads to a 404."""
    books = await asyncpg.connect(database.superuser)
    hook = (TENANT, "https://example.com/hook", "", [], "tests", 10, "switchboard")
    endpoint = json.loads(await books.fetchval(queries["create_endpoint"], *hook))["id"]
    turn = a_turn(callback_url="https://example.com/hook")
    await books.fetchrow(queries["commit_turn"], TENANT, json.dumps(turn))
    sealed = Sealer(SEALING_KEY).seal(b"{}", about=credentials_about(TENANT, CHANNEL))
    document = {"kind": "slack", "name": "s", "agent": "support", "settings": {"app_id": "A1", "bot_user_id": "U1"}}
    await books.fetchval(
        queries["create_channel"], TENANT, CHANNEL, json.dumps({**document, "held": {}}), sealed, "tests"
    )
    deliveries = await books.fetch("SELECT delivery_id::text FROM deliveries")
    await books.close()
    return {
        "path.endpoint_id": [endpoint],
        "path.delivery_id": [row["delivery_id"] for row in deliveries],
        "path.channel_id": [CHANNEL],
        "path.user_id": [turn["user_id"]],
        "path.conversation_id": [turn["conversation_id"]],
    }


async def expect_clean(
    url: str, asked: str, folder: Path, *, examples: int = 15, known: Mapping[str, list[str]] | None = None
) -> None:
    """`asked`: what the key opens at the end as at the beginning."""
    if report := await schemathesis(url, KEY, folder, max_examples=examples, known=known or {}):
        pytest.fail(report, pytrace=False)
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, trust_env=False) as client:
        assert (await client.get(url + asked)).status_code == 200, "on the way the key was lost, and all was refused"
