"""`/v1/channels/{channel_id}/webhook`: what a messenger is told to call.

The body is read within bounds, checked as it came, read, and everything in it is safe in Redis before the answer. 200
means just that. 403: the provider did not sign it; nothing was looked at. 5xx: our infrastructure, send it again.
"""

import time
from dataclasses import asdict

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from ingress.channels.directory import OpenChannel
from ingress.channels.intake import Origin, take_in
from ingress.requests import read_body
from ingress.state import Ingress, ingress_of
from shared.channels.api import Answer, Hook
from shared.errors import BadSignature
from shared.telemetry import context
from shared.telemetry.tracing import Trace


class Webhook(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        channel = await channel_of(request)
        hook = hook_of(request, channel, b"")
        return _answered(channel.adapter.greet(hook, channel.credentials))

    async def post(self, request: Request) -> Response:
        channel = await channel_of(request)
        hook = hook_of(request, channel, await read_body(request, channel.adapter.max_body_bytes))
        await _verified(request, channel, hook)
        reading = channel.adapter.read(hook, channel.settings)
        tally = await take_in(ingress_of(request), channel, reading, origin_of(request))
        context.bind(**{name: count for name, count in asdict(tally).items() if count})
        return _answered(reading.answer)


async def _verified(request: Request, channel: OpenChannel, hook: Hook) -> None:
    """Raises BadSignature, or once the address has sent too many that are not genuine, RateLimited."""
    try:
        channel.adapter.verify(hook, channel.settings, channel.credentials)
    except BadSignature:
        await ingress_of(request).strangers.attempt(request.scope).count()
        raise


async def channel_of(request: Request) -> OpenChannel:
    """The channel in the path. Raises NotFound, RateLimited or Unavailable."""
    ingress = ingress_of(request)
    channel = await ingress.channels.find(request.path_params["channel_id"], ingress.strangers.attempt(request.scope))
    context.bind(tenant=channel.record.tenant, channel=channel.record.id, agent=channel.record.agent)
    return channel


def hook_of(request: Request, channel: OpenChannel, body: bytes) -> Hook:
    return Hook(
        method=request.method,
        url=_public_url(request, ingress_of(request), channel),
        headers=dict(reversed(request.headers.items())),
        query=dict(request.query_params),
        body=body,
        at_s=time.time(),
    )


def origin_of(request: Request) -> Origin:
    trace: Trace = request.scope["span"].onward()
    return Origin(request.scope["request_id"], trace.headers())


def _public_url(request: Request, ingress: Ingress, channel: OpenChannel) -> str:
    """As the provider called it. What a proxy says of itself is not believed: it is a setting."""
    base = getattr(channel.settings, "public_url", None) or ingress.settings.public_url
    if base is None:
        return str(request.url)
    query = request.scope["query_string"].decode("latin-1")
    return base.rstrip("/") + request.url.path + (f"?{query}" if query else "")


def _answered(answer: Answer) -> Response:
    return Response(answer.body, answer.status, media_type=answer.media_type)
