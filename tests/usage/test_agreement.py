"""Real turns, then three accounts of them: the reports, the ledger, and the model server's own books."""

from typing import Any

import pytest

from agents.advocate import Advocate
from ops.usage.books import UsageBooks
from ops.usage.report import NAMES, Figures, Report
from ops.usage.spans import UNITS
from shared.jobs import usd
from tests.turn.deployment import Deployment
from tests.usage.ledger import question

TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
AGENTS = ("support", "advocate")
RULES: tuple[dict[str, Any], ...] = (
    *({"match": f"flaky of {agent}", "faults": [{"status": 500}], "output_tokens": 11} for agent in AGENTS),
    # OpenAI's only: its tokens we count as it does. Of a broken Anthropic stream the books hold our estimate.
    {"match": "broken off of support", "faults": [{"cut_stream": True, "after_tokens": 12}], "output_tokens": 30},
    {"match": "doomed", "faults": [{"status": 400, "times": 100}]},
    {"output_tokens": 23},
)
COLUMNS = {"tenant": "tenant_id", "user": "user_id", "conversation": "conversation_id"}


@pytest.fixture
async def jobs_cost_nano_usd(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> int:
    """After 14 turns of two providers, some of which fail once or for good; what callers were told they cost."""
    monkeypatch.setattr(Advocate, "models", ("anthropic:claude-haiku-4-5",))
    await deployment.behave(*RULES)
    said = ["hello", "flaky", "what is new?", "broken off", "doomed", "bye", "once more"]
    async with deployment.worker():
        jobs = [
            await deployment.say(
                f"{text} of {agent}",
                agent=agent,
                conversation=f"{agent}-{place % 3}",
                user=f"u{place % 3}",
                domain=f"d{place}.example" if place % 2 else None,
                feature="faq" if place % 3 else None,
            )
            for agent in AGENTS
            for place, text in enumerate(said)
        ]
        records = [await deployment.ended(job_id) for job_id in jobs]
    assert {record.state for record in records} == {"succeeded", "dead"}
    return sum(record.cost_nano_usd or 0 for record in records)


async def test_reports_the_ledger_the_callers_and_the_provider_agree_to_the_last_digit(
    deployment: Deployment, books: UsageBooks, jobs_cost_nano_usd: int
) -> None:
    report = await books.report(question_now(by="model"))
    served = (await deployment.served())["by_model"]
    assert served.keys() == {"gpt-5.4-mini", "claude-haiku-4-5"}
    for line in report.lines:
        theirs = served[line.group["model"]]
        ours = {"calls": line.figures.calls, **{name: getattr(line.figures, name) for name in TOKENS}}
        assert ours == {name: theirs.get(name, 0) for name in ours}, line.group
    totals = report.totals
    assert totals.jobs == 14
    assert (totals.failed_calls, totals.estimated_calls, totals.lost_calls) == (5, 1, 0)
    exact = await deployment.books.fetchval("SELECT sum(usd) FROM llm_calls")
    assert totals.cost_nano_usd == jobs_cost_nano_usd > 0
    assert report.resource()["totals"]["cost_usd"] + "0" == usd(jobs_cost_nano_usd) + "0" == str(exact)


@pytest.mark.usefixtures("jobs_cost_nano_usd")
async def test_every_grouping_adds_up_to_the_ledger(deployment: Deployment, books: UsageBooks) -> None:
    whole = await deployment.books.fetchrow(
        "SELECT count(*) AS calls, count(DISTINCT job_id) AS jobs, sum(input_tokens) AS input_tokens, "
        "sum(output_tokens) AS output_tokens, sum(cost_nano_usd) AS cost_nano_usd FROM llm_calls"
    )
    for by in (*UNITS, *NAMES, "day,agent", "hour,tenant,user,model,domain,feature,status"):
        report = await books.report(question_now(by=by))
        assert summed(report) == {name: int(whole[name]) for name in whole.keys() if name != "jobs"}, by  # noqa: SIM118 - a Record iterates over values
        assert report.totals.jobs == whole["jobs"], by
        assert report.groups == len(report.lines), by


@pytest.mark.usefixtures("jobs_cost_nano_usd")
@pytest.mark.parametrize("name", NAMES)
async def test_each_group_is_what_the_ledger_says_of_it(name: str, deployment: Deployment, books: UsageBooks) -> None:
    rows = await deployment.books.fetch(
        f"SELECT {COLUMNS.get(name, name)} AS value, count(*) AS calls, count(DISTINCT job_id) AS jobs, "  # noqa: S608 - names of our own
        "sum(cost_nano_usd) AS cost FROM llm_calls GROUP BY 1"
    )
    expected = {row["value"]: (row["calls"], row["jobs"], int(row["cost"])) for row in rows}
    report = await books.report(question_now(by=name))
    assert {line.group[name]: of(line.figures) for line in report.lines} == expected


def question_now(**given: Any) -> Any:
    """Of all that there is, whatever the date of today."""
    return question(start="2020-01-01", to="2100-01-01", **given)


def of(figures: Figures) -> tuple[int, int, int]:
    return figures.calls, figures.jobs, figures.cost_nano_usd


def summed(report: Report) -> dict[str, int]:
    names = ("calls", "input_tokens", "output_tokens", "cost_nano_usd")
    return {name: sum(getattr(line.figures, name) for line in report.lines) for name in names}
