"""Every rule against the books: what is crossed now, for the first time in its period, is told. Called once a minute.

`cross_alert` in Postgres decides whether it is the first time, in the transaction that puts the messages into the
outbox: two judges, or one that was killed half-way and starts over, tell nobody twice and forget nobody.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import structlog

from shared.budgets import DeploymentBudgets
from shared.db import Pool, Row, jsonb
from shared.errors import Unavailable
from shared.tenants import TenantSettings, read_settings
from sql import queries
from workers.alerts.budgets import budget_uses, thresholds_of
from workers.alerts.figures import Figures, Span
from workers.alerts.periods import day_of, hour_of, month_of, recent
from workers.alerts.records import DEPLOYMENT, Rule

log = structlog.get_logger("alerts")

PACE = 20
"""Messages of one rule in one judging: the rest come a minute later, instead of all users' at once."""
MOST_FAILURES = 3
"""Rules of one judging that Postgres may take too long over; with more of them it is Postgres that is away."""
MOST_KNOWN = 100_000
"""Crossings that a process remembers to have been told, to spare Postgres the question."""
_HOUR, _DAY, _WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)


class Standing(NamedTuple):
    """A rule and whom it is about."""

    tenant: str
    name: str
    rule: Rule
    settings: TenantSettings | None
    """None for the deployment."""


class Reading(NamedTuple):
    """One figure of one scope and period, and whether it says anything."""

    scope: str
    period: str
    value: Decimal
    limit: Decimal = Decimal(0)
    """What thresholds are shares of; 0: thresholds are what they are."""
    unit: str | None = None
    day: str | None = None
    """Of a figure that can fall again: told once on that day while it stands."""


class Moment(NamedTuple):
    """By which it is judged, and the last one by which all rules were."""

    now: datetime
    judged_to: datetime


class Judge:
    def __init__(self, pool: Pool, deployment: DeploymentBudgets) -> None:
        self._pool, self._deployment = pool, deployment
        self._known: set[tuple[object, ...]] = set()

    async def judge(self, now: datetime) -> int:
        """How many crossings were told. A rule that cannot be judged keeps no other from it.

        Raises Unavailable when Postgres is away, or took too long over some rules; the next judging then looks at all
        that was crossed since the last one that was whole.
        """
        told, figures, failures = 0, Figures(self._pool), list[Unavailable]()
        judged_us = await self._pool.fetchval(queries["alerts_judged_to"])
        moment = Moment(now, now if judged_us is None else at(judged_us))
        for row in await self._pool.fetch(queries["standing_alerts"]):
            try:
                told += await self._one(_standing(row), figures, moment)
            except (ValueError, ArithmeticError):  # msgspec's errors are ValueErrors; a document nobody has checked
                log.exception("alert.unjudged", tenant=row["tenant"], alert=row["name"])
            except Unavailable as error:
                failures.append(error)
                if len(failures) >= MOST_FAILURES:
                    break
        if failures:
            raise failures[0]
        await self._pool.fetchval(queries["note_alerts_judged"], us_of(now))
        return told

    async def _one(self, standing: Standing, figures: Figures, moment: Moment) -> int:
        told = 0
        async for reading in self._readings(standing, figures, moment):
            crossed = [each for each in standing.rule.thresholds if _is_crossed(standing.rule, reading, each)]
            for threshold in crossed:
                told += await self._cross(standing, reading, threshold)
                if told >= PACE:
                    return told
            over = [each for each in standing.rule.thresholds if each not in crossed]
            if over and reading.day is not None:
                args = (standing.tenant, standing.name, standing.rule.metric, over)
                await self._pool.fetchval(queries["end_alert"], *args)
        return told

    async def _cross(self, standing: Standing, reading: Reading, threshold: Decimal) -> bool:
        crossing: dict[str, Any] = {
            "name": standing.name,
            "metric": standing.rule.metric,
            "scope": reading.scope,
            "period": reading.period,
            "day": reading.day,
            "threshold": threshold,
            "limit": reading.limit,
            "value": reading.value,
            "detail": {} if reading.unit is None else {"unit": reading.unit},
        }
        key = (
            standing.tenant,
            *(crossing[name] for name in ("name", "metric", "scope", "period", "threshold", "limit")),
        )
        if key in self._known:
            return False
        told = bool(await self._pool.fetchval(queries["cross_alert"], standing.tenant, jsonb(crossing)))
        if reading.day is None:  # what only grows stays crossed: nobody needs to be asked again
            self._known = self._known if len(self._known) < MOST_KNOWN else set()
            self._known.add(key)
        if told:
            log.info(
                "alert.crossed", tenant=standing.tenant, alert=standing.name, scope=reading.scope, period=reading.period
            )
        return told

    async def _readings(self, standing: Standing, figures: Figures, moment: Moment) -> AsyncIterator[Reading]:
        tenant, rule, now = standing.tenant, standing.rule, moment.now
        whole = "deployment" if tenant == DEPLOYMENT else "tenant"
        match rule.metric:
            case "budget":
                async for use in budget_uses(tenant, rule, standing.settings, self._deployment, figures, *moment):
                    yield Reading(use.scope, use.period, use.used, use.limit, use.unit)
            case "daily_cost_usd" | "monthly_cost_usd" | "conversation_cost_usd":
                async for reading in _of_money(whole, standing, figures, now):
                    yield reading
            case "error_rate" | "p50_s" | "p99_s":
                async for reading in _of_last_hour(whole, standing, figures, now):
                    yield reading
            case "dau_drop":
                async for reading in _of_yesterday(whole, standing, figures, now):
                    yield reading


