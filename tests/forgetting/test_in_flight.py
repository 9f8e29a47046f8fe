"""Erasing while jobs wait, run, are retried, merged, or come back to life: nothing of them is written any more."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from ops.dead.desk import Desk
from ops.users.books import ErasingBooks
from ops.users.erasing import Eraser
from ops.users.whom import Whom
from shared import keys
from shared.errors import NotFound
from tests.conftest import Eventually
from tests.dead.graveyard import kill, retry
from tests.forgetting.searching import Everywhere
from tests.forgetting.test_erasing import CANARY, USER, a_user, erase, state_of
from tests.turn.deployment import TENANT, Deployment
from tests.turn.test_killed_worker import doomed_worker, until_frozen
from workers.turn.store import TurnStore


async def test_messages_that_wait_are_gone_at_once_and_those_of_others_go_on(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere
) -> None:
    await deployment.say(CANARY, user=USER)
    await deployment.say(f"more {CANARY}", user=USER, metadata={"says": CANARY})
    other = await deployment.say("hello", user="u2", conversation="c2")
    assert (await erase(eraser, a_user()))["redis_jobs"] == 2
    assert await everywhere.find(CANARY, USER) == []
    async with deployment.worker():
        assert (await deployment.ended(other)).state == "succeeded"
    assert (await deployment.served())["calls"] == 1


async def test_a_running_turn_is_stopped_its_money_stays_and_its_words_go(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere, eventually: Eventually
) -> None:
    await deployment.behave({"tokens_per_s": 20, "output_tokens": 4000})
    async with deployment.worker():
        job_id = await deployment.say(CANARY, user=USER, callback_url="https://example.org/hook")
        follower = await deployment.say(f"then {CANARY}", user=USER)

        async def speaking() -> bool:
            return bool(await deployment.deltas(job_id))

        await eventually(speaking)
        counts = await erase(eraser, a_user())
        assert counts["redis_jobs"] == 2, "the follower at once, the other one when its worker had ended it"
        assert await state_of(deployment, job_id) is None
        assert await state_of(deployment, follower) is None
        assert await everywhere.find(CANARY, USER) == []
    (row,) = await deployment.ledger()
    assert (row["user_id"], row["conversation_id"], row["status"]) == (None, "", "aborted")
    assert row["cost_nano_usd"] > 0
    assert await deployment.books.fetchval("SELECT count(*) FROM deliveries") == 0
    await deployment.check_money()


async def test_a_turn_that_waits_for_its_retry_ends_without_a_word(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere, eventually: Eventually
) -> None:
    await deployment.behave({"faults": [{"status": 429, "retry_after_s": 60}]})
    async with deployment.worker():
        job_id = await deployment.say(CANARY, user=USER)

        async def waiting() -> bool:
            return await state_of(deployment, job_id) == "retrying"

        await eventually(waiting)
        await erase(eraser, a_user())
        assert await everywhere.find(CANARY, USER) == []
    assert await deployment.rows("jobs", job_id) == []
    await deployment.check_money()


async def test_merged_and_interrupted_messages_go_with_the_one_that_took_them_in(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere
) -> None:
    for policy in ("merge", "interrupt"):
        for text in (CANARY, f"also {CANARY}", f"last {CANARY}"):
            await deployment.say(text, user=USER, conversation=policy, policy=policy, merge_window_s=5.0)
    await erase(eraser, a_user())
    assert await everywhere.find(CANARY, USER) == []


async def test_a_message_taken_in_before_goes_and_the_later_one_is_answered(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere
) -> None:
    """The user is back while the erasure is still under way."""
    await deployment.say(CANARY, user=USER, policy="merge", merge_window_s=0.2)
    whom = a_user()
    request = await eraser.begin(whom, "tests")
    fenced_us = await eraser._flight.now_us()
    await eraser._fence(whom, request, fenced_us)
    later = await deployment.say("i am back", user=USER, policy="merge", merge_window_s=0.2)
    assert await eraser.finish(whom, request, "tests", fenced_us)
    assert await everywhere.find(CANARY) == []
    async with deployment.worker():
        assert (await deployment.ended(later)).state == "succeeded"
    assert await everywhere.find(CANARY) == []
    assert (await deployment.rows("messages", later))[0]["body"] == "i am back"


async def test_the_books_leave_out_what_a_later_turn_took_in_of_erased_people(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker has read them before they were taken out of Redis."""
    early = await deployment.say(CANARY, user=USER, policy="merge", merge_window_s=0.1)
    created_us = int(await deployment.commands.redis.hget(keys.job(early), "created_us"))
    later = await deployment.say("i am back", user=USER, policy="merge", merge_window_s=0.1)
    whom = a_user()
    await eraser._books.begin(
        whom, "sealed", eraser._seals.subjects(whom), created_us, by="tests", lease_s=60
    )  # the fence alone
    async with deployment.worker():
        await deployment.ended(later)
    assert await everywhere_in_books(everywhere, CANARY) == []
    assert (await deployment.rows("messages", later))[0]["body"] == "i am back"


