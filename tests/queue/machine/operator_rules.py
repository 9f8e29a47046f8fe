"""What callers, operators and the clock do."""

from hypothesis import strategies as st
from hypothesis.stateful import rule

from ops.dead.books import Position
from ops.queues import QueueStats, read_stats
from shared import keys
from shared.jobs import JobState
from tests.queue.machine.audit import QUEUES
from tests.queue.machine.lab import lasting_s
from tests.queue.machine.model import Job
from tests.queue.machine.steps import after_an_admission, number, one_of
from tests.queue.machine.worker_rules import WorkerRules


class OperatorRules(WorkerRules):
    @rule(ticks=st.integers(1, 2), queue=st.sampled_from(["default", "slow"]), n=st.integers(0, 2))
    def pass_time(self, ticks: int, queue: str, n: int) -> None:
        """Workers that live go on beating meanwhile; afterwards one of them looks what is due now."""
        living = [worker for worker in self.model.workers.values() if self.model.alive(worker.name)]
        for worker in living:
            self.lab.do(self.lab.queue(worker.queue).beat(worker.name, lasting_s(ticks + 2) * 1000, "beat"))
            worker.until = self.model.now + ticks + 2
        self.lab.pass_time(ticks)
        self.model.now += ticks
        self.before = self.lab.look()
        self.every_promise_is_kept()
        if somebody := [worker for worker in living if worker.queue == queue]:
            self.claim_as(somebody[0], n)

    @after_an_admission
    @rule(pick=number)
    def cancel(self, pick: int) -> None:
        """What is not over yet, most of the time."""
        live = [job for job in self.model.live() if job.ours]
        job = one_of(live, pick) if pick % 4 else self._job(pick)
        if job is None:
            return
        outcome = self.lab.do(self.lab.intake.cancel(job.line[0], job.id))
        if job.forgotten or job.over:
            assert outcome == ("unknown" if job.forgotten else "ended")
            self.nothing_changed()
        elif job.state is JobState.QUEUED:
            assert outcome == "cancelled"
            self.model.end_unstarted(job, JobState.CANCELLED)
        else:
            assert outcome == "requested"
            self.model.request_cancel(job)

    @after_an_admission
    @rule(pick=number, ahead=st.sampled_from([0, 1, 1, 1]), position=st.sampled_from(["end", "in_place"]))
    def retry_dead(self, pick: int, ahead: int, position: Position) -> None:
        """The next run of an ended job; `ahead` 0 asks for the run it has had."""
        job = one_of([job for job in self.model.jobs.values() if job.ours and job.over], pick) or self._job(pick)
        if job is None or job.payload is None or (job.forgotten and not ahead):
            return  # which run it has had, is Postgres's to know then
        if job.heir is not None or job.state is JobState.MERGED:
            return  # it has no end of its own, so no dead job either
        run = job.run + ahead
        who, when = job.user, job.created_us
        expected = self._retried(job, ahead, position)
        requeued = self.lab.do(self.lab.requeue(job.payload, run=run, user_id=who, created_us=when, position=position))
        assert requeued.outcome == expected
        if expected != "queued":
            self.nothing_changed()
            return
        line = self.model.lines[job.line]
        index = len(line) if position == "end" else self.model.index_by_age(job)
        assert requeued.place == index
        self.model.restart(job, run=run, expires=self.model.now + 1, index=index)
        job.retried = position

    def _retried(self, job: Job, ahead: int, position: Position) -> str:
        if not job.over:
            return "repeated" if not ahead and job.retried == position else "live"
        if not ahead:
            return "newer"
        return "full" if len(self.model.never_started(job.queue)) >= self.model.max_depth else "queued"

    @after_an_admission
    @rule(pick=number)
    def look(self, pick: int) -> None:
        """Whoever asks changes nothing, and a stranger's wish to cancel neither."""
        job = self._job(pick)
        if job is not None:
            self._read(job)
            assert self.lab.do(self.lab.intake.cancel("stranger", job.id)) == "unknown"
        for stats in self.lab.do(read_stats(self.lab.commands, QUEUES, slots_per_worker=1)):
            self._compare(stats)
        self.nothing_changed()

    def _read(self, job: Job) -> None:
        record = self.lab.do(self.lab.intake.read(job.id))
        if job.forgotten:
            assert record is None
            return
        assert record is not None
        position = None if job.over else self.model.lines[job.line].index(job)
        assert (record.state, record.position, record.run) == (job.state, position, job.run)

    def _compare(self, stats: QueueStats) -> None:
        queue, model = stats.queue, self.model
        assert stats.depth == len(model.never_started(queue))
        assert stats.in_flight == sum(job.running for job in model.live(queue))
        assert stats.live_workers == sum(model.alive(w.name) for w in model.workers.values() if w.queue == queue)
        due = [job for job in model.eligible(queue) if job.due <= model.now]
        sure = [job for job in due if not job.delayed and job not in model.joinable(queue)]
        assert len(sure) <= stats.due <= len(due)

    @after_an_admission
    @rule(pick=number)
    def forget(self, pick: int) -> None:
        """The time is over for which Redis keeps what has ended."""
        job = one_of(
            [job for job in self.model.jobs.values() if job.ours and job.over and not (job.heir or job.forgotten)], pick
        )
        if job is None or job.calls:
            return
        owned = [key for key in self.before.entries if job.id in key]
        assert all(self.before.entries[key].expires_ms > 0 for key in owned)
        self.lab.command("DEL", *owned)
        job.forgotten = True

    @rule(n=st.integers(1, 4))
    def post_ends(self, n: int) -> None:
        """A worker has taken the oldest of them to Postgres."""
        for entry_id, _ in self.before.ended()[:n]:
            self.lab.command("XDEL", keys.ENDED, entry_id)
        del self.model.unposted_ends[:n]

    def _job(self, pick: int) -> Job | None:
        return one_of([job for job in self.model.jobs.values() if job.ours], pick)
