"""The invariants, as pure functions over the evidence: each has a name, what it compared, and every violation with ids.

Money is judged in money.py. Attempts are bounded by what faults explain: an attempt fails because its model did,
because its models had failed so often that a breaker refused them, or because a fault that can cost one was at work
during the job.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos.evidence import Evidence, Row
from tests.chaos.faults import KINDS
from tests.chaos.load import Accepted
from tests.chaos.storm import Window

AFTERMATH_LEASES = 3
"""A fault's consequences may show so many leases after its end."""
REFUSED = "has failed too often"
"""workers/routing/terms.py, of an open breaker."""
GROWTH = 1.3
GROWTH_BYTES = 16 << 20
SHORTEST_LIFE = 30
"""Samples; a younger process is still warming up."""


@dataclass(frozen=True)
class Finding:
    name: str
    compared: int
    violations: list[str]


def each_job_ended_once(evidence: Evidence) -> Finding:
    """One terminal row for each accepted job, and none for anything else."""
    rows = Counter(str(row["job_id"]) for row in evidence.jobs)
    accepted = _by_id(evidence)
    faults = [f"{job_id} has {rows[job_id]} terminal rows" for job_id in accepted if rows[job_id] != 1]
    faults += [f"{job_id} was never accepted" for job_id in rows if job_id not in accepted]
    sent = Counter(item.job_id for conversation in evidence.accepted for item in conversation)
    faults += [f"{job_id} stands for {count} messages" for job_id, count in sent.items() if count > 1]
    return Finding("each accepted job ended exactly once", len(accepted), faults)


def states_are_right(evidence: Evidence) -> Finding:
    """Succeeded, unless its models failed it for good or faults used its attempts up."""
    accepted, faults = _by_id(evidence), []
    for row in evidence.jobs:
        item = accepted.get(str(row["job_id"]))
        if item is None:
            continue
        expected = "dead" if item.said.fate in ("doomed", "refused") else "succeeded"
        if row["state"] != expected and not _gave_up(evidence, row):
            faults.append(f"{row['job_id']} ({item.said.fate}) is {row['state']} after {row['attempts']} attempts")
    return Finding("each state is the right one", len(evidence.jobs), faults)


def conversations_are_in_order(evidence: Evidence) -> Finding:
    """Each conversation, message by message: one question a job, one reply a success, in the order of acceptance."""
    states = {str(row["job_id"]): row["state"] for row in evidence.jobs}
    written: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for row in evidence.messages:
        written[row["conversation_id"]].append((str(row["job_id"]), row["role"], row["body"]))
    faults = []
    for conversation in evidence.accepted:
        if conversation:
            expected = list(_transcript(conversation, states))
            found = written.pop(conversation[0].said.conversation, [])
            faults += _differences(conversation[0].said.conversation, expected, found)
    faults += [f"{name} was never opened" for name in written]
    return Finding("conversations are in order, nothing said twice", len(evidence.messages), faults)


def callers_see_what_was_committed(evidence: Evidence) -> Finding:
    """State and reply of each job in Redis and in Postgres."""
    faults = []
    for row in evidence.jobs:
        shown = evidence.records.get(str(row["job_id"]), {})
        committed = {"state": row["state"], "reply": row["reply"] or ""}
        if shown != committed:
            faults.append(f"{row['job_id']}: Redis shows {shown}, Postgres has {committed}")
    return Finding("callers see what was committed", len(evidence.jobs), faults)


def deliveries_are_owed_once(evidence: Evidence) -> Finding:
    """One event for each job with a callback, numbered in the order of acceptance."""
    states = {str(row["job_id"]): row["state"] for row in evidence.jobs}
    owed: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in evidence.deliveries:
        owed[row["conversation_id"]].append((str(row["job_id"]), row["event_type"]))
    faults = []
    for conversation in filter(None, evidence.accepted):
        name = conversation[0].said.conversation
        expected = [(item.job_id, f"job.{states.get(item.job_id)}") for item in conversation if item.said.has_callback]
        if owed[name] != expected:
            faults.append(f"{name} owes {owed[name]}, not {expected}")
    return Finding("each callback is owed exactly once, in order", len(evidence.deliveries), faults)


def attempts_are_explained(evidence: Evidence) -> Finding:
    """No job was attempted more often than faults explain: anything else is a false rescue."""
    failed = Counter(entry["user_text"] for entry in evidence.served if entry["fault"] is not None)
    accepted, faults = _by_id(evidence), []
    for row in evidence.jobs:
        item = accepted.get(str(row["job_id"]))
        explained = 1 + _costly(evidence, row) + _refused(evidence, row) + (failed[item.said.text] if item else 0)
        if row["attempts"] > explained:
            faults.append(f"{_story(evidence, row)}; faults explain {explained} attempts")
    return Finding("no false rescue: faults explain every attempt", len(evidence.jobs), faults)


