"""`/metrics`: this console's own numbers and the deployment's; `/v1/metrics/targets`: where its workers are scraped.

For the scraper's token or an operator's key. The token needs no server of ours, so that an outage can be watched.
"""

from starlette.requests import Request
from starlette.responses import Response

from ingress.responses import json_response
from ops.console.state import console_of
from shared import keys
from shared.telemetry.metrics import CONTENT_TYPE, exposition, opens

_NO_STORE = {"cache-control": "no-store"}


async def metrics(request: Request) -> Response:
    await _authorise(request)
    text = exposition() + await console_of(request).load.text()
    return Response(text, headers={**_NO_STORE, "content-type": CONTENT_TYPE})


async def metrics_targets(request: Request) -> Response:
    """Prometheus's HTTP service discovery: live workers that serve metrics."""
    await _authorise(request)
    commands = console_of(request).commands
    now_s, _ = await commands.run("TIME")
    entries = await commands.run("ZRANGEBYSCORE", keys.SCRAPE, f"({int(now_s)}", "+inf")
    targets = [entry.decode().split(" ", 1) for entry in entries]
    groups = [{"targets": [address], "labels": {"process": "worker", "queue": queue}} for queue, address in targets]
    return json_response(groups, headers=_NO_STORE)


async def _authorise(request: Request) -> None:
    console = console_of(request)
    if not opens(console.settings.metrics_token, request.headers.get("authorization", "")):
        await console.authenticate_operator(request)
