"""Days, months and hours of UTC: what they are called, and where they begin and end."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from workers.alerts.figures import Span

LATE = timedelta(minutes=15)
"""For so long after a period has ended it is still judged: calls that were made in it are booked late."""

Period = tuple[str, Span]


def day_of(at: datetime) -> Period:
    start = at.replace(hour=0, minute=0, second=0, microsecond=0)
    return f"{start:%Y-%m-%d}", Span(start, start + timedelta(days=1))


def month_of(at: datetime) -> Period:
    start = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return f"{start:%Y-%m}", Span(start, (start + timedelta(days=32)).replace(day=1))


def hour_of(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H}"


def recent(now: datetime, of: Callable[[datetime], Period]) -> Iterator[Period]:
    """The present period, and the one before while it is not settled."""
    present = of(now)
    yield present
    if now - present[1].start < LATE:
        yield of(present[1].start - LATE)
