"""What must be true of the queue, in plain Python: who waits, who runs, what has ended and what was promised.

The model knows no Redis. Where the contract leaves a choice (which jobs a bounded sweep takes first, the millisecond of
a place) it adopts what was seen, after `audit` and `taking` found it allowed. Time is counted in ticks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from shared.jobs import JobState
from shared.wire import Policy, TurnPayload

HEADS, BATCH, TAKEN_IN = 3, 4, 3
"""The scripts' bounds, made so small (`small.py`) that an example of a few dozen steps runs into them."""


@dataclass(eq=False)
class Job:
    """A job and what the queue owes it. One without a payload is a stock arq client's."""

    id: str
    queue: str
    payload: TurnPayload | None = None
    user: str = ""
    created_us: int = 0
    expires: int = 0
    """Tick from which it may no longer wait for its first start."""
    state: JobState = JobState.QUEUED
    run: int = 1
    attempts: int = 0
    started_us: str = ""
    due: int = 0
    """Tick from which it may be started (again)."""
    delayed: bool = False
    """It is, or was until a sweep notices, waiting for a retry."""
    hurried: bool = False
    """An arq client's abort moved it before everybody else."""
    elsewhere: bool = False
    """A stock arq worker runs it."""
    place: float | None = None
    """When it became eligible, once it stands in the queue; kept until the job ends."""
    worker: str = ""
    claim: str = ""
    cancelled: bool = False
    calls: dict[str, str] = field(default_factory=dict)
    """Ledger rows that Postgres does not have."""
    held: set[str] = field(default_factory=set)
    """Of those, calls that are not settled."""
    seq: int = 0
    shown: bool = False
    """Readers were shown text since the last reset."""
    expected: list[tuple[str, str]] = field(default_factory=list)
    """Events since the last look: type and data ('': any)."""
    retried: str = ""
    """Where its run was put that an operator started: the same retry again changes nothing."""
    policy: Policy = "queue"
    since: int = 0
    """Tick in which the first message came that is answered with it."""
    taken: list["Job"] = field(default_factory=list)
    """Messages that are answered in its turn, oldest first."""
    heir: "Job | None" = None
    """The job that took it in, until that one is over: so long Redis keeps it."""
    forgotten: bool = False
    """Its record has outlived its time."""

    @property
    def ours(self) -> bool:
        return self.payload is not None

    @property
    def line(self) -> tuple[str, str]:
        """Its conversation."""
        assert self.payload is not None
        return self.payload.tenant, self.payload.conversation_id

    @property
    def tenant(self) -> str:
        return self.payload.tenant if self.payload else ""

    @property
    def running(self) -> bool:
        return self.state is JobState.RUNNING

    @property
    def over(self) -> bool:
        return self.state.ended


@dataclass(eq=False)
class Worker:
    name: str
    queue: str
    until: int
    """Tick at which its lease is over."""
    to_cancel: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Attempt:
    """What a worker has in hand to write with: it may be stale."""

    job: Job
    worker: str
    claim: str


@dataclass
class Repeat:
    """What an idempotency key stands for."""

    job_id: str
    fingerprint: str