def nothing_is_left(evidence: Evidence) -> Finding:
    """No conversation, hold, place in the queue, retry, open call or end on its way outlives the jobs."""
    return Finding("no lease, hold or orphan is left", 1, [*evidence.keys_left, *evidence.leases])


def processes_stayed_up(evidence: Evidence) -> Finding:
    """No process ended by itself, and every one that was asked to did so in order."""
    return Finding("no process ended unasked or in disorder", len(evidence.memory), list(evidence.exits))


def memory_is_bounded(evidence: Evidence) -> Finding:
    """Of processes that lived long enough: the last third of their life needs no more than the second."""
    faults, lives = [], [life for life in evidence.memory if len(life) >= SHORTEST_LIFE]
    for life in lives:
        third = len(life) // 3
        before, after = statistics.median(life[third : 2 * third]), statistics.median(life[2 * third :])
        if after > before * GROWTH + GROWTH_BYTES:
            faults.append(f"a process grew from {before / 1e6:.0f} to {after / 1e6:.0f} MB")
    return Finding("memory does not grow without bound", len(lives), faults)


INVARIANTS: list[Callable[[Evidence], Finding]] = [
    each_job_ended_once,
    states_are_right,
    conversations_are_in_order,
    callers_see_what_was_committed,
    deliveries_are_owed_once,
    attempts_are_explained,
    nothing_is_left,
    processes_stayed_up,
    memory_is_bounded,
]


def overlapping(evidence: Evidence, row: Row) -> list[Window]:
    """Faults that may have had to do with a job: at work, or just over, between its first start and its end."""
    from_s = (row["started_at"] or row["created_at"]).timestamp()
    to_s, after_s = row["finished_at"].timestamp(), evidence.lease_s * AFTERMATH_LEASES
    return [window for window in evidence.windows if window.from_s <= to_s and window.to_s + after_s >= from_s]


def _costly(evidence: Evidence, row: Row) -> int:
    if row["attempts"] <= 1:
        return 0
    return sum(KINDS[window.kind].attempt_cost for window in overlapping(evidence, row))


def _refused(evidence: Evidence, row: Row) -> int:
    """Attempts that say themselves that a breaker let them ask nobody."""
    return evidence.errors.get(str(row["job_id"]), "").count(REFUSED)


def _story(evidence: Evidence, row: Row) -> str:
    """What is known of a job's attempts, for a person who wants to know why."""
    calls = [call for call in evidence.calls if call["job_id"] == row["job_id"]]
    told = ", ".join(f"{call['attempt']} {call['status']} {call['error_code'] or ''}".rstrip() for call in calls)
    lived_s = (row["finished_at"] - row["started_at"]).total_seconds() if row["started_at"] else 0.0
    kinds = Counter(window.kind for window in overlapping(evidence, row))
    during = ", ".join(f"{kind} {count}" for kind, count in kinds.items()) or "no fault"
    said = evidence.errors.get(str(row["job_id"]), "")
    return f"{row['job_id']}: {row['attempts']} attempts in {lived_s:.1f} s (calls: {told}) {said} during {during}"


def _gave_up(evidence: Evidence, row: Row) -> bool:
    """Dead because it was attempted as often as it may be; whether faults explain that is asked elsewhere."""
    return bool(row["state"] == "dead" and row["attempts"] == evidence.max_attempts)


def _by_id(evidence: Evidence) -> dict[str, Accepted]:
    return {item.job_id: item for conversation in evidence.accepted for item in conversation}


def _transcript(conversation: Sequence[Accepted], states: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """What must have been written: every reply quotes its own question and, with history, the one before."""
    for before, item in pairwise([None, *conversation]):
        if item is None:
            continue
        said = item.said
        yield item.job_id, "user", said.text
        if states.get(item.job_id) == "succeeded":
            heard = before.said.text if before is not None and said.agent == "support" else ""
            yield item.job_id, "assistant", f"re: {said.text} | after: {heard}"


def _differences(name: str, expected: list[tuple[str, str, str]], found: list[tuple[str, str, str]]) -> list[str]:
    """The first place where a transcript is not what it must be."""
    if expected == found:
        return []
    places = zip([*expected, None], [*found, None], strict=False)
    place, (wanted, written) = next((n, pair) for n, pair in enumerate(places) if pair[0] != pair[1])
    return [f"{name}, message {place + 1}: {written} instead of {wanted}"]
