"""The ledger against the provider's own books, call by call.

How calls are matched: an exact row names the provider's request id, so it and the call it stands for are compared field
by field. Rows of calls that failed, were broken off or were lost with their worker know no id; they are matched by job,
the provider by the text that only this job says: such a job has at least as many of these rows as the provider has
calls left. Rows beyond that are calls that were opened and never reached the provider; only faults can cause them.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from tests.chaos.evidence import Evidence, Row
from tests.chaos.verdict import Finding, overlapping

COUNTS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
ESTIMATED = {"lost", "cut", "aborted"}


@dataclass
class Matching:
    """Calls and rows as they belong together."""

    exact: list[tuple[Row, Row]] = field(default_factory=list)
    """(ledger row, provider's entry) by request id."""
    orphans: list[Row] = field(default_factory=list)
    """Exact rows of which the provider knows nothing."""
    rows_left: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    """Job id → rows without a request id."""
    entries_left: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    """Job id → the provider's entries that no exact row stands for."""


def match(evidence: Evidence) -> Matching:
    """Each row and each entry appears once in the result."""
    jobs = {item.said.text: item.job_id for conversation in evidence.accepted for item in conversation}
    entries: dict[str, Row] = {entry["request_id"]: entry for entry in evidence.served}
    matching = Matching()
    for row in evidence.calls:
        if row["status"] != "ok":
            matching.rows_left[str(row["job_id"])].append(row)
        elif row["request_id"] in entries:
            matching.exact.append((row, entries.pop(row["request_id"])))
        else:
            matching.orphans.append(row)
    for entry in entries.values():
        text: str = entry["user_text"]
        matching.entries_left[jobs.get(text, text)].append(entry)
    return matching


def every_served_call_is_in_the_ledger(evidence: Evidence) -> Finding:
    """Served, cut off, hung or turned down: what the provider knows of has its row."""
    matching = match(evidence)
    faults = [
        f"{job}: the provider has {len(entries)} more calls ({_ways(entries)}), the ledger {_ways(rows) or 'none'}"
        for job, entries in matching.entries_left.items()
        if len(entries) > len(rows := matching.rows_left.get(job, []))
    ]
    return Finding("every call of the provider's books is in the ledger", len(evidence.served), faults)


def every_row_is_a_call(evidence: Evidence) -> Finding:
    """No row was invented, and rows of calls that never reached the provider are what a fault left behind."""
    matching = match(evidence)
    jobs = {str(row["job_id"]): row for row in evidence.jobs}
    faults = [f"row {row['call_id']} names request {row['request_id']}, unknown there" for row in matching.orphans]
    for job, rows in matching.rows_left.items():
        beyond = len(rows) - len(matching.entries_left.get(job, []))
        explained = len(overlapping(evidence, jobs[job])) if job in jobs else 0
        if beyond > explained:
            faults.append(f"{job}: {beyond} rows without a call ({_ways(rows)}), faults explain {explained}")
    return Finding("every ledger row is a call, or what a fault left of one", len(evidence.calls), faults)


def exact_rows_are_exact(evidence: Evidence) -> Finding:
    """Token by token what the provider bills."""
    faults = []
    for row, entry in match(evidence).exact:
        ours, theirs = [[side[name] for name in COUNTS] for side in (row, entry)]
        if ours != theirs or row["model"] != entry["model"] or entry["status"] != "served" or row["estimated"]:
            faults.append(f"row {row['call_id']}: {ours}, the provider {theirs} ({entry['status']}, {entry['model']})")
    return Finding("exact rows equal the provider's, sums included", len(evidence.calls), faults)


def estimates_are_flagged(evidence: Evidence) -> Finding:
    """A call whose end nobody heard is booked with a cost and marked; one that was turned down costs nothing."""
    faults = []
    for row in evidence.calls:
        if row["status"] in ESTIMATED and not (row["estimated"] and row["cost_nano_usd"] > 0):
            faults.append(f"row {row['call_id']} ({row['status']}) is not a flagged estimate with a cost")
        if row["status"] == "error" and row["cost_nano_usd"]:
            faults.append(f"row {row['call_id']} charges for a call that was turned down")
    return Finding("lost and broken calls are flagged estimates", len(evidence.calls), faults)


def counters_are_the_ledgers_sums(evidence: Evidence) -> Finding:
    """Of every conversation, user, tenant and of all, to the nano-dollar; nothing is held when nobody works."""
    return Finding("counters of spent money equal the ledger", len(evidence.calls), list(evidence.counters))


MONEY = [
    every_served_call_is_in_the_ledger,
    every_row_is_a_call,
    exact_rows_are_exact,
    estimates_are_flagged,
    counters_are_the_ledgers_sums,
]


def summary(evidence: Evidence) -> dict[str, int]:
    """The books in figures: what both sides have, and the tokens of the exact part."""
    matching = match(evidence)
    lost = [row for rows in matching.rows_left.values() for row in rows if row["status"] == "lost"]
    left = sum(map(len, matching.entries_left.values()))
    return {
        "calls the provider booked": len(evidence.served),
        "ledger rows": len(evidence.calls),
        "exact": len(matching.exact),
        "failed, broken off or lost, on both sides": left,
        "opened, never reached the provider": sum(map(len, matching.rows_left.values())) - left,
        "rows of calls lost with their worker": len(lost),
        "exact input tokens, ledger": sum(row["input_tokens"] for row, _ in matching.exact),
        "exact input tokens, provider": sum(entry["input_tokens"] for _, entry in matching.exact),
        "exact output tokens, ledger": sum(row["output_tokens"] for row, _ in matching.exact),
        "exact output tokens, provider": sum(entry["output_tokens"] for _, entry in matching.exact),
    }


def _ways(rows: list[Row]) -> str:
    return ", ".join(sorted(str(row["fault"] or row["status"]) if "fault" in row else row["status"] for row in rows))
