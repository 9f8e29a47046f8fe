"""Lanes, breakers and bounds: who waits for whom."""

import asyncpg

from tests.conftest import Eventually
from tests.delivery.conftest import Looks, Owe, Running, earlier, states
from tests.delivery.receiver import Receiver, receiving


async def test_a_conversations_events_arrive_in_order_though_the_first_one_fails(
    books: asyncpg.Connection, running: Running, owe: Owe, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answer(500)
    for _ in range(3):
        await owe(receiver.url)
    async with running():
        await eventually(lambda: _are(books, ["retrying", "pending", "pending"]))
        await earlier(books, 6)
        await eventually(lambda: _are(books, ["delivered"] * 3))
    assert [post.json["sequence"] for post in receiver.posts] == [1, 1, 2, 3]


async def test_after_five_minutes_the_head_is_parked_and_those_behind_it_pass(
    books: asyncpg.Connection, running: Running, owe: Owe, receiver: Receiver, eventually: Eventually, looks: Looks
) -> None:
    receiver.answer(500, 500)
    for _ in range(3):
        await owe(receiver.url)
    async with running():
        await eventually(lambda: _are(books, ["retrying", "pending", "pending"]))
        await earlier(books, 6)
        await eventually(lambda: _posts(receiver, 2))
        await eventually(lambda: _are(books, ["retrying", "pending", "pending"]))
        await books.execute("UPDATE deliveries SET first_failed_at = first_failed_at - interval '290 seconds'")
        await looks.more(3)
        assert await states(books) == ["retrying", "pending", "pending"]
        await books.execute("UPDATE deliveries SET first_failed_at = first_failed_at - interval '10 seconds'")
        await eventually(lambda: _are(books, ["parked", "delivered", "delivered"]))
        await earlier(books, 400)
        await eventually(lambda: _are(books, ["delivered"] * 3))
    assert [post.json["sequence"] for post in receiver.posts] == [1, 1, 2, 3, 1]


async def test_other_conversations_do_not_wait_for_a_lane_that_is_stuck(
    books: asyncpg.Connection, running: Running, owe: Owe, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answer(500)
    await owe(receiver.url, conversation="stuck")
    async with running():
        await eventually(lambda: _are(books, ["retrying"]))
        await owe(receiver.url, conversation="other")
        await eventually(lambda: _posts(receiver, 2))
    assert receiver.posts[1].json["data"]["conversation_id"] == "other"


async def test_a_receiver_that_hangs_holds_its_few_slots_and_nobody_else_up(
    books: asyncpg.Connection, running: Running, owe: Owe, receiver: Receiver, eventually: Eventually
) -> None:
    async with receiving(hangs=True) as hanging:
        for number in range(30):
            await owe(hanging.url, conversation=f"h{number}")
        async with running(delivery_concurrency=10, delivery_per_receiver=4):
            await eventually(lambda: hanging.open == 4)
            for number in range(20):
                await owe(receiver.url, conversation=f"c{number}")
            await eventually(lambda: _posts(receiver, 20))
            assert hanging.most_open == 4
            hanging.hang.set()
            await eventually(lambda: _are(books, ["delivered"] * 50))
    assert len(hanging.posts) == 30


async def test_the_bound_of_a_receiver_is_that_of_all_processes_together(
    books: asyncpg.Connection, running: Running, owe: Owe, eventually: Eventually, looks: Looks
) -> None:
    async with receiving(hangs=True) as hanging:
        for number in range(20):
            await owe(hanging.url, conversation=f"h{number}")
        async with running(delivery_per_receiver=3), running(delivery_per_receiver=3):
            await eventually(lambda: hanging.open == 3)
            await looks.more(5)
            assert hanging.most_open == 3
            hanging.hang.set()
            await eventually(lambda: _are(books, ["delivered"] * 20))
    assert len(hanging.posts) == 20  # and none twice


async def test_five_failures_in_a_row_open_the_breaker_and_one_success_closes_it(
    books: asyncpg.Connection, running: Running, owe: Owe, receiver: Receiver, eventually: Eventually, looks: Looks
) -> None:
    receiver.always = (500, {})
    for number in range(12):
        await owe(receiver.url, conversation=f"c{number}")
    async with running(delivery_per_receiver=1):
        await eventually(lambda: _open(books))
        await looks.more(3)
        assert len(receiver.posts) == 5
        await books.execute("UPDATE receivers SET open_until = now()")  # half open: one request tries
        await eventually(lambda: _posts(receiver, 6))
        await looks.more(3)
        assert len(receiver.posts) == 6
        assert await books.fetchval("SELECT extract(epoch FROM open_until - now()) FROM receivers") > 5  # it doubled
        receiver.always = None
        await books.execute("UPDATE receivers SET open_until = now()")
        await eventually(lambda: _posts(receiver, 12))
    row = await books.fetchrow("SELECT failures, failing_since, open_until FROM receivers")
    assert tuple(row) == (0, None, None)


async def _open(books: asyncpg.Connection) -> bool:
    return bool(await books.fetchval("SELECT open_until > now() FROM receivers"))


async def _are(books: asyncpg.Connection, wanted: list[str]) -> bool:
    return await states(books) == wanted


async def _posts(receiver: Receiver, many: int) -> bool:
    return len(receiver.posts) == many
