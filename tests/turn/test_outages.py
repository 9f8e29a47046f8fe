"""Redis or Postgres going away in the middle of turns: they wait, go on by themselves, and lose or double nothing."""

import asyncio
import signal

from ops.stack.directory import DataDirectory
from ops.stack.postgres import start_postgres
from ops.stack.standin import Standin
from ops.stack.valkey import start_valkey
from shared.config import Settings
from sql.migrate import migrate
from tests.conftest import NO_FSYNC, PATIENCE_S, Database, Eventually
from tests.turn.deployment import Deployment


async def test_turns_wait_for_a_postgres_that_restarts(
    private_directory: DataDirectory, settings: Settings, standin: Standin, eventually: Eventually
) -> None:
    server = start_postgres(private_directory, settings=NO_FSYNC)
    await migrate(server.dsn("switchboard_owner", "switchboard"))
    dsn = {role: server.dsn(f"switchboard_{role}", "switchboard") for role in ("owner", "app", "ops")}
    database = Database("switchboard", superuser=server.dsn("postgres", "switchboard"), **dsn)
    private = settings.model_copy(update={"database_url": database.app})
    async with Deployment.open(private, database, standin) as deployment:
        await deployment.behave({"held": True})
        async with deployment.worker():
            jobs = [await deployment.say("hello", conversation=f"c{n}") for n in range(10)]
            await eventually(lambda: deployment.under_way(10))
            await asyncio.to_thread(server.stop)
            await deployment.behave()
            more = [await deployment.say("meanwhile", conversation=f"d{n}") for n in range(5)]
            server = await asyncio.to_thread(start_postgres, private_directory, settings=NO_FSYNC)
            await deployment.reconnect_books(database)
            records = [await deployment.ended(job_id) for job_id in jobs + more]
        assert {record.state for record in records} == {"succeeded"}
        assert {record.attempts for record in records} == {1}, "waiting for Postgres is no attempt"
        assert (await deployment.served())["calls"] == 15
        assert await deployment.books.fetchval("SELECT count(*) FROM messages") == 30
        assert await deployment.books.fetchval("SELECT count(*) FROM llm_calls") == 15
    server.stop()


async def test_turns_survive_a_redis_that_is_killed_and_comes_back(
    private_directory: DataDirectory, settings: Settings, database: Database, standin: Standin, eventually: Eventually
) -> None:
    durable = {"appendfsync": "always"}
    server = start_valkey(private_directory, settings=durable)
    private = settings.model_copy(update={"redis_url": server.url()})
    async with Deployment.open(private, database, standin) as deployment:
        await deployment.behave({"held": True})
        async with deployment.worker():
            jobs = [await deployment.say(f"{n}", conversation=f"c{n % 5}") for n in range(20)]
            await eventually(lambda: deployment.under_way(5))
            server.child.signal(signal.SIGKILL)
            await asyncio.to_thread(server.child.join, PATIENCE_S)
            await deployment.behave()
            server = await asyncio.to_thread(start_valkey, private_directory, port=server.port, settings=durable)
            records = [await deployment.ended_after_outage(job_id, 2 * PATIENCE_S) for job_id in jobs]
        assert {record.state for record in records} == {"succeeded"}
        for conversation in range(5):
            query = "SELECT body FROM messages WHERE conversation_id = $1 AND role = 'user' ORDER BY seq"
            bodies = [row["body"] for row in await deployment.books.fetch(query, f"c{conversation}")]
            assert bodies == [str(n) for n in range(20) if n % 5 == conversation]
        assert await deployment.books.fetchval("SELECT count(*) FROM messages WHERE role = 'assistant'") == 20
        served = (await deployment.served())["calls"]
        assert await deployment.books.fetchval("SELECT count(*) FROM llm_calls") == served
    server.child.stop()
