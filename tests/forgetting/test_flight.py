"""What of a user is under way in Redis: what goes at once, what is waited for, and what is left alone."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from ops.stack.valkey import Valkey
from ops.users import flight as flights
from ops.users.erasing import Eraser
from ops.users.flight import Flight
from ops.users.whom import Whom
from shared import keys
from shared.budgets import counter_key
from shared.ids import uuid7
from shared.redis import Commands, connect
from shared.wire import TurnPayload, encode_turn
from tests.conftest import Eventually
from tests.forgetting.searching import Everywhere
from tests.forgetting.test_erasing import CANARY, USER, a_user, erase, state_of
from tests.turn.deployment import TENANT, Deployment
from workers.maintenance.ends import UNREADABLE
from workers.replies.working import Sign

ADDRESS = "16505559917734"
HOUR_US = 3_600_000_000


@pytest.fixture
def flight(deployment: Deployment) -> Flight:
    return Flight(deployment.commands)


@pytest.fixture
async def cache(valkey: Valkey) -> AsyncIterator[Commands]:
    """Another server than the queue's."""
    async with connect(valkey.url(0)) as other:
        await other.flushdb()
        commands = Commands(other)
        yield commands
        await other.flushdb()
        await commands.aclose()


async def test_a_job_that_was_started_is_flagged_and_says_no_more(deployment: Deployment, flight: Flight) -> None:
    run = deployment.commands.run
    job_id = await deployment.say("hello", user=USER, metadata={"says": CANARY})
    await run("HSET", keys.job(job_id), "state", "running", "worker", "w1", "errors", CANARY)
    await run("XADD", keys.events(job_id), "1-0", "t", "message.delta", "d", CANARY)
    watching = deployment.commands.redis.pubsub()
    await watching.subscribe(keys.notify_channel(job_id))
    look = await flight.look(a_user(), await flight.now_us())
    assert (look.live, look.started, look.jobs) == (1, 1, set())
    record = await deployment.commands.redis.hgetall(keys.job(job_id))
    assert CANARY.encode() not in b"".join(record.values())
    assert (record[b"state"], record[b"cancel"]) == (b"running", b"1")
    assert await run("EXISTS", keys.events(job_id)) == 0
    assert await run("SMEMBERS", "arq:queue:cancel:w1") == {job_id.encode()}
    await run("HSET", keys.job(job_id), "state", "cancelled")
    look = await flight.look(a_user(), await flight.now_us())
    assert (look.live, look.jobs) == (0, {job_id})
    [_, told] = [await watching.get_message(timeout=10) for _ in range(2)]
    assert (told or {}).get("data") == b"t", "whoever watches it looks again"
    await watching.aclose()


async def test_a_waiting_job_leaves_nothing_of_arqs_own_and_lets_the_next_one_go(
    deployment: Deployment, flight: Flight, everywhere: Everywhere
) -> None:
    """The conversation goes on with somebody whom the books do not name."""
    run = deployment.commands.run
    job_id = await deployment.say(CANARY, user=USER)
    for name in ("retry", "result", "in-progress"):
        await run("SET", f"arq:{name}:{job_id}", "1")
    await run("ZADD", "arq:abort", 1, job_id)
    before_us = await flight.now_us()
    later = await deployment.say("i am back", user=USER)
    await run("DEL", keys.owner(TENANT, "c1"))
    look = await flight.look(a_user(), before_us)
    assert (look.jobs, look.live, look.conversations) == ({job_id}, 0, {"c1"})
    assert await everywhere.find(CANARY, job_id) == []
    assert await run("ZRANGE", "arq:queue", 0, -1) == [later.encode()]
    assert await state_of(deployment, later) == "queued"


async def test_of_what_a_later_message_took_in_that_of_before_goes_and_that_of_later_stays(
    deployment: Deployment, flight: Flight
) -> None:
    merged: dict[str, Any] = {"user": USER, "policy": "merge", "merge_window_s": 5.0}
    early = await deployment.say(CANARY, **merged)
    before_us = await flight.now_us()
    between, last = [await deployment.say(text, **merged) for text in ("i am back", "and well")]
    taken = f"sb:taken:{last}"
    assert await deployment.commands.run("LLEN", taken) == 2
    look = await flight.look(a_user(), before_us)
    assert (look.jobs, look.live) == ({early}, 0)
    [left] = await deployment.commands.run("LRANGE", taken, 0, -1)
    assert left.split(b" ")[1].decode() == between


async def test_what_was_taken_in_and_is_gone_does_not_come_back_when_that_ends(
    deployment: Deployment, flight: Flight
) -> None:
    """The later one is quicker to end than a look is to come to it."""
    merged: dict[str, Any] = {"user": USER, "policy": "merge", "merge_window_s": 5.0}
    early, last = [await deployment.say(CANARY, **merged) for _ in range(2)]
    argv = [early, TENANT, "c1", USER, await flight.now_us()]
    assert await flights._erase(deployment.commands, [keys.job(early)], argv) == [b"gone", 0]
    await deployment.intake.cancel(TENANT, last)
    assert await state_of(deployment, last) == "cancelled"
    assert await deployment.commands.run("EXISTS", keys.job(early)) == 0


