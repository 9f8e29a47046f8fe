"""Spans of time that reports cover, in UTC, and the hours, days, weeks and months in them.

A span is half-open and of whole milliseconds, as call ids are: spans that meet share no call and lose none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Literal, TypeAlias, get_args

from shared.jobs import rfc3339

Unit: TypeAlias = Literal["hour", "day", "week", "month"]
UNITS: tuple[Unit, ...] = get_args(Unit)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9999, 1, 1, tzinfo=UTC)
"""Early enough to be followed by one more month."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` until before `end`."""

    start: datetime
    end: datetime


def moment(text: str) -> datetime:
    """A day (its beginning, UTC) or an RFC 3339 moment with its offset, rounded down to a millisecond.

    Raises ValueError with a sentence for the caller.
    """
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        given = None
    if given is None or (given.tzinfo is None and len(text) != len("2026-11-21")):
        raise ValueError("must be a day (2026-11-21) or a moment with its offset (2026-11-21T07:30:00Z)")
    try:
        at = given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)
    except OverflowError:
        at = _END
    if not _EPOCH <= at < _END:
        raise ValueError("must be between the years 1970 and 9998")
    return at.replace(microsecond=at.microsecond // 1_000 * 1_000)


def current(unit: Unit, now: datetime) -> Span:
    """The whole hour, day, week (from Monday) or month that `now` is in."""
    start = beginning(unit, now)
    return Span(start, following(unit, start))


def beginning(unit: Unit, at: datetime) -> datetime:
    if unit == "hour":
        return at.replace(minute=0, second=0, microsecond=0)
    day = datetime.combine(at.date(), time(tzinfo=UTC))
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def following(unit: Unit, start: datetime) -> datetime:
    """The beginning after the beginning `start`."""
    if unit == "month":
        return (start + timedelta(days=31)).replace(day=1)
    return start + {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}[unit]


def units_in(span: Span, unit: Unit) -> Iterator[datetime]:
    """The beginning of each unit that the span touches; of the first one it may cover only the end."""
    start = beginning(unit, span.start)
    while start < span.end:
        yield start
        start = following(unit, start)


def label(unit: Unit, start: datetime) -> str:
    """How a report names a unit: `2026-11-21T07:00:00Z` for an hour, else its first day."""
    return start.strftime("%Y-%m-%dT%H:00:00Z") if unit == "hour" else start.date().isoformat()


def shown(at: datetime) -> str:
    return rfc3339((at - _EPOCH) // timedelta(microseconds=1))
