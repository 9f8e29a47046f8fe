"""`/v1/queues`: how full the queues are, for operators' keys only: load tells about every tenant at once."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ingress.responses import json_response
from ops.console.state import console_of
from ops.queues import QueueStats, read_stats

_NO_STORE = {"cache-control": "no-store"}


async def list_queues(request: Request) -> Response:
    stats = await _stats(request)
    return json_response({"object": "list", "data": [msgspec.to_builtins(one) for one in stats]}, headers=_NO_STORE)


async def _stats(request: Request) -> list[QueueStats]:
    console = console_of(request)
    await console.authenticate_operator(request)
    return await read_stats(console.commands, console.queues, slots_per_worker=console.settings.worker_concurrency)