async def test_a_job_that_is_another_one_by_now_is_looked_at_again(
    deployment: Deployment, flight: Flight, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await deployment.say("hello", user=USER)
    for told in (["other", "c1", USER], [TENANT, "c2", USER], [TENANT, "c1", "u2"]):
        became = await flights._erase(deployment.commands, [keys.job(job_id)], [job_id, *told, 1 << 60])
        assert became == [b"changed", 0]
    assert await state_of(deployment, job_id) == "queued"

    async def another(*_: object) -> list[object]:
        return [b"changed", 0]

    monkeypatch.setattr(flights, "_erase", another)
    await deployment.commands.run("DEL", keys.owner(TENANT, "c1"))
    look = await flight.look(a_user(), await flight.now_us())
    assert (look.live, look.conversations) == (1, set())


async def test_what_a_channel_brought_is_waited_for_and_what_it_brings_later_is_not(
    deployment: Deployment, eraser: Eraser, flight: Flight, eventually: Eventually
) -> None:
    """Others may stand in the same entry: only who writes it may take it apart."""
    run = deployment.commands.run
    status = {"channel": "ch", "message_id": "wamid.1", "state": "read", "at_us": 1, "recipient": ADDRESS}
    rows = msgspec.json.encode([{**status, "received_us": 1}])
    later_ms = (await flight.now_us() + HOUR_US) // 1_000
    for entry_id in ("*", f"{later_ms}-0"):
        await run("XADD", keys.INBOX, entry_id, "tenant", TENANT, "rows", rows)
    erasing = asyncio.create_task(erase(eraser, a_user(f"whatsapp:{ADDRESS}")))
    await eventually(lambda: deployment.books.fetchval("SELECT count(*) FROM erasures WHERE state = 'fenced'"))
    await asyncio.wait([erasing], timeout=0.3)
    assert not erasing.done(), "nobody has written the first entry"
    await deployment.books.execute("UPDATE erasures SET lease_until = now()")
    await eventually(lambda: deployment.books.fetchval("SELECT lease_until > now() FROM erasures"))
    [first, _] = await run("XRANGE", keys.INBOX, "-", "+")
    await run("XDEL", keys.INBOX, first[0])
    await erasing
    assert await run("XLEN", keys.INBOX) == 1


async def test_ends_that_wait_are_told_apart(
    deployment: Deployment, flight: Flight, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their user, whoever names them; not those of somebody else, of a namesake elsewhere, or of later."""
    monkeypatch.setattr(flights, "PAGE", 2)
    before_us = await flight.now_us()

    async def ended(stream: str, created_us: int, payload: bytes, user: str = "") -> None:
        entry = {"id": uuid7(), "created_us": created_us, "user": user, "payload": payload}
        await deployment.commands.redis.xadd(stream, entry)  # type: ignore[arg-type]

    def said(user: str | None, tenant: str = TENANT) -> bytes:
        named = {"tenant": tenant, "agent": "support", "conversation_id": "c1", "user_id": user}
        return encode_turn(TurnPayload(job_id=uuid7(), message="m", **named), enqueued_ms=0)  # type: ignore[arg-type]

    for other in (said("u2"), said(USER, "other")):
        await ended(keys.ENDED, before_us - 1, other)
    await ended(keys.ENDED, before_us + 1, said(USER))
    await ended(keys.ENDED, before_us - 1, said(USER))
    await ended(keys.ENDED, before_us - 1, said(None), USER)
    await ended(UNREADABLE, before_us - 1, b"{", USER)
    await ended(UNREADABLE, before_us - 1, b"{", "u2")
    look = await flight.look(a_user(), before_us)
    assert look.counts["redis_entries"] == 3
    assert [await deployment.commands.run("XLEN", stream) for stream in (keys.ENDED, UNREADABLE)] == [3, 1]


async def test_of_one_conversation_goes_what_names_it_and_nobody_elses(deployment: Deployment, flight: Flight) -> None:
    """Jobs of no user are not all the same one's."""
    talks = ("conv-7d0e", "conv-41b9")
    gone, stays = [await deployment.say("hello", user=None, conversation=talk) for talk in talks]
    for talk in talks:
        payload = b'{"conversation_id": "%b"' % talk.encode()
        await deployment.commands.run("XADD", UNREADABLE, "*", "id", uuid7(), "created_us", "1", "payload", payload)
    look = await flight.look(Whom(tenant=TENANT, user=None, conversations=["conv-7d0e"]), await flight.now_us())
    assert (look.jobs, look.counts["redis_entries"]) == ({gone}, 1)
    assert await state_of(deployment, stays) == "queued"
    [(_, left)] = await deployment.commands.redis.xrange(UNREADABLE)
    assert b"conv-41b9" in left[b"payload"]


async def test_every_key_is_looked_at_however_many_there_are(
    deployment: Deployment, flight: Flight, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights, "PAGE", 10)
    talks = {f"c{number}" for number in range(100)}
    await deployment.commands.redis.mset({keys.owner(TENANT, talk): USER for talk in talks})
    look = await flight.look(a_user(), await flight.now_us())
    assert look.conversations == talks


async def test_of_signs_of_work_those_of_later_stay_and_those_of_another_version(
    deployment: Deployment, flight: Flight
) -> None:
    before_us = await flight.now_us()
    others = ["another version's"]
    for at_us in (before_us + 1, before_us):
        sign = Sign(tenant=TENANT, channel="ch", job="j", at_us=at_us, details={"to": ADDRESS})
        others.append(msgspec.json.encode(sign).decode())
    await deployment.commands.run("RPUSH", keys.WORKING, *others)
    await flight.look(a_user(f"whatsapp:{ADDRESS}"), before_us)
    assert await deployment.commands.redis.lrange(keys.WORKING, 0, -1) == [text.encode() for text in others[:2]]


async def test_kept_answers_go_from_their_own_server_and_those_asked_for_before_are_not_kept(
    deployment: Deployment, cache: Commands
) -> None:
    for server, question in ((deployment.commands, "elsewhere"), (cache, "question")):
        for tenant in (TENANT, "other"):
            await server.run("SET", keys.cached(tenant, question), "1 answer")
    flight = Flight(deployment.commands, cache)
    began_ms = await Flight(cache).now_us() // 1_000
    assert await flight.drop_answers(a_user()) == 1
    moment_ms = int(await cache.run("GET", keys.erased(TENANT)))
    assert began_ms <= moment_ms <= await Flight(cache).now_us() // 1_000
    assert await cache.run("KEYS", "sb:cache:*") == [keys.cached("other", "question").encode()]
    assert len(await deployment.commands.run("KEYS", "sb:cache:*")) == 2


async def test_a_counter_becomes_what_the_ledger_has_unless_somebody_uses_it(
    deployment: Deployment, flight: Flight
) -> None:
    run, counter = deployment.commands.run, keys.spent("conv", TENANT, "c9")
    held = ("usd_held", 0, "tok_held", 0)
    await run("HSET", counter, "usd", 5, "tok", 7, *held)
    was = await flight.spent(counter)
    assert was == (b"5", b"7")
    for changed in (("usd", 6), ("tok", 8), ("usd_held", 1), ("tok_held", 1)):
        await run("HSET", counter, *changed)
        assert not await flight.set_spent(counter, was, (0, 0))
        await run("HSET", counter, "usd", 5, "tok", 7, *held)
    assert await flight.set_spent(counter, was, (3, 2))
    assert await flight.spent(counter) == (b"3", b"2")
    assert await flight.set_spent(counter, (b"3", b"2"), (0, 0))
    assert await run("EXISTS", counter) == 0


async def test_money_of_a_user_who_is_back_is_counted_when_nobody_spends_any_more(
    deployment: Deployment,
    eraser: Eraser,
    flight: Flight,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Last month's too; what their new job costs may not be in the ledger yet. Once more where somebody was quicker."""
    set_spent, tried = Flight.set_spent, list[int]()

    async def once_too_late(self: Flight, *args: Any) -> bool:
        tried.append(1)
        return len(tried) > 1 and await set_spent(self, *args)

    monkeypatch.setattr(Flight, "set_spent", once_too_late)
    run, now = deployment.commands.run, datetime.now(UTC)
    months = (now, now.replace(day=1) - timedelta(days=1))
    counters = [counter_key("user-month", f"{month:%Y%m}", TENANT, USER) for month in months]
    for counter in counters:
        await run("HSET", counter, "usd", 5, "tok", 7, "usd_held", 0, "tok_held", 0)
    request = await eraser.begin(whom := a_user(), "tests")
    before_us = await flight.now_us()
    later = await deployment.say("i am back", user=USER)
    await run("HSET", keys.job(later), "state", "running", "worker", "w1")
    erasing = asyncio.create_task(eraser.finish(whom, request, "tests", before_us))
    await eventually(lambda: deployment.books.fetchval("SELECT count(*) FROM erasures WHERE state = 'fenced'"))
    await asyncio.wait([erasing], timeout=0.5)
    assert not erasing.done()
    assert await run("EXISTS", *counters) == 2
    await run("HSET", keys.job(later), "state", "succeeded")
    await erasing
    assert await run("EXISTS", *counters) == 0
