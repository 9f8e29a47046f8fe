"""The way of the requests that are most: straight to their endpoint, past Starlette's middleware and its router.

For this one route both do nothing but cost more than the endpoint's own work: the request log, which stands outside,
answers every error by itself. Whatever the route's own pattern does not match goes Starlette's way.
"""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ingress.requests import Incoming


class Direct:
    """`route` has no parameters but text, and `endpoint` is its endpoint, not yet wrapped."""

    def __init__(self, route: Route, endpoint: Callable[[Request], Awaitable[Response]], *, otherwise: ASGIApp) -> None:
        self._route, self._endpoint, self._otherwise = route, endpoint, otherwise
        self._matches = route.path_regex.match
        self._methods = route.methods or set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = None
        if scope["type"] == "http" and scope["method"] in self._methods and not scope.get("root_path"):
            found = self._matches(scope["path"])
        if found is None:
            await self._otherwise(scope, receive, send)
            return
        scope["route"], scope["endpoint"], scope["path_params"] = self._route, self._endpoint, found.groupdict()
        response = await self._endpoint(Incoming(scope, receive))
        await response(scope, receive, send)
