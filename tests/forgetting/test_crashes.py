"""An erasure that stops anywhere is gone on with by somebody else; and what fences are made of."""

from typing import Any

import pytest

from ops.users import erasing
from ops.users.books import ErasingBooks, UserBooks
from ops.users.erasing import Eraser
from ops.users.errands import Errands
from ops.users.flight import Flight
from ops.users.whom import Seals, Whom
from shared import keys
from shared.config import Settings
from shared.db import Pool
from shared.errors import ConfigError, Unavailable
from shared.sealing import Unreadable
from tests.forgetting.searching import Everywhere
from tests.forgetting.test_erasing import CANARY, USER, a_user
from tests.turn.deployment import TENANT, Deployment
from workers.erasure.subjects import Subjects, erasure_keys

STEPS = [
    (ErasingBooks, "begin"),
    (Flight, "look"),
    (ErasingBooks, "fence"),
    (ErasingBooks, "horizon"),
    (ErasingBooks, "again"),
    (ErasingBooks, "calls"),
    (Flight, "repeats"),
    (ErasingBooks, "jobs"),
    (ErasingBooks, "apart"),
    (ErasingBooks, "note"),
    (Flight, "set_spent"),
    (Flight, "drop_answers"),
]


class Crash(Exception):
    """The process is gone."""


