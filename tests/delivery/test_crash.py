"""A delivery process that is killed, stopped, or without its servers."""

import asyncio
import signal
import sys

import asyncpg

from shared.config import Settings
from tests.conftest import START_S, Eventually
from tests.delivery.conftest import Owe, Running, earlier, states
from tests.delivery.receiver import Receiver, receiving
from tests.stack.dev_process import REPOSITORY
from tests.turn.deployment import environment_of


async def start(settings: Settings, *module: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *module),
        cwd=REPOSITORY,
        env=environment_of(settings),
        stdout=asyncio.subprocess.DEVNULL,
    )


async def test_killed_between_request_and_note_it_is_sent_again_under_the_same_id(
    settings: Settings,
    books: asyncpg.Connection,
    running: Running,
    owe: Owe,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    await owe(receiver.url)
    await owe(receiver.url)
    doomed = await start(settings, "tests.delivery.doomed_courier")
    assert await asyncio.wait_for(doomed.wait(), START_S) == -signal.SIGKILL
    assert (await states(books), len(receiver.posts)) == (["sending", "pending"], 1)
    async with running():
        assert await states(books) == ["sending", "pending"]  # its lease holds: somebody may still be at it
        await earlier(books, 60)
        await eventually(lambda: _delivered(books))
    assert [post.json["sequence"] for post in receiver.posts] == [1, 1, 2]
    first, again, _ = receiver.posts
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    assert first.body == again.body
    log = await books.fetch("SELECT attempt, outcome FROM delivery_attempts ORDER BY delivery_id, attempt")
    assert [tuple(row) for row in log] == [(1, "unknown"), (2, "delivered"), (1, "delivered")]


async def _delivered(books: asyncpg.Connection) -> bool:
    return set(await states(books)) == {"delivered"}


async def test_sigterm_lets_what_is_under_way_end_and_claims_no_more(
    settings: Settings, books: asyncpg.Connection, owe: Owe, eventually: Eventually
) -> None:
    async with receiving(hangs=True) as slow:
        await owe(slow.url)
        await owe(slow.url)
        process = await start(settings, "ops", "delivery")
        await eventually(lambda: slow.open == 1, START_S)
        process.terminate()
        slow.hang.set()
        assert await asyncio.wait_for(process.wait(), START_S) == 0
    assert await states(books) == ["delivered", "pending"]


async def test_a_late_note_of_a_lost_lease_changes_nothing(
    books: asyncpg.Connection, running: Running, owe: Owe, eventually: Eventually
) -> None:
    """A frozen process wakes up after another one took its delivery over and was told off."""
    async with receiving(hangs=True) as slow:
        await owe(slow.url)
        async with running():
            await eventually(lambda: slow.open == 1)
            await earlier(books, 60)
            await eventually(lambda: slow.open == 2)
            slow.answer(500)
            slow.hang.set()
            await eventually(lambda: _delivered(books))
    assert await books.fetchval("SELECT attempts FROM deliveries") == 2


async def test_without_the_operators_role_it_does_not_start(settings: Settings, books: asyncpg.Connection) -> None:
    lacking = settings.model_copy(update={"ops_database_url": None})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops", "delivery"),
        cwd=REPOSITORY,
        env={**environment_of(lacking), "SWITCHBOARD_OPS_DATABASE_URL": ""},
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    _, said = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode == 2
    assert b"SWITCHBOARD_OPS_DATABASE_URL" in said
    assert b"Traceback" not in said
