"""Judges what a claim did: the sweeps it made first, the jobs it handed out, and how long its worker may sleep now.

A sweep may stop early, but must get on, and never moves more than BATCH jobs. `settle` checks and then tells the model.
"""

from collections.abc import Sequence
from itertools import pairwise

from shared import keys
from shared.jobs import JobState
from shared.wire import decode_turn
from tests.queue.machine.model import BATCH, Model
from tests.queue.machine.snapshot import Snapshot
from workers.queue.scripts import Claimed, Claims


def settle(model: Model, worker: str, n: int, claims: Claims, before: Snapshot, after: Snapshot) -> None:
    """One claim without restriction; the model learns of it."""
    queue = model.workers[worker].queue
    sweep(model, queue, before, after, {job.id for job in claims.jobs})
    assert in_reach(model, queue, n, after) <= len(claims.jobs) <= n, (
        "somebody was left waiting, or too many were taken"
    )
    hand_out(model, worker, claims.jobs)
    scores = [before.moved(float(job.score)) for job in claims.jobs]
    assert all(one <= other for one, other in pairwise(scores)), "not in the order of their places"
    left = _free(model, after, queue)
    assert not scores or min(left, default=scores[-1]) >= scores[-1], "somebody was overtaken"
    assert claims.held == len(model.held(worker))
    assert claims.ends_waiting == bool(model.unposted_ends)
    sleeps_no_longer_than_nothing_is_due(model, queue, claims, before, after)
    model.looked_after.add(queue)


def settle_some(
    model: Model, worker: str, only: Sequence[str], n: int, claims: Claims, before: Snapshot, after: Snapshot
) -> None:
    """A claim of none but the jobs `only`."""
    queue = model.workers[worker].queue
    sweep(model, queue, before, after, {job.id for job in claims.jobs})
    taken = [job.id for job in claims.jobs]
    due = {job.id for job in model.due(queue)}
    sure = due & _standing(before, queue).keys()
    wanted = [job_id for job_id in dict.fromkeys(only) if job_id in due]
    assert taken == [job_id for job_id in wanted if job_id in taken], "not those that were asked for, in their order"
    assert len(taken) == n or sure & set(wanted) <= set(taken)
    hand_out(model, worker, claims.jobs)
    model.looked_after.add(queue)  # such a worker asks again without being told


def sweep(model: Model, queue: str, before: Snapshot, after: Snapshot, taken: set[str]) -> None:
    """What claim and reap do first. `taken`: the jobs that were claimed in the same call."""
    reap(model, queue, after)
    expired = [fields["id"] for _, fields in after.ended()[len(before.ended()) :]]
    overdue = {job.id for job in model.overdue(queue)}
    assert set(expired) <= overdue, "expired before its time"
    assert min(BATCH, len(overdue)) == len(expired), "expiry stands still, or does too much at once"
    for job_id in expired:
        model.end_unstarted(model.jobs[job_id], JobState.EXPIRED)
    promote(model, queue, before, after, taken)
    windows = f"{keys.queue(queue)}:debounce"
    over = sum(at <= before.now_ms for at in before.times(windows).values())
    assert sum(at <= before.now_ms for at in after.times(windows).values()) <= max(0, over - BATCH), "windows stay shut"


def promote(model: Model, queue: str, before: Snapshot, after: Snapshot, taken: set[str]) -> None:
    """Retries whose wait is over return to their places."""
    key = f"{keys.queue(queue)}:delayed"
    delayed = after.times(key)
    promoted = [job for job in model.live(queue) if job.delayed and job.ours and job.id not in delayed.keys() | taken]
    assert all(job.due <= model.now for job in promoted), "it waited too short"
    assert len(promoted) <= BATCH
    over = sum(at <= before.now_ms for at in before.times(key).values())
    assert sum(at <= before.now_ms for at in delayed.values()) <= max(0, over - BATCH), "retries stand still"
    for job in promoted:
        job.delayed = job.hurried = False


def reap(model: Model, queue: str, after: Snapshot) -> int:
    """Jobs of lapsed workers go back, counted; how many did."""
    key = keys.queue(queue)
    leases = after.times(f"{key}:leases")
    moved = 0
    for worker in model.lapsed(queue):
        held = after.fields(f"{key}:held:{worker.name}")
        for job in model.held(worker.name):
            if held.get(job.id) != job.claim:
                model.put_back(job)
                moved += 1
        if worker.name not in leases:
            assert not held, "nobody will ever take its jobs back"
            assert f"{key}:cancel:{worker.name}" not in after.entries
            del model.workers[worker.name]
    assert moved <= BATCH, f"{moved} jobs in one sweep"
    assert moved == BATCH or not any(model.held(worker.name) for worker in model.lapsed(queue)), (
        "the sweep stands still"
    )
    return moved


def in_reach(model: Model, queue: str, n: int, after: Snapshot) -> int:
    """How many must be handed out: what is due, but for messages whose windows the sweep has not come to."""
    windows = after.times(f"{keys.queue(queue)}:debounce")
    return min(n, sum(job.id not in windows for job in model.due(queue)))


def hand_out(model: Model, worker: str, claims: Sequence[Claimed]) -> None:
    """Each claim says all there is to know, under a token greater than any before it."""
    for claimed in claims:
        job = model.jobs[claimed.id]
        assert job in model.due(job.queue), "not its turn"
        assert int(claimed.claim) > int(job.claim or 0), "an old claim would pass for this one"
        rows = {call: row.decode() for call, row in claimed.open_calls.items()}
        known = claimed.attempt, claimed.run, claimed.cancelled, rows, claimed.user_id or ""
        assert known == (job.attempts + 1, job.run, job.cancelled, job.calls, job.user)
        assert claimed.holds.keys() == job.held
        assert [entry.split(b" ")[1].decode() for entry in claimed.taken_in] == [other.id for other in job.taken]
        assert not job.ours or str(claimed.started_us) == (job.started_us or claimed.claim)
        assert claimed.created_us == (job.created_us or None)
        assert claimed.payload is not None
        assert job.payload is None or decode_turn(claimed.payload) == job.payload
        model.start(job, worker, claimed.claim)


def sleeps_no_longer_than_nothing_is_due(
    model: Model, queue: str, claims: Claims, before: Snapshot, after: Snapshot
) -> None:
    key = keys.queue(queue)
    times = [*_free(model, after, queue)]
    times += [*after.times(f"{key}:expiry").values(), *after.times(f"{key}:leases").values()]
    times += after.times(f"{key}:debounce").values()
    assert claims.next_ms is not None, "its own lease is a thing that comes due"
    assert before.now_ms + claims.next_ms <= max(before.now_ms, min(times)), "it would sleep through something"


def _free(model: Model, snapshot: Snapshot, queue: str) -> list[float]:
    """When those can start that wait in the queue and that no stock worker runs."""
    return [score for job_id, score in _standing(snapshot, queue).items() if not model.jobs[job_id].elsewhere]


def _standing(snapshot: Snapshot, queue: str) -> dict[str, float]:
    return {job_id: score for job_id, score in snapshot.times(keys.queue(queue)).items() if score > 0}