def crash_after(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """The step is done, and nobody hears of it."""
    step = getattr(owner, name)

    async def done_unheard(*args: Any, **kwargs: Any) -> Any:
        await step(*args, **kwargs)
        raise Crash(name)

    monkeypatch.setattr(owner, name, done_unheard)


async def test_after_a_crash_behind_any_step_another_process_finishes(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere
) -> None:
    async with deployment.worker():
        for owner, name in STEPS:
            await deployment.ended(await deployment.say(f"{CANARY} {name}", user=USER))
            await deployment.commands.redis.set(f"sb:idem:{TENANT}:{name}", "none -")
            with pytest.MonkeyPatch.context() as monkeypatch:
                crash_after(monkeypatch, owner, name)
                with pytest.raises(Crash):
                    await eraser.finish(whom := a_user(), await eraser.begin(whom, "tests"), "tests")
            await deployment.books.execute("UPDATE erasures SET lease_until = now()")
            assert await eraser.resume(10) == 1, name
            assert await everywhere.find(CANARY, USER) == [], name
    assert {row["state"] for row in await deployment.books.fetch("SELECT state FROM erasures")} == {"done"}
    await deployment.check_money()


async def test_who_came_back_before_it_was_gone_on_with_keeps_what_they_said(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere
) -> None:
    async with deployment.worker():
        await deployment.ended(await deployment.say(CANARY, user=USER))
        with pytest.MonkeyPatch.context() as monkeypatch:
            crash_after(monkeypatch, ErasingBooks, "fence")
            with pytest.raises(Crash):
                await eraser.finish(whom := a_user(), await eraser.begin(whom, "tests"), "tests")
        back = await deployment.say("i am back", user=USER)
        await deployment.ended(back)
        await deployment.books.execute("UPDATE erasures SET lease_until = now()")
        assert await eraser.resume(10) == 1
    assert await everywhere.find(CANARY) == []
    assert len(await deployment.rows("messages", back)) == 2
    assert [row["user_id"] for row in await deployment.ledger()] == [None, USER]
    await deployment.check_money()


async def test_until_the_fence_has_moved_who_came_back_is_erased_with_the_rest(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere
) -> None:
    """They may have read something of before."""
    await eraser.begin(a_user(), "tests")
    async with deployment.worker():
        await deployment.ended(await deployment.say(CANARY, user=USER))
        await deployment.books.execute("UPDATE erasures SET lease_until = now()")
        assert await eraser.resume(10) == 1
    assert await everywhere.find(CANARY, USER) == []


async def test_who_goes_on_knows_their_conversations_though_the_books_have_lost_them(
    deployment: Deployment, eraser: Eraser, ops_pool: Pool, everywhere: Everywhere
) -> None:
    """Redis has forgotten whose they were long before; what was spent on them it still says."""
    async with deployment.worker():
        job_id = await deployment.say(CANARY, user=USER, conversation="conv-7d0e")
        await deployment.ended(job_id)
    await deployment.commands.run("DEL", keys.owner(TENANT, "conv-7d0e"), keys.job(job_id), keys.events(job_id))
    assert await deployment.commands.run("EXISTS", keys.spent("conv", TENANT, "conv-7d0e")) == 1
    with pytest.MonkeyPatch.context() as monkeypatch:
        crash_after(monkeypatch, ErasingBooks, "begin")
        with pytest.raises(Crash):
            await Errands(UserBooks(ops_pool), eraser).erase_user(TENANT, USER, "tests", within_s=1.0)
    assert await deployment.books.fetchval("SELECT count(*) FROM conversations") == 0
    await deployment.books.execute("UPDATE erasures SET lease_until = now()")
    assert await eraser.resume(10) == 1
    assert await everywhere.find(CANARY, USER, "conv-7d0e") == []


async def test_one_that_takes_long_lets_others_have_their_turn(
    deployment: Deployment, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that no worker ends."""
    monkeypatch.setattr(erasing, "RESUMED_FOR_S", 0.2)
    job_id = await deployment.say(CANARY, user=USER)
    await deployment.commands.run("HSET", keys.job(job_id), "state", "running", "worker", "w1")
    await eraser.begin(a_user(), "tests")
    await deployment.books.execute("UPDATE erasures SET lease_until = now()")
    assert await eraser.resume(10) == 1
    assert await deployment.books.fetchval("SELECT state FROM erasures") != "done"


async def test_an_outage_in_between_is_gone_on_with(
    deployment: Deployment, eraser: Eraser, everywhere: Everywhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deployment.worker():
        await deployment.ended(await deployment.say(CANARY, user=USER))
    request = await eraser.begin(whom := a_user(), "tests")

    async def away(*args: object) -> int:
        raise Unavailable("Redis cannot be reached")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flight, "drop_answers", away)
        with pytest.raises(Unavailable):
            await eraser.finish(whom, request, "tests")
    assert await deployment.books.fetchval("SELECT state FROM erasures") == "fenced"
    assert await eraser.finish(whom, request, "tests")
    assert await everywhere.find(CANARY, USER) == []


async def test_an_erasure_whose_key_is_gone_is_said_and_left(
    deployment: Deployment, eraser: Eraser, ops_pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    await eraser.begin(a_user(), "tests")
    await deployment.books.execute("UPDATE erasures SET lease_until = now()")
    other = Settings.read({"erasure_key": "another-key-long-enough"})
    stranger = Eraser.of(other, "d", ops_pool, Flight(deployment.commands))
    assert await stranger.resume(10) == 1
    assert await deployment.books.fetchval("SELECT state FROM erasures") == "begun"


def a_settings(key: str) -> Settings:
    return Settings.read({"erasure_key": key})


OLD, NEW = "the-old-key-long-enough", "the-new-key-long-enough"


def test_while_a_key_is_replaced_both_kinds_of_processes_meet_the_same_fence() -> None:
    before, during, after = (Subjects.of(a_settings(key), "d") for key in (OLD, f"{NEW}, {OLD}", NEW))
    fenced = set(during.of_user(TENANT, USER))
    assert fenced & set(before.of_turn(TENANT, USER, "c1"))
    assert fenced & set(after.of_turn(TENANT, USER, "c1"))
    assert not set(before.of_user(TENANT, USER)) & set(after.of_user(TENANT, USER))


def test_a_hash_is_of_one_tenant_one_kind_and_one_deployment() -> None:
    mine = Subjects.of(Settings.read({}), "d1")
    hashes = [
        *mine.of_user("a", "x"),
        *mine.of_user("b", "x"),
        *mine.of_conversation("a", "x"),
        *mine.of_address("a", "x"),
        *Subjects.of(Settings.read({}), "d2").of_user("a", "x"),
    ]
    assert len(set(hashes)) == 5
    assert all(len(each) == 32 for each in hashes)
    assert mine.of_document("a", {"k": ["x", {"x": "x"}]}) == mine.of_document("a", [{"k": "x"}])


def test_what_is_sealed_opens_with_any_of_the_keys_and_for_its_tenant_only() -> None:
    def seals(key: str) -> Seals:
        given = a_settings(key)
        return Seals(erasure_keys(given, "d"), Subjects.of(given, "d"))

    whom = Whom(tenant=TENANT, user=USER, conversations=["c1"])
    sealed = seals(OLD).seal(whom)
    assert USER not in sealed
    assert seals(f"{NEW},{OLD}").open(TENANT, sealed) == whom
    for key, tenant in ((NEW, TENANT), (OLD, "other")):
        with pytest.raises(Unreadable):
            seals(key).open(tenant, sealed)


def test_a_key_that_is_too_short_is_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="SWITCHBOARD_ERASURE_KEY"):
        a_settings(f"{NEW},short")
