"""Ledger rows on demand, at any moment, written the way a worker writes them; and questions in short."""

from datetime import UTC, datetime, timedelta
from typing import Any

from ops.usage.asks import UsageQuery
from ops.usage.report import Question, Report
from shared.db import Pool, jsonb
from shared.ids import uuid7
from sql import queries
from tests.sql.shapes import a_failed_call, a_turn

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TENANT = "acme"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def call_id(moment: datetime) -> str:
    """A UUIDv7 of that millisecond."""
    unix_ms = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    head = f"{unix_ms:012x}"
    return f"{head[:8]}-{head[8:]}{uuid7()[13:]}"


class Ledger:
    def __init__(self, app: Pool) -> None:
        self._app = app

    async def add(self, moment: datetime = NOON, *, tenant: str = TENANT, **fields: Any) -> str:
        """One call; its job's id. Fields are columns of the ledger."""
        fields = {"status": "ok", "error_code": None, "cost_nano_usd": 1, "job_id": uuid7(), **fields}
        call = a_failed_call(a_turn(), call_id=call_id(moment), **fields)
        assert await self._app.fetchval(queries["end_attempt"], tenant, jsonb([call])) == 1
        return str(fields["job_id"])


def question(now: datetime = NOON, **given: Any) -> Question:
    """As callers ask; `from` is written `start`. Without a span: the month of `now`."""
    if "start" in given:
        given["from"] = given.pop("start")
    return UsageQuery.model_validate(given).question(now)


def costs(report: Report) -> dict[Any, int]:
    """Nano-USD by group; the value alone where one thing was asked for."""
    return {_key(tuple(line.group.values())): line.figures.cost_nano_usd for line in report.lines}


def _key(values: tuple[str | None, ...]) -> Any:
    return values[0] if len(values) == 1 else values
