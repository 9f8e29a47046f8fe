"""What must hold after every step, whatever the step was: each function states one promise of the queue."""

from collections import Counter
from itertools import pairwise

from shared import keys
from shared.wire import Event, decode_turn
from tests.queue.machine.lab import MAX_EVENTS
from tests.queue.machine.model import HEADS, Job, Model
from tests.queue.machine.snapshot import Snapshot

QUEUES = ("default", "slow")
WAKE_TOKENS = 16
HEAD_START_MS = 2_000


def audit(model: Model, before: Snapshot, after: Snapshot, events: dict[str, list[Event]]) -> None:
    """Raises AssertionError for the first broken promise; lets the model learn places and event numbers.

    `events`: what readers of each job are given now after the last one they know.
    """
    nothing_is_lost(model, after)
    one_runs_per_conversation(model, after)
    places_are_kept(model, before, after)
    lines_of_tenants_are_first_in_first_out(before, after)
    counters_equal_recounts(model, after)
    records_tell_the_truth(model, after)
    only_what_never_started_can_expire(model, after)
    ends_are_kept_until_posted(model, after)
    events_are_numbered_upward(model, events)
    cancellations_reach_their_worker(model, after)
    work_wakes_somebody(model, before, after)
    nothing_outlives_its_job(model, after)


def nothing_is_lost(model: Model, after: Snapshot) -> None:
    """Every live job is in its conversation's line, in order, and in the one place where its state belongs."""
    lines = {f"{tenant}:{name}": [job.id for job in line] for (tenant, name), line in model.lines.items() if line}
    assert {name: entry.value for name, entry in after.under("sb:conv:").items()} == lines
    for queue in QUEUES:
        key = keys.queue(queue)
        standing, parked = after.times(key), _parked(after, key)
        running = {job.id for job in model.live(queue) if job.running}
        assert {job_id for job_id, score in standing.items() if score < 0} == running
        waiting = {job_id for job_id, score in standing.items() if score > 0}
        joinable = {job.id: job.due > model.now for job in model.joinable(queue)}
        debounced = after.times(f"{key}:debounce").keys()
        assert {job_id for job_id, waits in joinable.items() if waits} <= debounced <= joinable.keys()
        assert len(waiting | parked.keys() | debounced) == len(waiting) + len(parked) + len(debounced)
        assert waiting | parked.keys() | debounced == {job.id for job in model.eligible(queue)}
        held = {worker: dict(entry.value) for worker, entry in after.under(f"{key}:held:").items()}
        assert held == _held(model, queue)
        delayed = after.times(f"{key}:delayed")
        assert {
            job.id for job in model.live(queue) if job.ours and job.delayed and job.due > model.now
        } <= delayed.keys()
        assert delayed.keys() <= {job.id for job in model.live(queue) if job.delayed}
    for job in model.live():
        assert keys.arq_job(job.id) in after.entries, f"no payload: {job.id}"


def one_runs_per_conversation(model: Model, after: Snapshot) -> None:
    hands = [entry.value for queue in QUEUES for entry in after.under(f"{keys.queue(queue)}:held:").values()]
    claims = [job_id for held in hands for job_id in held]
    running = Counter(model.jobs[job_id].line for job_id in claims if model.jobs[job_id].ours)
    assert all(n == 1 for n in running.values()), f"two at once: {running}"
    assert len(claims) == len(set(claims)), "one job, two workers"


def places_are_kept(model: Model, before: Snapshot, after: Snapshot) -> None:
    """Who becomes eligible stands behind everybody; from then on its place is its own through every attempt."""
    for queue in QUEUES:
        delayed = after.times(f"{keys.queue(queue)}:delayed")
        for job_id, score in after.times(keys.queue(queue)).items():
            job = model.jobs[job_id]
            if job.place is None:
                job.place = abs(score)
                assert job.due > model.now or _newest_place(model, job, before, after), "it does not stand behind all"
            elif job.hurried:
                assert score == 1
            elif job_id in delayed:
                assert score == delayed[job_id]
            else:
                assert abs(score) == job.place, "it has lost its place"


def _newest_place(model: Model, job: Job, before: Snapshot, after: Snapshot) -> bool:
    """Behind everybody; a tenant's only head goes before those that wait for less than the head start."""
    assert job.place is not None
    key = keys.queue(job.queue)
    stay = {i for i, score in after.times(key).items() if score > 0 and before.times(key).get(i, -1) > 0}
    stay -= before.times(f"{key}:delayed").keys() | after.times(f"{key}:delayed").keys()
    alone = all(model.jobs[job_id].tenant != job.tenant for job_id in stay)
    starts = (0, HEAD_START_MS) if alone and job.ours else (0,)
    return any(before.now_ms <= job.place + start <= after.now_ms for start in starts)


def lines_of_tenants_are_first_in_first_out(before: Snapshot, after: Snapshot) -> None:
    for queue in QUEUES:
        key = keys.queue(queue)
        standing = after.times(key)
        for tenant in before.under(f"{key}:parked:"):
            line = before.times(f"{key}:parked:{tenant}")
            served = [at for job_id, at in line.items() if job_id in standing]
            left = [at for job_id, at in line.items() if job_id in after.times(f"{key}:parked:{tenant}")]
            assert not served or not left or max(served) <= min(left), "somebody was overtaken"


