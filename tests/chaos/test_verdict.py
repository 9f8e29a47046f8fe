"""The judge itself: a clean run is good, and each way a run can be wrong is found by the invariant that names it."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.chaos import money, verdict
from tests.chaos.evidence import Evidence
from tests.chaos.load import Accepted
from tests.chaos.plan import Fate, Utterance, draw
from tests.chaos.storm import Window
from workers.routing.terms import refused

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TOKENS = dict.fromkeys(money.COUNTS, 7)
Damage = Callable[[Evidence], Evidence]


def accepted(number: int, fate: Fate = "fine") -> Accepted:
    return Accepted(Utterance("c0000", number, fate, (), has_callback=True), f"job-{number}")


def job(number: int, state: str = "succeeded", attempts: int = 1) -> dict[str, Any]:
    started = NOON + timedelta(seconds=number)
    times = {"created_at": started, "started_at": started, "finished_at": started + timedelta(seconds=1)}
    end = {"state": state, "attempts": attempts, "reply": f"reply {number}"}
    return {"job_id": f"job-{number}", "run": 1} | end | times


def call(number: int, status: str = "ok", **fields: Any) -> dict[str, Any]:
    row = {
        "call_id": f"call-{number}",
        "job_id": f"job-{number}",
        "attempt": 1,
        "error_code": None,
        "status": status,
        "request_id": f"req-{number}",
    }
    return row | TOKENS | {"model": "m", "estimated": status in money.ESTIMATED, "cost_nano_usd": 9} | fields


def entry(number: int, status: str = "served", fault: str | None = None) -> dict[str, Any]:
    text = accepted(number).said.text
    return {"request_id": f"req-{number}", "user_text": text, "status": status, "fault": fault, "model": "m"} | TOKENS


def message(seq: int, number: int, role: str, body: str) -> dict[str, Any]:
    return {"conversation_id": "c0000", "seq": seq, "job_id": f"job-{number}", "role": role, "body": body}


def clean() -> Evidence:
    """Two messages of one conversation with history, both answered."""
    first, second = accepted(0).said.text, accepted(1).said.text
    return Evidence(
        accepted=[[accepted(0), accepted(1)]],
        jobs=[job(0), job(1)],
        messages=[
            message(1, 0, "user", first),
            message(2, 0, "assistant", f"re: {first} | after: "),
            message(3, 1, "user", second),
            message(4, 1, "assistant", f"re: {second} | after: {first}"),
        ],
        calls=[call(0), call(1)],
        deliveries=[
            {"conversation_id": "c0000", "job_id": f"job-{n}", "event_type": "job.succeeded", "sequence": n + 1}
            for n in range(2)
        ],
        served=[entry(0), entry(1)],
        records={f"job-{n}": {"state": "succeeded", "reply": f"reply {n}"} for n in range(2)},
        keys_left=[],
        leases=[],
        windows=[],
        max_attempts=6,
        lease_s=1.5,
        memory=[[100 << 20] * 60],
    )


def violated(evidence: Evidence) -> set[str]:
    findings = [check(evidence) for check in [*verdict.INVARIANTS, *money.MONEY]]
    return {finding.name for finding in findings if finding.violations}


def changed(part: str, change: Callable[[Any], Any]) -> Damage:
    """Damage that edits a copy of one part in place, or replaces it by what `change` returns."""

    def damage(evidence: Evidence) -> Evidence:
        copy = deepcopy(getattr(evidence, part))
        result = change(copy)
        return replace(evidence, **{part: copy if result is None else result})

    return damage


def swapped(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*rows[2:], *rows[:2]]


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a job that never ended": (changed("jobs", lambda rows: rows[:1]), "ended exactly once"),
    "a job that ended twice": (changed("jobs", lambda rows: [*rows, rows[0]]), "ended exactly once"),
    "a job nobody sent": (changed("jobs", lambda rows: [*rows, job(7)]), "ended exactly once"),
    "one job for two messages": (
        changed("accepted", lambda lists: [[lists[0][0], replace(lists[0][1], job_id="job-0")]]),
        "ended exactly once",
    ),
    "a death without a reason": (changed("jobs", lambda rows: rows[0].update(state="dead")), "right one"),
    "a refused message that was answered": (
        changed("accepted", lambda lists: [[accepted(0, "refused"), lists[0][1]]]),
        "right one",
    ),
    "messages out of order": (changed("messages", swapped), "in order"),
    "a reply given twice": (changed("messages", lambda rows: [*rows, rows[3]]), "in order"),
    "a lost reply": (changed("messages", lambda rows: rows[:3]), "in order"),
    "a reply to another question": (changed("messages", lambda rows: rows[1].update(body="re: ?")), "in order"),
    "a caller told otherwise": (
        changed("records", lambda records: records["job-0"].update(state="running")),
        "callers see",
    ),
    "a callback owed twice": (changed("deliveries", lambda rows: [*rows, rows[1]]), "callback"),
    "callbacks out of order": (changed("deliveries", lambda rows: rows[::-1]), "callback"),
    "an attempt nothing explains": (changed("jobs", lambda rows: rows[0].update(attempts=2)), "false rescue"),
    "a key that stayed": (changed("keys_left", lambda _: ["sb:conv:dev:c0000"]), "orphan"),
    "a lease that stayed": (changed("leases", lambda _: ["1 leases for 0 workers"]), "orphan"),
    "a crash nobody caused": (changed("exits", lambda _: ["worker-0 ended with 1, not None"]), "no process ended"),
    "a leak": (changed("memory", lambda _: [[n << 20 for n in range(100, 400, 3)]]), "memory"),
    "a call missing in the ledger": (changed("calls", lambda rows: rows[1:]), "provider's books"),
    "a row that was invented": (changed("calls", lambda rows: [*rows, call(0, request_id="req-9")]), "is a call"),
    "a lost row that nothing explains": (changed("calls", lambda rows: [*rows, call(0, "lost")]), "is a call"),
    "a token too many": (changed("calls", lambda rows: rows[0].update(output_tokens=8)), "exact rows"),
    "an estimate sold as exact": (
        changed("calls", lambda rows: rows[0].update(status="lost", estimated=False)),
        "flagged",
    ),
    "a hold that stayed": (changed("counters", lambda _: ["day:dev:20260101: (5, 9) are still held"]), "counters"),
    "a charge for a refusal": (changed("calls", lambda rows: rows[0].update(status="error")), "flagged"),
}


def test_a_clean_run_violates_nothing() -> None:
    assert violated(clean()) == set()


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_found_by_the_invariant_that_names_it(name: str) -> None:
    damage, invariant = DAMAGES[name]
    assert any(invariant in found for found in violated(damage(clean())))


def test_a_fault_at_the_time_explains_an_attempt_and_the_row_it_lost() -> None:
    evidence = changed("jobs", lambda rows: rows[0].update(attempts=2))(clean())
    evidence = changed("calls", lambda rows: [*rows, call(0, "lost", call_id="call-9")])(evidence)
    at_work = Window("kill worker", NOON.timestamp(), NOON.timestamp() + 1)
    assert violated(replace(evidence, windows=[at_work])) == set()


def test_a_breaker_that_refused_an_attempt_explains_it_and_no_other() -> None:
    said = str(refused("openai", "gpt", "open", 9.0))
    for attempts, violations in ((2, 0), (3, 1)):
        evidence = changed("jobs", lambda rows, attempts=attempts: rows[0].update(attempts=attempts))(clean())
        assert len(violated(replace(evidence, errors={"job-0": said}))) == violations


def test_a_fault_that_costs_no_attempt_explains_none() -> None:
    evidence = changed("jobs", lambda rows: rows[0].update(attempts=2))(clean())
    deploy = Window("terminate worker", NOON.timestamp(), NOON.timestamp() + 1)
    assert len(violated(replace(evidence, windows=[deploy]))) == 1


def test_a_served_call_may_stand_in_the_ledger_as_a_lost_one() -> None:
    row = changed("calls", lambda rows: rows[0].update(status="lost", estimated=True, request_id=None))
    assert violated(row(clean())) == set()


def test_a_seed_draws_the_same_plan_again_and_another_one_another() -> None:
    plans = [draw(seed, jobs=100, conversations=7, faults=3, kinds=["a", "b"]) for seed in (5, 5, 6)]
    assert plans[0] == plans[1] != plans[2]
    assert plans[0].jobs == 100
    assert [len(places) for places in plans[0].strikes.values()] == [3, 3]
