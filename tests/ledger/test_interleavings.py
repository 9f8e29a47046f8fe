"""Reservations and settlements in any order, twice, late and by workers that were given up on, against plain sums.

A hypothesis state machine over the two scripts on a real server. Its ledger does what Postgres does: the first row of a
call stays. When every job has ended, each counter is its scope's sum in that ledger.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from shared import keys
from shared.budgets import Scope
from shared.config import Settings
from shared.redis import Commands, connect
from shared.scripts import Intake
from tests.ledger.agreement import read_counters
from tests.ledger.rows import a_row
from tests.queue.harness import QUEUE, Bench
from workers.ledger.book import Amount
from workers.ledger.purse import Blocked, Held, Lost, Offer, Purse, Settlement
from workers.queue.scripts import Claimed

T = TypeVar("T")
LIMITS = {"all": 100, "tenant": 60, "user": 30, "free": None}
SCOPES = {name: Scope("tenant-month", keys.spent(name), 4_000_000_000, most) for name, most in LIMITS.items()}

some_scopes = st.lists(st.sampled_from(sorted(LIMITS)), min_size=1, max_size=4, unique=True)
some_offers = st.lists(st.integers(0, 40), min_size=1, max_size=3)
pick = st.integers(0, 63)


@dataclass
class Call:
    """What one attempt knows of a call it made."""

    job: Claimed
    call_id: str
    offers: list[int]
    scopes: list[str]
    taken: int
    settled: bool = False
    wrong: int = 0
    """Told to the ledger or to Redis, by whoever does."""


@dataclass
class World:
    held: dict[str, dict[str, int]] = field(default_factory=dict)
    """Call → scope → amount, of holds that stand."""
    used: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LIMITS, 0))
    ledger: dict[str, int] = field(default_factory=dict)
    """The first row of each call."""
    scopes: dict[str, list[str]] = field(default_factory=dict)

    def free(self, scope: str, amount: int) -> bool:
        most = LIMITS[scope]
        together = self.used[scope] + sum(held.get(scope, 0) for held in self.held.values())
        return most is None or together + amount <= most


class Spenders(RuleBasedStateMachine):
    """Jobs in the hands of workers; every worker has one life."""

    loop: asyncio.AbstractEventLoop
    url: str

    def __init__(self) -> None:
        super().__init__()
        commands = Commands(connect(self.url))
        queue_settings = Settings.read({"redis_url": self.url})
        self.bench = Bench(queue_settings, commands, commands.redis, Intake(commands, queue_settings))
        self.purse = Purse(commands, QUEUE)
        self.world = World()
        self.calls: list[Call] = []
        self.jobs: list[Claimed] = []
        """Every attempt ever; the last one at a job is the one that holds it."""
        self.do(commands.redis.flushdb())
        self.do(commands.run("HSET", keys.MONEY, "epoch", "1"))

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(what)

    def teardown(self) -> None:
        try:
            for job in self.current():
                self.take_over(job)
            counters = self.do(read_counters(self.bench.redis))
            for name in counters:
                owed = sum(cost for call_id, cost in self.world.ledger.items() if name in self.world.scopes[call_id])
                assert (counters[name]["usd"], counters[name]["usd_held"]) == (owed, 0)
        finally:
            self.do(self.bench.commands.aclose())

    def current(self) -> list[Claimed]:
        return list({job.id: job for job in self.jobs}.values())

    def is_current(self, job: Claimed) -> bool:
        return any(job is each for each in self.current())

    @rule()
    def start(self) -> None:
        if len(self.current()) < 4:
            worker = f"w{len(self.jobs)}"
            self.do(self.bench.accept(f"c{len(self.jobs)}"))
            self.do(self.bench.join(worker))
            self.jobs += self.do(self.bench.claim(worker))

    @precondition(lambda self: self.jobs)
    @rule(n=pick, scopes=some_scopes, offers=some_offers)
    def reserve(self, n: int, scopes: list[str], offers: list[int]) -> None:
        job = self.jobs[n % len(self.jobs)]
        call_id = f"call-{len(self.world.scopes)}"
        self.world.scopes[call_id] = scopes
        answer = self._reserve(job, call_id, offers, scopes)
        if not self.is_current(job):
            assert answer == Lost()
            return
        self._decided(job, call_id, offers, scopes, answer)

    @precondition(lambda self: self.jobs)
    @rule(asked=st.lists(st.tuples(pick, some_scopes, some_offers), min_size=2, max_size=3))
    def reserve_together(self, asked: list[tuple[int, list[str], list[int]]]) -> None:
        """In one script: each is decided as if it had come alone, after those before it."""
        calls = [
            (self.jobs[n % len(self.jobs)], f"call-{len(self.world.scopes) + k}") for k, (n, *_) in enumerate(asked)
        ]
        self.world.scopes |= {call_id: scopes for (_, call_id), (_, scopes, _) in zip(calls, asked, strict=True)}

        async def all_of_them() -> list[object]:
            return await asyncio.gather(
                *(
                    self.purse.reserve(job, given(call_id, offers), [SCOPES[name] for name in scopes])
                    for (job, call_id), (_, scopes, offers) in zip(calls, asked, strict=True)
                )
            )

        answers = self.do(all_of_them())
        # claims are kept by worker, so those of one worker go before those of the next
        order = sorted(range(len(calls)), key=lambda k: [job.worker for job, _ in calls].index(calls[k][0].worker))
        for k in order:
            (job, call_id), (_, scopes, offers) = calls[k], asked[k]
            if self.is_current(job):
                self._decided(job, call_id, offers, scopes, answers[k])
            else:
                assert answers[k] == Lost()

    @precondition(lambda self: self.calls)
    @rule(n=pick)
    def reserve_again(self, n: int) -> None:
        """Its answer was lost."""
        call = self.calls[n % len(self.calls)]
        answer = self._reserve(call.job, call.call_id, call.offers, call.scopes)
        mine = self.is_current(call.job) and not call.settled
        assert answer == (Held(call.taken) if mine else Lost())

    @precondition(lambda self: self.calls)
    @rule(n=pick, share=st.integers(0, 100))
    def settle(self, n: int, share: int) -> None:
        """By whoever made it, perhaps after it lost the job, perhaps again."""
        call = self.calls[n % len(self.calls)]
        if not call.settled:
            call.wrong = call.offers[call.taken] * share // 100
        self._told(call, self.do(self.purse.settle(call.job, [self._settlement(call)])))

    @precondition(lambda self: self.calls)
    @rule(ns=st.lists(pick, min_size=2, max_size=3), share=st.integers(0, 100))
    def settle_together(self, ns: list[int], share: int) -> None:
        """In one script, the same call twice perhaps."""
        calls = [self.calls[n % len(self.calls)] for n in ns]
        for call in calls:
            if not call.settled:
                call.wrong = call.offers[call.taken] * share // 100

        async def all_of_them() -> list[bool]:
            return await asyncio.gather(*(self.purse.settle(call.job, [self._settlement(call)]) for call in calls))

        for call, settled in zip(calls, self.do(all_of_them()), strict=True):
            self._told(call, settled)

    @precondition(lambda self: self.calls)
    @rule(n=pick, share=st.integers(0, 100))
    def post(self, n: int, share: int) -> None:
        """Its maker has its own idea of the cost, and tells the ledger, late or in time."""
        call = self.calls[n % len(self.calls)]
        if call.settled or not self.is_current(call.job):
            mine = call.wrong if call.settled else call.offers[call.taken] * share // 100
            self.world.ledger.setdefault(call.call_id, mine)

    @precondition(lambda self: self.jobs)
    @rule(n=pick)
    def kill(self, n: int) -> None:
        self.take_over(self.current()[n % len(self.current())])

    def take_over(self, job: Claimed) -> None:
        """The next worker books what it finds, and settles it with what the ledger has then."""
        worker = f"w{len(self.jobs)}"
        self.do(self.bench.kill(job.worker))
        self.do(self.bench.join(worker))
        (again,) = self.do(self.bench.claim(worker))
        self.jobs.append(again)
        made = {call.call_id: call for call in self.calls}
        assert again.holds.keys() == {call_id for call_id in self.world.held if made[call_id].job.id == job.id}
        found = []
        for call_id in again.open_calls:
            call = made[call_id]
            estimate = call.wrong if call.settled else call.offers[call.taken] // 2
            cost = self.world.ledger.setdefault(call_id, estimate)
            found.append(Settlement(call_id, Amount(cost, 0)))
            if self.world.held.pop(call_id, None) is not None:
                call.settled, call.wrong = True, cost
                self._count(call, cost)
        if found:
            assert self.do(self.purse.settle(again, found))
        assert not self.do(self.bench.redis.exists(keys.calls(job.id)))

    @invariant()
    def counters_are_what_they_should_be(self) -> None:
        counters = self.do(read_counters(self.bench.redis))
        for name, most in LIMITS.items():
            held = sum(each.get(name, 0) for each in self.world.held.values())
            found = counters.get(name, {"usd": 0, "usd_held": 0})
            assert (found["usd"], found["usd_held"]) == (self.world.used[name], held)
            assert most is None or found["usd"] + found["usd_held"] <= most

    def _reserve(self, job: Claimed, call_id: str, offers: list[int], scopes: list[str]) -> object:
        return self.do(self.purse.reserve(job, given(call_id, offers), [SCOPES[name] for name in scopes]))

    def _decided(self, job: Claimed, call_id: str, offers: list[int], scopes: list[str], answer: object) -> None:
        fits = [index for index, amount in enumerate(offers) if all(self.world.free(s, amount) for s in scopes)]
        if fits:
            assert answer == Held(fits[0])
            self.calls.append(Call(job, call_id, offers, scopes, fits[0]))
            self.world.held[call_id] = dict.fromkeys(scopes, offers[fits[0]])
        else:
            small = next(name for name in scopes if not self.world.free(name, offers[-1]))
            assert answer == Blocked(SCOPES[small])

    def _settlement(self, call: Call) -> Settlement:
        return Settlement(call.call_id, Amount(call.wrong, 0), b"{}")

    def _told(self, call: Call, settled: bool) -> None:
        assert settled == self.is_current(call.job)
        if settled and self.world.held.pop(call.call_id, None) is not None:
            call.settled = True
            self._count(call, call.wrong)

    def _count(self, call: Call, cost: int) -> None:
        for name in call.scopes:
            self.world.used[name] += cost


def given(call_id: str, offers: list[int]) -> list[Offer]:
    return [Offer(a_row(call_id), Amount(amount, 0)) for amount in offers]


@pytest.fixture
def spenders(redis_url: str) -> Iterator[type[Spenders]]:
    loop = asyncio.new_event_loop()
    yield type("OnThisServer", (Spenders,), {"loop": loop, "url": redis_url})
    loop.close()


def test_counters_are_the_ledgers_sums_whatever_happens(spenders: type[Spenders]) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        spenders,
        settings=settings(
            max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
