"""What the console's routes share, and who may ask it for what.

A request that concerns one tenant is served through the role that row-level security binds to that tenant; only an
operator's request for all of them goes through switchboard_ops.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from ingress.auth import ApiKeys, Principal, known_by_key, principal_of
from ingress.strangers import Strangers
from ops.alerts.books import AlertBooks
from ops.channels.books import ChannelBooks
from ops.console.load import Load
from ops.dead.desk import Desk
from ops.deliveries.books import DeliveryBooks
from ops.profiles.books import ProfileBooks
from ops.tenants.books import TenantBooks
from ops.usage.books import UsageBooks
from ops.users.books import UserBooks
from ops.users.errands import Errands
from shared.config import Settings
from shared.db import Pool
from shared.errors import Forbidden, InvalidRequest
from shared.ids import is_uuid
from shared.redis import Commands
from shared.telemetry import context
from sql import queries

BY_LENGTH = 12
"""How much of a key's SHA-256 names it in the books; never anything of the key itself."""


class KeyBooks:
    """Where `ApiKeys` looks keys up for good."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def api_key(self, sha256: str) -> Principal | None:
        row = await self._pool.fetchrow(queries["resolve_api_key"], sha256)
        return principal_of(row) if row else None

    async def ping(self) -> None:
        await self._pool.fetchval("SELECT 1")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks. `tenant` None reaches every tenant; `by` goes into the books."""

    tenant: str | None
    by: str
    operator: bool = False


@dataclass(frozen=True, kw_only=True)
class Console:
    settings: Settings
    commands: Commands
    api_keys: ApiKeys
    strangers: Strangers
    keys: KeyBooks
    queues: Sequence[str]
    load: Load
    of_tenant: Desk
    of_all: Desk
    tenants: TenantBooks
    channels: ChannelBooks
    users: UserBooks
    errands: Errands
    profiles: ProfileBooks
    usage_of_tenant: UsageBooks
    usage_of_all: UsageBooks
    deliveries_of_tenant: DeliveryBooks
    deliveries_of_all: DeliveryBooks
    alerts_of_tenant: AlertBooks
    alerts_of_all: AlertBooks

    async def authenticate(self, request: Request, *, tenant: str | None = None) -> Visitor:
        """The visitor, who wants to see `tenant`, or all that the key opens. Raises Unauthorized, Forbidden,
        InvalidRequest or Unavailable."""
        sha256, principal = await self._principal(request)
        by = f"key:{sha256[:BY_LENGTH]}"
        if "operator" in principal.scopes:
            return Visitor(tenant, by, operator=True)
        if "admin" not in principal.scopes:
            raise Forbidden("This API key lacks the scope `admin`.")
        if tenant not in (None, principal.tenant):
            raise Forbidden("This API key opens its own tenant only; others need the scope `operator`.")
        return Visitor(principal.tenant, by)

    async def authenticate_operator(self, request: Request) -> None:
        """For what belongs to no tenant."""
        _, principal = await self._principal(request)
        if "operator" not in principal.scopes:
            raise Forbidden("This API key lacks the scope `operator`.")

    def desk(self, visitor: Visitor) -> Desk:
        if visitor.tenant is not None:
            return self.of_tenant
        if not self.of_all.books.sees_all:
            raise InvalidRequest(
                "This console's database role sees one tenant at a time.",
                faults=[{"field": "tenant", "message": "must be given while SWITCHBOARD_OPS_DATABASE_URL is not set"}],
            )
        return self.of_all

    def usage(self, visitor: Visitor) -> UsageBooks:
        return self.usage_of_tenant if self.desk(visitor) is self.of_tenant else self.usage_of_all

    def deliveries(self, visitor: Visitor) -> DeliveryBooks:
        return self.deliveries_of_tenant if self.desk(visitor) is self.of_tenant else self.deliveries_of_all

    def alerts(self, visitor: Visitor) -> AlertBooks:
        return self.alerts_of_tenant if self.desk(visitor) is self.of_tenant else self.alerts_of_all

    async def _principal(self, request: Request) -> tuple[str, Principal]:
        attempt = self.strangers.attempt(request.scope)
        sha256, principal = await known_by_key(self.api_keys, request.headers.get("authorization", ""), attempt)
        context.bind(tenant=principal.tenant, key=sha256[:BY_LENGTH])
        return sha256, principal


def tenant_of(visitor: Visitor) -> str:
    """The one tenant that a request is about. Raises InvalidRequest."""
    if visitor.tenant is None:
        fault = {"field": "tenant", "message": "must be given: this is done for one tenant"}
        raise InvalidRequest("The request has faults; `errors` lists all of them.", faults=[fault])
    return visitor.tenant


def console_of(request: Request) -> Console:
    console: Console = request.app.state.console
    return console


def job_id_of(request: Request) -> str | None:
    """The id in the path; None for what cannot be one."""
    job_id: str = request.path_params["job_id"]
    context.bind(job_id=job_id)
    return job_id if is_uuid(job_id) else None