def counters_equal_recounts(model: Model, after: Snapshot) -> None:
    """And a tenant's line is used only when enough of its heads wait in the queue, and never shut for good."""
    for queue in QUEUES:
        key = keys.queue(queue)
        waiting = [model.jobs[job_id] for job_id, score in after.times(key).items() if score > 0]
        delayed = after.times(f"{key}:delayed")
        heads = Counter(job.tenant for job in waiting if job.ours and job.id not in delayed)
        parked = Counter(model.jobs[job_id].tenant for job_id in _parked(after, key))
        assert after.fields(f"{key}:heads") == {tenant: str(n) for tenant, n in heads.items()}, heads
        assert after.fields(f"{key}:parked") == {tenant: str(n) for tenant, n in parked.items()}
        assert after.fields(f"{key}:slots").keys() == after.times(f"{key}:leases").keys()
        assert all(heads[tenant] >= HEADS for tenant in parked), "it waits in line though there is room"
        let_in = Counter(job.tenant for job in waiting if job.ours and job.attempts == 0 and not job.started_us)
        assert all(n <= HEADS for n in let_in.values()), f"too many heads let in: {let_in}"


def records_tell_the_truth(model: Model, after: Snapshot) -> None:
    for job in model.jobs.values():
        if not job.ours or job.forgotten:
            continue
        record = after.fields(keys.job(job.id))
        told = record.get("state"), record.get("run"), record.get("queue"), record.get("user"), record.get("created_us")
        assert told == (job.state, str(job.run), keys.queue(job.queue), job.user, str(job.created_us)), (
            f"{job.id}: {told}, not {job.state}"
        )
        if not job.over:
            assert int(record.get("attempts", 0)) == job.attempts
            assert record.get("started_us", "") == job.started_us
            assert (record.get("cancel") == "1") == job.cancelled
            payload = after.text(keys.arq_job(job.id))
            assert payload is not None
            assert decode_turn(payload.encode()) == job.payload


def only_what_never_started_can_expire(model: Model, after: Snapshot) -> None:
    for queue in QUEUES:
        waiting = after.times(f"{keys.queue(queue)}:expiry")
        assert waiting.keys() == {job.id for job in model.never_started(queue)}


def ends_are_kept_until_posted(model: Model, after: Snapshot) -> None:
    """Each end of an unstarted job once, in order, with the message: nothing else has it any more."""
    entries = [fields for _, fields in after.ended()]
    assert [(e["id"], int(e["run"]), e["state"]) for e in entries] == model.unposted_ends
    for entry in entries:
        assert entry["payload"], "the message is gone"
        assert decode_turn(entry["payload"].encode()) == model.jobs[entry["id"]].payload
        assert entry["created_us"] == str(model.jobs[entry["id"]].created_us)


def events_are_numbered_upward(model: Model, events: dict[str, list[Event]]) -> None:
    """Readers are given exactly what was expected, each under a number never used before, also across runs."""
    for job_id, fresh in events.items():
        job = model.jobs[job_id]
        told = [(event.type, event.data) for event in fresh]
        assert _without_needless_resets(told, job.expected) == job.expected, f"{job_id}: {told}"
        numbers = [job.seq, *(event.seq for event in fresh)]
        assert all(one < other for one, other in pairwise(numbers)), f"{job_id}: {numbers}"
        job.seq = numbers[-1]
        job.expected.clear()


def cancellations_reach_their_worker(model: Model, after: Snapshot) -> None:
    for worker in model.workers.values():
        if model.alive(worker.name):
            assert after.members(f"{keys.queue(worker.queue)}:cancel:{worker.name}") == worker.to_cancel


def work_wakes_somebody(model: Model, before: Snapshot, after: Snapshot) -> None:
    """Tokens are taken before every step. What a claim leaves is its own worker's to do (`taking`)."""
    for queue in QUEUES:
        key = keys.queue(queue)
        tokens, then, now = len(after.items(f"{key}:wake")), before.times(key), after.times(key)
        assert tokens <= WAKE_TOKENS
        known = {job_id for job_id, score in then.items() if score > 0}
        new = [model.jobs[job_id] for job_id, score in now.items() if score > 0 and job_id not in known]
        told = tokens or queue in model.looked_after
        heirs = [job for job in new if known & {other.id for other in job.taken}]  # of work that was told of
        assert told or not any(job.ours and job not in heirs for job in new), "nobody is told of new work"
    model.looked_after.clear()


def nothing_outlives_its_job(model: Model, after: Snapshot) -> None:
    """What is left of an ended job goes by itself; only what Postgres does not have yet stays."""
    for job in model.jobs.values():
        if job.over:
            kept = {keys.calls(job.id)} if job.calls else set()
            kept |= {keys.job(job.id)} if job.heir else set()
            left = set(after.naming(job.id))
            assert left == kept, f"left of {job.id}: {left}"
        if job.ours and not job.forgotten:
            assert len(after.items(keys.events(job.id))) <= MAX_EVENTS
            assert (after.entries[keys.job(job.id)].expires_ms == -1) == (not job.over or job.heir is not None)
            fields = after.fields(keys.calls(job.id))
            assert {name: row for name, row in fields.items() if not name.endswith(keys.HOLD)} == job.calls
            assert {name.removesuffix(keys.HOLD) for name in fields if name.endswith(keys.HOLD)} == job.held


def _parked(after: Snapshot, key: str) -> dict[str, float]:
    return {job_id: at for entry in after.under(f"{key}:parked:").values() for job_id, at in entry.value.items()}


def _held(model: Model, queue: str) -> dict[str, dict[str, str]]:
    held: dict[str, dict[str, str]] = {}
    for job in model.live(queue):
        if job.running:
            held.setdefault(job.worker, {})[job.id] = job.claim
    return held


def _without_needless_resets(told: list[tuple[str, str]], expected: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """A reset is owed when text was shown; one too many does no harm."""
    owed = any(kind == "attempt.reset" for kind, _ in expected)
    return [(kind, data) for kind, data in told if owed or kind != "attempt.reset"]
