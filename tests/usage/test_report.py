"""What a report adds up: which calls, into which groups, and that nothing is lost or counted twice."""

import msgspec
import pytest

from ops.usage.books import UsageBooks
from ops.usage.report import NAMES, Figures, UsageFilter
from ops.usage.spans import UNITS
from shared.db import Pool
from shared.errors import InvalidRequest
from tests.usage.ledger import Ledger, at, costs, question


async def test_spans_are_half_open_to_the_millisecond(ledger: Ledger, books: UsageBooks) -> None:
    moments = ["2026-11-20T23:59:59.999", "2026-11-21T00:00:00", "2026-11-21T23:59:59.999", "2026-11-22T00:00:00"]
    for place, moment in enumerate(moments):
        await ledger.add(at(moment), cost_nano_usd=10**place)
    found = [
        (await books.report(question(start=day, to=following))).totals.cost_nano_usd
        for day, following in [("2026-11-20", "2026-11-21"), ("2026-11-21", "2026-11-22"), ("2026-11-22", "2026-11-23")]
    ]
    assert found == [1, 110, 1000]
    part = await books.report(question(start="2026-11-21T01:00:00+01:00", to="2026-11-21T23:59:59.999Z"))
    assert part.totals.cost_nano_usd == 10


async def test_units_of_time_are_those_of_utc_and_weeks_begin_on_monday(ledger: Ledger, books: UsageBooks) -> None:
    for place, moment in enumerate(["2026-10-31T23:30:00", "2026-11-01T00:30:00", "2026-11-02T00:00:00"]):
        await ledger.add(at(moment), cost_nano_usd=10**place)
    span = {"start": "2026-10-01", "to": "2026-12-01"}
    assert costs(await books.report(question(by="hour", **span))) == {
        "2026-10-31T23:00:00Z": 1,
        "2026-11-01T00:00:00Z": 10,
        "2026-11-02T00:00:00Z": 100,
    }
    assert costs(await books.report(question(by="day", **span))) == {
        "2026-10-31": 1,
        "2026-11-01": 10,
        "2026-11-02": 100,
    }
    assert costs(await books.report(question(by="week", **span))) == {"2026-10-26": 11, "2026-11-02": 100}
    assert costs(await books.report(question(by="month", **span))) == {"2026-10-01": 1, "2026-11-01": 110}


async def test_failed_lost_and_estimated_calls_are_in_it_and_shown_apart(ledger: Ledger, books: UsageBooks) -> None:
    fates = [
        ("ok", False),
        ("ok", True),
        ("error", False),
        ("cut", True),
        ("aborted", True),
        ("lost", True),
        ("new", False),
        ("cached", False),
    ]
    for place, (status, estimated) in enumerate(fates):
        await ledger.add(status=status, estimated=estimated, cost_nano_usd=10**place % 10**7, saved_nano_usd=place)
    found = (await books.report(question())).totals
    assert (found.calls, found.ok_calls, found.failed_calls) == (8, 2, 3)
    assert (found.aborted_calls, found.lost_calls, found.estimated_calls) == (1, 1, 4)
    assert (found.ok_cost_nano_usd, found.failed_cost_nano_usd) == (11, 1_001_100)
    assert (found.aborted_cost_nano_usd, found.lost_cost_nano_usd) == (10_000, 100_000)
    assert (found.cached_calls, found.saved_nano_usd) == (1, sum(range(8)))
    assert (found.cost_nano_usd, found.estimated_cost_nano_usd) == (1_111_111, 111_010)


async def test_every_kind_of_token_is_added_up_and_averaged(ledger: Ledger, books: UsageBooks) -> None:
    job = await ledger.add(
        input_tokens=100, output_tokens=20, cached_tokens=64, cache_write_tokens=3, reasoning_tokens=4, cost_nano_usd=2
    )
    await ledger.add(
        job_id=job, input_tokens=50, output_tokens=2, cached_tokens=0, cache_write_tokens=1, reasoning_tokens=0
    )
    shown = (await books.report(question())).resource()["totals"]
    assert {name: shown[name] for name in shown if "tokens" in name or "cached" in name or "per" in name} == {
        "input_tokens": 150,
        "output_tokens": 22,
        "cached_tokens": 64,
        "cache_write_tokens": 4,
        "reasoning_tokens": 4,
        "total_tokens": 172,
        "cached_calls": 0,
        "cost_per_call_usd": "0.000000002",
        "cost_per_job_usd": "0.000000003",
        "tokens_per_call": "86.0",
        "tokens_per_job": "172.0",
        "cached_share": "0.4267",
    }


async def test_a_job_counts_once_in_each_group_and_once_in_all(ledger: Ledger, books: UsageBooks) -> None:
    job = await ledger.add(model="small")
    await ledger.add(job_id=job, model="small")
    await ledger.add(job_id=job, model="large")
    await ledger.add(job_id=job, model="large", tenant="other")
    report = await books.report(question(by="model"))
    assert {line.group["model"]: line.figures.jobs for line in report.lines} == {"small": 1, "large": 2}
    assert report.totals.jobs == 2, "another tenant's job may have the same id"


async def test_what_has_no_user_or_domain_is_a_group_too(ledger: Ledger, books: UsageBooks) -> None:
    await ledger.add(user_id=None, domain=None, cost_nano_usd=1)
    await ledger.add(user_id=None, domain="a.example", cost_nano_usd=10)
    await ledger.add(user_id="u1", domain="a.example", cost_nano_usd=100)
    report = await books.report(question(by="user,domain"))
    assert costs(report) == {("u1", "a.example"): 100, (None, "a.example"): 10, (None, None): 1}


