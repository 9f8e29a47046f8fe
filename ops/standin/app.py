"""The stand-in as one Starlette app: model endpoints, and the control endpoints tests steer it with.

    POST /_behaviour   replace the rules (ops.standin.behaviour)    GET shows them, DELETE resets
    GET  /_served      the books (ops.standin.books); `?last=N` bounds the list    DELETE resets
    GET  /_health      200 once it serves
    …    /messengers   the messengers' APIs (ops.messengers)

The control endpoints need no key: whoever reaches this server may steer it, so it binds to loopback by default.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ops.messengers.app import Messengers
from ops.standin import behaviour, tokenizer
from ops.standin.dialects.chat import Chat
from ops.standin.dialects.embeddings import Embeddings
from ops.standin.dialects.messages import Messages
from ops.standin.dialects.responses import Responses
from ops.standin.endpoint import CountEndpoint, Endpoint, Standin
from shared.errors import InvalidRequest


def create_app(standin: Standin | None = None) -> Starlette:
    """A stand-in of its own, or one over `standin`, for whoever must reach into it."""
    standin = standin or Standin()
    routes = [*_model_routes(standin), *_control_routes(standin), Messengers().mount()]
    return Starlette(routes=routes, lifespan=_lifespan)


@asynccontextmanager
async def _lifespan(_app: Starlette) -> AsyncIterator[None]:
    tokenizer.load()
    yield


def _model_routes(standin: Standin) -> list[Route]:
    responses = Responses()
    endpoints = {
        "/v1/chat/completions": Endpoint(Chat(), standin),
        "/v1/messages": Endpoint(Messages(), standin),
        "/v1/messages/count_tokens": CountEndpoint(Messages(only_counts=True), standin),
        "/v1/responses": Endpoint(responses, standin),
        "/v1/responses/input_tokens": CountEndpoint(responses, standin),
        "/v1/embeddings": Endpoint(Embeddings(), standin),
    }
    return [Route(path, endpoint, methods=["POST"]) for path, endpoint in endpoints.items()]


def _control_routes(standin: Standin) -> list[Route]:
    async def set_behaviour(request: Request) -> Response:
        try:
            _behave(standin, behaviour.read(await request.body()))
        except InvalidRequest as error:
            return _json({"error": str(error), "faults": error.faults}, error.status)
        return _json(standin.behaviour.rules)

    async def show_behaviour(_request: Request) -> Response:
        return _json(standin.behaviour.rules)

    async def reset_behaviour(_request: Request) -> Response:
        _behave(standin, behaviour.Behaviour())
        return Response(status_code=204)

    async def show_books(request: Request) -> Response:
        last = request.query_params.get("last")
        if last is None:
            return _json(standin.books.served())
        if not last.isdecimal():
            return _json({"error": "last: a number of requests is wanted"}, 422)
        return _json(standin.books.served(last=int(last)))

    async def reset_books(_request: Request) -> Response:
        standin.books.reset()
        return Response(status_code=204)

    async def health(_request: Request) -> Response:
        return _json({"status": "ok"})

    return [
        _route("POST", "/_behaviour", set_behaviour),
        _route("GET", "/_behaviour", show_behaviour),
        _route("DELETE", "/_behaviour", reset_behaviour),
        _route("GET", "/_served", show_books),
        _route("DELETE", "/_served", reset_books),
        _route("GET", "/_health", health),
    ]


def _behave(standin: Standin, rules: behaviour.Behaviour) -> None:
    """From now on; calls that the rules before held go on, by those."""
    replaced, standin.behaviour = standin.behaviour, rules
    replaced.replaced.set()


def _route(method: str, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    return Route(path, endpoint, methods=[method])


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
