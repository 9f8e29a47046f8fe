"""What workers do: alive, late, twice, and after they were given up on."""

from typing import Literal

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from shared import keys
from shared.jobs import JobState
from tests.ledger.rows import a_row
from tests.queue.machine import taking
from tests.queue.machine.intake import Intake
from tests.queue.machine.lab import lasting_s, reap
from tests.queue.machine.model import Attempt, Worker
from tests.queue.machine.steps import after_a_claim, number, one_of, some_of, ticks
from workers.ledger.book import Amount
from workers.ledger.purse import Held, Lost, Offer, Settlement
from workers.queue.scripts import Claimed, Finish

MAX_WORKERS = 5
Verb = Literal["end", "retry", "release"]
verbs = st.sampled_from(["end", "end", "retry", "retry", "release"])
ended_states = st.sampled_from([JobState.SUCCEEDED, JobState.DEAD, JobState.CANCELLED])


class WorkerRules(Intake):
    names = 0

    @initialize()
    def three_workers(self) -> None:
        for queue in ("default", "default", "slow"):
            self.join(queue, 3)

    @rule(queue=st.sampled_from(["default", "default", "slow"]), lease=ticks)
    def join(self, queue: str, lease: int) -> None:
        if sum(self.model.alive(name) for name in self.model.workers) >= MAX_WORKERS:
            return
        self.names += 1
        worker = Worker(f"w{self.names}", queue, self.model.now + lease)
        self.model.workers[worker.name] = worker
        assert self.lab.do(self.lab.queue(queue).beat(worker.name, lasting_s(lease) * 1000, "join")) == []

    @rule(pick=number, lease=ticks)
    def beat(self, pick: int, lease: int) -> None:
        if (worker := self.worker(pick)) is None:
            return
        to_cancel = self.lab.do(self.lab.queue(worker.queue).beat(worker.name, lasting_s(lease) * 1000, "beat"))
        if worker.until <= self.model.now:
            assert to_cancel is None, "a lease that was over is back"
            self.nothing_changed()
        else:
            assert to_cancel is not None
            assert set(to_cancel) == worker.to_cancel
            worker.until = self.model.now + lease

    @rule(pick=number)
    def leave(self, pick: int) -> None:
        if (worker := self.worker(pick)) is None:
            return
        assert self.lab.do(self.lab.queue(worker.queue).beat(worker.name, 0, "leave")) == []
        worker.until = self.model.now
        if not self.model.held(worker.name):
            del self.model.workers[worker.name]

    @rule(pick=number, all_of_them=st.booleans())
    def die(self, pick: int, all_of_them: bool) -> None:
        """A worker, or the whole machine they run on: leases run out with all they hold."""
        workers = list(self.model.workers.values())
        for worker in workers if all_of_them else some_of(workers, [pick]):
            leases = f"{keys.queue(worker.queue)}:leases"
            self.lab.command("ZADD", leases, "XX", self.before.now_ms - self.lab.passed_ms, worker.name)
            worker.until = self.model.now

    @rule(pick=number, n=st.integers(1, 7))
    def claim_what_there_is(self, pick: int, n: int) -> None:
        """Never in vain: somebody is alive, and there is enough to do."""
        self.claim_as(self._living(pick, n), n)

    @rule(pick=number, n=st.integers(0, 7))
    def claim(self, pick: int, n: int) -> None:
        if (worker := self.worker(pick)) is not None:
            self.claim_as(worker, n)

    @rule(pick=number, n=st.integers(1, 3), picks=st.lists(number, min_size=1, max_size=4))
    def claim_some(self, pick: int, n: int, picks: list[int]) -> None:
        worker = self.worker(pick)
        if worker is None or not self.model.alive(worker.name):
            return
        only = [job.id for job in some_of(list(self.model.live(worker.queue)), picks)]
        if not only:
            return
        claims = self.lab.do(self.lab.queue(worker.queue).claim(worker.name, n, only=only))
        assert claims is not None
        taking.settle_some(self.model, worker.name, only, n, claims, self.before, self.after)

    @rule(
        pick=number,
        ends=st.lists(st.tuples(verbs, st.integers(0, 2), st.booleans()), min_size=1, max_size=4),
        state=ended_states,
        n=st.integers(0, 7),
    )
    def finish_what_runs(self, pick: int, ends: list[tuple[Verb, int, bool]], state: JobState, n: int) -> None:
        """All that one worker has in hand, each in its own way, and the next claim with it."""
        busy = [worker for worker in self.model.workers.values() if self.model.held(worker.name)]
        worker = one_of(busy, pick)
        if worker is None:
            self.claim_what_there_is(pick, 7)
            return
        attempts = [attempt for attempt in self.model.attempts if self.model.is_current(attempt)]
        own = [attempt for attempt in attempts if attempt.worker == worker.name]
        self._finish(worker, own, [_order(a, *ends[k % len(ends)], state) for k, a in enumerate(own)], state, n)

    @after_a_claim
    @rule(
        picks=st.lists(number, min_size=1, max_size=5),
        end=st.tuples(verbs, st.integers(0, 2), st.booleans()),
        state=ended_states,
        n=st.integers(0, 4),
    )
    def finish_late_or_twice(self, picks: list[int], end: tuple[Verb, int, bool], state: JobState, n: int) -> None:
        """A batch in which some attempts may have ended, or come twice."""
        first = one_of(self.model.attempts, picks[0])
        if first is None or first.worker not in self.model.workers:
            return
        own = [attempt for attempt in self.model.attempts if attempt.worker == first.worker]
        attempts = [own[pick % len(own)] for pick in picks]
        worker = self.model.workers[first.worker]
        self._finish(worker, attempts, [_order(attempt, *end, state) for attempt in attempts], state, n)

    @after_a_claim
    @rule(pick=number, verb=verbs)
    def finish_in_vain(self, pick: int, verb: Verb) -> None:
        attempt = one_of([a for a in self.model.attempts if not self.model.is_current(a)], pick)
        if attempt is None:
            return
        order = _order(attempt, verb, 0, True, JobState.SUCCEEDED)
        queue = self.lab.queue(attempt.job.queue)
        assert self.lab.do(queue.finish(attempt.worker, [order], 0)) == ([False], None)
        self.nothing_changed()

    @after_a_claim
    @rule(picks=st.lists(number, min_size=1, max_size=4))
    def emit(self, picks: list[int]) -> None:
        """What several attempts of one worker have to say, of which some may be stale."""
        first = one_of(self.model.attempts, picks[0])
        if first is None:
            return
        own = [a for a in self.model.attempts if a.worker == first.worker and a.job.ours]
        chosen = some_of(own, picks)
        told = [(a.job.id, a.claim, "message.delta", f'{{"delta":"{a.claim}"}}') for a in chosen]
        if not told:
            return
        lost = self.lab.do(self.lab.queue(first.job.queue).emit(first.worker, told))
        current = [a for a in chosen if self.model.is_current(a)]
        assert lost == {a.job.id for a in chosen if a not in current}
        for attempt in current:
            attempt.job.shown = True
            attempt.job.expected.append(("message.delta", f'{{"delta":"{attempt.claim}"}}'))
        if not current:
            self.nothing_changed()

    @after_a_claim
    @rule(pick=number, call=st.sampled_from(["a", "b"]))
    def reserve(self, pick: int, call: str) -> None:
        """Open a call; the same one again changes nothing."""
        if (attempt := self._spender(pick)) is None:
            return
        job, row = attempt.job, a_row(call, request_id=attempt.claim)
        purse = self.lab.purse(job.queue)
        answer = self.lab.do(purse.reserve(_claimed(attempt), [Offer(row, Amount(2, 1))], []))
        known = call in job.calls
        if not self.model.is_current(attempt) or (known and call not in job.held):
            assert answer == Lost()
        else:
            assert answer == Held(0)
        if answer == Lost() or known:
            self.nothing_changed()
        else:
            job.calls[call] = msgspec.json.encode(row).decode()
            job.held.add(call)

    @after_a_claim
    @rule(pick=number, call=st.sampled_from(["a", "b"]), posted=st.booleans())
    def settle(self, pick: int, call: str, posted: bool) -> None:
        if (attempt := self._spender(pick)) is None:
            return
        job, row = attempt.job, f'{{"claim":"{attempt.claim}"}}'
        settlement = Settlement(call, Amount(1, 1), b"" if posted else row.encode())
        settled = self.lab.do(self.lab.purse(job.queue).settle(_claimed(attempt), [settlement]))
        assert settled == self.model.is_current(attempt)
        if not settled:
            self.nothing_changed()
            return
        job.held.discard(call)
        if posted:
            job.calls.pop(call, None)
        else:
            job.calls[call] = row

    def _spender(self, pick: int) -> Attempt | None:
        ours = [a for a in self.model.attempts if a.job.ours]
        return one_of([a for a in ours if self.model.is_current(a)] if pick % 4 else ours, pick)

    @rule(queue=st.sampled_from(["default", "slow"]))
    def sweep(self, queue: str) -> None:
        moved = self.lab.do(reap(self.lab.commands, [keys.queue(queue)], []))
        assert moved == taking.reap(self.model, queue, self.after)

    def _living(self, pick: int, n: int) -> Worker:
        """A worker with a lease in whose queue about `n` jobs are due."""
        worker = one_of([worker for worker in self.model.workers.values() if self.model.alive(worker.name)], pick)
        if worker is None:
            self.join("default", 3)
            worker = self.model.workers[f"w{self.names}"]
        if len(self.model.due(worker.queue)) < n:
            self.accept_crowd(worker.queue, n)
        self.every_promise_is_kept()
        return worker

    def claim_as(self, worker: Worker, n: int) -> None:
        claims = self.lab.do(self.lab.queue(worker.queue).claim(worker.name, n))
        if not self.model.alive(worker.name):
            assert claims is None, "nobody would take these jobs back"
            self.nothing_changed()
        else:
            assert claims is not None
            taking.settle(self.model, worker.name, n, claims, self.before, self.after)

    def _finish(self, worker: Worker, attempts: list[Attempt], orders: list[Finish], state: JobState, n: int) -> None:
        verdicts, claims = self.lab.do(self.lab.queue(worker.queue).finish(worker.name, orders, n))
        for attempt, order, verdict in zip(attempts, orders, verdicts, strict=True):
            assert verdict == self.model.is_current(attempt), "the fence is broken"
            if verdict:
                self._conclude(attempt, order, state)
        if n == 0 or not self.model.alive(worker.name):
            assert claims is None
            if not any(verdicts):
                self.nothing_changed()
        else:
            assert claims is not None
            taking.settle(self.model, worker.name, n, claims, self.before, self.after)

    def _conclude(self, attempt: Attempt, order: Finish, state: JobState) -> None:
        job = attempt.job
        if order.posted:
            job.calls.clear()
            job.held.clear()
        if order.verb == "end":
            self.model.end(job, state)
            return
        wait_ticks = (order.delay_ms + lasting_s(1) * 1000) // (2 * lasting_s(1) * 1000)
        self.model.put_back(job, wait_ticks=wait_ticks, counted=order.verb == "retry")
        if order.verb == "retry":
            job.expected.append(("job.retrying", f'{{"retry_in_ms":{order.delay_ms}}}'))


def _order(attempt: Attempt, verb: Verb, wait: int, posted: bool, state: JobState) -> Finish:
    delay_ms = lasting_s(wait) * 1000 if verb == "retry" and wait else 0
    fields = {"state": state.value} if verb == "end" and attempt.job.ours else {}
    result = b"" if attempt.job.ours else b"{}"
    return Finish(
        attempt.job.id, attempt.claim, verb, delay_ms, posted=posted, fields=fields, result=result, result_ms=3_600_000
    )


def _claimed(attempt: Attempt) -> Claimed:
    """As much of it as the purse needs."""
    job = attempt.job
    return Claimed(
        job.id, "", job.attempts, None, job.created_us, job.run, 0, False, None, None, {}, {},
        claim=attempt.claim, worker=attempt.worker,
    )  # fmt: skip
