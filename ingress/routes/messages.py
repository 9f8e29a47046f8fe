"""`POST /v1/agents/{agent_id}/messages`: a message becomes a job, in one Redis round trip.

202 means the job is in Redis and will end in one of its states, whatever happens to us. A repeat (same
Idempotency-Key, or an SDK's own retry) answers 200 with the job of the first try, and is no further message to any
limit. Every answer that comes after admission says how the sender's rate windows stand.
"""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from agents.api import Agent
from ingress.admission import Begun, admit, admitting, not_readable_yet, traced
from ingress.auth import Caller
from ingress.body import parse_message
from ingress.message import ChatMessage
from ingress.repeats import idempotency_of
from ingress.requests import read_body
from ingress.responses import Encoded, job_path, job_response
from ingress.state import Ingress, ingress_of
from shared.errors import NotFound
from shared.ids import uuid7
from shared.jobs import JobRecord
from shared.wire import TurnPayload


async def post_message(request: Request) -> Response:
    ingress = ingress_of(request)
    caller = await ingress.authenticate(request)
    agent = ingress.agents.get(request.path_params["agent_id"])
    if agent is None:
        raise NotFound("There is no such agent; `GET /v1/agents` lists them.")
    body = parse_message(await read_body(request, ingress.settings.max_body_bytes), ingress.settings)
    repeat = idempotency_of(request, agent_id=agent.id, body=body.canonical, caller=caller.key_sha256)
    how = admitting(ingress, caller, agent, repeat, ttl_s=body.ttl_s, policy=body.policy)
    begun: Begun | None = request.scope.get("begun")
    payload = (
        begun.payload
        if begun
        else payload_of(caller, agent, body, trace=traced(request), request_id=request.scope["request_id"])
    )
    admitted = await admit(ingress, request, caller, payload, how)
    if admitted.record is not None:
        return shown(ingress, admitted.record, 202, admitted.headers)
    record = await ingress.find(caller.tenant, admitted.job_id)
    if record is None:
        raise not_readable_yet()
    return shown(ingress, record, 200, {**admitted.headers, "idempotent-replayed": "true"})


def payload_of(
    caller: Caller, agent: Agent, body: ChatMessage, *, trace: dict[str, str], request_id: str
) -> TurnPayload:
    return TurnPayload(
        job_id=uuid7(),
        tenant=caller.tenant,
        agent=agent.id,
        conversation_id=body.conversation_id or uuid7(),
        message=body.message,
        user_id=body.user_id,
        queue=agent.queue,
        metadata=body.metadata or {},
        callback_url=body.callback_url,
        domain=body.domain,
        feature=body.feature,
        trace=trace,
        request_id=request_id,
    )


def shown(ingress: Ingress, record: JobRecord, status: int, headers: Mapping[str, str]) -> Encoded:
    url = events_url(ingress, record.tenant, record.id)
    return job_response(record, status, {"location": job_path(record.id), **headers}, events_url=url)


def events_url(ingress: Ingress, tenant: str, job_id: str) -> str:
    """With a token that opens this job to whoever has the address."""
    return f"{job_path(job_id)}/events?token={ingress.tokens.sign(tenant, job_id)}"