async def everywhere_in_books(everywhere: Everywhere, text: str) -> list[str]:
    return [place async for place in everywhere._in_books(text) if not place.startswith(("messages", "jobs.reply"))]


async def test_an_end_that_waits_for_postgres_is_not_written(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere
) -> None:
    job_id = await deployment.say(CANARY, user=USER)
    await deployment.intake.cancel(TENANT, job_id)
    assert await deployment.commands.redis.xlen(keys.ENDED) == 1
    await erase(eraser, a_user())
    assert await everywhere.find(CANARY, USER) == []


async def test_an_end_that_a_writer_holds_already_is_refused(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere, eventually: Eventually
) -> None:
    job_id = await deployment.say(CANARY, user=USER)
    await deployment.intake.cancel(TENANT, job_id)
    (held,) = await deployment.commands.redis.xrange(keys.ENDED)
    await erase(eraser, a_user())
    await deployment.commands.redis.xadd(keys.ENDED, held[1])  # as a writer that was stopped still has it

    async def written() -> bool:
        return not await deployment.commands.redis.xlen(keys.ENDED)

    async with deployment.worker():
        await eventually(written)
    assert await everywhere.find(CANARY, USER) == []


async def test_an_end_in_a_conversation_that_nobody_knew_of_is_refused_for_its_user(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere, eventually: Eventually
) -> None:
    """Neither the books nor Redis said that it was theirs."""
    redis = deployment.commands.redis
    job_id = await deployment.say(CANARY, user=USER)
    await deployment.intake.cancel(TENANT, job_id)
    (held,) = await redis.xrange(keys.ENDED)
    await redis.flushdb()
    await erase(eraser, a_user())
    await redis.xadd(keys.ENDED, held[1])

    async def written() -> bool:
        return not await redis.xlen(keys.ENDED)

    async with deployment.worker():
        await eventually(written)
    assert await everywhere.find(CANARY, USER) == []


async def test_what_a_channel_brought_that_a_writer_holds_already_is_refused(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere, eventually: Eventually
) -> None:
    """Whether it says whom it is about or only names them somewhere."""
    gone, stays = "16505559917734", "16505558826645"
    head = {"channel": "ch", "received_us": await eraser._flight.now_us()}
    rows: list[dict[str, Any]] = []
    for number, address in enumerate((gone, stays)):
        rows.append({**head, "message_id": f"m{number}", "state": "read", "recipient": address})
        rows.append({**head, "digest": f"d{number}", "reason": "r", "payload": {"from": address}})
    await erase(eraser, a_user(f"whatsapp:{gone}"))
    held = {"tenant": TENANT, "rows": msgspec.json.encode(rows)}
    await deployment.commands.redis.xadd(keys.INBOX, held)  # type: ignore[arg-type]

    async def written() -> bool:
        return not await deployment.commands.redis.xlen(keys.INBOX)

    async with deployment.worker():
        await eventually(written)
    assert await everywhere.find(gone) == []
    assert len(await everywhere.find(stays)) == 2


async def test_a_dead_job_can_be_retried_no_more(
    deployment: Deployment, desk: Desk, eraser: Eraser, everywhere: Everywhere
) -> None:
    job_id = await kill(deployment, CANARY, user=USER)
    retried = await kill(deployment, f"again {CANARY}", user=USER)
    await retry(desk, retried)  # it waits in the queue
    await erase(eraser, a_user())
    assert await everywhere.find(CANARY, USER) == []
    for each in (job_id, retried):
        with pytest.raises(NotFound):
            await retry(desk, each)


async def test_a_frozen_worker_that_wakes_writes_nothing_but_the_money(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere, eventually: Eventually
) -> None:
    await deployment.say(CANARY, user=USER)
    async with doomed_worker(deployment.settings, "answered", "SIGSTOP") as frozen:
        await until_frozen(frozen, eventually)
        await deployment.end_leases()
        async with deployment.worker():
            await erase(eraser, a_user())
        assert await everywhere.find(CANARY, USER) == []
        frozen.send_signal(signal.SIGCONT)
        async with deployment.worker():
            pass
        frozen.send_signal(signal.SIGTERM)
        await frozen.wait()
    assert await everywhere.find(CANARY, USER) == []
    assert all(row["user_id"] is None for row in await deployment.ledger())
    await deployment.check_money()