async def test_sums_beyond_64_bits_stay_exact(ledger: Ledger, books: UsageBooks) -> None:
    for _ in range(3):
        await ledger.add(cost_nano_usd=2**63 - 1)
    report = await books.report(question(by="tenant"))
    assert costs(report) == {"acme": 3 * (2**63 - 1)}
    assert report.resource()["totals"]["cost_usd"] == "27670116110.564327421"


@pytest.mark.parametrize("name", NAMES)
async def test_a_filter_lets_through_what_it_names(name: str, ledger: Ledger, books: UsageBooks) -> None:
    column = {"user": "user_id", "conversation": "conversation_id"}.get(name, name)
    await ledger.add(**{column: "wanted"}, cost_nano_usd=1)
    await ledger.add(**{column: "other' OR true --"}, cost_nano_usd=10)
    assert costs(await books.report(question(by=name, **{name: "wanted"}))) == {"wanted": 1}
    assert costs(await books.report(question(by=name, **{name: "other' OR true --"}))) == {"other' OR true --": 10}


async def test_filters_and_groups_combine(ledger: Ledger, books: UsageBooks) -> None:
    for place, (agent, model) in enumerate([("sales", "small"), ("sales", "large"), ("support", "small")]):
        await ledger.add(agent=agent, model=model, cost_nano_usd=10**place)
    by_both = await books.report(question(by="day,agent", model="small"))
    assert costs(by_both) == {("2026-11-21", "support"): 100, ("2026-11-21", "sales"): 1}
    assert (await books.report(question(agent="sales", model="large"))).totals.cost_nano_usd == 10


async def test_top_shows_the_dearest_and_the_totals_know_the_rest(ledger: Ledger, books: UsageBooks) -> None:
    for n in range(5):
        await ledger.add(conversation_id=f"c{n}", cost_nano_usd=10**n)
    report = await books.report(question(by="conversation", top=2))
    assert [line.group["conversation"] for line in report.lines] == ["c4", "c3"]
    assert (report.groups, report.totals.cost_nano_usd) == (5, 11_111)
    by_day = await books.report(question(by="day,conversation", top=2))
    assert [line.group["conversation"] for line in by_day.lines] == ["c4", "c3"]


async def test_nothing_used_is_a_report_of_zeros(books: UsageBooks) -> None:
    report = await books.report(question(by="agent"))
    assert (report.totals, report.groups, report.lines) == (Figures(), 0, [])
    shown = report.resource()["totals"]
    assert (shown["cost_usd"], shown["cost_per_call_usd"], shown["cached_share"]) == ("0.000000000", None, None)


async def test_fill_adds_a_zero_line_for_each_unit_without_calls(ledger: Ledger, books: UsageBooks) -> None:
    await ledger.add(at("2026-11-02T10:00:00"), agent="sales", cost_nano_usd=5)
    await ledger.add(at("2026-11-02T10:00:00"), agent="support", cost_nano_usd=7)
    span = {"start": "2026-11-01T12:00:00Z", "to": "2026-11-04", "fill": True}
    assert costs(await books.report(question(by="day", **span))) == {
        "2026-11-01": 0,
        "2026-11-02": 12,
        "2026-11-03": 0,
    }
    both = await books.report(question(by="agent,day", **span))
    assert list(costs(both).items()) == [
        (("sales", "2026-11-01"), 0),
        (("support", "2026-11-01"), 0),
        (("support", "2026-11-02"), 7),
        (("sales", "2026-11-02"), 5),
        (("sales", "2026-11-03"), 0),
        (("support", "2026-11-03"), 0),
    ]
    assert both.totals.cost_nano_usd == 12


async def test_fill_ends_now_but_keeps_what_a_fast_clock_wrote(ledger: Ledger, books: UsageBooks) -> None:
    await ledger.add(at("2026-11-24T00:00:00"), cost_nano_usd=3)
    now = at("2026-11-02T01:00:00")
    assert costs(await books.report(question(now, fill=True))) == {"2026-11-01": 0, "2026-11-02": 0, "2026-11-24": 3}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"by": "day,agent", "top": 1}, "groups are left out"),
        ({"by": "hour", "start": "1990-01-01", "to": "2026-11-21"}, "more than 100000 lines"),
    ],
)
async def test_fill_refuses_to_call_zero_what_it_left_out_or_to_fill_forever(
    ledger: Ledger, books: UsageBooks, given: dict[str, object], said: str
) -> None:
    await ledger.add(at("2026-11-20T00:00:00"), agent="sales")
    await ledger.add(at("2026-11-20T00:00:00"), agent="support")
    with pytest.raises(InvalidRequest) as refused:
        await books.report(question(fill=True, **given))
    assert refused.value.faults[0]["field"] == "fill"
    assert said in refused.value.faults[0]["message"]


async def test_the_views_add_up_to_the_report(ledger: Ledger, books: UsageBooks, ops: Pool) -> None:
    for n in range(12):
        moment = at(f"2026-11-{1 + n:02}T{n:02}:30:00")
        await ledger.add(moment, domain=f"d{n % 3}" if n % 4 else None, agent=f"a{n % 2}", cost_nano_usd=10**n)
    report = await books.report(question(by="day"))
    for view in ("usage_calls", "usage_hourly", "usage_daily", "usage_domain_costs"):
        row = await ops.fetchrow(f"SELECT sum(cost_nano_usd) AS nano, sum(usd) AS usd FROM {view}")  # noqa: S608 - ours
        assert row is not None
        assert row["nano"] == report.totals.cost_nano_usd == 111_111_111_111
        assert str(row["usd"]) == "111.1111111110", view


def test_a_filter_can_name_whatever_a_report_groups_by() -> None:
    assert msgspec.structs.asdict(UsageFilter()).keys() == set(NAMES)
    assert not set(NAMES) & set(UNITS)
