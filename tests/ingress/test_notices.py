"""The shared subscription: one connection for everybody, nothing missed, and back after every outage."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ingress.notices import Notices
from ingress.tasks import stop
from ops.stack.directory import DataDirectory
from ops.stack.valkey import Valkey, start_valkey
from shared import keys
from shared.errors import Unavailable
from shared.ids import uuid7
from shared.redis import connect
from tests.conftest import PATIENCE_S, Eventually


@pytest.fixture
async def notices(redis_url: str) -> AsyncIterator[Notices]:
    async with running_notices(redis_url) as made:
        yield made


class running_notices:  # noqa: N801 - reads as a function
    def __init__(self, url: str) -> None:
        self._redis = connect(url)

    async def __aenter__(self) -> Notices:
        notices = Notices(self._redis)
        self._task = asyncio.create_task(notices.run())
        return notices

    async def __aexit__(self, *_: object) -> None:
        await stop(self._task)
        await self._redis.aclose(close_connection_pool=True)


async def test_a_notice_after_watch_has_returned_is_never_missed(notices: Notices, redis: Redis) -> None:
    for _ in range(200):
        job_id = uuid7()
        async with notices.watch(job_id) as watch:
            await redis.publish(keys.notify_channel(job_id), "e")
            assert await watch.wait(PATIENCE_S)


async def test_a_waiter_for_the_end_is_not_woken_by_events(notices: Notices, redis: Redis) -> None:
    job_id = uuid7()
    async with notices.watch(job_id, ends_only=True) as end, notices.watch(job_id) as any_news:
        await redis.publish(keys.notify_channel(job_id), "e")
        assert await any_news.wait(PATIENCE_S)
        assert not await end.wait(0)
        await redis.publish(keys.notify_channel(job_id), "t")
        assert await end.wait(PATIENCE_S)
        assert await any_news.wait(PATIENCE_S)


async def test_a_thousand_waiters_share_one_connection_and_leave_nothing(
    notices: Notices, redis: Redis, eventually: Eventually
) -> None:
    before = await _subscribed_clients(redis)
    jobs = [uuid7() for _ in range(1_000)]
    async with AsyncExitStack() as stack:
        watches = await asyncio.gather(*(stack.enter_async_context(notices.watch(job_id)) for job_id in jobs))
        assert len(await _subscribed_clients(redis) - before) == 1
        async with redis.pipeline(transaction=False) as pipe:
            for job_id in jobs:
                pipe.publish(keys.notify_channel(job_id), "t")
            await pipe.execute()
        assert all(await asyncio.gather(*(watch.wait(PATIENCE_S) for watch in watches)))
    assert notices.watching == 0

    async def all_unsubscribed() -> bool:
        return not any(count for _, count in await redis.pubsub_numsub(*map(keys.notify_channel, jobs)))

    await eventually(all_unsubscribed)


class Wire:
    """A connection whose server answers when the test says so."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, ...]] = []
        self.replies: asyncio.Queue[list[object]] = asyncio.Queue()

    async def send_command(self, *command: str) -> None:
        self.sent.append(command)

    async def read_response(self, **_: object) -> list[object]:
        return await self.replies.get()


async def test_a_channel_entered_again_is_confirmed_by_its_own_subscription(
    redis: Redis, eventually: Eventually
) -> None:
    notices, wire, name = Notices(redis), Wire(), keys.notify_channel("job")
    serving = asyncio.create_task(notices._serve(wire))
    inside = asyncio.Event()

    async def visit() -> None:
        async with notices.watch("job"):
            inside.set()
            await asyncio.Event().wait()

    first = asyncio.create_task(visit())
    await eventually(lambda: len(wire.sent) == 1)
    await stop(first)
    second = asyncio.create_task(visit())
    await eventually(lambda: len(wire.sent) == 3)
    assert wire.sent == [("SUBSCRIBE", name), ("UNSUBSCRIBE", name), ("SUBSCRIBE", name)]
    for kind in (b"subscribe", b"unsubscribe"):
        wire.replies.put_nowait([kind, name.encode(), 0])
    await eventually(lambda: len(notices._unconfirmed) == 1)
    assert not inside.is_set()
    wire.replies.put_nowait([b"subscribe", name.encode(), 1])
    await asyncio.wait_for(inside.wait(), PATIENCE_S)
    await stop(second, serving)


async def test_coming_and_going_in_any_order_leaves_no_gap(notices: Notices, redis: Redis) -> None:
    jobs, choice = [uuid7() for _ in range(3)], random.Random(7)  # noqa: S311 - not for secrets

    async def visitor() -> None:
        for _ in range(40):
            job_id = choice.choice(jobs)
            async with notices.watch(job_id) as watch:
                await redis.publish(keys.notify_channel(job_id), "e")
                assert await watch.wait(PATIENCE_S)

    await asyncio.gather(*(visitor() for _ in range(10)))
    assert notices.watching == 0


async def test_a_cancelled_waiter_leaves(notices: Notices, eventually: Eventually) -> None:
    async def wait() -> None:
        async with notices.watch(uuid7()) as watch:
            await watch.wait(60)

    task = asyncio.create_task(wait())
    await eventually(lambda: notices.watching == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert notices.watching == 0


async def test_waiters_are_woken_when_their_connection_was_cut(notices: Notices, redis: Redis) -> None:
    job_id = uuid7()
    async with notices.watch(job_id) as watch:
        for client in await redis.client_list(_type="pubsub"):
            if int(client["sub"]) and client["db"] == str(redis.connection_pool.connection_kwargs["db"]):
                await redis.client_kill(client["addr"])
        assert await watch.wait(PATIENCE_S)
        await redis.publish(keys.notify_channel(job_id), "e")
        assert await watch.wait(PATIENCE_S)


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[tuple[DataDirectory, Valkey]]:
    with DataDirectory(tmp_path / "v") as directory:
        server = start_valkey(directory)
        yield directory, server
        server.child.stop()


async def test_waiters_live_through_a_restart_of_redis(own_valkey: tuple[DataDirectory, Valkey]) -> None:
    directory, server = own_valkey
    async with running_notices(server.url()) as notices:
        async with AsyncExitStack() as stack:
            jobs = [uuid7() for _ in range(50)]
            watches = [await stack.enter_async_context(notices.watch(job_id)) for job_id in jobs]
            server.child.process.kill()
            server.child.process.wait()
            with pytest.raises(Unavailable):
                await stack.enter_async_context(notices.watch(uuid7()))
            again = start_valkey(directory, port=server.port)
            stack.callback(again.child.stop)
            assert all(await asyncio.gather(*(watch.wait(PATIENCE_S) for watch in watches)))
            async with Redis.from_url(again.url()) as redis:
                await redis.publish(keys.notify_channel(jobs[0]), "t")
            assert await watches[0].wait(PATIENCE_S)
            assert not await watches[1].wait(0)
        assert notices.watching == 0


async def _subscribed_clients(redis: Redis) -> set[str]:
    return {client["id"] for client in await redis.client_list(_type="pubsub") if int(client["sub"])}
