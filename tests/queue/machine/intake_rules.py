"""What ingress and stock arq clients do to the queue."""

from typing import Literal

from arq.jobs import Job as ArqJob
from arq.jobs import ResultNotFound
from hypothesis import strategies as st
from hypothesis.stateful import rule

from shared import keys
from shared.scripts import Idempotency
from shared.wire import Policy
from tests.queue.machine.intake import Intake, payload
from tests.queue.machine.lab import lasting_s
from tests.queue.machine.model import Job
from tests.queue.machine.steps import after_an_admission, number, one_of, ticks

tenants = st.sampled_from(["acme", "bolt"])
conversations = st.sampled_from(["c0", "c1", "c2", "c3"])
users = st.sampled_from(["", "", "ann", "ben"])
queues = st.sampled_from(["default", "default", "default", "slow"])
policies: st.SearchStrategy[Policy] = st.sampled_from(["merge", "merge", "merge", "queue", "interrupt", "reject"])
Mode = Literal["none", "key", "sdk-first", "sdk-retry"]


class IntakeRules(Intake):
    @rule(tenant=tenants, name=conversations, user=users, queue=queues, lifetime=ticks)
    def accept(self, tenant: str, name: str, user: str, queue: str, lifetime: int) -> None:
        self.admit(payload(tenant, name, user, queue), lifetime, Idempotency())

    @rule(
        tenant=tenants,
        name=conversations,
        queue=queues,
        said=st.lists(st.tuples(policies, st.integers(0, 1)), min_size=1, max_size=5),
    )
    def say_more(self, tenant: str, name: str, queue: str, said: list[tuple[Policy, int]]) -> None:
        """Several messages in a row, under policies that do more than wait."""
        for policy, window in said:
            self.admit(payload(tenant, name, "", queue), 3, Idempotency(), policy, window)
            self.every_promise_is_kept()

    @rule(tenant=tenants, many=st.integers(2, 7), lifetime=ticks)
    def accept_a_crowd(self, tenant: str, many: int, lifetime: int) -> None:
        """One tenant opens more conversations than it has places."""
        self.accept_crowd("default", many, tenant, lifetime)

    @rule(
        tenant=tenants,
        name=conversations,
        mode=st.sampled_from(["key", "key", "sdk-first", "sdk-retry"]),
        key=st.sampled_from(["k0", "k1"]),
        body=st.sampled_from(["same", "same", "other"]),
    )
    def accept_once(self, tenant: str, name: str, mode: Mode, key: str, body: str) -> None:
        """Under an idempotency key, or as the retry of an SDK."""
        self.admit(payload(tenant, name, "", "default"), 2, Idempotency(mode, key, body))

    @after_an_admission
    @rule(pick=number)
    def repeat_an_admission_whose_answer_was_lost(self, pick: int) -> None:
        job = one_of([job for job in self.model.jobs.values() if job.ours and not job.forgotten], pick)
        if job is None or job.payload is None:
            return
        admission = self.call_admit(job.payload, 1, Idempotency())
        line = self.model.lines[job.line]
        assert (admission.outcome, admission.job_id) == ("accepted", job.id)
        assert admission.position == (0 if job.over else line.index(job))
        self.nothing_changed()

    @rule(queue=queues, wait=st.integers(0, 2))
    def enqueue_with_stock_arq(self, queue: str, wait: int) -> None:
        """By the server's clock: arq's own rounds the present up, into the next millisecond."""
        job_id = f"stock-{len(self.model.jobs):04}"
        moment = self.lab.moment(lasting_s(wait) if wait else 0)
        enqueue = self.lab.arq.enqueue_job("sum", 1, _job_id=job_id, _queue_name=keys.queue(queue), _defer_until=moment)
        assert self.lab.do(enqueue)
        self.model.accept(Job(job_id, queue, due=self.model.now + wait))

    @after_an_admission
    @rule(pick=number)
    def run_a_stock_job_elsewhere(self, pick: int) -> None:
        """A stock arq worker marks what it runs and leaves it in the queue; its mark lives for a while."""
        job = one_of([job for job in self.model.live() if not job.ours and not job.running], pick)
        if job is not None:
            job.elsewhere = not job.elsewhere
            self.lab.command(*(("SET", _mark(job), "1", "PX", 3_600_000) if job.elsewhere else ("DEL", _mark(job))))

    @after_an_admission
    @rule(pick=number)
    def abort_with_stock_arq(self, pick: int) -> None:
        """It asks the worker, not the queue; but what waits for its time is moved before everybody else."""
        job = one_of(list(self.model.live()), pick)
        if job is None or job.state.ended:
            return
        if job.due > self.model.now and (job.delayed or not job.ours):
            job.due = self.model.now
            if job.ours:
                job.hurried = True
            else:
                job.place = 1.0
        arq_job = ArqJob(job.id, self.lab.arq, keys.queue(job.queue), self.lab.arq.job_deserializer)
        self.lab.do(_abort(arq_job))


def _mark(job: Job) -> str:
    return f"arq:in-progress:{job.id}"


async def _abort(job: ArqJob) -> None:
    try:
        await job.abort(timeout=0, poll_delay=0.001)
    except (TimeoutError, ResultNotFound):  # it does not wait for the worker
        return
