"""The calendar, the arithmetic of averages, and what callers may ask for, without a database."""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ops.usage.asks import UsageQuery
from ops.usage.report import quotient
from ops.usage.spans import UNITS, Span, Unit, current, following, moment, units_in
from shared.errors import InvalidRequest
from tests.usage.ledger import NOON, at, question

MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - made aware


@given(now=MOMENTS, unit=st.sampled_from(UNITS))
def test_every_moment_is_in_exactly_one_unit(now: datetime, unit: Unit) -> None:
    span = current(unit, now)
    assert span.start <= now < span.end
    assert current(unit, span.start) == span
    assert current(unit, span.end).start == span.end


@given(start=MOMENTS, hours=st.integers(1, 2_000), unit=st.sampled_from(UNITS))
def test_the_units_of_a_span_cover_it_without_a_gap(start: datetime, hours: int, unit: Unit) -> None:
    span = Span(start, start + timedelta(hours=hours))
    units = list(units_in(span, unit))
    assert units[0] <= span.start
    assert units[-1] < span.end <= following(unit, units[-1])
    assert [following(unit, one) for one in units[:-1]] == units[1:]


@given(dividend=st.integers(0, 10**30), divisor=st.integers(1, 10**20), digits=st.integers(1, 9))
def test_a_quotient_is_the_exact_one_rounded_half_up(dividend: int, divisor: int, digits: int) -> None:
    exact = Context(prec=200)
    expected = exact.divide(Decimal(dividend), Decimal(divisor)).quantize(
        Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP, context=exact
    )
    assert quotient(dividend, divisor, digits) == f"{expected:f}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-21", "2026-11-21T00:00:00"),
        ("2026-11-21T07:30:00Z", "2026-11-21T07:30:00"),
        ("2026-11-21T07:30:00.1239+02:00", "2026-11-21T05:30:00.123"),
    ],
)
def test_a_day_or_a_moment_is_read_as_utc(text: str, expected: str) -> None:
    assert moment(text) == at(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "today",
        "2026-02-30",
        "2026-11-21T07:30:00",
        "1969-12-31",
        "9999-12-31",
        "9999-12-31T23:00:00-23:00",
        "20261121",
    ],
)
def test_anything_else_is_not(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        moment(text)


def test_a_period_is_the_whole_current_one_and_the_month_by_default() -> None:
    assert question().span == Span(at("2026-11-01T00:00:00"), at("2026-12-01T00:00:00"))
    assert question(period="week").span == Span(at("2026-11-16T00:00:00"), at("2026-11-23T00:00:00"))
    assert question(period="hour").span == Span(at("2026-11-21T12:00:00"), at("2026-11-21T13:00:00"))
    assert question(start="2026-11-20").span == Span(at("2026-11-20T00:00:00"), NOON)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"period": "day", "start": "2026-11-01"}, "period"),
        ({"to": "2026-11-01"}, "to"),
        ({"start": "2026-11-02", "to": "2026-11-01"}, "to"),
        ({"start": "2026-11-02", "to": "2026-11-02"}, "to"),
        ({"start": "2027-01-01"}, "to"),
        ({"by": "agent", "fill": True}, "fill"),
    ],
)
def test_parts_that_contradict_each_other_are_named(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        question(**asked)
    assert [fault["field"] for fault in refused.value.faults] == [field]


@pytest.mark.parametrize("by", ["", "day,", "day,day", "day,hour", "cost", "Day", "day;agent"])
def test_groups_that_make_no_sense_are_refused(by: str) -> None:
    with pytest.raises(ValidationError, match="must name"):
        UsageQuery.model_validate({"by": by})