async def test_a_commit_that_was_under_way_when_the_fence_came_is_found(
    deployment: Deployment,
    eraser: Eraser,
    everywhere: Everywhere,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has looked before there was a fence, and is over after everything readable was deleted."""
    committing, go_on = asyncio.Event(), asyncio.Event()
    end = TurnStore.end

    async def slow(self: TurnStore, *args: object) -> object:
        async with self._pool.connection() as connection, connection.transaction():
            self._pool, pool = _Held(connection), self._pool  # type: ignore[assignment]
            try:
                record = await end(self, *args)  # type: ignore[arg-type]
            finally:
                self._pool = pool
            committing.set()
            await go_on.wait()
        return record

    monkeypatch.setattr(TurnStore, "end", slow)
    async with deployment.worker():
        await deployment.say(CANARY, user=USER)
        await committing.wait()
        erasing = asyncio.ensure_future(erase(eraser, a_user()))
        await asyncio.wait([erasing], timeout=0.3)
        assert not erasing.done(), "it waits for the commit"
        await deployment.books.execute("UPDATE erasures SET lease_until = now()")
        await eventually(lambda: deployment.books.fetchval("SELECT lease_until > now() FROM erasures"))
        go_on.set()
        await erasing
    assert await everywhere.find(CANARY, USER) == []


async def test_a_conversation_that_is_found_late_is_fenced_and_erased_too(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The books do not say that it is the user's; Redis says so when they have been gone through."""
    late = Whom(tenant=TENANT, user=None, conversations=["conv-9e21"])
    async with deployment.worker():
        await deployment.ended(await deployment.say(CANARY, user=None, conversation="conv-9e21"))
    apart = ErasingBooks.apart

    async def owned(self: ErasingBooks, *args: Any) -> object:
        await deployment.commands.run("SET", keys.owner(TENANT, "conv-9e21"), USER)
        return await apart(self, *args)

    monkeypatch.setattr(ErasingBooks, "apart", owned)
    await erase(eraser, a_user())
    assert await everywhere.find(CANARY, "conv-9e21", USER) == []
    fences = await deployment.books.fetch("SELECT subject FROM erasure_fences")
    assert set(eraser._seals.subjects(late)) < {row["subject"] for row in fences}


async def test_a_turn_that_greets_late_writes_nobody_down(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read its context before the erasure, which has been through the books by now and waits for it to end."""
    greeting, erased = asyncio.Event(), asyncio.Event()
    claim, apart = TurnStore.claim_greeting, ErasingBooks.apart

    async def late(self: TurnStore, *args: Any, **kwargs: Any) -> bool:
        greeting.set()
        await erased.wait()
        return await claim(self, *args, **kwargs)

    async def told(self: ErasingBooks, *args: Any) -> object:
        counts = await apart(self, *args)
        erased.set()
        return counts

    monkeypatch.setattr(TurnStore, "claim_greeting", late)
    monkeypatch.setattr(ErasingBooks, "apart", told)
    await deployment.books.execute("""UPDATE tenants SET settings = '{"greeting": "Welcome!"}'""")
    async with deployment.worker():
        await deployment.say(CANARY, user=USER)
        await greeting.wait()
        await erase(eraser, a_user())
    assert await everywhere.find(CANARY, USER) == []


class _Held:
    """One connection in a pool's place."""

    def __init__(self, connection: object) -> None:
        self.fetchrow: Callable[..., Awaitable[object]] = connection.fetchrow  # type: ignore[attr-defined]


async def test_who_returns_is_answered_at_once_in_the_same_conversation_and_remembers_nothing(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere
) -> None:
    await deployment.behave({"reply": "{count} messages; before: {previous}"})
    async with deployment.worker():
        await deployment.ended(await deployment.say(CANARY, user=USER))
        await erase(eraser, a_user())
        record = await deployment.ended(await deployment.say("hello again", user=USER))
        assert record.state == "succeeded"
        assert record.reply is not None
        assert CANARY not in record.reply
        assert await everywhere.find(CANARY) == []
        assert len(await deployment.rows("messages", record.id)) == 2
    assert [row["user_id"] for row in await deployment.ledger()] == [None, USER]
    await deployment.check_money()


async def test_one_conversation_goes_and_the_user_stays(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere
) -> None:
    async with deployment.worker():
        await deployment.ended(await deployment.say(CANARY, user=None, conversation="conv-7d0e"))
        await deployment.ended(await deployment.say("kept", user="u2", conversation="c2"))
        await erase(eraser, Whom(tenant=TENANT, user=None, conversations=["conv-7d0e"]))
    assert await everywhere.find(CANARY, "conv-7d0e") == []
    assert await everywhere.find("kept")
    await deployment.check_money()
