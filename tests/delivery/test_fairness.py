"""One tenant's hosts that hang are that tenant's trouble: others' deliveries go out meanwhile, whoever is killed."""

import json
import signal
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from shared.config import Settings
from sql import queries
from tests.conftest import Database, Eventually
from tests.delivery.conftest import Looks, Owe, Running, states
from tests.delivery.receiver import Receiver, receiving
from tests.delivery.test_crash import start

HOSTS = 50
SLOTS = 40
PATIENT = {"delivery_concurrency": SLOTS, "delivery_timeout_s": 900.0}
"""What hangs does so for longer than any test takes."""


@pytest.fixture
async def hanging() -> AsyncIterator[Receiver]:
    async with receiving(hangs=True, bind="0.0.0.0") as opened:  # noqa: S104 - loopback's other addresses
        yield opened


@pytest.fixture
async def owed(owe: Owe, hanging: Receiver) -> int:
    """Tenant `acme` owes each of its hosts more than any process can send at once."""
    for host in range(HOSTS):
        for n in range(2):
            await owe(hanging.url_of(host), conversation=f"h{host}-{n}")
    return HOSTS * 2


@asynccontextmanager
async def letting_go(of: Receiver) -> AsyncIterator[None]:
    """At the end, however it comes: a courier that leaves waits for what it has under way."""
    try:
        yield
    finally:
        of.hang.set()


async def test_hanging_hosts_of_one_tenant_leave_half_of_the_slots_to_others(
    books: asyncpg.Connection,
    running: Running,
    owe: Owe,
    owed: int,
    hanging: Receiver,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    async with running(**PATIENT), letting_go(hanging):
        await eventually(lambda: hanging.open == SLOTS // 2, timeout_s=60)
        await owe(receiver.url, tenant="other")
        await eventually(lambda: len(receiver.posts) == 1, timeout_s=60)
        assert hanging.open == SLOTS // 2
        hanging.hang.set()
        await eventually(lambda: _all_delivered(books, owed + 1), timeout_s=60)


async def test_no_number_of_processes_is_taken_up_by_one_tenant(
    books: asyncpg.Connection,
    running: Running,
    owe: Owe,
    owed: int,
    hanging: Receiver,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    async with running(**PATIENT), running(**PATIENT), letting_go(hanging):
        await eventually(lambda: hanging.open == SLOTS, timeout_s=60)
        await owe(receiver.url, tenant="other")
        await eventually(lambda: len(receiver.posts) == 1, timeout_s=60)
        hanging.hang.set()
        await eventually(lambda: _all_delivered(books, owed + 1), timeout_s=60)
    assert len(hanging.posts) == owed  # and none twice


async def test_killed_amid_hanging_hosts_nothing_is_lost_and_others_go_out_at_once(
    settings: Settings,
    books: asyncpg.Connection,
    running: Running,
    owe: Owe,
    owed: int,
    hanging: Receiver,
    receiver: Receiver,
    eventually: Eventually,
) -> None:
    doomed = await start(settings.model_copy(update=PATIENT), "ops", "delivery")
    await eventually(lambda: hanging.open == SLOTS // 2, timeout_s=300)
    doomed.send_signal(signal.SIGKILL)
    await doomed.wait()
    cut = await books.fetch("SELECT delivery_id FROM deliveries WHERE state = 'sending'")
    await owe(receiver.url, tenant="other")
    async with running(**PATIENT), letting_go(hanging):
        await eventually(lambda: len(receiver.posts) == 1, timeout_s=60)
        held = await books.execute(  # until now: somebody might still have been at them
            "UPDATE deliveries SET lease_until = now() WHERE state = 'sending' AND delivery_id = ANY ($1)",
            [row["delivery_id"] for row in cut],
        )
        assert held == f"UPDATE {SLOTS // 2}"
        hanging.hang.set()
        await eventually(lambda: _all_delivered(books, owed + 1), timeout_s=60)
    ids = {post.headers["webhook-id"] for post in hanging.posts}
    assert len(ids) == owed
    assert len(hanging.posts) <= owed + SLOTS // 2  # none but those that were cut twice


async def test_names_that_nobody_answers_for_leave_threads_to_others(
    books: asyncpg.Connection,
    running: Running,
    owe: Owe,
    receiver: Receiver,
    eventually: Eventually,
    looks: Looks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lookup cannot be stopped: it outlasts its attempt, and so does the slot."""
    asked, answer = [], threading.Event()

    def ask(host: str, *args: Any, original: Any = socket.getaddrinfo, **more: Any) -> Any:
        if host.endswith(".example"):
            asked.append(host)
            answer.wait(100)
        return original("127.0.0.1", *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    for host in range(20):
        await owe(f"http://h{host}.example/", conversation=f"c{host}")
    try:
        async with running(delivery_concurrency=8, delivery_timeout_s=2.0):
            await eventually(lambda: _timed_out(books, 4), timeout_s=60)
            await looks.more(5)
            assert (len(asked), await _timed_out(books, 4)) == (4, True)
            await owe(receiver.url.replace("127.0.0.1", "alive.test"), tenant="other")
            await eventually(lambda: len(receiver.posts) == 1, timeout_s=60)
            answer.set()
    finally:
        answer.set()


async def _timed_out(books: asyncpg.Connection, many: int) -> bool:
    codes = await books.fetch("SELECT last_error->>'code' AS code FROM deliveries WHERE last_error IS NOT NULL")
    return [row["code"] for row in codes] == ["timeout"] * many


async def _all_delivered(books: asyncpg.Connection, many: int) -> bool:
    return Counter(await states(books)) == {"delivered": many}


@pytest.mark.parametrize(
    ("wanted", "busy", "given"),
    [
        ({"acme": 40}, {}, {"acme": 20}),
        ({"acme": 40, "other": 40}, {}, {"acme": 14, "other": 13}),
        ({"acme": 40, "other": 3}, {}, {"acme": 19, "other": 3}),
        ({"acme": 40, "other": 5}, {"acme": 20}, {"other": 5}),
        ({"acme": 9}, {"other": 30}, {"acme": 5}),
    ],
    ids=["alone", "two", "one and a modest one", "late", "few are left"],
)
async def test_a_tenant_gets_as_many_slots_as_are_left_free(
    books: asyncpg.Connection,
    database: Database,
    owe: Owe,
    wanted: dict[str, int],
    busy: dict[str, int],
    given: dict[str, int],
) -> None:
    for tenant, many in wanted.items():
        for host in range(many):
            await owe(f"https://h{host}.example.org/", tenant=tenant, conversation=f"c{host}")
    ops = await asyncpg.connect(database.ops)
    args = (SLOTS - sum(busy.values()), 4, 60, 5, 40, json.dumps(busy))
    claimed = [json.loads(row["delivery"])["tenant"] for row in await ops.fetch(queries["claim_deliveries"], *args)]
    await ops.close()
    assert Counter(claimed) == given


async def test_a_tenants_receivers_take_turns(books: asyncpg.Connection, database: Database, owe: Owe) -> None:
    for host in range(3):
        for n in range(8):
            await owe(f"https://h{host}.example.org/", conversation=f"c{host}-{n}")
    rows = await books.fetch(queries["claim_deliveries"], 11, 4, 60, 5, 40, "{}")
    assert sorted(Counter(json.loads(row["delivery"])["url"] for row in rows).values()) == [2, 2, 2]
