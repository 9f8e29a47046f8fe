"""`GET /v1/models` and `/v1/models/{model}`: the agents, as models."""

from starlette.requests import Request
from starlette.responses import Response

from ingress.openai.asking import agent_of
from ingress.openai.shapes import model
from ingress.responses import json_response
from ingress.state import ingress_of


async def list_models(request: Request) -> Response:
    ingress = ingress_of(request)
    await ingress.authenticate(request)
    return json_response({"object": "list", "data": [model(agent_id) for agent_id in ingress.agents]})


async def get_model(request: Request) -> Response:
    ingress = ingress_of(request)
    await ingress.authenticate(request)
    return json_response(model(agent_of(ingress, request.path_params["model"]).id))
