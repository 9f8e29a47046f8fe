"""Endpoints, their secrets and deliveries in Postgres, for console and command line.

`tenant` None means every tenant, which only a pool of the role switchboard_ops may ask for (`sees_all`).
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from ops.deliveries.asks import EndpointBody
from ops.deliveries.gate import Gate
from ops.deliveries.records import Delivery, DeliveryDetail, Endpoint, NewSecret
from ops.sight import RoleBooks, sees_all_tenants
from shared import deployment
from shared.config import Settings
from shared.db import Pool, jsonb
from shared.errors import Conflict, NotFound
from sql import queries
from workers.delivery.signing import DEFAULT_OWNER, Signer

MOST_ENDPOINTS = 50
"""Of one tenant: each event goes to all of them."""


class DeliveryBooks(RoleBooks):
    def __init__(self, pool: Pool, signer: Signer, gate: Gate, *, sees_all: bool) -> None:
        super().__init__(pool, sees_all=sees_all)
        self._signer, self._gate = signer, gate

    @classmethod
    async def over(cls, pool: Pool, settings: Settings, gate: Gate) -> "DeliveryBooks":
        signer = Signer.of(settings, (await deployment.of_database(pool)).id)
        return cls(pool, signer, gate, sees_all=await sees_all_tenants(pool))

    # --- endpoints ----------------------------------------------------------------------------------------------

    async def endpoints(self, tenant: str | None) -> list[Endpoint]:
        """The newest first."""
        rows = await self._pool.fetch(queries["list_endpoints"], tenant, None)
        return [msgspec.json.decode(row["endpoint"], type=Endpoint) for row in rows]

    async def endpoint(self, tenant: str | None, endpoint_id: str) -> Endpoint:
        row = await self._pool.fetchrow(queries["list_endpoints"], tenant, endpoint_id)
        if row is None:
            raise no_such_endpoint()
        return msgspec.json.decode(row["endpoint"], type=Endpoint)

    async def create(self, tenant: str, asked: EndpointBody, by: str) -> tuple[Endpoint, NewSecret]:
        """Raises InvalidRequest for a URL that must not be called, NotFound for an unknown tenant."""
        await self._gate.check(asked.url, "url")
        args = (tenant, asked.url, asked.description, [*asked.event_types], by, MOST_ENDPOINTS, asked.format)
        raw = await self._pool.fetchval(queries["create_endpoint"], *args)
        if raw is None:
            if len(await self.endpoints(tenant)) >= MOST_ENDPOINTS:
                raise Conflict(f"There are {MOST_ENDPOINTS} endpoints already.", code="too_many_endpoints")
            raise NotFound("There is no such tenant.")
        made = msgspec.json.decode(raw, type=Endpoint)
        return made, NewSecret(secret=self._signer.secret(tenant, made.id, 1), overlap_s=0)

    async def change(self, tenant: str | None, endpoint_id: str, change: Mapping[str, Any]) -> Endpoint:
        """`change` has some of url, description, event_types, format, disabled. Enabling forgives past failures."""
        owner = (await self.endpoint(tenant, endpoint_id)).tenant
        if "url" in change:
            await self._gate.check(change["url"], "url")
        raw = await self._pool.fetchval(queries["change_endpoint"], owner, endpoint_id, jsonb(change))
        if raw is None:
            raise no_such_endpoint()
        return msgspec.json.decode(raw, type=Endpoint)

    async def remove(self, tenant: str | None, endpoint_id: str) -> Endpoint:
        """It is owed nothing any more; what was not delivered yet fails."""
        found = await self.endpoint(tenant, endpoint_id)
        if not await self._pool.fetchval(queries["remove_endpoint"], found.tenant, endpoint_id):
            raise no_such_endpoint()
        return found

    async def rotate(self, tenant: str | None, endpoint_id: str, overlap_s: int) -> NewSecret:
        owner = (await self.endpoint(tenant, endpoint_id)).tenant
        serial = await self._pool.fetchval(queries["rotate_signing_secret"], owner, endpoint_id, overlap_s)
        if serial is None:
            raise no_such_endpoint()
        return NewSecret(secret=self._signer.secret(owner, endpoint_id, serial), overlap_s=overlap_s)

    async def rotate_default(self, tenant: str, overlap_s: int) -> NewSecret:
        """Of callback URLs. The first time it shows the one that has signed them all along."""
        serial = await self._pool.fetchval(queries["rotate_signing_secret"], tenant, None, overlap_s)
        if serial is None:
            raise NotFound("There is no such tenant.")
        return NewSecret(secret=self._signer.secret(tenant, DEFAULT_OWNER, serial), overlap_s=overlap_s)

    # --- deliveries ---------------------------------------------------------------------------------------------

    async def page(self, wanted: Mapping[str, str | None], before: str | None, limit: int) -> list[Delivery]:
        """The newest first. `wanted`: tenant, state, endpoint_id, job_id; None: whatever it is."""
        given = {name: value for name, value in wanted.items() if value is not None}
        rows = await self._pool.fetch(queries["list_deliveries"], jsonb(given), before, limit)
        return [msgspec.json.decode(row["delivery"], type=Delivery) for row in rows]

    async def find(self, tenant: str | None, delivery_id: str) -> DeliveryDetail:
        raw = await self._pool.fetchval(queries["delivery_detail"], tenant, delivery_id)
        if raw is None:
            raise no_such_delivery()
        return msgspec.json.decode(raw, type=DeliveryDetail)

    async def replay(self, tenant: str | None, delivery_id: str) -> None:
        """Sends it (again) now, under the same id. Raises NotFound, or Conflict while it is being sent."""
        outcome = await self._pool.fetchval(queries["replay_delivery"], tenant, delivery_id)
        if outcome is None:
            raise no_such_delivery()
        if outcome == "sending":
            raise Conflict("It is being sent at this moment.", code="delivery_under_way")


def no_such_endpoint() -> NotFound:
    return NotFound("There is no such endpoint.")


def no_such_delivery() -> NotFound:
    return NotFound("There is no such delivery.")