def _standing(row: Row) -> Standing:
    """Raises ValueError for what nobody has checked."""
    rule = msgspec.json.decode(row["rule"], type=Rule)
    of_budgets = rule.metric == "budget" and row["settings"] is not None
    settings = read_settings(row["settings"]) if of_budgets else None
    rule = msgspec.structs.replace(rule, thresholds=thresholds_of(rule, settings))
    return Standing(row["tenant"], row["name"], rule, settings)


async def _of_money(whole: str, standing: Standing, figures: Figures, now: datetime) -> AsyncIterator[Reading]:
    rule = standing.rule
    for label, span in recent(now, month_of if rule.metric == "monthly_cost_usd" else day_of):
        spent = await figures.spent(standing.tenant, span)
        if rule.metric != "conversation_cost_usd":
            yield Reading(whole, label, usd(spent.cost_nano_usd))
        elif spent.conversations >= rule.enough:
            yield Reading(whole, label, usd(spent.cost_nano_usd) / spent.conversations)


async def _of_last_hour(whole: str, standing: Standing, figures: Figures, now: datetime) -> AsyncIterator[Reading]:
    jobs = await figures.jobs(standing.tenant, Span(now - _HOUR, now))
    rule = standing.rule
    if rule.metric == "error_rate":
        value = Decimal(jobs.failed) / jobs.ended if jobs.ended >= rule.enough else None
    else:
        took_s = jobs.p50_s if rule.metric == "p50_s" else jobs.p99_s
        value = Decimal(str(round(took_s, 3))) if took_s is not None and jobs.succeeded >= rule.enough else None
    if value is not None:
        yield Reading(whole, hour_of(now), value, day=day_of(now)[0])


async def _of_yesterday(whole: str, standing: Standing, figures: Figures, now: datetime) -> AsyncIterator[Reading]:
    label, span = day_of(now - _DAY)
    before = await figures.users(standing.tenant, Span(span.start - _WEEK, span.end - _WEEK))
    if before >= standing.rule.enough:
        users = await figures.users(standing.tenant, span)
        yield Reading(whole, label, 1 - Decimal(users) / before)


def _is_crossed(rule: Rule, reading: Reading, threshold: Decimal) -> bool:
    """Shares of a budget and drops count from the threshold on, limits when they are exceeded."""
    if rule.metric == "budget":
        return reading.value >= threshold * reading.limit
    return reading.value >= threshold if rule.metric == "dau_drop" else reading.value > threshold


def usd(nano_usd: int) -> Decimal:
    return Decimal(nano_usd).scaleb(-9)


def at(unix_us: int) -> datetime:
    return datetime.fromtimestamp(unix_us / 1_000_000, UTC)


def us_of(moment: datetime) -> int:
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
