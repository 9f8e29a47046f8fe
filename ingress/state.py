"""What the routes of one process share, made by the lifespan in `ingress.app` and found through the request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request

from agents.api import Agent
from ingress.archive import Archive
from ingress.auth import ApiKeys, Caller, known_by_key
from ingress.channels.directory import Channels
from ingress.notices import Notices
from ingress.pressure import Pressure
from ingress.problems import unknown_job
from ingress.requests import first_headers, header
from ingress.strangers import Strangers
from ingress.tokens import ReadTokens
from shared.budgets import DeploymentBudgets
from shared.config import Settings
from shared.errors import Forbidden, Unauthorized
from shared.ids import is_uuid
from shared.jobs import JobRecord
from shared.redis import Commands
from shared.scripts import Intake
from shared.telemetry import context
from shared.tenants import Terms


@dataclass(frozen=True, kw_only=True)
class Ingress:
    settings: Settings
    budgets: DeploymentBudgets
    commands: Commands
    intake: Intake
    archive: Archive
    agents: Mapping[str, Agent]
    api_keys: ApiKeys
    channels: Channels
    strangers: Strangers
    tokens: ReadTokens
    notices: Notices
    pressure: Pressure

    async def authenticate(self, request: Request, scope: Literal["chat", "admin", "operator"] = "chat") -> Caller:
        """The caller by `Authorization: Bearer`. Raises Unauthorized, RateLimited, Forbidden or Unavailable."""
        found = self.api_keys.at_hand(first_headers(request.scope).get(b"authorization", b""))
        if found is None:
            attempt = self.strangers.attempt(request.scope)
            found = await known_by_key(self.api_keys, header(request.scope, b"authorization"), attempt)
        sha256, principal = found
        context.bind(tenant=principal.tenant)
        if not principal.may(scope):
            raise Forbidden(f"This API key lacks the scope `{scope}`.")
        return Caller(principal.tenant, sha256, principal.terms)

    async def authenticate_reader(self, request: Request) -> Caller:
        """The caller by the read token of this job's `events_url`, else by API key."""
        token = request.query_params.get("token")
        if token is None:
            return await self.authenticate(request)
        tenant = self.tokens.tenant_of(token, request.path_params["job_id"])
        if tenant is None:
            await self.strangers.attempt(request.scope).count()
            raise Unauthorized("This token does not open this job.")
        context.bind(tenant=tenant)
        return Caller(tenant, "", Terms())

    async def find(self, tenant: str, job_id: str) -> JobRecord | None:
        """A tenant's job, from Redis while it is there, else from Postgres."""
        record = await self.intake.read(job_id)
        if record is None:
            return await self.archive.job(tenant, job_id)
        return record if record.tenant == tenant else None

    async def job_of(self, request: Request, tenant: str) -> JobRecord:
        """The job a path names. Raises NotFound alike for unknown, foreign and malformed ids."""
        job_id = request.path_params["job_id"]
        record = await self.find(tenant, job_id) if is_uuid(job_id) else None
        if record is None:
            raise unknown_job()
        context.bind(job_id=job_id, agent=record.agent, conversation_id=context.conversation(record.conversation_id))
        return record


def ingress_of(request: Request) -> Ingress:
    ingress: Ingress = request.scope["app"].state.ingress
    return ingress
