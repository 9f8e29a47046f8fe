"""`GET /v1/agents`: which agents there are; `GET /`: where to go from here."""

from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import Response

from ingress.responses import json_response
from ingress.state import ingress_of

_ABOUT = {
    "name": "switchboard",
    "version": version("switchboard"),
    "links": {
        "agents": "/v1/agents",
        "messages": "/v1/agents/{agent_id}/messages",
        "job": "/v1/jobs/{job_id}",
        "events": "/v1/jobs/{job_id}/events",
        "responses": "/v1/responses",
        "chat": "/v1/chat/completions",
        "models": "/v1/models",
        "openapi": "/openapi.json",
        "docs": "/docs",
        "live": "/health/live",
        "ready": "/health/ready",
        "stack": "/health/stack",
    },
}


async def index(_request: Request) -> Response:
    return json_response(_ABOUT)


async def list_agents(request: Request) -> Response:
    ingress = ingress_of(request)
    await ingress.authenticate(request)
    agents = [
        {"id": agent.id, "object": "agent", "label": agent.label, "description": agent.description}
        for agent in ingress.agents.values()
    ]
    return json_response({"object": "list", "data": agents})
