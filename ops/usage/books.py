"""The ledger as reports read it: one statement in Postgres makes totals and groups, of one instant.

A question without a tenant is about every tenant, which only a pool of the role switchboard_ops may ask (`sees_all`).
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from ops.sight import RoleBooks, sees_all_tenants
from ops.usage.report import Figures, Line, Question, Report, filled
from shared.db import Pool, jsonb
from sql import queries


class UsageBooks(RoleBooks):
    @classmethod
    async def over(cls, pool: Pool) -> "UsageBooks":
        return cls(pool, sees_all=await sees_all_tenants(pool))

    async def report(self, asked: Question) -> Report:
        """Raises InvalidRequest when it cannot be filled as asked."""
        args = (jsonb(asked.filter), list(asked.by), asked.span.start, asked.span.end, asked.top)
        rows = await self._pool.fetch(queries["usage_report"], *args)
        totals, *groups = [msgspec.json.decode(row["line"]) for row in rows]
        return filled(
            Report(
                question=asked,
                groups=totals["groups"],
                totals=_figures(totals),
                lines=[Line(_group(one, asked), _figures(one)) for one in groups],
            )
        )


def _figures(row: Mapping[str, Any]) -> Figures:
    return Figures(**{name: row[name] for name in Figures.__struct_fields__})


def _group(row: Mapping[str, Any], asked: Question) -> dict[str, str | None]:
    return {name: _of_time(row[name], name) if name == asked.unit else row[name] for name in asked.by}


def _of_time(text: str, unit: str) -> str:
    """`2026-11-21T07:00:00` as `spans.label` has it."""
    return f"{text}Z" if unit == "hour" else text[:10]
