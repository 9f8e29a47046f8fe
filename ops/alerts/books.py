"""Rules and what was crossed, in Postgres, for console and command line.

`tenant` None means every tenant where something is read, and the deployment itself (`*`) where a rule is meant.
"""

import msgspec

from ops.alerts.asks import AlertBody, is_name
from ops.deliveries.gate import Gate
from ops.sight import RoleBooks, sees_all_tenants
from shared.config import Settings
from shared.db import Pool, jsonb
from shared.errors import Conflict, InvalidRequest, NotFound
from sql import queries
from workers.alerts.records import DEPLOYMENT, Alert, AlertEvent

MOST_ALERTS = 100
"""Of one tenant: all are judged every minute."""
TENANT_BUDGETS = frozenset({"conversation", "user-month", "tenant-day", "tenant-month"})


class AlertBooks(RoleBooks):
    def __init__(self, pool: Pool, gate: Gate, *, mails: bool, sees_all: bool) -> None:
        super().__init__(pool, sees_all=sees_all)
        self._gate, self._mails = gate, mails

    @classmethod
    async def over(cls, pool: Pool, settings: Settings, gate: Gate) -> "AlertBooks":
        return cls(pool, gate, mails=settings.smtp_url is not None, sees_all=await sees_all_tenants(pool))

    async def rules(self, tenant: str | None) -> list[Alert]:
        """By tenant and name."""
        rows = await self._pool.fetch(queries["list_alerts"], tenant, None)
        return [msgspec.json.decode(row["alert"], type=Alert) for row in rows]

    async def find(self, tenant: str | None, name: str) -> Alert:
        row = await self._pool.fetchrow(queries["list_alerts"], tenant or DEPLOYMENT, name)
        if row is None:
            raise no_such_alert()
        return msgspec.json.decode(row["alert"], type=Alert)

    async def put(self, tenant: str | None, name: str, asked: AlertBody, by: str) -> tuple[Alert, bool]:
        """The rule, and whether it is new. Raises InvalidRequest for targets that cannot be told."""
        await self._check(tenant, name, asked)
        args = (tenant or DEPLOYMENT, name, jsonb(asked.rule()), by, MOST_ALERTS)
        row = await self._pool.fetchrow(queries["put_alert"], *args)
        if row is None or row["alert"] is None:
            if len(await self.rules(tenant or DEPLOYMENT)) >= MOST_ALERTS:
                raise Conflict(f"There are {MOST_ALERTS} alerts already.", code="too_many_alerts")
            raise NotFound("There is no such tenant.")
        return msgspec.json.decode(row["alert"], type=Alert), row["made"]

    async def remove(self, tenant: str | None, name: str) -> Alert:
        """What it has told stays in the history."""
        found = await self.find(tenant, name)
        if not await self._pool.fetchval(queries["remove_alert"], tenant or DEPLOYMENT, name):
            raise no_such_alert()
        return found

    async def test(self, tenant: str | None, name: str, by: str) -> str:
        """A message to the rule's targets; the id of its event."""
        event = await self._pool.fetchval(queries["test_alert"], tenant or DEPLOYMENT, name, by)
        if event is None:
            raise no_such_alert()
        return str(event)

    async def history(self, tenant: str | None, before: str | None, limit: int) -> list[AlertEvent]:
        """The newest first."""
        rows = await self._pool.fetch(queries["list_alert_events"], tenant, before, limit)
        return [msgspec.json.decode(row["event"], type=AlertEvent) for row in rows]

    async def _check(self, tenant: str | None, name: str, asked: AlertBody) -> None:
        if not is_name(name):
            raise _refused("name", "must be at most 63 of a-z, 0-9, - and _, a letter or digit first")
        foreign = [scope for scope in asked.scopes if (scope in TENANT_BUDGETS) is (tenant is None)]
        if foreign:
            whose = "tenants" if tenant is None else "the deployment, of which operators make alerts"
            raise _refused("scopes", f"{', '.join(foreign)}: that is a budget of {whose}")
        for place, target in enumerate(asked.targets):
            if target.kind != "email":
                await self._gate.check(target.to, f"targets/{place}/to")
            elif not self._mails:
                raise _refused(f"targets/{place}/kind", "no e-mail can be sent: SWITCHBOARD_SMTP_URL is not set")


def no_such_alert() -> NotFound:
    return NotFound("There is no such alert.")


def _refused(field: str, message: str) -> InvalidRequest:
    faults = [{"field": field, "message": message}]
    return InvalidRequest("The request has faults; `errors` lists all of them.", faults=faults)
