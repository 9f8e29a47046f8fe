"""The two scripts by themselves: all scopes or none, once each, and by nobody who has lost the job."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from redis.exceptions import ResponseError

from shared import keys
from shared.budgets import DeploymentBudgets, Scope, scopes_of
from shared.tenants import Budgets
from tests.ledger.agreement import read_counters
from tests.ledger.rows import a_row
from tests.queue.harness import QUEUE, TENANT, Bench
from workers.ledger.book import Amount
from workers.ledger.purse import Blocked, Closed, Held, Lost, Offer, Purse, Settlement, Unseeded
from workers.queue.scripts import Claimed

NOTHING = Amount(0, 0)


def scope(name: str, usd: int | None = None, tokens: int | None = None, **fields: Any) -> Scope:
    return Scope("tenant-month", keys.spent(name), 4_000_000_000, usd, tokens, **fields)


async def claimed(bench: Bench) -> Claimed:
    await bench.accept()
    await bench.join("w")
    (job,) = await bench.claim("w")
    return job


def offer(usd: int, tokens: int = 1, *, call_id: str | None = None, cheap: bool = False) -> Offer:
    return Offer(a_row(call_id), Amount(usd, tokens), cheap)


async def counter(bench: Bench, name: str) -> tuple[int, int, int, int]:
    found = (await read_counters(bench.redis))[name]
    return found["usd"], found["usd_held"], found["tok"], found["tok_held"]


async def test_a_hold_is_on_every_scope_or_on_none(bench: Bench) -> None:
    job, purse = await claimed(bench), Purse(bench.commands, QUEUE)
    wide, narrow = scope("wide", 100), scope("narrow", 10)
    assert await purse.reserve(job, [offer(11)], [narrow, wide]) == Blocked(narrow)
    assert await read_counters(bench.redis) == {}
    assert not await bench.redis.exists(keys.calls(job.id))
    assert await purse.reserve(job, [offer(10, 3)], [narrow, wide]) == Held(0)
    assert await counter(bench, "narrow") == await counter(bench, "wide") == (0, 10, 0, 3)
    assert await purse.reserve(job, [offer(1)], [narrow, wide]) == Blocked(narrow)


async def test_what_is_held_becomes_what_it_cost_once(bench: Bench) -> None:
    job, purse = await claimed(bench), Purse(bench.commands, QUEUE)
    one = offer(10, 3)
    await purse.reserve(job, [one], [scope("a")])
    for _ in range(3):
        assert await purse.settle(job, [Settlement(one.row.call_id, Amount(4, 2), b"{}")])
        assert await counter(bench, "a") == (4, 0, 2, 0)
    assert await bench.redis.hgetall(keys.calls(job.id)) == {one.row.call_id.encode(): b"{}"}  # type: ignore[misc]
    assert await purse.settle(job, [Settlement(one.row.call_id, Amount(4, 2))])
    assert not await bench.redis.exists(keys.calls(job.id)), "what is posted is forgotten"


async def test_a_reservation_that_is_repeated_takes_nothing_more(bench: Bench) -> None:
    job, purse = await claimed(bench), Purse(bench.commands, QUEUE)
    dear, cheap = offer(99, call_id="call"), offer(5, call_id="call", cheap=True)
    for _ in range(3):
        assert await purse.reserve(job, [dear, cheap], [scope("a", 10)]) == Held(1)
    assert await counter(bench, "a") == (0, 5, 0, 1)


async def test_a_reservation_that_comes_after_it_was_given_up_does_nothing(bench: Bench) -> None:
    job, purse = await claimed(bench), Purse(bench.commands, QUEUE)
    late = offer(5)
    await purse.settle(job, [Settlement(late.row.call_id, NOTHING, b"{}")])
    assert await purse.reserve(job, [late], [scope("a")]) == Lost()
    assert await read_counters(bench.redis) == {}


async def test_who_lost_the_job_neither_holds_nor_settles(bench: Bench) -> None:
    job, purse = await claimed(bench), Purse(bench.commands, QUEUE)
    one = offer(10)
    await purse.reserve(job, [one], [scope("a")])
    await bench.kill("w")
    await bench.join("next")
    (again,) = await bench.claim("next")
    assert again.holds.keys() == again.open_calls.keys() == {one.row.call_id}
    assert await purse.reserve(job, [offer(1)], [scope("a")]) == Lost()
    assert not await purse.settle(job, [Settlement(one.row.call_id, Amount(7, 7))])
    assert await counter(bench, "a") == (0, 10, 0, 1)
    assert await purse.settle(again, [Settlement(one.row.call_id, Amount(3, 3))])
    assert await counter(bench, "a") == (3, 0, 3, 0)


async def test_past_the_downgrade_share_only_cheap_offers_are_taken(bench: Bench) -> None:
    job, purse = await claimed(bench), Purse(bench.commands, QUEUE)
    budget = scope("a", 100, downgrade_permille=500)
    first = offer(60)
    assert await purse.reserve(job, [first, offer(5, cheap=True)], [budget]) == Held(0)
    assert await purse.reserve(job, [offer(20), offer(5, cheap=True)], [budget]) == Held(0), "a hold is not spent yet"
    await purse.settle(job, [Settlement(first.row.call_id, Amount(50, 1))])
    assert await purse.reserve(job, [offer(20), offer(5, cheap=True)], [budget]) == Held(1, past=True)
    assert await purse.reserve(job, [offer(20)], [budget]) == Held(0, past=True), "there is no cheap one"


async def test_an_offer_that_does_not_fit_gives_way_to_the_next(bench: Bench) -> None:
    job, purse = await claimed(bench), Purse(bench.commands, QUEUE)
    tokens = scope("tokens", None, 10)
    offers = [offer(1, 11, call_id="c"), offer(1, 10, call_id="c")]
    assert await purse.reserve(job, offers, [scope("any"), tokens]) == Held(1)
    assert await purse.reserve(job, [offer(1, 1)], [scope("any"), tokens]) == Blocked(tokens)


async def test_nothing_is_reserved_while_money_is_closed_and_what_runs_is_settled(bench: Bench) -> None:
    job, purse = await claimed(bench), Purse(bench.commands, QUEUE)
    one = offer(10)
    await purse.reserve(job, [one], [scope("a")])
    await bench.redis.delete(keys.MONEY)
    assert await purse.reserve(job, [offer(1)], [scope("a")]) == Closed()
    assert await purse.reserve(job, [one], [scope("a")]) == Held(0), "its answer was lost: it was held before"
    await bench.redis.hset(keys.MONEY, "epoch", "second")  # type: ignore[misc]
    await bench.redis.hset(keys.spent("a"), "usd_held", 0)  # type: ignore[misc]  # made anew
    await purse.settle(job, [Settlement(one.row.call_id, Amount(4, 2))])
    usd, held, *_ = await counter(bench, "a")
    assert (usd, held) == (4, 0), "a hold of before is not given back"


async def test_a_conversation_nobody_knows_is_asked_for_and_begins_with_what_the_ledger_says(bench: Bench) -> None:
    job, purse = await claimed(bench), Purse(bench.commands, QUEUE)
    conversation = Scope("conversation", keys.spent("conv", TENANT, "c1"), None, 100)
    assert await purse.reserve(job, [offer(10)], [conversation]) == Unseeded(conversation)
    assert await purse.reserve(job, [offer(10)], [conversation], seed=Amount(91, 5)) == Blocked(conversation)
    assert await purse.reserve(job, [offer(10)], [conversation], seed=Amount(90, 5)) == Held(0)
    assert await counter(bench, f"conv:{TENANT}:c1") == (90, 10, 5, 1)
    assert 0 < await bench.redis.ttl(conversation.key) <= 30 * 86_400
    assert await purse.reserve(job, [offer(1)], [conversation], seed=NOTHING) == Blocked(conversation), (
        "it is known now"
    )


@pytest.mark.parametrize("nano_usd", [1, 99_999_999_999_999, 2**53 - 2])
async def test_amounts_are_exact_to_nine_million_dollars(bench: Bench, nano_usd: int) -> None:
    job, purse = await claimed(bench), Purse(bench.commands, QUEUE)
    one, more = offer(nano_usd), offer(1)
    await purse.reserve(job, [one], [scope("a", nano_usd + 1)])
    assert await counter(bench, "a") == (0, nano_usd, 0, 1)
    await purse.settle(job, [Settlement(one.row.call_id, Amount(nano_usd, 1))])
    assert await purse.reserve(job, [more], [scope("a", nano_usd)]) == Blocked(scope("a", nano_usd))
    assert await purse.reserve(job, [more], [scope("a", nano_usd + 1)]) == Held(0)
    await purse.settle(job, [Settlement(more.row.call_id, Amount(1, 1))])
    assert await counter(bench, "a") == (nano_usd + 1, 0, 2, 0)


async def test_a_month_that_turns_during_a_call_changes_nothing(bench: Bench) -> None:
    """A call belongs to the month in which it was made, wherever it ends."""
    job, purse = await claimed(bench), Purse(bench.commands, QUEUE)

    def scopes(at: datetime) -> tuple[Scope, ...]:
        at_ms = int(at.timestamp() * 1000)
        return scopes_of(Budgets(), DeploymentBudgets(), tenant=TENANT, user_id="u", conversation_id="c", at_ms=at_ms)

    before, after = datetime(2097, 10, 31, 23, 59, 59, tzinfo=UTC), datetime(2097, 11, 1, tzinfo=UTC)
    old, new = offer(10), offer(20)
    await purse.reserve(job, [old], scopes(before), seed=NOTHING)
    await purse.reserve(job, [new], scopes(after), seed=NOTHING)
    await purse.settle(job, [Settlement(old.row.call_id, Amount(3, 1))])
    spent = {name: (each["usd"], each["usd_held"]) for name, each in (await read_counters(bench.redis)).items()}
    assert spent == {
        f"conv:{TENANT}:c": (3, 20),
        f"user:{TENANT}:209710:u": (3, 0),
        f"user:{TENANT}:209711:u": (0, 20),
        f"day:{TENANT}:20971031": (3, 0),
        f"day:{TENANT}:20971101": (0, 20),
        f"month:{TENANT}:209710": (3, 0),
        f"month:{TENANT}:209711": (0, 20),
        "all-day:20971031": (3, 0),
        "all-day:20971101": (0, 20),
        "all-month:209710": (3, 0),
        "all-month:209711": (0, 20),
    }
    expiry = await bench.redis.expiretime(keys.spent("month", TENANT, "209710"))
    assert expiry == after.timestamp() + 3 * 86_400


async def scripts_run(bench: Bench) -> int:
    stats: Any = await bench.redis.info("commandstats")
    return sum(stat["calls"] for name, stat in stats.items() if name in {"cmdstat_eval", "cmdstat_evalsha"})


async def test_calls_of_one_moment_share_a_script_and_each_has_its_own_answer(bench: Bench) -> None:
    await bench.join("w")
    jobs = [await bench.accept(f"c{n}") for n in range(5)]
    taken = {job.id: job for job in await bench.claim("w", 5)}
    first, second, unknown, wide, lost = (taken[job_id] for job_id in jobs)
    purse, tenant = Purse(bench.commands, QUEUE), scope("tenant", 10)
    mine = [Scope("conversation", keys.spent("conv", TENANT, f"c{n}"), None, 100) for n in range(5)]
    await purse.reserve(first, [offer(0)], [tenant], seed=NOTHING)  # the scripts are known to the server
    await purse.settle(first, [Settlement("none", NOTHING)])
    ran = await scripts_run(bench)
    offers = [offer(n) for n in (6, 5, 1, 4, 1)]
    fenced = msgspec.structs.replace(lost, claim="1")
    answers = await asyncio.gather(
        purse.reserve(first, [offers[0]], [mine[0], tenant], seed=NOTHING),
        purse.reserve(second, [offers[1]], [mine[1], tenant], seed=Amount(7, 0)),
        purse.reserve(unknown, [offers[2]], [mine[2], tenant]),
        purse.reserve(wide, [offers[3]], [mine[3], tenant], seed=Amount(8, 1)),
        purse.reserve(fenced, [offers[4]], [mine[4], tenant], seed=NOTHING),
    )
    assert answers == [Held(0), Blocked(tenant), Unseeded(mine[2]), Held(0), Lost()]
    assert await scripts_run(bench) == ran + 1
    assert await counter(bench, "tenant") == (0, 10, 0, 3)
    assert await counter(bench, f"conv:{TENANT}:c3") == (8, 4, 1, 1)
    assert not any([await bench.redis.exists(keys.calls(job.id)) for job in (second, unknown, lost)])

    ran = await scripts_run(bench)
    settled = await asyncio.gather(
        purse.settle(first, [Settlement(offers[0].row.call_id, Amount(2, 2), b"{}")]),
        purse.settle(fenced, [Settlement(offers[4].row.call_id, Amount(9, 9), b"{}")]),
        purse.settle(wide, [Settlement(offers[3].row.call_id, Amount(3, 0), b"{}")]),
    )
    assert settled == [True, False, True]
    assert await scripts_run(bench) == ran + 1
    assert await counter(bench, "tenant") == (5, 0, 2, 1)
    assert await counter(bench, f"conv:{TENANT}:c3") == (11, 0, 1, 0)


async def test_a_call_that_breaks_the_script_takes_nobody_with_it(bench: Bench) -> None:
    """Nothing was held when it broke, so the others ask again by themselves."""
    await bench.join("w")
    for n in range(3):
        await bench.accept(f"c{n}")
    jobs, purse = await bench.claim("w", 3), Purse(bench.commands, QUEUE)
    await bench.redis.set(keys.calls(jobs[1].id), "no hash")
    offers = [offer(2) for _ in jobs]
    answers = await asyncio.gather(
        *(purse.reserve(job, [one], [scope("a")]) for job, one in zip(jobs, offers, strict=True)),
        return_exceptions=True,
    )
    assert (answers[0], answers[2]) == (Held(0), Held(0))
    assert isinstance(answers[1], ResponseError)
    assert await counter(bench, "a") == (0, 4, 0, 2)
    settled = await asyncio.gather(
        *(
            purse.settle(job, [Settlement(one.row.call_id, Amount(1, 1), b"{}")])
            for job, one in zip(jobs, offers, strict=True)
        ),
        return_exceptions=True,
    )
    assert (settled[0], settled[2]) == (True, True)
    assert isinstance(settled[1], ResponseError)
    assert await counter(bench, "a") == (2, 0, 2, 0)
