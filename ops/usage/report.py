"""A report: what was asked, the totals, a line for each group. What callers are shown is built here.

Money is integer nano-USD and shown as exact decimals. Averages are quotients: shown rounded half up, to a nano-USD
or to the digits given, and computed in integers too.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import product
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from ops.usage.spans import UNITS, Span, Unit, label, shown, units_in
from shared.errors import InvalidRequest
from shared.jobs import usd

Name: TypeAlias = Literal[
    "tenant", "user", "agent", "conversation", "domain", "feature", "kind", "provider", "model", "status"
]
NAMES: tuple[Name, ...] = get_args(Name)
Group: TypeAlias = Mapping[str, str | None]
"""A value for each thing asked for, in that order. None: the calls that have none (no user, no domain)."""

MAX_FILLED = 100_000
"""Lines of a filled report."""


class UsageFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a call must be to count; the names are those of `usage_calls`. None: whatever it is."""

    tenant: str | None = None
    user: str | None = None
    agent: str | None = None
    conversation: str | None = None
    domain: str | None = None
    feature: str | None = None
    kind: str | None = None
    provider: str | None = None
    model: str | None = None
    status: str | None = None


class Question(msgspec.Struct, frozen=True, kw_only=True):
    span: Span
    by: tuple[Unit | Name, ...]
    filter: UsageFilter = UsageFilter()
    top: int | None = None
    """The dearest groups only; None: all."""
    fill_until: datetime | None = None
    """Zero lines for what has no calls, up to this moment."""

    @property
    def unit(self) -> Unit | None:
        return next((unit for unit in UNITS if unit in self.by), None)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that failed, were stopped or lost are among `calls`, their cost in the cost."""

    jobs: int = 0
    """Jobs with at least one of these calls. A job can be in several groups, so these do not add up to the total's."""
    calls: int = 0
    """`ok`, `failed`, `aborted`, `lost` and `cached` ones together."""
    ok_calls: int = 0
    failed_calls: int = 0
    """Refused, or broken off."""
    aborted_calls: int = 0
    """Stopped by us, as when a caller cancels."""
    lost_calls: int = 0
    """Their worker vanished."""
    cached_calls: int = 0
    """Not made: a kept answer was given instead, for nothing. (`cached_tokens` are the provider's cache.)"""
    estimated_calls: int = 0
    """Whose tokens we counted ourselves, for want of the provider's account."""
    input_tokens: int = 0
    """Cached and cache-written ones included."""
    output_tokens: int = 0
    """Reasoning included."""
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nano_usd: int = 0
    saved_nano_usd: int = 0
    """What the answers of `cached_calls` had cost when they were made."""
    ok_cost_nano_usd: int = 0
    failed_cost_nano_usd: int = 0
    aborted_cost_nano_usd: int = 0
    lost_cost_nano_usd: int = 0
    estimated_cost_nano_usd: int = 0

    def resource(self) -> dict[str, Any]:
        fields = msgspec.structs.asdict(self)
        plain = {name: value for name, value in fields.items() if not name.endswith("_nano_usd")}
        money = {name.replace("_nano_usd", "_usd"): usd(fields[name]) for name in fields if name not in plain}
        tokens = self.input_tokens + self.output_tokens
        return {
            **plain,
            "total_tokens": tokens,
            **money,
            "cost_per_call_usd": quotient(self.cost_nano_usd, self.calls * 1_000_000_000, 9),
            "cost_per_job_usd": quotient(self.cost_nano_usd, self.jobs * 1_000_000_000, 9),
            "tokens_per_call": quotient(tokens, self.calls, 1),
            "tokens_per_job": quotient(tokens, self.jobs, 1),
            "cached_share": quotient(self.cached_tokens, self.input_tokens, 4),
        }


class Line(msgspec.Struct, frozen=True):
    group: Group
    figures: Figures

    def resource(self) -> dict[str, Any]:
        return {"group": dict(self.group), **self.figures.resource()}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    question: Question
    groups: int
    """With calls, shown or not."""
    totals: Figures
    """Of all groups, shown or not."""
    lines: Sequence[Line]

    def resource(self) -> dict[str, Any]:
        asked = self.question
        return {
            "object": "usage_report",
            "from": shown(asked.span.start),
            "to": shown(asked.span.end),
            "by": list(asked.by),
            "filter": msgspec.to_builtins(asked.filter),
            "groups": self.groups,
            "totals": self.totals.resource(),
            "data": [line.resource() for line in self.lines],
        }


def quotient(dividend: int, divisor: int, digits: int) -> str | None:
    """Of two non-negative integers, rounded half up: `quotient(2, 3, 4)` is `"0.6667"`. None: there is none."""
    if divisor == 0:
        return None
    scaled = (2 * dividend * 10**digits + divisor) // (2 * divisor)
    whole, rest = divmod(scaled, 10**digits)
    return f"{whole}.{rest:0{digits}d}"


def filled(report: Report) -> Report:
    """With a line for each unit of time in the span, and for each combination of what else was asked that occurs.

    Raises InvalidRequest where that would be too many lines, or would show as zero what was left out.
    """
    asked = report.question
    unit, until = asked.unit, asked.fill_until
    if unit is None or until is None:
        return report
    if report.groups > len(report.lines):
        raise _no_fill("not while groups are left out; narrow the span or the filters")
    there = {tuple(line.group.values()): line for line in report.lines}
    others = dict.fromkeys(_others(line.group, unit) for line in report.lines) or _alone(asked)
    span = Span(asked.span.start, min(asked.span.end, until))
    starts = _at_most(units_in(span, unit), MAX_FILLED // max(1, len(others)))
    lines = [_line(asked, unit, label(unit, start), rest, there) for start, rest in product(starts, others)]
    begun = {label(unit, start) for start in starts}
    lines += [line for line in report.lines if line.group[unit] not in begun]  # a clock ahead of ours
    return msgspec.structs.replace(report, lines=sorted(lines, key=lambda line: _place(line, unit)))


def _alone(asked: Question) -> dict[tuple[str | None, ...], None]:
    """What to fill where nothing was found: every unit of time, when nothing else was asked for."""
    return {(): None} if len(asked.by) == 1 else {}


def _others(group: Group, unit: Unit) -> tuple[str | None, ...]:
    return tuple(value for name, value in group.items() if name != unit)


def _line(
    asked: Question, unit: Unit, start: str, rest: tuple[str | None, ...], there: Mapping[tuple[str | None, ...], Line]
) -> Line:
    values = iter(rest)
    group: Group = {str(name): start if name == unit else next(values) for name in asked.by}
    return there.get(tuple(group.values())) or Line(group, Figures())


def _at_most(starts: Iterator[datetime], limit: int) -> list[datetime]:
    found: list[datetime] = []
    for start in starts:
        if len(found) == limit:
            raise _no_fill(f"that would be more than {MAX_FILLED} lines")
        found.append(start)
    return found


def _place(line: Line, unit: Unit) -> tuple[str, int, list[str]]:
    """The order the database gives too: time, then the dearest first, then by name."""
    return line.group[unit] or "", -line.figures.cost_nano_usd, [value or "" for value in line.group.values()]


def _no_fill(why: str) -> InvalidRequest:
    fault = {"field": "fill", "message": why}
    return InvalidRequest("The request has faults; `errors` lists all of them.", faults=[fault])