class Model:
    def __init__(self, max_depth: int) -> None:
        self.max_depth = max_depth
        self.now = 0
        self.jobs: dict[str, Job] = {}
        """All there ever were, in the order of their admission."""
        self.lines: dict[tuple[str, str], list[Job]] = {}
        """Unfinished jobs of each conversation, in order."""
        self.owners: dict[tuple[str, str], str] = {}
        self.repeats: dict[tuple[str, str], Repeat] = {}
        self.workers: dict[str, Worker] = {}
        self.attempts: list[Attempt] = []
        """All there ever were."""
        self.unposted_ends: list[tuple[str, int, str]] = []
        """Ends of jobs that were never started, as (id, run, state), until Postgres has them."""
        self.looked_after: set[str] = set()
        """Queues in which a claim was made in this step: its worker knows when to come again."""

    # --- who is where -------------------------------------------------------------------------------------------

    def live(self, queue: str | None = None) -> Iterator[Job]:
        return (job for job in self.jobs.values() if not job.over and queue in (None, job.queue))

    def eligible(self, queue: str) -> list[Job]:
        """Those that may run now or once they are due: heads of conversations, and stock jobs."""
        return [job for job in self.live(queue) if not job.running and self._is_head(job)]

    def due(self, queue: str) -> list[Job]:
        return [job for job in self.eligible(queue) if job.due <= self.now and not job.elsewhere]

    def never_started(self, queue: str) -> list[Job]:
        return [job for job in self.live(queue) if job.ours and job.state is JobState.QUEUED]

    def overdue(self, queue: str) -> list[Job]:
        return [job for job in self.never_started(queue) if job.expires <= self.now]

    def held(self, worker: str) -> list[Job]:
        return [job for job in self.live() if job.running and job.worker == worker]

    def alive(self, worker: str) -> bool:
        return worker in self.workers and self.workers[worker].until > self.now

    def lapsed(self, queue: str) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.queue == queue and worker.until <= self.now]

    def is_current(self, attempt: Attempt) -> bool:
        job = attempt.job
        return job.running and (job.worker, job.claim) == (attempt.worker, attempt.claim)

    def _is_head(self, job: Job) -> bool:
        return not job.ours or self.lines[job.line][0] is job

    def joinable(self, queue: str) -> list[Job]:
        """Heads that may still wait for more messages before they stand anywhere."""
        return [job for job in self.eligible(queue) if job.state is JobState.QUEUED and job.policy == "merge"]

    # --- what happens -------------------------------------------------------------------------------------------

    def accept(self, job: Job, *, window: int = 0, stood: bool = False) -> int:
        """Its position. `stood`: the head of its conversation has a place, in the queue or in its tenant's line.

        With the policy `merge` it waits `window` ticks, and twice as long at most for all that is merged.
        """
        self.jobs[job.id] = job
        if not job.ours:
            return 0
        if job.user:
            self.owners[job.line] = job.user
        line = self.lines.setdefault(job.line, [])
        head = line[0] if line else None
        job.since = self.now
        if job.policy == "merge":
            self._merge(job, line)
            job.due = min(self.now + window, job.since + 2)
        elif job.policy == "interrupt":
            self._interrupt(job, line)
        if head in job.taken and head is not None and stood and head.queue == job.queue:
            job.place, job.due = head.place, self.now
        line.append(job)
        return len(line) - 1

    def _merge(self, job: Job, line: list[Job]) -> None:
        """Answers the message before it too, if that one may be merged, and no worker has started it."""
        last = line[-1] if line else None
        if last is None or last.state is not JobState.QUEUED or last.policy != "merge" or last.queue != job.queue:
            return
        if len(last.taken) < TAKEN_IN:
            job.since = last.since
            self._take_in(job, last, JobState.MERGED)

    def _interrupt(self, job: Job, line: list[Job]) -> None:
        for last in line[: -BATCH - 1 : -1]:
            if last.state is not JobState.QUEUED:
                self.request_cancel(last)
                return
            if last.run == 1 and len(job.taken) + 1 + len(last.taken) <= TAKEN_IN:
                self._take_in(job, last, JobState.CANCELLED)
            else:
                self.end_unstarted(last, JobState.CANCELLED)

    def _take_in(self, job: Job, other: Job, state: JobState) -> None:
        """What `other` was to answer is interrupted with it, or merged on; its time to live is not cut short."""
        self.lines[job.line].remove(other)
        for each in (other, *(each for each in other.taken if each.state is JobState.MERGED)):
            each.state = state
            if state is JobState.CANCELLED:
                each.expected.append(("job.ended", '{"state":"cancelled"}'))
        if state is JobState.MERGED:
            job.expires = max(job.expires, other.expires)
        job.taken, other.taken = [*other.taken, other, *job.taken], []
        for each in job.taken:
            each.heir = job

    def start(self, job: Job, worker: str, claim: str) -> None:
        job.state, job.worker, job.claim = JobState.RUNNING, worker, claim
        job.attempts += 1
        job.started_us = job.started_us or claim
        job.delayed = job.hurried = False
        if job.shown:
            job.expected.append(("attempt.reset", f'{{"attempt":{job.attempts}}}'))
        job.expected.append(("job.started", f'{{"attempt":{job.attempts}}}'))
        job.shown = False
        self.attempts.append(Attempt(job, worker, claim))

    def put_back(self, job: Job, *, wait_ticks: int = 0, counted: bool = True) -> None:
        """After a retry, a release, or the death of its worker."""
        if job.cancelled:
            wait_ticks = 0
        job.state = JobState.RETRYING if job.ours else JobState.QUEUED
        job.due, job.delayed = self.now + wait_ticks, wait_ticks > 0
        if not counted:
            job.attempts -= 1
        if not job.ours and wait_ticks:
            job.place = None  # arq knows one score for a job
        self.workers[job.worker].to_cancel.discard(job.id)

    def request_cancel(self, job: Job) -> None:
        job.cancelled = True
        if job.running:
            self.workers[job.worker].to_cancel.add(job.id)
        elif job.delayed:
            job.due, job.delayed, job.hurried = self.now, False, False

    def end(self, job: Job, state: JobState) -> None:
        if job.running:
            self.workers[job.worker].to_cancel.discard(job.id)
        job.state = state
        if not job.ours:
            return
        for each in (job, *(other for other in job.taken if other.state is JobState.MERGED)):
            each.expected.append(("job.ended", f'{{"state":"{each.state.value}"}}'))
        for other in job.taken:
            other.heir = None
        self.lines[job.line].remove(job)

    def end_unstarted(self, job: Job, state: JobState) -> None:
        self.unposted_ends.append((job.id, job.run, state.value))
        self.end(job, state)

    def restart(self, job: Job, *, run: int, expires: int, index: int) -> None:
        """A dead job's next run takes `index` in its conversation."""
        line = self.lines[job.line]
        if index == 0 and line:
            line[0].place = None
        line.insert(index, job)
        job.state, job.run, job.expires = JobState.QUEUED, run, expires
        job.attempts, job.started_us, job.cancelled, job.due = 0, "", False, self.now
        job.place, job.delayed, job.shown, job.forgotten = None, False, False, False
        job.policy, job.taken = "queue", []

    def index_by_age(self, job: Job) -> int:
        """Before the first one that waits for its first start and is younger, else at the end."""
        line = self.lines[job.line]
        younger = (n for n, other in enumerate(line) if other.state is JobState.QUEUED)
        return next((n for n in younger if line[n].created_us > job.created_us), len(line))
